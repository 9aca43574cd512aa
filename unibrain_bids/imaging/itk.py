"""Transforms as ITK reads them: text files of one affine, and displacements.

ITK (ANTs, SimpleITK, 3D Slicer) stores the map from points of the *fixed* image to points of the *moving* one, in LPS.
`sub-01_from-T1w_to-MNI_mode-image_xfm.txt` moves the T1w image to MNI: fixed is the template, moving the scan, and the
file holds `scan_from_template`. The functions here take and give points, displacements and matrices in RAS mm.
nitransforms reads these files, but its own writer keeps only six digits, which is why it is not used here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nibabel.affines import from_matvec, to_matvec
from nibabel.nifti1 import Nifti1Image
from numpy.typing import ArrayLike, NDArray

from unibrain_bids.errors import ResourceError
from unibrain_bids.imaging.affines import flip_lps_ras
from unibrain_bids.imaging.files import atomic_write
from unibrain_bids.imaging.images import MNI_CODE

__all__ = ["read_itk_affine", "write_itk_affine", "write_itk_displacements"]

_HEADER = "#Insight Transform File V1.0"


def write_itk_affine(path: Path | str, moving_from_fixed: ArrayLike) -> None:
    """Write the (4, 4) RAS mm affine from fixed to moving points as an ITK text file, with full precision.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    linear, translation = to_matvec(flip_lps_ras(moving_from_fixed))
    # adding 0.0 turns -0.0 into 0.0
    numbers = " ".join(repr(float(value) + 0.0) for value in (*linear.ravel(), *translation))
    text = (
        f"{_HEADER}\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
        f"Parameters: {numbers}\nFixedParameters: 0 0 0\n"
    )
    with atomic_write(path) as stream:
        stream.write(text.encode("ascii"))


def write_itk_displacements(path: Path | str, displacements: NDArray[np.floating], affine: ArrayLike) -> None:
    """Write displacements as ITK and ANTs read them from NIfTI: a volume of vectors in LPS mm.

    Parameters
    ----------
    path
        The file.
    displacements
        (x, y, z, 3) mm, RAS: a point of the fixed image plus its displacement lies in the moving one.
    affine
        Voxel to RAS mm of the fixed image's world, (4, 4).

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    lps = (displacements * np.array([-1, -1, 1])).astype(np.float32)
    image = Nifti1Image(lps[:, :, :, None], np.asarray(affine))
    image.header.set_intent("vector")
    image.header.set_xyzt_units("mm")
    image.header["sform_code"] = image.header["qform_code"] = MNI_CODE
    with atomic_write(path) as stream:
        stream.write(image.to_bytes())


def read_itk_affine(path: Path | str) -> NDArray[np.float64]:
    """Read an ITK text file with one affine; return `moving_from_fixed` (4, 4), RAS mm.

    Raises
    ------
    ResourceError
        The file is missing, or does not hold exactly one affine of 12 parameters.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        fields = [line.split(":", 1) for line in lines if ":" in line and not line.startswith("#")]
        values = {key.strip(): value for key, value in fields}
        if len(values) != len(fields):
            raise ValueError("more than one transform")
        parameters = np.array(values["Parameters"].split(), dtype=np.float64)
        linear, translation = parameters[:9].reshape(3, 3), parameters[9:].reshape(3)
        center = np.array(values.get("FixedParameters", "0 0 0").split(), dtype=np.float64).reshape(3)
    except (OSError, UnicodeDecodeError, KeyError, ValueError) as error:
        raise ResourceError(
            f"{path}: not an ITK text file with one affine ({type(error).__name__}: {error}).",
            "Composite and binary transforms (.h5, .mat) are not read; convert with nitransforms or ANTs.",
        ) from error
    # ITK applies the linear part about a centre of its own
    return flip_lps_ras(from_matvec(linear, translation + center - linear @ center))
