"""The population frame: the grid on which the model works.

The frame is the symmetric mean of the training heads at their mean size, with the x axis from left to right, y to
anterior, z to superior (RAS), the origin at the centre of the grid and millimetres as unit. Scans and templates are
brought into it by the model's own affine.
"""

from __future__ import annotations

import numpy as np
import torch

SHAPE: tuple[int, int, int] = (80, 96, 80)
SPACING = 2.0

# Structures in the order of the model's output channels 1..31 (channel 0 is "not a structure"): FreeSurfer numbers.
LEFT = (2, 3, 4, 5, 7, 8, 10, 11, 12, 13, 17, 18, 26, 28)
RIGHT = (41, 42, 43, 44, 46, 47, 49, 50, 51, 52, 53, 54, 58, 60)
MIDLINE = (14, 15, 16)
STRUCTURES: tuple[int, ...] = LEFT + RIGHT + MIDLINE

# Channel groups of the soft atlas that the backbone sees (sides apart, so that it knows left from right).
_GROUPS_ONE_SIDE = ((2,), (3,), (4, 5), (7, 8), (10, 28), (11, 12, 13, 26, 17, 18))


def flip_permutation() -> list[int]:
    """Output channel of the mirrored structure, for each output channel (background first)."""
    mirrored = dict(zip(LEFT + RIGHT, RIGHT + LEFT, strict=True))
    channel = {number: i + 1 for i, number in enumerate(STRUCTURES)}
    return [0, *(channel[mirrored.get(number, number)] for number in STRUCTURES)]


def prior_groups() -> list[list[int]]:
    """Channels of the soft atlas that are summed into one input channel each."""
    channel = {number: i + 1 for i, number in enumerate(STRUCTURES)}
    mirrored = dict(zip(LEFT, RIGHT, strict=True))
    left = [[channel[n] for n in group] for group in _GROUPS_ONE_SIDE]
    right = [[channel[mirrored[n]] for n in group] for group in _GROUPS_ONE_SIDE]
    return [*left, *right, [channel[n] for n in MIDLINE]]


def affine(spacing: float = SPACING, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Voxel index to frame mm (RAS) of a grid centred on the origin, (4, 4) float64."""
    matrix = np.diag([spacing, spacing, spacing, 1.0])
    matrix[:3, 3] = -spacing * (np.asarray(shape) - 1) / 2
    return matrix


def voxel_volume(frame_from_scan: np.ndarray) -> float:
    """Volume in the scan, mm3, of a voxel of the model grid, given the affine (4, 4) in mm between the two."""
    return SPACING**3 / abs(float(np.linalg.det(frame_from_scan[:3, :3])))


def points(
    shape: tuple[int, ...] = SHAPE, spacing: float = SPACING, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Coordinates in mm of the grid's voxels, (X, Y, Z, 3) float32."""
    axes = [(torch.arange(n, device=device, dtype=torch.float32) - (n - 1) / 2) * spacing for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
