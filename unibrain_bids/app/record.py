"""The record of a run, `logs/<run>/`: what was asked for, with which software, and what came of it.

`run.json` holds it all; `config.yml` holds the options alone, as `--config-file` takes them.
"""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from unibrain_bids.app.failures import Failure
from unibrain_bids.app.monitor import ResourceMonitor
from unibrain_bids.app.plan import Plan
from unibrain_bids.app.provenance import device, environment
from unibrain_bids.app.settings import Settings
from unibrain_bids.bids.atomic import write_json, write_text, write_tsv


class RunRecord:
    """Gathers what is worth keeping of a run.

    Attributes
    ----------
    folder
        `logs/<run>` in the output folder, also the place of log and crash files.
    content
        What will be written.
    """

    def __init__(self, settings: Settings, *, weights: str) -> None:
        import yaml

        name = f"{time.strftime('%Y%m%d-%H%M%S')}_{uuid.uuid4().hex[:8]}"
        self.folder = settings.processing.output_dir / "logs" / name
        self.content: dict[str, Any] = {
            **environment(),
            "CommandLine": sys.argv,
            "Settings": _plain(asdict(settings)),
            "Device": device(settings.processing.device),
            "WeightsSHA256": weights,
            "Start": _now(),
        }
        write_json(self.folder / "run.json", self.content)
        write_text(self.folder / "config.yml", yaml.safe_dump(_plain(settings.config), sort_keys=False))

    def inputs(self, plan: Plan) -> None:
        """Take note of the files that are read, with their SHA-256."""
        scans = plan.todo | plan.complete
        self.content["Inputs"] = {record.relative_path: mark.input for record, mark in scans.items()}

    def outcome(self, plan: Plan, failures: Sequence[Failure], seconds: Mapping[str, float]) -> None:
        """Take note of what became of the scans, and how long each of them took (by `ScanRecord.key`)."""
        failed = {failure.scan for failure in failures}
        self.content["Scans"] = {
            "Done": [record.key for record in plan.todo if record.key not in failed],
            "CompleteBefore": [record.key for record in plan.complete],
            "Failed": {failure.scan: failure.reason for failure in failures},
        }
        self.content["Seconds"] = {scan: round(taken, 1) for scan, taken in seconds.items()}
        write_json(self.folder / "run.json", self.content)  # the reports read it

    def close(self, samples: Sequence[Mapping[str, float]]) -> None:
        """Write the record, with the memory and CPU of the run."""
        self.content["End"] = _now()
        self.content["PeakMemoryMB"] = max(sample["memory_mb"] for sample in samples)
        self.content["CPUSeconds"] = max(sample["cpu_seconds"] for sample in samples)
        write_json(self.folder / "run.json", self.content)


@contextmanager
def run_record(settings: Settings, *, weights: str) -> Iterator[RunRecord]:
    """Start the record of a run, and write it again at the end, however that comes."""
    record = RunRecord(settings, weights=weights)
    monitor = ResourceMonitor()
    monitor.start()
    try:
        yield record
    except BaseException as error:
        record.content["Error"] = f"{type(error).__name__}: {error}"
        raise
    finally:
        monitor.close()
        record.close(monitor.samples)
        if settings.resource_monitor:
            write_tsv(record.folder / "resources.tsv", monitor.samples)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _plain(value: Any) -> Any:
    """Return `value` in JSON types."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, type(None))) else str(value)
