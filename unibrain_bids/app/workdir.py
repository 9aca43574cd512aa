"""The folder for intermediate files: one for each run, so that runs never meet there."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unibrain_bids.errors import OutputError

PREFIX = "unibrain-"

logger = logging.getLogger(__name__)


@contextmanager
def work_folder(parent: Path | None, *, clean: bool = False) -> Iterator[Path]:
    """Yield a new folder, below `parent` or among the temporary files; it is removed at the end.

    Parameters
    ----------
    parent
        `--work-dir`, made if it is missing; or None.
    clean
        First remove the folders that killed runs have left in `parent`.

    Raises
    ------
    OutputError
        The folder cannot be made.
    """
    try:
        if parent is not None:
            parent.mkdir(parents=True, exist_ok=True)
        if clean and parent is not None:
            _clean(parent)
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    except OSError as error:
        where = parent or tempfile.gettempdir()
        raise OutputError(f"{where}: cannot be written ({error.strerror}).", "Choose another --work-dir.") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _clean(parent: Path) -> None:
    for folder in parent.glob(f"{PREFIX}*"):
        if folder.is_dir() and not folder.is_symlink():
            logger.info("%s: left by an earlier run, removed", folder)
            shutil.rmtree(folder, ignore_errors=True)
