"""Why a scan failed, read from the crash files that Nipype leaves behind, whatever process or machine it ran on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from unibrain_bids import errors
from unibrain_bids.errors import ExitCode, UnibrainError
from unibrain_bids.workflows.names import split_name

_NODE = re.compile(r"^Node: (\S+)$", re.M)
# The last line of a traceback, "package.module.Class: message"; Nipype indents the traceback of a node by a tab.
_RAISED = re.compile(r"^\t?(?:[\w.]+\.)?(?P<name>\w+(?:Error|Exception|Interrupt|Exit))(?:: (?P<message>.*))?$", re.M)


@dataclass(frozen=True)
class Failure:
    """Why one scan failed.

    Attributes
    ----------
    scan
        Name of the scan (`ScanRecord.key`).
    reason
        One line for the user.
    exit_code
        Of the error's class.
    crash_file
        Nipype's file with the traceback, if there is one.
    """

    scan: str
    reason: str
    exit_code: ExitCode = ExitCode.SCANS_FAILED
    crash_file: Path | None = None


def read_crashes(log_dir: Path) -> Iterator[Failure]:
    """Yield what the crash files in `log_dir` say, oldest first; `scan` is the name of the scan's workflow."""
    for path in sorted(log_dir.glob("crash-*.txt"), key=lambda path: path.stat().st_mtime):
        text = path.read_text(errors="replace")
        node = _NODE.search(text)
        if node:
            reason, code = _reason(text)
            yield Failure(split_name(node[1])[0], reason, code, path)


def common_exit_code(failures: Iterable[Failure]) -> ExitCode:
    """Return the exit code that all failures share, `SCANS_FAILED` if they differ, `SUCCESS` if there is none."""
    codes = {failure.exit_code for failure in failures}
    if not codes:
        return ExitCode.SUCCESS
    return codes.pop() if len(codes) == 1 else ExitCode.SCANS_FAILED


def _reason(text: str) -> tuple[str, ExitCode]:
    """Find the error that was raised at the bottom of the traceback."""
    raised = list(_RAISED.finditer(text))
    if not raised:
        return "unknown; the crash file may tell.", ExitCode.SCANS_FAILED
    name, message = raised[-1]["name"], raised[-1]["message"] or "no message"
    if name.endswith(("MemoryError", "OutOfMemoryError")):
        return f"out of memory ({message}). Use fewer --nprocs or --device cpu.", ExitCode.SCANS_FAILED
    known = getattr(errors, name, None)
    if isinstance(known, type) and issubclass(known, UnibrainError):
        return message, known.exit_code
    return f"unexpected {name}: {message}", ExitCode.SCANS_FAILED
