"""Structures at 1 mm: the 2 mm answer, and what the scan shows between its voxels.

The backbone knows what lies where; at 2 mm it cannot say where exactly a boundary runs. The refiner sees its features
and answers beside the scan at 1 mm, told in the scan's own contrast, and corrects both: structures at 2 mm, and fluid,
grey and white matter at 1 mm. `posterior` weighs that against the intensity that each structure has in the scan. The
network has no normalisation and sees a few millimetres around a voxel only, so that a head is refined piece by piece.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from unibrain_bids.model import frame
from unibrain_bids.model.blocks import NEGATIVE_SLOPE, twice_as_fine
from unibrain_bids.model.contrast import Contrast, Levels, in_levels
from unibrain_bids.model.evidence import VOICE, Evidence
from unibrain_bids.model.neighbours import Coupling
from unibrain_bids.model.steady import Pointwise
from unibrain_bids.model.tissues import (
    LEAST_LOGIT,
    TISSUES,
    TissuePrior,
    log_probability,
    tissue_of_class,
)
from unibrain_bids.model.unibrain import Dense

SPACING = 1.0
FACTOR = 2
SHAPE = (FACTOR * frame.SHAPE[0], FACTOR * frame.SHAPE[1], FACTOR * frame.SHAPE[2])
# Voxels of 2 mm around a piece that its answer depends on, and that the convolutions at 1 mm depend on.
REACH, _FINE_REACH = 6, 2

# Shades of a voxel: between the scan's levels, and between those of its place.
_SHADES = 4
_LOGIT_SCALE = 4.0
# As in `segmentation`: a step of the optimiser must be able to move a logit by as much as it can be wrong.
_RESIDUAL_SCALE = 4.0
# A structure that its place speaks against by as much is not there, whatever the voxel's intensity; nor does that speak
# against any louder than this, as outside the brain there is any intensity.
_LOUDEST = 6.0
_RULED_OUT, _NEVER = -10.5, -30.0
# How loudly a voxel's intensity says whether it is brain at all: outside it there is any intensity.
MASK_VOICE = 0.25

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Weighing:
    """How a scan's voxels are judged; chosen on simulated heads, and on MUSE's (docs/training-log.md).

    Attributes
    ----------
    place
        How loudly the model at 2 mm says which structure a voxel is: 1 takes it at its word.
    voice
        How loudly intensities say so. It is not learnt, as cross-entropy turns it down to .4, at which deep grey matter
        loses its borders.
    coupling
        Of neighbouring voxels.
    outside
        Probability of no structure from which on a voxel lies outside the brain.
    """

    place: float
    voice: float
    coupling: Coupling
    outside: float


# A voxel of the cortex' rim that is missing is missed by everyone, one too many by nobody; but one of 2 mm is a lot. Of
# 2 mm most voxels are mixtures, so that their contrast does not tell where a structure ends.
FINE = Weighing(place=0.87, voice=0.9, coupling=Coupling(10.0, contrast=2.0), outside=0.7)
COARSE = Weighing(place=1.0, voice=0.5, coupling=Coupling(6.0, contrast=math.inf), outside=0.5)


def finer_box(box: Box) -> Box:
    """A box of the model's grid on the grid of 1 mm."""
    x, y, z = (slice(FACTOR * side.start, FACTOR * side.stop) for side in box)
    return x, y, z


def wider_box(box: Box, reach: int, shape: Sequence[int]) -> Box:
    """A box and as many voxels around it, within a volume."""
    x, y, z = (
        slice(max(side.start - reach, 0), min(side.stop + reach, size)) for side, size in zip(box, shape, strict=True)
    )
    return x, y, z


def box_within(box: Box, outer: Box) -> Box:
    """The same box in a piece of the volume."""
    x, y, z = (slice(side.start - other.start, side.stop - other.start) for side, other in zip(box, outer, strict=True))
    return x, y, z


def box_around(chosen: Tensor) -> Box:
    """The smallest box that holds what is chosen (X, Y, Z); an empty one where nothing is."""
    spans = [chosen.any(1).any(1).nonzero(), chosen.any(0).any(1).nonzero(), chosen.any(0).any(0).nonzero()]
    x, y, z = (slice(int(s.min()), int(s.max()) + 1) if len(s) else slice(0, 0) for s in spans)
    return x, y, z


@dataclass(frozen=True)
class Coarse:
    """What the refiner takes from the model at 2 mm.

    Attributes
    ----------
    features
        (1, channels, X, Y, Z) of the backbone's finest level.
    mask_logits
        (1, 1, X, Y, Z) of the brain.
    structures
        (1, 1 + structures, X, Y, Z) logarithms of the structures' probabilities.
    prior
        What each place says of its tissue.
    levels
        The scan's.
    """

    features: Tensor
    mask_logits: Tensor
    structures: Tensor
    prior: TissuePrior
    levels: Levels

    @classmethod
    def of(cls, dense: Dense, contrast: Contrast) -> Coarse:
        """From what the model saw, and the contrast of the scan."""
        structures = log_probability(dense.structure_logits)
        prior = TissuePrior.of(structures, contrast)
        return cls(dense.features.full, dense.mask_logits[:, :1], structures, prior, contrast.levels)

    def piece(self, box: Box) -> Coarse:
        """The same in a box of its grid."""
        where = (slice(None), slice(None), *box)
        prior = TissuePrior.from_channels(self.prior.channels()[where])
        return Coarse(self.features[where], self.mask_logits[where], self.structures[where], prior, self.levels)


@dataclass(frozen=True)
class Residual:
    """What the refiner adds to logits.

    Attributes
    ----------
    tissues
        (1, 3, 2X, 2Y, 2Z).
    structures
        (1, 1 + structures, X, Y, Z).
    """

    tissues: Tensor
    structures: Tensor


class Refiner(nn.Module):
    """Three convolutions at 2 mm and two at 1 mm, and residuals on the logits of structures and tissues.

    Parameters
    ----------
    features
        Channels of the backbone's finest level.
    width, fine_width
        Channels at 2 mm and at 1 mm.
    """

    def __init__(self, features: int, width: int, fine_width: int) -> None:
        super().__init__()
        self.voice = nn.Parameter(torch.tensor(VOICE))
        self.squeeze = Pointwise(features + 1 + TISSUES, fine_width)
        inputs = fine_width + _SHADES * FACTOR**3
        self.coarse = nn.ModuleList([_convolution(inputs, width), _convolution(width, width)])
        self.further = nn.ModuleList([_convolution(width, width)])
        self.narrow = Pointwise(width, fine_width)
        inputs = fine_width + 2 * TISSUES + _SHADES
        self.fine = nn.ModuleList([_convolution(inputs, fine_width), _convolution(fine_width, fine_width)])
        self.residual = Pointwise(fine_width, TISSUES)
        self.structures = Pointwise(width, len(frame.STRUCTURES) + 1)
        for parameter in (*self.residual.parameters(), *self.structures.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, image: Tensor, coarse: Coarse, asked: Box | None = None) -> Residual:
        """Residual logits in a piece, or only in that box of it which is asked for, of voxels of 2 mm.

        `image` is the scan without bias field (1, 1, 2X, 2Y, 2Z); `coarse` is what stands at its place at 2 mm.
        """
        size = coarse.features.shape[2:]
        asked = asked or (slice(0, size[0]), slice(0, size[1]), slice(0, size[2]))
        fine = coarse.prior.finer()
        shades = torch.cat([in_levels(image, coarse.levels), fine.shades(image)], dim=1)
        mask = coarse.mask_logits.float().clamp(LEAST_LOGIT, -LEAST_LOGIT)
        known = torch.cat([coarse.features.float(), mask / _LOGIT_SCALE, coarse.prior.logits / _LOGIT_SCALE], dim=1)
        x = _activate(self.coarse, torch.cat([self.squeeze(known), _voxels_to_channels(shades)], dim=1))
        x = x + _activate(self.further, x)
        structures = _RESIDUAL_SCALE * self.structures(x[(..., *asked)].contiguous()).float()
        # What the convolutions at 1 mm do not look at is left out: they take most of the time and memory.
        outer = wider_box(asked, _FINE_REACH, size)
        here = (..., *finer_box(outer))
        x = twice_as_fine(self.narrow(x[(..., *outer)]))
        logits = fine.logits[here]
        seen = self.weigh(fine, image)[here].clamp(min=LEAST_LOGIT)
        x = _activate(self.fine, torch.cat([x, seen / _LOGIT_SCALE, logits / _LOGIT_SCALE, shades[here]], dim=1))
        x = x[(..., *finer_box(box_within(asked, outer)))]
        return Residual(_RESIDUAL_SCALE * self.residual(x.contiguous()).float(), structures)

    def weigh(self, prior: TissuePrior, intensity: Tensor, residual: Tensor | float = 0.0) -> Tensor:
        """Logarithms of the tissues' posterior (1, 3, ...) where the scan has intensities (1, 1, ...)."""
        return (prior.logits + self.voice * prior.log_likelihood(intensity) + residual).log_softmax(1)


def posterior(
    structures: Tensor, intensity: Tensor, evidence: Evidence, residual: Tensor, *, voice: float, place: float = 1.0
) -> Tensor:
    """Logarithms of the structures' posterior (1, 1 + structures, ...).

    Parameters
    ----------
    structures
        (1, 1 + structures, ...) logarithms of the structures' probabilities at these places.
    intensity
        (1, 1, ...) without bias field.
    evidence
        What `tissues.shared_evidence` makes of the scan's.
    residual
        (1, 3, ...) of the tissues.
    voice, place
        Of the intensities, and of the places: those of a `Weighing`; for the mask, `MASK_VOICE` and 1.
    """
    likelihood = evidence.log_likelihood(intensity)
    spoken = (voice * (likelihood - likelihood.amax(1, keepdim=True))).clamp(min=-_LOUDEST)
    logits = place * structures + spoken + residual[:, tissue_of_class().to(residual.device)]
    return logits.masked_fill(structures < _RULED_OUT, _NEVER).log_softmax(1)


def _activate(layers: nn.ModuleList, x: Tensor) -> Tensor:
    for layer in layers:
        # Channels last: faster on a CPU. Nothing holds on to what came in while the layer works.
        x = x.contiguous(memory_format=torch.channels_last_3d)
        x = functional.leaky_relu(layer(x), NEGATIVE_SLOPE)
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
