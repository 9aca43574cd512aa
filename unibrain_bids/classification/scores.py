"""How good scores are: discrimination, calibration, decisions, and how sure that is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

__all__ = ["auc", "bootstrap_interval", "classification_scores", "regression_scores", "reliability", "youden_threshold"]

Array = NDArray[np.float64]

BOOTSTRAPS = 2000
_BINS = 5


def auc(target: Array, scores: Array) -> Any:
    """Area under the ROC curve; ties count half.

    Parameters
    ----------
    target
        (..., P) 0 or 1.
    scores
        (..., P).

    Returns
    -------
    ndarray
        (...,), NaN where there is one class only.
    """
    target, scores = np.broadcast_arrays(target, scores)
    ranks = rankdata(scores, axis=-1)
    positive = target.sum(axis=-1)
    pairs = positive * (target.shape[-1] - positive)
    with np.errstate(invalid="ignore", divide="ignore"):
        return ((ranks * target).sum(axis=-1) - positive * (positive + 1) / 2) / np.where(pairs, pairs, np.nan)


def correlation(target: Array, scores: Array) -> Any:
    """Pearson's r over the last axis; NaN where one of the two does not vary."""
    a = target - target.mean(axis=-1, keepdims=True)
    b = scores - scores.mean(axis=-1, keepdims=True)
    norm = np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (a * b).sum(axis=-1) / np.where(norm > 0, norm, np.nan)


def bootstrap_interval(statistic: Any, target: Array, scores: Array, *, seed: int) -> list[float]:
    """95 % percentile interval of `statistic(target, scores)` over participants (P,) drawn with replacement."""
    drawn = np.random.default_rng(seed).integers(0, len(target), (BOOTSTRAPS, len(target)))
    values = statistic(target[drawn], scores[drawn])
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return [float(low), float(high)]


def classification_scores(target: Array, logits: Array, decisions: NDArray[np.bool_], *, seed: int) -> dict[str, Any]:
    """Return the figures of a classifier.

    Parameters
    ----------
    target
        (P,) 0 or 1.
    logits
        (P,) held-out scores.
    decisions
        (P,) whether class 1 was chosen, by a threshold from training data.
    seed
        Of the bootstrap.
    """
    probability = 1 / (1 + np.exp(-logits))
    slope, intercept = _calibration(target, logits)
    sensitivity, specificity = float(decisions[target == 1].mean()), float((~decisions[target == 0]).mean())
    return {
        "auc": float(auc(target, logits)),
        "auc_interval": bootstrap_interval(auc, target, logits, seed=seed),
        "brier": float(np.mean((probability - target) ** 2)),
        "brier_of_prevalence": float(target.mean() * (1 - target.mean())),
        "calibration_slope": slope,
        "calibration_intercept": intercept,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "balanced_accuracy": (sensitivity + specificity) / 2,
    }


def regression_scores(target: Array, predicted: Array, *, seed: int) -> dict[str, Any]:
    """Return the figures of a regression: target and held-out predictions (P,)."""
    return {
        "r": float(correlation(target, predicted)),
        "r_interval": bootstrap_interval(correlation, target, predicted, seed=seed),
        "mean_absolute_error": float(np.mean(np.abs(predicted - target))),
        "mean_absolute_error_of_mean": float(np.mean(np.abs(target - target.mean()))),
        "r2": float(1 - np.sum((predicted - target) ** 2) / np.sum((target - target.mean()) ** 2)),
    }


def youden_threshold(target: Array, logits: Array) -> float:
    """Return the logit above which to choose class 1: where sensitivity + specificity is largest."""
    known = np.isfinite(logits)
    target, logits = target[known], logits[known]
    order = np.unique(logits)
    candidates = np.concatenate([[order[0] - 1], (order[1:] + order[:-1]) / 2])
    chosen = logits > candidates[:, None]
    youden = chosen[:, target == 1].mean(axis=1) - chosen[:, target == 0].mean(axis=1)
    return float(candidates[int(np.argmax(youden))])


def reliability(target: Array, logits: Array) -> list[dict[str, float]]:
    """Return predicted and observed frequency of class 1 in fifths of the predicted probability."""
    probability = 1 / (1 + np.exp(-logits))
    parts = np.array_split(np.argsort(probability, kind="stable"), _BINS)
    return [
        {
            "predicted": float(probability[part].mean()),
            "observed": float(target[part].mean()),
            "participants": len(part),
        }
        for part in parts
        if len(part)
    ]


def _calibration(target: Array, logits: Array) -> tuple[float, float]:
    """Slope and intercept of a logistic regression of the class on the logit: 1 and 0 if well calibrated."""
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=np.inf, max_iter=1000).fit(logits[:, None], target)
    return float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
