"""What the participant level has written, read one scan at a time; no raw image is looked at."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unibrain_bids.bids.derivatives import DEFAULT_ATLAS, DerivativePath, catalogue
from unibrain_bids.bids.inputs import ScanRecord
from unibrain_bids.bids.tables import read_network, read_quality, read_regions
from unibrain_bids.classification.card import release
from unibrain_bids.errors import DatasetError

__all__ = ["NETWORKS", "Maker", "ScanTables", "find_tables"]

NETWORKS = ("innerproduct", "kls")
_QUALITY = "_desc-qc_T1w.json"


@dataclass(frozen=True)
class Maker:
    """What made derivatives: SHA-256 of the model's weights, release of the package ("0.1")."""

    weights: str
    release: str

    def __str__(self) -> str:
        return f"weights {self.weights[:12]}, version {self.release}"


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
        return catalogue(self.record)

    @property
    def participant(self) -> str:
        """Identifier in participants.tsv, such as "sub-01"."""
        return f"sub-{self.record.subject}"

    @property
    def maker(self) -> Maker | None:
        """What made the derivatives; None where no record of completion says it."""
        try:
            content = json.loads((self.root / "logs" / "complete" / f"{self.record.key}.json").read_text("utf-8"))
            return Maker(str(content["fingerprint"]["weights"]), release(str(content["version"])))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def quality(self) -> dict[str, float]:
        """Quality measures (`bids.tables.read_quality`)."""
        return read_quality(self._path("quality"))

    def regions(self) -> NDArray[np.float64]:
        """Measures of the regions (`bids.tables.read_regions`)."""
        return read_regions(self._path(f"regions_{DEFAULT_ATLAS}"))

    def network(self, measure: str) -> NDArray[np.float64]:
        """Network of a measure in `NETWORKS` (`bids.tables.read_network`)."""
        return read_network(self._path(f"network_{DEFAULT_ATLAS}_{measure}"))

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
