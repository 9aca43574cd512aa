"""Structures and mask at 1 mm: the 2 mm answer, and what the scan shows between its voxels.

The backbone knows what lies where; at 2 mm it cannot say where exactly a boundary runs. The refiner sees its features
and answers beside the scan at 1 mm, told in the scan's own contrast (grey matter at 0, white matter at 1), and adds a
residual to the interpolated logits; at each voxel these are weighed with its own intensity then (`evidence`). It has no
normalisation and sees a few millimetres around a voxel only, so that a head can be refined piece by piece.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from unibrain_bids.model import frame
from unibrain_bids.model.blocks import NEGATIVE_SLOPE, twice_as_fine
from unibrain_bids.model.evidence import VOICE, Evidence, gather_evidence
from unibrain_bids.model.steady import Pointwise

SPACING = 1.0
FACTOR = 2
SHAPE = (FACTOR * frame.SHAPE[0], FACTOR * frame.SHAPE[1], FACTOR * frame.SHAPE[2])
# Voxels of 2 mm around a piece that its answer depends on.
REACH = 4

_CONTRASTS, _RIVALS = 2, 3
_STEEPEST = 4.0
_LEAST_LOGIT = -12.0
_LOGIT_SCALE = 4.0
# As in `segmentation`: a step of the optimiser must be able to move a logit by as much as it can be wrong.
_RESIDUAL_SCALE = 4.0
_FEWEST_VOXELS = 50
# Likelihoods are told on the scale on which white matter stands here, as it does in most training scans.
_WHITE = 0.62
_SURE = 0.5


Box = tuple[slice, slice, slice]


def finer_box(box: Box) -> Box:
    """A box of the model's grid on the grid of 1 mm."""
    x, y, z = (slice(FACTOR * side.start, FACTOR * side.stop) for side in box)
    return x, y, z


@dataclass(frozen=True)
class Levels:
    """Median intensities of a scan's cerebrospinal fluid, cortex and white matter."""

    csf: float
    gray: float
    white: float


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
    levels, evidence = tissue_levels(intensity, structures), gather_evidence(structures, intensity)
    return Contrast(levels, replace(evidence, unit=max(abs(levels.white), 1e-6) / _WHITE))


def tissue_levels(intensity: Tensor, structures: Tensor) -> Levels:
    """Levels of the tissues, from what `learn_contrast` takes.

    Where a class is not there to be measured, its level is guessed from the brain's quantiles.
    """
    channel = {number: i + 1 for i, number in enumerate(frame.STRUCTURES)}

    def level(numbers: tuple[int, ...], quantile: float) -> float:
        chosen = structures[[channel[number] for number in numbers]].sum(0) > _SURE
        if int(chosen.sum()) >= _FEWEST_VOXELS:
            return float(intensity[chosen].median())
        return float(intensity.sort().values[int(quantile * (len(intensity) - 1))]) if len(intensity) else quantile

    return Levels(csf=level((4, 43), 0.05), gray=level((3, 42), 0.4), white=level((2, 41), 0.8))


def in_levels(image: Tensor, levels: Levels) -> Tensor:
    """Two channels (1, 2, X, Y, Z): grey to white matter as 0 to 1, and fluid to grey matter as 0 to 1."""
    narrowest = 0.05 * max(abs(levels.white), abs(levels.gray), 1e-6)

    def between(low: float, high: float) -> Tensor:
        width = math.copysign(max(abs(high - low), narrowest), high - low)
        return ((image - low) / width).clamp(-_STEEPEST, _STEEPEST)

    return torch.cat([between(levels.gray, levels.white), between(levels.csf, levels.gray)], dim=1)


@dataclass(frozen=True)
class Coarse:
    """What the refiner takes from the model at 2 mm, (1, channels, X, Y, Z): see `unibrain.Dense`."""

    features: Tensor
    mask_logits: Tensor
    structure_logits: Tensor

    def piece(self, box: Box) -> Coarse:
        """The same in a box of its grid."""
        where = (slice(None), slice(None), *box)
        return Coarse(self.features[where], self.mask_logits[where], self.structure_logits[where])


@dataclass(frozen=True)
class Fine:
    """The refiner's answer at 1 mm.

    Attributes
    ----------
    mask_logits
        (1, 1, X, Y, Z).
    structure_logits
        (1, 1 + structures, X, Y, Z), background first, before the voxels' own intensities have spoken: they do so on
        whichever grid the answer is read (`Refiner.weigh`), so that no intensity is interpolated for it.
    """

    mask_logits: Tensor
    structure_logits: Tensor


class Refiner(nn.Module):
    """Two convolutions at 2 mm and two at 1 mm, and a residual on the interpolated answer.

    Parameters
    ----------
    features
        Channels of the backbone's finest level.
    width, fine_width
        Channels at 2 mm and at 1 mm.
    """

    def __init__(self, features: int, width: int, fine_width: int) -> None:
        super().__init__()
        classes = len(frame.STRUCTURES) + 1
        self.voice = nn.Parameter(torch.full((classes,), VOICE))
        self.squeeze = Pointwise(features + 1 + classes, fine_width)
        inputs = fine_width + _CONTRASTS * FACTOR**3 + _RIVALS
        self.coarse = nn.ModuleList([_convolution(inputs, width), _convolution(width, width)])
        self.narrow = Pointwise(width, fine_width)
        inputs = fine_width + _RIVALS + _CONTRASTS
        self.fine = nn.ModuleList([_convolution(inputs, fine_width), _convolution(fine_width, fine_width)])
        self.residual = nn.Parameter(torch.zeros(1 + classes, fine_width))
        self.bias = nn.Parameter(torch.zeros(1 + classes))

    def forward(self, image: Tensor, coarse: Coarse, contrast: Contrast) -> Fine:
        """Refine a piece: its image without bias field (1, 1, 2X, 2Y, 2Z), and what stands at its place at 2 mm."""
        channels = in_levels(image, contrast.levels)
        structures = functional.log_softmax(coarse.structure_logits.float(), dim=1).clamp(min=_LEAST_LOGIT)
        mask = coarse.mask_logits[:, :1].float().clamp(_LEAST_LOGIT, -_LEAST_LOGIT)
        logits, rivals = torch.cat([mask, structures], dim=1), rival_levels(structures, contrast)
        x = self.squeeze(torch.cat([coarse.features.float(), logits / _LOGIT_SCALE], dim=1))
        x = _activate(self.coarse, torch.cat([x, _voxels_to_channels(channels), rivals], dim=1))
        x = twice_as_fine(torch.cat([self.narrow(x), rivals], dim=1))
        x = _activate(self.fine, torch.cat([x, channels], dim=1))
        refined = self._add_residual(logits, x)
        return Fine(mask_logits=refined[:, :1], structure_logits=refined[:, 1:])

    def _add_residual(self, logits: Tensor, x: Tensor) -> Tensor:
        """Interpolated logits plus the product of features and weights.

        With 33 channels at 1 mm every pass over memory takes longer than the product: one voxel is one row of it.
        """
        finer = twice_as_fine(logits + _RESIDUAL_SCALE * self.bias.view(1, -1, 1, 1, 1)).movedim(1, -1)
        rows, features = finer.reshape(-1, finer.shape[-1]), x.float().movedim(1, -1).reshape(-1, x.shape[1])
        refined = torch.addmm(rows, features, _RESIDUAL_SCALE * self.residual.T)
        return refined.view(finer.shape).movedim(-1, 1)

    def weigh(self, structure_logits: Tensor, intensity: Tensor, contrast: Contrast) -> Tensor:
        """Logarithms of the posterior (batch, classes, ...) at voxels with intensities (batch, 1, ...)."""
        voice = self.voice.view(1, -1, *(1,) * (intensity.ndim - 2))
        return (structure_logits + voice * contrast.evidence.log_likelihood(intensity)).log_softmax(1)


def rival_levels(structures: Tensor, contrast: Contrast) -> Tensor:
    """How dark and how bright the two likeliest structures are in this scan, and the share of the brighter one.

    From logarithms of probabilities (1, 1 + structures, X, Y, Z); (1, 3, X, Y, Z), brightness as in `in_levels`.
    """
    level = in_levels(contrast.evidence.mean.view(1, 1, -1, 1, 1), contrast.levels)[0, 0, :, 0, 0]
    level = torch.where(contrast.evidence.known, level, torch.zeros_like(level))
    value, likeliest = structures.topk(2, dim=1)
    first, second = level[likeliest].unbind(1)
    share = torch.sigmoid(value[:, 0] - value[:, 1])
    share = torch.where(first > second, share, 1 - share)
    return torch.stack([torch.minimum(first, second), torch.maximum(first, second), share], dim=1)


def _activate(layers: nn.ModuleList, x: Tensor) -> Tensor:
    # Channels last: faster on a CPU.
    for layer in layers:
        x = functional.leaky_relu(layer(x.contiguous(memory_format=torch.channels_last_3d)), NEGATIVE_SLOPE)
    return x


def _convolution(inputs: int, outputs: int) -> nn.Conv3d:
    layer = nn.Conv3d(inputs, outputs, 3, padding=1)
    nn.init.kaiming_normal_(layer.weight, a=NEGATIVE_SLOPE)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def _voxels_to_channels(volume: Tensor) -> Tensor:
    """(batch, channels, 2X, 2Y, 2Z) to (batch, 8 channels, X, Y, Z)."""
    batch, channels, *size = volume.shape
    x, y, z = (n // FACTOR for n in size)
    parts = volume.view(batch, channels, x, FACTOR, y, FACTOR, z, FACTOR)
    return parts.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(batch, channels * FACTOR**3, x, y, z)
