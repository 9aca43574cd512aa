"""Mean cortical thickness of regions: their volume over the area of the white matter under them.

The volume of grey matter does not change where the banks of a sulcus touch, and the inner surface is seen all along, so
closed sulci do no harm; measuring from surface to surface would fail there. The area is that of the voxels' faces
between cortex and what lies inside of it, each corrected for the direction of the surface.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from unibrain_bids.imaging.atlases import CORTEX
from unibrain_bids.imaging.boxes import bounding_box
from unibrain_bids.imaging.regions import region_voxels

__all__ = ["mean_thickness"]

_OUTSIDE_THE_CEREBRUM = (7, 8, 15, 16, 46, 47)
_SMOOTHING_MM = 1.5
# Of a region's voxels this share must be cortex, and its inner surface so large, or there is no estimate.
_CORTICAL_SHARE = 0.9
_SMALLEST_AREA_MM2 = 50.0


def mean_thickness(
    labels: NDArray[Any], structures: NDArray[Any], affine: ArrayLike, *, indices: Sequence[int]
) -> NDArray[np.float64]:
    """Return the mean thickness of regions in mm (K,), NaN for those that are not cortex.

    Parameters
    ----------
    labels
        (X, Y, Z) integers; the regions.
    structures
        (X, Y, Z) FreeSurfer's numbers of the structures on the same grid.
    affine
        Voxel to RAS mm, (4, 4); the voxel's axes are taken to be orthogonal.
    indices
        The regions.
    """
    spacing = np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)
    cortex = np.isin(structures, CORTEX)
    box = bounding_box(cortex)
    cortex, structures, labels = cortex[box], structures[box], labels[box]
    inner = (structures > 0) & ~cortex & ~np.isin(structures, _OUTSIDE_THE_CEREBRUM)
    voxels, bounds = region_voxels(labels, indices)
    region = np.repeat(np.arange(len(indices)), np.diff(bounds))
    counts = np.diff(bounds)
    in_cortex = np.bincount(region, cortex.ravel()[voxels], len(indices))
    area = np.bincount(region, _inner_area(cortex, inner, spacing).ravel()[voxels], len(indices))
    known = (in_cortex >= _CORTICAL_SHARE * counts) & (area >= _SMALLEST_AREA_MM2)
    return np.where(known, in_cortex * spacing.prod() / np.maximum(area, 1e-6), np.nan)


def _inner_area(
    cortex: NDArray[np.bool_], inner: NDArray[np.bool_], spacing: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Area in mm2 between each cortex voxel and what lies inside, (X, Y, Z).

    A plane with the unit normal n shows |n_i| of its area in faces across axis i: in all |n_x| + |n_y| + |n_z|.
    """
    smooth = ndimage.gaussian_filter(inner.astype(np.float32), _SMOOTHING_MM / spacing)
    normals = np.abs(np.stack(np.gradient(smooth, *spacing)))
    length = np.linalg.norm(normals, axis=0)
    shown = np.divide(normals.sum(0), length, out=np.full(length.shape, 1.5, np.float32), where=length > 1e-3)
    area = np.zeros(cortex.shape)
    for axis in range(3):
        face = spacing.prod() / spacing[axis]
        for step in (1, -1):
            touches = cortex & np.roll(inner, step, axis)
            area[touches] += face / shown[touches]
    return area
