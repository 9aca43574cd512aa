"""The speed benchmark's own parts; the app itself is measured by running it."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine

ALLOCATE_IN_A_CHILD = """
import subprocess, sys
own = bytearray(b"x") * 60_000_000
subprocess.run([sys.executable, "-c", "import time; b = bytearray(b'x') * 90_000_000; time.sleep(0.5)"])
"""


@pytest.fixture(scope="module")
def speed() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "speed.py"
    spec = importlib.util.spec_from_file_location("speed", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["speed"] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is measured on Linux alone")
def test_cost_counts_time_and_the_memory_of_children(speed: ModuleType) -> None:
    cost = speed.run([sys.executable, "-c", ALLOCATE_IN_A_CHILD], dict(os.environ))
    assert cost.seconds >= 0.5
    assert 150e6 < cost.peak_bytes < 300e6


def test_failing_command_says_why(speed: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="no such luck"):
        speed.run([sys.executable, "-c", "raise SystemExit('no such luck')"], dict(os.environ))


def test_dataset_holds_the_head_at_its_place(speed: ModuleType, tmp_path: Path) -> None:
    data = np.zeros((40, 50, 30), np.int16)
    data[10:14, 20:24, 5:9] = 100
    affine = np.array([[-3.0, 0, 0, 40], [0, 2, 0, -30], [0, 0, 4, 7], [0, 0, 0, 1]])
    nib.Nifti1Image(data, affine).to_filename(tmp_path / "head.nii.gz")
    image = nib.Nifti1Image.from_filename(speed.make_dataset(tmp_path / "head.nii.gz", tmp_path / "bids"))
    assert image.shape == (256, 256, 256)
    assert image.header.get_zooms() == (1, 1, 1)
    centre = np.argwhere(np.asarray(image.dataobj) > 2000).mean(axis=0)
    expected = apply_affine(affine, np.argwhere(data).mean(axis=0))
    np.testing.assert_allclose(apply_affine(image.affine, centre), expected, atol=1)
