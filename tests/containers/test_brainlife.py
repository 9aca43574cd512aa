"""The brainlife app on a local T1w."""

from __future__ import annotations

import json
import shutil
import subprocess

import nibabel as nib
import numpy as np
import pytest


@pytest.fixture
def brainlife(root, environment, tmp_path):
    """Return a function that runs `main` with a scan, in a folder of its own."""
    example = json.loads((root / "brainlife" / "config.json.example").read_text())

    def run(scan):
        target = tmp_path / example["t1"]
        target.parent.mkdir()
        shutil.copyfile(scan, target)
        (tmp_path / "config.json").write_text(json.dumps(example | {"nprocs": 1}))
        command = [str(root / "brainlife" / "main")]
        return subprocess.run(command, env={**environment, "UNIBRAIN_RUN": ""}, cwd=tmp_path, check=False).returncode

    return run


@pytest.mark.slow
def test_one_scan(brainlife, bids, tmp_path):
    (scan,) = bids.glob("sub-*/ses-*/anat/*_T1w.nii.gz")
    assert brainlife(scan) == 0
    raw = nib.load(scan)
    for name in ("t1w/t1", "brain/t1", "mask/mask", "aseg/parc", "parc/parc"):
        image = nib.load(tmp_path / f"{name}.nii.gz")
        assert image.shape == raw.shape
        assert np.allclose(image.affine, raw.affine, atol=1e-4)
    for name in ("aseg", "parc"):
        labels = json.loads((tmp_path / name / "label.json").read_text())
        present = set(np.unique(nib.load(tmp_path / name / "parc.nii.gz").dataobj)) - {0}
        assert present
        assert present <= {label["voxel_value"] for label in labels}
        assert all(0 <= label[channel] <= 255 for label in labels for channel in "rgb")
        assert len((tmp_path / name / "key.txt").read_text().splitlines()) == len(labels)
    assert (tmp_path / "derivatives/sub-0001/ses-1/anat/sub-0001_ses-1_desc-brain_mask.nii.gz").is_file()
    product = json.loads((tmp_path / "product.json").read_text())
    assert product["quality"]
    assert (tmp_path / "product.json").stat().st_size < 5000


@pytest.mark.slow
def test_scan_that_is_none(brainlife, tmp_path):
    (tmp_path / "broken.nii.gz").write_bytes(b"no image")
    code = brainlife(tmp_path / "broken.nii.gz")
    product = json.loads((tmp_path / "product.json").read_text())
    assert code != 0
    assert f"exit code {code}" in product["brainlife"][0]["msg"]
