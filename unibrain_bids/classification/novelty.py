"""Is a scan like those that a head was trained on? Only summaries are kept, no participant's features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from unibrain_bids.classification.cohort import Cohort, Scaler

__all__ = ["Novelty", "Verdict"]

Verdict = Literal["inside", "flagged", "refused"]

_COMPONENTS, _PER_COMPONENT = 20, 5
_QUANTILE = 0.99
_REFUSED = 2.0
_FOLDS = 5


@dataclass(frozen=True)
class Novelty:
    """Distance from the training scans: Mahalanobis' along their principal components, Euclid's beside them.

    Attributes
    ----------
    scaler
        Of the features (D,).
    components
        (K, D) directions, of unit length.
    variances
        (K,) variances along them.
    rest
        Mean variance beside them, per feature.
    limit
        The 99th percentile of the distances of training scans, each measured by the other folds'. Scans beyond it are
        flagged, those beyond twice as much refused.
    """

    scaler: Scaler
    components: NDArray[np.float64]
    variances: NDArray[np.float64]
    rest: float
    limit: float = np.inf

    @classmethod
    def fit(cls, cohort: Cohort) -> Novelty:
        """Learn from the training scans; participants are kept together."""
        from sklearn.model_selection import GroupKFold

        values = cohort.flat
        held_out = np.empty(len(cohort))
        for train, test in GroupKFold(_FOLDS).split(values, groups=cohort.participants):
            held_out[test] = cls._describe(values[train]).distance(values[test])
        whole = cls._describe(values)
        return cls(whole.scaler, whole.components, whole.variances, whole.rest, float(np.quantile(held_out, _QUANTILE)))

    @classmethod
    def _describe(cls, values: NDArray[np.float64]) -> Novelty:
        scaler = Scaler.fit(values)
        scaled = scaler(values)
        count = max(1, min(_COMPONENTS, len(values) // _PER_COMPONENT))
        _, singular, directions = np.linalg.svd(scaled - scaled.mean(axis=0), full_matrices=False)
        variances = singular**2 / max(len(values) - 1, 1)
        beside = variances[count:].sum() / max(scaled.shape[1] - count, 1)
        return cls(scaler, directions[:count], np.maximum(variances[:count], 1e-6), max(float(beside), 1e-6))

    def distance(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the distances (N,) of flat features (N, D); about 1 for a scan like the others."""
        unknown = ~np.isfinite(values)
        scaled = np.where(unknown, 0, (values - self.scaler.mean) / self.scaler.sd)
        along = scaled @ self.components.T
        beside = np.maximum((scaled**2).sum(axis=1) - (along**2).sum(axis=1), 0)
        total = (along**2 / self.variances).sum(axis=1) + beside / self.rest
        return np.sqrt(total / scaled.shape[1])

    def verdict(self, distance: float) -> Verdict:
        """Judge a distance; one that is not known is refused."""
        if not distance <= _REFUSED * self.limit:
            return "refused"
        return "inside" if distance <= self.limit else "flagged"
