"""Which scans are to be processed, which are complete already, and what would be written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from unibrain_bids.app.failures import Failure
from unibrain_bids.app.settings import Settings
from unibrain_bids.bids.derivatives import expected_outputs
from unibrain_bids.bids.filters import load_filters
from unibrain_bids.bids.inputs import ScanRecord, find_scans
from unibrain_bids.bids.publish import Fingerprint, is_complete, make_fingerprint
from unibrain_bids.errors import ScanError
from unibrain_bids.workflows.processing import Processing


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    Attributes
    ----------
    todo
        The scans to process, with what their results depend on.
    complete
        Scans whose derivatives are there and unchanged, likewise.
    unreadable
        Scans whose file cannot be read.
    """

    todo: dict[ScanRecord, Fingerprint] = field(default_factory=dict)
    complete: dict[ScanRecord, Fingerprint] = field(default_factory=dict)
    unreadable: list[Failure] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Number of scans that were asked for."""
        return len(self.todo) + len(self.complete) + len(self.unreadable)


def make_plan(settings: Settings, *, weights: str) -> Plan:
    """Find the scans and sort them; nothing is written (but the pybids index, if one was asked for).

    Parameters
    ----------
    settings
        What was asked for.
    weights
        SHA-256 of the model's weights.

    Raises
    ------
    DatasetError, NoScansError, UsageError
        As `bids.inputs.find_scans`.
    """
    records = find_scans(
        settings.processing.bids_dir,
        participant_labels=settings.participants,
        session_labels=settings.sessions,
        filters=load_filters(settings.filter_file) if settings.filter_file else None,
        database_dir=settings.database_dir,
    )
    plan = Plan()
    for record in records:
        try:
            fingerprint = make_fingerprint(record, settings=settings.processing.effective, weights=weights)
        except ScanError as error:
            plan.unreadable.append(Failure(record.key, str(error)))
            continue
        if not settings.force and is_done(settings.processing, record, fingerprint):
            plan.complete[record] = fingerprint
        else:
            plan.todo[record] = fingerprint
    return plan


def is_done(processing: Processing, record: ScanRecord, fingerprint: Fingerprint) -> bool:
    """Tell whether all derivatives of a scan are there and up to date."""
    return is_complete(processing.output_dir, record, fingerprint, outputs_of(processing, record))


def outputs_of(processing: Processing, record: ScanRecord) -> list[Path]:
    """Return the paths, within the output folder, of all that is written for a scan."""
    return expected_outputs(record, **processing.selection)


def describe(plan: Plan, processing: Processing) -> Iterator[str]:
    """Yield the lines of `--dry-run`."""
    for record in plan.todo:
        yield f"{record.relative_path}: would be processed"
        yield from (f"  {path}" for path in outputs_of(processing, record))
    yield from (f"{record.relative_path}: complete, would be left alone" for record in plan.complete)
    yield from (f"{failure.scan}: would fail: {failure.reason}" for failure in plan.unreadable)
    counts = f"{len(plan.todo)} to do, {len(plan.complete)} complete, {len(plan.unreadable)} unreadable"
    yield f"{plan.total} scan(s): {counts}"
