"""One run: plan, execute the workflow, and say what became of every scan."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from unibrain_bids.app.engine import batches, choose_plugin, configure, share_threads
from unibrain_bids.app.failures import Failure, common_exit_code, read_crashes
from unibrain_bids.app.plan import Plan, describe, is_done, make_plan
from unibrain_bids.app.progress import Progress
from unibrain_bids.app.record import run_record
from unibrain_bids.app.settings import Settings
from unibrain_bids.app.validation import validate
from unibrain_bids.bids.dataset import check_output_dir, container_from_environment, write_dataset_files
from unibrain_bids.bids.inputs import check_dataset
from unibrain_bids.errors import ExitCode, OutputError
from unibrain_bids.workflows.logs import start_logging
from unibrain_bids.workflows.names import ROOT, scan_name, workflow_name

logger = logging.getLogger(__name__)


def run(settings: Settings) -> ExitCode:
    """Process the scans that `settings` ask for.

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
    plan = make_plan(settings, weights=weights)
    if settings.dry_run:
        print("\n".join(describe(plan, processing)))
        return ExitCode.SUCCESS
    container = container_from_environment(os.environ)
    write_dataset_files(processing.output_dir, processing.bids_dir, container=container)
    with run_record(settings) as record:
        start_logging(record.folder / "unibrain-bids.log", settings.verbosity)
        if not settings.skip_validation:
            validate(processing.bids_dir, record.folder)
        failures = [*plan.unreadable, *_execute(settings, plan, record.folder)]
        _report(plan, failures)
        record.outcome(plan, failures)
    return common_exit_code(failures)


def _check_machine(settings: Settings) -> tuple[Settings, str]:
    """Return the settings with the device that this machine has, and the SHA-256 of the weights.

    With a plugin of the user's, the device is a matter of the machines that it uses.
    """
    from unibrain_bids.inference import resolve_device, resource

    digest = hashlib.sha256(resource("weights/unified.safetensors").read_bytes()).hexdigest()
    if settings.plugin_file is None:
        device = str(resolve_device(settings.processing.device))
        settings = replace(settings, processing=replace(settings.processing, device=device))
    return settings, digest


def _execute(settings: Settings, plan: Plan, log_dir: Path) -> list[Failure]:
    """Run the workflow of all scans in the plan; return those that did not get done."""
    if not plan.todo:
        return []
    os.environ["NO_ET"] = "1"  # or Nipype calls home; it must stand before the import
    from unibrain_bids.workflows.participant import init_participant_wf

    settings = share_threads(settings, len(plan.todo))
    trouble = "it was not started"
    with _work_dir(settings.work_dir) as work_dir, _interruptible() as check:
        done = {scan_name(record): work_dir / ROOT / workflow_name(record) for record in plan.todo}
        progress = Progress(len(plan.todo), on_done=lambda name: shutil.rmtree(done[name], ignore_errors=True))

        def follow(node: Any, status: str) -> None:
            check()
            progress(node, status)

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
                    trouble = f"the workflow ended early ({error})"
                    if settings.stop_on_first_crash:
                        break
        finally:
            progress.close()
    return list(_failures(settings, plan, log_dir, otherwise=trouble))


def _failures(settings: Settings, plan: Plan, log_dir: Path, *, otherwise: str) -> Iterator[Failure]:
    """Yield a failure for each scan whose derivatives are not there, whatever its nodes have said."""
    crashes = {crash.scan: crash for crash in reversed(list(read_crashes(log_dir)))}
    for record, fingerprint in plan.todo.items():
        if not is_done(settings.processing, record, fingerprint):
            crash = crashes.get(scan_name(record), Failure(record.key, otherwise))
            yield replace(crash, scan=record.key)


def _report(plan: Plan, failures: Sequence[Failure]) -> None:
    """Say at last which scans failed and why."""
    done = plan.total - len(plan.complete) - len(failures)
    before = f", {len(plan.complete)} complete before" if plan.complete else ""
    logger.info("%d scan(s): %d done%s, %d failed", plan.total, done, before, len(failures))
    for failure in failures:
        details = f" (details: {failure.crash_file})" if failure.crash_file else ""
        logger.error("FAILED %s: %s%s", failure.scan, failure.reason, details)


@contextmanager
def _work_dir(chosen: Path | None) -> Iterator[Path]:
    """Yield the folder for intermediate files: the chosen one, which is kept, or a temporary one."""
    try:
        if chosen is not None:
            chosen.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="unibrain-", dir=chosen))
    except OSError as error:
        where = chosen or tempfile.gettempdir()
        raise OutputError(f"{where}: cannot be written ({error.strerror}).", "Choose another --work-dir.") from error
    try:
        yield chosen or folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _interruptible() -> Iterator[Callable[[], None]]:
    """Let SIGTERM, with which schedulers and containers end a program, interrupt as Ctrl-C does.

    Yields a function that raises `KeyboardInterrupt` again once it has been raised: within a node, Nipype takes it for
    the node's own failure and would go on with the next one.
    """
    received = []

    def interrupt(number: int, _: object) -> NoReturn:
        received.append(number)
        raise KeyboardInterrupt

    def check() -> None:
        if received:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
