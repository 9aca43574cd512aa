"""The files at the root of the derivative dataset, and where that root may be.

Every process of a job array writes these files; they are the same whoever writes them, and each appears whole.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import uuid
from collections.abc import Mapping, Sequence
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from typing import Any

from unibrain_bids import __version__
from unibrain_bids.bids.atomic import write_json, write_text, write_tsv
from unibrain_bids.bids.derivatives import DEFAULT_ATLAS
from unibrain_bids.bids.inputs import check_dataset
from unibrain_bids.bids.sidecars import label_rows
from unibrain_bids.bids.texts import texts
from unibrain_bids.errors import OutputError, UsageError
from unibrain_bids.labels import LabelTable

__all__ = ["check_output_dir", "container_from_environment", "write_dataset_files"]

logger = logging.getLogger(__name__)

_NAME = "unibrain-bids"
_OUR_NAMES = re.compile(r"unibrain([-_]?bids)?", re.IGNORECASE)
_DESCRIPTION = "dataset_description.json"
# Fields that each run states anew; all others are the user's to change once they are written.
_OURS = ("BIDSVersion", "DatasetType", "DatasetLinks", "GeneratedBy")


def check_output_dir(output_dir: Path, bids_dir: Path) -> None:
    """See to it that `output_dir` is a place for our derivatives; nothing is written.

    Raises
    ------
    OutputError
        It is the raw dataset, lies inside it other than in `derivatives/<name>`, is no folder, or holds a raw dataset
        or another program's derivatives.
    """
    out, raw = Path(os.path.realpath(output_dir)), Path(os.path.realpath(bids_dir))
    suggestion = Path(bids_dir) / "derivatives" / _NAME
    if out == raw or (raw in out.parents and (raw / "derivatives") not in out.parents):
        raise OutputError(f"{output_dir}: lies in the raw dataset.", f"Use {suggestion}, for example.")
    if out.exists() and not out.is_dir():
        raise OutputError(f"{output_dir}: is not a folder.", "Give a folder for the derivatives.")
    existing = _existing(out)
    if existing is None:
        return
    programs = [str(entry.get("Name")) for entry in existing.get("GeneratedBy", [])]
    if existing.get("DatasetType", "raw") != "derivative":
        raise OutputError(f"{output_dir}: holds a raw dataset.", f"Use another folder, for example {suggestion}.")
    if not any(_OUR_NAMES.fullmatch(name) for name in programs):
        by = ", ".join(programs) or "an unnamed program"
        raise OutputError(f"{output_dir}: holds derivatives by {by}.", f"Use another folder, for example {suggestion}.")


def write_dataset_files(
    output_dir: Path,
    bids_dir: Path,
    *,
    atlases: Mapping[str, Mapping[str, Any]] | None = None,
    tables: Sequence[LabelTable] = (),
    heads: Mapping[str, str] | None = None,
    container: Mapping[str, str] | None = None,
) -> None:
    """Write what describes the dataset as a whole: description, README, ignore file, label tables, atlases.

    Any number of processes may do so at once; what already says the same is left alone. Fields and ignore patterns that
    a user has added are kept, and so is the mention of earlier versions that wrote here.

    Parameters
    ----------
    output_dir, bids_dir
        Roots of the derivative and of the raw dataset.
    atlases
        Atlas label to its description (BIDS requires Name and License), beyond the default atlas.
    tables
        Tables of their labels, each with the atlas' label as `name`.
    heads
        Classifier head to a description of its `desc-` label.
    container
        Container that this process runs in (Type, Tag, URI); see `container_from_environment`.

    Raises
    ------
    DatasetError
        `bids_dir` is no raw BIDS dataset.
    OutputError
        The output folder cannot be used (see `check_output_dir`) or not written.
    UsageError
        The description of an atlas lacks its name or licence, or the atlas has no table.
    """
    raw = check_dataset(bids_dir)
    check_output_dir(output_dir, bids_dir)
    described = {DEFAULT_ATLAS: texts("dataset")["atlases"][DEFAULT_ATLAS]} | dict(atlases or {})
    lookups = {table.name: table for table in (LabelTable.load(DEFAULT_ATLAS), *tables)}
    _check_atlases(described, lookups)
    _check_writable(output_dir)

    fresh = _describe(output_dir, bids_dir, raw, container=container)
    write_json(output_dir / _DESCRIPTION, _merge(fresh, _existing(output_dir) or {}))
    write_text(output_dir / ".bidsignore", _merged_ignore(output_dir / ".bidsignore"))
    if not any(output_dir.glob("README*")):
        write_text(output_dir / "README.md", (files("unibrain_bids") / "resources/bids/README.md").read_text("utf-8"))
    descriptions = texts("dataset")["descriptions"] | dict(heads or {})
    rows = [{"desc_id": f"desc-{label}", "description": text} for label, text in descriptions.items()]
    write_tsv(output_dir / "descriptions.tsv", rows)
    for segmentation in ("aseg", "tissue"):
        write_tsv(output_dir / f"seg-{segmentation}_dseg.tsv", label_rows(LabelTable.load(segmentation)))
    for atlas, text in described.items():
        write_json(output_dir / f"atlas-{atlas}_description.json", text)
        write_tsv(output_dir / f"atlas-{atlas}_dseg.tsv", label_rows(lookups[atlas]))


def container_from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the container that the image says it is, by `UNIBRAIN_CONTAINER_{TYPE,TAG,URI}`; empty outside of one."""
    values = {key: environment.get(f"UNIBRAIN_CONTAINER_{key.upper()}", "") for key in ("Type", "Tag", "URI")}
    return {key: value for key, value in values.items() if value}


def _describe(
    output_dir: Path, bids_dir: Path, raw: Mapping[str, Any], *, container: Mapping[str, str] | None
) -> dict[str, Any]:
    """Return our `dataset_description.json`; what is not known is left out."""
    out, source = Path(os.path.realpath(output_dir)), Path(os.path.realpath(bids_dir))
    doi = raw.get("DatasetDOI")
    generator = {"Name": _generator_name(out, nested=source in out.parents), "Version": __version__}
    optional = {
        "License": raw.get("License"),
        "HowToAcknowledge": texts("dataset")["HowToAcknowledge"],
        "SourceDatasets": [{"DOI": doi}] if doi else None,
    }
    return {
        "Name": f"{raw.get('Name') or source.name}: {_NAME} derivatives",
        "BIDSVersion": texts("dataset")["BIDSVersion"],
        "DatasetType": "derivative",
        **{key: value for key, value in optional.items() if value},
        # Relative, since absolute paths inside a container mean nothing outside of it.
        "DatasetLinks": {"raw": Path(os.path.relpath(source, out)).as_posix()},
        "GeneratedBy": [{**generator, **_code_url(), **({"Container": dict(container)} if container else {})}],
    }


def _generator_name(out: Path, *, nested: bool) -> str:
    """Return our name; within a raw dataset, BIDS wants it to be a part of the folder's name, case included."""
    part = _OUR_NAMES.search(out.name)
    if nested and part is None:
        logger.warning("%s: the validator will want '%s' in the name of a folder within the raw dataset.", out, _NAME)
    return part[0] if nested and part else _NAME


def _code_url() -> dict[str, str]:
    """Return where the code is, as the installed package says it."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        for entry in metadata.metadata(_NAME).get_all("Project-URL") or []:
            label, _, url = entry.partition(", ")
            if label.lower() in ("source", "repository"):
                return {"CodeURL": url}
    return {}


def _merge(fresh: dict[str, Any], existing: Mapping[str, Any]) -> dict[str, Any]:
    """Return `fresh` with the user's own fields, other links, and other versions and programs that wrote here."""
    current = fresh["GeneratedBy"][0]
    this = (current["Name"], current["Version"])
    others = [e for e in existing.get("GeneratedBy", []) if (e.get("Name"), e.get("Version")) != this]
    same: dict[str, Any] = next((e for e in existing.get("GeneratedBy", []) if e not in others), {})
    users = {key: value for key, value in existing.items() if key not in _OURS}
    return {
        **fresh,
        **users,
        "DatasetLinks": {**existing.get("DatasetLinks", {}), **fresh["DatasetLinks"]},
        "GeneratedBy": [{**same, **current}, *others],
    }


def _merged_ignore(path: Path) -> str:
    present: list[str] = []
    with contextlib.suppress(OSError):
        present = path.read_text(encoding="utf-8").splitlines()
    lines = [*present, *(pattern for pattern in texts("dataset")["bidsignore"] if pattern not in present)]
    return "".join(f"{line}\n" for line in lines)


def _existing(output_dir: Path) -> dict[str, Any] | None:
    """Return the `dataset_description.json` in the output folder, or None if there is none."""
    path = output_dir / _DESCRIPTION
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        if isinstance(content, dict):
            return content
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: cannot be read ({error}).", "Repair it or use another folder.") from error
    raise OutputError(f"{path}: is not a JSON object.", "Repair it or use another folder.")


def _check_atlases(described: Mapping[str, Mapping[str, Any]], lookups: Mapping[str, LabelTable]) -> None:
    for atlas, text in described.items():
        if not (text.get("Name") and text.get("License")):
            raise UsageError(f"Atlas {atlas}: its description lacks Name or License.", "BIDS requires both.")
        if atlas not in lookups:
            raise UsageError(f"Atlas {atlas}: there is no table of its labels.", "Give a table with index and name.")


def _check_writable(output_dir: Path) -> None:
    """Make the folder and try to write there; permissions alone do not tell (read-only and full file systems)."""
    probe = output_dir / f".unibrain-{uuid.uuid4().hex}"
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"\n")
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"{output_dir}: cannot be written ({error.strerror}).", "Check the folder, its permissions and its space."
        ) from error
