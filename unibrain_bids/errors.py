"""Errors a user can act on, and the exit codes of the command line.

Every error names the file or option it is about and the remedy. Code raises the narrowest class; `app` turns it into
one message and into the exit code that its class carries.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of `unibrain-bids`: the one table behind `--help`, the README and boutiques.json.

    Attributes
    ----------
    meaning
        What the code says, for the user.
    """

    meaning: str

    def __new__(cls, value: int, meaning: str) -> ExitCode:
        """Make the member `value`."""
        code = int.__new__(cls, value)
        code._value_ = value
        code.meaning = meaning
        return code

    SUCCESS = 0, "all scans are done"
    INTERNAL = 1, "a bug: please report it with the message"
    USAGE = 2, "wrong options; all of them are named at once"
    NOT_BIDS = 3, "the input is no BIDS dataset"
    NO_SCANS = 4, "no such participant or session, or no T1w scan"
    SCANS_FAILED = 5, "some scans failed: the last lines say which and why, the others are done"
    OUTPUT = 6, "the output or work folder cannot be used (place, permission, space)"
    DEVICE = 7, "there is no such device, or it failed"
    RESOURCE = 8, "weights, template or atlas are missing or damaged"
    WORKER_KILLED = 9, "memory ran out: a worker process was killed, or could get no more"
    REPORT = 10, "all scans are done, but a report could not be made: the last lines say which and why"
    INTERRUPTED = 130, "interrupted (Ctrl-C, SIGTERM); run again to go on"


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


class ReportError(UnibrainError):
    """A report cannot be made; the derivatives that it shows are there."""

    exit_code = ExitCode.REPORT
