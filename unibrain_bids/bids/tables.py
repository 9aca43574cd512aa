"""Reading the tables of one scan: regions, networks, quality measures."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain_bids.bids.derivatives import DEFAULT_ATLAS
from unibrain_bids.errors import ScanError
from unibrain_bids.labels import LabelTable

__all__ = ["REGION_MEASURES", "read_network", "read_quality", "read_regions"]

REGION_MEASURES = ("volume", "intensity_mean", "intensity_sd")


def read_quality(path: Path) -> dict[str, float]:
    """Read quality measures by name, NaN where there is none.

    Raises
    ------
    ScanError
        The file is missing or damaged.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
        return {name: math.nan if value is None else float(value) for name, value in content.items()
                if value is None or isinstance(value, (int, float))}  # fmt: skip
    except (OSError, ValueError, AttributeError) as error:
        raise _damaged(path, error) from error


def read_regions(path: Path) -> NDArray[np.float64]:
    """Read a table of regions: (R, M) in the order of the default atlas and of `REGION_MEASURES`; NaN for n/a.

    Raises
    ------
    ScanError
        The file is missing or damaged, or of another atlas.
    """
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


def read_network(path: Path) -> NDArray[np.float64]:
    """Read a network (R, R), in the order of the default atlas; NaN for n/a.

    Raises
    ------
    ScanError
        The file is missing or damaged, or of another atlas.
    """
    header, rows = _read_table(path)
    names = LabelTable.load(DEFAULT_ATLAS).names
    if header != list(names) or len(rows) != len(names):
        raise _damaged(path, f"not the {len(names)} regions of the atlas {DEFAULT_ATLAS}")
    try:
        return np.array([[_number(cell) for cell in row] for row in rows])
    except ValueError as error:
        raise _damaged(path, error) from error


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
