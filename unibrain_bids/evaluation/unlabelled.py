"""Real heads that nobody has labelled: how even their tissues become, and how well they fit a template.

Mask and tissues are those that our inference finds in them, for other tools as well: what is measured within them
compares methods on the same voxels, and says nothing of the mask and the tissues themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np

from unibrain_bids.errors import ResourceError
from unibrain_bids.evaluation.heads import IGNORED, HeadRecord, LabelledHead
from unibrain_bids.imaging.images import save_image

if TYPE_CHECKING:
    from unibrain_bids.inference import Prediction


def unlabelled_heads(data: Path, folder: Path, predict: Callable[[Path], Prediction] | None = None) -> list[HeadRecord]:
    """The heads of `<data>/ds000011` and `<data>/heads`.

    Parameters
    ----------
    data
        Folder that holds `ds000011/` and `heads/`.
    folder
        Where each head's mask and tissues are kept. Those found by other weights or code have to be deleted.
    predict
        Finds them where they are not there yet; None to be content with what there is.

    Raises
    ------
    ResourceError
        If there is no such head.
    """
    scans = sorted(data.glob("ds000011/sub-*/anat/*_T1w.nii.gz")) + sorted(data.glob("heads/*_T1w.nii.gz"))
    if not scans:
        raise ResourceError(f"{data}: holds no ds000011/ or heads/.", "Point --data to the folder that holds them.")
    names = [scan.name.removesuffix("_T1w.nii.gz") for scan in scans]
    return [
        HeadRecord(name, partial(load_unlabelled_head, scan, folder, predict, name=name))
        for name, scan in zip(names, scans, strict=True)
    ]


def load_unlabelled_head(
    scan: Path, folder: Path, predict: Callable[[Path], Prediction] | None, *, name: str
) -> LabelledHead:
    """Load one head, with mask and tissues from `folder`.

    Raises
    ------
    ResourceError
        If they are not there and there is nothing to find them with.
    """
    mask, tissues = folder / f"{name}_mask.nii.gz", folder / f"{name}_dseg.nii.gz"
    if not (mask.is_file() and tissues.is_file()):
        if predict is None:
            raise ResourceError(f"{mask}: no such file.", "Run unibrain-evaluate --heads unlabelled first.")
        found = predict(scan)
        for path, labels in ((mask, found.mask), (tissues, found.tissues)):
            save_image(path, labels, affine=found.scan.affine, like=found.scan.header, dtype=np.uint8)
    image = nib.Nifti1Image.from_filename(scan)
    return LabelledHead(
        name=name,
        path=scan,
        image=np.asarray(image.dataobj, dtype=np.float32).reshape(image.shape[:3]),
        affine=np.asarray(image.affine, dtype=np.float64),
        masks={"solid": np.asarray(nib.Nifti1Image.from_filename(mask).dataobj) > 0},
        structures=np.full(image.shape[:3], IGNORED, dtype=np.int16),
        tissues=np.asarray(nib.Nifti1Image.from_filename(tissues).dataobj).astype(np.uint8),
        labelled=False,
    )
