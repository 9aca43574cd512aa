"""Where each voxel of a simulated scan lies in a head: pose, deformation, look-up of labels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

from unibrain_bids.training.simulation.material import Head

# The deformation fields cover this half width (mm) around the frame's origin; beyond it they stay constant.
_FIELD_REACH = 140.0


@dataclass(frozen=True)
class PoseRange:
    """How far simulated scans stand from the population frame.

    Attributes
    ----------
    rotation
        Largest rotation about each axis, degrees.
    translation
        Largest shift along each axis, mm.
    scale
        Largest relative change of size, common to the axes; each axis varies by a third of it besides.
    shear
        Largest shear.
    least_deformation
        Smallest strength of the smooth deformations, as a part of the largest. At 1 two persons of one label map differ
        as two real ones do (docs/networks.md); at 0 some are nearly the same.
    """

    rotation: float
    translation: float
    scale: float
    shear: float
    least_deformation: float = 0.0


@dataclass(frozen=True)
class Geometry:
    """One drawn geometry.

    Attributes
    ----------
    frame_from_grid
        (4, 4): scan grid mm to population frame mm, the exact answer a registration should give.
    warp
        Coarse to fine displacement fields, each (1, 3, n, n, n) in mm.
    bulge
        Relative enlargement around the ventricles (negative: shrinking).
    flip
        Whether the head is mirrored.
    """

    frame_from_grid: torch.Tensor
    warp: tuple[torch.Tensor, ...]
    bulge: float
    flip: bool


def draw_geometry(pose: PoseRange, generator: torch.Generator, device: torch.device | str) -> Geometry:
    """Draw pose, deformation and side; small tensors are drawn on the CPU so that every device sees the same."""
    warp = []
    least = pose.least_deformation
    for cells, largest in ((7, 4.0), (14, 1.5)):
        strength = largest * (least + (1 - least) * torch.rand((), generator=generator))
        warp.append((strength * torch.randn(1, 3, cells, cells, cells, generator=generator)).to(device))
    bulge = float(torch.rand((), generator=generator) * 0.5 - 0.12) if _chance(0.5, generator) else 0.0
    return Geometry(draw_pose(pose, generator).to(device), tuple(warp), bulge, _chance(0.5, generator))


def draw_pose(pose: PoseRange, generator: torch.Generator) -> torch.Tensor:
    """A random affine (4, 4) float32 within the range: scale, then shear, rotation and shift."""

    def uniform(count: int, largest: float) -> torch.Tensor:
        return (2 * torch.rand(count, generator=generator) - 1) * largest

    matrix = torch.diag(torch.exp(uniform(1, pose.scale) + uniform(3, pose.scale / 3)))
    shear = torch.eye(3)
    shear[0, 1], shear[0, 2], shear[1, 2] = uniform(3, pose.shear)
    result = torch.eye(4)
    result[:3, :3] = rotation_matrix(uniform(3, math.radians(pose.rotation))) @ shear @ matrix
    result[:3, 3] = uniform(3, pose.translation)
    return result


def rotation_matrix(angles: torch.Tensor) -> torch.Tensor:
    """Rotation about x, then y, then z by the angles (3,) in radians, (3, 3)."""
    (cx, cy, cz), (sx, sy, sz) = torch.cos(angles), torch.sin(angles)
    one, zero = torch.ones_like(cx), torch.zeros_like(cx)
    about_x = torch.stack([one, zero, zero, zero, cx, -sx, zero, sx, cx]).view(3, 3)
    about_y = torch.stack([cy, zero, sy, zero, one, zero, -sy, zero, cy]).view(3, 3)
    about_z = torch.stack([cz, -sz, zero, sz, cz, zero, zero, zero, one]).view(3, 3)
    return about_z @ about_y @ about_x


def displacement(geometry: Geometry, frame_points: torch.Tensor, ventricles: torch.Tensor) -> torch.Tensor:
    """Displacement in mm at the points (X, Y, Z, 3) of the frame."""
    normalised = (frame_points / _FIELD_REACH).flip(-1).unsqueeze(0)
    total = torch.zeros_like(frame_points)
    for field in geometry.warp:
        sampled = functional.grid_sample(field, normalised, padding_mode="border", align_corners=True)
        total = total + sampled[0].permute(1, 2, 3, 0)
    if geometry.bulge:
        offset = frame_points - ventricles
        weight = torch.exp(-offset.square().sum(-1, keepdim=True) / (2 * 28.0**2))
        total = total - geometry.bulge * weight * offset
    return total


def look_up(head: Head, geometry: Geometry, frame_points: torch.Tensor, *volumes: torch.Tensor) -> list[torch.Tensor]:
    """Nearest voxels of the head's volumes (0 outside them) at displaced frame points (X, Y, Z, 3)."""
    if geometry.flip:
        frame_points = frame_points * torch.tensor([-1.0, 1.0, 1.0], device=frame_points.device)
    matrix = head.voxel_from_frame
    voxels = (frame_points @ matrix[:3, :3].T + matrix[:3, 3]).round().long()
    size = torch.tensor(head.labels.shape, device=voxels.device)
    inside = ((voxels >= 0) & (voxels < size)).all(-1)
    voxels = voxels.clamp(min=torch.zeros_like(size), max=size - 1)
    flat = (voxels[..., 0] * size[1] + voxels[..., 1]) * size[2] + voxels[..., 2]
    return [volume.view(-1)[flat] * inside for volume in volumes]


def _chance(probability: float, generator: torch.Generator) -> bool:
    return bool(torch.rand((), generator=generator) < probability)
