"""Columns of participants.tsv as numbers: covariates of comparisons, and what the baseline without images sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unibrain_bids.group.participants import Participants

__all__ = ["Covariates", "covariates_of"]


@dataclass(frozen=True)
class Covariates:
    """Covariates of those participants for whom all of them are known.

    Attributes
    ----------
    sources
        The columns they were made from.
    names
        What each of the K numbers is, such as "age" or "sex=M".
    values
        Participant to (K,), each number with mean 0 and standard deviation 1 over the participants.
    """

    sources: tuple[str, ...]
    names: tuple[str, ...]
    values: dict[str, NDArray[np.float64]]


def covariates_of(
    participants: Participants, columns: Sequence[str], *, members: Sequence[str], categorical: Sequence[str] = ()
) -> Covariates:
    """Make numbers of `columns`: those of numbers as they are, others as one 0/1 number per value but the first.

    Columns in `categorical` count as others even where their values are numbers. What is the same for all `members`
    with known values is left out.

    Raises
    ------
    UsageError
        A column does not exist.
    """
    given = [participants.column(name, option="--covariates") for name in columns]
    known = [member for member in members if all(member in values for values in given)]
    names, numbers = [], []
    for name, values in zip(columns, given, strict=True):
        cells = [values[member] for member in known]
        if participants.is_numeric(name) and name not in categorical:
            names.append(name)
            numbers.append(np.array(cells, dtype=np.float64))
        else:
            for level in sorted(set(cells))[1:]:
                names.append(f"{name}={level}")
                numbers.append(np.array([cell == level for cell in cells], dtype=np.float64))
    varying = [k for k, column in enumerate(numbers) if column.size and column.std() > 0]
    table = np.array([(numbers[k] - numbers[k].mean()) / numbers[k].std() for k in varying]).reshape(-1, len(known)).T
    return Covariates(tuple(columns), tuple(names[k] for k in varying), dict(zip(known, table, strict=True)))
