"""Structures in one piece: strays go to the next likeliest, bodies stay."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from unibrain_bids.model.anatomy import connected_winners, strays


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
