"""Reading a scan: everything that can be wrong with a file is found here, and said in one line with its remedy."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.nifti1 import Nifti1Header, Nifti1Image
from nibabel.nifti2 import Nifti2Image
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from unibrain_bids.errors import ScanError
from unibrain_bids.imaging.compression import decompressed, is_gzip
from unibrain_bids.imaging.orientation import scan_affine

__all__ = ["Scan", "load_scan"]

logger = logging.getLogger(__name__)

_ANNEX_MARK = b"/annex/objects/"
_IMAGE_CLASSES: dict[int, type[Nifti1Image]] = {348: Nifti1Image, 540: Nifti2Image}
_TOLERATED_LOSS = 0.5
_FETCH = "Fetch its content with `datalad get` (or `git annex get`)."


@dataclass(frozen=True)
class Scan:
    """One 3D image of a head, as stored.

    Attributes
    ----------
    path
        File it was read from.
    data
        (X, Y, Z) float32, finite, in the stored orientation, scaled by `scl_slope` and `scl_inter`.
    affine
        (4, 4) float64, voxel to RAS mm.
    header
        Header of the file; results on this grid take sform and qform codes from it (`save_image(like=...)`).
    warnings
        What had to be mended on reading, one sentence each.
    """

    path: Path
    data: NDArray[np.float32]
    affine: NDArray[np.float64]
    header: Nifti1Header
    warnings: tuple[str, ...] = ()


def load_scan(path: Path | str, *, allow_unoriented: bool = False) -> Scan:
    """Read a NIfTI file (`.nii`, `.nii.gz`, version 1 or 2) that holds one 3D image.

    Mended with a logged warning: units of metres or microns, sform and qform that disagree (the sform wins), NaN and
    Inf in up to half of the voxels (they become 0).

    Parameters
    ----------
    path
        The file.
    allow_unoriented
        Accept a file without sform and qform and take its axes as nibabel does (first axis from right to left). Left
        and right cannot be known then.

    Raises
    ------
    ScanError
        The file is missing or damaged, or does not hold one plausible 3D image of a head; the message names the remedy.
    """
    path = Path(path)
    image = _parse(path, _read_bytes(path))
    header = image.header
    _check_dtype(path, header)
    shape = _spatial_shape(path, header.get_data_shape())
    affine, warnings = scan_affine(path, header, shape, allow_unoriented=allow_unoriented)
    data, mended = _finite(path, _voxels(path, image).reshape(shape))
    warnings += mended
    for warning in warnings:
        logger.warning("%s: %s", path, warning)
    return Scan(path, data, affine, header, tuple(warnings))


def _read_bytes(path: Path) -> bytes:
    """Return the file's content, decompressed (and so checked by its CRC) if it is gzipped, whatever its name."""
    if path.is_symlink() and not path.exists():
        raise ScanError(f"{path}: the link leads nowhere, as in a datalad dataset not yet fetched.", _FETCH)
    if not path.exists():
        raise ScanError(f"{path}: no such file.", "Check the path.")
    if path.is_dir():
        raise ScanError(f"{path}: is a folder, not an image.", "Give a .nii or .nii.gz file.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ScanError(f"{path}: cannot be read ({error.strerror}).", "Check the file's permissions.") from error
    if not content:
        raise ScanError(f"{path}: the file is empty (0 bytes).", "Copy or convert it again.")
    if len(content) < 1024 and _ANNEX_MARK in content:
        raise ScanError(f"{path}: is a git-annex pointer; its content is not here.", _FETCH)
    if not is_gzip(content):
        return content
    try:
        return decompressed(content)
    except ValueError as error:
        raise ScanError(
            f"{path}: the gzip data is truncated or damaged ({error}).", "Copy, download or convert the file again."
        ) from error


def _parse(path: Path, content: bytes) -> Nifti1Image:
    """Find the NIfTI version by the header's first integer, in either byte order, and read the header."""
    sizes = [int.from_bytes(content[:4], order) for order in ("little", "big")]
    image_class = next((_IMAGE_CLASSES[size] for size in sizes if size in _IMAGE_CLASSES), None)
    remedy = "Convert it to NIfTI, for instance with dcm2niix or mri_convert."
    if image_class is None:
        raise ScanError(f"{path}: is not a NIfTI image.", remedy)
    try:
        return image_class.from_bytes(content)
    except (nib.filebasedimages.ImageFileError, HeaderDataError, WrapStructError, OSError, ValueError) as error:
        raise ScanError(f"{path}: the NIfTI header is damaged or of another format ({error}).", remedy) from error


def _check_dtype(path: Path, header: Nifti1Header) -> None:
    dtype = header.get_data_dtype()
    if dtype.kind not in "biuf":
        kind = "complex" if dtype.kind == "c" else "RGB"
        raise ScanError(
            f"{path}: holds {kind} values.", "Give the magnitude image, with one real number per voxel, instead."
        )


def _spatial_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the three spatial dimensions; trailing dimensions of length 1 are dropped."""
    volumes = int(np.prod(shape[3:], dtype=np.int64))
    if any(length < 1 for length in shape) or not shape:
        raise ScanError(f"{path}: the image is empty (shape {shape}).", "Convert the file again.")
    if len(shape) < 3 or min(shape[:3]) == 1:
        raise ScanError(f"{path}: is a 2D image (shape {shape}).", "Give a 3D image of the whole head.")
    if volumes > 1:
        raise ScanError(
            f"{path}: holds {volumes} volumes (shape {shape}).",
            "Give one 3D image: extract or average the volumes (fslroi, mri_convert --frame, 3dTstat).",
        )
    return shape[0], shape[1], shape[2]


def _voxels(path: Path, image: Nifti1Image) -> NDArray[np.float32]:
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is Inf, and found as such
            return np.asarray(image.dataobj, dtype=np.float32)
    except (OSError, ValueError) as error:
        raise ScanError(
            f"{path}: the file is shorter than its header says.", "Copy, download or convert the file again."
        ) from error


def _finite(path: Path, data: NDArray[np.float32]) -> tuple[NDArray[np.float32], list[str]]:
    """Replace a minority of NaN and Inf by 0; refuse an image without content."""
    warnings = []
    low, high = data.min(), data.max()  # NaN and Inf pass through
    if not (np.isfinite(low) and np.isfinite(high)):
        valid = np.isfinite(data)
        lost = 1 - np.count_nonzero(valid) / valid.size
        if lost > _TOLERATED_LOSS:
            raise ScanError(
                f"{path}: {lost:.0%} of the voxels are NaN or Inf.", "Export the image again from its source."
            )
        warnings.append(f"{valid.size - np.count_nonzero(valid)} voxels ({lost:.2%}) are NaN or Inf; taken as 0.")
        low, high = data[valid].min(), data[valid].max()
        data = np.where(valid, data, np.float32(0))
    if low == high:
        raise ScanError(f"{path}: all voxels have the value {low:g}.", "Check the conversion of this scan.")
    return data, warnings
