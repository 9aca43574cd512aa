"""The same input and the same settings give the same bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.slow
def test_neither_processes_nor_order_nor_names_change_a_byte(run, tmp_path):
    """Two scans one after the other, and at the same time by two workers, in the other order and under other names."""
    raw, out = tmp_path / "raw", tmp_path / "out"
    renamed = {"sub-01_ses-1": "sub-09", "sub-01_ses-2": "sub-08"}
    for scan in run.scans:
        name = renamed[scan.key]
        path = raw / name / "anat" / scan.path.name.replace(scan.key, name)
        path.parent.mkdir(parents=True)
        os.link(scan.path, path)
    (raw / "dataset_description.json").write_bytes((run.raw / "dataset_description.json").read_bytes())
    words = [sys.executable, "-m", "unibrain_bids", str(raw), str(out), "participant", "--skip-bids-validation"]
    words += ["--nprocs", "2", "--omp-nthreads", "1", "--device", "cpu", "--no-report"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr

    compared = 0
    for first in (path for path in run.out.glob("sub-*/ses-*/anat/*") if path.suffix in (".gz", ".tsv", ".txt")):
        key = "_".join(first.name.split("_")[:2])
        second = out / renamed[key] / "anat" / first.name.replace(key, renamed[key])
        assert first.read_bytes() == second.read_bytes(), first.name
        compared += 1
    assert compared >= 40
