"""The derivatives of one participant, as they lie on disk."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Derivative", "ScanFiles", "find_scans", "read_json", "read_rows"]


@dataclass(frozen=True)
class Derivative:
    """One file: what its name says."""

    path: Path
    entities: dict[str, str]
    suffix: str

    @classmethod
    def from_path(cls, path: Path) -> Derivative | None:
        """Read a name such as `sub-01_desc-brain_mask.nii.gz`; None if it is no such name."""
        *pairs, suffix = path.name.partition(".")[0].split("_")
        entities = dict(pair.split("-", 1) for pair in pairs if "-" in pair)
        return cls(path, entities, suffix) if len(entities) == len(pairs) else None


@dataclass(frozen=True)
class ScanFiles:
    """The derivatives of one scan.

    Attributes
    ----------
    entities
        Those of the raw scan's name.
    suffix
        Its suffix, such as "T1w".
    derivatives
        All files whose names begin with these entities, sidecars included.
    """

    entities: dict[str, str]
    suffix: str
    derivatives: tuple[Derivative, ...]

    @property
    def key(self) -> str:
        """The scan's name without suffix, such as `sub-01_ses-1`."""
        return "_".join(f"{name}-{label}" for name, label in self.entities.items())

    def find(self, suffix: str, extension: str = ".nii.gz", **own: str) -> Path | None:
        """Return the file with exactly these entities beyond the scan's, or None."""
        return next((d.path for d in self.every(suffix, extension) if self.own(d) == own), None)

    def every(self, suffix: str, extension: str = ".nii.gz") -> Iterator[Derivative]:
        """Yield all files with this suffix and extension."""
        for derivative in self.derivatives:
            if derivative.suffix == suffix and derivative.path.name.endswith(f"_{suffix}{extension}"):
                yield derivative

    def own(self, derivative: Derivative) -> dict[str, str]:
        """Return the entities that a file adds to the scan's."""
        return {name: label for name, label in derivative.entities.items() if name not in self.entities}


def find_scans(output_dir: Path, participant: str) -> list[ScanFiles]:
    """Return the scans of a participant (label without `sub-`) that have derivatives, sorted by name.

    Each scan has a file of quality measures; the others belong to the scan with which they share most of the name.
    """
    folder = output_dir / f"sub-{participant}"
    paths = sorted([*folder.glob("anat/sub-*"), *folder.glob("ses-*/anat/sub-*")])
    derivatives = [found for found in map(Derivative.from_path, paths) if found is not None]
    scans = [
        ({name: label for name, label in d.entities.items() if name != "desc"}, d.suffix)
        for d in derivatives
        if d.entities.get("desc") == "qc" and d.path.suffix == ".json"
    ]
    owned: list[list[Derivative]] = [[] for _ in scans]
    for derivative in derivatives:
        fitting = [i for i, (entities, _) in enumerate(scans) if entities.items() <= derivative.entities.items()]
        if fitting:
            owned[max(fitting, key=lambda i: len(scans[i][0]))].append(derivative)
    return [ScanFiles(*scan, tuple(files)) for scan, files in zip(scans, owned, strict=True)]


def read_json(path: Path | None) -> dict[str, Any]:
    """Return the object in a JSON file; empty where there is none, or none that can be read."""
    if path is None:
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a tab-separated table with a header."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))
