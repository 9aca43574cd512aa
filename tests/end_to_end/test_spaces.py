"""A template of the user's own: the phantom's head itself, turned and moved, so that the affine to it is known.

Results are deformed, too: to this template by next to nothing, to the package's by much.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine, from_matvec
from nibabel.nifti1 import Nifti1Image
from nibabel.spatialimages import SpatialImage
from scipy.spatial.transform import Rotation

from unibrain_bids.app.cli import main
from unibrain_bids.bids.derivatives import expected_outputs
from unibrain_bids.bids.templates import Space, find_space
from unibrain_bids.imaging.itk import read_itk_affine

from .conftest import OPTIONS, turned

TASKS = ("mask", "register", "segment")
# World of the scan to that of the template: sideways, up, and turned about two axes.
TEMPLATE_FROM_SCAN = from_matvec(Rotation.from_euler("xz", [8, -6], degrees=True).as_matrix(), [14.0, -9.0, 21.0])


@dataclass(frozen=True)
class SpacesRun:
    """A finished run with two templates: folder, exit code, the user's template as a file and as an output space."""

    out: Path
    code: int
    template: SpatialImage
    space: Space

    def image(self, name: str) -> Nifti1Image:
        return Nifti1Image.from_filename(self.out / f"sub-01/ses-1/anat/sub-01_ses-1_{name}.nii.gz")


@pytest.fixture(scope="module")
def moved(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> SpacesRun:
    folder = tmp_path_factory.mktemp("spaces")
    head = Nifti1Image.from_filename(next(raw.glob("sub-01/ses-1/anat/*_T1w.nii.gz")))
    template = turned(Nifti1Image(head.get_fdata(dtype=np.float32), TEMPLATE_FROM_SCAN @ head.affine), "LIA")
    nib.save(template, folder / "mine_T1w.nii.gz")
    word = f"mine={folder / 'mine_T1w.nii.gz'}"
    words = ["--output-spaces", word, "MNI152NLin2009aSym", "--tasks", *TASKS, "--session-label", "1", "--no-report"]
    words.append("--nonlinear")
    out = folder / "out"
    return SpacesRun(out, main([str(raw), str(out), "participant", *OPTIONS, *words]), template, find_space(word))


def test_each_template_has_its_outputs(moved, run, validator_errors):
    assert moved.code == 0
    assert validator_errors(moved.out) == []
    found = {path.relative_to(moved.out) for path in (moved.out / "sub-01").rglob("*") if path.is_file()}
    assert found == set(expected_outputs(run.scans[0], spaces=[moved.space, Space()], tasks=TASKS, nonlinear=True))
    assert {path.name for path in found if "space-mine_" in path.name and path.suffix == ".gz"} == {
        "sub-01_ses-1_space-mine_desc-brain_mask.nii.gz",
        "sub-01_ses-1_space-mine_seg-aseg_dseg.nii.gz",
        "sub-01_ses-1_space-mine_seg-tissue_dseg.nii.gz",
    }


def test_sidecars_name_template_and_grid(moved):
    path = moved.out / "sub-01/ses-1/anat/sub-01_ses-1_space-mine_desc-brain_mask.json"
    content = json.loads(path.read_text())
    assert content["SpatialReference"] == moved.space.image.as_uri()
    assert content["Resolution"].startswith("2 mm isotropic")
    stem = "bids::sub-01/ses-1/anat/sub-01_ses-1_from-T1w_to-mine_mode-image"
    assert content["Sources"][1:] == [f"{stem}_desc-warp_xfm.nii.gz", f"{stem}_xfm.txt"]
    warp = json.loads((moved.out / f"{stem.removeprefix('bids::')}_desc-warp_xfm.json").read_text())
    assert warp["Resolution"].startswith("4 mm")
    assert warp["SpatialReference"] == content["SpatialReference"]


def test_affine_is_the_known_one(moved):
    path = moved.out / "sub-01/ses-1/anat/sub-01_ses-1_from-T1w_to-mine_mode-image_xfm.txt"
    mask = moved.image("desc-brain_mask")
    points = apply_affine(mask.affine, np.argwhere(np.asarray(mask.dataobj)))
    found = apply_affine(np.linalg.inv(read_itk_affine(path)), points)
    errors = np.linalg.norm(found - apply_affine(TEMPLATE_FROM_SCAN, points), axis=1)
    assert errors.mean() < 2 and errors.max() < 5, "mm; a mirrored or misplaced brain is tens of mm off"


def test_structures_lie_where_the_templates_are(moved):
    """On the template's own grid, whose axes are stored in another order and whose left is elsewhere."""
    native, there = moved.image("seg-aseg_dseg"), moved.image("space-mine_seg-aseg_dseg")
    assert there.shape == moved.template.shape
    np.testing.assert_allclose(there.affine, moved.template.affine, atol=1e-4)
    for number in (4, 43, 10, 49, 8, 47):  # ventricles, thalami and cerebella of both sides
        before, after = (
            apply_affine(image.affine, np.argwhere(np.asarray(image.dataobj) == number).mean(0))
            for image in (native, there)
        )
        assert np.linalg.norm(after - apply_affine(TEMPLATE_FROM_SCAN, before)) < 3, number


def test_displacements_are_small_where_the_template_is_the_head_itself(moved):
    to_mine, to_package = (
        np.linalg.norm(moved.image(f"from-T1w_to-{name}_mode-image_desc-warp_xfm").get_fdata(), axis=-1)
        for name in ("mine", "MNI152NLin2009aSym")
    )
    assert to_mine.mean() < 0.5 < 1 < to_package.mean()


def test_displacements_are_read_by_nitransforms_and_give_the_same_labels(moved):
    """Points of the template go through the displacements, then through the affine, as ANTs is told to do it."""
    nonlinear = pytest.importorskip("nitransforms.nonlinear")
    stem = moved.out / "sub-01/ses-1/anat/sub-01_ses-1_from-T1w_to-MNI152NLin2009aSym_mode-image"
    field = nonlinear.load(f"{stem}_desc-warp_xfm.nii.gz", fmt="itk")
    native = moved.image("seg-aseg_dseg")
    there = moved.image("space-MNI152NLin2009aSym_seg-aseg_res-1_dseg")
    labels, scan_labels = np.asarray(there.dataobj), np.asarray(native.dataobj)
    voxels = np.argwhere(labels)[::500]
    points = apply_affine(there.affine, voxels)
    scan_from_template = read_itk_affine(f"{stem}_xfm.txt")
    right = {}
    for name, places in (("deformed", field.map(points)), ("affine alone", points)):
        found = apply_affine(np.linalg.inv(native.affine) @ scan_from_template, places).round().astype(int)
        right[name] = np.mean(scan_labels[tuple(found.T)] == labels[tuple(voxels.T)])
    assert right["affine alone"] < 0.85 < 0.93 < right["deformed"], right


def test_quality_tells_of_the_first_template(moved):
    quality = json.loads((moved.out / "sub-01/ses-1/anat/sub-01_ses-1_desc-qc_T1w.json").read_text())
    assert quality["registration_overlap"] > 0.5 and quality["registration_correlation"] > 0.9


def test_mistakes_are_told_before_anything_is_written(raw, tmp_path, capsys):
    words = ["--output-spaces", f"mine={tmp_path / 'none.nii.gz'}"]
    assert main([str(raw), str(tmp_path / "out"), "participant", *OPTIONS, *words]) == 2
    assert "none.nii.gz: no such file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
