"""Which scans of a raw BIDS dataset are to be processed.

pybids answers the queries; it is told to look only at the anatomical images of the participants that were asked for,
so that a dataset of thousands is indexed in seconds.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unibrain_bids.bids.filters import needs_metadata, pybids_query
from unibrain_bids.errors import DatasetError, NoScansError, UsageError

if TYPE_CHECKING:
    from bids import BIDSLayout

__all__ = ["ScanRecord", "check_dataset", "find_scans"]

logger = logging.getLogger(__name__)

_LABEL = "[0-9a-zA-Z+]+"
_INDEX_FILE = "layout_index.sqlite"  # pybids' own name
_LISTED = 20  # labels shown in a message before it is cut


@dataclass(frozen=True)
class ScanRecord:
    """One raw scan: where it lies and what its name says.

    Attributes
    ----------
    path
        Absolute path; symbolic links are kept, since the name counts and not the target's.
    relative_path
        POSIX path within the dataset, as in the BIDS URI `bids:raw:<relative_path>`.
    entities
        (key, value) pairs of the file name in their order, such as (("sub", "01"), ("run", "02")).
    suffix
        Suffix of the file name, such as "T1w".
    """

    path: Path
    relative_path: str
    entities: tuple[tuple[str, str], ...]
    suffix: str

    @classmethod
    def from_path(cls, path: Path, *, dataset: Path) -> ScanRecord:
        """Read the name of `path`, an image inside the folder `dataset`.

        Raises
        ------
        DatasetError
            The name does not follow BIDS.
        """
        stem = re.sub(r"\.nii(\.gz)?$", "", path.name)
        *pairs, suffix = stem.split("_")
        entities = tuple((key, value) for key, _, value in (pair.partition("-") for pair in pairs))
        if not entities or entities[0][0] != "sub" or not all(re.fullmatch(_LABEL, value) for _, value in entities):
            raise DatasetError(f"{path}: the name does not follow BIDS.", "Expected sub-<label>[_<key>-<value>]_T1w.")
        return cls(path, path.relative_to(dataset).as_posix(), entities, suffix)

    @property
    def subject(self) -> str:
        """Participant label without `sub-`."""
        return dict(self.entities)["sub"]

    @property
    def session(self) -> str | None:
        """Session label without `ses-`, or None."""
        return dict(self.entities).get("ses")

    @property
    def key(self) -> str:
        """Unique name of the scan: its file name without suffix, such as `sub-01_ses-1_run-2`."""
        return "_".join(f"{name}-{value}" for name, value in self.entities)


def check_dataset(bids_dir: Path) -> dict[str, Any]:
    """Return the content of `dataset_description.json` of the raw dataset `bids_dir`.

    Only what processing relies on is checked; judging the whole dataset is the BIDS validator's job.

    Raises
    ------
    DatasetError
        The folder does not exist, is no BIDS dataset, is a derivative, or has no participants.
    """
    bids_dir = Path(bids_dir)
    if not bids_dir.is_dir():
        raise DatasetError(f"{bids_dir}: there is no such folder.", "Give the root folder of a BIDS dataset.")
    description = _read_description(bids_dir)
    if description.get("DatasetType", "raw") != "raw":
        raise DatasetError(
            f"{bids_dir}: dataset_description.json says DatasetType '{description['DatasetType']}', not 'raw'.",
            "Give the raw dataset that it was made from.",
        )
    if not _labels(bids_dir, "sub"):
        raise DatasetError(f"{bids_dir}: there are no sub-<label> folders.", "Give the root folder of a BIDS dataset.")
    return description


def find_scans(
    bids_dir: Path,
    *,
    participant_labels: Sequence[str] = (),
    session_labels: Sequence[str] = (),
    filters: dict[str, Any] | None = None,
    database_dir: Path | None = None,
) -> list[ScanRecord]:
    """Return the T1w scans that were asked for, sorted by path; each run and acquisition is a scan of its own.

    Parameters
    ----------
    bids_dir
        Root of the raw dataset.
    participant_labels, session_labels
        Labels with or without `sub-`/`ses-`; empty for all.
    filters
        pybids entities (or sidecar fields) and their values, as `filters.load_filters` returns them. They override the
        default query (suffix T1w in `anat/`).
    database_dir
        Folder of a pybids index. One that pybids made there is used as it is; otherwise our own index of all
        anatomical images is kept below it, in `anat/`.

    Raises
    ------
    DatasetError
        `bids_dir` is no raw BIDS dataset.
    NoScansError
        A participant or session does not exist, or nothing matches.
    UsageError
        The filters match several images that would have the same outputs, or the index is of another dataset.
    """
    root = Path(os.path.abspath(bids_dir))
    check_dataset(root)
    participants = _chosen(participant_labels, _labels(root, "sub"), prefix="sub", where=root)
    existing = {session for label in participants for session in _labels(root / f"sub-{label}", "ses")}
    sessions = _chosen(session_labels, existing, prefix="ses", where=root) if session_labels else []

    scope = (participants if participant_labels else [], sessions)
    layout = _layout(root, *scope, metadata=needs_metadata(filters or {}), database_dir=database_dir)
    paths = layout.get(scope="raw", return_type="filename", **pybids_query(filters or {}))
    records = [ScanRecord.from_path(Path(path), dataset=root) for path in paths]
    records = [r for r in records if r.subject in participants and (not sessions or r.session in sessions)]
    if not records:
        raise _no_match(root, *scope, filters or {})
    if without := sorted(set(participants) - {r.subject for r in records}):
        logger.warning("%d participant(s) have no matching scan: %s", len(without), _listing(without))
    return _one_per_key(records)


def _no_match(
    root: Path, participants: Sequence[str], sessions: Sequence[str], filters: dict[str, Any]
) -> NoScansError:
    asked = [f"sub-{label}" for label in participants] + [f"ses-{label}" for label in sessions]
    return NoScansError(
        f"{root}: no image matches ({_listing(asked) or 'all participants'}, filters {json.dumps(filters)}).",
        "Expected sub-<label>/[ses-<label>/]anat/*_T1w.nii[.gz]; check the filters, "
        "and remove the pybids index if the dataset has changed since.",
    )


def _read_description(bids_dir: Path) -> dict[str, Any]:
    path = bids_dir / "dataset_description.json"
    if not path.is_file():
        near = [p for p in (bids_dir.parent, *sorted(bids_dir.iterdir())) if (p / path.name).is_file()]
        remedy = f"Did you mean {near[0]}?" if near else "Give the root folder of a BIDS dataset."
        raise DatasetError(f"{bids_dir}: there is no dataset_description.json.", remedy)
    try:
        description = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: cannot be read ({error}).", "It must be a JSON object in UTF-8.") from error
    if not isinstance(description, dict):
        raise DatasetError(f"{path}: is not a JSON object.", 'At the least: {"Name": "...", "BIDSVersion": "1.10.0"}.')
    return description


def _labels(folder: Path, prefix: str) -> list[str]:
    """Return the sorted labels of the sub-folders `<prefix>-<label>`."""
    found = (re.fullmatch(f"{prefix}-({_LABEL})", entry.name) for entry in os.scandir(folder) if entry.is_dir())
    return sorted(match[1] for match in found if match)


def _chosen(labels: Sequence[str], existing: Iterable[str], *, prefix: str, where: Path) -> list[str]:
    """Return the asked `labels` without prefix (all `existing` if none is asked for)."""
    asked = sorted({label.removeprefix(f"{prefix}-") for label in labels})
    if missing := [label for label in asked if label not in set(existing)]:
        raise NoScansError(
            f"{where}: no {prefix}-<label> folder for {_listing(missing)}.",
            f"There are: {_listing(sorted(existing)) or 'none'}.",
        )
    return asked or sorted(existing)


def _listing(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _LISTED} more" if len(labels) > _LISTED else ""
    return ", ".join(labels[:_LISTED]) + more


def _layout(
    root: Path, participants: Sequence[str], sessions: Sequence[str], *, metadata: bool, database_dir: Path | None
) -> BIDSLayout:
    """Index the dataset, or open the index kept in `database_dir` (made there if it is missing)."""
    from bids import BIDSLayout, BIDSLayoutIndexer

    def index(ignore: re.Pattern[str], *, metadata: bool) -> BIDSLayout:
        indexer = BIDSLayoutIndexer(validate=True, ignore=[ignore], index_metadata=metadata)
        return BIDSLayout(root, validate=False, indexer=indexer)

    if database_dir is None:
        return index(_outside(participants, sessions, metadata=metadata), metadata=metadata)
    folder = Path(database_dir)
    if not (folder / _INDEX_FILE).is_file():
        folder = folder / "anat"
    if not (folder / _INDEX_FILE).is_file():
        _save(index(_outside([], [], metadata=True), metadata=True), folder)
    layout = BIDSLayout(root, validate=False, database_path=folder)
    if Path(layout.root) != root:
        raise UsageError(
            f"{folder}: is the pybids index of {layout.root}, not of {root}.", "Give each dataset its own index folder."
        )
    return layout


def _save(layout: BIDSLayout, folder: Path) -> None:
    """Keep the index in `folder`; of several processes that do so at once the first one wins."""
    aside = folder.parent / f".{folder.name}-{os.getpid()}"
    layout.save(aside)
    folder.mkdir(parents=True, exist_ok=True)
    os.replace(aside / _INDEX_FILE, folder / _INDEX_FILE)
    aside.rmdir()


def _outside(participants: Sequence[str], sessions: Sequence[str], *, metadata: bool) -> re.Pattern[str]:
    """Return what pybids shall not look at: all but the anatomical images of these participants and sessions.

    pybids matches it against folders and files alike, as `/sub-01/anat` (relative to the dataset).
    """
    subject = "|".join(map(re.escape, participants)) or _LABEL
    session = "|".join(map(re.escape, sessions)) or _LABEL
    sidecar = r"|(/sub-[^/]*)?(/ses-[^/]*)?(/anat)?/[^/]+\.json" if metadata else ""
    return re.compile(rf"^(?!(/sub-({subject})(/ses-({session}))?(/anat(/[^/]+\.nii(\.gz)?)?)?{sidecar})$)")


def _one_per_key(records: Iterable[ScanRecord]) -> list[ScanRecord]:
    """Sort the scans and see to it that no two of them would write the same outputs."""
    chosen: dict[str, ScanRecord] = {}
    for record in sorted(records, key=lambda r: (r.relative_path.removesuffix(".gz"), -len(r.relative_path))):
        first = chosen.setdefault(record.key, record)
        if first.suffix != record.suffix:
            raise UsageError(
                f"{first.path} and {record.path} would have the same outputs.",
                "Let the filter file choose one suffix.",
            )
        if first is not record:
            logger.warning("%s is ignored, since %s is there too.", record.path, first.path)
    return list(chosen.values())
