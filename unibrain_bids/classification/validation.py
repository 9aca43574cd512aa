"""Nested cross-validation: whatever is fitted or chosen is fitted and chosen within the training part of a fold.

In each training part, inner folds choose the penalty of the ridge, the epochs of the graph, which of the two becomes
the head, and the threshold of its decisions; the held-out participants are then scored once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from unibrain_bids.classification.cohort import Cohort, Scaler
from unibrain_bids.classification.graph import Graph
from unibrain_bids.classification.linear import Ridge, covariates_alone, mean_loss
from unibrain_bids.classification.permutation import PermutationTest, fixed_score_test, refitted_test
from unibrain_bids.classification.scores import (
    auc,
    classification_scores,
    regression_scores,
    reliability,
    youden_threshold,
)
from unibrain_bids.classification.splits import (
    INNER_FOLDS,
    Split,
    balances_sites,
    check_size,
    inner_splits,
    outer_splits,
    site_splits,
)

__all__ = ["CANDIDATES", "FOLDS", "HEAD", "Chosen", "Result", "Validation", "choose", "leakage", "validate"]

Array = NDArray[np.float64]

FOLDS = 5
HEAD, BASELINE = "head", "covariates"
SMALL_COHORT, REPEATS = 200, 2


class Fitted(Protocol):
    """A model that scores scans."""

    def scores(self, cohort: Cohort) -> Array:
        """Logits of class 1 (N,), or the number."""


class Candidate(Protocol):
    """A model that can be fitted."""

    @property
    def name(self) -> str:
        """In reports."""

    def tune(self, cohort: Cohort, splits: Sequence[Split], seed: int) -> tuple[Any, Array]:
        """Best setting, and its held-out scores (N,)."""

    def fit(self, cohort: Cohort, setting: Any, seed: int) -> Fitted:
        """Fit with a setting."""


CANDIDATES: tuple[Candidate, ...] = (Ridge("ridge"), Graph())


@dataclass(frozen=True)
class Chosen:
    """The head as the inner folds chose it: candidate, setting, logit from which class 1 is chosen."""

    candidate: Candidate
    setting: Any
    threshold: float


@dataclass(frozen=True)
class Result:
    """Held-out scores of one model.

    Attributes
    ----------
    scores
        (P,) logits or numbers, mean over scans and repeats.
    margins
        (P,) scores minus the fold's threshold: above 0, class 1 is chosen.
    """

    scores: Array
    margins: Array


@dataclass(frozen=True)
class Validation:
    """What cross-validation has shown.

    Attributes
    ----------
    scheme
        In words, how participants were held out.
    target, sites
        (P,) of the participants, sorted by identifier.
    classes
        Of the cohort.
    results
        Of each model: "head" (what the inner folds chose), its candidates, and the baseline "covariates".
    figures
        Their figures, by model.
    choices
        Candidate to the number of folds in which it was chosen.
    refitted, fixed
        Permutation tests: of ridge regression fitted again, and of the head's held-out scores.
    """

    scheme: str
    target: Array
    classes: tuple[str, str] | None
    results: dict[str, Result]
    figures: dict[str, dict[str, Any]]
    choices: dict[str, int]
    refitted: PermutationTest
    fixed: PermutationTest
    by_site: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def reliability(self) -> list[dict[str, float]]:
        """Of the head (see `scores.reliability`)."""
        return reliability(self.target, self.results[HEAD].scores)


def validate(
    cohort: Cohort,
    *,
    by_site: bool = False,
    candidates: Sequence[Candidate] = CANDIDATES,
    folds: int = FOLDS,
    repeats: int | None = None,
    permutations: int = 1000,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> Validation:
    """Validate the candidates, the head chosen among them, and the baseline without images.

    Parameters
    ----------
    cohort
        The scans.
    by_site
        Hold out whole sites. Otherwise `folds` folds, each with its part of every class and site.
    candidates
        Models among which the inner folds choose.
    folds, repeats
        Number of folds, and how often it all is done with other folds (None: twice below 200 participants).
    permutations
        Of each test.
    seed
        Of folds, networks, exchanges and bootstraps.
    progress
        Called with a line for each fold.

    Raises
    ------
    UsageError
        There are too few participants.
    """
    check_size(cohort, folds)
    if by_site:
        partitions = [site_splits(cohort)]
    else:
        repeats = repeats or (1 if len(set(cohort.participants)) >= SMALL_COHORT else REPEATS)
        partitions = [outer_splits(cohort, folds, seed + k) for k in range(repeats)]
    results, choices = _cross_validate(cohort, partitions, candidates, by_site=by_site, seed=seed, progress=progress)
    target = cohort.of_participants(cohort.target)
    return Validation(
        scheme=_scheme(cohort, partitions, by_site=by_site),
        target=target,
        classes=cohort.classes,
        results=results,
        figures={name: _figures(cohort, target, result, seed) for name, result in results.items()},
        choices=choices,
        refitted=refitted_test(cohort, partitions[0], permutations, seed),
        fixed=fixed_score_test(cohort, partitions[0], results[HEAD].scores, permutations, seed),
        by_site=_by_site(cohort, target, results[HEAD]),
    )


def choose(
    cohort: Cohort, *, by_site: bool = False, candidates: Sequence[Candidate] = CANDIDATES, seed: int = 0
) -> tuple[Chosen, Array]:
    """Choose candidate, setting and threshold by inner folds; also returns the held-out scores (N,)."""
    splits = inner_splits(cohort, INNER_FOLDS, seed, by_site=by_site)
    tuned = [_tune(cohort, candidate, splits, seed) for candidate in candidates]
    losses = [mean_loss(cohort, held_out) for _, held_out in tuned]
    return tuned[int(np.argmin(losses))]


def leakage(cohort: Cohort, *, seed: int = 0) -> dict[str, float] | None:
    """Tell how well the features give away the site: balanced accuracy of a ridge classifier in five folds.

    None without at least two sites of five participants or more; smaller sites do not take part.
    """
    if cohort.sites is None:
        return None
    from sklearn.linear_model import RidgeClassifier
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import StratifiedGroupKFold

    names, counts = np.unique(cohort.sites, return_counts=True)
    large = cohort.take(np.flatnonzero(np.isin(cohort.sites, names[counts >= FOLDS])))
    if large.sites is None or len(set(large.sites)) < 2:
        return None
    guessed = np.empty(len(large), dtype=large.sites.dtype)
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    values = large.flat
    for train, test in splitter.split(values, large.sites, groups=large.participants):
        scaler = Scaler.fit(values[train])
        classifier = RidgeClassifier(alpha=0.01 * values[train].size, class_weight="balanced")
        guessed[test] = classifier.fit(scaler(values[train]), large.sites[train]).predict(scaler(values[test]))
    accuracy = float(balanced_accuracy_score(large.sites, guessed))
    return {"balanced_accuracy": accuracy, "chance": 1 / len(set(large.sites)), "sites": len(set(large.sites))}


def _cross_validate(
    cohort: Cohort,
    partitions: Sequence[Sequence[Split]],
    candidates: Sequence[Candidate],
    *,
    by_site: bool,
    seed: int,
    progress: Callable[[str], None],
) -> tuple[dict[str, Result], dict[str, int]]:
    """Return the held-out results of every model, and in how many folds each candidate became the head."""
    names, repeats = [HEAD, *(candidate.name for candidate in candidates), BASELINE], len(partitions)
    scores, margins = ({name: np.zeros(len(cohort)) for name in names} for _ in range(2))
    heads: Counter[str] = Counter()
    for repeat, partition in enumerate(partitions):
        for k, split in enumerate(partition):
            train, test = cohort.take(split.train), cohort.take(split.test)
            choices = _choices(train, candidates, by_site=by_site, seed=seed + repeat)
            heads[choices[HEAD].candidate.name] += 1
            for name, chosen in choices.items():
                held_out = chosen.candidate.fit(train, chosen.setting, seed).scores(test)
                scores[name][split.test] += held_out / repeats
                margins[name][split.test] += (held_out - chosen.threshold) / repeats
            progress(f"fold {k + 1} of {len(partition)}, repeat {repeat + 1} of {repeats}")
    results = {name: Result(*map(cohort.of_participants, (scores[name], margins[name]))) for name in names}
    return results, dict(heads)


def _choices(train: Cohort, candidates: Sequence[Candidate], *, by_site: bool, seed: int) -> dict[str, Chosen]:
    """Return every model with its setting, and the head among them."""
    splits = inner_splits(train, INNER_FOLDS, seed, by_site=by_site)
    tuned = {candidate.name: _tune(train, candidate, splits, seed) for candidate in candidates}
    head = min(tuned, key=lambda name: mean_loss(train, tuned[name][1]))
    baseline = _tune(train, Ridge(BASELINE, covariates_alone), splits, seed)
    return {HEAD: tuned[head][0], **{name: chosen for name, (chosen, _) in tuned.items()}, BASELINE: baseline[0]}


def _tune(cohort: Cohort, candidate: Candidate, splits: Sequence[Split], seed: int) -> tuple[Chosen, Array]:
    setting, held_out = candidate.tune(cohort, splits, seed)
    threshold = 0.0 if cohort.classes is None else youden_threshold(cohort.target, held_out)
    return Chosen(candidate, setting, threshold), held_out


def _figures(cohort: Cohort, target: Array, result: Result, seed: int) -> dict[str, Any]:
    if cohort.classes is None:
        return regression_scores(target, result.scores, seed=seed)
    return classification_scores(target, result.scores, result.margins > 0, seed=seed)


def _by_site(cohort: Cohort, target: Array, head: Result) -> dict[str, dict[str, float]]:
    """Number of participants and the head's AUC (or mean absolute error) at each site."""
    if cohort.sites is None:
        return {}
    first = np.unique(cohort.participants, return_index=True)[1]
    sites = cohort.sites[first]
    figures = {}
    for site in sorted(set(sites.tolist())):
        here = sites == site
        figure = (
            {"mean_absolute_error": float(np.mean(np.abs(head.scores[here] - target[here])))}
            if cohort.classes is None
            else {"auc": float(auc(target[here], head.scores[here]))}
        )
        figures[site] = {"participants": int(here.sum()), **figure}
    return figures


def _scheme(cohort: Cohort, partitions: Sequence[Sequence[Split]], *, by_site: bool) -> str:
    if by_site:
        return f"whole sites held out, in {len(partitions[0])} lots"
    times = f", repeated {len(partitions)} times" if len(partitions) > 1 else ""
    kind = "range" if cohort.classes is None else "class"
    site = " and site" if balances_sites(cohort, len(partitions[0])) else ""
    return f"{len(partitions[0])} folds of participants, balanced by {kind}{site}{times}"
