"""Label maps to training material: fits, masks, cortical regions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from unibrain_bids.model.frame import LEFT, RIGHT, STRUCTURES
from unibrain_bids.training.packing import (
    least_squares_affine,
    mean_centroids,
    mirror,
    rigid_alignment,
    structure_centroids,
)
from unibrain_bids.training.parcels import LabelledTemplate, propagate

EXAMPLES = settings(max_examples=15, deadline=None)


@EXAMPLES
@given(st.integers(0, 10_000))
def test_least_squares_recovers_an_affine_and_is_the_best_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = np.eye(4)
    matrix[:3] += rng.normal(size=(3, 4)) * [0.2, 0.2, 0.2, 40]
    source = rng.normal(scale=40, size=(31, 3))
    target = source @ matrix[:3, :3].T + matrix[:3, 3]
    np.testing.assert_allclose(least_squares_affine(source, target), matrix, atol=1e-8)
    noisy = target + rng.normal(size=target.shape)
    fitted = least_squares_affine(source, noisy)
    residual = source @ fitted[:3, :3].T + fitted[:3, 3] - noisy
    np.testing.assert_allclose(np.c_[source, np.ones(31)].T @ residual, 0, atol=1e-7)


@EXAMPLES
@given(st.integers(0, 10_000))
def test_rigid_alignment_turns_and_shifts_but_never_scales_or_mirrors(seed: int) -> None:
    rng = np.random.default_rng(seed)
    target = rng.normal(scale=40, size=(31, 3))
    turn = Rotation.random(rng=rng).as_matrix()
    source = target @ turn.T + rng.normal(scale=50, size=3)
    np.testing.assert_allclose(rigid_alignment(source, target), target, atol=1e-8)

    larger = rigid_alignment(1.3 * source, target)
    np.testing.assert_allclose(larger - larger.mean(0), 1.3 * (target - target.mean(0)), atol=1e-8)

    mirrored = target * [-1, 1, 1]
    volume, kept = (np.linalg.det(points[1:4] - points[0]) for points in (mirrored, rigid_alignment(mirrored, target)))
    assert kept == pytest.approx(volume)


class TestMirror:
    def head(self, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        points = rng.normal(scale=20, size=(len(STRUCTURES), 3))
        left, right = slice(0, len(LEFT)), slice(len(LEFT), len(LEFT) + len(RIGHT))
        points[left, 0] = -abs(points[left, 0]) - 5
        points[right] = points[left] * [-1, 1, 1] + rng.normal(scale=3, size=(len(RIGHT), 3))
        return points

    def test_mirror_is_an_involution_that_keeps_left_on_the_left(self) -> None:
        head = self.head(0)
        mirrored = mirror(head)
        np.testing.assert_array_equal(mirror(mirrored), head)
        assert (mirrored[: len(LEFT), 0] < 5).all()
        np.testing.assert_array_equal(mirrored[STRUCTURES.index(17)], head[STRUCTURES.index(53)] * [-1, 1, 1])
        np.testing.assert_array_equal(mirrored[STRUCTURES.index(16)], head[STRUCTURES.index(16)] * [-1, 1, 1])

    def test_mean_head_is_symmetric_and_of_mean_size(self) -> None:
        heads = [self.head(seed) for seed in range(4)]
        turns = [Rotation.from_euler("xyz", (5, -4, 3 * i), degrees=True).as_matrix() for i in range(4)]
        turned = [head @ turn.T + 9 for head, turn in zip(heads, turns, strict=True)]
        mean = mean_centroids(turned, rounds=30)
        np.testing.assert_allclose(mirror(mean), mean, atol=0.5)
        one = mean_centroids([heads[0]], rounds=30)
        size = np.linalg.norm(heads[0] - heads[0].mean(0))
        assert 0.9 * size < np.linalg.norm(one - one.mean(0)) <= size


def test_structure_centroids_lie_in_the_world() -> None:
    affine = np.array([[0, -2.0, 0, 10], [3, 0, 0, -5], [0, 0, 1.5, 7], [0, 0, 0, 1]])
    targets = np.zeros((40, 6, 6), dtype=np.int64)
    for i, number in enumerate(STRUCTURES):
        targets[i : i + 1, 2:4, 3] = number
    found = structure_centroids(targets, affine)
    for i in range(len(STRUCTURES)):
        np.testing.assert_allclose(found[i], affine[:3, :3] @ [i, 2.5, 3] + affine[:3, 3])


class TestParcels:
    """A template whose cortex is two sheets, x < 0 and x > 0, with regions 1001 / 1002 along y."""

    def template(self) -> tuple[np.ndarray, np.ndarray]:
        labels = np.zeros((24, 20, 20), dtype=np.int64)
        labels[10, :10, 5:15], labels[10, 10:, 5:15] = 1001, 1002
        labels[13, :10, 5:15], labels[13, 10:, 5:15] = 2001, 2002
        labels[10, 0, 5:8] = 1000  # unknown cortex names nobody
        others = [n for n in STRUCTURES if n not in (3, 42)]
        for i, number in enumerate(others):
            labels[i % 20, i % 7, 0 if i < 20 else 1] = number
        affine = np.diag([2.0, 2.0, 2.0, 1.0])
        affine[:3, 3] = [-23.0, -19.0, -19.0]
        return labels, affine

    def test_regions_follow_the_nearest_cortex_of_their_side(self) -> None:
        template = LabelledTemplate.from_labels(*self.template())
        assert {label: set(names.tolist()) for label, (_, names) in template.cortex.items()} == {3: {1, 2}, 42: {1, 2}}
        assert template.centroids[STRUCTURES.index(3), 0] == -3.0 and template.centroids[STRUCTURES.index(42), 0] == 3.0
        assert np.isfinite(template.centroids).all()
        head_from_template = np.eye(4)
        head_from_template[:3, 3] = [30.0, 12.0, 0.0]  # boundary of the regions at y = 12 in the head

        targets = np.zeros((30, 30, 10), dtype=np.int64)
        targets[12:16] = 3  # the left cortex is thick here: it reaches over to where the right one is
        targets[16:18] = 42
        affine = np.diag([2.0, 2.0, 2.0, 1.0])
        affine[:3, 3] = [0.0, -18.0, -10.0]
        regions = propagate(template, head_from_template, targets, affine)
        assert ((regions > 0) == (targets > 0)).all(), "every cortex voxel has a region, and nothing else"
        y = affine[1, 3] + 2 * np.arange(30)
        for x in range(12, 18):
            assert (regions[x, y < 11.5] == 1).all() and (regions[x, y > 12.5] == 2).all()

    def test_hemispheres_are_searched_apart(self) -> None:
        labels, affine = self.template()
        labels[labels == 2001] = 2010
        template = LabelledTemplate.from_labels(labels, affine)
        targets = np.full((4, 4, 4), 42)
        targets[2:] = 3
        regions = propagate(template, np.eye(4), targets, np.eye(4))
        assert set(np.unique(regions[targets == 42])) <= {10, 2}
        assert set(np.unique(regions[targets == 3])) <= {1, 2}
