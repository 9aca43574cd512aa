"""The first look: over the whole field of view at 8 mm, where is the brain, and where in the frame is each voxel?

Every voxel of the head guesses its own place in the population frame; the affine is the least-squares fit to the
guesses of the brain's voxels. Thousands of guesses make it robust, and a smooth map of places is learnt many times
faster than thirty structures under any pose (docs/training-log.md). Coordinates come in as channels and guesses go out
as steps from the voxel's own coordinates: a convolution has no other way to make a ramp.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unibrain_bids.model import frame
from unibrain_bids.model.backbone import Backbone

SPACING = 8.0
MULTIPLE = 8
# Guesses come in units of this many mm, about the half width of a head.
_UNIT_MM = 80.0
_REWEIGHTINGS = 3
_TOLERANCE_MM = 10.0


class FirstLook(nn.Module):
    """Plain U-Net over the whole head at 8 mm; any grid whose sizes are multiples of 8 (four levels)."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.backbone = Backbone(4, widths)
        self.head = nn.Conv3d(widths[0], 4, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Brain logits and guessed places of a head (batch, 1, X, Y, Z), 0..1, RAS, 8 mm.

        Returns
        -------
        tuple
            (batch, 1, X, Y, Z) logits; (batch, 3, X, Y, Z) frame coordinates in mm.
        """
        x, y, z = image.shape[2:]
        points = frame.points((x, y, z), SPACING, image.device).permute(3, 0, 1, 2)[None]
        ramps = (points / _UNIT_MM).expand(len(image), -1, -1, -1, -1)
        features = self.backbone(torch.cat([image, ramps.to(image)], dim=1)).full
        logits, steps = self.head(features).float().split([1, 3], dim=1)
        return logits, points + _UNIT_MM * steps


def fit_places(weight: Tensor, places: Tensor, points: Tensor) -> Tensor:
    """Weighted least-squares affine from grid mm to the guessed frame mm; outlying guesses lose their weight.

    Parameters
    ----------
    weight
        (X, Y, Z), 0 for voxels that don't count.
    places
        (3, X, Y, Z) guessed frame coordinates, mm.
    points
        (X, Y, Z, 3) grid coordinates, mm.

    Returns
    -------
    Tensor
        `frame_from_grid` (4, 4), float64.
    """
    used = weight > 0
    base = weight[used].double()
    design = torch.cat([points[used].double(), torch.ones(len(base), 1, dtype=torch.float64).to(base)], dim=1)
    goal = places[:, used].double().T
    robust = base
    matrix = torch.eye(4, dtype=torch.float64, device=base.device)
    for _ in range(_REWEIGHTINGS):
        normal = design.T @ (robust[:, None] * design)
        normal = normal + 1e-6 * normal.diagonal().mean() * torch.eye(4).to(normal)
        matrix[:3] = torch.linalg.solve(normal, design.T @ (robust[:, None] * goal)).T
        distance = (design @ matrix.T[:, :3] - goal).norm(dim=1)
        robust = base / (1 + (distance / _TOLERANCE_MM).square())
    return matrix
