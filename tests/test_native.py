"""The mask that the refined structures make."""

from __future__ import annotations

import numpy as np
import pytest

from unibrain_bids.inference.native import brain_mask
from unibrain_bids.model.locate import fill_holes

SHAPE = (44, 50, 40)
SPACING = np.full(3, 2.0)


@pytest.fixture
def distance() -> np.ndarray:
    """Of each voxel from the middle of the brain, in voxels."""
    return np.linalg.norm(np.moveaxis(np.indices(SHAPE), 0, -1) - [22, 25, 20], axis=-1)


def made(possible: np.ndarray, own: np.ndarray, tissue: np.ndarray) -> np.ndarray:
    """The mask where the network's own is `own` and structures are `tissue`."""
    brain = np.where(own, 0.9, 0.3)[possible].astype(np.float32)
    return brain_mask(possible, brain, tissue[possible], SPACING)


def test_gyri_bound_it_and_sulci_are_closed(distance: np.ndarray) -> None:
    """The network's mask is a voxel too small; a sulcus of 6 mm and a ventricle are no structures here."""
    brain = distance < 16
    tissue = brain & (distance > 4)
    tissue[21:24, 30:] = False
    mask = made(distance < 18, distance < 15, tissue)
    assert (mask <= brain).all() and (mask >= tissue).all()
    assert mask[22, 25, 20] and mask[22, 36, 20], "the ventricle and the sulcus"
    assert (brain & ~mask).sum() < 0.02 * brain.sum()


def test_nothing_joins_it_where_the_network_sees_no_brain(distance: np.ndarray) -> None:
    """Two parts of the brain with a gap that the network rules out: it is not closed; nor does an eye belong to it."""
    possible = distance < 16
    possible[22, 30:] = False
    eye = np.zeros(SHAPE, dtype=bool)
    eye[3:6, 3:6, 3:6] = True
    mask = made(possible | eye, distance < 16, (distance < 16) | eye)
    assert not mask[22, 30:].any() and not mask[eye].any()


def test_it_lies_within_what_may_be_brain(distance: np.ndarray) -> None:
    """Holes of the mask are filled, and voxels within that may be brain are always asked for their structures."""
    possible = fill_holes((distance < 16) & ~(np.indices(SHAPE).sum(0) % 17 == 0))
    mask = made(possible, distance < 16, (distance < 16) & possible)
    assert (mask <= possible).all() and mask.any()


def test_structures_unlike_the_network_s_mask_are_not_trusted(distance: np.ndarray) -> None:
    """As on a contrast that the segmentation does not know."""
    own = distance < 16
    half = own & (np.indices(SHAPE)[0] < 22)
    np.testing.assert_array_equal(made(distance < 18, own, half), own)
    np.testing.assert_array_equal(made(distance < 18, own, np.zeros_like(own)), own)
