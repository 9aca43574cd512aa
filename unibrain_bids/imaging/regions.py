"""Measures of every region of a segmentation: the content of `_morph.tsv`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "region_table", "region_voxels"]

_TISSUES = ("GM", "WM", "CSF")

COLUMNS: dict[str, dict[str, str]] = {
    "index": {"Description": "Number of the region in the label image."},
    "name": {"Description": "Name of the region."},
    "n_voxels": {"Description": "Number of voxels with this label; 0 where the region was not found.", "Units": "1"},
    "volume": {"Description": "Number of voxels times the volume of one voxel.", "Units": "mm^3"},
    "volume_fraction": {
        "Description": "Volume divided by the estimated intracranial volume (`intracranial_volume` of desc-qc).",
        "Units": "1",
    },
    "thickness": {
        "Description": "Mean thickness of cortical regions: volume over the area of the inner surface. On average a "
        "tenth more than the distance between the surfaces, and far more at the frontal and temporal poles.",
        "Units": "mm",
    },
    "intensity_mean": {"Description": "Mean intensity in the region.", "Units": "arbitrary"},
    "intensity_sd": {"Description": "Population standard deviation of the intensity.", "Units": "arbitrary"},
    "intensity_median": {"Description": "Median intensity in the region.", "Units": "arbitrary"},
    "gm_fraction": {"Description": "Mean probability of grey matter in the region.", "Units": "1"},
    "wm_fraction": {"Description": "Mean probability of white matter in the region.", "Units": "1"},
    "csf_fraction": {"Description": "Mean probability of cerebrospinal fluid in the region.", "Units": "1"},
    "centroid_x": {"Description": "Mean position, from left to right, in the scan's world (RAS).", "Units": "mm"},
    "centroid_y": {"Description": "Mean position, from back to front, in the scan's world (RAS).", "Units": "mm"},
    "centroid_z": {"Description": "Mean position, from bottom to top, in the scan's world (RAS).", "Units": "mm"},
    "mni_x": {"Description": "Centroid, from left to right, moved to MNI152NLin2009aSym by the affine.", "Units": "mm"},
    "mni_y": {"Description": "Centroid, from back to front, moved to MNI152NLin2009aSym by the affine.", "Units": "mm"},
    "mni_z": {"Description": "Centroid, from bottom to top, moved to MNI152NLin2009aSym by the affine.", "Units": "mm"},
}
"""The columns of `region_table` as BIDS describes them in a JSON sidecar."""


def region_table(
    labels: NDArray[Any],
    intensity: NDArray[Any],
    affine: ArrayLike,
    *,
    indices: Sequence[int],
    names: Sequence[str],
    tissues: Mapping[str, NDArray[Any]],
    mni_from_scan: ArrayLike,
    intracranial_volume: float,
    thickness: NDArray[np.float64],
) -> pd.DataFrame:
    """Measure volume, intensity, tissues and position of each region.

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
    tissues
        "GM", "WM", "CSF" to probabilities 0..1 (X, Y, Z).
    mni_from_scan
        (4, 4) scan RAS mm to MNI152NLin2009aSym RAS mm.
    intracranial_volume
        mm3.
    thickness
        (K,) mean thickness of the regions in mm, NaN where there is none (`thickness.mean_thickness`).

    Returns
    -------
    pandas.DataFrame
        One row per region with the columns of `COLUMNS`. Regions without a voxel keep their row, with volume 0 and NaN
        (to be written as n/a) elsewhere.
    """
    import pandas as pd

    affine = np.asarray(affine, dtype=np.float64)
    regions = _Regions(*region_voxels(labels, indices))
    volume = regions.counts * abs(np.linalg.det(affine[:3, :3]))
    return pd.DataFrame(
        {
            "index": list(indices),
            "name": list(names),
            "n_voxels": regions.counts,
            "volume": volume,
            "volume_fraction": volume / intracranial_volume,
            "thickness": thickness,
            **_intensities(regions, intensity),
            **{f"{name.lower()}_fraction": regions.mean(regions.samples(tissues[name])) for name in _TISSUES},
            **_positions(regions, labels.shape, affine, np.asarray(mni_from_scan, dtype=np.float64)),
        }
    )


@dataclass(frozen=True)
class _Regions:
    """Voxels sorted by region, as `region_voxels` returns them."""

    voxels: NDArray[np.intp]
    bounds: NDArray[np.intp]

    @property
    def counts(self) -> NDArray[np.intp]:
        """Number of voxels, (K,)."""
        return np.diff(self.bounds)

    @cached_property
    def row(self) -> NDArray[np.intp]:
        """Region of each voxel, 0..K-1."""
        return np.repeat(np.arange(self.counts.size), self.counts)

    def samples(self, image: NDArray[Any]) -> NDArray[np.float64]:
        """Return the image (X, Y, Z) at the voxels."""
        return image.ravel()[self.voxels].astype(np.float64)

    def mean(self, samples: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean over each region (K,) of a number per voxel; NaN without voxels."""
        with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN of an empty region
            return np.bincount(self.row, weights=samples, minlength=self.counts.size) / self.counts


def _intensities(regions: _Regions, image: NDArray[Any]) -> dict[str, Any]:
    values = regions.samples(image)
    means = regions.mean(values)
    parts = np.split(values, regions.bounds[1:-1])
    return {
        "intensity_mean": means,
        "intensity_sd": np.sqrt(regions.mean((values - means[regions.row]) ** 2)),
        "intensity_median": [np.median(part) if part.size else np.nan for part in parts],
    }


def _positions(
    regions: _Regions, shape: tuple[int, ...], affine: NDArray[np.float64], mni_from_scan: NDArray[np.float64]
) -> dict[str, Any]:
    voxels = np.unravel_index(regions.voxels, shape)
    in_scan = apply_affine(affine, np.stack([regions.mean(axis.astype(np.float64)) for axis in voxels], axis=1))
    in_mni = apply_affine(mni_from_scan, in_scan)
    return {
        f"{world}_{axis}": points[:, i]
        for world, points in (("centroid", in_scan), ("mni", in_mni))
        for i, axis in enumerate("xyz")
    }


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
