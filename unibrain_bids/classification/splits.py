"""Who is trained on and who is tested: participants never stand on both sides."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unibrain_bids.classification.cohort import Cohort
from unibrain_bids.errors import UsageError

__all__ = ["INNER_FOLDS", "Split", "balances_sites", "check_size", "inner_splits", "outer_splits", "site_splits"]

INNER_FOLDS = 3
MOST_SITE_FOLDS = 10
_RANGES = 5  # of a target of numbers, that each fold has its part of


@dataclass(frozen=True)
class Split:
    """Numbers of the scans that are trained on and tested."""

    train: NDArray[np.intp]
    test: NDArray[np.intp]


def check_size(cohort: Cohort, folds: int) -> None:
    """See to it that every fold, and every inner fold of what it leaves, can hold a participant of each class.

    Raises
    ------
    UsageError
        There are fewer participants (of a class) than folds.
    """
    needed = max(folds, math.ceil(INNER_FOLDS * folds / (folds - 1)))
    target = cohort.of_participants(cohort.target)
    groups = {"": len(target)} if cohort.classes is None else {
        f" of class {name}": int((target == k).sum()) for k, name in enumerate(cohort.classes)
    }  # fmt: skip
    for name, count in groups.items():
        if count < needed:
            raise UsageError(
                f"Only {count} participant(s){name} can be used; {folds} folds of cross-validation need {needed}.",
                "More participants with derivatives and a value in that column are needed.",
            )


def outer_splits(cohort: Cohort, folds: int, seed: int) -> list[Split]:
    """Split into `folds` with about the same part of each class (or range), and site (see `balances_sites`)."""
    return list(_stratified(cohort, folds, seed))


def inner_splits(cohort: Cohort, folds: int, seed: int, *, by_site: bool) -> list[Split]:
    """Split a training set the way the outer split was made: by site, where there are enough of them, or not."""
    if by_site and cohort.sites is not None and len(set(cohort.sites)) >= folds:
        return list(_grouped(cohort.sites, folds, cohort))
    return list(_stratified(cohort, folds, seed))


def site_splits(cohort: Cohort) -> list[Split]:
    """Hold out each site in turn; beyond ten, sites are held out in ten lots."""
    assert cohort.sites is not None
    return list(_grouped(cohort.sites, min(len(set(cohort.sites)), MOST_SITE_FOLDS), cohort))


def _grouped(groups: NDArray[np.str_], folds: int, cohort: Cohort) -> Iterator[Split]:
    from sklearn.model_selection import GroupKFold

    for train, test in GroupKFold(folds).split(cohort.target, groups=groups):
        yield Split(train, test)


def _stratified(cohort: Cohort, folds: int, seed: int) -> Iterator[Split]:
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    strata = _strata(cohort, folds)
    for train, test in splitter.split(strata, strata, groups=cohort.participants):
        yield Split(train, test)


def balances_sites(cohort: Cohort, folds: int) -> bool:
    """Tell whether folds can have a part of each class (or range) of each site: at least one scan."""
    return cohort.sites is not None and int(np.bincount(_by_site(cohort, cohort.sites, folds)).min()) >= folds


def _strata(cohort: Cohort, folds: int) -> NDArray[np.intp]:
    """Class, or range of the target, of each scan; together with its site where that leaves enough in each."""
    if cohort.sites is not None and balances_sites(cohort, folds):
        return _by_site(cohort, cohort.sites, folds)
    return _kind(cohort, folds)


def _kind(cohort: Cohort, folds: int) -> NDArray[np.intp]:
    if cohort.classes is None:
        ranges = max(1, min(_RANGES, len(set(cohort.participants)) // folds))
        return np.searchsorted(np.quantile(cohort.target, np.arange(1, ranges) / ranges), cohort.target)
    return cohort.target.astype(np.intp)


def _by_site(cohort: Cohort, sites: NDArray[np.str_], folds: int) -> NDArray[np.intp]:
    kind, place = _kind(cohort, folds), np.unique(sites, return_inverse=True)[1]
    return np.unique(kind + (kind.max() + 1) * place, return_inverse=True)[1]
