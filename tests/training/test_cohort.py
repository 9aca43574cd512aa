"""Which scans, masks and segmentations make a cohort, and how they come to the model grid."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from unibrain_bids.demo import phantom_material
from unibrain_bids.errors import DatasetError, NoScansError
from unibrain_bids.imaging.images import SCANNER_CODE, save_image
from unibrain_bids.inference.loading import load_model
from unibrain_bids.model import frame
from unibrain_bids.training.augmentation import Sample, augment
from unibrain_bids.training.cohort import find_cohort, prepare
from unibrain_bids.training.simulation.geometry import PoseRange
from unibrain_bids.training.simulation.simulator import SimulationRange, simulate

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def image(path: Path, *, shape=(4, 5, 6), affine=AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.ones(shape, np.int16), affine), path)
    return path


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    root = tmp_path / "raw"
    image(root / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    image(root / "sub-02" / "ses-a" / "anat" / "sub-02_ses-a_acq-x_run-1_T1w.nii.gz")
    (root / "dataset_description.json").write_text(json.dumps({"Name": "Tiny", "BIDSVersion": "1.10.0"}))
    return root


class TestFinding:
    def test_files_of_any_pipeline_in_the_scans_own_space(self, raw: Path, tmp_path: Path) -> None:
        ours, theirs = tmp_path / "ours", tmp_path / "fmriprep"
        first = image(ours / "sub-01" / "anat" / "sub-01_desc-brain_mask.nii.gz")
        dseg = image(ours / "sub-01" / "anat" / "sub-01_seg-aseg_dseg.nii.gz")
        anat = theirs / "sub-02" / "ses-a" / "anat"
        image(anat / "sub-02_ses-a_acq-x_run-1_space-MNI152NLin2009cAsym_desc-brain_mask.nii.gz", shape=(9, 9, 9))
        image(anat / "sub-02_ses-a_acq-y_desc-brain_mask.nii.gz")
        image(anat / "sub-02_ses-a_acq-x_run-1_dseg.nii.gz")
        image(anat / "sub-02_ses-a_desc-brain_mask.nii.gz")
        second = image(anat / "sub-02_ses-a_acq-x_run-1_desc-brain_mask.nii.gz")
        aseg = image(anat / "sub-02_ses-a_acq-x_run-1_desc-aseg_dseg.nii.gz")
        one, two = find_cohort(raw, [ours, theirs])
        assert (one.mask, one.segmentation) == (first, dseg)
        assert (two.mask, two.segmentation) == (second, aseg)
        assert (one.participant, two.participant) == ("sub-01", "sub-02")

    def test_the_first_dataset_that_has_a_mask_counts(self, raw: Path, tmp_path: Path) -> None:
        paths = [image(tmp_path / d / "sub-01" / "anat" / "sub-01_desc-brain_mask.nii.gz") for d in ("a", "b")]
        found = find_cohort(raw, [tmp_path / "b", tmp_path / "a"], participants=["01"])
        assert [scan.mask for scan in found] == [paths[1]]

    def test_masks_stored_in_another_order_are_the_same_grid(self, raw: Path, tmp_path: Path) -> None:
        turned = np.array([[0, 0, -2.0, 6], [0, -2, 0, 8], [2, 0, 0, 0], [0, 0, 0, 1]])
        mask = image(
            tmp_path / "d" / "sub-01" / "anat" / "sub-01_desc-brain_mask.nii.gz", shape=(6, 5, 4), affine=turned
        )
        found = find_cohort(raw, [tmp_path / "d"], participants=["01"])
        assert found[0].mask == mask

    @pytest.mark.parametrize("grid", [{"shape": (4, 5, 7)}, {"affine": np.diag([2.0, 2, 2.1, 1])}])
    def test_a_mask_on_another_grid_is_named(self, grid, raw: Path, tmp_path: Path) -> None:
        mask = image(tmp_path / "d" / "sub-01" / "anat" / "sub-01_desc-brain_mask.nii.gz", **grid)
        with pytest.raises(DatasetError, match=r"another grid.*Resample") as error:
            find_cohort(raw, [tmp_path / "d"])
        assert str(mask) in str(error.value)

    def test_missing_folders_and_scans_are_named(self, raw: Path, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match="nowhere: there is no such folder"):
            find_cohort(raw, [tmp_path / "nowhere"])
        with pytest.raises(NoScansError, match="no image matches"):
            find_cohort(raw, filters={"acquisition": "none"})


class TestAugmentation:
    def sample(self) -> Sample:
        """A ball left of the middle."""
        points = frame.points()
        ball = ((points - torch.tensor([-30.0, 0, 0])).norm(dim=-1) < 20)[None, None].float()
        return Sample(0.5 * ball, 7.0, ball, ball[0].long() * 3)

    def test_truth_moves_with_the_image(self) -> None:
        for seed in range(3):
            seen = augment(self.sample(), seed)
            assert seen.mask is not None and seen.structures is not None
            inside = seen.mask[0, 0] > 0.9
            assert seen.image[0, 0][inside].mean() > 5 * seen.image[0, 0][seen.mask[0, 0] < 0.1].mean()
            assert (seen.structures[0][inside] == 3).all()
            assert set(seen.structures.unique().tolist()) <= {-1, 0, 3}

    def test_left_stays_left_and_volume_the_persons(self) -> None:
        given = self.sample()
        for seed in range(5):
            seen = augment(given, seed)
            centre = (seen.mask[0, 0][..., None] * frame.points()).sum((0, 1, 2)) / seen.mask.sum()
            assert centre[0] < -15
            assert seen.voxel * float(seen.mask.sum()) == pytest.approx(given.voxel * float(given.mask.sum()), rel=0.01)

    def test_the_same_seed_gives_the_same(self) -> None:
        first, again, other = (augment(self.sample(), seed).image for seed in (1, 1, 2))
        assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.slow
def test_scans_are_prepared_once_by_the_shipped_model(tmp_path: Path) -> None:
    """A simulated head: truth stored in another order lies on the grid as the model sees the head."""
    span = SimulationRange(
        (96, 104, 96), 2.2, PoseRange(5, 4, 0.03, 0.0), t1_fraction=1.0, bias=0.1, missing_parts=False
    )
    with torch.inference_mode():
        head = simulate(phantom_material(), span, 7, head=0)
    numbers = np.array([0, *frame.STRUCTURES])[head.structures[0].numpy()]
    affine = frame.affine(span.spacing, span.shape)
    raw, truth = tmp_path / "raw", tmp_path / "truth"
    for folder in (raw, truth):
        (folder / "sub-01" / "anat").mkdir(parents=True)
        (folder / "dataset_description.json").write_text(json.dumps({"Name": "One", "BIDSVersion": "1.10.0"}))
    scan = (1000 * head.image[0, 0]).round().numpy().astype(np.int16)
    save_image(raw / "sub-01" / "anat" / "sub-01_T1w.nii.gz", scan, affine=affine, code=SCANNER_CODE)
    turn = np.diag([-1.0, 1, 1, 1])
    turn[0, 3] = span.shape[0] - 1
    for name, data in (("desc-brain_mask", head.brain[0, 0].numpy()), ("seg-aseg_dseg", numbers)):
        path = truth / "sub-01" / "anat" / f"sub-01_{name}.nii.gz"
        save_image(path, data[::-1].astype(np.int16), affine=affine @ turn, code=SCANNER_CODE)

    model, said = load_model("cpu"), []
    found = find_cohort(raw, [truth])
    prepared, failed = prepare(found, model, tmp_path / "cache", progress=said.append)
    again, _ = prepare(found, model, tmp_path / "cache", progress=said.append)
    assert failed == {} and len(said) == 1, "the second time, nothing is done"
    assert torch.equal(prepared["sub-01"].sample.image, again["sub-01"].sample.image)
    sample = prepared["sub-01"].sample
    with torch.inference_mode():
        seen = model.unibrain(sample.image, torch.full((1,), 0.1))
    for ours, theirs in (
        (seen.dense.mask_logits[:, 0] > 0, sample.mask[:, 0] > 0.5),
        (seen.dense.structure_logits.argmax(1) == 1, sample.structures == 1),
    ):
        overlap = 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum())
        assert overlap > 0.75
    volume = sample.voxel * float(sample.mask.sum())
    assert volume == pytest.approx(float(head.brain.sum()) * span.spacing**3, rel=0.02)
