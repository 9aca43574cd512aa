"""The simulator's truth is exact: intensities, sides, places, masks."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from unibrain_bids.model import frame
from unibrain_bids.model.intensity import scale_to_unit, unit_divisor
from unibrain_bids.model.spatial import transform_points
from unibrain_bids.training.packing import structure_centroids
from unibrain_bids.training.simulation import appearance, geometry
from unibrain_bids.training.simulation.geometry import Geometry, PoseRange, draw_pose, look_up
from unibrain_bids.training.simulation.material import MIRRORED, Material, is_brain, is_intracranial, row_of
from unibrain_bids.training.simulation.simulator import WHITE_MATTER_LEVEL, SimulatedHead, SimulationRange, simulate

SPAN = SimulationRange((48, 56, 48), 4.0, PoseRange(15.0, 10.0, 0.1, 0.05))
CLEAN = replace(SPAN, missing_parts=False, t1_fraction=1.0)
LEFT_CHANNELS = [frame.STRUCTURES.index(n) + 1 for n in frame.LEFT]
RIGHT_CHANNELS = [frame.STRUCTURES.index(n) + 1 for n in frame.RIGHT]


def centroids(channels: torch.Tensor, spacing: float) -> torch.Tensor:
    """Centres in grid mm of the structures in a volume of output channels (X, Y, Z)."""
    numbers = np.array([0, *frame.STRUCTURES])[channels.numpy()]
    return torch.from_numpy(structure_centroids(numbers, frame.affine(spacing, tuple(channels.shape)))).float()


def tensors(head: SimulatedHead) -> dict[str, torch.Tensor]:
    return {f.name: torch.as_tensor(getattr(head, f.name)) for f in fields(head)}


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_truth_hangs_together(phantom: Material, seed: int) -> None:
    head = simulate(phantom, SPAN, seed)
    assert head.image.min() >= 0 and head.image.max() <= 1 and torch.isfinite(head.image).all()
    assert torch.equal(head.normalised, head.brain * torch.exp(head.log_gain) * head.image)
    assert (head.brain <= head.intracranial).all()
    structure = head.structures[0] > 0
    # The phantom's mask and labels are voted on apart: a few voxels of its cortex lie outside.
    assert (head.brain[0, 0][structure] == 1).float().mean() > 0.98
    cortex = torch.isin(head.structures[0], torch.tensor([frame.STRUCTURES.index(n) + 1 for n in (3, 42)]))
    assert torch.equal(head.regions[0] > 0, cortex)


def test_parts_of_voxels_are_what_their_centres_say_on_average(phantom: Material) -> None:
    """Four places within each voxel: sides and structures as at the centre, shares between 0 and 1 at borders only."""
    for seed in range(3):
        head = simulate(phantom, SPAN, seed)
        parts, centre = head.parts[0].long(), head.structures[0]
        assert parts.shape == (4, *centre.shape)
        assert 0.6 < float((parts == centre)[:, centre > 0].float().mean()) < 1
        for channels, other in ((LEFT_CHANNELS, RIGHT_CHANNELS), (RIGHT_CHANNELS, LEFT_CHANNELS)):
            on_side = torch.isin(centre, torch.tensor(channels))
            assert float(torch.isin(parts[:, on_side], torch.tensor(other)).float().mean()) < 0.05
        for share, mask in ((head.brain_share, head.brain), (head.intracranial_share, head.intracranial)):
            assert set(share.unique().tolist()) <= {0, 0.25, 0.5, 0.75, 1}
            assert float(((share > 0.5) == (mask > 0)).float().mean()) > 0.97


def test_blur_is_scipys(phantom: Material) -> None:
    volume = torch.rand(1, 1, 13, 9, 11)
    blurred = appearance.gaussian_blur(volume, [0.7, 0.0, 2.0])
    expected = gaussian_filter(volume[0, 0].double().numpy(), (0.7, 0, 2.0), mode="nearest", radius=(2, 0, 6))
    np.testing.assert_allclose(blurred[0, 0].numpy(), expected, atol=1e-5)


def test_gain_takes_exactly_the_bias_away(phantom: Material) -> None:
    """The same scan with and without bias field: the images differ, the normalised brains (noise apart) don't."""
    strengths = []
    for seed in range(4):
        with_bias, without = (simulate(phantom, replace(CLEAN, bias=bias), seed) for bias in (0.8, 0.0))
        assert float(without.log_gain.std()) < 1e-6
        brain = with_bias.brain > 0
        assert torch.equal(brain, without.brain > 0)
        field = with_bias.log_gain - without.log_gain
        strengths.append(float(field.std()))
        # Where nothing was clipped, the ratio of the images is the field.
        unclipped = brain & (with_bias.image < 1) & (without.image < 1) & (without.image > 0.2)
        error = torch.log(without.image / with_bias.image)[unclipped] - field[unclipped]
        assert float(error.median().abs()) < 0.02 and float(error.abs().median()) < 0.05
        change = (with_bias.normalised - without.normalised)[unclipped].abs().median()
        assert float(change) < 0.02
    assert max(strengths) > 0.15


def test_white_matter_of_t1_scans_stands_at_its_level(phantom: Material) -> None:
    channels = torch.tensor([frame.STRUCTURES.index(n) + 1 for n in (2, 41)])
    for seed in range(6):
        head = simulate(phantom, CLEAN, seed)
        assert head.t1_like
        level = head.normalised[0, 0][torch.isin(head.structures[0], channels)].median()
        assert float(level) == pytest.approx(WHITE_MATTER_LEVEL, rel=0.06)


def test_same_seed_same_scan(phantom: Material) -> None:
    first, again, other = (tensors(simulate(phantom, SPAN, seed)) for seed in (7, 7, 8))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["image"], other["image"])


def test_a_person_is_scanned_again(phantom: Material) -> None:
    """The same anatomy in the same pose has the same labels; seeds change everything else."""
    still = replace(CLEAN, pose=PoseRange(0.0, 0.0, 0.0, 0.0))
    first, second, stranger = (simulate(phantom, still, seed, anatomy=a) for seed, a in ((1, 5), (2, 5), (1, 6)))
    assert torch.equal(first.structures, second.structures)
    assert not torch.equal(first.image, second.image)
    assert not torch.equal(first.structures, stranger.structures)


def test_sides_and_places_of_simulated_heads(phantom: Material) -> None:
    """Mirrored or not, deformed and in any pose: left structures lie at x < 0 in the frame, each near its place."""
    seen = set()
    for seed in range(8):
        head = simulate(phantom, CLEAN, seed)
        seen.add(head.subject)
        placed = transform_points(head.frame_from_grid, centroids(head.structures[0], CLEAN.spacing))[0]
        assert (placed[: len(frame.LEFT), 0] < 0).all() and (placed[len(frame.LEFT) : -3, 0] > 0).all()
        distance = (placed - phantom.centroids).norm(dim=1)
        assert float(distance.median()) < 6, "the frame's centroids, less what the deformation moves"
    assert seen == {0, len(phantom.heads)}, "both a head and its mirror image were drawn"


@pytest.mark.parametrize("flip", [False, True])
def test_frame_from_grid_is_exact_for_an_undeformed_head(phantom: Material, flip: bool) -> None:
    pose = draw_pose(PoseRange(30.0, 15.0, 0.15, 0.05), torch.Generator().manual_seed(3))
    shape, spacing = (88, 96, 88), 2.5
    points = frame.points(shape, spacing) @ pose[:3, :3].T + pose[:3, 3]
    head = phantom.heads[0]
    (labels,) = look_up(head, Geometry(pose, (), 0.0, flip), points, head.labels)
    channels = phantom.channel[row_of(labels)]
    channels = torch.tensor(frame.flip_permutation())[channels] if flip else channels
    placed = transform_points(pose[None], centroids(channels, spacing))[0]

    own = phantom.channel[row_of(head.labels)]
    affine = torch.linalg.inv(head.voxel_from_frame.double()).numpy()
    numbers = np.array([0, *frame.STRUCTURES])[own.numpy()]
    expected = torch.from_numpy(structure_centroids(numbers, affine)).float()
    if flip:
        mirrored = [c - 1 for c in frame.flip_permutation()[1:]]
        expected = expected[mirrored] * torch.tensor([-1.0, 1.0, 1.0])
    assert (placed - expected).norm(dim=1).max() < 1.0


class TestGeometry:
    def test_rotation_matrix_turns_about_x_then_y_then_z(self) -> None:
        quarter = torch.tensor(np.pi / 2, dtype=torch.float32)
        zero = torch.zeros(())
        turn = geometry.rotation_matrix(torch.stack([quarter, zero, quarter]))
        # y goes to z about x, and stays there about z; z goes to -y, and then to x.
        expected = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
        torch.testing.assert_close(turn, expected, atol=1e-6, rtol=0)

    def test_poses_stay_within_their_range(self) -> None:
        generator = torch.Generator().manual_seed(0)
        still = draw_pose(PoseRange(0, 0, 0, 0), generator)
        torch.testing.assert_close(still, torch.eye(4))
        volumes = []
        for _ in range(50):
            pose = draw_pose(PoseRange(40.0, 20.0, 0.2, 0.03), generator)
            assert (pose[:3, 3].abs() <= 20).all()
            volumes.append(float(torch.linalg.det(pose[:3, :3])))
        assert np.exp(-0.8) <= min(volumes) < 0.8 and 1.25 < max(volumes) <= np.exp(0.8)

    def test_bulge_pushes_tissue_away_from_the_ventricles(self) -> None:
        ventricles = torch.tensor([0.0, 10.0, 5.0])
        points = ventricles + torch.tensor([[[[0.0, 0, 0], [10, 0, 0], [0, -10, 0], [120, 0, 0]]]])
        moved = points + geometry.displacement(Geometry(torch.eye(4), (), 0.3, False), points, ventricles)
        radius = (moved - ventricles).norm(dim=-1)[0, 0]
        assert radius[0] == 0
        # A point of the scan reads the head nearer to the ventricles: they look larger.
        assert (radius[1:3] < 8).all() and (radius[1:3] > 6.5).all()
        assert radius[3] == pytest.approx(120, abs=0.1)


class TestRemovedParts:
    def test_stripping_and_defacing_never_touch_the_brain(self, phantom: Material) -> None:
        points = frame.points((44, 52, 52), 4.0) - torch.tensor([0.0, 0.0, 20.0])
        head = phantom.heads[0]
        (labels,) = look_up(head, Geometry(torch.eye(4), (), 0.0, False), points, head.labels)
        image, brain = (mask.float()[None, None] for mask in (row_of(labels) > 0, is_brain(labels)))
        lost = {"stripped": 0, "defaced": 0, "cropped": 0, "whole": 0}
        for seed in range(100):
            choice = float(torch.rand((), generator=torch.Generator().manual_seed(seed)))
            kind = next(k for k, limit in zip(lost, (0.10, 0.30, 0.45, 1.1), strict=True) if choice < limit)
            result = appearance.remove_parts(image, brain, points, torch.Generator().manual_seed(seed))
            gone = (image > 0) & (result == 0)
            assert torch.equal(result[~gone], image[~gone])
            if kind != "cropped":
                assert not (gone & (brain > 0)).any(), kind
            if kind == "defaced":
                _, y, z = points[gone[0, 0]].unbind(1)
                assert ((y > 0) | (z < 0)).all(), "the face is in front and below"
            lost[kind] += int(gone.sum())
        assert lost["whole"] == 0
        assert min(lost["stripped"], lost["defaced"], lost["cropped"]) > 1000


class TestAppearance:
    def test_gaussian_blur_is_scipys(self) -> None:
        from scipy.ndimage import gaussian_filter

        volume = torch.rand(1, 1, 20, 22, 18, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        sigmas = [1.0, 2.0, 0.0]
        expected = gaussian_filter(volume[0, 0].numpy(), sigmas, mode="nearest", truncate=3.0)
        np.testing.assert_allclose(appearance.gaussian_blur(volume, sigmas)[0, 0], expected, atol=1e-6)

    def test_scaling_keeps_zero_and_reports_its_divisor(self) -> None:
        image = torch.rand(1, 1, 20, 20, 20, generator=torch.Generator().manual_seed(0)) * 700
        image[..., :5] = 0
        scaled, divisor = scale_to_unit(image), unit_divisor(image)
        assert divisor == pytest.approx(0.995 * 700, rel=0.01)
        torch.testing.assert_close(scaled, (image / divisor).clamp(max=1))

    def test_left_and_right_share_their_intensities(self, phantom: Material) -> None:
        numbers = phantom.index.tolist()
        generator = torch.Generator().manual_seed(0)
        kinds = set()
        for _ in range(10):
            tissues = appearance.draw_tissues(phantom, generator, 0.5)
            kinds.add(tissues.t1_like)
            for left, right in zip(frame.LEFT, frame.RIGHT, strict=True):
                left_mean, right_mean = tissues.mean[numbers.index(left)], tissues.mean[numbers.index(right)]
                torch.testing.assert_close(left_mean, right_mean)
            assert (tissues.mean >= 0).all() and (tissues.sd >= 0).all()
            if tissues.t1_like:
                assert tissues.mean[numbers.index(2)] > tissues.mean[numbers.index(4)], "white matter above fluid"
        assert kinds == {True, False}

    def test_some_scans_have_thick_slices_and_some_larger_voxels(self) -> None:
        """Told from how alike neighbours in white noise become along each axis; none where it is ruled out."""
        noise = torch.randn(1, 1, 40, 40, 40, generator=torch.Generator().manual_seed(0))

        def smooth_axes(seed: int, large_voxels: bool) -> int:
            generator = torch.Generator().manual_seed(seed)
            volume = appearance.lower_resolution(noise, 1.0, generator, large_voxels=large_voxels)[0, 0]
            steps = (torch.diff(volume, dim=axis).var() / volume.var() for axis in range(3))
            return sum(float(step) < 0.45 for step in steps)

        assert {smooth_axes(seed, True) for seed in range(40)} == {0, 1, 3}
        assert {smooth_axes(seed, False) for seed in range(40)} == {0}


class TestMaterial:
    def test_tables_fit_the_frame(self, phantom: Material) -> None:
        assert set(phantom.channel.tolist()) == set(range(len(frame.STRUCTURES) + 1))
        numbers = torch.tensor([0, *frame.STRUCTURES])
        assert torch.equal(numbers[phantom.channel], phantom.target)
        assert all(MIRRORED[MIRRORED[n]] == n for n in MIRRORED)

    def test_masks_of_the_phantom_are_nested(self, phantom: Material) -> None:
        labels = phantom.heads[0].labels
        brain, intracranial = is_brain(labels), is_intracranial(labels)
        assert (brain <= intracranial).all()
        voxel_mm3 = 1 / float(torch.linalg.det(phantom.heads[0].voxel_from_frame[:3, :3]))
        assert 1.0e6 < float(brain.sum()) * voxel_mm3 < 1.6e6, "the volume of a brain in mm3"

    def test_subset_and_copy(self, phantom: Material) -> None:
        assert not phantom.subset(()).heads
        copy = phantom.to("cpu")
        assert copy.subset(("phantom",)).heads[0].name == "phantom"
        assert torch.equal(copy.heads[0].labels, phantom.heads[0].labels)


def test_lesions_darken_white_matter_alone(phantom: Material) -> None:
    """With lesions white matter tends towards grey, more or less of it, and keeps its label."""
    white = torch.tensor([frame.STRUCTURES.index(n) + 1 for n in (2, 41)])
    darker = []
    for seed in range(4):
        clean, dark = torch.full((1, 1, 24, 28, 24), 0.8), 0.5
        share, ventricles = torch.zeros(2, 1, 1, 24, 28, 24)
        share[..., 6:18, 6:22, 6:18], ventricles[..., 10:14, 10:18, 10:14] = 1, 1
        share = share * (1 - ventricles)
        generator = torch.Generator().manual_seed(seed)
        image = appearance.add_lesions(clean, share, ventricles, (0.8, dark), 4.0, generator)
        assert torch.equal(image[share == 0], clean[share == 0])
        assert float(image.min()) >= 0.8 - 1.2 * 0.3 - 1e-6 and float(image.max()) <= 0.8 + 1e-6
        darker.append(float((0.8 - image[share > 0]).mean()))
        head, without = (simulate(phantom, replace(CLEAN, lesions=lesions), seed) for lesions in (1.0, 0.0))
        assert torch.equal(head.structures, without.structures)
        assert torch.isin(head.structures, white).any()
    assert min(darker) > 0 and max(darker) > 2 * min(darker)
