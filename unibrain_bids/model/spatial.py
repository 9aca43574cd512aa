"""Resampling of tensors through affines, with coordinates in mm.

Volumes are (batch, channel, X, Y, Z). A grid is described by the (4, 4) matrix from its voxel indices to mm; two
volumes are related by matrices that map the mm of the grid to be filled to the mm of the volume that is read (pull).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# Positions within a voxel, in voxels, whose mean gives partial volume (a tetrahedron): where a scan is brought to a
# coarser grid, and where the simulator makes one.
SUBVOXEL = ((0.25, 0.25, 0.25), (0.25, -0.25, -0.25), (-0.25, 0.25, -0.25), (-0.25, -0.25, 0.25))


def sample(volume: Tensor, voxels: Tensor, *, mode: str = "bilinear") -> Tensor:
    """Read a volume at voxel coordinates; zeros outside.

    Parameters
    ----------
    volume
        (batch, channel, X, Y, Z).
    voxels
        (batch, A, B, C, 3) voxel coordinates (integer at voxel centres), in X, Y, Z order.
    mode
        "bilinear" (trilinear in 3D) or "nearest".
    """
    size = torch.tensor(volume.shape[2:], device=voxels.device, dtype=voxels.dtype)
    normalised = ((2 * voxels + 1) / size - 1).flip(-1)
    return functional.grid_sample(volume, normalised, mode=mode, padding_mode="zeros", align_corners=False)


def transform_points(matrix: Tensor, points: Tensor) -> Tensor:
    """Points (..., 3) through matrices (batch, 4, 4), giving (batch, ..., 3)."""
    flat = points.reshape(-1, 3)
    moved = torch.einsum("bij,nj->bni", matrix[:, :3, :3], flat) + matrix[:, None, :3, 3]
    return moved.reshape(matrix.shape[0], *points.shape)


def warp(volume: Tensor, source_from_grid: Tensor, grid_points: Tensor, voxel_from_source: Tensor) -> Tensor:
    """Resample a volume onto a grid, differentiable in the volume and in the matrix.

    Parameters
    ----------
    volume
        (batch, channel, X, Y, Z).
    source_from_grid
        (batch, 4, 4): mm of the grid to mm of the volume.
    grid_points
        (A, B, C, 3) mm of the grid's voxels.
    voxel_from_source
        (4, 4): mm of the volume to its voxel indices.
    """
    matrix = voxel_from_source.to(source_from_grid) @ source_from_grid
    return sample(volume, transform_points(matrix, grid_points))


def downsample(volume: Tensor, factors: tuple[int, int, int]) -> Tensor:
    """Block averages, so that a coarser grid sees no aliasing; trailing voxels are padded by replication."""
    padding: list[int] = []
    for size, factor in reversed(list(zip(volume.shape[2:], factors, strict=True))):
        padding += [0, -size % factor]
    if any(padding):
        volume = functional.pad(volume, padding, mode="replicate")
    return functional.avg_pool3d(volume, factors)
