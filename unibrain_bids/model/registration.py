"""Affine registration to the population frame: learned stages, and a closed form on structure centroids.

All matrices act on coordinates in mm. A stage predicts `grid_from_frame`, the pull matrix: the aligned image at
frame point q is the grid's image at `grid_from_frame @ q`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from unibrain_bids.model import frame
from unibrain_bids.model.blocks import NEGATIVE_SLOPE
from unibrain_bids.model.spatial import warp
from unibrain_bids.model.steady import voxel_sums

# One unit of the predicted translation in mm, about the radius of a brain: matrix and shift then weigh alike.
_RADIUS_MM = 80.0
# Largest deviation from identity that one stage can express.
_REACH = 0.25


def affine_from_parameters(parameters: Tensor) -> Tensor:
    """Identity plus bounded deviations: (batch, 12) to (batch, 4, 4) in mm (NPP: tanh, plus identity)."""
    deviation = _REACH * torch.tanh(parameters.float()).view(-1, 3, 4)
    deviation = deviation * torch.tensor([1.0, 1.0, 1.0, _RADIUS_MM], device=parameters.device)
    identity = torch.eye(4, device=parameters.device)
    top = identity[:3] + deviation
    return torch.cat([top, identity[3:].expand(len(top), 1, 4)], dim=1)


class BottleneckStage(nn.Module):
    """Stage 0, NPP's spatial transformer: global average pool, 256, ReLU, 12, tanh, plus identity."""

    def __init__(self, width: int, hidden: int = 256) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, 12))
        _start_at_identity(self.mlp[-1])

    def forward(self, bottleneck: Tensor) -> Tensor:
        """`grid_from_frame` (batch, 4, 4) from bottleneck features (batch, width, x, y, z)."""
        return affine_from_parameters(self.mlp(bottleneck.float().mean((2, 3, 4))))


class RecursiveStage(nn.Module):
    """A further stage, UniBrain's f_r: convolutions over the extracted, so far aligned brain and the template."""

    def __init__(self, widths: tuple[int, ...], shape: tuple[int, ...], hidden: int = 128) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(zip((2, *widths[:-1]), widths, strict=True)):
            layers += [nn.Conv3d(a, b, 3, stride=2 if i else 1, padding=1), nn.LeakyReLU(NEGATIVE_SLOPE)]
        self.convolutions = nn.Sequential(*layers)
        voxels = math.prod(math.ceil(n / 2 ** (len(widths) - 1)) for n in shape)
        self.mlp = nn.Sequential(nn.Linear(widths[-1] * voxels, hidden), nn.ReLU(), nn.Linear(hidden, 12))
        for layer in (*self.convolutions, self.mlp[0]):
            carry_through(layer)
        _start_at_identity(self.mlp[-1])

    def forward(self, aligned: Tensor, template: Tensor) -> Tensor:
        """Increment (batch, 4, 4) from two volumes (batch, 1, x, y, z) on the frame's half grid."""
        features = self.convolutions(torch.cat([aligned, template], dim=1))
        return affine_from_parameters(self.mlp(features.flatten(1)))


class Registration(nn.Module):
    """M stages whose matrices compose; the image is always sampled from the original, once per stage."""

    half_points: Tensor
    voxel_from_half: Tensor

    def __init__(self, bottleneck_width: int, stages: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.first = BottleneckStage(bottleneck_width)
        half_shape = tuple(n // 2 for n in frame.SHAPE)
        self.recursive = nn.ModuleList([RecursiveStage(widths, half_shape) for _ in range(stages - 1)])
        half_affine = torch.from_numpy(frame.affine(2 * frame.SPACING, half_shape)).float()
        self.register_buffer("half_points", frame.points(half_shape, 2 * frame.SPACING), persistent=False)
        self.register_buffer("voxel_from_half", torch.linalg.inv(half_affine), persistent=False)

    def forward(self, bottleneck: Tensor, extracted: Tensor, template: Tensor) -> list[Tensor]:
        """Cumulative `grid_from_frame` (batch, 4, 4) after each stage.

        Parameters
        ----------
        bottleneck
            Backbone features.
        extracted, template
            (batch, 1, X, Y, Z) extracted brain on the model grid, and the template's brain in the frame.
        """
        extracted, template = (functional.avg_pool3d(x.float(), 2) for x in (extracted, template))
        stages = [self.first(bottleneck)]
        for stage in self.recursive:
            aligned = warp(extracted, stages[-1], self.half_points, self.voxel_from_half)
            stages.append(stages[-1] @ stage(aligned, template.expand_as(aligned)))
        return stages


def centroids(probability: Tensor, points: Tensor, threshold: float = 0.3) -> tuple[Tensor, Tensor]:
    """Centres of soft structures and their volumes.

    Parameters
    ----------
    probability
        (batch, 1 + structures, X, Y, Z), background first.
    points
        (X, Y, Z, 3) mm.
    threshold
        Fainter probabilities don't count: haze far from a structure would drag its centre.

    Returns
    -------
    tuple
        (batch, structures, 3) in mm, (batch, structures) in voxels.
    """
    weight = probability[:, 1:].float()
    weight = (weight * (weight > threshold)).flatten(2)
    place = points.view(1, -1, 3)
    sums = voxel_sums(weight, torch.cat([torch.ones_like(place[..., :1]), place], dim=2))
    volume = sums[..., 0]
    return (sums[..., 1:] / volume.clamp(min=1e-3)[..., None]).float(), volume.float()


def closed_form_affine(centre: Tensor, volume: Tensor, target: Tensor, *, smallest: float) -> Tensor:
    """Least-squares affine between structure centres and the frame's (EasyReg's idea), differentiable.

    Parameters
    ----------
    centre, volume
        Of the structures found (see `centroids`).
    target
        (structures, 3) mean centres in the frame, mm.
    smallest
        Structures of fewer voxels don't count.

    Returns
    -------
    Tensor
        `frame_from_grid` (batch, 4, 4), float32. A faint pull towards a similarity of unit size keeps the
        solution defined when few structures are found.
    """
    centre, target = centre.double(), target.double().expand(centre.shape)
    weight = torch.where(volume > smallest, volume.double().clamp(max=2000.0).sqrt(), 0.0)
    weight = (weight / weight.sum(1, keepdim=True).clamp(min=1e-9))[..., None]
    middle, goal = (weight * centre).sum(1, keepdim=True), (weight * target).sum(1, keepdim=True)
    a, b = centre - middle, target - goal
    covariance, cross = a.transpose(1, 2) @ (weight * a), a.transpose(1, 2) @ (weight * b)
    ridge = 1.0 * torch.eye(3, dtype=torch.float64, device=a.device)  # mm^2; brains have about 1000
    linear = torch.linalg.solve(covariance + ridge, cross + ridge).transpose(1, 2)
    shift = goal.transpose(1, 2) - linear @ middle.transpose(1, 2)
    bottom = torch.tensor([[[0.0, 0.0, 0.0, 1.0]]], dtype=torch.float64, device=a.device).expand(len(a), 1, 4)
    return torch.cat([torch.cat([linear, shift], dim=2), bottom], dim=1).float()


def carry_through(layer: nn.Module) -> None:
    """He's initialisation, for layers with nothing that normalises: torch's own lets what they see fade."""
    if isinstance(layer, (nn.Conv3d, nn.Linear)):
        nn.init.kaiming_normal_(layer.weight, a=NEGATIVE_SLOPE)
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)


def _start_at_identity(layer: nn.Module) -> None:
    assert isinstance(layer, nn.Linear)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
