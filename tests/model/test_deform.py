"""The deformation of the mean head, bent by fields that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from unibrain_bids.model import frame
from unibrain_bids.model.atlas import Atlas
from unibrain_bids.model.deform import Deformation, deform
from unibrain_bids.model.refine import AlignedBrain, align_brain

NUMBERS = np.array([0, *frame.STRUCTURES])


@pytest.fixture(scope="module")
def fixed(atlas: Atlas) -> AlignedBrain:
    structures = NUMBERS[atlas.structures[0].argmax(0).numpy()]
    return align_brain(atlas.template[0, 0].numpy() * (structures > 0), structures, frame.affine(), np.eye(4))


@pytest.fixture(scope="module")
def bend() -> NDArray[np.float64]:
    """Displacements (3, X, Y, Z) in mm, up to 8, each part of the brain another way."""
    rough = np.random.default_rng(3).normal(size=(3, *frame.SHAPE))
    smooth = np.stack([ndimage.gaussian_filter(part, 9) for part in rough])
    return smooth * (8 / np.abs(smooth).max())


@pytest.fixture(scope="module")
def moving(fixed: AlignedBrain, bend: NDArray[np.float64]) -> AlignedBrain:
    """The fixed brain bent: what lies at x lay at x + bend(x)."""
    places = np.indices(frame.SHAPE) + bend / frame.SPACING
    channels = ndimage.map_coordinates(fixed.channels.numpy(), places, order=0)
    image, tissues = (ndimage.map_coordinates(part.numpy(), places, order=1) for part in (fixed.image, fixed.tissues))
    return AlignedBrain(torch.from_numpy(channels), torch.from_numpy(image), torch.from_numpy(tissues))


@pytest.fixture(scope="module")
def found(fixed: AlignedBrain, moving: AlignedBrain) -> Deformation:
    return deform(fixed, moving)


def brain_points(brain: AlignedBrain) -> NDArray[np.float64]:
    chosen = torch.zeros(frame.SHAPE, dtype=torch.bool)
    chosen[::5, ::5, ::5] = True
    return frame.points()[chosen & (brain.channels > 0)].numpy().astype(np.float64)


def test_a_known_bend_is_found(moving: AlignedBrain, bend: NDArray[np.float64], found: Deformation) -> None:
    """In the moving brain's places, where the truth is given."""
    points = brain_points(moving)
    voxels = ((points - frame.affine()[:3, 3]) / frame.SPACING).round().astype(int)
    truth = bend[:, voxels[:, 0], voxels[:, 1], voxels[:, 2]].T
    missed = np.linalg.norm(found.fixed_from_moving(points) - (points + truth), axis=1)
    assert missed.mean() < 0.45 * np.linalg.norm(truth, axis=1).mean()
    assert np.median(missed) < 0.8


def test_the_inverse_is_one(fixed: AlignedBrain, found: Deformation) -> None:
    points = brain_points(fixed)
    back = np.linalg.norm(found.fixed_from_moving(found.moving_from_fixed(points)) - points, axis=1)
    assert back.mean() < 0.1
    assert back.max() < 0.7


def test_nothing_folds(found: Deformation) -> None:
    determinants = found.determinants()
    assert determinants.min() > 0.2
    assert determinants.max() > 1.1


def test_determinants_are_those_of_the_map() -> None:
    """A field that stretches x by a tenth."""
    shape = (40, 48, 40)
    x = (np.indices(shape)[0] - (shape[0] - 1) / 2) * 4.0
    field = np.stack([0.1 * x, 0 * x, 0 * x]).astype(np.float32)
    np.testing.assert_allclose(Deformation(field, -field).determinants(), 1.1, rtol=1e-4)


def test_what_fits_already_stays(fixed: AlignedBrain) -> None:
    moves = np.abs(deform(fixed, fixed).forward)
    assert moves.mean() < 0.2
    assert moves.max() < 1.2


def test_brains_without_a_common_structure_stay(fixed: AlignedBrain) -> None:
    nothing = AlignedBrain(torch.zeros_like(fixed.channels), fixed.image, fixed.tissues)
    assert not deform(fixed, nothing).forward.any()


def test_the_number_of_threads_changes_no_bit(fixed: AlignedBrain, moving: AlignedBrain, found: Deformation) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2 if threads == 1 else 1)
    try:
        np.testing.assert_array_equal(deform(fixed, moving).forward, found.forward)
    finally:
        torch.set_num_threads(threads)
