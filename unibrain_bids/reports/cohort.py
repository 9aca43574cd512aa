"""How a scan compares with the others of its dataset, where the group level has made its tables."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from markupsafe import Markup

from unibrain_bids.reports.files import read_rows

__all__ = ["Cohort", "load_cohort"]

_LEAST_SCANS = 10  # with fewer, percentiles say nothing
_WIDTH = 90


@dataclass(frozen=True)
class Cohort:
    """Values of all scans, by measure, sorted; empty where the table is missing or too short."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.values)

    def spread(self, name: str, value: float | None) -> Markup | str:
        """Draw where `value` lies among the scans: middle 90 % as a bar, the median as a line, the value as a dot."""
        known = self.values.get(name, [])
        if len(known) < _LEAST_SCANS or value is None or not math.isfinite(value):
            return ""
        low, median, high = np.percentile(known, [5, 50, 95])
        bottom, top = min(known[0], value), max(known[-1], value)
        scale = (_WIDTH - 10) / (top - bottom or 1)
        x = [5 + (number - bottom) * scale for number in (low, high, median, value)]
        rank = round(100 * np.searchsorted(known, value, side="right") / len(known))
        said = f"{rank} % of {len(known)} scans lie at or below; the middle 90 % from {low:.4g} to {high:.4g}"
        return Markup(
            '<svg class="spread" role="img" viewBox="0 0 {} 16" width="{}" height="16"><title>{}</title>'
            '<rect x="{}" y="6" width="{}" height="4" rx="2"/><path d="M{} 3v10"/><circle cx="{}" cy="8" r="4"/></svg>'
        ).format(_WIDTH, _WIDTH, said, round(x[0], 1), round(max(x[1] - x[0], 1), 1), round(x[2], 1), round(x[3], 1))


@lru_cache(maxsize=8)
def load_cohort(table: Path) -> Cohort:
    """Read a table of the group level with one scan per row; its columns of numbers become the cohort's values."""
    if not table.is_file():
        return Cohort()
    values: dict[str, list[float]] = {}
    for row in read_rows(table):
        for name, cell in row.items():
            number = _number(cell)
            if math.isfinite(number):
                values.setdefault(name, []).append(number)
    return Cohort({name: sorted(numbers) for name, numbers in values.items() if len(numbers) >= _LEAST_SCANS})


def _number(cell: str | None) -> float:
    try:
        return float(cell or "nan")
    except ValueError:
        return math.nan
