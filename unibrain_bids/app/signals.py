"""Interruptions: what ends a run early without spoiling it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn


@contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
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
