"""Atlases of other spaces, by way of the template that comes with the package."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from scipy import ndimage

from unibrain_bids.bids.atlases import find_atlas
from unibrain_bids.errors import ResourceError
from unibrain_bids.inference import resource
from unibrain_bids.interfaces.atlases import HOME, follow_cortex, frame_from_space, parcellate
from unibrain_bids.interfaces.registration import Registration, register
from unibrain_bids.interfaces.template import load_template, template_path


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
    image = nib.load(resource(f"templates/tpl-{HOME}_res-1_seg-aseg_dseg.nii.gz"))
    structures = np.asarray(image.dataobj)
    labels = np.select([np.isin(structures, (3, 42)), structures == 10], [1, 2], 0).astype(np.uint8)
    path = tmp_path / f"tpl-{HOME}_atlas-Own_dseg.nii.gz"
    nib.save(nib.Nifti1Image(labels, image.affine), path)
    path.with_name(f"tpl-{HOME}_atlas-Own_dseg.tsv").write_text("index\tname\n1\tcortex\n2\tthalamus\n3\tnowhere\n")
    every = slice(None, None, 3)
    affine = image.affine @ np.diag([3, 3, 3, 1])
    scan = replace(prediction.scan, affine=affine)
    own = replace(prediction, scan=scan, structures=structures[every, every, every].astype(np.int16))
    registration = Registration(np.eye(4), frame_from_space(HOME))
    found = parcellate(own, [find_atlas(str(path))], registration)
    assert list(found) == ["Own"]
    np.testing.assert_array_equal(found["Own"], labels[every, every, every])


def test_a_bent_template_gets_its_regions_back(prediction):
    """The package's template, its left and right sides bent apart by a wave of 6 mm, is seen as a scan."""
    home = load_template(HOME)
    labels = {
        kind: np.asarray(nib.load(resource(f"templates/tpl-{HOME}_res-1_{kind}_dseg.nii.gz")).dataobj)
        for kind in ("seg-aseg", "atlas-DK")
    }
    brain = np.where(labels["seg-aseg"] > 0, nib.load(template_path(HOME)).get_fdata(dtype=np.float32), 0)
    every = slice(None, None, 2)
    places = np.indices(home.shape)[:, every, every, every].astype(np.float64)
    places[2] += 6 * np.sin(places[1] / 20) * np.sign(places[0] - home.shape[0] / 2)
    bent = {kind: ndimage.map_coordinates(data, places, order=0) for kind, data in labels.items()}
    scan = replace(prediction.scan, affine=home.affine @ np.diag([2, 2, 2, 1]))
    seen = replace(prediction, scan=scan, structures=bent["seg-aseg"].astype(np.int16))
    image = ndimage.map_coordinates(brain, places, order=1)
    where = (image, seen.structures, scan.affine, home.frame_from_template)
    unknown = np.zeros(image.shape, dtype=np.int32)
    cortical = bent["atlas-DK"] >= 1000
    right = {}
    for nonlinear in (False, True):
        registration = register(home, *where, nonlinear=nonlinear)
        found = follow_cortex(unknown, seen, registration)
        right[nonlinear] = (found == bent["atlas-DK"])[cortical].mean()
    assert right[False] < 0.9 < 0.95 < right[True], right
