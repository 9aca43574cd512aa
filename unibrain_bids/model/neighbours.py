"""A Markov random field: what a voxel is, its neighbours are likely to be as well, the more so if they look alike.

A voxel alone is judged by an intensity that is full of noise. One round of mean field (Potts' model, Zhang et al. 2001;
neighbours weighed by their contrast, Boykov and Jolly 2001) lets its six neighbours, as likely as each of them is by
itself, speak for their own classes; more rounds changed nothing (docs/training-log.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

# Probability below which a class is none of its neighbours' business.
_ABSENT = 0.01

# Couplings (..., X, Y, Z) of neighbours along each of three axes, which is a voxel shorter there.
Couplings = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Coupling:
    """How much neighbours count.

    Attributes
    ----------
    strength
        What all of them together add to the logarithm of the class that they are, if they look as the voxel does.
    contrast
        The difference of intensities at which a neighbour counts e^-1/2 of that, in standard deviations of a class.
    """

    strength: float
    contrast: float


def couplings(
    intensity: Tensor, spread: float, coupling: Coupling, spacing: NDArray[np.floating] | None = None
) -> Couplings:
    """How much the neighbours along each axis count.

    Parameters
    ----------
    intensity
        (..., X, Y, Z) without bias field.
    spread
        Standard deviation of a class' intensities.
    coupling
        Of voxels that are equally far apart.
    spacing
        Voxel sizes in mm, (3,): neighbours along an axis count by the inverse square of their distance. Alike if None.
    """
    shares = np.ones(3) if spacing is None else 1.0 / np.square(spacing)
    shares = coupling.strength / 2 * shares / shares.sum()
    x, y, z = (
        share * (intensity.diff(dim=axis) / (coupling.contrast * spread)).square().div(-2).exp()
        for axis, share in zip((-3, -2, -1), shares.tolist(), strict=True)
    )
    return x, y, z


def neighbours_say(volume: Tensor, coupled: Couplings) -> Tensor:
    """Sum of the six neighbours in (..., X, Y, Z), each by its coupling; beyond the border is 0."""
    result = torch.zeros_like(volume)
    for axis, coupling in zip((-3, -2, -1), coupled, strict=True):
        size = volume.shape[axis] - 1
        result.narrow(axis, 1, size).addcmul_(volume.narrow(axis, 0, size), coupling)
        result.narrow(axis, 0, size).addcmul_(volume.narrow(axis, 1, size), coupling)
    return result


def heed_neighbours(log_probability: Tensor, intensity: Tensor, spread: float, coupling: Coupling) -> Tensor:
    """Logarithms of the probabilities (1, classes, X, Y, Z) once the neighbours have spoken.

    `intensity` is (1, 1, X, Y, Z); for the rest see `couplings`.
    """
    said = neighbours_say(log_probability.exp(), couplings(intensity, spread, coupling))
    return (log_probability + said).log_softmax(1)


def heed_neighbours_within(probability: Tensor, mask: NDArray[np.bool_], coupled: Couplings) -> Tensor:
    """The same for the voxels of a mask, class by class where it may be, so that no volume of all classes is held.

    Parameters
    ----------
    probability
        (classes, N) of the mask's voxels in the order of `numpy.flatnonzero`; overwritten. Beyond the mask is class 0.
    mask
        (X, Y, Z), not empty.
    coupled
        What `couplings` makes of the volume (X, Y, Z).

    Returns
    -------
    torch.Tensor
        (classes, N) probabilities.
    """
    box = _box_around(mask)
    inside = torch.from_numpy(mask[box]).to(probability.device)
    coupled = _within(coupled, box)
    voxels = inside.nonzero()
    position = torch.full(inside.shape, -1, device=inside.device)
    position[inside] = torch.arange(len(voxels), device=inside.device)
    for number, own in enumerate(probability):
        present = voxels[own > _ABSENT] if number else voxels
        if not len(present):
            continue
        first, last = (present.amin(0) - 1).clamp(min=0).tolist(), (present.amax(0) + 2).tolist()
        part = tuple(slice(a, min(b, n)) for a, b, n in zip(first, last, inside.shape, strict=True))
        here = position[part]
        known = here >= 0
        volume = torch.full(here.shape, float(number == 0), device=own.device)
        volume[known] = own[here[known]]
        own[here[known]] *= neighbours_say(volume, _within(coupled, part))[known].exp()
    return probability.div_(probability.sum(0))


def _box_around(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """A mask's box, and a voxel around it where there is one."""
    sides = ndimage.find_objects(mask.astype(np.uint8))[0]
    limits = ((max(side.start - 1, 0), min(side.stop + 1, n)) for side, n in zip(sides, mask.shape, strict=True))
    return tuple(slice(first, last) for first, last in limits)


def _within(coupled: Couplings, part: tuple[slice, ...]) -> Couplings:
    """Couplings in a part of their volume."""
    x, y, z = (
        coupling[tuple(slice(s.start, s.stop - (n == axis)) for n, s in enumerate(part))]
        for axis, coupling in enumerate(coupled)
    )
    return x, y, z
