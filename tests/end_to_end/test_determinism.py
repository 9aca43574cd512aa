"""The same input and the same settings give the same values, to the last bit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from unibrain_bids.imaging.compression import decompressed

REPOSITORY = Path(__file__).parents[2]


def content(path: Path) -> bytes:
    """What a file holds. Not its gzip stream: isal was once seen to pack the same content otherwise."""
    return decompressed(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


@pytest.mark.slow
def test_neither_processes_nor_threads_nor_order_nor_names_change_a_value(run, tmp_path, validator_errors):
    """Two sessions one by one; as runs, at once by two workers of two threads, in the other order, inside the raw."""
    raw = tmp_path / "raw"
    out, anat = raw / "derivatives" / "unibrain_bids", Path("sub-09", "anat")
    renamed = {"sub-01_ses-1": "sub-09_run-2", "sub-01_ses-2": "sub-09_run-1"}
    (raw / anat).mkdir(parents=True)
    for scan in run.scans:
        path = raw / anat / scan.path.name.replace(scan.key, renamed[scan.key])
        os.link(scan.path, path)
    for name in ("dataset_description.json", "README"):
        (raw / name).write_bytes((run.raw / name).read_bytes())
    words = [sys.executable, "-m", "unibrain_bids", str(raw), str(out), "participant", "--skip-bids-validation"]
    words += ["--nprocs", "4", "--omp-nthreads", "2", "--device", "cpu", "--no-report"]
    # More threads than CPUs: those that wait must not keep the others from working.
    patient = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, cwd=REPOSITORY, env=patient)
    assert done.returncode == 0, done.stderr

    compared = 0
    for first in (path for path in run.out.glob("sub-*/ses-*/anat/*") if path.suffix in (".gz", ".tsv", ".txt")):
        key = "_".join(first.name.split("_")[:2])
        second = out / anat / first.name.replace(key, renamed[key])
        same = content(first) == content(second)  # compared here: pytest would print megabytes where they differ
        assert same, first.name
        compared += 1
    assert compared >= 40
    assert validator_errors(raw) == validator_errors(out) == []
