"""Labelled heads: scans whose truth is known, from whatever source, in one form.

A source is a function that lists `HeadRecord`s; a record loads its head only when asked, so that a head which cannot be
read spoils nothing but itself.

Truth follows three rules, the same for every source.

*Masks.* `brain` is labelled brain tissue and ventricles, without sulcal CSF; `solid` is `brain` closed by 6 mm and
with its holes filled, which is what FreeSurfer, fMRIPrep and this app call the brain mask; `icv` adds all CSF.

*Structures.* FreeSurfer (aseg) numbers; 0 where the truth is no structure (a structure predicted there is wrong);
`IGNORED` where the source's label has no counterpart among the structures (corpus callosum, vermis, basal forebrain,
optic chiasm): such voxels are left out of every structure measure, in truth and prediction alike.

*Tissues.* BIDS numbers, 1 GM, 2 WM, 3 CSF; CSF counts inside the solid mask only, because the app segments tissue
inside its mask.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from unibrain_bids.errors import ResourceError
from unibrain_bids.model.anatomy import solid_mask

IGNORED = -1
"""Structure number of voxels whose true label has no counterpart; excluded from structure measures."""

TISSUES: Mapping[str, int] = {"GM": 1, "WM": 2, "CSF": 3}

MUSE_NOT_BRAIN = (0, 1, 46)
"""Background and the two sulcal-CSF labels of MUSE."""


@dataclass(frozen=True)
class LabelledHead:
    """A scan and its truth, all arrays on the scan's stored grid (X, Y, Z).

    Attributes
    ----------
    name
        Identifies the head in tables and in files of peers, e.g. "muse-01".
    path
        The NIfTI file that `unibrain_bids.inference.predict` reads.
    image
        Its intensities, float32.
    affine
        Voxel to world (RAS mm), 4 x 4.
    masks
        Boolean masks by name; "solid" is always there.
    structures
        int16 FreeSurfer numbers, 0 elsewhere, `IGNORED` where unknown.
    tissues
        uint8, 1 GM, 2 WM, 3 CSF.
    bias, clean
        Simulated heads only, float32: the multiplicative field that the scan was spoilt with, up to a factor, and
        the stripped brain without it (noise included: a correction multiplies, it does not denoise).
    labelled
        False where nobody has labelled the head: mask and tissues are then our own, structures unknown
        (`evaluation/unlabelled.py`).
    """

    name: str
    path: Path
    image: NDArray[np.float32]
    affine: NDArray[np.float64]
    masks: Mapping[str, NDArray[np.bool_]]
    structures: NDArray[np.int16]
    tissues: NDArray[np.uint8]
    bias: NDArray[np.float32] | None = None
    clean: NDArray[np.float32] | None = None
    labelled: bool = True

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Voxel edge lengths in mm, shape (3,)."""
        return voxel_sizes(self.affine)


@dataclass(frozen=True)
class HeadRecord:
    """A head that can be loaded: its name and the function that loads it."""

    name: str
    load: Callable[[], LabelledHead]


def tissues_inside(tissues: NDArray[np.uint8], solid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Drop CSF outside the solid mask; GM and WM always lie inside it."""
    return np.where(solid, tissues, 0).astype(np.uint8)


@dataclass(frozen=True)
class MuseTable:
    """What `labels.tsv` of the MUSE heads says, as look-up arrays over the MUSE numbers 0..255."""

    structures: NDArray[np.int16]
    tissues: NDArray[np.uint8]

    @classmethod
    def read(cls, path: Path) -> MuseTable:
        """Read the table; columns index, aseg (a number or n/a) and tissue (GM, WM or CSF).

        Raises
        ------
        ResourceError
            If the file is missing.
        """
        if not path.is_file():
            raise ResourceError(f"{path}: no such file.", "Point --data to the folder that holds muse/labels.tsv.")
        structures = np.zeros(256, dtype=np.int16)
        tissues = np.zeros(256, dtype=np.uint8)
        with path.open(newline="") as stream:
            for row in csv.DictReader(stream, delimiter="\t"):
                index, aseg = int(row["index"]), row["aseg"]
                structures[index] = IGNORED if aseg == "n/a" else int(aseg)
                tissues[index] = TISSUES[row["tissue"]]
        structures[list(MUSE_NOT_BRAIN)] = 0  # aseg 24, CSF, is no structure that the app segments
        return cls(structures, tissues)


def muse_heads(data: Path) -> list[HeadRecord]:
    """Real heads with MUSE labels: `<data>/muse/sub-*_T1w.nii.gz` and `sub-*_atlas-MUSE_dseg.nii.gz`.

    Parameters
    ----------
    data
        Folder that holds `muse/`.

    Raises
    ------
    ResourceError
        If there is no such head or no label table.
    """
    folder = data / "muse"
    table = MuseTable.read(folder / "labels.tsv")
    scans = sorted(folder.glob("sub-*_T1w.nii.gz"))
    if not scans:
        raise ResourceError(f"{folder}: holds no sub-*_T1w.nii.gz.", "Point --data to the folder that holds muse/.")
    records = []
    for scan in scans:
        name = f"muse-{scan.name.removesuffix('_T1w.nii.gz').removeprefix('sub-')}"
        records.append(HeadRecord(name, partial(load_muse_head, scan, table, name=name)))
    return records


def load_muse_head(scan: Path, table: MuseTable, *, name: str) -> LabelledHead:
    """Load one MUSE head from its T1w file and the label file beside it."""
    image = nib.Nifti1Image.from_filename(scan)
    dseg = nib.Nifti1Image.from_filename(scan.with_name(scan.name.replace("_T1w", "_atlas-MUSE_dseg")))
    labels = np.asarray(dseg.dataobj).astype(np.uint8)
    brain = ~np.isin(labels, MUSE_NOT_BRAIN)
    solid = solid_mask(brain, voxel_sizes(image.affine))
    return LabelledHead(
        name=name,
        path=scan,
        image=np.asarray(image.dataobj, dtype=np.float32),
        affine=np.asarray(image.affine, dtype=np.float64),
        masks={"solid": solid, "brain": brain, "icv": labels > 0},
        structures=table.structures[labels],
        tissues=tissues_inside(table.tissues[labels], solid),
    )
