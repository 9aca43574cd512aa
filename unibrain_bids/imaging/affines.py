"""Small pure functions on affine matrices and voxel grids.

An affine `a_from_b` is a (4, 4) float64 array that maps points of b's world to a's world, both RAS mm. An `affine`
alone maps voxel indices (centres of voxels) to RAS mm. For voxel sizes and for applying an affine to points use
`nibabel.affines.voxel_sizes` and `nibabel.affines.apply_affine`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from nibabel.affines import apply_affine, from_matvec, to_matvec
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "AffineParts",
    "compose",
    "decompose",
    "flip_lps_ras",
    "grid_around",
    "grid_at",
    "grid_center",
    "grid_corners",
    "is_plausible_affine",
    "rotation_angle",
]

Matrix = NDArray[np.float64]

_LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def flip_lps_ras(matrix: ArrayLike) -> Matrix:
    """Convert a world-to-world affine from RAS to LPS coordinates, or back (the operation is its own inverse)."""
    return _LPS_RAS @ np.asarray(matrix, dtype=np.float64) @ _LPS_RAS


@dataclass(frozen=True)
class AffineParts:
    """Parts of an affine: `x -> rotation @ diag(scale) @ (unit upper triangle with shear) @ x + translation`.

    Attributes
    ----------
    translation
        (3,) mm.
    rotation
        (3,) degrees about the fixed x, y and z axis, applied in this order.
    scale
        (3,) factors; the first is negative if the affine mirrors.
    shear
        (3,) xy, xz, yz.
    """

    translation: Matrix
    rotation: Matrix
    scale: Matrix
    shear: Matrix


def decompose(matrix: ArrayLike) -> AffineParts:
    """Split a (4, 4) affine into translation (mm), rotation (degrees), scale and shear; `compose` is the inverse.

    Raises
    ------
    ValueError
        The affine is singular.
    """
    from scipy.spatial.transform import Rotation

    linear, translation = to_matvec(np.asarray(matrix, dtype=np.float64))
    rotation, upper = np.linalg.qr(linear)
    scale = np.diag(upper).copy()
    if not np.all(np.isfinite(linear)) or np.abs(scale).min() <= 1e-12 * np.abs(scale).max():
        raise ValueError("a singular affine has no rotation, scale and shear")
    signs = np.sign(scale)
    signs[0] *= np.sign(
        np.linalg.det(rotation * signs)
    )  # a mirror goes to the x scale, so that `rotation` is a proper one
    rotation, scale = rotation * signs, scale * signs
    shear = (upper * signs[:, None] / scale[:, None])[np.triu_indices(3, 1)]
    return AffineParts(translation, Rotation.from_matrix(rotation).as_euler("xyz", degrees=True), scale, shear)


def compose(parts: AffineParts) -> Matrix:
    """Build the (4, 4) affine that `decompose` splits into `parts`."""
    from scipy.spatial.transform import Rotation

    triangle = np.eye(3)
    triangle[np.triu_indices(3, 1)] = parts.shear
    rotation = Rotation.from_euler("xyz", parts.rotation, degrees=True).as_matrix()
    return np.asarray(from_matvec(rotation @ np.diag(parts.scale) @ triangle, parts.translation))


def rotation_angle(first: ArrayLike, second: ArrayLike | None = None) -> float:
    """Return the angle in degrees (0..180) between the rotations nearest to two affines (default: to the identity)."""
    relative = _nearest_rotation(first)
    if second is not None:
        relative = relative @ _nearest_rotation(second).T
    # sin and cos together stay exact near 0 and 180 degrees, where arccos of the trace alone does not
    sine = np.linalg.norm(relative - relative.T) / np.sqrt(8)
    return float(np.degrees(np.arctan2(sine, (np.trace(relative) - 1) / 2)))


def _nearest_rotation(matrix: ArrayLike) -> Matrix:
    """Return the proper rotation (3, 3) nearest to the linear part of an affine."""
    u, _, vt = np.linalg.svd(np.asarray(matrix, dtype=np.float64)[:3, :3])
    return u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt


def is_plausible_affine(
    matrix: ArrayLike, *, scale: tuple[float, float] = (0.6, 1.7), rotation: float = 100.0, translation: float = 1000.0
) -> bool:
    """Tell whether a (4, 4) world-to-world affine could register two adult heads.

    Parameters
    ----------
    matrix
        `a_from_b`, RAS mm.
    scale
        Smallest and largest stretch allowed in any direction (singular values of the linear part).
    rotation
        Largest angle allowed, degrees.
    translation
        Largest shift of the origin allowed, mm.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or not np.allclose(matrix[3], [0, 0, 0, 1]):
        return False
    stretch = np.linalg.svd(matrix[:3, :3], compute_uv=False)
    return bool(
        np.linalg.det(matrix[:3, :3]) > 0
        and scale[0] <= stretch.min()
        and stretch.max() <= scale[1]
        and rotation_angle(matrix) <= rotation
        and np.linalg.norm(matrix[:3, 3]) <= translation
    )


def grid_center(shape: Sequence[int], affine: ArrayLike) -> Matrix:
    """Return the centre (3,) of a voxel grid, RAS mm."""
    return np.asarray(apply_affine(affine, (np.asarray(shape[:3]) - 1) / 2))


def grid_corners(shape: Sequence[int], affine: ArrayLike) -> Matrix:
    """Return the 8 outer corners (8, 3) of a voxel grid, half a voxel beyond the outermost centres, RAS mm."""
    return np.asarray(apply_affine(affine, np.array(list(product(*((-0.5, n - 0.5) for n in shape[:3]))))))


def grid_at(center: ArrayLike, shape: Sequence[int], spacing: ArrayLike) -> Matrix:
    """Return the affine of an RAS grid of `shape` voxels of `spacing` mm (scalar or (3,)) about `center` (RAS mm)."""
    linear = np.diag(np.broadcast_to(np.asarray(spacing, dtype=np.float64), 3))
    return np.asarray(from_matvec(linear, np.asarray(center) - linear @ ((np.asarray(shape) - 1) / 2)))


def grid_around(points: ArrayLike, spacing: ArrayLike, *, margin: float = 0.0) -> tuple[tuple[int, int, int], Matrix]:
    """Return shape and affine of the smallest axis-aligned RAS grid whose voxels cover `points` and a margin.

    Parameters
    ----------
    points
        (N, 3) RAS mm.
    spacing
        Voxel size in mm, scalar or (3,).
    margin
        Added on every side, mm.
    """
    points = np.asarray(points, dtype=np.float64)
    low, high = points.min(axis=0) - margin, points.max(axis=0) + margin
    # a hair less than a full voxel: rounding errors must not add a layer
    counts = np.maximum(np.ceil((high - low) / np.asarray(spacing, dtype=np.float64) - 1e-6), 1).astype(int)
    shape = (int(counts[0]), int(counts[1]), int(counts[2]))
    return shape, grid_at((low + high) / 2, shape, spacing)
