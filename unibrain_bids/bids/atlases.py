"""Atlases that the user names: a file in a template's space, or an atlas of TemplateFlow.

    DK                                                   the package's own
    /data/tpl-MNI152NLin6Asym_atlas-AAL_dseg.nii.gz      a file, its template and name taken from the file's name
    /data/mine.nii.gz:MNI152NLin6Asym                    a file and its template
    Schaefer2018:MNI152NLin6Asym:desc-100Parcels7Networks    TemplateFlow's name, template, further entities

Beside a file `X.nii.gz` lies the table of its regions `X.tsv` (columns `index` and `name`), and maybe a description
`X.json` or `atlas-<name>_description.json` with the atlas' `Name` and `License`. The names of AAL's 116 regions come
with the package, for files that have `atlas-AAL` in their name and no table beside them.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unibrain_bids.bids.templates import find_in_templateflow
from unibrain_bids.errors import ResourceError
from unibrain_bids.labels import LabelTable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["AtlasSource", "find_atlas", "load_atlas_image"]

_NIFTI = (".nii.gz", ".nii")
_LABEL = re.compile("[0-9a-zA-Z+]+")
# Atlases whose table comes with the package, but not their image.
_NAMED = ("AAL",)


@dataclass(frozen=True)
class AtlasSource:
    """An atlas that was asked for by file or by TemplateFlow's name.

    Attributes
    ----------
    table
        Its regions; the table's name is the atlas' label in file names.
    image
        Its label image, absolute.
    space
        BIDS label of the template in whose space it lies.
    sha256
        Of the image.
    description
        What `atlas-<label>_description.json` says; `Name` and `License` at least.
    """

    table: LabelTable
    image: Path
    space: str
    sha256: str
    description: dict[str, Any] = field(compare=False)

    @property
    def name(self) -> str:
        """Label of the atlas in file names."""
        return self.table.name

    @property
    def effective(self) -> dict[str, Any]:
        """What has an effect on results, in JSON types."""
        regions = [[row.index, row.name] for row in self.table]
        return {"name": self.name, "space": self.space, "sha256": self.sha256, "regions": regions}


def find_atlas(word: str) -> AtlasSource:
    """Return the atlas that a word of `--atlas` names (see the module's text).

    Raises
    ------
    ResourceError
        There is no such atlas, its template or table is not known, or its image does not fit the table.
    """
    name, *details = word.split(":")
    path = Path(name).expanduser().absolute()
    if not name.endswith(_NIFTI):
        path, details = _from_templateflow(name, details), details[:1]
    if not path.is_file():
        raise ResourceError(f"{path}: there is no such atlas.", "Give a NIfTI file with integer labels.")
    entities = dict(re.findall(r"(?:^|_)([a-z]+)-([0-9a-zA-Z+]+)", path.name))
    space = details[0] if details else entities.get("tpl") or entities.get("space")
    if not space:
        raise ResourceError(f"{path}: in which template's space does it lie?", f"Say so: {path.name}:MNI152NLin6Asym.")
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    label = entities.get("atlas", "") + entities.get("desc", "") or "".join(_LABEL.findall(stem))
    beside = path.with_name(f"{stem}.tsv")
    table = LabelTable.load(label) if label in _NAMED and not beside.exists() else LabelTable.read(beside, name=label)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    source = AtlasSource(table, path, space, digest, _description(path, stem, label))
    load_atlas_image(source)
    return source


def load_atlas_image(source: AtlasSource) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Return the labels (X, Y, Z) of an atlas and its affine, voxel to RAS mm.

    Raises
    ------
    ResourceError
        The image cannot be read, is no volume of non-negative whole numbers, or holds labels that its table lacks.
    """
    import nibabel as nib
    import numpy as np

    try:
        image = nib.nifti1.Nifti1Image.from_filename(source.image)
        data = np.asarray(image.dataobj).squeeze()
    except (OSError, EOFError, ValueError, nib.filebasedimages.ImageFileError) as error:
        raise ResourceError(f"{source.image}: cannot be read ({error}).", "Give a NIfTI file.") from error
    if data.ndim != 3 or data.min() < 0 or not np.array_equal(data, np.round(data)):
        raise ResourceError(f"{source.image}: is no label image.", "One volume of whole numbers from 0 is needed.")
    labels = data.astype(np.int32)
    if unknown := set(np.unique(labels).tolist()) - {0, *source.table.indices}:
        listed = ", ".join(map(str, sorted(unknown)[:10]))
        raise ResourceError(f"{source.image}: its table lacks the labels {listed}.", "Add a row for each label.")
    return labels, np.asarray(image.affine, dtype=np.float64)


def _description(path: Path, stem: str, label: str) -> dict[str, Any]:
    """Return the description beside an atlas, completed by what BIDS requires."""
    found: dict[str, Any] = {}
    for name in (f"{stem}.json", f"atlas-{label}_description.json"):
        beside = path.with_name(name)
        if beside.is_file():
            try:
                found |= json.loads(beside.read_text(encoding="utf-8-sig"))
            except (OSError, ValueError, TypeError) as error:
                raise ResourceError(f"{beside}: cannot be read ({error}).", "Repair it or take it away.") from error
    return {"Name": label, "License": f"unknown; see where {path.name} comes from", **found}


def _from_templateflow(name: str, details: list[str]) -> Path:
    """Return the file of TemplateFlow's atlas `name`; `details` are its template and further entities."""
    if not details:
        remedy = f"Give DK, a NIfTI file, or TemplateFlow's name with a template ({name}:MNI152NLin6Asym)."
        raise ResourceError(f"There is no atlas {name}.", remedy)
    entities = dict(part.split("-", 1) for part in details[1:] if "-" in part)
    return find_in_templateflow(details[0], "dseg", **{"atlas": name, "res": "1", **entities})
