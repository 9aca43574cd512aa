"""Why a scan failed, read from the crash files that Nipype leaves behind, whatever process or machine it ran on."""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from unibrain_bids import errors
from unibrain_bids.errors import ExitCode, UnibrainError
from unibrain_bids.workflows.names import split_name

INTERRUPTED = "interrupted before it was done."

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
    """Return the exit code that all failures share, `SCANS_FAILED` if they differ, `SUCCESS` if there is none.

    An interruption counts more than what failed before it.
    """
    codes = {failure.exit_code for failure in failures}
    if not codes:
        return ExitCode.SUCCESS
    if ExitCode.INTERRUPTED in codes:
        return ExitCode.INTERRUPTED
    return codes.pop() if len(codes) == 1 else ExitCode.SCANS_FAILED


def _reason(text: str) -> tuple[str, ExitCode]:
    """Find the error that was raised at the bottom of the traceback."""
    raised = list(_RAISED.finditer(text))
    if not raised:
        return "unknown; the crash file may tell.", ExitCode.SCANS_FAILED
    return explain(raised[-1]["name"], raised[-1]["message"] or "no message")


def explain(name: str, message: str) -> tuple[str, ExitCode]:
    """Return, for an error of the class called `name`, the reason to show and the exit code."""
    known = getattr(errors, name, None)
    if isinstance(known, type) and issubclass(known, UnibrainError):
        return message, known.exit_code
    if name == "KeyboardInterrupt":
        return INTERRUPTED, ExitCode.INTERRUPTED
    if "CUDA" in message and name in ("OutOfMemoryError", "AcceleratorError", "RuntimeError"):
        return f"the GPU failed ({message}). Use fewer --nprocs, another --device, or --device cpu.", ExitCode.DEVICE
    if name.endswith("MemoryError") or "can't allocate memory" in message:
        return f"out of memory ({message}). Use fewer --nprocs or --low-mem.", ExitCode.WORKER_KILLED
    # Reading of scans and resources has errors of its own: what is left are files of the output and work folders.
    if isinstance(kind := getattr(builtins, name, None), type) and issubclass(kind, OSError) and "[Errno" in message:
        remedy = "Check that the output and work folders are there, writable and not full."
        return f"a file could not be read or written ({message}). {remedy}", ExitCode.OUTPUT
    return f"unexpected {name}: {message}", ExitCode.SCANS_FAILED
