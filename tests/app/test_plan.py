"""Which scans a run would process, and bad input that is found before anything is computed."""

import json

import nibabel as nib
import numpy as np
import pytest

from unibrain_bids.app.cli import main
from unibrain_bids.app.plan import describe, is_done, make_plan, outputs_of
from unibrain_bids.app.settings import Settings
from unibrain_bids.bids.publish import publish, staging
from unibrain_bids.errors import ExitCode
from unibrain_bids.workflows.processing import Processing

WEIGHTS = "0" * 64


@pytest.fixture
def raw(tmp_path):
    """A dataset of two participants, one with two sessions, one of whose images cannot be read."""
    root = tmp_path / "raw"
    for name in ("sub-01/ses-a/anat/sub-01_ses-a", "sub-01/ses-b/anat/sub-01_ses-b", "sub-02/anat/sub-02"):
        path = root / f"{name}_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.int16), np.eye(4)), path)
    (root / "dataset_description.json").write_text(json.dumps({"Name": "Tiny", "BIDSVersion": "1.10.0"}))
    return root


@pytest.fixture
def settings(raw, tmp_path):
    return Settings(Processing(raw, tmp_path / "out"))


def finish(settings, plan, key):
    """Publish empty files for all outputs of one scan."""
    record, fingerprint = next((r, f) for r, f in plan.todo.items() if r.key == key)
    out = settings.processing.output_dir
    with staging(out, key) as folder:
        files = {folder / path.name: path for path in outputs_of(settings.processing, record)}
        for path in files:
            path.touch()
        publish(files, output_dir=out, record=record, fingerprint=fingerprint)
    return record, fingerprint


def test_complete_scans_are_left_alone_until_something_changes(settings, raw):
    plan = make_plan(settings, weights=WEIGHTS)
    assert [record.key for record in plan.todo] == ["sub-01_ses-a", "sub-01_ses-b", "sub-02"]
    record, fingerprint = finish(settings, plan, "sub-02")
    assert is_done(settings.processing, record, fingerprint)

    plan = make_plan(settings, weights=WEIGHTS)
    assert [record.key for record in plan.complete] == ["sub-02"]
    assert len(plan.todo) == 2
    assert len(make_plan(settings, weights="1" * 64).todo) == 3
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), record.path)
    assert len(make_plan(settings, weights=WEIGHTS).todo) == 3


def test_force(settings, raw):
    from dataclasses import replace

    plan = make_plan(settings, weights=WEIGHTS)
    finish(settings, plan, "sub-02")
    assert len(make_plan(replace(settings, force=True), weights=WEIGHTS).todo) == 3


def test_file_that_is_not_there_fails_alone(settings, raw):
    path = raw / "sub-02" / "anat" / "sub-02_T1w.nii.gz"
    path.unlink()
    path.symlink_to("/no/such/annexed/file")
    plan = make_plan(settings, weights=WEIGHTS)
    assert len(plan.todo) == 2
    (failure,) = plan.unreadable
    assert failure.scan == "sub-02"
    assert str(path) in failure.reason
    assert failure.exit_code == ExitCode.SCANS_FAILED


def test_description_lists_what_would_be_written(settings):
    plan = make_plan(settings, weights=WEIGHTS)
    lines = list(describe(plan, settings.processing))
    assert lines[0] == "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz: would be processed"
    assert "  sub-02/anat/sub-02_desc-brain_mask.nii.gz" in lines
    assert lines[-1] == "3 scan(s): 3 to do, 0 complete, 0 unreadable"


@pytest.fixture
def run(tmp_path, capsys):
    """Run the command on a dataset; returns exit code and messages."""

    def command(bids_dir, output_dir=tmp_path / "out", *options):
        code = main([str(bids_dir), str(output_dir), "participant", "--skip-bids-validation", *options])
        return code, capsys.readouterr().err

    return command


def test_not_a_dataset(run, tmp_path):
    (tmp_path / "folder").mkdir()
    code, message = run(tmp_path / "folder")
    assert code == ExitCode.NOT_BIDS
    assert f"{tmp_path}/folder" in message


def test_dataset_that_does_not_exist(run, tmp_path):
    assert run(tmp_path / "nowhere")[0] == ExitCode.NOT_BIDS


def test_output_that_is_input(run, raw):
    code, message = run(raw, raw)
    assert code == ExitCode.OUTPUT
    assert str(raw / "derivatives") in message


def test_output_inside_input(run, raw):
    assert run(raw, raw / "sub-01" / "out")[0] == ExitCode.OUTPUT
    assert sorted(path.name for path in (raw / "sub-01").iterdir()) == ["ses-a", "ses-b"]
