"""What the user sees while scans are processed: plain lines, and on a terminal a live line below them."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from unibrain_bids.workflows.names import LAST_NODE, split_name

logger = logging.getLogger(__name__)


class Progress:
    """Follows Nipype's nodes (as its `status_callback`) and reports by scans.

    Parameters
    ----------
    total
        Number of scans.
    on_done
        Called with the workflow's name of each scan that is done.
    stream
        Where the live line goes, if it is a terminal.
    """

    def __init__(self, total: int, *, on_done: Callable[[str], None], stream: TextIO | None = None) -> None:
        self.total = total
        self._on_done = on_done
        self._stream = stream or sys.stderr
        self._begun = time.monotonic()
        self._started: dict[str, float] = {}
        self._running: set[str] = set()
        self._ended: set[str] = set()
        self._failed: set[str] = set()

    def __call__(self, node: Any, status: str) -> None:
        """Take note that `node` has reached `status` ("start", "end" or "exception")."""
        scan, step = split_name(node.fullname)
        if status == "start":
            self._started.setdefault(scan, time.monotonic())
            self._running.add(node.fullname)
        elif node.fullname in self._running:  # Linear also reports the end of nodes that it never started
            self._running.discard(node.fullname)
            if status == "exception":
                self._failed.add(scan)
                self._end(scan, f"failed at {step}")
            elif step == LAST_NODE:
                self._end(scan, "done")
                self._on_done(scan)
        self._draw()

    def close(self) -> None:
        """Take the live line away."""
        if self._stream.isatty():
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _end(self, scan: str, outcome: str) -> None:
        if scan not in self._ended:
            self._ended.add(scan)
            seconds = time.monotonic() - self._started[scan]
            logger.info("[%d/%d] %s: %s (%.1f s)", len(self._ended), self.total, scan, outcome, seconds)

    def _draw(self) -> None:
        if not self._stream.isatty():
            return
        steps = [" ".join(split_name(name)) for name in sorted(self._running)]
        failed = f", {len(self._failed)} failed" if self._failed else ""
        line = f"{len(self._ended)}/{self.total} scans{failed}{self._remaining()} | {', '.join(steps)}"
        self._stream.write(f"\r\x1b[K{line[:118]}")
        self._stream.flush()

    def _remaining(self) -> str:
        """Say how long the rest will take, at the pace so far."""
        if not self._ended or len(self._ended) == self.total:
            return ""
        seconds = (time.monotonic() - self._begun) / len(self._ended) * (self.total - len(self._ended))
        minutes, seconds = divmod(round(seconds), 60)
        return f", about {minutes}:{seconds:02d} left"
