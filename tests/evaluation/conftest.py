"""A tiny labelled head and template whose relation is known exactly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from unibrain_bids.evaluation.heads import TISSUES, LabelledHead
from unibrain_bids.evaluation.registration import TemplateTruth
from unibrain_bids.inference import Prediction
from unibrain_bids.labels import LabelTable
from unibrain_bids.model.anatomy import solid_mask

SHIFT = np.array([18.0, -12.0, 6.0])


def label_blocks() -> np.ndarray:
    """All structures as blocks of 3 x 3 x 3 voxels, side by side in one brain of 4 x 4 x 2 blocks."""
    structures = np.zeros((20, 20, 14), np.int16)
    for position, index in enumerate(LabelTable.load("aseg").indices):
        x, y, z = 4 + 3 * (position % 4), 4 + 3 * (position // 4 % 4), 4 + 3 * (position // 16)
        structures[x : x + 3, y : y + 3, z : z + 3] = index
    return structures


@pytest.fixture
def head(tmp_path: Path) -> LabelledHead:
    structures = label_blocks()
    affine = np.diag([6.0, 6.0, 6.0, 1.0])
    table = LabelTable.load("aseg")
    tissues = np.zeros(structures.shape, np.uint8)
    for row in table:
        tissues[structures == row.index] = TISSUES[row.tissue]
    solid = solid_mask(structures > 0, np.full(3, 6.0))
    rng = np.random.default_rng(0)
    clean = np.where(solid, 40.0 * tissues + rng.normal(0, 2, solid.shape) + 20, 0).astype(np.float32)
    x = np.indices(structures.shape)[0]
    bias = (1 + 0.03 * (x - 10)).astype(np.float32)
    path = tmp_path / "head_T1w.nii.gz"
    image = clean * bias
    nib.Nifti1Image(image, affine).to_filename(path)
    masks = {"solid": solid, "brain": structures > 0, "icv": solid}
    return LabelledHead("tiny", path, image, affine, masks, structures, tissues, bias, clean)


@pytest.fixture
def template(head: LabelledHead) -> TemplateTruth:
    """The same brain on the same grid; its world is the head's, shifted."""
    affine = head.affine.copy()
    affine[:3, 3] += SHIFT
    return TemplateTruth("tiny", head.path, head.clean, head.structures, affine)


@pytest.fixture
def template_from_head() -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = SHIFT
    return matrix


@pytest.fixture
def exact(head: LabelledHead, template_from_head: np.ndarray) -> Prediction:
    """What a perfect app would say about the head; the frame is the template's world."""
    from unibrain_bids.imaging.scan import load_scan

    gain = 1 / head.bias
    return Prediction(
        scan=load_scan(head.path),
        mask=head.masks["solid"].astype(np.uint8),
        preproc=head.image * gain,
        brain=head.clean / 3,
        gain=gain,
        structures=head.structures,
        tissues=head.tissues,
        tissue_probabilities={},
        parcellations={},
        frame_from_scan=template_from_head,
        intracranial_volume=0.0,
    )


@pytest.fixture
def template_prediction(exact: Prediction) -> Prediction:
    """The template is the head itself, seen in the frame where `exact` has brought the head."""
    affine = exact.frame_from_scan @ exact.scan.affine
    return replace(exact, scan=replace(exact.scan, affine=affine), frame_from_scan=np.eye(4))
