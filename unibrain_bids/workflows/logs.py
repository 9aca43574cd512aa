"""Where messages go: a few to the terminal, all to the file of the run. Set up alike in every process."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

_CLEAR = "\r\x1b[K"  # back to the start of the line, and clear it: a progress line may stand there


def start_logging(log_file: Path | None = None, verbosity: int = 0) -> None:
    """Send log messages to stderr and, if given, to `log_file` (appended to, by several processes).

    Parameters
    ----------
    log_file
        Gets everything from INFO on (DEBUG with `verbosity` 2).
    verbosity
        0: the terminal gets our own messages only; 1: also those of libraries; 2: debugging too.
    """
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # a full disk is told of by the run, not by a traceback for each line of the log
    # Nipype adds a handler of its own, to stdout, unless its logger has one when it is imported.
    nipype_logger = logging.getLogger("nipype")
    nipype_logger.handlers = [logging.NullHandler()]
    root = logging.getLogger()
    root.setLevel(logging.DEBUG if verbosity > 1 else logging.INFO)
    root.handlers = [_terminal(verbosity)]
    if log_file is not None:
        handler = logging.FileHandler(log_file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"))
        root.addHandler(handler)


def _terminal(verbosity: int) -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    prefix = _CLEAR if sys.stderr.isatty() else ""
    handler.setFormatter(logging.Formatter(f"{prefix}%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    if verbosity == 0:
        handler.addFilter(lambda record: record.name.startswith("unibrain_bids"))
    return handler
