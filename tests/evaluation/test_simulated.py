from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from unibrain_bids.errors import ResourceError
from unibrain_bids.evaluation.simulated import load_simulated_head, simulated_heads
from unibrain_bids.training.packing import pack, read_canonical
from unibrain_bids.training.parcels import LabelledTemplate
from unibrain_bids.training.simulation.geometry import PoseRange
from unibrain_bids.training.simulation.simulator import SimulationRange

SHARED = Path("/work/shared/data")
COARSE = SimulationRange((64, 72, 64), 3.0, PoseRange(10.0, 5.0, 0.05, 0.0), t1_fraction=1.0)


def test_missing_label_maps_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="head-13"):
        simulated_heads(tmp_path, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not (SHARED / "labelmaps").is_dir(), reason="the shared label maps are not on this machine")
def test_truth_of_a_simulated_head_is_consistent(tmp_path: Path) -> None:
    folder = SHARED / "labelmaps"
    aparc = SHARED / "atlas" / "tpl-MNI152NLin6Asym_res-1_atlas-DK_dseg.nii.gz"
    template = LabelledTemplate.from_labels(*read_canonical(aparc))
    pack([folder / "head-13_dseg.nii.gz"], folder / "labels.tsv", template, tmp_path / "packed.npz")
    head = load_simulated_head(tmp_path / "packed.npz", tmp_path, name="one", seed=0, span=COARSE)
    assert head.bias is not None and head.clean is not None
    solid = head.masks["solid"]
    np.testing.assert_array_equal(np.asarray(nib.Nifti1Image.from_filename(head.path).dataobj), head.image)
    assert len(np.unique(head.structures[head.structures > 0])) == 31
    assert (head.masks["brain"] <= solid).all() and (solid <= head.masks["icv"]).all()
    assert ((head.tissues > 0) == solid).all()
    assert not head.clean[~solid].any()
    kept = solid & (head.image > 0)
    assert kept.sum() / solid.sum() >= 0.995, "no part of the brain is cropped"
    ratio = head.image[kept] / (head.clean * head.bias)[kept]
    np.testing.assert_allclose(ratio, np.median(ratio), rtol=1e-3, err_msg="scan = factor x bias x clean")
    again = load_simulated_head(tmp_path / "packed.npz", tmp_path, name="one", seed=0, span=COARSE)
    np.testing.assert_array_equal(head.image, again.image)
