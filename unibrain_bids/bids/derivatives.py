"""How every derivative of a scan is named.

`resources/bids/derivatives.json` lists the kinds of derivatives: the task that makes them, suffix, extension, entities,
what they are made from and what their sidecars say. Here these entries meet the entities of a scan.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from unibrain_bids.bids.inputs import ScanRecord
from unibrain_bids.bids.templates import Space
from unibrain_bids.bids.texts import texts
from unibrain_bids.errors import UsageError

__all__ = ["DEFAULT_ATLAS", "TASKS", "DerivativePath", "catalogue", "expected_outputs", "figure_path", "report_path"]

TASKS = ("mask", "preproc", "register", "segment", "parcellate", "network")
DEFAULT_ATLAS = "DK"  # the atlas that the network refines, and on which the learned network stands

_OWN_ENTITIES = frozenset(("space", "from", "to", "mode", "atlas", "seg", "res", "label", "meas", "desc"))
_TISSUES = ("CSF", "GM", "WM")
_LEARNED, _CLASSICAL = "innerproduct", ("kls", "mind")


@dataclass(frozen=True)
class DerivativePath:
    """The name of one derivative of one scan.

    Attributes
    ----------
    source
        The scan; its entities are kept in the name.
    kind
        Entry of `derivatives.json`, such as "mask".
    suffix, extension
        Such as "mask" and ".nii.gz".
    entities
        (key, value) pairs that are added to those of the scan, in any order.
    space
        The template whose grid it lies on, or to or from which it leads; None for neither.

    Raises
    ------
    UsageError
        A value holds anything but letters, digits and "+".
    ValueError
        An entity is none that our derivatives add.
    """

    source: ScanRecord
    kind: str
    suffix: str
    extension: str = ".nii.gz"
    entities: tuple[tuple[str, str], ...] = ()
    space: Space | None = None

    def __post_init__(self) -> None:
        if unknown := {key for key, _ in self.entities} - _OWN_ENTITIES:
            raise ValueError(f"derivatives do not add the entities {sorted(unknown)}")
        for key, value in self.entities:
            if not re.fullmatch("[0-9a-zA-Z+]+", value):
                raise UsageError(f"'{value}' cannot be a {key} label.", "Use letters, digits and + only.")

    @property
    def role(self) -> str:
        """Key in the catalogue: the native role, with the template before it where there is one."""
        return self.space.role(self.native_role) if self.space else self.native_role

    @property
    def native_role(self) -> str:
        """The kind and what tells it from others of its kind, such as `parcels_DK`, whatever the template."""
        own = dict(self.entities)
        varying = [own[key] for key in ("atlas", "label", "meas") if key in own]
        if self.kind == "prediction":
            varying.append(own["desc"])
        return "_".join([self.kind, *varying])

    @property
    def in_template(self) -> bool:
        """Whether the derivative lies on the template's grid."""
        return "space" in dict(self.entities)

    @property
    def name(self) -> str:
        """File name."""
        merged = dict(self.source.entities) | dict(self.entities)
        # BIDS' order, with the unofficial from, to, mode and meas where fMRIPrep and XCP-D put them.
        order = texts("terms")["entity_order"].index
        stem = "_".join(f"{key}-{merged[key]}" for key in sorted(merged, key=order))
        return f"{stem}_{self.suffix}{self.extension}"

    @property
    def relative(self) -> Path:
        """Path within the output folder."""
        return _folder(self.source) / "anat" / self.name

    @property
    def sidecar(self) -> Path | None:
        """Path of the JSON file beside it, or None if the derivative is a JSON file itself."""
        return None if self.extension == ".json" else replace(self, extension=".json").relative

    @property
    def uri(self) -> str:
        """BIDS URI within the derivative dataset."""
        return f"bids::{self.relative.as_posix()}"


def catalogue(
    record: ScanRecord,
    *,
    spaces: Sequence[Space] = (),
    atlases: Sequence[str] = (DEFAULT_ATLAS,),
    tasks: Sequence[str] = TASKS,
    heads: Sequence[str] = (),
    nonlinear: bool = False,
) -> dict[str, DerivativePath]:
    """Return every derivative of a scan by its role, such as "mask", "network_DK_kls" or "MNI152NLin2009aSym_mask".

    Parameters
    ----------
    record
        The scan.
    spaces
        Templates, in addition to the scan's own grid.
    atlases
        Atlas labels. The learned network exists for the default atlas only, the classical ones for all.
    tasks
        Subset of `TASKS`; the quality measures are always written. Derivatives on the template's grid need "register".
    heads
        Labels of the classifier heads that predict.
    nonlinear
        Whether there are displacements beside the affines.

    Raises
    ------
    UsageError
        A task does not exist, or a label is none.
    """
    if unknown := sorted(set(tasks) - set(TASKS)):
        raise UsageError(f"Unknown task(s): {', '.join(unknown)}.", f"Choose from: {', '.join(TASKS)}.")
    chosen = [
        kind for kind, entry in texts("derivatives").items()
        if entry["task"] in (None, *tasks) and (nonlinear or not kind.endswith("_warp"))
    ]  # fmt: skip
    registered = spaces if "register" in tasks else ()
    found: list[DerivativePath] = []
    for kind in chosen:
        if texts("derivatives")[kind]["task"] == "register":
            found += [path for space in registered for path in _of_kind(record, kind, space=space)]
            continue
        native = list(_of_kind(record, kind, atlases=atlases, heads=heads))
        found += native
        if texts("derivatives")[kind]["in_template"]:
            found += [_on_grid(path, space) for space in registered for path in native]
    return {path.role: path for path in found}


def expected_outputs(
    record: ScanRecord,
    *,
    spaces: Sequence[Space] = (),
    atlases: Sequence[str] = (DEFAULT_ATLAS,),
    tasks: Sequence[str] = TASKS,
    heads: Sequence[str] = (),
    nonlinear: bool = False,
) -> list[Path]:
    """Return the sorted paths, within the output folder, of all derivatives and sidecars (see `catalogue`)."""
    found = catalogue(record, spaces=spaces, atlases=atlases, tasks=tasks, heads=heads, nonlinear=nonlinear)
    return sorted({path for output in found.values() for path in (output.relative, output.sidecar) if path is not None})


def figure_path(record: ScanRecord, *, desc: str, extension: str = ".svg") -> Path:
    """Return the path, within the output folder, of one picture of a scan for its participant's report."""
    return Path(f"sub-{record.subject}", "figures", f"{record.key}_desc-{desc}_{record.suffix}{extension}")


def report_path(subject: str) -> Path:
    """Return the path, within the output folder, of a participant's report (label without `sub-`)."""
    return Path(f"sub-{subject}.html")


def _on_grid(path: DerivativePath, space: Space) -> DerivativePath:
    resolution = (("res", space.resolution),) if space.resolution else ()
    return replace(path, entities=(("space", space.label), *resolution, *path.entities), space=space)


def _of_kind(
    record: ScanRecord,
    kind: str,
    *,
    space: Space | None = None,
    atlases: Sequence[str] = (),
    heads: Sequence[str] = (),
) -> Iterator[DerivativePath]:
    """Yield the derivatives of one kind on the scan's grid: one for each combination of its placeholders."""
    entry = texts("derivatives")[kind]
    values: dict[str, Sequence[str | None]] = {
        "image": [record.suffix],
        "template": [space.label if space else None],
        "tissue": _TISSUES,
        "atlas": atlases,
        "measure": (_LEARNED, *_CLASSICAL),
        "head": heads,
    }
    used = [name for name in values if f"{{{name}}}" in entry["entities"].values()]
    for combination in product(*(values[name] for name in used)):
        filled = dict(zip(used, combination, strict=True))
        if filled.get("measure") == _LEARNED and filled["atlas"] != DEFAULT_ATLAS:
            continue
        entities = tuple((key, value.format(**filled)) for key, value in entry["entities"].items())
        yield DerivativePath(record, kind, entry["suffix"] or record.suffix, entry["extension"], entities, space)


def _folder(record: ScanRecord) -> Path:
    subject = Path(f"sub-{record.subject}")
    return subject / f"ses-{record.session}" if record.session else subject
