"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from unibrain_bids.errors import OutputError

__all__ = ["atomic_write"]


@contextmanager
def atomic_write(path: Path | str) -> Iterator[BinaryIO]:
    """Open a binary stream whose content becomes `path` when the block ends well, and leaves no trace otherwise.

    Missing parent folders are made. The new file has the permissions that the user's umask gives.

    Raises
    ------
    OutputError
        The folder cannot be written to or is full.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("xb") as stream:
            yield stream
        os.replace(aside, path)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error}).", "Check the folder's permissions and free space."
        ) from error
    finally:
        with suppress(OSError):
            aside.unlink()
