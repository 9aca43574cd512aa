"""What the model itself can say of its answer, without any truth (docs/quality.md)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unibrain_bids.model.locate import Volume, rigid_part
from unibrain_bids.model.unibrain import UniBrain


def movement(matrix: Tensor) -> float:
    """How far an affine (4, 4) in mm moves the corners of a cube of 100 mm around the origin, mean in mm.

    Of the closed form on the segmented structures: small when registration and segmentation agree.
    """
    corners = torch.cartesian_prod(*[torch.tensor([-50.0, 50.0], device=matrix.device)] * 3)
    moved = corners @ matrix[:3, :3].T + matrix[:3, 3]
    return float((moved - corners).norm(dim=1).mean())


def mask_certainty(probability: Tensor) -> float:
    """Mean distance of the mask's probabilities from a coin toss over its undecided shell, 0..1."""
    shell = probability[(probability > 0.05) & (probability < 0.95)]
    return float((2 * shell - 1).abs().double().mean()) if shell.numel() else 1.0


def structure_certainty(structures: Tensor, brain: Tensor) -> float:
    """Mean probability of the likeliest of `structures` (1, classes, X, Y, Z) over the brain (1, 1, X, Y, Z)."""
    likeliest = structures[0].amax(0)[brain[0, 0] > 0.5]
    return float(likeliest.double().mean()) if likeliest.numel() else 0.0


def tilt(frame_from_world: NDArray[np.float64]) -> float:
    """How far the head is turned against its world's axes, degrees."""
    rotation = rigid_part(frame_from_world)[:3, :3]
    return float(np.degrees(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))))


def outside_view(unibrain: UniBrain, frame_from_world: NDArray[np.float64], volume: Volume) -> float:
    """Share of the atlas' brain, brought to the head's place, that lies beyond the scan's field of view."""
    brain = unibrain.prior_groups[0].sum(0) > 0.5
    points = unibrain.points[brain].double().cpu().numpy()
    voxel_from_frame = np.linalg.inv(frame_from_world @ volume.affine)
    voxels = points @ voxel_from_frame[:3, :3].T + voxel_from_frame[:3, 3]
    last = np.array(volume.data.shape[2:]) - 1
    return float(((voxels < -0.5) | (voxels > last + 0.5)).any(axis=1).mean())
