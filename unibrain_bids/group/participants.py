"""What participants.tsv says of the participants."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unibrain_bids.errors import DatasetError, UsageError

__all__ = ["Participants", "read_participants", "recorded_sex"]

_MISSING = ("", "n/a", "na", "nan")
_AGE, _SEX = ("age",), ("sex", "gender")
_SITE = ("site", "site_id", "site_name", "centre", "center", "scanner")
_SEXES = {"f": "F", "female": "F", "w": "F", "m": "M", "male": "M"}


@dataclass(frozen=True)
class Participants:
    """A table of participants.

    Attributes
    ----------
    path
        Where it was read.
    columns
        Column name to participant ("sub-01") to value; missing values have no entry.
    """

    path: Path
    columns: Mapping[str, Mapping[str, str]]

    def column(self, name: str, *, option: str) -> Mapping[str, str]:
        """Return the values of a column by participant.

        Raises
        ------
        UsageError
            There is no such column; `option` is the one that named it.
        """
        if name not in self.columns:
            listed = ", ".join(self.columns) or "none"
            raise UsageError(f"{option} {name}: {self.path} has no such column.", f"Its columns: {listed}.")
        return self.columns[name]

    def numbers(self, name: str, *, option: str) -> dict[str, float]:
        """Return the values of a column of numbers by participant.

        Raises
        ------
        UsageError
            There is no such column, or it holds something else.
        """
        values = self.column(name, option=option)
        try:
            return {participant: _finite(value) for participant, value in values.items()}
        except ValueError as error:
            remedy = "Give a column of numbers."
            raise UsageError(
                f"{option} {name}: not all values in {self.path} are numbers ({error}).", remedy
            ) from error

    def is_numeric(self, name: str) -> bool:
        """Tell whether all values of a column are numbers, and more than two different ones."""
        try:
            return len({_finite(value) for value in self.columns[name].values()}) > 2
        except ValueError:
            return False

    def usual(self, *, age: bool = False, sex: bool = False, site: bool = False) -> list[str]:
        """Return the names of the columns that by their name hold age, sex or site (one for each that is there)."""
        wanted = [names for asked, names in ((age, _AGE), (sex, _SEX), (site, _SITE)) if asked]
        by_name = {column.lower(): column for column in self.columns}
        return [next(by_name[name] for name in names if name in by_name)
                for names in wanted if any(name in by_name for name in names)]  # fmt: skip


def read_participants(bids_dir: Path) -> Participants:
    """Read `participants.tsv`; a dataset without one has no columns.

    Raises
    ------
    DatasetError
        It has no `participant_id`, lists a participant twice, or is no table.
    """
    path = bids_dir / "participants.tsv"
    if not path.is_file():
        return Participants(path, {})
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t"))
    except (OSError, ValueError, csv.Error) as error:
        raise DatasetError(f"{path}: cannot be read ({error}).", "It must be a tab-separated table.") from error
    names = [_identifier(row.get("participant_id")) for row in rows]
    if rows and "" in names:
        raise DatasetError(f"{path}: a row has no participant_id.", "The first column must be participant_id.")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DatasetError(f"{path}: {', '.join(twice)} stand(s) there twice.", "Keep one row for each participant.")
    columns = [name for name in rows[0] if name and name != "participant_id"] if rows else []
    return Participants(path, {column: _present(names, [row[column] for row in rows]) for column in columns})


def recorded_sex(participants: Participants) -> dict[str, str]:
    """Return "F" or "M" by participant, where the table says one of them."""
    columns = participants.usual(sex=True)
    values = participants.columns[columns[0]] if columns else {}
    return {name: _SEXES[value.lower()] for name, value in values.items() if value.lower() in _SEXES}


def _identifier(label: str | None) -> str:
    label = (label or "").strip()
    return label if not label or label.startswith("sub-") else f"sub-{label}"


def _present(names: Sequence[str], cells: Sequence[str | None]) -> dict[str, str]:
    values = {name: (cell or "").strip() for name, cell in zip(names, cells, strict=True)}
    return {name: value for name, value in values.items() if value.lower() not in _MISSING}


def _finite(value: str) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"'{value}'")
    return number
