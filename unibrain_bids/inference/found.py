"""The brain in the model's answer, without what hangs on to it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from unibrain_bids.model import frame
from unibrain_bids.model.intensity import scale_to_unit
from unibrain_bids.model.locate import largest_component
from unibrain_bids.model.unibrain import Dense, UniBrain, averaged

# See `find_brain`.
_OPENING_VOXELS = 2
_REACH_MM = 6.0


@dataclass(frozen=True)
class Found:
    """Masks (1, 1, X, Y, Z) and structures (1, 1 + structures, X, Y, Z) on the model grid, as probabilities."""

    brain: Tensor
    intracranial: Tensor
    structures: Tensor


def find_brain(dense: Dense) -> Found:
    """Probabilities within reach of the main body of the structures.

    What the network takes for brain in the neck or in the orbits hangs on by thin bridges if at all: the main body is
    the largest part of the segmented structures after an opening, and a mask voxel lies within 6 mm of it.
    """
    masks = torch.sigmoid(dense.mask_logits.float())
    structures = torch.softmax(dense.structure_logits.float(), dim=1)
    segmented = ((structures[0, 0] < 0.5) & (masks[0, 0] > 0.5)).cpu().numpy()
    body = largest_component(ndimage.binary_opening(segmented, iterations=_OPENING_VOXELS))
    if not body.any():
        body = segmented
    near = ndimage.distance_transform_edt(~body) * frame.SPACING <= _REACH_MM
    region = torch.from_numpy(near).to(masks.device)
    return Found(brain=masks[:, :1] * region, intracranial=masks[:, 1:], structures=structures * region)


def strip(image: Tensor, found: Found) -> Tensor:
    """What lies within a voxel of the brain of a head (1, 1, X, Y, Z), scaled to 0..1; zero elsewhere."""
    return scale_to_unit(image * functional.max_pool3d((found.brain > 0.5).float(), 3, stride=1, padding=1))


def see_stripped(
    model: UniBrain, stripped: Tensor, whole: Tensor, seen: Dense, smoothness: Tensor, *, mirror: bool = True
) -> Dense:
    """What the model sees of a stripped head, its masks and structures averaged with those of the whole head.

    Either sees what the other misses (docs/training-log.md).

    Parameters
    ----------
    model
        The trained model.
    stripped, whole
        (1, 1, X, Y, Z) from 0 to 1.
    seen
        What the model saw of the whole head.
    smoothness
        (1,) lambda.
    mirror
        Average over the mirror images of both as well.
    """
    views = [model.dense(stripped, smoothness), seen]
    if mirror:
        views += [model.mirrored(view, smoothness) for view in (stripped, whole)]
    return averaged(*views)
