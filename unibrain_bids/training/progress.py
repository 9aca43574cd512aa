"""A live line on a terminal while a network trains; elsewhere the log's lines have to do."""

from __future__ import annotations

import sys
import time
from typing import TextIO


class LiveLine:
    """Step, loss, pace, and how long it will still take.

    Parameters
    ----------
    title
        What is trained.
    stream
        A terminal, or nothing is shown (None: standard error).
    """

    def __init__(self, title: str, *, stream: TextIO | None = None) -> None:
        self.title, self._stream = title, stream or sys.stderr
        self._begun, self._first = time.monotonic(), -1

    def show(self, step: int, last: int | None, loss: float, budget: float) -> None:
        """Draw the line anew.

        Parameters
        ----------
        step, last
            Steps done, and of the whole run; None if time alone ends it.
        loss
            Of the last step.
        budget
            Seconds that the call may take in all.
        """
        if self._first < 0:
            self._first = step - 1
        if not self._stream.isatty():
            return
        spent = time.monotonic() - self._begun
        pace = spent / (step - self._first)
        left = budget - spent if last is None else min(budget - spent, pace * (last - step))
        minutes, seconds = divmod(round(max(left, 0)), 60)
        of = "" if last is None else f"/{last}"
        text = (
            f"{self.title}: step {step}{of}, loss {loss:.3f}, {pace:.2f} s a step, about {minutes}:{seconds:02d} left"
        )
        self._stream.write(f"\r\x1b[K{text[:118]}")
        self._stream.flush()

    def clear(self) -> None:
        """Take the line away, so that others can be printed."""
        if self._stream.isatty():
            self._stream.write("\r\x1b[K")
            self._stream.flush()
