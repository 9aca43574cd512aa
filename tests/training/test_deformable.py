"""The parts of the deformable propagation that need no ANTs: descriptions, places, votes."""

from __future__ import annotations

import numpy as np
import pytest

from unibrain_bids.training.deformable import SPACING, Grid, Labelled, _majority, _smoothed, describe

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


@pytest.fixture(scope="module")
def ball() -> Labelled:
    """White matter of 20 mm radius in 4 mm of cortex, a thalamus in the middle; far from the volume's edge."""
    x, y, z = (np.indices((80, 60, 60)) - np.array([50, 30, 30])[:, None, None, None]) * 2.0
    distance = np.sqrt(x**2 + y**2 + z**2)
    return Labelled(np.select([distance < 6, distance < 20, distance < 24], [10, 2, 3], 0), AFFINE)


def test_cropping_keeps_every_label_in_its_place(ball: Labelled) -> None:
    cropped = ball.cropped()
    assert cropped.structures.size < ball.structures.size
    for label in (2, 3, 10):
        before, after = (brain.world(np.argwhere(brain.structures == label)) for brain in (ball, cropped))
        np.testing.assert_allclose(np.sort(before, axis=0), np.sort(after, axis=0))


def test_description_gives_distances_and_directions(ball: Labelled) -> None:
    grid = Grid.around(ball)
    described = describe(ball, grid, np.eye(4))
    centre = np.array([100.0, 60.0, 60.0])
    # distances count from the centres of voxels of 2 mm
    for radius, white, pial in ((18.0, -2.0, -6.0), (22.0, 2.0, -2.0), (25.0, 5.0, 1.0)):
        point = (centre + np.array([0, radius, 0]))[None]
        assert grid.read(described.white, point)[0] == pytest.approx(white, abs=2.0)
        assert grid.read(described.pial, point)[0] == pytest.approx(pial, abs=2.0)
    assert grid.read(described.deep, centre[None])[0] > 0.3
    outwards = np.array([1.0, -2.0, 2.0]) / 3
    found = [grid.read(axis, (centre + 22 * outwards)[None])[0] for axis in described.direction]
    np.testing.assert_allclose(found, outwards, atol=0.15)


def test_description_follows_the_affine(ball: Labelled) -> None:
    grid = Grid.around(ball)
    shift = np.eye(4)
    shift[:3, 3] = [2 * SPACING, 0, 0]
    plain, moved = (describe(ball, grid, matrix).pial for matrix in (np.eye(4), shift))
    np.testing.assert_allclose(moved[:-2], plain[2:], atol=1e-3)


def test_majority_is_the_commonest_vote() -> None:
    votes = np.array([[3, 3, 7], [35, 7, 7], [1, 2, 3]], np.uint8)
    np.testing.assert_array_equal(_majority(votes), [3, 7, 1])


def test_smoothing_removes_specks_and_keeps_regions() -> None:
    regions = np.zeros((20, 20, 3), np.uint8)
    regions[:10], regions[10:] = 4, 9
    expected = regions.copy()
    regions[5, 5, 1], regions[15, 10, 0] = 9, 4
    voxels = np.argwhere(regions)
    np.testing.assert_array_equal(_smoothed(regions, voxels), expected[tuple(voxels.T)])
