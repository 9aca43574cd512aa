"""Any atlas in a subject: soft warp, cortex by hemisphere, regions that vanish or are not covered."""

from __future__ import annotations

import numpy as np
import pytest
from nibabel.affines import from_matvec
from scipy.spatial.transform import Rotation

from unibrain_bids.imaging.atlases import REACH_MM, cortical_regions, prepare_atlas, project_atlas

SHAPE = (40, 36, 30)
AFFINE = from_matvec(np.diag([2.0, 2.0, 2.0]), [-39.0, -36.0, -30.0])  # x = 0 between voxels 19 and 20


def brain() -> np.ndarray:
    """Return structures: a box whose shell is cortex (3 left, 42 right) around white matter with two thalami."""
    structures = np.zeros(SHAPE, np.int16)
    left, right = slice(6, 20), slice(20, 34)
    structures[left, 6:30, 6:24], structures[right, 6:30, 6:24] = 3, 42
    structures[8:20, 8:28, 8:22], structures[20:32, 8:28, 8:22] = 2, 41
    structures[15:19, 15:21, 12:18], structures[21:25, 15:21, 12:18] = 10, 49
    return structures


def atlas_labels() -> np.ndarray:
    """Return an atlas: front (11, 12) and back (21, 22) cortex with the white matter under it, and the thalami."""
    structures = brain()
    labels = np.zeros(SHAPE, np.int32)
    thick = np.zeros(SHAPE, bool)
    thick[6:34, 6:30, 6:24] = True
    thick[9:31, 9:27, 9:21] = False
    for side, (front, back) in (((slice(0, 20)), (12, 22)), ((slice(20, 40)), (11, 21))):
        half = np.zeros(SHAPE, bool)
        half[side] = True
        forward = np.indices(SHAPE)[1] >= 18
        labels[half & thick & forward], labels[half & thick & ~forward] = front, back
    labels[structures == 10], labels[structures == 49] = 32, 31
    return labels


def test_regions_are_told_apart_by_what_they_lie_in() -> None:
    assert cortical_regions(atlas_labels(), brain()) == {11, 12, 21, 22}
    assert cortical_regions(np.where(brain() == 2, 5, 0), brain()) == frozenset(), "white matter is no cortex"


def test_every_cortex_voxel_gets_the_region_of_its_side() -> None:
    atlas = prepare_atlas(atlas_labels(), AFFINE, brain())
    shifted = from_matvec(
        np.eye(3), [5.0, 3.0, -3.0]
    )  # the subject's cortex and the warped atlas don't meet everywhere
    structures = brain()
    regions = project_atlas(atlas, structures, AFFINE, atlas_from_scan=shifted)
    assert set(np.unique(regions[structures == 3])) == {12, 22}
    assert set(np.unique(regions[structures == 42])) == {11, 21}
    # the boundary between front and back moves by the affine: 3 mm, one voxel and a half
    front = (regions == 12) & (structures == 3)
    assert np.argwhere(front)[:, 1].min() in (16, 17)
    assert not regions[np.isin(structures, (0, 2, 41))].any() or set(
        np.unique(regions[np.isin(structures, (2, 41))])
    ) <= {0, 31, 32}, "cortical regions stay out of white matter"


def test_identity_gives_the_atlas_back_within_grey_matter() -> None:
    atlas = prepare_atlas(atlas_labels(), AFFINE, brain())
    structures = brain()
    regions = project_atlas(atlas, structures, AFFINE, atlas_from_scan=np.eye(4))
    grey = np.isin(structures, (3, 42, 10, 49))
    np.testing.assert_array_equal(regions[grey], atlas_labels()[grey])
    np.testing.assert_array_equal(regions[structures == 0], 0)


def test_any_grid_and_orientation_of_the_scan() -> None:
    atlas = prepare_atlas(atlas_labels(), AFFINE, brain())
    turn = from_matvec(Rotation.from_euler("z", 90, degrees=True).as_matrix(), [7, -3, 2])
    structures = np.flip(brain(), axis=1)
    flipped = AFFINE @ from_matvec(np.diag([1, -1, 1]), [0, SHAPE[1] - 1, 0])
    regions = project_atlas(atlas, structures, turn @ flipped, atlas_from_scan=np.linalg.inv(turn))
    expected = project_atlas(atlas, brain(), AFFINE, atlas_from_scan=np.eye(4))
    np.testing.assert_array_equal(regions, np.flip(expected, axis=1))


def test_a_partial_atlas_stays_partial() -> None:
    labels = np.where(atlas_labels() == 12, 12, 0)
    labels[:, 22:] = 0
    atlas = prepare_atlas(labels, AFFINE, brain())
    regions = project_atlas(atlas, brain(), AFFINE, atlas_from_scan=np.eye(4))
    y = np.argwhere(regions == 12)[:, 1]
    assert y.min() == 18 - REACH_MM / 2 and y.max() == 21 + REACH_MM / 2
    assert not regions[20:].any(), "the other hemisphere has no region"


def test_an_atlas_without_cortex_is_warped_as_it_is() -> None:
    labels = np.where(brain() == 2, 5, 0)
    atlas = prepare_atlas(labels, AFFINE, brain())
    assert not atlas.cortical
    moved = project_atlas(atlas, brain(), AFFINE, atlas_from_scan=from_matvec(np.eye(3), [0, 2.0, 0]))
    np.testing.assert_array_equal(moved[8:15, 7:27, 10] == 5, np.roll(labels, -1, 1)[8:15, 7:27, 10] == 5)


def test_a_region_of_both_sides_is_found_on_both() -> None:
    labels = np.where(np.isin(atlas_labels(), (11, 12)), 7, 0)
    regions = project_atlas(prepare_atlas(labels, AFFINE, brain()), brain(), AFFINE, atlas_from_scan=np.eye(4))
    assert (regions[brain() == 3] == 7).any() and (regions[brain() == 42] == 7).any()


@pytest.mark.parametrize("shift", [0.3, 0.45])
def test_votes_weigh_the_eight_neighbours(shift: float) -> None:
    labels = np.zeros((8, 8, 8), np.int32)
    labels[:4], labels[4:] = 1, 2
    structures = np.full((8, 8, 8), 16, np.int16)
    atlas = prepare_atlas(labels, np.eye(4), structures)
    regions = project_atlas(atlas, structures, np.eye(4), atlas_from_scan=from_matvec(np.eye(3), [shift, 0, 0]))
    np.testing.assert_array_equal(regions[3, 2:6, 2:6], 1)
    np.testing.assert_array_equal(regions[4, 2:6, 2:6], 2)
