"""The linear models: ridge logistic regression, or ridge regression of a number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unibrain_bids.classification.cohort import Cohort, Scaler
from unibrain_bids.classification.splits import Split

__all__ = ["PENALTIES", "LinearModel", "Ridge", "covariates_alone", "image_features"]

# Per scaled feature and scan, so that they mean the same in small and large cohorts.
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


def image_features(cohort: Cohort) -> NDArray[np.float64]:
    """All features (N, D) of the images."""
    return cohort.flat


def covariates_alone(cohort: Cohort) -> NDArray[np.float64]:
    """The covariates (N, K), without the images."""
    return cohort.covariates


@dataclass(frozen=True)
class LinearModel:
    """A fitted model: scores are logits of class 1, or the number.

    Attributes
    ----------
    scaler
        Of the features.
    weight, bias
        (D,) and a number.
    features
        Which features of a cohort it sees.
    """

    scaler: Scaler
    weight: NDArray[np.float64]
    bias: float
    features: Callable[[Cohort], NDArray[np.float64]] = image_features

    def scores(self, cohort: Cohort) -> NDArray[np.float64]:
        """Return the scores (N,) of scans."""
        return self.scaler(self.features(cohort)) @ self.weight + self.bias


@dataclass(frozen=True)
class Ridge:
    """How such a model is fitted.

    Attributes
    ----------
    name
        In reports.
    features
        Which features of a cohort it sees.
    """

    name: str
    features: Callable[[Cohort], NDArray[np.float64]] = image_features

    def tune(self, cohort: Cohort, splits: Sequence[Split], seed: int) -> tuple[float, NDArray[np.float64]]:
        """Return the best penalty, and the held-out scores (N,) that it gives (NaN where never held out)."""
        scores = np.full((len(PENALTIES), len(cohort)), np.nan)
        for split in splits:
            train, test = cohort.take(split.train), cohort.take(split.test)
            for k, penalty in enumerate(PENALTIES):
                scores[k, split.test] = self.fit(train, penalty, seed).scores(test)
        best = int(np.argmin([mean_loss(cohort, row) for row in scores]))
        return PENALTIES[best], scores[best]

    def fit(self, cohort: Cohort, setting: float, seed: int) -> LinearModel:
        """Fit with the penalty `setting`."""
        values = self.features(cohort)
        scaler = Scaler.fit(values)
        scaled = scaler(values)
        penalty = setting * len(cohort) * max(scaled.shape[1], 1)
        if not scaled.shape[1]:
            return LinearModel(scaler, np.zeros(0), _constant(cohort), self.features)
        if cohort.classes is None:
            from sklearn.linear_model import Ridge as Regressor

            regressor = Regressor(alpha=penalty).fit(scaled, cohort.target)
            return LinearModel(scaler, regressor.coef_, float(regressor.intercept_), self.features)
        from sklearn.linear_model import LogisticRegression

        # A logistic loss curves a quarter as much as a square: the same penalty weighs four times as much.
        classifier = LogisticRegression(C=4.0 / penalty, max_iter=1000).fit(scaled, cohort.target)
        return LinearModel(scaler, classifier.coef_[0], float(classifier.intercept_[0]), self.features)


def mean_loss(cohort: Cohort, scores: NDArray[np.float64]) -> float:
    """Mean log loss, or squared error, over the scans with a score."""
    known = np.isfinite(scores)
    score, target = scores[known], cohort.target[known]
    if cohort.classes is None:
        return float(np.mean((score - target) ** 2))
    return float(np.mean(np.logaddexp(0, score) - target * score))


def _constant(cohort: Cohort) -> float:
    mean = float(cohort.target.mean())
    return mean if cohort.classes is None else float(np.log(mean / (1 - mean)))
