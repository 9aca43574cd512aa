"""The frame's numbering: sides, groups, coordinates."""

from __future__ import annotations

import numpy as np
import torch

from unibrain_bids.labels import LabelTable
from unibrain_bids.model import frame
from unibrain_bids.model.atlas import Atlas


def test_flip_permutation_exchanges_sides_by_name() -> None:
    permutation = frame.flip_permutation()
    assert [permutation[channel] for channel in permutation] == list(range(len(frame.STRUCTURES) + 1))
    names = {row.index: row.name for row in LabelTable.load("aseg")}
    numbers = [0, *frame.STRUCTURES]
    for channel, mirrored in enumerate(permutation[1:], start=1):
        name = names[numbers[channel]]
        swapped = name.replace("Left-", "?").replace("Right-", "Left-").replace("?", "Right-")
        assert names[numbers[mirrored]] == swapped


def test_prior_groups_partition_the_structures() -> None:
    groups = frame.prior_groups()
    assert sorted(channel for group in groups for channel in group) == list(range(1, len(frame.STRUCTURES) + 1))
    side = {row.index: row.hemisphere for row in LabelTable.load("aseg")}
    for group in groups:
        assert len({side[frame.STRUCTURES[channel - 1]] for channel in group}) == 1, "one side a group"


def test_points_and_affine_agree() -> None:
    shape = (4, 5, 6)
    points = frame.points(shape, 3.0).double().numpy()
    affine = frame.affine(3.0, shape)
    index = np.moveaxis(np.indices(shape), 0, -1)
    np.testing.assert_allclose(points, index @ affine[:3, :3].T + affine[:3, 3], atol=1e-5)
    np.testing.assert_allclose(points.reshape(-1, 3).mean(0), 0, atol=1e-5)


def test_left_is_negative_x_in_the_packaged_atlas(atlas: Atlas) -> None:
    x = frame.points()[..., 0]
    for structures, sign in ((frame.LEFT, -1), (frame.RIGHT, 1)):
        for number in structures:
            channel = frame.STRUCTURES.index(number)
            probability = atlas.structures[0, channel + 1]
            assert sign * float((probability * x).sum() / probability.sum()) > 2
            assert sign * float(atlas.centroids[channel, 0]) > 2
    mirrored = atlas.structures[:, frame.flip_permutation()].flip(2)
    torch.testing.assert_close(mirrored, atlas.structures, rtol=0, atol=2.1 / 255)
