"""What anatomy knows of a labelled brain: a structure is one piece, and the brain's mask closes its sulci.

A voxel that a structure claims away from its body is given to the next likeliest structure, so that labels stay what
the probabilities say but for strays.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from unibrain_bids.model.locate import fill_holes

# The definition of the mask: gaps between the brain's parts that are narrower than twice of it, mm, belong to it.
CLOSING_RADIUS_MM = 6.0
# A part this large, compared with a structure's largest, is no stray: thin structures fall apart between voxels.
_PART = 0.1
_EVERY_NEIGHBOUR = np.ones((3, 3, 3), dtype=bool)
# The next choice may be a stray as well.
_ROUNDS = 2


def connected_winners(probability: Tensor, mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Likeliest class of each voxel of a mask, without strays.

    Parameters
    ----------
    probability
        (classes, N) of the mask's voxels in the order of `numpy.flatnonzero`; class 0, the rest, may lie anywhere.
    mask
        (X, Y, Z).

    Returns
    -------
    numpy.ndarray
        (N,) classes.
    """
    winner = probability.argmax(0)
    for _ in range(_ROUNDS):
        stray = torch.from_numpy(strays(winner.cpu().numpy(), mask)).to(winner.device)
        if not len(stray):
            break
        others = probability[:, stray]
        others.scatter_(0, winner[stray][None], -1.0)
        winner[stray] = others.argmax(0)
    result: NDArray[np.int64] = winner.cpu().numpy()
    return result


def strays(classes: NDArray[np.integer], mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Positions (n,) in `classes` (N,), the classes of a mask's voxels, of voxels apart from their structure's body."""
    # Within the mask's box the voxels keep their order.
    mask = mask[ndimage.find_objects(mask.astype(np.uint8))[0]] if mask.any() else mask
    volume = np.zeros(mask.shape, dtype=np.int32)
    volume[mask] = classes
    apart = np.zeros(mask.shape, dtype=bool)
    for number, box in enumerate(ndimage.find_objects(volume), start=1):
        if box is not None:
            apart[box] |= _small_parts(volume[box] == number)
    return np.flatnonzero(apart[mask])


def _small_parts(structure: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The parts of a structure that are small against its largest one."""
    labels, count = ndimage.label(structure, _EVERY_NEIGHBOUR)
    if count < 2:
        return np.zeros_like(structure)
    sizes = np.bincount(labels.ravel())
    sizes[0] = sizes[1:].max()
    return (sizes < _PART * sizes[1:].max())[labels]


def solid_mask(
    brain: NDArray[np.bool_], spacing: NDArray[np.floating], *, radius: float = CLOSING_RADIUS_MM
) -> NDArray[np.bool_]:
    """Close a brain with a ball and fill its holes: the mask without sulci.

    Parameters
    ----------
    brain
        Boolean (X, Y, Z): what is brain tissue or ventricle.
    spacing
        Voxel edge lengths in mm, shape (3,).
    radius
        Radius of the closing in mm; gaps narrower than twice of it are closed.
    """
    if not brain.any():
        return brain
    box = ndimage.find_objects(brain.astype(np.uint8))[0]
    # Padding lets the dilated brain leave its box; else the erosion would not take it back at the border.
    pad = [(int(np.ceil(radius / edge)) + 1,) * 2 for edge in spacing]
    dilated = ndimage.distance_transform_edt(~np.pad(brain[box], pad), sampling=spacing) <= radius
    closed = ndimage.distance_transform_edt(dilated, sampling=spacing) > radius
    inner = tuple(slice(before, size - after) for (before, after), size in zip(pad, closed.shape, strict=True))
    result = np.zeros_like(brain)
    result[box] = closed[inner]
    return fill_holes(result)
