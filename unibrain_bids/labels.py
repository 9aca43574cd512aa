"""Label tables: which integer stands for which structure, tissue or cortical region.

Structures carry FreeSurfer's numbers, tissues BIDS' standard integers, Desikan-Killiany regions FreeSurfer's 1001..
(left) and 2001.. (right). The DK rows stand in the order of MRtrix's `fs_default`, so that our matrices can be compared
with its connectomes node by node.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path
from typing import Literal

from unibrain_bids.errors import ResourceError

__all__ = ["Label", "LabelTable"]

Hemisphere = Literal["left", "right", "midline", "both", "n/a"]

_MISSING = "n/a"
_SIDES: dict[Hemisphere, Hemisphere] = {"left": "right", "right": "left"}
_SIDE_PREFIXES = ("Left-", "Right-", "ctx-lh-", "ctx-rh-")


@dataclass(frozen=True)
class Label:
    """One row of a label table; columns that a table lacks are "n/a" (`mapping`: None)."""

    index: int
    name: str
    abbreviation: str = _MISSING
    color: str = _MISSING
    hemisphere: Hemisphere = "n/a"
    tissue: str = _MISSING
    mapping: int | None = None

    @property
    def _mirror_key(self) -> tuple[str, Hemisphere]:
        """Name without its side, and the side on which the mirrored structure lies."""
        prefix = next((p for p in _SIDE_PREFIXES if self.name.startswith(p)), "")
        return self.name.removeprefix(prefix), _SIDES.get(self.hemisphere, self.hemisphere)


@dataclass(frozen=True)
class LabelTable:
    """The labels of one segmentation or atlas, in the order of its table (background 0 is never a row).

    Attributes
    ----------
    name
        Label of the table in file names ("aseg", "tissue", "DK").
    rows
        One `Label` per structure.
    """

    name: str
    rows: tuple[Label, ...]

    @classmethod
    def load(cls, name: str) -> LabelTable:
        """Return the packaged table `name` ("aseg", "tissue" or "DK").

        Raises
        ------
        ResourceError
            No table of that name comes with the package.
        """
        return _load(name)

    @classmethod
    def read(cls, path: Path, *, name: str) -> LabelTable:
        """Read a BIDS `_dseg.tsv`: columns `index` and `name`, others optional.

        Raises
        ------
        ResourceError
            The file is missing, or is no such table.
        """
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ResourceError(
                f"{path}: the label table cannot be read ({error}).", "Give a tab-separated UTF-8 file."
            ) from error
        return cls(name, _parse(text, origin=str(path)))

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Label]:
        return iter(self.rows)

    def __getitem__(self, index: int) -> Label:
        """Return the row of label `index` (the integer in the image, not the row's position)."""
        return self._by_index[index]

    def __contains__(self, index: int) -> bool:
        return index in self._by_index

    @property
    def indices(self) -> tuple[int, ...]:
        """Labels as they occur in the image, in the table's order."""
        return tuple(row.index for row in self.rows)

    @property
    def names(self) -> tuple[str, ...]:
        """Names in the table's order."""
        return tuple(row.name for row in self.rows)

    def flipped(self, index: int) -> int:
        """Return the label of the same structure on the other side; midline labels and 0 are their own mirror.

        Raises
        ------
        KeyError
            `index` is not in the table.
        """
        return 0 if index == 0 else self._mirror[index]

    @cached_property
    def _by_index(self) -> dict[int, Label]:
        return {row.index: row for row in self.rows}

    @cached_property
    def _mirror(self) -> dict[int, int]:
        positions = {(row._mirror_key[0], row.hemisphere): row.index for row in self.rows}
        return {row.index: positions.get(row._mirror_key, row.index) for row in self.rows}


def _parse(text: str, *, origin: str) -> tuple[Label, ...]:
    """Read the lines of a table; `origin` is its name in error messages."""
    try:
        rows = [_label(row) for row in csv.DictReader(text.splitlines(), delimiter="\t")]
    except (KeyError, ValueError, TypeError) as error:
        raise ResourceError(
            f"{origin}: not a label table ({type(error).__name__}: {error}).",
            "It must be tab-separated, with the columns 'index' (integers) and 'name'.",
        ) from error
    labels = tuple(row for row in rows if row.index != 0)
    if not labels or len({row.index for row in labels}) != len(labels):
        raise ResourceError(
            f"{origin}: the label table is empty or repeats an index.", "Give each label one row of its own."
        )
    if len({row.name for row in labels}) != len(labels):
        raise ResourceError(f"{origin}: the label table repeats a name.", "Give each label a name of its own.")
    return labels


def _label(row: dict[str, str]) -> Label:
    known = {key: row[key] for key in ("abbreviation", "color", "hemisphere", "tissue") if row.get(key)}
    mapping = row.get("mapping") or _MISSING
    return Label(
        index=int(row["index"]),
        name=row["name"],
        mapping=None if mapping == _MISSING else int(mapping),
        **known,  # type: ignore[arg-type]
    )


@cache
def _load(name: str) -> LabelTable:
    folder = files("unibrain_bids") / "resources" / "labels"
    path = folder / f"{name}.tsv"
    if not path.is_file():
        available = ", ".join(sorted(entry.name.removesuffix(".tsv") for entry in folder.iterdir()))
        raise ResourceError(f"There is no label table '{name}'.", f"Use one of: {available}.")
    return LabelTable(name, _parse(path.read_text(encoding="utf-8"), origin=path.name))
