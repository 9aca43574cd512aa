"""The real validator on the raw dataset: it reports, and stops nothing."""

import json
import logging

import nibabel as nib
import numpy as np
import pytest

from unibrain_bids.app import validation

pytest.importorskip("bids_validator_deno")


@pytest.fixture
def raw(tmp_path):
    path = tmp_path / "raw" / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    path.parent.mkdir(parents=True)
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.int16), np.eye(4)), path)
    describe(tmp_path / "raw", Name="Tiny", BIDSVersion="1.10.0")
    return tmp_path / "raw"


def describe(root, **content):
    (root / "dataset_description.json").write_text(json.dumps(content))


def run(raw, logs, caplog):
    caplog.set_level(logging.WARNING)
    validation.validate(raw, logs)
    return [record.getMessage() for record in caplog.records]


def test_valid_dataset_is_passed_over_in_silence(raw, tmp_path, caplog):
    assert run(raw, tmp_path / "logs", caplog) == []
    assert (tmp_path / "logs" / "bids-validator.json").is_file()


def test_errors_are_named(raw, tmp_path, caplog):
    describe(raw, Name="Tiny", BIDSVersion="1.10.0", ReferencesAndLinks="not a list")
    (message,) = run(raw, tmp_path / "logs", caplog)
    assert "JSON_SCHEMA_VALIDATION_ERROR (1)" in message
    assert str(raw) in message


def test_validator_that_is_not_installed(raw, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(validation, "VALIDATOR", "no-such-program")
    assert run(raw, tmp_path / "logs", caplog) == []
    assert not (tmp_path / "logs").exists()
