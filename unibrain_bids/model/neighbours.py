"""A Markov random field: what a voxel is, its neighbours are likely to be as well (Potts' model; Zhang et al. 2001).

A voxel alone is judged by an intensity that is full of noise. One round of mean field lets its six neighbours, as likely
as each of them is by itself, speak for their own classes; more rounds changed nothing (docs/training-log.md).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

# What all neighbours together add to the logarithm of the class that they are.
COUPLING = 6.0
# Probability below which a class is none of its neighbours' business.
_ABSENT = 0.01

Weights = tuple[float, float, float]
_ALIKE: Weights = (1 / 3, 1 / 3, 1 / 3)


def axis_weights(spacing: NDArray[np.floating]) -> Weights:
    """How much the neighbours along each axis count, by the inverse square of their distance (3,) in mm; their sum is 1."""
    weights = 1.0 / np.square(spacing)
    x, y, z = (weights / weights.sum()).tolist()
    return x, y, z


def neighbours_mean(volume: Tensor, weights: Weights = _ALIKE) -> Tensor:
    """Mean of the six neighbours in (..., X, Y, Z); beyond the border is 0."""
    result = torch.zeros_like(volume)
    for axis, weight in zip((-3, -2, -1), weights, strict=True):
        size = volume.shape[axis] - 1
        result.narrow(axis, 1, size).add_(volume.narrow(axis, 0, size), alpha=weight / 2)
        result.narrow(axis, 0, size).add_(volume.narrow(axis, 1, size), alpha=weight / 2)
    return result


def heed_neighbours(log_probability: Tensor) -> Tensor:
    """Logarithms of the probabilities (1, classes, X, Y, Z) once the neighbours have spoken."""
    return (log_probability + COUPLING * neighbours_mean(log_probability.exp())).log_softmax(1)


def heed_neighbours_within(probability: Tensor, mask: NDArray[np.bool_], spacing: NDArray[np.floating]) -> Tensor:
    """The same for the voxels of a mask, class by class where it may be, so that no volume of all classes is held.

    Parameters
    ----------
    probability
        (classes, N) of the mask's voxels in the order of `numpy.flatnonzero`; overwritten. Beyond the mask is class 0.
    mask
        (X, Y, Z), not empty.
    spacing
        Voxel sizes in mm, (3,).

    Returns
    -------
    torch.Tensor
        (classes, N) probabilities.
    """
    weights = axis_weights(spacing)
    inside = torch.from_numpy(_box_of(mask)).to(probability.device)
    voxels = inside.nonzero()
    position = torch.full(inside.shape, -1, device=inside.device)
    position[inside] = torch.arange(len(voxels), device=inside.device)
    for number, own in enumerate(probability):
        present = voxels[own > _ABSENT] if number else voxels
        if not len(present):
            continue
        first, last = (present.amin(0) - 1).clamp(min=0).tolist(), (present.amax(0) + 2).tolist()
        here = position[tuple(slice(a, b) for a, b in zip(first, last, strict=True))]
        known = here >= 0
        volume = torch.full(here.shape, float(number == 0), device=own.device)
        volume[known] = own[here[known]]
        own[here[known]] *= (COUPLING * neighbours_mean(volume, weights)[known]).exp()
    return probability.div_(probability.sum(0))


def _box_of(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask's box, and a voxel around it where there is one."""
    sides = ndimage.find_objects(mask.astype(np.uint8))[0]
    return mask[tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in sides)]
