"""Scans whose quality measures lie far from those of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from unibrain_bids.group.statistics import robust_z

__all__ = ["MIN_SCANS", "Z_LIMIT", "outlying_measures"]

Z_LIMIT = 3.5  # robust standard deviations (Iglewicz and Hoaglin 1993)
MIN_SCANS = 10


def outlying_measures(quality: Sequence[Mapping[str, float]]) -> list[list[str]]:
    """Return, for each scan, the measures in which it lies more than `Z_LIMIT` from the median; with too few, none.

    The median and its absolute deviation are those of all scans: a cohort that is bad as a whole has no outliers.
    """
    if len(quality) < MIN_SCANS:
        return [[] for _ in quality]
    names = list(dict.fromkeys(name for measures in quality for name in measures))
    table = np.array([[measures.get(name, np.nan) for name in names] for measures in quality])
    names = [name for name, known in zip(names, np.isfinite(table).any(axis=0), strict=True) if known]
    table = table[:, np.isfinite(table).any(axis=0)]
    far = np.abs(robust_z(table)) > Z_LIMIT
    return [[name for name, is_far in zip(names, row, strict=True) if is_far] for row in far]
