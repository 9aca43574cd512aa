"""From a cohort to a validated head."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from unibrain_bids.classification.card import FROM_TABLES, new_card
from unibrain_bids.classification.cohort import Cohort
from unibrain_bids.classification.head import Head
from unibrain_bids.classification.novelty import Novelty
from unibrain_bids.classification.splits import INNER_FOLDS
from unibrain_bids.classification.validation import (
    CANDIDATES,
    FOLDS,
    HEAD,
    Candidate,
    Validation,
    choose,
    leakage,
    validate,
)

__all__ = ["Trained", "train_head"]

_PROCEDURE = (
    f"In each training set, {INNER_FOLDS} inner folds choose the penalty of a ridge regression, the epochs of a graph "
    "network, which of the two becomes the head (the smaller loss), and its threshold. The head was then trained in "
    "the same way on all participants; the figures are those of held-out participants in the outer folds."
)
_PERMUTATIONS = (
    "Labels are exchanged among the participants of the same outer fold (and site). Refitted: a ridge regression on "
    "the labels goes through the whole nested cross-validation for each exchange. Fixed: the head's held-out scores "
    "against exchanged labels, without fitting it again."
)


@dataclass(frozen=True)
class Trained:
    """A head, and what its validation has shown: by folds and, with enough sites, with whole sites held out."""

    head: Head
    validations: tuple[Validation, ...]


def train_head(
    cohort: Cohort,
    *,
    label: str,
    target: str,
    weights: str,
    version: str,
    atlas: str,
    excluded: dict[str, str],
    features: Mapping[str, Any] = FROM_TABLES,
    candidates: Sequence[Candidate] = CANDIDATES,
    folds: int = FOLDS,
    repeats: int | None = None,
    permutations: int = 1000,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> Trained:
    """Validate and train a head.

    Parameters
    ----------
    cohort
        The scans.
    label, target
        Label of the head, and the column that it predicts.
    weights, version, atlas
        What made the derivatives: SHA-256 of the weights, version of the package, atlas.
    excluded
        Participants or scans that were left out, with reasons.
    features
        What the head sees (`card.FROM_TABLES` or `card.FROM_MODEL`).
    candidates, folds, repeats, permutations, seed, progress
        See `validation.validate`.

    Raises
    ------
    UsageError
        There are too few participants.
    """
    held_out = partial(
        validate, cohort, candidates=candidates, folds=folds, repeats=repeats, permutations=permutations, seed=seed,
        progress=progress,
    )  # fmt: skip
    n_sites = 0 if cohort.sites is None else len(set(cohort.sites))
    validations = tuple(held_out(by_site=by_site) for by_site in ([False, True] if n_sites > 1 else [False]))
    chosen, _ = choose(cohort, candidates=candidates, seed=seed)
    card = new_card(
        label,
        target,
        cohort.classes,
        weights=weights,
        version=version,
        atlas=atlas,
        features=features,
        Kind=chosen.candidate.name,
        Setting=chosen.setting,
        Threshold=chosen.threshold,
        Training=_training(cohort, n_sites),
        Excluded=excluded,
        Procedure=_PROCEDURE,
        Permutations=_PERMUTATIONS,
        Validation=[_described(validation) for validation in validations],
        SiteFromFeatures=leakage(cohort, seed=seed),
        Seed=seed,
    )
    model: Any = chosen.candidate.fit(cohort, chosen.setting, seed)
    return Trained(Head(model, Novelty.fit(cohort), chosen.threshold, card), validations)


def _training(cohort: Cohort, n_sites: int) -> dict[str, Any]:
    target = cohort.of_participants(cohort.target)
    if cohort.classes is None:
        spread = {"Mean": float(target.mean()), "StandardDeviation": float(target.std())}
    else:
        spread = {name: int(np.sum(target == k)) for k, name in enumerate(cohort.classes)}
    return {"Scans": len(cohort), "Participants": len(target), "Sites": n_sites or None, "Target": spread}


def _described(validation: Validation) -> dict[str, Any]:
    tests = {"Refitted": validation.refitted, "Fixed": validation.fixed}
    return {
        "Scheme": validation.scheme,
        "Figures": validation.figures,
        "HeadChosen": validation.choices,
        "PermutationTests": {
            name: {
                "Statistic": test.statistic,
                "P": test.p,
                "Permutations": len(test.null),
                "NullMean": float(test.null.mean()),
                "Null95": float(np.quantile(test.null, 0.95)),
            }
            for name, test in tests.items()
        },
        "Reliability": validation.reliability if validation.classes and HEAD in validation.figures else None,
        "BySite": validation.by_site,
    }
