"""The record of a run, `logs/<run>/run.json`: what was asked for, with which software, and what came of it."""

from __future__ import annotations

import platform
import resource
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from unibrain_bids import __version__
from unibrain_bids.app.failures import Failure
from unibrain_bids.app.plan import Plan
from unibrain_bids.app.settings import Settings
from unibrain_bids.bids.atomic import write_json

_LIBRARIES = ("torch", "numpy", "scipy", "nibabel", "nipype", "pybids", "nilearn")


class RunRecord:
    """Gathers what is worth keeping of a run.

    Attributes
    ----------
    folder
        `logs/<run>` in the output folder, also the place of log and crash files.
    content
        What will be written.
    """

    def __init__(self, settings: Settings) -> None:
        name = f"{time.strftime('%Y%m%d-%H%M%S')}_{uuid.uuid4().hex[:8]}"
        self.folder = settings.processing.output_dir / "logs" / name
        self.content: dict[str, Any] = {
            "Version": __version__,
            "CommandLine": sys.argv,
            "Settings": _plain(asdict(settings)),
            "Python": platform.python_version(),
            "Platform": platform.platform(),
            "Libraries": {name: _version(name) for name in _LIBRARIES},
            "Start": _now(),
        }
        write_json(self.folder / "run.json", self.content)

    def outcome(self, plan: Plan, failures: Sequence[Failure]) -> None:
        """Take note of what became of the scans."""
        failed = {failure.scan for failure in failures}
        self.content["Scans"] = {
            "Done": [record.key for record in plan.todo if record.key not in failed],
            "CompleteBefore": [record.key for record in plan.complete],
            "Failed": {failure.scan: failure.reason for failure in failures},
        }

    def close(self) -> None:
        """Write the record."""
        self.content["End"] = _now()
        self.content["PeakMemoryOfMainProcessMB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        write_json(self.folder / "run.json", self.content)


@contextmanager
def run_record(settings: Settings) -> Iterator[RunRecord]:
    """Start the record of a run, and write it again at the end, however that comes."""
    record = RunRecord(settings)
    try:
        yield record
    finally:
        record.close()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _plain(value: Any) -> Any:
    """Return `value` in JSON types."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
