"""Errors a user can act on, and the exit codes of the command line.

Every error names the file or option it is about and the remedy. Code raises the narrowest class; `app` turns it into
one message and into the exit code that its class carries.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of `unibrain-bids` (published in README and boutiques.json)."""

    SUCCESS = 0
    INTERNAL = 1
    USAGE = 2
    NOT_BIDS = 3
    NO_SCANS = 4
    SCANS_FAILED = 5
    OUTPUT = 6
    DEVICE = 7
    RESOURCE = 8
    WORKER_KILLED = 9
    INTERRUPTED = 130


class UnibrainError(Exception):
    """Base of all errors that are explained to the user.

    Parameters
    ----------
    message
        What is wrong, naming the file or option.
    remedy
        What the user can do about it; may be empty.
    """

    exit_code: ExitCode = ExitCode.INTERNAL

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class UsageError(UnibrainError):
    """The options contradict each other or name something that does not exist."""

    exit_code = ExitCode.USAGE


class DatasetError(UnibrainError):
    """The input folder is not a BIDS dataset."""

    exit_code = ExitCode.NOT_BIDS


class NoScansError(UnibrainError):
    """The dataset holds no scan that was asked for."""

    exit_code = ExitCode.NO_SCANS


class ScanError(UnibrainError):
    """One scan cannot be read or processed; the others go on."""

    exit_code = ExitCode.SCANS_FAILED


class OutputError(UnibrainError):
    """The output or work folder cannot be used (place, permission, space)."""

    exit_code = ExitCode.OUTPUT


class DeviceError(UnibrainError):
    """The compute device does not exist or failed."""

    exit_code = ExitCode.DEVICE


class ResourceError(UnibrainError):
    """Weights, template or atlas are missing or damaged."""

    exit_code = ExitCode.RESOURCE


class WorkerKilledError(UnibrainError):
    """A worker process was killed from outside (commonly: out of memory)."""

    exit_code = ExitCode.WORKER_KILLED
