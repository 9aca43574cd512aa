"""Where a scan lies in the world: the affine of a NIfTI header, checked and in mm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.nifti1 import Nifti1Header
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from unibrain_bids.errors import ScanError
from unibrain_bids.imaging.affines import grid_corners

__all__ = ["scan_affine"]

_MM_PER_UNIT = {"meter": 1000.0, "micron": 0.001}
_SPACING = (0.2, 10.0)
_FIELD_OF_VIEW = (60.0, 600.0)
_TOLERATED_DISAGREEMENT = 0.1
_FLAT = 1e-3


def scan_affine(
    path: Path, header: Nifti1Header, shape: tuple[int, int, int], *, allow_unoriented: bool = False
) -> tuple[NDArray[np.float64], list[str]]:
    """Return the affine of a head scan (voxel to RAS mm, (4, 4)) and what is to be warned of.

    The sform is taken where it has a code, else the qform. Units of metres and microns are converted to mm, unless only
    the unread numbers, taken as mm, give a plausible size of voxel.

    Raises
    ------
    ScanError
        No orientation, a singular affine, or voxels or a field of view that no scan of a head has.
    """
    affine, warnings = _chosen_affine(path, header, shape, allow_unoriented=allow_unoriented)
    if not _is_regular(affine):
        raise ScanError(
            f"{path}: the affine is singular, so the voxels have no place in the world.",
            "Convert the file again, or copy a valid qform over the sform (fslorient -copyqform2sform).",
        )
    affine, converted = _in_mm(affine, header)
    _check_size(path, affine, shape)
    return affine, warnings + converted


def _chosen_affine(
    path: Path, header: Nifti1Header, shape: tuple[int, int, int], *, allow_unoriented: bool
) -> tuple[NDArray[np.float64], list[str]]:
    """Return sform, qform or, if allowed, nibabel's guess, in the header's units."""
    sform = header.get_sform(coded=True)[0]
    try:
        qform = header.get_qform(coded=True)[0]
    except (HeaderDataError, ValueError):  # a damaged quaternion
        qform = None
    if sform is None and qform is None:
        if not allow_unoriented:
            raise ScanError(
                f"{path}: has neither a valid sform nor a qform, so left and right cannot be told apart.",
                "Convert it again with dcm2niix, or set the orientation if you know it (fslorient -setsformcode 1).",
            )
        return header.get_base_affine(), ["no sform or qform: left and right are guessed."]
    if sform is None:
        return qform, []
    if qform is None:
        return sform, []
    places = [grid_corners(shape, form) for form in (sform, qform)]
    distance = float(np.linalg.norm(places[0] - places[1], axis=1).max())
    if not distance > _TOLERATED_DISAGREEMENT:
        return sform, []
    return sform, [f"sform and qform disagree by up to {distance:.1f} mm; the sform is used."]


def _is_regular(affine: NDArray[np.float64]) -> bool:
    """Tell whether voxels are finite boxes: three edges of some length that do not lie in one plane."""
    edges = affine[:3, :3]
    lengths = np.linalg.norm(edges, axis=0)
    if not np.isfinite(affine).all() or lengths.min() == 0:
        return False
    return bool(abs(np.linalg.det(edges / lengths)) > _FLAT)


def _in_mm(affine: NDArray[np.float64], header: Nifti1Header) -> tuple[NDArray[np.float64], list[str]]:
    """Convert an affine from the header's unit of length to mm."""
    unit = header.get_xyzt_units()[0]
    factor = _MM_PER_UNIT.get(unit, 1.0)
    if factor == 1.0:
        return affine, []
    converted = np.diag([factor, factor, factor, 1.0]) @ affine
    if _plausible_spacing(affine) and not _plausible_spacing(converted):
        return affine, [f"the header's unit is {unit}, but only mm give plausible voxels; taken as mm."]
    return converted, [f"the header's unit is {unit}; converted to mm."]


def _plausible_spacing(affine: NDArray[np.float64]) -> bool:
    spacing = voxel_sizes(affine)
    return bool(spacing.min() >= _SPACING[0] and spacing.max() <= _SPACING[1])


def _check_size(path: Path, affine: NDArray[np.float64], shape: tuple[int, int, int]) -> None:
    spacing = voxel_sizes(affine)
    extent = spacing * shape
    if not _plausible_spacing(affine):
        raise ScanError(
            f"{path}: voxels of {_times(spacing)} mm; a head scan has {_SPACING[0]:g} to {_SPACING[1]:g} mm.",
            "Correct the voxel size (pixdim, sform) or the unit (xyzt_units) in the header.",
        )
    if extent.min() < _FIELD_OF_VIEW[0] or extent.max() > _FIELD_OF_VIEW[1]:
        raise ScanError(
            f"{path}: a field of view of {_times(extent)} mm; a head scan has "
            f"{_FIELD_OF_VIEW[0]:g} to {_FIELD_OF_VIEW[1]:g} mm.",
            "Give a scan of the whole head of one person, with the correct voxel size in its header.",
        )


def _times(values: NDArray[np.float64]) -> str:
    return " x ".join(f"{value:.3g}" for value in values)
