"""Guessed places: every voxel says where in the population frame it lies; the affine is the best fit to the guesses."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unibrain_bids.model import frame

# A guess is a step of so many mm times the network's output.
_UNIT_MM = 20.0
_REWEIGHTINGS = 3
_TOLERANCE_MM = 10.0


class PlaceHead(nn.Module):
    """Guesses of the bottleneck's tokens, for a head that stands nearly in the frame already.

    The bottleneck is the one level whose features leave no instance normalisation behind them: everywhere else a
    shift common to all voxels is normalised away.
    """

    FACTOR = 16

    def __init__(self, width: int) -> None:
        super().__init__()
        self.steps = nn.Conv3d(width, 3, 1)
        nn.init.zeros_(self.steps.weight)
        assert self.steps.bias is not None
        nn.init.zeros_(self.steps.bias)
        shape = (frame.SHAPE[0] // self.FACTOR, frame.SHAPE[1] // self.FACTOR, frame.SHAPE[2] // self.FACTOR)
        self.register_buffer("points", frame.points(shape, self.FACTOR * frame.SPACING), persistent=False)

    points: Tensor

    def forward(self, bottleneck: Tensor) -> Tensor:
        """Frame coordinates in mm (batch, 3, x, y, z) from features (batch, width, x, y, z)."""
        return self.points.permute(3, 0, 1, 2) + _UNIT_MM * self.steps(bottleneck).float()


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
