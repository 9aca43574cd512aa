"""Structures in one piece: strays go to the next likeliest, bodies stay."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from unibrain_bids.model.anatomy import connected_winners, solid_mask, strays


def scene() -> tuple[np.ndarray, np.ndarray]:
    """Two bodies and, inside the second, a stray voxel of the first; the mask is a ball."""
    centre = np.moveaxis(np.indices((30, 30, 30)), 0, -1) - 15
    mask = np.linalg.norm(centre, axis=-1) < 12
    classes = np.where(centre[..., 0] < 0, 1, 2)
    classes[22, 15, 15] = 1
    return mask, classes


def probabilities(classes: np.ndarray, mask: np.ndarray) -> torch.Tensor:
    winner = torch.from_numpy(classes[mask])
    values = torch.full((4, len(winner)), 0.05)
    values[2] = 0.2
    values[:, :] = values.scatter(0, winner[None], 0.6)
    return values / values.sum(0)


def test_a_stray_takes_its_next_likeliest_class() -> None:
    mask, classes = scene()
    found = np.zeros(mask.shape, dtype=int)
    found[mask] = connected_winners(probabilities(classes, mask), mask)
    expected = np.where(mask, classes, 0)
    expected[22, 15, 15] = 2
    np.testing.assert_array_equal(found, expected)
    for number in (1, 2):
        assert ndimage.label(found == number)[1] == 1


def test_large_parts_are_no_strays() -> None:
    mask, classes = scene()
    classes[18:25, 12:19, 12:19] = 1
    assert not len(strays(classes[mask], mask))


def test_the_rest_may_lie_anywhere() -> None:
    mask, classes = scene()
    classes[20, 15, 15] = classes[8, 15, 15] = 0
    np.testing.assert_array_equal(np.flatnonzero(mask.ravel())[strays(classes[mask], mask)], 22 * 900 + 15 * 30 + 15)


def test_solid_mask_is_the_closing_by_a_ball() -> None:
    rng = np.random.default_rng(0)
    brain = ndimage.gaussian_filter(rng.normal(size=(20, 18, 16)), 1.5) > 0.02
    padded = np.pad(brain, 5)
    grid = np.indices((7, 7, 7)) - 3
    closed = ndimage.binary_closing(padded, structure=(grid**2).sum(axis=0) <= 9)
    expected = ndimage.binary_fill_holes(closed)[5:-5, 5:-5, 5:-5]
    np.testing.assert_array_equal(solid_mask(brain, np.ones(3), radius=3), expected)


def test_solid_mask_closes_in_mm_and_keeps_the_brain() -> None:
    brain = np.zeros((40, 12, 12), bool)
    brain[5:15] = brain[19:35] = True
    brain[8:10, 5:7, 5:7] = False
    brain[:, 0] = False  # the rest of the brain touches the border
    narrow = solid_mask(brain, np.array([1.0, 3.0, 3.0]), radius=6)
    wide = solid_mask(brain, np.array([4.0, 3.0, 3.0]), radius=6)
    assert narrow[17, 6, 6], "a gap of 4 mm is closed"
    assert not wide[17, 6, 6], "a gap of 16 mm is not"
    assert narrow[9, 6, 6] and wide[9, 6, 6], "holes are filled"
    assert (narrow >= brain).all() and (wide >= brain).all()
    assert not narrow[:5].any() and not narrow[35:].any()


def test_closing_closes_sulci_and_fills_holes_and_nothing_else() -> None:
    x, y, z = np.indices((40, 40, 40)) - 19.5
    ball = x**2 + y**2 + z**2 < 16**2
    np.testing.assert_array_equal(solid_mask(ball, np.ones(3), radius=3), ball)
    pitted = ball & ~((abs(x) < 2) & (y > 0)) & ~(x**2 + (y + 8) ** 2 + z**2 < 16)
    closed = solid_mask(pitted, np.ones(3), radius=3)
    assert (closed <= ball).all() and (pitted <= closed).all()
    # A sulcus 4 voxels wide and a ventricle are filled, but for the sulcus' rim.
    assert (ball & ~closed).sum() < 0.1 * (ball & ~pitted).sum()
    cut = pitted[:, :, 12:]
    assert solid_mask(cut, np.ones(3), radius=3).shape == cut.shape, "a mask may touch the volume's border"


def test_without_a_brain_there_is_no_mask() -> None:
    assert not solid_mask(np.zeros((4, 5, 6), dtype=bool), np.ones(3)).any()
