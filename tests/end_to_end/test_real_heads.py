"""The shipped weights on a person's head."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nibabel.affines import apply_affine

from unibrain_bids.inference import predict

HEAD = Path(__file__).parents[3] / "shared" / "data" / "ds000011" / "sub-01" / "anat" / "sub-01_T1w.nii.gz"


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif(not HEAD.exists(), reason="needs the shared heads of ds000011")
def test_real_head():
    result = predict(HEAD)
    millilitres = abs(np.linalg.det(result.scan.affine[:3, :3])) / 1000
    assert 900 < result.mask.sum() * millilitres < 1900
    assert np.isfinite(result.quality["model_realignment_mm"])
    left, right = (apply_affine(result.scan.affine, np.argwhere(result.structures == n).mean(0)) for n in (3, 42))
    assert 40 < right[0] - left[0] < 80, "mm between the centres of the cortices"
    white, grey = (np.median(result.brain[result.tissues == tissue]) for tissue in (2, 1))
    assert white > grey > 0
