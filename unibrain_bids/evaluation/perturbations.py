"""Changes of a scan that should not change its person's network: noise, bias, a tight mask, another position."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from unibrain_bids.imaging.resample import resample
from unibrain_bids.imaging.scan import Scan

__all__ = ["PERTURBATIONS", "Perturbation", "draw_movement", "moved"]

Perturbation = Callable[[Scan, NDArray[np.uint8], np.random.Generator], Scan]
"""Takes a scan, its brain mask (X, Y, Z) and a source of chance; gives the changed scan."""

NOISE_SHARE = 0.05
BIAS_SD = 0.15
BIAS_MM = 60.0
ANGLE_DEG = 6.0
SHIFT_MM = 4.0


def add_noise(scan: Scan, mask: NDArray[np.uint8], rng: np.random.Generator) -> Scan:
    """Gaussian noise, its sd 5 % of the brain's 95th percentile."""
    level = np.percentile(scan.data[mask > 0], 95)
    noisy = scan.data + NOISE_SHARE * level * rng.normal(size=scan.data.shape)
    return replace(scan, data=np.where(scan.data == 0, 0, np.abs(noisy)).astype(np.float32))


def add_bias(scan: Scan, mask: NDArray[np.uint8], rng: np.random.Generator) -> Scan:
    """A smooth multiplicative field: its logarithm has an sd of 0.15 over the brain and a width (sigma) of 60 mm."""
    spacing = np.linalg.norm(scan.affine[:3, :3], axis=0)
    coarse = rng.normal(size=np.ceil(np.array(scan.data.shape) / 8).astype(int))
    field = ndimage.gaussian_filter(coarse, BIAS_MM / (8 * spacing), mode="reflect")
    field = ndimage.zoom(field, np.array(scan.data.shape) / field.shape, order=1)
    field = (field - field[mask > 0].mean()) / field[mask > 0].std()
    return replace(scan, data=(scan.data * np.exp(BIAS_SD * field)).astype(np.float32))


def erode_mask(scan: Scan, mask: NDArray[np.uint8], rng: np.random.Generator) -> Scan:
    """The brain cut out by its mask less one voxel all around."""
    return replace(scan, data=scan.data * ndimage.binary_erosion(mask > 0))


def draw_movement(scan: Scan, mask: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return an affine (4, 4), RAS mm: up to 6 degrees about each axis through the brain's centre, up to 4 mm."""
    centre = scan.affine @ np.append(np.argwhere(mask).mean(axis=0), 1)
    turn = Rotation.from_euler("xyz", rng.uniform(-ANGLE_DEG, ANGLE_DEG, 3), degrees=True).as_matrix()
    matrix = np.eye(4)
    matrix[:3, :3] = turn
    matrix[:3, 3] = centre[:3] - turn @ centre[:3] + rng.uniform(-SHIFT_MM, SHIFT_MM, 3)
    return matrix


def move(scan: Scan, mask: NDArray[np.uint8], rng: np.random.Generator) -> Scan:
    """The head turned by up to 6 degrees about each axis and shifted by up to 4 mm, resampled onto the same grid."""
    return moved(scan, draw_movement(scan, mask, rng))


def moved(scan: Scan, matrix: NDArray[np.float64]) -> Scan:
    """The head moved by an affine (4, 4), RAS mm, resampled onto the same grid."""
    data = resample(scan.data, scan.affine, shape=scan.data.shape, target_affine=scan.affine, target_from_source=matrix)
    return replace(scan, data=data)


PERTURBATIONS: dict[str, Perturbation] = {
    "noise": add_noise, "bias": add_bias, "mask-erosion": erode_mask, "position": move,
}  # fmt: skip
