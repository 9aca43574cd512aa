"""Measures of every region of a segmentation: the content of `_morph.tsv`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "region_table", "region_voxels"]

COLUMNS: dict[str, dict[str, str]] = {
    "index": {"Description": "Number of the region in the label image."},
    "name": {"Description": "Name of the region."},
    "n_voxels": {"Description": "Number of voxels with this label; 0 where the region was not found.", "Units": "1"},
    "volume": {"Description": "Number of voxels times the volume of one voxel.", "Units": "mm^3"},
    "intensity_mean": {"Description": "Mean intensity in the region.", "Units": "arbitrary"},
    "intensity_sd": {"Description": "Population standard deviation of the intensity.", "Units": "arbitrary"},
    "intensity_median": {"Description": "Median intensity in the region.", "Units": "arbitrary"},
    "centroid_x": {"Description": "Mean position, from left to right, in the scan's world (RAS).", "Units": "mm"},
    "centroid_y": {"Description": "Mean position, from back to front, in the scan's world (RAS).", "Units": "mm"},
    "centroid_z": {"Description": "Mean position, from bottom to top, in the scan's world (RAS).", "Units": "mm"},
}
"""The columns of `region_table` as BIDS describes them in a JSON sidecar."""


def region_table(
    labels: NDArray[Any], intensity: NDArray[Any], affine: ArrayLike, *, indices: Sequence[int], names: Sequence[str]
) -> pd.DataFrame:
    """Measure volume, intensity and position of each region.

    Parameters
    ----------
    labels
        (X, Y, Z) integers; labels that are not in `indices` are left out.
    intensity
        (X, Y, Z), on the same grid.
    affine
        Voxel to RAS mm, (4, 4).
    indices, names
        The regions (`LabelTable.indices`, `.names`); they give the order of the rows.

    Returns
    -------
    pandas.DataFrame
        One row per region with the columns of `COLUMNS`. Regions without a voxel keep their row, with volume 0 and NaN
        (to be written as n/a) elsewhere.
    """
    import pandas as pd

    affine = np.asarray(affine, dtype=np.float64)
    voxels, bounds = region_voxels(labels, indices)
    counts = np.diff(bounds)
    region = np.repeat(np.arange(len(indices)), counts)
    values = intensity.ravel()[voxels].astype(np.float64)

    def mean(samples: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN of an empty region
            return np.bincount(region, weights=samples, minlength=len(indices)) / counts

    means = mean(values)
    position = np.stack([mean(axis.astype(np.float64)) for axis in np.unravel_index(voxels, labels.shape)], axis=1)
    centroids = apply_affine(affine, position)
    return pd.DataFrame(
        {
            "index": list(indices),
            "name": list(names),
            "n_voxels": counts,
            "volume": counts * abs(np.linalg.det(affine[:3, :3])),
            "intensity_mean": means,
            "intensity_sd": np.sqrt(mean((values - means[region]) ** 2)),
            "intensity_median": [np.median(part) if part.size else np.nan for part in np.split(values, bounds[1:-1])],
            "centroid_x": centroids[:, 0],
            "centroid_y": centroids[:, 1],
            "centroid_z": centroids[:, 2],
        }
    )


def region_voxels(labels: NDArray[Any], indices: Sequence[int]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Sort the voxels of a label image by region, in one pass over the image.

    Returns
    -------
    voxels
        Flat (C order) positions of all voxels that carry one of `indices`, region by region.
    bounds
        (K + 1,): the voxels of region k are `voxels[bounds[k]:bounds[k + 1]]`.

    Raises
    ------
    ValueError
        The labels are not non-negative integers, or `indices` repeats one.
    """
    if labels.dtype.kind not in "iu" or (labels.size and labels.min() < 0):
        raise ValueError(f"labels must be non-negative integers, not {labels.dtype}")
    if len(set(indices)) != len(indices):
        raise ValueError("a region is listed twice")
    # row of each label, counted from 1; 0 stands for all that is not asked for
    rows = np.zeros(max(int(labels.max(initial=0)), max(indices, default=0)) + 1, dtype=np.int16)
    rows[list(indices)] = np.arange(1, len(indices) + 1)
    found = rows[labels.ravel()]
    voxels = np.flatnonzero(found)
    found = found[voxels]
    bounds = np.concatenate([[0], np.cumsum(np.bincount(found, minlength=len(indices) + 1)[1:])])
    return voxels[np.argsort(found, kind="stable")], bounds
