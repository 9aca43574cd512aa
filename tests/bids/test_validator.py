"""The names and sidecars as the BIDS validator sees them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from unibrain_bids.bids.derivatives import catalogue, expected_outputs
from unibrain_bids.bids.inputs import find_scans
from unibrain_bids.bids.templates import Space

VALIDATOR = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent)) or shutil.which(
    "bids-validator-deno"
)
pytestmark = pytest.mark.skipif(VALIDATOR is None, reason="bids-validator-deno is not installed")
TEMPLATE = "MNI152NLin2009aSym"
LAYOUTS = {
    "single": ["sub-01/anat/sub-01_T1w.nii.gz", "sub-02/anat/sub-02_T1w.nii"],
    "sessions": [f"sub-01/ses-{s}/anat/sub-01_ses-{s}_T1w.nii.gz" for s in ("a", "b")],
    "runs": [
        f"sub-01/ses-1/anat/sub-01_ses-1_acq-{acq}_ce-gd_rec-norm_run-{run}_T1w.nii.gz"
        for acq in ("hi", "lo")
        for run in ("01", "02")
    ]
    + ["sub-01/ses-1/anat/sub-01_ses-1_echo-1_part-mag_chunk-2_T1w.nii.gz"],
}


def validate(root: Path, *options: str) -> tuple[list[dict], int]:
    """Return the errors that the validator reports, and its exit status."""
    run = subprocess.run(
        [str(VALIDATOR), str(root), "--format", "json", *options], capture_output=True, text=True, timeout=120
    )
    report = json.loads(run.stdout)
    reports = [report, *report.get("derivativesSummary", {}).values()]
    issues = [issue for one in reports for issue in one["issues"]["issues"]]
    return [issue for issue in issues if issue["severity"] == "error"], run.returncode


@pytest.mark.parametrize("layout", LAYOUTS)
def test_derivatives_are_valid_and_unique(tmp_path, make_raw, make_derivatives, layout):
    raw = make_raw(tmp_path / "raw", LAYOUTS[layout])
    records = find_scans(raw)
    assert len(records) == len(LAYOUTS[layout])
    out = make_derivatives(tmp_path / "out", raw, records)

    assert validate(out) == ([], 0)
    names = Counter(
        path for record in records for path in expected_outputs(record, spaces=[Space(TEMPLATE)], heads=["mdd"])
    )
    assert set(names.values()) == {1}
    written = {p.relative_to(out) for p in out.glob("sub-*/**/anat/*") if p.is_file()}
    assert written == set(names)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_derivatives_inside_the_raw_dataset_are_valid(tmp_path, make_raw, make_derivatives, layout):
    raw = make_raw(tmp_path / "raw", LAYOUTS[layout])
    out = make_derivatives(raw / "derivatives" / "UniBrain-0.1", raw, find_scans(raw))
    assert validate(raw) == ([], 0)
    assert validate(out) == ([], 0)
    # Seen from the raw dataset (-r) the validator reads no .bidsignore of a derivative; all else must be right.
    unofficial = ("_xfm.", "_relmat.", "_graph.", "_morph.", "_predictions.", "_desc-qc_", ".html", "/figures/")
    errors, _ = validate(raw, "-r")
    assert [error for error in errors if not any(part in error["location"] for part in unofficial)] == []
    assert json.loads((out / "dataset_description.json").read_text())["GeneratedBy"][0]["Name"] == "UniBrain"


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda anat: (anat / "sub-01_desc-preproc_T1w.json").unlink(), "SIDECAR_KEY_REQUIRED"),
        (lambda anat: (anat / "sub-01_desc-brain_mask.nii.gz").rename(anat / "sub-01_mask_brain.nii.gz"), None),
        (
            lambda anat: (anat / f"sub-01_space-{TEMPLATE}_seg-aseg_res-1_dseg.nii.gz").rename(
                anat / f"sub-01_seg-aseg_res-1_space-{TEMPLATE}_dseg.nii.gz"
            ),
            None,
        ),
    ],
)
def test_damage_is_an_error(tmp_path, make_raw, make_derivatives, damage, code):
    """The validator does look: a missing sidecar, a wrong name and a wrong order of entities are errors."""
    raw = make_raw(tmp_path / "raw", LAYOUTS["single"][:1])
    out = make_derivatives(tmp_path / "out", raw, find_scans(raw))
    damage(out / "sub-01" / "anat")
    errors, status = validate(out)
    assert status == 16
    assert code is None or code in {error["code"] for error in errors}


def test_space_that_bids_does_not_name_is_valid_with_a_reference(tmp_path, make_raw):
    from unibrain_bids.bids.atomic import write_json
    from unibrain_bids.bids.dataset import write_dataset_files
    from unibrain_bids.bids.sidecars import make_sidecar

    raw = make_raw(tmp_path / "raw", LAYOUTS["single"][:1])
    out = tmp_path / "out"
    write_dataset_files(out, raw)
    space = Space("MNIInfant+2", reference="https://example.org/tpl-MNIInfant_cohort-2_T1w.nii.gz")
    outputs = catalogue(find_scans(raw)[0], spaces=[space])
    mask = outputs[space.role("mask")]
    content = make_sidecar(mask, outputs)
    write_json(out / mask.sidecar, content)
    shutil.copy(raw / LAYOUTS["single"][0], out / mask.relative)
    assert validate(out) == ([], 0)
    del content["SpatialReference"]
    write_json(out / mask.sidecar, content)
    assert [error["code"] for error in validate(out)[0]] == ["SIDECAR_KEY_REQUIRED"]
