"""One run: plan, execute the workflow, and say what became of every scan."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unibrain_bids import __version__
from unibrain_bids.app.engine import batches, choose_plugin, configure, share_threads
from unibrain_bids.app.failures import INTERRUPTED, Failure, common_exit_code, explain, read_crashes
from unibrain_bids.app.plan import Plan, describe, is_done, make_plan
from unibrain_bids.app.progress import Progress
from unibrain_bids.app.record import RunRecord, run_record
from unibrain_bids.app.reports import flagged_scans, make_reports
from unibrain_bids.app.settings import Settings
from unibrain_bids.app.validation import validate
from unibrain_bids.app.workdir import work_folder
from unibrain_bids.bids.boilerplate import methods_text, write_citation
from unibrain_bids.bids.dataset import check_output_dir, container_from_environment, write_dataset_files
from unibrain_bids.bids.derivatives import DEFAULT_ATLAS
from unibrain_bids.bids.inputs import check_dataset
from unibrain_bids.errors import ExitCode
from unibrain_bids.workflows.logs import start_logging
from unibrain_bids.workflows.names import ROOT, SHARED, scan_name, workflow_name
from unibrain_bids.workflows.processing import DEFAULT_MODEL, Processing

logger = logging.getLogger(__name__)

_STOPPED = "not done: the run stopped at another scan's failure (--stop-on-first-crash)."


def run(settings: Settings, check: Callable[[], None]) -> ExitCode:
    """Process the scans that `settings` ask for.

    Parameters
    ----------
    settings
        What was asked for.
    check
        Raises `KeyboardInterrupt` once the run has been interrupted (`signals.interruptible`).

    Raises
    ------
    UnibrainError
        Nothing can be processed: dataset, options, folders, device or weights are not what they should be.
    """
    start_logging(verbosity=settings.verbosity)
    processing = settings.processing
    check_dataset(processing.bids_dir)
    check_output_dir(processing.output_dir, processing.bids_dir)
    settings, weights = _check_machine(settings)
    for head in processing.heads:
        head.check(weights=weights, atlas=DEFAULT_ATLAS)
    if settings.boilerplate_only:
        print(write_citation(processing.output_dir, _methods(settings, weights)))
        return ExitCode.SUCCESS
    plan = make_plan(settings, weights=weights)
    settings = share_threads(settings, len(plan.todo))
    if settings.dry_run:
        print("\n".join(describe(plan, processing)))
        return ExitCode.SUCCESS
    _describe_dataset(processing)
    write_citation(processing.output_dir, _methods(settings, weights))
    with run_record(settings, weights=weights) as record:
        record.inputs(plan)
        start_logging(record.folder / "unibrain-bids.log", settings.verbosity)
        if not settings.skip_validation:
            validate(processing.bids_dir, record.folder)
        failures = [] if settings.reports_only else _process(settings, plan, record, check)
        code = common_exit_code(failures)
        broken = [] if code == ExitCode.INTERRUPTED else make_reports(settings, plan, record.folder, check)
        _report(settings, plan, failures, broken)
        code = code or common_exit_code(broken)
        record.content["ExitCode"] = int(code)
    return code


def _describe_dataset(processing: Processing) -> None:
    sources = processing.atlas_sources
    write_dataset_files(
        processing.output_dir,
        processing.bids_dir,
        atlases={source.name: source.description for source in sources},
        tables=[source.table for source in sources],
        heads={head.label: f"Predictions of the head '{head.label}'. {head.card['Use']}" for head in processing.heads},
        container=container_from_environment(os.environ),
    )


def _methods(settings: Settings, weights: str) -> str:
    processing = settings.processing
    return methods_text(
        tasks=processing.tasks,
        templates=[space.label for space in processing.spaces],
        atlases=processing.atlases,
        smoothness=processing.smoothness,
        weights=weights,
        model=processing.model,
        nonlinear=processing.nonlinear,
    )


def _check_machine(settings: Settings) -> tuple[Settings, str]:
    """Return the settings with the device that this machine has and the model's weights, and their SHA-256.

    With a plugin of the user's, the device is a matter of the machines that it uses.
    """
    from unibrain_bids.inference import resolve_device, shipped_weights, weights_digest

    processing = settings.processing
    digest = weights_digest(processing.weights, model=processing.model)
    if processing.weights is None and processing.model != DEFAULT_MODEL:
        settings = replace(settings, processing=replace(processing, weights=shipped_weights(processing.model)))
    if settings.plugin_file is None:
        device = str(resolve_device(settings.processing.device))
        settings = replace(settings, processing=replace(settings.processing, device=device))
    return settings, digest


def _process(settings: Settings, plan: Plan, record: RunRecord, check: Callable[[], None]) -> list[Failure]:
    """Process what is to do, and record what became of it; return the scans that did not get done."""
    _announce(settings, plan, record.folder)
    progress = Progress(len(plan.todo))
    failures = [*plan.unreadable, *_execute(settings, plan, record.folder, progress, check)]
    taken = {scan.key: progress.seconds.get(scan_name(scan)) for scan in plan.todo}
    record.outcome(plan, failures, {scan: seconds for scan, seconds in taken.items() if seconds is not None})
    return failures


def _execute(
    settings: Settings, plan: Plan, log_dir: Path, progress: Progress, check: Callable[[], None]
) -> list[Failure]:
    """Run the workflow of all scans in the plan; return those that did not get done."""
    if not plan.todo:
        return []
    os.environ["NO_ET"] = "1"  # or Nipype calls home; it must stand before the import
    from unibrain_bids.workflows.participant import init_participant_wf

    trouble = ("it was not started", ExitCode.SCANS_FAILED)
    with work_folder(settings.work_dir, clean=settings.clean_workdir) as work_dir:
        folders = {scan_name(record): work_dir / ROOT / workflow_name(record) for record in plan.todo}

        def follow(node: Any, status: str) -> None:
            check()
            if done := progress(node, status):
                shutil.rmtree(folders[done], ignore_errors=True)

        start = {"log_file": log_dir / "unibrain-bids.log", "verbosity": settings.verbosity}
        plugin = choose_plugin(settings, len(plan.todo), status_callback=follow, **start)
        try:
            for scans in batches(plan.todo, plugin):
                workflow = init_participant_wf(settings.processing, scans, work_dir=work_dir)
                configure(workflow, settings, log_dir)
                try:
                    workflow.run(plugin)
                except Exception as error:  # the first of the nodes' errors; the crash files hold them all
                    logger.debug("The workflow ended with an error", exc_info=True)
                    trouble = explain(type(error).__name__, str(error))
                    if settings.stop_on_first_crash:
                        trouble = (_STOPPED, ExitCode.SCANS_FAILED) if any(read_crashes(log_dir)) else trouble
                        break
        except KeyboardInterrupt:
            trouble = (INTERRUPTED, ExitCode.INTERRUPTED)
        finally:
            progress.close()
    return list(_failures(settings, plan, log_dir, otherwise=trouble))


def _failures(settings: Settings, plan: Plan, log_dir: Path, *, otherwise: tuple[str, ExitCode]) -> Iterator[Failure]:
    """Yield a failure for each scan whose derivatives are not there, whatever its nodes have said."""
    crashes = {crash.scan: crash for crash in reversed(list(read_crashes(log_dir)))}
    for record, fingerprint in plan.todo.items():
        if not is_done(settings.processing, record, fingerprint):
            crash = crashes.get(scan_name(record)) or crashes.get(SHARED) or Failure(record.key, *otherwise)
            yield replace(crash, scan=record.key)


def _announce(settings: Settings, plan: Plan, log_dir: Path) -> None:
    """Say at first what will be done, with what, and where it is written down."""
    processing = settings.processing
    logger.info(
        "unibrain-bids %s: %d scan(s) to process, %d complete; device %s, %d CPU(s), %d for each scan; log in %s",
        __version__, len(plan.todo), len(plan.complete), processing.device, settings.nprocs, processing.omp_nthreads,
        log_dir,
    )  # fmt: skip


def _report(settings: Settings, plan: Plan, failures: Sequence[Failure], broken: Sequence[Failure]) -> None:
    """Say at last which scans are flagged, which failed, which reports could not be made, and why."""
    for scan, flags in flagged_scans(settings, plan):
        logger.warning("FLAGGED %s: %s", scan, " ".join(flags))
    for failure in broken:
        logger.error("NO REPORT %s: %s (details: %s)", failure.scan, failure.reason, failure.crash_file)
    if settings.reports_only:
        return
    done = plan.total - len(plan.complete) - len(failures)
    before = f", {len(plan.complete)} complete before" if plan.complete else ""
    place = settings.processing.output_dir
    logger.info("%d scan(s): %d done%s, %d failed; results in %s", plan.total, done, before, len(failures), place)
    if interrupted := [failure for failure in failures if failure.exit_code == ExitCode.INTERRUPTED]:
        logger.error("INTERRUPTED: %d scan(s) were not done; run again to go on.", len(interrupted))
    for failure in (failure for failure in failures if failure.exit_code != ExitCode.INTERRUPTED):
        details = f" (details: {failure.crash_file})" if failure.crash_file else ""
        logger.error("FAILED %s: %s%s", failure.scan, failure.reason, details)
