"""What the user sees while scans are processed: plain lines, and on a terminal a live line below them."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any, TextIO

from unibrain_bids.workflows.names import LAST_NODE, split_name

logger = logging.getLogger(__name__)


class Progress:
    """Follows Nipype's nodes (as its `status_callback`) and reports by scans.

    Parameters
    ----------
    total
        Number of scans.
    stream
        Where the live line goes, if it is a terminal.

    Attributes
    ----------
    seconds
        How long each scan has taken that has ended, well or not.
    """

    def __init__(self, total: int, *, stream: TextIO | None = None) -> None:
        self.total = total
        self.seconds: dict[str, float] = {}
        self._stream = stream or sys.stderr
        self._begun = time.monotonic()
        self._started: dict[str, float] = {}
        self._running: set[str] = set()
        self._failed: set[str] = set()

    def __call__(self, node: Any, status: str) -> str | None:
        """Take note that `node` has reached `status` ("start", "end" or "exception"); return the scan if it is done."""
        done = None
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
                done = scan
        self._draw()
        return done

    def close(self) -> None:
        """Take the live line away."""
        if self._stream.isatty():
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _end(self, scan: str, outcome: str) -> None:
        if scan not in self.seconds:
            self.seconds[scan] = time.monotonic() - self._started[scan]
            logger.info("[%d/%d] %s: %s (%.1f s)", len(self.seconds), self.total, scan, outcome, self.seconds[scan])

    def _draw(self) -> None:
        if not self._stream.isatty():
            return
        steps = [" ".join(split_name(name)) for name in sorted(self._running)]
        failed = f", {len(self._failed)} failed" if self._failed else ""
        line = f"{len(self.seconds)}/{self.total} scans{failed}{self._remaining()} | {', '.join(steps)}"
        self._stream.write(f"\r\x1b[K{line[:118]}")
        self._stream.flush()

    def _remaining(self) -> str:
        """Say how long the rest will take, at the pace so far."""
        if not self.seconds or len(self.seconds) == self.total:
            return ""
        seconds = (time.monotonic() - self._begun) / len(self.seconds) * (self.total - len(self.seconds))
        minutes, seconds = divmod(round(seconds), 60)
        return f", about {minutes}:{seconds:02d} left"
