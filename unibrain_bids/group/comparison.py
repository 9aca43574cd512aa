"""Comparison of regions and edges by a column of participants.tsv: two classes, or a number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from unibrain_bids.errors import UsageError
from unibrain_bids.group.covariates import Covariates, covariates_of
from unibrain_bids.group.options import GroupOptions
from unibrain_bids.group.participants import Participants
from unibrain_bids.group.statistics import Effects, Means, Regression, adjusted, correlated, welch
from unibrain_bids.group.targets import INTRACRANIAL, chosen_covariates, site_column, two_classes

__all__ = ["Comparison", "Question", "ask"]

# About the mean and standard deviation in adults (mm3): only to bring the number near unit size.
_INTRACRANIAL_SCALE = (1.5e6, 1.5e5)


@dataclass(frozen=True)
class Question:
    """What is compared.

    Attributes
    ----------
    column
        Of participants.tsv.
    classes
        The two classes, or None for a number.
    values
        Participant to 0 (first class) or 1 (second class), or to the number with mean 0 and standard deviation 1.
    covariates
        What the comparison is adjusted for, from participants.tsv.
    intracranial
        Whether it is adjusted for the intracranial volume, too.
    excluded
        Participant to the reason why it does not take part.
    """

    column: str
    classes: tuple[str, str] | None
    values: dict[str, float]
    covariates: Covariates
    intracranial: bool
    excluded: dict[str, str] = field(default_factory=dict)

    @property
    def adjusted_for(self) -> list[str]:
        """Names of the covariates."""
        return [*self.covariates.names, *([INTRACRANIAL] if self.intracranial else [])]


class Comparison:
    """Running sums of one comparison over M outcomes.

    Parameters
    ----------
    question
        What is compared.
    outcomes
        M.
    """

    def __init__(self, question: Question, outcomes: int) -> None:
        self.question = question
        self.by_class = (Means(outcomes), Means(outcomes))
        self._regression = Regression(outcomes, 2 + len(question.adjusted_for))

    def add(self, participant: str, values: NDArray[np.float64], intracranial: float) -> None:
        """Take in one participant's outcomes (M,); those who do not take part are passed over."""
        question = self.question
        if participant not in question.values or (question.intracranial and not math.isfinite(intracranial)):
            return
        centre, scale = _INTRACRANIAL_SCALE
        value = question.values[participant]
        measured = [(intracranial - centre) / scale] if question.intracranial else []
        self._regression.add([1.0, value, *question.covariates.values[participant], *measured], values)
        if question.classes:
            self.by_class[int(value)].add(values)

    def effects(self) -> Effects:
        """Return Welch's comparison of two classes, or a regression where there are covariates or a number."""
        if self.question.classes is None:
            return correlated(self._regression)
        if self.question.adjusted_for:
            return adjusted(self._regression, *self.by_class)
        return welch(*self.by_class)


def ask(participants: Participants, options: GroupOptions, members: Sequence[str]) -> Question:
    """Judge `--compare` for the participants that have derivatives.

    Raises
    ------
    UsageError
        There is no such column, fewer or more than two classes, or fewer than two participants in one of them.
    """
    column = str(options.compare)
    found = participants.column(column, option="--compare")
    wanted = chosen_covariates(participants, options, target=column)
    site = site_column(participants, options)
    from_table = [name for name in wanted if name != INTRACRANIAL]
    covariates = covariates_of(participants, from_table, members=members, categorical=[site] if site else [])
    excluded = {m: f"no value of {column}" for m in members if m not in found}
    excluded |= {
        m: f"no value of {', '.join(from_table)}" for m in members if m in found and m not in covariates.values
    }
    present = [member for member in members if member not in excluded]
    classes = None
    if options.classes is None and participants.is_numeric(column):
        numbers = participants.numbers(column, option="--compare")
        selected = np.array([numbers[member] for member in present])
        if len(set(selected.tolist())) < 2:
            raise UsageError(f"--compare {column}: all participants have the same value.", "Compare another column.")
        values = dict(zip(present, ((selected - selected.mean()) / selected.std()).tolist(), strict=True))
    else:
        classes, values, others = two_classes(found, present, options.classes, option=f"--compare {column}")
        excluded |= others
    return Question(column, classes, values, covariates, INTRACRANIAL in wanted, excluded)
