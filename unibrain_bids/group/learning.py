"""`--classify` and `--regress`: from derivatives and a column of participants.tsv to a validated head."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from unibrain_bids.bids.atomic import write_bytes, write_json
from unibrain_bids.bids.derivatives import DEFAULT_ATLAS
from unibrain_bids.classification.cohort import Cohort
from unibrain_bids.classification.features import Features
from unibrain_bids.classification.training import Trained, train_head
from unibrain_bids.errors import UsageError
from unibrain_bids.group.covariates import covariates_of
from unibrain_bids.group.derivatives import Maker
from unibrain_bids.group.gather import Gathered
from unibrain_bids.group.options import GroupOptions
from unibrain_bids.group.participants import Participants
from unibrain_bids.group.targets import INTRACRANIAL, chosen_covariates, site_column, two_classes

__all__ = ["cohort_of", "head_path", "learn"]

logger = logging.getLogger(__name__)


class OfParticipant(Protocol):
    """A scan, or what is left of it."""

    @property
    def participant(self) -> str:
        """Identifier in participants.tsv."""


def head_path(output_dir: Path, label: str) -> Path:
    """Return where a head is written; its card stands beside it as JSON."""
    return output_dir / f"group_desc-{label}_head.safetensors"


def learn(
    output_dir: Path, gathered: Gathered, participants: Participants, options: GroupOptions, *, label: str
) -> Trained:
    """Train, validate and write a head.

    Raises
    ------
    UsageError
        The column does not exist or cannot be learned, or there are too few participants.
    """
    maker = one_maker(gathered)
    cohort, excluded = cohort_of(gathered.features, participants, options)
    gathered.excluded |= excluded
    trained = train_head(
        cohort,
        label=label,
        target=str(options.classify or options.regress),
        weights=maker.weights,
        version=maker.release,
        atlas=DEFAULT_ATLAS,
        excluded=excluded,
        permutations=options.permutations,
        seed=options.random_seed,
        progress=lambda line: logger.info("%s: %s", label, line),
    )
    path = head_path(output_dir, label)
    write_bytes(path, trained.head.to_bytes())
    write_json(path.with_suffix(".json"), trained.head.card)
    return trained


def one_maker(gathered: Gathered) -> Maker:
    """Return what made all derivatives.

    Raises
    ------
    UsageError
        There are several, or they are not known.
    """
    makers = list(gathered.makers)
    if len(makers) != 1 or makers[0] is None:
        named = "; ".join(f"{maker or 'unknown'} ({count} scans)" for maker, count in gathered.makers.items())
        raise UsageError(
            f"The derivatives were made with different or unknown weights or versions: {named}.",
            "Run the participant level again with one version of unibrain-bids.",
        )
    return makers[0]


def cohort_of(
    scans: Sequence[tuple[OfParticipant, Features]],
    participants: Participants,
    options: GroupOptions,
    *,
    option: str | None = None,
) -> tuple[Cohort, dict[str, str]]:
    """Put together what is learned from.

    Parameters
    ----------
    scans
        With what heads see of them.
    participants
        With the column to learn.
    options
        `classify` or `regress`, classes, covariates, site.
    option
        The one that named the column, for messages.

    Returns
    -------
    cohort
        All scans of all participants with a value.
    excluded
        Participants that are left out, with reasons.

    Raises
    ------
    UsageError
        The column, or a covariate, does not exist; there are not two classes; or no scan can be used.
    """
    column = str(options.classify or options.regress)
    option = option or ("--classify" if options.classify else "--regress")
    members = list(dict.fromkeys(scan.participant for scan, _ in scans))
    classes, values, excluded = _targets(participants, options, column, members, option=option)
    chosen = [name for name in chosen_covariates(participants, options, target=column) if name != INTRACRANIAL]
    site = site_column(participants, options)
    covariates = covariates_of(participants, chosen, members=list(values), categorical=[site] if site else [])
    unknown = np.full(len(covariates.names), math.nan)  # the mean stands in for them
    used = [(scan.participant, one) for scan, one in scans if scan.participant in values]
    who, features = [name for name, _ in used], [one for _, one in used]
    sites = participants.columns[site] if site else {}
    cohort = Cohort(
        regions=np.stack([one.regions for one in features]),
        whole=np.stack([one.whole for one in features]),
        networks=np.stack([one.network for one in features]),
        target=np.array([values[name] for name in who]),
        participants=np.array(who),
        covariates=np.stack([np.append(covariates.values.get(name, unknown), one.whole) for name, one in used]),
        sites=np.array([sites.get(name, "n/a") for name in who]) if site else None,
        classes=classes,
    )
    return cohort, excluded


def _targets(
    participants: Participants, options: GroupOptions, column: str, members: Sequence[str], *, option: str
) -> tuple[tuple[str, str] | None, dict[str, float], dict[str, str]]:
    """Return the classes (None for a number), each participant's target, and why others have none."""
    found = participants.column(column, option=option)
    excluded = {member: f"no value of {column}" for member in members if member not in found}
    present = [member for member in members if member in found]
    if options.classify:
        classes, values, others = two_classes(found, present, options.classes, option=f"{option} {column}")
        return classes, values, excluded | others
    numbers = participants.numbers(column, option=option)
    values = {member: numbers[member] for member in present}
    if len(set(values.values())) < 2:
        raise UsageError(f"{option} {column}: fewer than two different values.", "Give a column of numbers.")
    return None, values, excluded
