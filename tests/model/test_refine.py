"""Refinement on the mean head, moved by affines that are known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from unibrain_bids.model import frame
from unibrain_bids.model.atlas import Atlas
from unibrain_bids.model.refine import AlignedBrain, align_brain, refine, refine_twice

NUMBERS = np.array([0, *frame.STRUCTURES])
AFFINE = frame.affine()


@pytest.fixture(scope="module")
def structures(atlas: Atlas) -> NDArray[np.integer]:
    """FreeSurfer numbers of the mean head (X, Y, Z)."""
    found: NDArray[np.integer] = NUMBERS[atlas.structures[0].argmax(0).numpy()]
    return found


@pytest.fixture(scope="module")
def image(atlas: Atlas, structures: NDArray[np.integer]) -> NDArray[np.floating]:
    return atlas.template[0, 0].numpy() * (structures > 0)


@pytest.fixture(scope="module")
def fixed(image: NDArray[np.floating], structures: NDArray[np.integer]) -> AlignedBrain:
    return align_brain(image, structures, AFFINE, np.eye(4))


def distance(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Mean distance in mm of where two affines send the voxels within 70 mm of the middle."""
    points = frame.points(spacing=16.0, shape=(9, 11, 9)).view(-1, 3).numpy()
    points = points[np.linalg.norm(points, axis=1) < 70]
    difference = a - b
    return float(np.linalg.norm(points @ difference[:3, :3].T + difference[:3, 3], axis=1).mean())


def test_what_lies_in_the_frame_stays_as_it_is(fixed: AlignedBrain, structures: NDArray[np.integer]) -> None:
    np.testing.assert_array_equal(NUMBERS[fixed.channels.numpy()], structures)


def test_a_known_affine_is_found(fixed, image, structures, make_affine) -> None:  # type: ignore[no-untyped-def]
    """The moving brain is the fixed one, its world moved: a point x of the fixed lies at truth @ x of the moving."""
    truth = make_affine((4, -3, 5), (1.05, 0.95, 1.03), (3, -4, 2)).numpy()
    moving = align_brain(image, structures, truth @ AFFINE, np.eye(4))
    found = refine(fixed, moving)
    assert distance(np.eye(4), truth) > 5
    assert distance(found.moving_from_fixed, truth) < 0.7
    assert found.overlap > 0.6
    assert found.correlation > 0.95


def test_two_starts_end_at_one_place(fixed, image, structures, make_affine) -> None:  # type: ignore[no-untyped-def]
    truth = make_affine((3, 2, -4), (1.04, 0.97, 1), (2, 3, -3)).numpy()
    worlds = [
        refine_twice(fixed, image, structures, truth @ AFFINE, start).worlds(np.eye(4), start)
        for start in (np.eye(4), make_affine((1, -2, 1), (1.0, 1.02, 0.99), (-1, 2, 1)).numpy())
    ]
    assert distance(*worlds) < 0.3
    assert distance(np.linalg.inv(worlds[0]), truth) < 0.5


def test_the_way_is_found_from_far(
    fixed: AlignedBrain,
    image: NDArray[np.floating],
    structures: NDArray[np.integer],
    make_affine: Callable[..., torch.Tensor],
) -> None:
    """Without the blurred brain first it ends twice as far off."""
    truth = make_affine((10, -8, 10), (1.08, 1.08, 1.08), (8, -8, 8)).numpy()
    world = refine_twice(fixed, image, structures, truth @ AFFINE, np.eye(4)).worlds(np.eye(4), np.eye(4))
    assert distance(np.eye(4), truth) > 15
    assert distance(np.linalg.inv(world), truth) < 0.4


def test_bias_and_scale_of_the_intensities_do_not_decide(fixed, image, structures, make_affine) -> None:  # type: ignore[no-untyped-def]
    truth = make_affine((3, 2, -4), (1.04, 0.97, 1), (2, 3, -3)).numpy()
    spoilt = 700 * image * np.linspace(0.8, 1.2, image.shape[1])[None, :, None]
    found = refine(fixed, align_brain(spoilt, structures, truth @ AFFINE, np.eye(4)))
    assert distance(found.moving_from_fixed, truth) < 1.0


def test_tissues_are_painted_and_intensities_keep_their_scale(
    fixed: AlignedBrain, image: NDArray[np.floating], structures: NDArray[np.integer]
) -> None:
    twice = align_brain(2 * image, structures, AFFINE, np.eye(4))
    torch.testing.assert_close(twice.tissues, fixed.tissues)
    torch.testing.assert_close(twice.image, 2 * fixed.image)
    white = torch.isin(fixed.channels, torch.tensor([frame.STRUCTURES.index(number) + 1 for number in (2, 41)]))
    assert float(fixed.tissues[white].median()) == pytest.approx(1.0)
    assert float(fixed.tissues[fixed.image == 0].max()) == 0.0


def test_nothing_in_common_leaves_the_closed_form(fixed: AlignedBrain) -> None:
    nothing = AlignedBrain(torch.zeros_like(fixed.channels), fixed.image, torch.zeros_like(fixed.tissues))
    found = refine(fixed, nothing)
    np.testing.assert_array_equal(found.moving_from_fixed, np.eye(4))
    assert found.overlap == 0


def test_brains_far_apart_are_not_torn_together(fixed, image, structures, make_affine) -> None:  # type: ignore[no-untyped-def]
    away = align_brain(image, structures, make_affine(shift=(0, 70, 0)).numpy() @ AFFINE, np.eye(4))
    found = refine(fixed, away)
    assert np.linalg.norm(found.moving_from_fixed[:3, 3]) < 25
