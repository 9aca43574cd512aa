"""What a head is trained on: features of scans, the target, and what else is known of the participants."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["CLIP", "Cohort", "Scaler"]

CLIP = 5.0  # standard deviations


@dataclass(frozen=True)
class Cohort:
    """N scans of P participants.

    Attributes
    ----------
    regions
        (N, R, F) features of the regions; NaN where unknown.
    whole
        (N, G) features of the whole brain; NaN where unknown.
    networks
        (N, R, R) edges, 0 or more, with a positive diagonal.
    target
        (N,) 0 or 1, or a number; the same for all scans of a participant.
    participants
        (N,) identifiers.
    covariates
        (N, K) what the baseline without images sees.
    sites
        (N,) site of each scan's participant, or None.
    classes
        Names of the classes 0 and 1; None where the target is a number.
    scans
        (N,) names of the scans, for models that look at the images; or None.
    """

    regions: NDArray[np.float32]
    whole: NDArray[np.float32]
    networks: NDArray[np.float32]
    target: NDArray[np.float64]
    participants: NDArray[np.str_]
    covariates: NDArray[np.float64]
    sites: NDArray[np.str_] | None = None
    classes: tuple[str, str] | None = None
    scans: NDArray[np.str_] | None = None

    def __len__(self) -> int:
        return len(self.target)

    @property
    def flat(self) -> NDArray[np.float64]:
        """All features in one row per scan: (N, R F + G)."""
        return np.concatenate([self.regions.reshape(len(self), -1), self.whole], axis=1).astype(np.float64)

    def take(self, rows: ArrayLike) -> Cohort:
        """Return the cohort of some scans."""
        rows = np.asarray(rows)
        return replace(
            self,
            regions=self.regions[rows],
            whole=self.whole[rows],
            networks=self.networks[rows],
            target=self.target[rows],
            participants=self.participants[rows],
            covariates=self.covariates[rows],
            sites=None if self.sites is None else self.sites[rows],
            scans=None if self.scans is None else self.scans[rows],
        )

    def of_participants(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean (P, ...) over the scans of each participant, sorted by identifier, of values (N, ...)."""
        names, place = np.unique(self.participants, return_inverse=True)
        total = np.zeros((len(names), *values.shape[1:]))
        np.add.at(total, place, values)
        count = np.bincount(place).reshape(-1, *[1] * (values.ndim - 1))
        return total / count


@dataclass(frozen=True)
class Scaler:
    """Means and standard deviations (D,) of features in training; unknown values become the mean."""

    mean: NDArray[np.float64]
    sd: NDArray[np.float64]

    @classmethod
    def fit(cls, values: NDArray[np.float64]) -> Scaler:
        """Learn from (N, D); a feature that is never known, or constant, becomes 0 throughout."""
        known = np.isfinite(values)
        count = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, values, 0).sum(axis=0) / count
        sd = np.sqrt((np.where(known, values - mean, 0) ** 2).sum(axis=0) / count)
        return cls(mean, np.where(sd > 1e-9 * np.maximum(np.abs(mean), 1), sd, np.inf))

    def __call__(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scale (N, D); limited to 5 standard deviations, so that one wild value does not decide."""
        scaled = (values - self.mean) / self.sd
        return np.clip(np.where(np.isfinite(scaled), scaled, 0), -CLIP, CLIP)
