"""Which columns of participants.tsv are meant, and which two classes a column holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from unibrain_bids.errors import UsageError
from unibrain_bids.group.options import GroupOptions
from unibrain_bids.group.participants import Participants

__all__ = ["INTRACRANIAL", "chosen_covariates", "site_column", "two_classes"]

INTRACRANIAL = "intracranial_volume"
_SMALLEST_CLASS = 2


def site_column(participants: Participants, options: GroupOptions) -> str | None:
    """Return the column with the sites, or None if there is none.

    Raises
    ------
    UsageError
        The column that was asked for does not exist.
    """
    if options.site is not None:
        participants.column(options.site, option="--site-column")
        return options.site
    return next(iter(participants.usual(site=True)), None)


def chosen_covariates(participants: Participants, options: GroupOptions, *, target: str) -> list[str]:
    """Return the covariates: those asked for, or age, sex, site and intracranial volume; never the target itself.

    Raises
    ------
    UsageError
        A column that was asked for does not exist.
    """
    if options.covariates is not None:
        for name in options.covariates:
            if name != INTRACRANIAL:
                participants.column(name, option="--covariates")
        return [name for name in options.covariates if name != target]
    site = site_column(participants, options)
    chosen = [*participants.usual(age=True, sex=True), *([site] if site else []), INTRACRANIAL]
    return [name for name in dict.fromkeys(chosen) if name != target]


def two_classes(
    values: Mapping[str, str], members: Sequence[str], classes: tuple[str, str] | None, *, option: str
) -> tuple[tuple[str, str], dict[str, float], dict[str, str]]:
    """Sort `members` into two classes by their `values` (one for each of them).

    Returns
    -------
    classes
        As asked for, or the two values that there are, sorted.
    sorted members
        Participant to 0 (first class) or 1 (second).
    others
        Participant to the reason why it belongs to neither.

    Raises
    ------
    UsageError
        There are not two classes of at least two members; `option` names the column in the message.
    """
    counts = Counter(values[member] for member in members)
    listed = ", ".join(f"{value} ({n})" for value, n in sorted(counts.items())) or "none"
    if classes is None:
        if len(counts) != 2:
            remedy = "Name two of them with --classes." if len(counts) > 2 else "Two classes are needed."
            raise UsageError(f"{option}: the participants with derivatives have the values {listed}.", remedy)
        first, second = sorted(counts)
        classes = (first, second)
    if small := [name for name in classes if counts[name] < _SMALLEST_CLASS]:
        raise UsageError(
            f"{option}: fewer than {_SMALLEST_CLASS} participants with derivatives are {' or '.join(small)}.",
            f"The values are {listed}.",
        )
    chosen = {member: float(classes.index(values[member])) for member in members if values[member] in classes}
    others = {member: f"its value {values[member]} is none of {', '.join(classes)}" for member in members
              if values[member] not in classes}  # fmt: skip
    return classes, chosen, others
