"""Writing NIfTI images: whole or not at all, fast, and the same bytes for the same input."""

from __future__ import annotations

from contextlib import nullcontext
from io import IOBase
from pathlib import Path
from typing import cast

import numpy as np
from nibabel.affines import apply_affine
from nibabel.nifti1 import Nifti1Header, Nifti1Image
from numpy.typing import ArrayLike, DTypeLike, NDArray

from unibrain_bids.imaging.compression import gzip_writer
from unibrain_bids.imaging.files import atomic_write

__all__ = ["MNI_CODE", "SCANNER_CODE", "save_image"]

SCANNER_CODE = 1
"""NIfTI's code of an affine in the scanner's own coordinates."""

MNI_CODE = 4
"""NIfTI's code of an affine in a template's (MNI) coordinates."""

_DESCRIPTION_BYTES = 79
_SLAB = 16


def save_image(
    path: Path | str,
    data: NDArray,
    *,
    affine: ArrayLike,
    like: Nifti1Header | None = None,
    code: int | None = None,
    dtype: DTypeLike | None = None,
    description: str = "",
) -> None:
    """Write a NIfTI-1 image, gzipped if the name ends in `.gz`.

    The bytes depend on the arguments alone (and on the gzip library: isal's where it can be imported, else zlib's;
    equal content was once packed differently in CI, see docs/limitations.md): no time, no file name.
    sform and qform hold the same affine; where the affine is sheared, which a qform cannot hold, the qform is left
    unset.

    Parameters
    ----------
    path
        Ends in `.nii` or `.nii.gz`. Missing folders are made.
    data
        (X, Y, Z[, T]); boolean, integer or float.
    affine
        Voxel to RAS mm, (4, 4).
    like
        Header of the scan whose grid this is: its sform and qform codes are kept.
    code
        Code for sform and qform (`MNI_CODE` in a template's space); it wins over `like`. Without both: `SCANNER_CODE`.
    dtype
        Type on disk. Default: that of `data`, but uint8 for boolean, int32 for wider integers and float32 for floats.
        An integer type for float data scales it (`scl_slope`, no intercept, so that 0 stays 0), to a precision of
        1/32767 of the largest magnitude with int16.
    description
        Goes into the header, cut to 79 bytes.

    Raises
    ------
    OutputError
        The folder cannot be written to or is full.
    ValueError
        The name, the affine or the values do not fit the format.
    """
    path = Path(path)
    if not path.name.endswith((".nii", ".nii.gz")):
        raise ValueError(f"{path}: the name of a NIfTI image ends in .nii or .nii.gz")
    image = _image(data, np.asarray(affine, dtype=np.float64), dtype)
    _set_space(image, code=code, like=like)
    image.header["descrip"] = description.encode("utf-8")[:_DESCRIPTION_BYTES]
    with atomic_write(path) as stream, gzip_writer(stream) if path.suffix == ".gz" else nullcontext(stream) as sink:
        image.to_stream(cast("IOBase", sink))


def _image(data: NDArray, affine: NDArray[np.float64], dtype: DTypeLike | None) -> Nifti1Image:
    """Return an image that holds `data` in its type on disk, with the slope that goes with it."""
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or np.linalg.det(affine[:3, :3]) == 0:
        raise ValueError(f"not an affine from voxels to mm: {affine.tolist()}")
    target = _default_dtype(data.dtype) if dtype is None else np.dtype(dtype)
    quantized = data.dtype.kind == "f" and target.kind in "iu"
    if not quantized and target.kind in "iu" and data.size and not _fits(data, target):
        raise ValueError(f"values from {data.min()} to {data.max()} do not fit into {target}")
    slope = _slope(data, target) if quantized else 1.0
    values = _in_file_order(data, target, slope=slope if quantized else None)
    image = Nifti1Image(values, affine, dtype=target)
    # set after the image was made, as its constructor clears the slope; nibabel then writes the integers as they are
    image.header.set_slope_inter(slope, 0)
    image.header.set_xyzt_units("mm", "sec")
    return image


def _default_dtype(dtype: np.dtype) -> np.dtype:
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind == "f":
        return np.dtype(np.float32)
    return dtype if dtype.itemsize <= 4 else np.dtype(np.int32)


def _fits(data: NDArray, dtype: np.dtype) -> bool:
    limits = np.iinfo(dtype)
    return bool(int(data.min()) >= limits.min and int(data.max()) <= limits.max)


def _slope(data: NDArray, dtype: np.dtype) -> float:
    """Return the number by which integers are multiplied to give float data back."""
    low, high = (float(data.min()), float(data.max())) if data.size else (0.0, 0.0)
    if not np.isfinite([low, high]).all():
        raise ValueError("NaN and Inf cannot be stored as integers")
    limits = np.iinfo(dtype)
    if low < 0 and limits.min == 0:
        raise ValueError(f"values from {low} do not fit into {dtype}")
    return float(np.float32(max(abs(low), abs(high)) / limits.max)) or 1.0


def _in_file_order(data: NDArray, dtype: np.dtype, *, slope: float | None) -> NDArray:
    """Return values as they go to disk: the first axis runs fastest, float data are divided by the slope and rounded.

    Done in slabs that stay in the processor's cache, which takes a fourth of the time of `numpy.asfortranarray`.
    """
    result = np.empty(data.shape, dtype=dtype, order="F")
    for start in range(0, data.shape[0], _SLAB):
        slab = data[start : start + _SLAB]
        if slope is not None:
            # the slope was rounded to float32; its ulp must not push the maximum over the limit, hence the clip
            limits = np.iinfo(dtype)
            slab = np.clip(np.rint(slab / slope), limits.min, limits.max)
        result[start : start + _SLAB] = slab
    return result


def _set_space(image: Nifti1Image, *, code: int | None, like: Nifti1Header | None) -> None:
    """Write the affine as sform and, where it has no shear, as qform, and say which space it leads to."""
    sform = int(like["sform_code"]) if like is not None else 0
    qform = int(like["qform_code"]) if like is not None else 0
    sform, qform = (
        (code, code) if code is not None else (sform or qform or SCANNER_CODE, qform or sform or SCANNER_CODE)
    )
    affine = image.affine
    image.set_sform(affine, code=sform, update_affine=False)
    image.set_qform(affine, code=qform, strip_shears=True, update_affine=False)
    corner = apply_affine(affine, np.array(image.shape[:3]) - 1)
    if not np.allclose(apply_affine(image.get_qform(), np.array(image.shape[:3]) - 1), corner, atol=0.01):
        image.header["qform_code"] = 0
