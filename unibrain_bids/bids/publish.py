"""The outputs of one scan appear together, and a record says that they are complete.

A scan's files are written to a folder of their own inside the output folder (`staging`), then renamed to their places
(`publish`): first the sidecars, then the data, so that no image is ever there without its description, and last the
completion record `logs/complete/<key>.json`. The record is the point at which the outputs count: it is taken away
before the first rename, so a process killed in between leaves a scan that the next run does again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unibrain_bids import __version__
from unibrain_bids.bids.atomic import write_json
from unibrain_bids.bids.inputs import ScanRecord
from unibrain_bids.errors import OutputError, ScanError

__all__ = ["Fingerprint", "is_complete", "make_fingerprint", "publish", "staging"]

_STAGING = ".unibrain-tmp-"
_ABANDONED = 3600  # seconds; writing one scan's outputs takes a few
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Fingerprint:
    """What the outputs of a scan depend on; as long as all three are the same, they need not be made again.

    Attributes
    ----------
    input
        SHA-256 of the scan's file.
    settings
        SHA-256 of the settings that have an effect on the outputs, as canonical JSON.
    weights
        SHA-256 of the model's weights.
    """

    input: str
    settings: str
    weights: str


def make_fingerprint(record: ScanRecord, *, settings: Mapping[str, Any], weights: str) -> Fingerprint:
    """Return the fingerprint of a scan under these settings (JSON types only).

    Raises
    ------
    ScanError
        The scan's file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with record.path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise ScanError(
            f"{record.path}: cannot be read ({error.strerror}).", "If it is a DataLad dataset, get the file's content."
        ) from error
    canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return Fingerprint(digest.hexdigest(), hashlib.sha256(canonical.encode()).hexdigest(), weights)


def is_complete(output_dir: Path, record: ScanRecord, fingerprint: Fingerprint, expected: Iterable[Path]) -> bool:
    """Tell whether the outputs of a scan are there and nothing they depend on has changed.

    Parameters
    ----------
    output_dir
        Root of the derivative dataset.
    record, fingerprint
        The scan, and what its outputs depend on now.
    expected
        Paths within `output_dir` that must exist (`derivatives.expected_outputs`).
    """
    # Another run may be putting the same scan in place, and have taken its record away for that moment.
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # nothing published yet, or a copy without the hidden file
            fcntl.flock(stack.enter_context(_lock_path(output_dir).open()), fcntl.LOCK_SH)
        try:
            done = json.loads(_completion_path(output_dir, record.key).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        same = isinstance(done, dict) and done.get("fingerprint") == asdict(fingerprint)
        return same and all((output_dir / path).is_file() for path in expected)


@contextlib.contextmanager
def staging(output_dir: Path, key: str) -> Iterator[Path]:
    """Yield an empty folder for the files of scan `key`, on the same file system as their places; it is removed after.

    Folders that killed processes have left behind are removed too.

    Raises
    ------
    OutputError
        The folder cannot be made.
    """
    # Process numbers repeat across machines. No folder that all share: one run would remove it under another.
    folder = output_dir / f"{_STAGING}{key}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    _sweep(output_dir)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror}).", "Check permissions and space.") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(files: Mapping[Path, Path], *, output_dir: Path, record: ScanRecord, fingerprint: Fingerprint) -> None:
    """Move all files of one scan to their places and record that they are complete.

    Parameters
    ----------
    files
        Staged file (see `staging`) to path within `output_dir`.
    output_dir, record, fingerprint
        As for `is_complete`.

    Raises
    ------
    OutputError
        A staged file is missing (then nothing is moved), or a file cannot be moved.
    """
    if missing := [str(staged) for staged in files if not staged.is_file()]:
        raise OutputError(f"{record.key}: not written: {', '.join(missing)}.", "Nothing of this scan was published.")
    completion = _completion_path(output_dir, record.key)
    order = sorted(files.items(), key=lambda pair: (pair[1].suffix != ".json", pair[1]))
    content = {
        "scan": record.relative_path,
        "version": __version__,
        "fingerprint": asdict(fingerprint),
        "files": sorted(place.as_posix() for place in files.values()),
    }
    try:
        with _alone(output_dir):
            completion.unlink(missing_ok=True)
            for staged, place in order:
                (output_dir / place).parent.mkdir(parents=True, exist_ok=True)
                os.replace(staged, output_dir / place)
            write_json(completion, content)
    except OSError as error:
        raise OutputError(
            f"{output_dir}: the outputs of {record.key} cannot be put in place ({error}).",
            "Check permissions and space, then run again: the scan counts as not done.",
        ) from error


@contextlib.contextmanager
def _alone(output_dir: Path) -> Iterator[None]:
    """Let one process at a time publish, so that two with different settings never mix the files of a scan.

    The lock goes with the process that holds it, however that ends. File systems that know no locks do without.
    """
    _lock_path(output_dir).parent.mkdir(parents=True, exist_ok=True)
    with _lock_path(output_dir).open("a") as lock:
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _lock_path(output_dir: Path) -> Path:
    return output_dir / "logs" / "complete" / ".lock"


def _completion_path(output_dir: Path, key: str) -> Path:
    return output_dir / "logs" / "complete" / f"{key}.json"


def _sweep(output_dir: Path) -> None:
    """Remove what killed processes have left behind; only age tells, since the owner may live on another machine."""
    for folder in output_dir.glob(f"{_STAGING}*"):
        with contextlib.suppress(OSError):  # its owner has just removed it
            if time.time() - folder.stat().st_mtime > _ABANDONED:
                shutil.rmtree(folder, ignore_errors=True)
