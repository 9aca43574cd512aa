"""Gzip through isal, which is several times faster, where it is installed; else through the standard library."""

from __future__ import annotations

import gzip
import zlib
from typing import Any, BinaryIO

try:
    from isal import igzip, isal_zlib
except ImportError:
    _DAMAGE: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error)
    _Writer: Any = gzip.GzipFile
    _decompress = gzip.decompress
else:
    _DAMAGE = (OSError, EOFError, zlib.error, isal_zlib.error)  # type: ignore[assignment]  # isal's stub is wrong
    _Writer = igzip.IGzipFile
    _decompress = igzip.decompress

__all__ = ["decompressed", "gzip_writer", "is_gzip"]

_MAGIC = b"\x1f\x8b"
_LEVEL = 2


def is_gzip(content: bytes) -> bool:
    """Tell by its first bytes whether a file's content is gzipped."""
    return content.startswith(_MAGIC)


def decompressed(content: bytes) -> bytes:
    """Return the content of a gzip file, checked by its CRC.

    Raises
    ------
    ValueError
        The content is truncated or damaged.
    """
    try:
        return bytes(_decompress(content))
    except _DAMAGE as error:
        raise ValueError(str(error)) from error


def gzip_writer(stream: BinaryIO) -> Any:
    """Return a compressing stream, to be used as a context manager, whose gzip header names neither file nor time."""
    return _Writer(filename="", mode="wb", compresslevel=_LEVEL, fileobj=stream, mtime=0)
