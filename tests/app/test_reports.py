"""Reports at the command line: what is made, what is said of flagged scans and of reports that fail."""

import json

import nibabel as nib
import numpy as np
import pytest

from unibrain_bids.app.cli import main
from unibrain_bids.errors import ExitCode

WORDS = ("participant", "--device", "cpu", "--skip-bids-validation", "--nprocs", "1")


@pytest.fixture
def folders(tmp_path):
    """Three raw scans; derivatives of the first, which is flagged, and damaged ones of the second."""
    raw, out = tmp_path / "raw", tmp_path / "out"
    volume = np.pad(np.full((8, 8, 8), 100, np.int16), 4)
    for label in ("01", "02", "03"):
        (raw / f"sub-{label}" / "anat").mkdir(parents=True)
        nib.save(nib.Nifti1Image(volume, np.eye(4)), raw / f"sub-{label}" / "anat" / f"sub-{label}_T1w.nii.gz")
    (raw / "dataset_description.json").write_text(json.dumps({"Name": "Tiny", "BIDSVersion": "1.10.0"}))
    for label in ("01", "02"):
        anat = out / f"sub-{label}" / "anat"
        anat.mkdir(parents=True)
        for name, data in {"desc-preproc_T1w": volume, "desc-brain_mask": volume // 100}.items():
            nib.save(nib.Nifti1Image(data, np.diag([9.0, 9, 9, 1])), anat / f"sub-{label}_{name}.nii.gz")
        (anat / f"sub-{label}_desc-qc_T1w.json").write_text(json.dumps({"flags": [f"{label} moved."]}))
    (out / "sub-02" / "anat" / "sub-02_desc-preproc_T1w.nii.gz").write_bytes(b"no image")
    return raw, out


def test_reports_are_made_again_and_a_broken_one_is_named(folders, capsys):
    raw, out = folders
    code = main([str(raw), str(out), *WORDS, "--reports-only", "--participant-label", "01", "02"])
    said = capsys.readouterr().err
    assert code == ExitCode.REPORT
    assert "01 moved." in (out / "sub-01.html").read_text()
    assert not (out / "sub-02.html").exists() and not (out / "sub-03.html").exists()
    assert "FLAGGED sub-01: 01 moved." in said
    assert "NO REPORT sub-02: " in said and "NO REPORT sub-01" not in said
    assert list(out.glob("logs/*/reports/crash-*.txt"))


def test_without_derivatives_there_is_nothing_to_report(folders):
    raw, out = folders
    assert main([str(raw), str(out), *WORDS, "--reports-only", "--participant-label", "03"]) == ExitCode.SUCCESS
    assert not list(out.glob("sub-*.html"))


def test_contradicting_options(folders, capsys):
    raw, out = folders
    assert main([str(raw), str(out), *WORDS, "--reports-only", "--no-report"]) == ExitCode.USAGE
    assert "--no-report and --reports-only" in capsys.readouterr().err
