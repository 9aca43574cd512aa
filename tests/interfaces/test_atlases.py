"""Atlases of other spaces, by way of the template that comes with the package."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine

from unibrain_bids.bids.atlases import find_atlas
from unibrain_bids.errors import ResourceError
from unibrain_bids.inference import resource
from unibrain_bids.interfaces.atlases import HOME, frame_from_space, parcellate


def test_spaces_lie_where_the_templates_do():
    same = frame_from_space("MNI152NLin2009cAsym")
    np.testing.assert_allclose(same, frame_from_space(HOME))
    other = np.linalg.inv(frame_from_space(HOME)) @ frame_from_space("MNI152NLin6Asym")
    moved = apply_affine(other, [[0, 0, 0], [60, -60, 50]]) - [[0, 0, 0], [60, -60, 50]]
    assert 0.1 < np.linalg.norm(moved, axis=1).max() < 5, "MNI's templates differ by a few millimetres"


def test_unknown_spaces_are_named():
    with pytest.raises(ResourceError, match="fsaverage"):
        frame_from_space("fsaverage")


def test_the_templates_own_structures_come_back(prediction, tmp_path):
    """An atlas made of the template's thalamus and cortex, projected into the template seen as a scan."""
    from dataclasses import replace

    image = nib.load(resource(f"templates/tpl-{HOME}_res-1_seg-aseg_dseg.nii.gz"))
    structures = np.asarray(image.dataobj)
    labels = np.select([np.isin(structures, (3, 42)), structures == 10], [1, 2], 0).astype(np.uint8)
    path = tmp_path / f"tpl-{HOME}_atlas-Own_dseg.nii.gz"
    nib.save(nib.Nifti1Image(labels, image.affine), path)
    path.with_name(f"tpl-{HOME}_atlas-Own_dseg.tsv").write_text("index\tname\n1\tcortex\n2\tthalamus\n3\tnowhere\n")
    every = slice(None, None, 3)
    affine = image.affine @ np.diag([3, 3, 3, 1])
    scan = replace(prediction.scan, affine=affine)
    own = replace(
        prediction, scan=scan, structures=structures[every, every, every].astype(np.int16),
        frame_from_scan=frame_from_space(HOME),
    )  # fmt: skip
    found = parcellate(own, [find_atlas(str(path))])
    assert list(found) == ["Own"]
    np.testing.assert_array_equal(found["Own"], labels[every, every, every])
