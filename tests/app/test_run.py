"""What a run does without processing anything."""

import json

import nibabel as nib
import numpy as np
import pytest
from safetensors.numpy import save_file

from unibrain_bids.app.cli import main
from unibrain_bids.errors import ExitCode


@pytest.fixture
def raw(tmp_path):
    root = tmp_path / "raw"
    path = root / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    path.parent.mkdir(parents=True)
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.int16), np.eye(4)), path)
    (root / "dataset_description.json").write_text(json.dumps({"Name": "Tiny", "BIDSVersion": "1.10.0"}))
    return root


def test_boilerplate_only(raw, tmp_path, capsys):
    words = [str(raw), str(tmp_path / "out"), "participant", "--boilerplate-only", "--tasks", "mask", "--device", "cpu"]
    assert main(words) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "logs" / "CITATION.md")
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert [path.name for path in written] == ["CITATION.md"]
    assert "The brain was extracted" in written[0].read_text()


def test_dry_run_writes_nothing(raw, tmp_path, capsys):
    assert main([str(raw), str(tmp_path / "out"), "participant", "--dry-run", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "  sub-01/anat/sub-01_desc-brain_mask.nii.gz" in said.splitlines()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["no weights", "a head"])
def test_weights_that_are_none_are_refused_before_anything_is_done(content, raw, tmp_path, capsys):
    path = tmp_path / "weights.safetensors"
    if content == "a head":
        save_file({"linear.weight": np.zeros(3)}, path)
    else:
        path.write_text(content)
    words = [str(raw), str(tmp_path / "out"), "participant", "--weights", str(path), "--device", "cpu"]
    assert main(words) == ExitCode.RESOURCE
    assert str(path) in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
