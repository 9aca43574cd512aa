"""`--model unibrain`: the published system by itself, from the raw head to the derivatives that it knows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Image

from unibrain_bids.app.cli import main
from unibrain_bids.bids.derivatives import expected_outputs
from unibrain_bids.bids.inputs import find_scans
from unibrain_bids.bids.templates import Space
from unibrain_bids.errors import ResourceError
from unibrain_bids.inference import shipped_weights
from unibrain_bids.workflows.processing import MODELS

from .conftest import OPTIONS

# Cerebral white matter of both sides.
WHITE = (2, 41)


@pytest.mark.slow
def test_what_it_knows_is_written(raw: Path, tmp_path: Path, truth, validator_errors) -> None:
    """Every derivative of its tasks and no other, valid, and brain and white matter where they are."""
    try:
        shipped_weights("unibrain")
    except ResourceError:
        pytest.skip("this working copy has no weights of unibrain")
    words = [str(raw), str(tmp_path), "participant", *OPTIONS, "--model", "unibrain", "--session-label", "1"]
    assert main(words) == 0
    assert validator_errors(tmp_path) == []
    (scan, _) = find_scans(raw)
    found = {path.relative_to(tmp_path) for path in (tmp_path / "sub-01").rglob("*") if path.is_file()}
    assert found == set(expected_outputs(scan, spaces=[Space()], tasks=MODELS["unibrain"]))
    assert "UniBrain by itself" in (tmp_path / "logs/CITATION.md").read_text(encoding="utf-8")

    def dice(suffix: str, label: int, true: np.ndarray) -> float:
        path = tmp_path / "sub-01/ses-1/anat" / f"sub-01_ses-1_{suffix}.nii.gz"
        labelled = np.asarray(Nifti1Image.from_filename(path).dataobj) == label
        return float(2 * (labelled & true).sum() / (labelled.sum() + true.sum()))

    # Weights that were trained little.
    assert dice("desc-brain_mask", 1, truth.brain) > 0.85
    assert dice("seg-tissue_dseg", 2, np.isin(truth.structures, WHITE)) > 0.6
