"""What the participant level has written, read one scan at a time; no raw image is looked at."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain_bids.bids.derivatives import DEFAULT_ATLAS, DerivativePath, catalogue
from unibrain_bids.bids.inputs import ScanRecord
from unibrain_bids.errors import DatasetError, ScanError
from unibrain_bids.labels import LabelTable

__all__ = ["NETWORKS", "REGION_MEASURES", "ScanTables", "find_tables"]

NETWORKS = ("innerproduct", "kls")
REGION_MEASURES = ("volume", "intensity_mean", "intensity_sd")
_QUALITY = "_desc-qc_T1w.json"


@dataclass(frozen=True)
class ScanTables:
    """The tables of one scan in a derivative dataset; each is read when it is asked for.

    Attributes
    ----------
    root
        The derivative dataset.
    record
        The scan; its path is that of a file that need not exist.
    """

    root: Path
    record: ScanRecord

    @cached_property
    def _outputs(self) -> dict[str, DerivativePath]:
        return catalogue(self.record, template=None)

    @property
    def participant(self) -> str:
        """Identifier in participants.tsv, such as "sub-01"."""
        return f"sub-{self.record.subject}"

    @property
    def model(self) -> str | None:
        """SHA-256 of the weights that made the derivatives; None where no record of completion says it."""
        try:
            text = (self.root / "logs" / "complete" / f"{self.record.key}.json").read_text("utf-8")
            return json.loads(text)["fingerprint"]["weights"]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def quality(self) -> dict[str, float]:
        """Quality measures by name, NaN where there is none.

        Raises
        ------
        ScanError
            The file is missing or damaged; so for the other tables.
        """
        path = self._path("quality")
        try:
            content = json.loads(path.read_text("utf-8"))
            return {name: math.nan if value is None else float(value) for name, value in content.items()
                    if value is None or isinstance(value, (int, float))}  # fmt: skip
        except (OSError, ValueError, AttributeError) as error:
            raise _damaged(path, error) from error

    def regions(self) -> NDArray[np.float64]:
        """Measures (R, M) of the atlas' regions, in the order of its table and of `REGION_MEASURES`; NaN for n/a."""
        path = self._path(f"regions_{DEFAULT_ATLAS}")
        header, rows = _read_table(path)
        try:
            columns = [header.index(name) for name in ("index", *REGION_MEASURES)]
            values = np.array([[_number(row[column]) for column in columns] for row in rows])
        except (ValueError, IndexError) as error:
            raise _damaged(path, error) from error
        indices = LabelTable.load(DEFAULT_ATLAS).indices
        if values[:, 0].tolist() != list(indices):
            raise _damaged(path, f"not the {len(indices)} regions of the atlas {DEFAULT_ATLAS}")
        values[values[:, 1] == 0, 1] = np.nan  # a region that was not found has no volume to compare
        return values[:, 1:]

    def network(self, measure: str) -> NDArray[np.float64]:
        """Network (R, R) of a measure in `NETWORKS`, in the order of the atlas' table; NaN for n/a."""
        path = self._path(f"network_{DEFAULT_ATLAS}_{measure}")
        header, rows = _read_table(path)
        names = LabelTable.load(DEFAULT_ATLAS).names
        if header != list(names) or len(rows) != len(names):
            raise _damaged(path, f"not the {len(names)} regions of the atlas {DEFAULT_ATLAS}")
        try:
            return np.array([[_number(cell) for cell in row] for row in rows])
        except ValueError as error:
            raise _damaged(path, error) from error

    def _path(self, role: str) -> Path:
        return self.root / self._outputs[role].relative


def find_tables(output_dir: Path, *, participants: Sequence[str] = ()) -> list[ScanTables]:
    """Return the scans of a derivative dataset, sorted by name; those with quality measures count as processed.

    Parameters
    ----------
    output_dir
        The derivative dataset.
    participants
        Labels without `sub-`; empty for all.

    Raises
    ------
    DatasetError
        There is none.
    """
    found = [ScanTables(output_dir, record) for record in _records(output_dir)]
    found = [scan for scan in found if not participants or scan.record.subject in participants]
    if not found:
        asked = "of these participants " if participants else ""
        raise DatasetError(
            f"{output_dir}: there are no derivatives {asked}to compare (sub-*/[ses-*/]anat/*{_QUALITY}).",
            "Run the participant level first.",
        )
    return sorted(found, key=lambda scan: scan.record.key)


def _records(output_dir: Path) -> Iterator[ScanRecord]:
    if not output_dir.is_dir():
        return
    for subject in os.scandir(output_dir):
        if subject.is_dir() and re.fullmatch("sub-[0-9a-zA-Z+]+", subject.name):
            for pattern in ("anat", "ses-*/anat"):
                for path in Path(subject.path).glob(f"{pattern}/*{_QUALITY}"):
                    scan = path.with_name(path.name.removesuffix(_QUALITY) + "_T1w.nii.gz")
                    yield ScanRecord.from_path(scan, dataset=output_dir)


def _read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        header, *rows = [line.split("\t") for line in path.read_text("utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    return header, rows


def _number(cell: str) -> float:
    return math.nan if cell == "n/a" else float(cell)


def _damaged(path: Path, reason: Any) -> ScanError:
    why = "there is no such file" if isinstance(reason, FileNotFoundError) else reason
    return ScanError(f"{path}: cannot be read ({why}).", "Run the participant level again for this scan.")
