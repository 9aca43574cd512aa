"""Could it be chance? Labels are exchanged at random, and everything is fitted again.

Fitting a graph network a thousand times is out of reach, so the test is made with a model whose fit is a matrix
product: ridge regression on the labels (0, 1), in its dual form. Scaling, kernels and their eigenvectors do not depend
on the labels, so all permutations go through the whole nested cross-validation at once, the choice of the penalty in
the inner folds included. Labels are exchanged among the participants of the same fold (and of the same site, where
there are sites): given the folds, all such exchanges are equally likely if features tell nothing, so the test is exact
although the folds were stratified by the true labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unibrain_bids.classification.cohort import Cohort, Scaler
from unibrain_bids.classification.linear import PENALTIES
from unibrain_bids.classification.scores import auc, correlation
from unibrain_bids.classification.splits import Split

__all__ = ["PermutationTest", "exchanged_targets", "fixed_score_test", "refitted_test"]

_INNER = 3


@dataclass(frozen=True)
class PermutationTest:
    """Outcome of a test.

    Attributes
    ----------
    statistic
        With the true labels: AUC, or Pearson's r.
    null
        With exchanged labels (B,).
    """

    statistic: float
    null: NDArray[np.float64]

    @property
    def p(self) -> float:
        """One-sided p value; at best 1 / (B + 1)."""
        return float((1 + np.sum(self.null >= self.statistic)) / (1 + len(self.null)))


def exchanged_targets(cohort: Cohort, splits: Sequence[Split], permutations: int, seed: int) -> NDArray[np.float64]:
    """Return the participants' targets (P, 1 + B): the true ones, then exchanged within folds and sites."""
    blocks = np.zeros(len(cohort))
    for k, split in enumerate(splits):
        blocks[split.test] = k
    if cohort.sites is not None:
        blocks = blocks * (len(cohort) + 1) + np.unique(cohort.sites, return_inverse=True)[1]
    block = cohort.of_participants(blocks)
    target = cohort.of_participants(cohort.target)
    columns = np.tile(target[:, None], (1, 1 + permutations))
    generator = np.random.default_rng(seed)
    for value in np.unique(block):
        rows = np.flatnonzero(block == value)
        columns[rows, 1:] = generator.permuted(columns[rows, 1:], axis=0)
    return columns


def refitted_test(cohort: Cohort, splits: Sequence[Split], permutations: int, seed: int) -> PermutationTest:
    """Test with ridge regression on the labels, fitted anew for each exchange of them.

    Parameters
    ----------
    cohort
        The scans.
    splits
        One partition into folds.
    permutations
        B.
    seed
        Of the exchanges.
    """
    place = np.unique(cohort.participants, return_inverse=True)[1]
    targets = exchanged_targets(cohort, splits, permutations, seed)
    by_scan, values = targets[place], cohort.flat
    held_out = np.zeros_like(by_scan)
    for split in splits:
        losses = np.zeros((len(PENALTIES), by_scan.shape[1]))
        for inner in _parts(cohort.participants[split.train]):
            train, test = split.train[inner.train], split.train[inner.test]
            predicted = _predict(values[train], by_scan[train], values[test])
            losses += np.stack([((one - by_scan[test]) ** 2).sum(axis=0) for one in predicted])
        best = losses.argmin(axis=0)
        for k, one in enumerate(_predict(values[split.train], by_scan[split.train], values[split.test])):
            held_out[np.ix_(split.test, best == k)] = one[:, best == k]
    return _compare(cohort, targets, cohort.of_participants(held_out))


def fixed_score_test(
    cohort: Cohort, splits: Sequence[Split], scores: NDArray[np.float64], permutations: int, seed: int
) -> PermutationTest:
    """Test whether held-out scores (P,) of participants go with the labels; nothing is fitted again."""
    targets = exchanged_targets(cohort, splits, permutations, seed)
    return _compare(cohort, targets, np.tile(scores[:, None], (1, targets.shape[1])))


def _compare(cohort: Cohort, targets: NDArray[np.float64], scores: NDArray[np.float64]) -> PermutationTest:
    statistic = correlation if cohort.classes is None else auc
    values = np.nan_to_num(statistic(targets.T, scores.T), nan=0.0 if cohort.classes is None else 0.5)
    return PermutationTest(float(values[0]), values[1:])


def _parts(participants: NDArray[np.str_]) -> list[Split]:
    from sklearn.model_selection import GroupKFold

    folds = min(_INNER, len(set(participants)))
    return [Split(train, test) for train, test in GroupKFold(folds).split(participants, groups=participants)]


def _predict(
    train: NDArray[np.float64], targets: NDArray[np.float64], test: NDArray[np.float64]
) -> list[NDArray[np.float64]]:
    """Predictions (tests, B) of ridge regression for each of `PENALTIES`, of targets (N, B)."""
    scaler = Scaler.fit(train)
    known, new = scaler(train), scaler(test)
    mean = known.mean(axis=0)
    known, new = known - mean, new - mean
    size = len(known) * known.shape[1]
    eigenvalues, vectors = np.linalg.eigh(known @ known.T / size)
    centre = targets.mean(axis=0)
    rotated = vectors.T @ (targets - centre)
    kernel = (new @ known.T / size) @ vectors
    return [kernel / (np.maximum(eigenvalues, 0) + penalty) @ rotated + centre for penalty in PENALTIES]
