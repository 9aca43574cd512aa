"""The second look: its grid, its groups, and the way back into the frame."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import torch
from torch import Tensor

from unibrain_bids.model import frame
from unibrain_bids.model.aligner import SHAPE, SPACING, Aligner, group_channels, on_coarse_grid
from unibrain_bids.model.atlas import Atlas
from unibrain_bids.model.locate import Volume, second_look
from unibrain_bids.model.segmentation import group_prior
from unibrain_bids.model.spatial import transform_points, warp


class BallFinder(Aligner):
    """A second look that knows one thing: the centre of what is bright belongs at the frame's origin."""

    def forward(self, image: Tensor) -> Tensor:
        bright = 20 * (image - 0.5)
        return torch.cat([-bright, bright], dim=1)

    def fit(self, probability: Tensor) -> Tensor:
        bright = probability[0, 1] > 0.5
        matrix = torch.eye(4)[None].clone()
        matrix[0, :3, 3] = -self.points[bright].mean(0)
        return matrix


def test_groups_are_numbered_as_in_the_prior() -> None:
    channels = group_channels()
    assert channels[0] == 0
    for number, members in enumerate(frame.prior_groups(), start=1):
        assert (channels[members] == number).all()


def test_coarse_grid_keeps_places(atlas: Atlas) -> None:
    fine = group_prior(atlas.structures)
    coarse = on_coarse_grid(fine)
    assert tuple(coarse.shape[2:]) == SHAPE
    grids = ((fine, frame.points()), (coarse, frame.points(SHAPE, SPACING)))
    before, after = (torch.einsum("gxyz,xyzi->gi", v[0], p) / v[0].sum((1, 2, 3))[:, None] for v, p in grids)
    torch.testing.assert_close(after, before, rtol=0, atol=0.05)


def test_fit_maps_a_moved_head_back(atlas: Atlas, make_affine: Callable[..., Tensor]) -> None:
    aligner = Aligner((4, 8), atlas)
    frame_from_grid = make_affine((6, -8, 10), (1.08, 0.95, 1.02), (9, -12, 7)).float()[None]
    voxel_from_grid = torch.linalg.inv(torch.from_numpy(frame.affine(SPACING, SHAPE)).float())
    seen = warp(aligner.groups, frame_from_grid, aligner.points, voxel_from_grid)
    probability = torch.cat([1 - seen.sum(1, keepdim=True), seen], dim=1)
    fitted = aligner.fit(probability)
    corners = 60 * torch.tensor(list(product((-1.0, 1.0), repeat=3)))
    gap = (transform_points(fitted, corners) - transform_points(frame_from_grid, corners)).norm(dim=-1)
    start = (corners - transform_points(frame_from_grid, corners)).norm(dim=-1)
    assert gap.max() < 2 and start.mean() > 12


def test_second_look_goes_on_from_the_first(atlas: Atlas, make_affine: Callable[..., Tensor]) -> None:
    """A ball in an oblique scan, which the first look has placed centimetres beside the origin."""
    shape = (60, 50, 70)
    affine = make_affine((10, 20, -15), (-3, 4, 2.5), (120, -60, -40)).numpy()
    world = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    centre = world[30, 25, 35]
    ball = (np.linalg.norm(world - centre, axis=-1) < 40).astype(np.float32)
    ball[:2, :2, :2] = 1  # apart from the ball: must not draw the centre to itself
    first = make_affine((0, 5, 30), (1.1, 1, 0.9)).numpy()
    first[:3, 3] = np.array([12.0, -14.0, 9.0]) - first[:3, :3] @ centre
    found = second_look(
        BallFinder((4, 8), atlas), Volume(torch.from_numpy(ball)[None, None], affine), first
    ).frame_from_world
    np.testing.assert_allclose(found[:3, :3] @ centre + found[:3, 3], 0, atol=0.5)
    np.testing.assert_allclose(found[:3, :3], first[:3, :3], atol=1e-6)
