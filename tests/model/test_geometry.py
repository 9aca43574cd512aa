"""Directions, spaces and fits: every grid against scipy and against affines that are known exactly."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from torch import Tensor

from unibrain_bids.model import frame
from unibrain_bids.model.atlas import Atlas
from unibrain_bids.model.first_look import SPACING, FirstLook
from unibrain_bids.model.intensity import scale_to_unit
from unibrain_bids.model.locate import Volume, coarse, first_look, pull, pull_averaged, rigid_part
from unibrain_bids.model.native import NativeGrid, extended_log_gain, inside
from unibrain_bids.model.places import fit_places
from unibrain_bids.model.registration import RecursiveStage, affine_from_parameters, centroids, closed_form_affine
from unibrain_bids.model.spatial import downsample, sample, transform_points, warp

MakeAffine = Callable[..., Tensor]
EXAMPLES = settings(max_examples=15, deadline=None)
AXIS_CODES = [
    "".join(letters[flip] for letters, flip in zip(axes, flips, strict=True))
    for axes in permutations(("RL", "AP", "SI"))
    for flips in product((0, 1), repeat=3)
]


def triples(low: float, high: float) -> st.SearchStrategy[tuple[float, float, float]]:
    return st.tuples(*[st.floats(low, high)] * 3)


POSE = {"angles": triples(-45, 45), "scale": triples(0.75, 1.3), "shift": triples(-40, 40)}
SEEDS = st.integers(0, 10_000)


def at(array: np.ndarray, voxels: np.ndarray, mode: str = "grid-constant") -> np.ndarray:
    """Trilinear values of an array at voxel coordinates (..., 3), zeros outside."""
    return map_coordinates(array.astype(np.float64), np.moveaxis(voxels, -1, 0), order=1, mode=mode)


def through(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def stored(codes: str, spacing: tuple[float, ...], turn: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Affine of a scan centred near the world's origin with axes that run to `codes`, turned by a rotation."""
    orientation = nib.orientations.axcodes2ornt(codes)
    axes = np.zeros((4, 4))
    axes[orientation[:, 0].astype(int), np.arange(3)] = orientation[:, 1]
    axes[3, 3] = 1
    affine = turn @ axes @ np.diag([*spacing, 1.0])
    affine[:3, 3] = turn[:3, 3] - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def scan(data: np.ndarray, affine: np.ndarray) -> Volume:
    return Volume(torch.from_numpy(np.ascontiguousarray(data, dtype=np.float32))[None, None], affine)


class TestSampling:
    @EXAMPLES
    @given(seed=SEEDS)
    def test_sample_is_scipys(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        volume = rng.normal(size=(5, 7, 6))
        voxels = rng.uniform(-2, 8, size=(4, 3, 2, 3))
        found = sample(torch.from_numpy(volume)[None, None], torch.from_numpy(voxels)[None])[0, 0]
        np.testing.assert_allclose(found, at(volume, voxels), atol=1e-9)

    def test_downsample_averages_blocks(self) -> None:
        rng = np.random.default_rng(0)
        volume = rng.normal(size=(5, 6, 9))
        padded = np.pad(volume, ((0, 1), (0, 0), (0, 3)), mode="edge")
        expected = padded.reshape(3, 2, 2, 3, 3, 4).mean((1, 3, 5))
        np.testing.assert_allclose(downsample(torch.from_numpy(volume)[None, None], (2, 3, 4))[0, 0], expected)


class TestDirections:
    """An asymmetric head: the atlas, of which a grid sees a moved copy."""

    def test_warp_pulls_and_fits_find_the_way_back(self, atlas: Atlas, make_affine: MakeAffine) -> None:
        frame_from_grid = make_affine((8, -5, 12), (0.95, 1.05, 1.02), (5, -7, 4)).float()[None]
        points = frame.points()
        voxel_from_frame = torch.linalg.inv(torch.from_numpy(frame.affine()).float())
        seen = warp(atlas.structures, frame_from_grid, points, voxel_from_frame)

        # Where a structure lies in the grid must map to where it lies in the frame.
        own, _ = centroids(atlas.structures, points)
        centre, volume = centroids(seen, points)
        hippocampus = frame.STRUCTURES.index(53)
        mapped = transform_points(frame_from_grid, centre[0])[0]
        torch.testing.assert_close(mapped[hippocampus], own[0, hippocampus], rtol=0, atol=0.5)

        fitted = closed_form_affine(centre, volume, own[0], smallest=20)
        corners = 60 * torch.tensor(list(product((-1.0, 1.0), repeat=3)))
        gap = transform_points(fitted, corners) - transform_points(frame_from_grid, corners)
        assert gap.norm(dim=-1).max() < 1
        inverse_gap = transform_points(torch.linalg.inv(fitted), corners) - transform_points(frame_from_grid, corners)
        assert inverse_gap.norm(dim=-1).mean() > 20, "the wrong direction would be seen"

        template = seen[:, 1:].sum(1, keepdim=True)
        back = warp(template, torch.linalg.inv(frame_from_grid), points, voxel_from_frame)
        original = atlas.structures[:, 1:].sum(1, keepdim=True)
        assert (back - original).abs()[..., 12:-12, 12:-12, 12:-12].mean() < 0.03
        assert (template - original).abs()[..., 12:-12, 12:-12, 12:-12].mean() > 0.1

    def test_centroids_ignore_haze(self) -> None:
        points = frame.points((8, 8, 8), 2.0)
        probability = torch.zeros(1, 2, 8, 8, 8)
        probability[0, 1, 2, 3, 5] = 1
        probability[0, 1, 7] = 0.2
        centre, volume = centroids(probability, points)
        torch.testing.assert_close(centre[0, 0], points[2, 3, 5])
        assert volume.item() == 1


class TestStages:
    def test_zero_parameters_are_identity_and_large_ones_are_bounded(self) -> None:
        torch.testing.assert_close(affine_from_parameters(torch.zeros(2, 12)), torch.eye(4).expand(2, 4, 4))
        extreme = affine_from_parameters(1e6 * torch.ones(1, 12))[0]
        torch.testing.assert_close(extreme[:3, :3] - torch.eye(3), torch.full((3, 3), 0.25))
        torch.testing.assert_close(extreme[:3, 3], torch.full((3,), 20.0))
        torch.testing.assert_close(extreme[3], torch.tensor([0.0, 0.0, 0.0, 1.0]))

    def test_recursive_stage_starts_at_identity_and_sees_both_images(self) -> None:
        torch.manual_seed(0)
        stage = RecursiveStage((2, 4), (8, 6, 5))
        a, b = torch.rand(2, 1, 8, 6, 5), torch.rand(2, 1, 8, 6, 5)
        with torch.no_grad():
            torch.testing.assert_close(stage(a, b), torch.eye(4).expand(2, 4, 4))
            for parameter in stage.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
            start = stage(a, b)
            for other in (stage(torch.rand_like(a), b), stage(a, torch.rand_like(b))):
                assert (start - other).abs().max() > 1e-3


class TestFits:
    @EXAMPLES
    @given(**POSE, seed=SEEDS)
    def test_closed_form_recovers_an_affine(
        self, atlas: Atlas, make_affine: MakeAffine, angles: tuple, scale: tuple, shift: tuple, seed: int
    ) -> None:
        frame_from_grid = make_affine(angles, scale, shift)
        centre = transform_points(torch.linalg.inv(frame_from_grid)[None], atlas.centroids.double())
        generator = torch.Generator().manual_seed(seed)
        volume = 30 + 5000 * torch.rand(1, len(frame.STRUCTURES), generator=generator)
        missing = torch.randperm(len(frame.STRUCTURES), generator=generator)[:6]
        volume[0, missing], centre[0, missing] = 10.0, 500.0  # too small to be believed
        fitted = closed_form_affine(centre.float(), volume, atlas.centroids, smallest=20)[0].double()
        grid_points = transform_points(torch.linalg.inv(frame_from_grid)[None], atlas.centroids.double())
        gap = transform_points(fitted[None], grid_points[0]) - atlas.centroids
        assert gap.norm(dim=-1).max() < 1.0  # the pull towards unit size costs a few tenths of a millimetre

    def test_closed_form_passes_gradients_and_stays_defined_without_structures(self, atlas: Atlas) -> None:
        centre = (atlas.centroids[None] + 1).requires_grad_()
        volume = torch.full((1, 31), 100.0)
        closed_form_affine(centre, volume, atlas.centroids, smallest=20).sum().backward()
        assert centre.grad is not None and centre.grad.abs().min() > 0
        nothing = closed_form_affine(centre.detach(), torch.zeros(1, 31), atlas.centroids, smallest=20)
        torch.testing.assert_close(nothing, torch.eye(4)[None])

    @EXAMPLES
    @given(**POSE, outlying=st.floats(0, 0.2), seed=SEEDS)
    def test_places_recover_an_affine_in_spite_of_outliers(
        self, make_affine: MakeAffine, angles: tuple, scale: tuple, shift: tuple, outlying: float, seed: int
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        points = frame.points((20, 24, 20), 8.0)
        frame_from_grid = make_affine(angles, scale, shift).float()
        exact = transform_points(frame_from_grid[None], points)[0].permute(3, 0, 1, 2)
        weight = (points.norm(dim=-1) < 75) * (0.5 + 0.5 * torch.rand(points.shape[:3], generator=generator))
        wrong = torch.rand(points.shape[:3], generator=generator) < outlying
        guesses = torch.where(wrong, 200 * torch.rand(exact.shape, generator=generator) - 100, exact)
        guesses = torch.where(weight > 0, guesses, torch.full_like(guesses, 1e4))
        fitted = fit_places(weight, guesses, points)
        gap = transform_points(fitted[None], points.double()) - exact.permute(1, 2, 3, 0)
        assert gap[0][weight > 0].norm(dim=-1).mean() < 0.3 + outlying


class TestLocate:
    @EXAMPLES
    @given(codes=st.sampled_from(AXIS_CODES), spacing=triples(1.0, 3.5), angles=triples(-40, 40), seed=SEEDS)
    def test_pull_is_scipys(
        self, make_affine: MakeAffine, codes: str, spacing: tuple, angles: tuple, seed: int
    ) -> None:
        rng = np.random.default_rng(seed)
        data = rng.normal(size=(9, 12, 10)).astype(np.float32)
        volume = scan(data, stored(codes, spacing, make_affine(angles).numpy(), data.shape))
        world_from_grid = make_affine((5, 10, -15), (1.1, 0.9, 1), (3, -2, 1)).numpy()
        points = frame.points((6, 7, 8), 4.0)
        voxel_from_grid = np.linalg.inv(volume.affine) @ world_from_grid
        expected = at(data, through(voxel_from_grid, points.double().numpy()))
        np.testing.assert_allclose(pull(volume, world_from_grid, points)[0, 0], expected, atol=2e-4)

        quarter = np.array([(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)])
        averaged = np.mean([at(data, through(voxel_from_grid, points.numpy() + q)) for q in quarter], axis=0)
        np.testing.assert_allclose(pull_averaged(volume, world_from_grid, points, 4.0)[0, 0], averaged, atol=2e-4)

    @pytest.mark.parametrize("codes", AXIS_CODES)
    def test_a_head_in_any_orientation_is_the_same_head(self, make_affine: MakeAffine, codes: str) -> None:
        rng = np.random.default_rng(0)
        shape = (12, 10, 14)
        image = nib.Nifti1Image(
            rng.random(shape).astype(np.float32), stored("RAS", (3, 4, 2.5), make_affine((5, -9, 14)).numpy(), shape)
        )
        start = nib.orientations.io_orientation(image.affine)
        turned = image.as_reoriented(nib.orientations.ornt_transform(start, nib.orientations.axcodes2ornt(codes)))
        assert "".join(nib.aff2axcodes(turned.affine)) == codes
        points = frame.points((14, 14, 14), 3.0)
        first, second = (pull(scan(i.get_fdata(), i.affine), np.eye(4), points) for i in (image, turned))
        assert first.std() > 0.1
        torch.testing.assert_close(second, first, rtol=0, atol=1e-4)

    @EXAMPLES
    @given(codes=st.sampled_from(AXIS_CODES), spacing=triples(0.5, 9), angles=triples(-40, 40))
    def test_coarse_voxels_lie_where_their_block_lies(
        self, make_affine: MakeAffine, codes: str, spacing: tuple, angles: tuple
    ) -> None:
        """A volume that holds its own world coordinates still does after averaging."""
        shape = (32, 27, 24)
        affine = stored(codes, spacing, make_affine(angles, shift=(10, 20, -30)).numpy(), shape)
        world = through(affine, np.moveaxis(np.indices(shape), 0, -1))
        for axis in range(3):
            small = coarse(scan(world[..., axis], affine), 8.0)
            factors = np.round(small.spacing() / spacing)
            np.testing.assert_allclose(small.spacing(), factors * spacing, rtol=1e-6)
            assert ((small.spacing() < 8.02) | (factors == 1)).all(), "small voxels"
            assert ((factors + 1) * spacing > 8).all(), "and as few as that allows"
            np.testing.assert_array_equal(small.data.shape[2:], np.ceil(shape / factors))
            whole = tuple(slice(0, int(n // f)) for n, f in zip(shape, factors, strict=True))
            expected = through(small.affine, np.moveaxis(np.indices(small.data.shape[2:]), 0, -1))[..., axis]
            np.testing.assert_allclose(small.data[0, 0].numpy()[whole], expected[whole], atol=1e-3)

    def test_intensities_are_scaled_by_a_high_percentile(self) -> None:
        image = torch.zeros(1, 1, 20, 20, 20)
        image[..., :10] = torch.linspace(1, 1000, 4000).view(1, 1, 20, 20, 10)
        scaled = scale_to_unit(image)
        top = np.percentile(image[image > 0].numpy(), 99.5)
        torch.testing.assert_close(scaled, (image / top).clamp(0, 1))
        assert not scale_to_unit(torch.zeros(1, 1, 4, 4, 4)).any()

    @EXAMPLES
    @given(**POSE)
    def test_rigid_part_keeps_the_place_of_the_frames_origin(
        self, make_affine: MakeAffine, angles: tuple, scale: tuple, shift: tuple
    ) -> None:
        matrix = make_affine(angles, scale, shift).numpy()
        rigid = rigid_part(matrix)
        np.testing.assert_allclose(rigid[:3, :3] @ rigid[:3, :3].T, np.eye(3), atol=1e-9)
        assert np.linalg.det(rigid[:3, :3]) == pytest.approx(1)
        np.testing.assert_allclose(np.linalg.inv(rigid)[:3, 3], np.linalg.inv(matrix)[:3, 3], atol=1e-9)
        turn = make_affine(angles)[:3, :3].numpy()
        np.testing.assert_allclose(rigid[:3, :3], turn, atol=0.5)


class BallFinder(FirstLook):
    """A first look that knows one thing: what is bright is brain, which the frame shows larger, at its origin."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x, y, z = image.shape[2:]
        points = frame.points((x, y, z), SPACING).permute(3, 0, 1, 2)[None]
        bright = (image > 0.5).float()
        centre = (points * bright).sum((2, 3, 4), keepdim=True) / bright.sum()
        return 20 * (bright - 0.5), 1.2 * (points - centre)


@pytest.mark.parametrize("codes", ["RAS", "PIR", "LSA"])
def test_first_look_finds_the_world_place_of_a_ball(make_affine: MakeAffine, codes: str) -> None:
    shape = (70, 80, 90)
    affine = stored(codes, (4, 3, 2.5), make_affine((10, 0, -20), shift=(100, -50, 30)).numpy(), shape)
    centre = np.array([110.0, -60.0, 25.0])
    world = through(affine, np.moveaxis(np.indices(shape), 0, -1))
    ball = np.linalg.norm(world - centre, axis=-1) < 70
    found = first_look(BallFinder((4, 8)), scan(ball, affine))
    assert found is not None
    np.testing.assert_allclose(through(found, centre), 0, atol=1.5)
    np.testing.assert_allclose(found[:3, :3], 1.2 * np.eye(3), atol=0.03)
    assert first_look(BallFinder((4, 8)), scan(np.zeros(shape), affine)) is None


class TestNativeGrid:
    def make(self, make_affine: MakeAffine) -> NativeGrid:
        """An oblique scan that reaches beyond the model's grid on some sides only."""
        shape = (60, 40, 36)
        affine = stored("PIR", (5.5, 4.0, 6.0), make_affine((12, -7, 20), shift=(20, -60, 15)).numpy(), shape)
        return NativeGrid(shape, np.linalg.inv(frame.affine()) @ affine)

    def places(self, native: NativeGrid) -> np.ndarray:
        return through(native.grid_from_scan, np.moveaxis(np.indices(native.shape), 0, -1))

    def smooth(self) -> Tensor:
        noise = torch.randn(1, 1, 10, 12, 10, generator=torch.Generator().manual_seed(0))
        return torch.nn.functional.interpolate(noise, size=frame.SHAPE, mode="trilinear")

    def test_volume_is_scipys_and_zero_beyond(self, make_affine: MakeAffine) -> None:
        native, volume = self.make(make_affine), self.smooth()
        places = self.places(native)
        within = ((places >= -0.5) & (places <= np.array(frame.SHAPE) - 0.5)).all(-1)
        assert 0.1 < within.mean() < 0.9
        result = native.volume(volume)
        np.testing.assert_allclose(result[within], at(volume[0, 0].numpy(), places)[within], atol=1e-3)
        far = ((places < -1) | (places > np.array(frame.SHAPE))).any(-1)
        assert not result[far].any()

    def test_box_covers_what_the_model_sees(self, make_affine: MakeAffine) -> None:
        native = self.make(make_affine)
        places = self.places(native)
        outside = np.ones(native.shape, dtype=bool)
        outside[native.box()] = False
        assert outside.any()
        assert not ((places >= -0.5) & (places <= np.array(frame.SHAPE) - 0.5)).all(-1)[outside].any()

    def test_box_of_a_scan_elsewhere_is_empty(self, make_affine: MakeAffine) -> None:
        away = NativeGrid((10, 11, 12), make_affine(shift=(900, 0, 0)).numpy())
        assert np.zeros(away.shape)[away.box()].size == 0
        assert not away.volume(self.smooth()).any()

    def test_gain_goes_on_beyond_the_border(self, make_affine: MakeAffine) -> None:
        native, field = self.make(make_affine), self.smooth()
        places = np.clip(self.places(native), 0, np.array(frame.SHAPE) - 1)
        expected = at(field[0, 0].numpy(), places, mode="nearest")
        np.testing.assert_allclose(extended_log_gain(field, native), expected, atol=1e-3)

    def test_pieces_of_a_mask(self) -> None:
        rng = np.random.default_rng(0)
        mask = rng.random((90, 100, 90)) > 0.3
        pieces = list(inside(mask))
        assert len(pieces) > 1
        flat = np.concatenate([piece for piece, _ in pieces])
        np.testing.assert_array_equal(flat, np.flatnonzero(mask))
        np.testing.assert_array_equal(torch.cat([voxels for _, voxels in pieces]), np.argwhere(mask))
        assert not list(inside(np.zeros((3, 3, 3), dtype=bool)))
