"""Structures and mask at 1 mm: the 2 mm answer, and what the scan shows between its voxels.

The backbone knows what lies where; at 2 mm it cannot say where exactly a boundary runs. Its interpolated answer is
weighed with the intensities at 1 mm first (`evidence`). The refiner sees this beside the backbone's features and the
scan, told in the scan's own contrast (grey matter at 0, white matter at 1), and adds a residual to the logits. It has
no normalisation and sees a few millimetres around a voxel only, so that a head can be refined piece by piece.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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

_CONTRASTS = 2
_STEEPEST = 4.0
_LEAST_LOGIT = -12.0
_LOGIT_SCALE = 4.0
_RAREST = 1e-6
# As in `segmentation`: a step of the optimiser must be able to move a logit by as much as it can be wrong.
_RESIDUAL_SCALE = 4.0
_FEWEST_VOXELS = 50
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
    return Contrast(tissue_levels(intensity, structures), gather_evidence(structures, intensity))


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
    """Two convolutions at 2 mm and two at 1 mm, and a residual on the interpolated and weighed answer.

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
        inputs = fine_width + _CONTRASTS * FACTOR**3
        self.coarse = nn.ModuleList([_convolution(inputs, width), _convolution(width, width)])
        self.narrow = Pointwise(width, fine_width)
        self.squeeze_fine = Pointwise(1 + classes, fine_width // 2)
        inputs = fine_width + fine_width // 2 + _CONTRASTS
        self.fine = nn.ModuleList([_convolution(inputs, fine_width), _convolution(fine_width, fine_width)])
        self.residual = Pointwise(fine_width, 1 + classes)
        nn.init.zeros_(self.residual.weight)
        assert self.residual.bias is not None
        nn.init.zeros_(self.residual.bias)

    def forward(self, image: Tensor, coarse: Coarse, contrast: Contrast) -> Fine:
        """Refine a piece: its image without bias field (1, 1, 2X, 2Y, 2Z), and what stands at its place at 2 mm."""
        channels = in_levels(image, contrast.levels)
        probability = torch.softmax(coarse.structure_logits.float(), dim=1)
        mask = coarse.mask_logits[:, :1].float()
        x = torch.cat([coarse.features.float(), _as_input(mask, probability.clamp(min=_RAREST).log())], dim=1)
        x = torch.cat([self.squeeze(x), _voxels_to_channels(channels)], dim=1)
        for layer in self.coarse:
            x = functional.leaky_relu(layer(x.contiguous(memory_format=torch.channels_last_3d)), NEGATIVE_SLOPE)
        mask, structures = twice_as_fine(mask), twice_as_fine(probability).clamp(min=_RAREST).log()
        weighed = _as_input(mask, self.weigh(structures, image, contrast))
        x = torch.cat([twice_as_fine(self.narrow(x)), self.squeeze_fine(weighed), channels], dim=1)
        for layer in self.fine:
            x = functional.leaky_relu(layer(x.contiguous(memory_format=torch.channels_last_3d)), NEGATIVE_SLOPE)
        residual = _RESIDUAL_SCALE * self.residual(x).float()
        return Fine(mask_logits=mask + residual[:, :1], structure_logits=structures + residual[:, 1:])

    def weigh(self, structure_logits: Tensor, intensity: Tensor, contrast: Contrast) -> Tensor:
        """Logarithms of the posterior (batch, classes, ...) at voxels with intensities (batch, 1, ...)."""
        voice = self.voice.view(1, -1, *(1,) * (intensity.ndim - 2))
        return (structure_logits + voice * contrast.evidence.log_likelihood(intensity)).log_softmax(1)


def _as_input(mask: Tensor, structures: Tensor) -> Tensor:
    """Logits of the mask and logarithms of the structures' probabilities, bounded, as channels."""
    mask = mask.clamp(_LEAST_LOGIT, -_LEAST_LOGIT)
    return torch.cat([mask, structures.clamp(min=_LEAST_LOGIT)], dim=1) / _LOGIT_SCALE


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
