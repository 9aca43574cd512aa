"""What the runs before have written down about the scans of a participant: `logs/*/run.json`, `logs/complete`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unibrain_bids.reports.files import read_json

__all__ = ["History", "completion", "flattened", "read_history"]

Run = dict[str, Any]


@dataclass(frozen=True)
class History:
    """The last word about each scan.

    Attributes
    ----------
    made_by
        Scan to the run that made its derivatives last.
    failed
        Scan to the reason why it failed in the last run that tried it.
    """

    made_by: dict[str, Run]
    failed: dict[str, str]


def read_history(output_dir: Path, participant: str) -> History:
    """Read what became of the scans of a participant (label without `sub-`), run by run in the order of their start."""
    history = History({}, {})
    runs = [read_json(path) for path in output_dir.glob("logs/*/run.json")]
    for run in sorted(runs, key=lambda run: str(run.get("Start"))):
        outcome = run.get("Scans")
        if not isinstance(outcome, dict):
            continue
        for scan in (*outcome.get("Done", ()), *outcome.get("CompleteBefore", ())):
            history.failed.pop(scan, None)
        for scan in outcome.get("Done", ()):
            if _belongs(scan, participant):
                history.made_by[scan] = run
        for scan, reason in outcome.get("Failed", {}).items():
            if _belongs(scan, participant):
                history.failed[scan] = str(reason)
    return history


def completion(output_dir: Path, scan: str) -> dict[str, Any]:
    """Return the record that the derivatives of a scan are complete; empty if there is none."""
    return read_json(output_dir / "logs" / "complete" / f"{scan}.json")


def flattened(content: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested JSON content as names with dots, and values as text; what is empty is left out."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from flattened(value, f"{name}.{key}" if name else str(key))
    elif isinstance(content, list):
        if content:
            yield name, " ".join(str(item) for item in content)
    elif content is not None:
        yield name, str(content)


def _belongs(scan: str, participant: str) -> bool:
    return scan == f"sub-{participant}" or scan.startswith(f"sub-{participant}_")
