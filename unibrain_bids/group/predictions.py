"""What heads say of the participants: BIDS' phenotype tables, and a check of the recorded sex."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unibrain_bids.bids.atomic import write_json, write_tsv
from unibrain_bids.classification.card import RESEARCH_USE
from unibrain_bids.classification.features import Features
from unibrain_bids.classification.head import Head, Outcome
from unibrain_bids.classification.tables import column_texts, prediction_row
from unibrain_bids.group.derivatives import ScanTables

__all__ = ["predict_all", "sex_mismatches", "write_phenotype"]

_SURE = 0.95


def predict_all(head: Head, scans: Sequence[tuple[ScanTables, Features]]) -> dict[str, Outcome]:
    """Return what a head says of each scan, by the scan's name."""
    return {scan.record.key: head.apply(features) for scan, features in scans}


def write_phenotype(
    output_dir: Path, head: Head, scans: Sequence[tuple[ScanTables, Features]], outcomes: Mapping[str, Outcome]
) -> list[dict[str, Any]]:
    """Write phenotype/<head>.tsv, one row per participant, with its dictionary; returns the rows.

    A participant's scans are averaged (the probability, or the number); scans that the head refuses do not count.
    """
    by_participant: dict[str, list[Outcome]] = defaultdict(list)
    for scan, _ in scans:
        by_participant[scan.participant].append(outcomes[scan.record.key])
    rows = []
    for participant, all_of_it in by_participant.items():
        row = prediction_row(head, _merged(head, all_of_it))
        rows.append({"participant_id": participant, "n_scans": len(all_of_it), **row})
    path = output_dir / "phenotype" / f"{head.label}.tsv"
    write_tsv(path, rows)
    tool = {"Description": f"Head '{head.label}' of unibrain-bids. {RESEARCH_USE}"}
    texts = {"n_scans": {"Description": "Scans of the participant, which are averaged."}, **column_texts(head)}
    write_json(path.with_suffix(".json"), {"MeasurementToolMetadata": tool, **{
        name: {**text, "Derivative": True} for name, text in texts.items()}})  # fmt: skip
    return rows


def sex_mismatches(head: Head, outcomes: Mapping[str, Outcome], recorded: Mapping[str, str]) -> dict[str, str]:
    """Return a remark for each scan whose recorded sex ("F", "M" by participant) a head gives less than 5 %.

    Parameters
    ----------
    head
        With the classes F and M.
    outcomes
        By the scan's name; scans unlike the training scans are not judged.
    recorded
        By participant.
    """
    remarks = {}
    for scan, outcome in outcomes.items():
        sex = recorded.get(scan.partition("_")[0])
        if sex is None or head.classes is None or outcome.value is None or outcome.verdict != "inside":
            continue
        probability = outcome.value if head.classes[1] == sex else 1 - outcome.value
        if probability < 1 - _SURE:
            remarks[scan] = f"recorded sex {sex} has a probability of {probability:.3f}: is it the right scan?"
    return remarks


def _merged(head: Head, outcomes: Sequence[Outcome]) -> Outcome:
    """Return the mean of a participant's outcomes; the least usual scan gives verdict and distance."""
    worst = max(outcomes, key=lambda outcome: outcome.distance if math.isfinite(outcome.distance) else math.inf)
    values = [outcome.value for outcome in outcomes if outcome.value is not None]
    if not values:
        return worst
    usable = max((o for o in outcomes if o.value is not None), key=lambda outcome: outcome.distance)
    value = sum(values) / len(values)
    return Outcome(usable.verdict, usable.distance, usable.limit, value, head.class_of(value))
