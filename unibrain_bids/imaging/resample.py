"""Resampling of volumes from one voxel grid to another, through world coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from nibabel.affines import apply_affine, from_matvec
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from unibrain_bids.imaging.boxes import bounding_box

__all__ = ["resample", "resample_at", "smooth_towards"]

_FWHM_PER_SIGMA = np.sqrt(8 * np.log(2))
_SPLINE_REACH = 12  # voxels beyond which a cubic spline of a volume does not feel a value in it


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
        data = _blurred(data, source_from_target) if antialias else data.astype(np.float32, copy=False)
    if fill == 0:
        return _sampled_where_it_shows(data, source_from_target, tuple(shape), order).astype(dtype, copy=False)
    return _sampled(data, source_from_target, tuple(shape), order, fill).astype(dtype, copy=False)


def resample_at(data: NDArray, affine: ArrayLike, places: NDArray[np.floating], *, order: int = 1) -> NDArray:
    """Sample a volume at any places; zero beyond it.

    Parameters
    ----------
    data, affine
        Source volume (X, Y, Z), and its voxel to world, RAS mm, (4, 4).
    places
        (3, A, B, C) source world, RAS mm.
    order
        0 nearest neighbour (labels), 1 linear.

    Returns
    -------
    ndarray
        (A, B, C); the type of `data` for order 0, float32 otherwise.
    """
    voxel_from_world = np.linalg.inv(np.asarray(affine, dtype=np.float64))
    result = np.zeros(places.shape[1:], dtype=data.dtype if order == 0 else np.float32)
    for x in range(places.shape[1]):
        points = apply_affine(voxel_from_world, places[:, x].reshape(3, -1).T).T
        values = ndimage.map_coordinates(data, points, order=order, mode="grid-constant", output=result.dtype)
        result[x] = values.reshape(places.shape[2:])
    return result


def smooth_towards(data: NDArray, target_from_voxel: ArrayLike, target_affine: ArrayLike) -> NDArray[np.float32]:
    """Smooth a volume to the resolution of a target grid, along each of its axes on which that is coarser.

    Parameters
    ----------
    data
        (X, Y, Z).
    target_from_voxel
        (4, 4) its voxel to the target's world, mm.
    target_affine
        (4, 4) the target's voxel to the same world.
    """
    return _blurred(data, np.linalg.inv(np.asarray(target_from_voxel)) @ np.asarray(target_affine))


def _sampled_where_it_shows(
    data: NDArray, source_from_target: NDArray[np.float64], shape: tuple[int, ...], order: int
) -> NDArray:
    """Sample only where the part of the source that is not zero can show: a brain fills a quarter of its image."""
    result = np.zeros(shape, dtype=data.dtype)
    source = bounding_box(data != 0, margin=_SPLINE_REACH)
    corners = np.array(list(product(*[(s.start - 1, s.stop) for s in source])))
    places = apply_affine(np.linalg.inv(source_from_target), corners)
    low = np.clip(np.floor(places.min(0)), 0, shape).astype(int)
    high = np.clip(np.ceil(places.max(0)) + 1, 0, shape).astype(int)
    if not data[source].any() or (high <= low).any():
        return result
    target = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    into_source = from_matvec(np.eye(3), [-s.start for s in source])
    moved = into_source @ source_from_target @ from_matvec(np.eye(3), low)
    result[target] = _sampled(np.ascontiguousarray(data[source]), moved, tuple(high - low), order, 0.0)
    return result


def _sampled(
    data: NDArray, source_from_target: NDArray[np.float64], shape: tuple[int, ...], order: int, fill: float
) -> NDArray:
    # "grid-constant", as "constant" also blanks outermost voxels that a rounding error puts outside the grid
    return ndimage.affine_transform(
        data,
        source_from_target[:3, :3],
        offset=source_from_target[:3, 3],
        output_shape=shape,
        order=order,
        mode="grid-constant",
        cval=fill,
    )


def _blurred(data: NDArray, source_from_target: NDArray[np.float64]) -> NDArray[np.float32]:
    """Blur along each source axis so that its resolution (FWHM, at first one voxel) becomes one target voxel."""
    steps = np.linalg.norm(source_from_target[:3, :3], axis=1)
    sigmas = np.sqrt(np.maximum(steps**2 - 1, 0)) / _FWHM_PER_SIGMA
    return ndimage.gaussian_filter(data.astype(np.float32, copy=False), sigmas, mode="nearest")
