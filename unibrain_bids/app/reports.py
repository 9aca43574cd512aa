"""What follows the scans: the participants' reports, and which scans deserve a look."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from unibrain_bids.app.engine import choose_plugin, configure
from unibrain_bids.app.failures import Failure, read_crashes
from unibrain_bids.app.plan import Plan
from unibrain_bids.app.settings import Settings
from unibrain_bids.app.workdir import work_folder
from unibrain_bids.bids.derivatives import catalogue, report_path
from unibrain_bids.bids.inputs import ScanRecord
from unibrain_bids.errors import ExitCode

logger = logging.getLogger(__name__)


def make_reports(settings: Settings, plan: Plan, log_dir: Path, check: Callable[[], None]) -> list[Failure]:
    """Write the reports that are due; return those that could not be made, by the participant's `sub-` name.

    Due are all with `--reports-only`; otherwise those of participants one of whose scans was tried, or whose report is
    missing; none with `--no-report`.
    """
    participants = sorted(_due(settings, plan))
    if not participants:
        return []
    os.environ["NO_ET"] = "1"  # or Nipype calls home; it must stand before the import
    from unibrain_bids.workflows.reports import init_reports_wf, report_name

    logger.info("%d report(s) to write", len(participants))
    settings = replace(settings, processing=replace(settings.processing, omp_nthreads=1))
    crash_dir = log_dir / "reports"
    trouble = ""
    with work_folder(settings.work_dir) as work_dir:
        start = {"log_file": log_dir / "unibrain-bids.log", "verbosity": settings.verbosity}
        plugin = choose_plugin(settings, len(participants), status_callback=lambda *_: check(), **start)
        workflow = init_reports_wf(settings.processing, participants, work_dir=work_dir)
        configure(workflow, replace(settings, stop_on_first_crash=False), crash_dir)
        try:
            workflow.run(plugin)
        except Exception as error:  # the first of the nodes' errors; the crash files hold them all
            logger.debug("The reports' workflow ended with an error", exc_info=True)
            trouble = str(error)
    crashes = {crash.scan: crash for crash in read_crashes(crash_dir)}
    failures = [
        replace(crashes[report_name(label)], scan=f"sub-{label}", exit_code=ExitCode.REPORT)
        for label in participants
        if report_name(label) in crashes
    ]
    if trouble and not failures:
        failures = [Failure(f"sub-{participants[0]} and later", trouble, ExitCode.REPORT)]
    return failures


def flagged_scans(settings: Settings, plan: Plan) -> Iterator[tuple[str, list[str]]]:
    """Yield the scans of the plan that are flagged in their quality measures, with the flags."""
    for record in sorted([*plan.todo, *plan.complete], key=lambda record: record.key):
        quality = catalogue(record, tasks=())["quality"].relative
        try:
            flags = json.loads((settings.processing.output_dir / quality).read_text("utf-8")).get("flags")
        except (OSError, ValueError, AttributeError):
            continue
        if flags:
            yield record.key, [str(flag) for flag in flags]


def _due(settings: Settings, plan: Plan) -> set[str]:
    if settings.no_report:
        return set()
    output_dir = settings.processing.output_dir
    asked: Iterable[ScanRecord] = [*plan.todo, *plan.complete]
    if settings.reports_only:
        return {record.subject for record in asked if (output_dir / f"sub-{record.subject}").is_dir()}
    tried = {record.subject for record in plan.todo}
    return tried | {record.subject for record in asked if not (output_dir / report_path(record.subject)).is_file()}
