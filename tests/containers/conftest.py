"""A simulated dataset, where the commands of this environment are, and a Slurm whose jobs meet with accidents."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from unibrain_bids import demo

ROOT = Path(__file__).parents[2]
SPAN = replace(demo.SPAN, shape=(72, 88, 84), spacing=3.0)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The environment of a process that finds the commands installed beside this Python, and this working tree."""
    here = Path(sys.executable).parent
    return {**os.environ, "PATH": f"{here}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def bids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw dataset with one simulated head."""
    return demo.write_dataset(tmp_path_factory.mktemp("phantom"), (demo.DemoScan("01", "1", 101),), SPAN)


def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait, for ten minutes at most, until something is so."""
    for _ in range(2400):
        if condition():
            return
        time.sleep(0.25)
    raise AssertionError(f"waited in vain: {what}")


class Cluster:
    """The Slurm that commands find, and what befalls its jobs. Jobs have their names, tasks of arrays their numbers."""

    def __call__(self, *words: str) -> str:
        """Standard output of one of Slurm's commands."""
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout

    def jobs(self) -> dict[str, tuple[str, str]]:
        """State and identifier of every job in the queue."""
        lines = self("squeue", "--noheader", "--array", "--format=%j|%K|%T|%i").splitlines()
        rows = [line.split("|") for line in lines]
        return {(name if task == "N/A" else task): (state, number) for name, task, state, number in rows}

    def becomes(self, job: str, state: str) -> str:
        """Wait until a job is in a state; return its identifier."""
        eventually(lambda: self.jobs().get(job, ("",))[0] == state, f"{job} becomes {state}")
        return self.jobs()[job][1]

    def cancel(self, job: str) -> None:
        """Cancel a job as soon as it runs."""
        self("scancel", self.becomes(job, "RUNNING"))

    def requeue(self, job: str) -> None:
        """Put a job back into the queue as soon as it runs, to start anew."""
        number = self.becomes(job, "RUNNING")
        self("scontrol", "requeue", number)
        self.becomes(job, "PENDING")
        self("scontrol", "update", f"JobId={number}", "StartTime=now")  # or Slurm waits for two minutes

    def empty(self) -> None:
        """Wait until the queue is empty."""
        eventually(lambda: not self.jobs(), "the queue is empty")


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The Slurm of `make slurm`."""
    if "SLURM_CONF" not in os.environ or not shutil.which("sbatch"):
        pytest.skip("`make slurm` runs this")
    return Cluster()
