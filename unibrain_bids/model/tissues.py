"""Tissues instead of structures: fluid (and all that is no brain), grey and white matter, with their intensities.

What a voxel's intensity can tell is its tissue. Which structure of that tissue it is, its place tells first.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from unibrain_bids.labels import LabelTable
from unibrain_bids.model import frame
from unibrain_bids.model.blocks import twice_as_fine
from unibrain_bids.model.contrast import Contrast
from unibrain_bids.model.evidence import Evidence

FLUID, GRAY, WHITE = range(3)
TISSUES = 3
_CHANNEL = {"CSF": FLUID, "GM": GRAY, "WM": WHITE}

LEAST_LOGIT = -12.0
# Where structures of known intensities are rarer than this, the tissue's level stands for them.
_RAREST = 3e-3
# Standard deviations from a tissue's mean, squared and halved, beyond which a voxel cannot speak louder.
_LOUDEST = 30.0
_STEEPEST = 4.0
# White matter and cortex, whose spread is all structures'.
_WITNESSES = [1 + frame.STRUCTURES.index(number) for number in (2, 3, 41, 42)]


@lru_cache(maxsize=1)
def tissue_of_class() -> Tensor:
    """The tissue of each class, (1 + structures,) int64."""
    tissue = {row.index: _CHANNEL[row.tissue] for row in LabelTable.load("aseg")}
    # Kept for who learns as well, whoever asks first.
    with torch.inference_mode(False):
        return torch.tensor([FLUID, *(tissue[number] for number in frame.STRUCTURES)])


def log_probability(structure_logits: Tensor) -> Tensor:
    """Logarithms of the structures' probabilities (batch, 1 + structures, ...), none below e^-12."""
    return functional.log_softmax(structure_logits.float(), dim=1).clamp(min=LEAST_LOGIT)


def tissue_log_probability(structures: Tensor) -> Tensor:
    """The tissues' (batch, 3, ...) from the structures' (batch, 1 + structures, ...)."""
    tissue = tissue_of_class().to(structures.device)
    return torch.stack([structures[:, tissue == t].logsumexp(1) for t in range(TISSUES)], dim=1)


def shared_evidence(contrast: Contrast) -> Evidence:
    """The structures' intensities with one spread for all, and fluid everywhere as dark as the ventricles.

    A voxel that two structures share in equal parts lies half-way between their means; spreads of their own would give
    it to the one that strays more. Where too few voxels know a structure, its tissue's level stands for it.
    """
    levels, evidence = contrast.levels, contrast.evidence
    level = evidence.mean.new_tensor([levels.csf, levels.gray, levels.white])[tissue_of_class()]
    alone = evidence.known & (tissue_of_class() != FLUID).to(level.device)
    known = torch.isin(torch.arange(len(level)), torch.tensor(_WITNESSES)).to(level.device) & evidence.known
    usual = level.new_tensor(max(abs(levels.white - levels.gray) / 2, levels.narrowest))
    spread = evidence.spread[known].square().mean().sqrt() if known.any() else usual
    return Evidence(torch.where(alone, evidence.mean, level), spread.expand_as(level), torch.ones_like(evidence.known))


@dataclass(frozen=True)
class TissuePrior:
    """What a place says of its tissue before its intensity is seen.

    Attributes
    ----------
    logits
        (1, 3, X, Y, Z), or (1, 3, N) at voxels: logarithms of the tissues' probabilities.
    mean
        The same shape: the intensity that each tissue has there, that of its structures that may lie there; of fluid,
        that of the ventricles.
    spread
        (1, 1, ...): how far intensities stray from it, in all tissues alike. A voxel that two tissues share in equal
        parts lies half-way between their means; spreads of their own would give it to the one that strays more.
    """

    logits: Tensor
    mean: Tensor
    spread: Tensor

    @classmethod
    def of(cls, structures: Tensor, contrast: Contrast) -> TissuePrior:
        """From the logarithms of the structures' probabilities (1, 1 + structures, X, Y, Z), in a scan's contrast."""
        levels, evidence = contrast.levels, contrast.evidence
        same = functional.one_hot(tissue_of_class(), TISSUES).T.to(structures)
        weight = torch.where(evidence.known, same, torch.zeros_like(same))
        # Fluid in sulci shares its voxels with cortex, so that it looks too bright there; the ventricles' is pure.
        means = torch.where(same[FLUID] > 0, levels.csf, evidence.mean)
        mean, spread = (torch.where(evidence.known, x, torch.zeros_like(x)) for x in (means, evidence.spread))
        powers = torch.cat([weight, weight * mean, weight * (mean.square() + spread.square())])
        # One voxel is one row: the digits of nine rows would depend on the number of threads.
        sums = (structures.exp().flatten(2)[0].T @ powers.T).T.unflatten(1, structures.shape[2:])[None]
        total, first, second = sums.split(TISSUES, dim=1)
        level = structures.new_tensor([levels.csf, levels.gray, levels.white]).view(1, -1, 1, 1, 1)
        usual = max(abs(levels.white - levels.gray) / 2, levels.narrowest)
        total = total + _RAREST
        mean = (first + _RAREST * level) / total
        variance = (second + _RAREST * (level.square() + usual**2)) / total - mean.square()
        spread = variance.mean(1, keepdim=True).clamp(min=levels.narrowest**2 / 4).sqrt()
        return cls(tissue_log_probability(structures), mean, spread)

    @classmethod
    def from_channels(cls, channels: Tensor) -> TissuePrior:
        """The inverse of `channels`."""
        return cls(*channels.split([TISSUES, TISSUES, 1], dim=1))

    def channels(self) -> Tensor:
        """All of it as one tensor (1, 7, ...)."""
        return torch.cat([self.logits, self.mean, self.spread], dim=1)

    def finer(self) -> TissuePrior:
        """The same on the grid of half the spacing."""
        return self.from_channels(twice_as_fine(self.channels()))

    def shades(self, intensity: Tensor) -> Tensor:
        """From fluid to grey matter, and from grey to white (1, 2, ...), at intensities (1, 1, ...), here.

        Half-way is 0 and the tissues' own means are -1/2 and 1/2; all is 0 where their contrast is lost in the spread.
        What is grey differs from place to place: the thalamus lies half-way between the cortex and white matter.
        """
        low, high = self.mean[:, :-1], self.mean[:, 1:]
        width = high - low
        shade = (intensity - (low + high) / 2) * width / (width.square() + self.spread.square() / 4)
        return shade.clamp(-_STEEPEST, _STEEPEST)

    def log_likelihood(self, intensity: Tensor) -> Tensor:
        """Of each tissue (1, 3, ...) at intensities (1, 1, ...), up to a constant."""
        return ((intensity - self.mean) / self.spread).square().div(-2).clamp(min=-_LOUDEST)
