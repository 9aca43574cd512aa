"""`--model npp`: the published system by itself, from the raw head to the derivatives that it knows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from nibabel.affines import apply_affine
from nibabel.nifti1 import Nifti1Image

from unibrain_bids.app.cli import main
from unibrain_bids.bids.derivatives import expected_outputs
from unibrain_bids.bids.inputs import find_scans
from unibrain_bids.bids.templates import Space
from unibrain_bids.errors import ResourceError
from unibrain_bids.imaging.itk import read_itk_affine
from unibrain_bids.inference import shipped_weights
from unibrain_bids.interfaces.template import load_template
from unibrain_bids.workflows.processing import MODELS

from .conftest import OPTIONS

TEMPLATE = "MNI152NLin2009aSym"


@dataclass(frozen=True)
class NppRun:
    """A finished run: folder and exit code."""

    out: Path
    code: int

    def path(self, name: str) -> Path:
        return self.out / "sub-01/ses-1/anat" / f"sub-01_ses-1_{name}"


@pytest.fixture(scope="module")
def alone(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> NppRun:
    try:
        shipped_weights("npp")
    except ResourceError:
        pytest.skip("this working copy has no weights of npp")
    out = tmp_path_factory.mktemp("npp") / "out"
    words = [str(raw), str(out), "participant", *OPTIONS, "--model", "npp", "--session-label", "1"]
    return NppRun(out, main(words))


def test_what_it_knows_is_written(alone: NppRun, raw: Path, validator_errors) -> None:
    assert alone.code == 0
    assert validator_errors(alone.out) == []
    (scan, _) = find_scans(raw)
    found = {path.relative_to(alone.out) for path in (alone.out / "sub-01").rglob("*") if path.is_file()}
    assert found == set(expected_outputs(scan, spaces=[Space()], tasks=MODELS["npp"]))
    assert "Neural Pre-processing by itself" in (alone.out / "logs/CITATION.md").read_text(encoding="utf-8")
    assert (alone.out / "sub-01.html").exists()


def test_quality_has_what_needs_no_tissues(alone: NppRun) -> None:
    quality = json.loads(alone.path("desc-qc_T1w.json").read_text(encoding="utf-8"))
    assert quality["intracranial_volume"] is None and quality["snr_gm"] is None
    assert quality["efc"] > 0 and quality["inu_range"] >= 0
    assert not any("registration_overlap" in flag for flag in quality["flags"])


def test_the_brain_is_found(alone: NppRun, truth) -> None:
    mask = np.asarray(Nifti1Image.from_filename(alone.path("desc-brain_mask.nii.gz")).dataobj) > 0
    assert 2 * (mask & truth.brain).sum() / (mask.sum() + truth.brain.sum()) > 0.85
    brain = Nifti1Image.from_filename(alone.path("desc-brain_T1w.nii.gz")).get_fdata()
    assert not brain[~mask].any() and 60 < np.median(brain[mask]) < 130


def test_the_affine_is_the_networks_own(alone: NppRun, truth) -> None:
    """Weights that were trained little: the brain lands within 20 mm of its exact place in the template, no more."""
    written = read_itk_affine(alone.path(f"from-{TEMPLATE}_to-T1w_mode-image_xfm.txt"))
    exact = np.linalg.inv(load_template(TEMPLATE, "cpu").frame_from_template) @ truth.frame_from_scan
    image = Nifti1Image.from_filename(alone.path("desc-brain_mask.nii.gz"))
    places = apply_affine(image.affine, np.argwhere(truth.brain)[::500])
    assert np.linalg.norm(apply_affine(written, places) - apply_affine(exact, places), axis=1).mean() < 20
