"""What a scan's tissues look like: their levels, and the intensities of each structure."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unibrain_bids.model import frame
from unibrain_bids.model.evidence import Evidence, gather_evidence

_STEEPEST = 4.0
_FEWEST_VOXELS = 50
_SURE = 0.5
# Narrow ventricles share most of their voxels with the tissue around them.
_PURE = 0.95


@dataclass(frozen=True)
class Levels:
    """Median intensities of a scan's cerebrospinal fluid, cortex and white matter."""

    csf: float
    gray: float
    white: float

    @property
    def narrowest(self) -> float:
        """The least difference between two levels that is believed."""
        return 0.05 * max(abs(self.white), abs(self.gray), 1e-6)


@dataclass(frozen=True)
class Contrast:
    """What a scan's classes look like: the tissues' levels, and each structure's intensities."""

    levels: Levels
    evidence: Evidence


def learn_contrast(intensity: Tensor, structures: Tensor) -> Contrast:
    """The contrast of a scan without bias field.

    Parameters
    ----------
    intensity
        (N,) of voxels of the brain, as the scan shows them: noise and all.
    structures
        Probabilities (1 + structures, N) at these voxels.
    """
    return Contrast(tissue_levels(intensity, structures), gather_evidence(structures, intensity))


def tissue_levels(intensity: Tensor, structures: Tensor) -> Levels:
    """Levels of the tissues, from what `learn_contrast` takes.

    Where a class is not there to be measured, its level is guessed from the brain's quantiles.
    """
    channel = {number: i + 1 for i, number in enumerate(frame.STRUCTURES)}

    def level(numbers: tuple[int, ...], quantile: float, *sure: float) -> float:
        probability = structures[[channel[number] for number in numbers]].sum(0)
        for least in (*sure, _SURE):
            chosen = probability > least
            if int(chosen.sum()) >= _FEWEST_VOXELS:
                return float(intensity[chosen].median())
        return float(intensity.sort().values[int(quantile * (len(intensity) - 1))]) if len(intensity) else quantile

    return Levels(csf=level((4, 43), 0.05, _PURE), gray=level((3, 42), 0.4), white=level((2, 41), 0.8))


def in_levels(image: Tensor, levels: Levels) -> Tensor:
    """Two channels (1, 2, X, Y, Z): grey to white matter as 0 to 1, and fluid to grey matter as 0 to 1."""

    def between(low: float, high: float) -> Tensor:
        width = math.copysign(max(abs(high - low), levels.narrowest), high - low)
        return ((image - low) / width).clamp(-_STEEPEST, _STEEPEST)

    return torch.cat([between(levels.gray, levels.white), between(levels.csf, levels.gray)], dim=1)
