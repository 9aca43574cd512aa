"""Allocator settings for large arrays and tensors on the CPU."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["keep_freed_memory", "reused_memory"]

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks: handing each large array back to the kernel costs page faults again and again.

    Does nothing where the C library has no `mallopt`.
    """
    mallopt = _glibc("mallopt")
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 2**31 - 1)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_TOP_PAD, 2**30)


@contextmanager
def reused_memory() -> Iterator[None]:
    """Keep freed memory within the block, and give it back at its end: other processes may need it."""
    keep_freed_memory()
    try:
        yield
    finally:
        trim = _glibc("malloc_trim")
        if trim is not None:
            trim(0)


def _glibc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
