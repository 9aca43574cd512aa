"""Any volumetric atlas of a template, brought into a subject.

A transform alone, an affine above all, puts much of a cortical region into white matter or into a sulcus. So regions
that lie mostly in the template's cortex are spread to the subject's own cortex: each of its voxels takes the nearest
label of its hemisphere. All other regions are warped as they are. Labels are interpolated softly: a voxel takes the
label with the largest trilinear weight, which keeps boundaries smoother than the nearest neighbour does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from unibrain_bids.imaging.boxes import bounding_box

PointMap = Callable[[NDArray[Any]], NDArray[np.float64]]
"""Points (N, 3) to points (N, 3)."""

__all__ = ["CORTEX", "PointMap", "PreparedAtlas", "cortical_regions", "prepare_atlas", "project_atlas"]

CORTEX = (3, 42)
"""FreeSurfer numbers of the left and the right cerebral cortex."""

# Cortex farther than this from every region of its side is not part of the atlas.
REACH_MM = 8.0
# A region is cortical if this share of its voxels is template cortex, and no grey structure holds more of it.
_CORTICAL_SHARE = 0.25
# A region with a larger share on one side belongs to that hemisphere alone.
_LATERAL_SHARE = 0.8
_DEEP_GREY = (8, 10, 11, 12, 13, 17, 18, 26, 47, 49, 50, 51, 52, 53, 54, 58)
_CHUNK = 1 << 18


@dataclass(frozen=True)
class PreparedAtlas:
    """An atlas, ready to be projected; all volumes on its own grid (X, Y, Z), int32, 0 where there is no region.

    Attributes
    ----------
    deep
        Regions that are warped as they are.
    left, right
        Cortical regions, spread to all places within `REACH_MM` of a region of that hemisphere.
    affine
        Voxel to RAS mm of the atlas' space, (4, 4).
    cortical
        Numbers of the cortical regions.
    """

    deep: NDArray[np.int32]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    affine: NDArray[np.float64]
    cortical: frozenset[int]


def cortical_regions(labels: NDArray[Any], structures: NDArray[Any]) -> frozenset[int]:
    """Return the numbers of the regions that are cortex.

    Parameters
    ----------
    labels
        (X, Y, Z) the atlas.
    structures
        (X, Y, Z) FreeSurfer's numbers of the template's structures on the same grid.
    """
    inside = labels > 0
    region, structure = labels[inside].astype(np.int64), structures[inside]
    size = np.bincount(region)
    cortex = np.bincount(region, np.isin(structure, CORTEX), size.size)
    deep = np.bincount(region, np.isin(structure, _DEEP_GREY), size.size)
    return frozenset(np.flatnonzero((cortex > deep) & (cortex >= _CORTICAL_SHARE * size) & (size > 0)).tolist())


def prepare_atlas(labels: NDArray[Any], affine: ArrayLike, structures: NDArray[Any]) -> PreparedAtlas:
    """Sort an atlas' regions and spread the cortical ones within their hemispheres.

    Parameters
    ----------
    labels
        (X, Y, Z) non-negative integers.
    affine
        Voxel to RAS mm of a template whose hemispheres meet at x = 0, (4, 4).
    structures
        (X, Y, Z) FreeSurfer's numbers of that template's structures on the atlas' grid.
    """
    affine = np.asarray(affine, dtype=np.float64)
    labels = labels.astype(np.int32)
    cortical = cortical_regions(labels, structures)
    is_cortical = np.isin(labels, sorted(cortical))
    i, j, k = np.ogrid[tuple(slice(n) for n in labels.shape)]
    x = affine[0, 0] * i + affine[0, 1] * j + affine[0, 2] * k + affine[0, 3]
    spread = {}
    for side in (-1, 1):
        own = is_cortical & (side * x >= 0)
        share = np.bincount(labels[own], minlength=labels.max() + 1) / np.bincount(labels.ravel()).clip(1)
        own &= share[labels] > 1 - _LATERAL_SHARE
        spread[side] = _spread(np.where(own, labels, 0), np.linalg.norm(affine[:3, :3], axis=0))
    return PreparedAtlas(np.where(is_cortical, 0, labels), spread[-1], spread[1], affine, cortical)


def _spread(labels: NDArray[np.int32], spacing: NDArray[np.float64]) -> NDArray[np.int32]:
    """Fill what is within reach of a region with the nearest region."""
    if not labels.any():
        return labels
    box = bounding_box(labels > 0, margin=int(np.ceil(REACH_MM / spacing.min())))
    near = labels[box]
    distance, nearest = ndimage.distance_transform_edt(near == 0, spacing, return_indices=True)
    filled = np.zeros_like(labels)
    filled[box] = np.where(distance <= REACH_MM, near[tuple(nearest)], 0)
    return filled


def project_atlas(
    atlas: PreparedAtlas, structures: NDArray[Any], affine: ArrayLike, *, atlas_from_scan: ArrayLike | PointMap
) -> NDArray[np.int32]:
    """Return the regions of an atlas in a subject, (X, Y, Z), 0 outside of them.

    Parameters
    ----------
    atlas
        From `prepare_atlas`.
    structures
        (X, Y, Z) FreeSurfer's numbers of the subject's structures on the scan's grid.
    affine
        Scan voxel to scan RAS mm, (4, 4).
    atlas_from_scan
        Scan RAS mm to the atlas' space: an affine (4, 4), or a function of points (N, 3).
    """
    scan_from_voxel, voxel_from_atlas = np.asarray(affine), np.linalg.inv(atlas.affine)

    def places(voxels: NDArray[Any]) -> NDArray[np.float64]:
        points = apply_affine(scan_from_voxel, voxels)
        moved = atlas_from_scan(points) if callable(atlas_from_scan) else apply_affine(atlas_from_scan, points)
        return apply_affine(voxel_from_atlas, moved)

    regions = np.zeros(structures.shape, dtype=np.int32)
    cortex = {number: structures == number for number in CORTEX}
    rest = structures > 0
    if atlas.cortical:
        for number, labels in zip(CORTEX, (atlas.left, atlas.right), strict=True):
            regions[cortex[number]] = _vote(labels, places, cortex[number])
            rest &= ~cortex[number]
    regions[rest] = _vote(atlas.deep, places, rest)
    return regions


def _vote(labels: NDArray[np.int32], places: PointMap, mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Return the label with the largest trilinear weight at each voxel of a mask, in C order."""
    padded = np.pad(labels, 1)
    voxels = np.argwhere(mask)
    winners = np.zeros(len(voxels), dtype=np.int32)
    for start in range(0, len(voxels), _CHUNK):
        part = slice(start, start + _CHUNK)
        position = places(voxels[part]) + 1  # the margin of zeros
        position = np.clip(position, 0, np.array(padded.shape) - 1.001)
        corner = position.astype(np.intp)
        share = position - corner
        steps = np.array(list(product((0, 1), repeat=3)))
        candidates = np.stack([padded[tuple((corner + step).T)] for step in steps])
        chosen = candidates[0]
        mixed = (candidates != chosen).any(axis=0)
        candidates, share = candidates[:, mixed], share[mixed]
        weights = np.stack([np.where(step, share, 1 - share).prod(axis=1) for step in steps])
        totals = np.stack([np.where(candidates == candidate, weights, 0).sum(0) for candidate in candidates])
        chosen[mixed] = np.take_along_axis(candidates, totals.argmax(0)[None], axis=0)[0]
        winners[part] = chosen
    return winners
