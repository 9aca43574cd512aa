"""Files that appear whole or not at all: written aside in the same folder, then renamed."""

from __future__ import annotations

import contextlib
import json
import math
import os
import uuid
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from unibrain_bids.errors import OutputError

__all__ = ["format_tsv", "write_bytes", "write_json", "write_text", "write_tsv"]


def write_text(path: Path, text: str) -> bool:
    """Write `text` to `path` as UTF-8 and tell whether its content has changed.

    Readers see the old content or the new, never a part; any number of processes may write at once. A file that already
    says the same is left alone, with its date. Missing folders are made.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    return write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> bool:
    """Write `content` to `path` as `write_text` does."""
    # A name of its own for each writer, on this machine or another one.
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with contextlib.suppress(FileNotFoundError):
            if path.read_bytes() == content:
                return False
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(content)
        os.replace(aside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error}).",
            "Check the folder, its permissions and its space.",
        ) from error
    return True


def write_json(path: Path, content: Mapping[str, Any]) -> bool:
    """Write a JSON file (see `write_text`); NaN and infinity, which JSON does not know, raise ValueError."""
    return write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_tsv(path: Path, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Write a table with a header (see `write_text` and `format_tsv`)."""
    return write_text(path, format_tsv(rows))


def format_tsv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as a BIDS table: tab-separated, with header, seven significant digits, `n/a` for None and NaN.

    The first row gives the columns and their order; the others must have the same ones.
    """
    columns = list(rows[0])
    lines = [columns, *([_cell(row[column]) for column in columns] for row in rows)]
    return "".join("\t".join(line) + "\n" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "n/a"
    if isinstance(value, Integral) or not isinstance(value, Real):  # numpy's numbers count as such
        return str(value)
    return "n/a" if math.isnan(value) else f"{value:.7g}"
