"""What goes wrong on real machines, done to real processes.

Each fault must end in a message that says what happened, the right exit code, and a state from which the next run
completes; no file may ever be there in part.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from unibrain_bids.errors import ExitCode

from .conftest import SCANS, Dataset

pytestmark = pytest.mark.slow  # seconds of CPU each, most of them for imports

ONE, TWO = ("--nprocs", "1"), ("--nprocs", "2")


def unshare(*options: str) -> Sequence[str]:
    """Return the command that runs another one in namespaces of its own, where this machine allows that."""
    command = ["unshare", "--map-root-user", *options, "--"]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("no namespaces of one's own on this machine")
    return command


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted(dataset: Dataset, number: signal.Signals):
    mark = dataset.out.parent / "mark"
    words = ONE if number == signal.SIGTERM else TWO
    process = dataset.start("-w", str(dataset.work), *words, fault=f"wait:sub-02:{mark}")
    dataset.wait_for(mark, process)
    os.killpg(process.pid, number)
    code, said = dataset.end(process)
    assert code == ExitCode.INTERRUPTED
    assert "run again to go on" in said
    assert set(dataset.record()["Scans"]["Failed"].values()) == {"interrupted before it was done."}
    done = sorted(dataset.masks())
    dataset.check_whole(done)
    if number == signal.SIGTERM:
        dataset.check_next_run(before=done)


def test_killed_at_once(dataset: Dataset):
    """Nobody has a chance to tidy up: as by the kernel for want of memory, or at the end of a job's time."""
    mark = dataset.out.parent / "mark"
    process = dataset.start("-w", str(dataset.work), *ONE, fault=f"wait:sub-02:{mark}")
    dataset.wait_for(mark, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    left = list(dataset.work.iterdir())
    assert left and dataset.masks() == {"sub-01"}
    code, said = dataset.run("-w", str(dataset.work), "--clean-workdir", *ONE)
    assert code == 0
    assert f"{left[0]}: left by an earlier run, removed" in said
    dataset.check_whole(SCANS)
    assert dataset.record()["Scans"]["CompleteBefore"] == ["sub-01"]


def test_first_failure_stops_the_run_if_asked_for(dataset: Dataset):
    code, said = dataset.run("-w", str(dataset.work), "--stop-on-first-crash", *ONE, fault="memory:sub-02")
    assert code == ExitCode.SCANS_FAILED
    assert "FAILED sub-02: " in said and "FAILED sub-03: not done" in said, said
    dataset.check_whole(["sub-01"])


def test_killed_worker(dataset: Dataset):
    code, said = dataset.run("-w", str(dataset.work), *TWO, fault="kill:sub-02")
    assert code == ExitCode.WORKER_KILLED
    assert "FAILED sub-02: A worker process was killed" in said and "fewer --nprocs" in said
    assert "sub-02" not in dataset.masks()
    dataset.check_next_run(before=sorted(dataset.masks()))


def test_out_of_memory(dataset: Dataset):
    """Two scans that fail for different reasons; tests/app/test_failures.py has the exit code of each."""
    code, said = dataset.run("-w", str(dataset.work), *ONE, fault="memory:sub-01 gpu:sub-02")
    assert code == ExitCode.SCANS_FAILED
    first, second = (line for line in said.splitlines() if "FAILED" in line)
    assert "sub-01: out of memory" in first and "--low-mem" in first
    assert "sub-02: the GPU failed" in second and "--device cpu" in second
    dataset.check_whole(["sub-03"])


def test_lost_work_folder(dataset: Dataset):
    code, said = dataset.run("-w", str(dataset.work), *ONE, fault=f"lose:sub-02:{dataset.work}")
    assert code == ExitCode.OUTPUT
    assert "FAILED sub-02: " in said and "work folder" in said
    assert {"sub-01"} <= dataset.masks()
    dataset.check_next_run(before=sorted(dataset.masks()))


@pytest.mark.parametrize("full", ["out", "work"])
def test_full_disk(dataset: Dataset, full: str):
    """A file system of 80 kB takes the first files, and no more."""
    place: Path = getattr(dataset, full)
    place.mkdir()
    kept = dataset.out.parent / "kept"
    script = 'mount -t tmpfs -o size=80k full "$1"; "${@:3}"; code=$?; cp -a "$1" "$2"; exit $code'
    prefix = [*unshare("--mount"), "bash", "-c", script, "bash", str(place), str(kept)]
    code, said = dataset.run("-w", str(dataset.work), *ONE, prefix=prefix)
    assert code == ExitCode.OUTPUT, said
    assert "No space left on device" in said
    if full == "out":
        shutil.rmtree(place)
        kept.rename(place)
        assert not any(place.glob("logs/complete/sub-03.json"))
    dataset.check_next_run(before=sorted(path.stem for path in dataset.out.glob("logs/complete/*.json")))


def test_several_runs_at_once(dataset: Dataset):
    """The tasks of a job array, two of which were even given the same participant."""
    words = [("sub-01",), ("sub-02", "sub-03"), ("sub-01", "sub-03")]
    started = [dataset.start("-w", str(dataset.work), *ONE, "--participant-label", *labels) for labels in words]
    ended = [dataset.end(process) for process in started]
    assert [code for code, _ in ended] == [0, 0, 0], "\n".join(said for _, said in ended)
    dataset.check_whole(SCANS)
    assert len(list(dataset.out.glob("logs/*/run.json"))) == 3


def test_nothing_but_the_output_folder(dataset: Dataset):
    """No HOME, no network, no place to write but output and temporary files, and a user without a name."""
    words = [sys.executable, "-c", "import socket; socket.create_connection(('127.0.0.1', 9))"]
    assert subprocess.run([*unshare("--net"), *words], capture_output=True).returncode
    for path in (dataset.raw, *dataset.raw.rglob("*")):
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    before = {path: path.stat().st_mtime_ns for path in dataset.raw.rglob("*")}
    code, said = dataset.run(*ONE, prefix=unshare("--net"), HOME="/nonexistent", LOGNAME="", USER="")
    assert code == 0, said
    dataset.check_whole(SCANS)
    assert {path: path.stat().st_mtime_ns for path in dataset.raw.rglob("*")} == before
