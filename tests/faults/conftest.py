"""A small raw dataset, and the command as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

COMMAND = Path(__file__).with_name("quick_model.py")
REPOSITORY = Path(__file__).parents[2]
SCANS = ("sub-01", "sub-02", "sub-03")
OPTIONS = ("--device", "cpu", "--tasks", "mask", "--skip-bids-validation", "--omp-nthreads", "1", "--no-report")


@dataclass(frozen=True)
class Dataset:
    """The raw dataset, and the places that a test writes to."""

    raw: Path
    out: Path
    work: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(
        self, *words: str, fault: str = "", prefix: Sequence[str] = (), **environment: str
    ) -> subprocess.Popen[str]:
        """Start the participant level; `prefix` is a program that is to run it."""
        paths = {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{COMMAND.parent}", "OMP_NUM_THREADS": "1"}
        command = [*prefix, sys.executable, str(COMMAND), str(self.raw), str(self.out), "participant", *OPTIONS, *words]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            env={**os.environ, **paths, "FAULT": fault, **environment},
        )  # fmt: skip
        self.started.append(process)
        return process

    def run(self, *words: str, **how: str | Sequence[str]) -> tuple[int, str]:
        """Return exit code and messages of a run."""
        return self.end(self.start(*words, **how))  # type: ignore[arg-type]

    def end(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        said = process.communicate(timeout=300)[0]
        assert "Traceback" not in said, said
        return process.returncode, said

    def wait_for(self, path: Path, process: subprocess.Popen[str]) -> None:
        """Wait until `process` has made `path`."""
        for _ in range(6000):
            if path.exists():
                return
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        raise TimeoutError(path)

    def masks(self) -> set[str]:
        """Return the scans whose mask is there."""
        return {path.name.split("_")[0] for path in self.out.glob("sub-*/anat/*_mask.nii.gz")}

    def record(self) -> dict:
        """Return the record of the last run."""
        last = max(self.out.glob("logs/*/run.json"), key=lambda path: path.stat().st_mtime_ns)
        return json.loads(last.read_text())

    def check_whole(self, scans: Sequence[str]) -> None:
        """See to it that of these scans everything is there, of others nothing, and no leftovers."""
        assert self.masks() == set(scans)
        assert {path.stem for path in self.out.glob("logs/complete/*.json")} == set(scans)
        for path in self.out.glob("sub-*/anat/*.nii.gz"):
            assert nib.load(path).get_fdata().any()
        assert not list(self.out.glob(".unibrain-tmp-*"))
        assert not list(self.work.glob("*"))

    def check_next_run(self, before: Sequence[str] = ()) -> None:
        """See to it that the next run does what is missing, and leaves alone what was complete before."""
        code, said = self.run("-w", str(self.work), "--nprocs", "1")
        assert code == 0, said
        self.check_whole(SCANS)
        scans = self.record()["Scans"]
        assert (set(scans["CompleteBefore"]), scans["Failed"]) == (set(before), {})


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three heads of a few thousand voxels, read-only."""
    root = tmp_path_factory.mktemp("faults") / "raw"
    rng = np.random.default_rng(0)
    distance = np.linalg.norm(np.indices((20, 24, 22)) - np.array([10, 12, 11]).reshape(3, 1, 1, 1), axis=0)
    for scan in SCANS:
        data = np.clip(110 - 12 * distance + rng.normal(0, 2, distance.shape), 0, 100).astype(np.int16)
        image = nib.Nifti1Image(data, np.diag([8.0, 8.0, 8.0, 1.0]))
        image.header.set_xyzt_units("mm")
        path = root / scan / "anat" / f"{scan}_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        nib.save(image, path)
    (root / "dataset_description.json").write_text(json.dumps({"Name": "Faults", "BIDSVersion": "1.10.0"}))
    return root


@pytest.fixture
def dataset(raw: Path, tmp_path: Path) -> Iterator[Dataset]:
    made = Dataset(raw, tmp_path / "out", tmp_path / "work")
    yield made
    for process in made.started:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture
def run(dataset: Dataset) -> Callable[..., tuple[int, str]]:
    return dataset.run
