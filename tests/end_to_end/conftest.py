"""One simulated head, processed once by the real app: as simulated, and stored in another order and orientation."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.nifti1 import Nifti1Image
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

os.environ["NO_ET"] = "1"

from unibrain_bids import demo
from unibrain_bids.app.cli import main
from unibrain_bids.bids.inputs import ScanRecord, find_scans
from unibrain_bids.model import frame
from unibrain_bids.training.simulation.simulator import simulate

# The demo's field of view at 2 mm: three different lengths, so that mixed-up axes cannot go unnoticed.
SPAN = replace(demo.SPAN, shape=(108, 132, 126), spacing=2.0)
HEAD = demo.DemoScan("01", "1", 101)
OPTIONS = ("--nprocs", "1", "--omp-nthreads", "1", "--device", "cpu", "--skip-bids-validation")


@dataclass(frozen=True)
class Truth:
    """What the simulator knows of the head: arrays on the scan's grid, `frame_from_scan` (4, 4) in RAS mm."""

    structures: np.ndarray
    brain: np.ndarray
    intracranial: np.ndarray
    frame_from_scan: np.ndarray


@dataclass(frozen=True)
class Run:
    """A finished run: folders, exit code, and the scans, session 1 (RAS, .nii.gz) and 2 (PIR, .nii)."""

    raw: Path
    out: Path
    code: int
    scans: tuple[ScanRecord, ScanRecord]

    def path(self, name: str, session: int = 1) -> Path:
        """Return the derivative `name`, such as "desc-brain_mask.nii.gz"."""
        return self.out / "sub-01" / f"ses-{session}" / "anat" / f"sub-01_ses-{session}_{name}"

    def image(self, name: str, session: int = 1) -> Nifti1Image:
        return Nifti1Image.from_filename(self.path(f"{name}.nii.gz", session))

    def labels(self, name: str, session: int = 1) -> np.ndarray:
        return np.asarray(self.image(name, session).dataobj)

    def values(self, name: str, session: int = 1) -> np.ndarray:
        return self.image(name, session).get_fdata(dtype=np.float32)


def turned(image: Nifti1Image, axes: str) -> Nifti1Image:
    """Return the same head with its voxels stored along other axes."""
    return image.as_reoriented(ornt_transform(io_orientation(image.affine), axcodes2ornt(axes)))


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw dataset with one participant, scanned once but stored twice."""
    root = demo.write_dataset(tmp_path_factory.mktemp("phantom"), (HEAD,), SPAN)
    second = root / replace(HEAD, session="2").path.with_suffix("")
    second.parent.mkdir(parents=True)
    nib.save(turned(Nifti1Image.from_filename(root / HEAD.path), "PIR"), second)
    return root


@pytest.fixture(scope="session")
def run(raw: Path) -> Run:
    """The participant level with all derivatives."""
    out = raw.parent / "out"
    code = main([str(raw), str(out), "participant", *OPTIONS])
    first, second = find_scans(raw)
    return Run(raw, out, code, (first, second))


@pytest.fixture(scope="session")
def truth(raw: Path) -> Truth:
    with torch.inference_mode():
        head = simulate(demo.phantom_material(), SPAN, HEAD.seed, head=0)
    numbers = np.array([0, *frame.STRUCTURES])
    return Truth(
        structures=numbers[head.structures[0].numpy()],
        brain=head.brain[0, 0].numpy() > 0,
        intracranial=head.intracranial[0, 0].numpy() > 0,
        frame_from_scan=head.frame_from_grid[0].double().numpy(),
    )


@pytest.fixture
def copied(run: Run, tmp_path: Path) -> Run:
    """A copy of both datasets, times of modification included, for tests that write."""
    for folder in (run.raw, run.out):
        shutil.copytree(folder, tmp_path / folder.name)
    return replace(run, raw=tmp_path / run.raw.name, out=tmp_path / run.out.name)


@pytest.fixture(scope="session")
def validator_errors() -> Callable[[Path], list[dict]]:
    """Return a function that gives what the BIDS validator calls errors."""
    here = str(Path(sys.executable).parent)
    validator = shutil.which("bids-validator-deno", path=here) or shutil.which("bids-validator-deno")
    if validator is None:
        pytest.skip("bids-validator-deno is not installed")

    def errors(root: Path) -> list[dict]:
        words: Sequence[str] = [validator, str(root), "--format", "json"]
        report = json.loads(subprocess.run(words, capture_output=True, text=True, timeout=120).stdout)
        return [issue for issue in report["issues"]["issues"] if issue["severity"] == "error"]

    return errors
