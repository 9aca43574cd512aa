"""Resampling of volumes from one voxel grid to another, through world coordinates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

__all__ = ["resample"]

_FWHM_PER_SIGMA = np.sqrt(8 * np.log(2))


def resample(
    data: NDArray,
    affine: ArrayLike,
    *,
    shape: Sequence[int],
    target_affine: ArrayLike,
    target_from_source: ArrayLike | None = None,
    order: int = 1,
    fill: float = 0.0,
    antialias: bool = False,
) -> NDArray:
    """Sample a volume on another grid; any orientation, spacing or obliqueness of both.

    Parameters
    ----------
    data
        Source volume (X, Y, Z).
    affine
        Source voxel to source world, RAS mm, (4, 4).
    shape, target_affine
        Grid to sample on: its shape, and its voxel to target world, RAS mm.
    target_from_source
        Source world to target world, RAS mm; identity by default. Scan to template: `template_from_scan`.
    order
        0 nearest neighbour (labels), 1 linear, 3 cubic spline (may overshoot).
    fill
        Value beyond the source grid.
    antialias
        Smooth before sampling along each source axis on which the target is coarser, to the target's resolution.

    Returns
    -------
    ndarray
        `shape`; the type of `data` for order 0, float32 otherwise.

    Raises
    ------
    ValueError
        `antialias` was asked for with order 0: labels cannot be smoothed.
    """
    world = np.eye(4) if target_from_source is None else np.asarray(target_from_source, dtype=np.float64)
    source_from_target = np.linalg.inv(world @ np.asarray(affine, dtype=np.float64)) @ np.asarray(target_affine)
    if order == 0:
        if antialias:
            raise ValueError("labels (order 0) cannot be smoothed before they are sampled")
        dtype = data.dtype
        data = data.astype(np.uint8) if dtype.kind == "b" else data
    else:
        dtype = np.dtype(np.float32)
        data = _smoothed(data, source_from_target) if antialias else data.astype(np.float32, copy=False)
    # "grid-constant", as "constant" also blanks outermost voxels that a rounding error puts outside the grid
    sampled = ndimage.affine_transform(
        data,
        source_from_target[:3, :3],
        offset=source_from_target[:3, 3],
        output_shape=tuple(shape),
        order=order,
        mode="grid-constant",
        cval=fill,
    )
    return sampled.astype(dtype, copy=False)


def _smoothed(data: NDArray, source_from_target: NDArray[np.float64]) -> NDArray[np.float32]:
    """Blur along each source axis so that its resolution (FWHM, at first one voxel) becomes one target voxel."""
    steps = np.linalg.norm(source_from_target[:3, :3], axis=1)
    sigmas = np.sqrt(np.maximum(steps**2 - 1, 0)) / _FWHM_PER_SIGMA
    return ndimage.gaussian_filter(data.astype(np.float32, copy=False), sigmas, mode="nearest")
