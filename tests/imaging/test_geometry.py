"""Left stays left: random orientations, spacings and obliquenesses through every step that touches a grid."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.affines import apply_affine, from_matvec, voxel_sizes
from nibabel.quaternions import mat2quat
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation

from unibrain_bids.imaging import affines
from unibrain_bids.imaging.images import save_image
from unibrain_bids.imaging.resample import resample
from unibrain_bids.imaging.scan import load_scan

EXAMPLES = settings(max_examples=12, deadline=None)

AXIS_CODES = [
    "".join(letters[flip] for letters, flip in zip(axes, flips, strict=True))
    for axes in permutations(("RL", "AP", "SI"))
    for flips in product((0, 1), repeat=3)
]

Grid = tuple[tuple[int, int, int], np.ndarray]


def make_grid(
    codes: str,
    spacing: tuple[float, float, float],
    *,
    angles: tuple[float, float, float] = (0.0, 0.0, 0.0),
    center: tuple[float, float, float] = (0.0, 0.0, 0.0),
    extent: float = 130.0,
) -> Grid:
    """Return a grid of about `extent` mm about `center`, with axes that run to `codes` and are turned by `angles`."""
    orientation = nib.orientations.axcodes2ornt(codes)
    axes = np.zeros((3, 3))
    axes[orientation[:, 0].astype(int), np.arange(3)] = orientation[:, 1]
    linear = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ axes @ np.diag(spacing)
    shape = tuple(int(np.ceil(extent / step)) for step in spacing)
    return shape, from_matvec(linear, np.asarray(center) - linear @ ((np.array(shape) - 1) / 2))


@st.composite
def grids(draw: st.DrawFn, *, coarsest: float = 3.5) -> Grid:
    spacing = tuple(draw(st.floats(1.8, coarsest)) for _ in range(3))
    angles = tuple(draw(st.floats(-30, 30)) for _ in range(3))
    center = tuple(draw(st.floats(-4, 4)) for _ in range(3))
    return make_grid(draw(st.sampled_from(AXIS_CODES)), spacing, angles=angles, center=center)


@st.composite
def world_affines(draw: st.DrawFn) -> np.ndarray:
    """Return `a_from_b` as between two heads."""
    return affines.compose(
        affines.AffineParts(
            translation=np.array([draw(st.floats(-20, 20)) for _ in range(3)]),
            rotation=np.array([draw(st.floats(-25, 25)) for _ in range(3)]),
            scale=np.array([draw(st.floats(0.85, 1.2)) for _ in range(3)]),
            shear=np.array([draw(st.floats(-0.1, 0.1)) for _ in range(3)]),
        )
    )


def test_all_48_orientations_are_there() -> None:
    assert len(set(AXIS_CODES)) == 48
    assert all("".join(nib.aff2axcodes(make_grid(codes, (1, 2, 3))[1])) == codes for codes in AXIS_CODES)


@pytest.mark.parametrize("codes", AXIS_CODES)
def test_labels_survive_every_orientation_exactly(codes: str, phantom) -> None:
    shape, affine = make_grid(codes, (3.0, 3.0, 3.0))
    target_shape, target = make_grid("RAS", (3.0, 3.0, 3.0))
    there = resample(phantom.labels(shape, affine), affine, shape=target_shape, target_affine=target, order=0)
    assert there.dtype == np.int16
    np.testing.assert_array_equal(there, phantom.labels(target_shape, target))
    back = resample(there, target, shape=shape, target_affine=affine, order=0)
    np.testing.assert_array_equal(back, phantom.labels(shape, affine))


@EXAMPLES
@given(source=grids(), target=grids())
def test_resampling_gives_the_true_image(source: Grid, target: Grid, phantom) -> None:
    (shape, affine), (target_shape, target_affine) = source, target
    image = phantom.intensity(shape, affine)
    truth = phantom.intensity(target_shape, target_affine)
    inside = _well_inside(shape, affine, target_shape, target_affine)
    linear = resample(image, affine, shape=target_shape, target_affine=target_affine)
    cubic = resample(image, affine, shape=target_shape, target_affine=target_affine, order=3)
    assert linear.dtype == cubic.dtype == np.float32
    # linear interpolation errs by up to h^2 / 8 times the second derivative, summed over axes
    assert np.abs(linear - truth)[inside].max() < 3 * 3.5**2 / 8 * 220 / 7**2
    assert np.abs(cubic - truth)[inside].max() < 1.5


@EXAMPLES
@given(source=grids(), target=grids(), target_from_source=world_affines())
def test_affines_move_the_world_as_their_name_says(source, target, target_from_source, phantom) -> None:
    (shape, affine), (target_shape, target_affine) = source, target
    moved = resample(
        phantom.intensity(shape, affine),
        affine,
        shape=target_shape,
        target_affine=target_affine,
        target_from_source=target_from_source,
        order=3,
    )
    # the moved image at x is the phantom at inv(target_from_source) @ x
    truth = phantom.intensity(target_shape, np.linalg.inv(target_from_source) @ target_affine)
    inside = _well_inside(shape, affine, target_shape, np.linalg.inv(target_from_source) @ target_affine)
    assert np.abs(moved - truth)[inside].max() < 1.5


@EXAMPLES
@given(source=grids(coarsest=2.5), target=grids(coarsest=2.5))
def test_labels_come_back_to_their_own_grid(source: Grid, target: Grid, phantom) -> None:
    (shape, affine), (target_shape, target_affine) = source, target
    labels = phantom.labels(shape, affine)
    there = resample(labels, affine, shape=target_shape, target_affine=target_affine, order=0)
    back = resample(there, target_affine, shape=shape, target_affine=affine, order=0)
    for number, center in enumerate(phantom.centers, start=1):
        for found, grid in ((there, target_affine), (back, affine)):
            centroid = apply_affine(grid, np.argwhere(found == number).mean(axis=0))
            assert_allclose(centroid, center, atol=1.0)
        overlap = 2 * np.sum((back == number) & (labels == number)) / np.sum((back == number) + (labels == number) * 1)
        assert overlap > 0.8


def _well_inside(shape, affine, target_shape, target_affine) -> np.ndarray:
    """Tell which target voxels lie at least two voxels within the source grid."""
    voxel = apply_affine(np.linalg.inv(affine) @ target_affine, np.moveaxis(np.indices(target_shape), 0, -1))
    return np.all((voxel >= 2) & (voxel <= np.array(shape) - 3), axis=-1)


def test_resampling_to_the_same_grid_changes_nothing() -> None:
    shape, affine = make_grid("PIL", (2.1, 1.7, 3.3), angles=(11, -7, 23), center=(1, 2, 3))
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    assert_allclose(resample(image, affine, shape=shape, target_affine=affine), image, atol=1e-4)
    labels = (image > 0).astype(np.uint8)
    np.testing.assert_array_equal(resample(labels, affine, shape=shape, target_affine=affine, order=0), labels)


def test_masks_stay_boolean_and_fill_is_used() -> None:
    mask = np.ones((4, 4, 4), dtype=bool)
    grid = {"shape": (8, 8, 8), "target_affine": np.eye(4)}
    moved = resample(mask, np.eye(4), order=0, **grid)
    assert moved.dtype == bool and moved.sum() == 64
    filled = resample(mask.astype(np.float32), np.eye(4), fill=-3.0, **grid)
    assert filled[7, 7, 7] == -3.0 and filled[3, 3, 3] == 1.0


def test_antialiasing_keeps_the_mean_of_fine_texture() -> None:
    stripes = np.indices((64, 64, 64)).sum(axis=0) % 2 * 100.0
    coarse = {"shape": (16, 16, 16), "target_affine": np.diag([4.0, 4.0, 4.0, 1.0])}
    assert resample(stripes, np.eye(4), **coarse).std() < 1e-5  # every sample meets the same stripe: aliasing
    assert_allclose(resample(stripes, np.eye(4), **coarse).mean(), 0.0, atol=1e-5)
    assert_allclose(resample(stripes, np.eye(4), antialias=True, **coarse)[2:-2, 2:-2, 2:-2], 50.0, atol=1.0)


def test_antialiasing_acts_only_on_axes_that_become_coarser() -> None:
    # x runs along the second axis of the source and the first of the target, and alone becomes coarser
    shape, affine = make_grid("PRS", (1.0, 1.0, 1.0), extent=24)
    target_shape, target = make_grid("RAS", (3.0, 1.0, 1.0), extent=24)
    noise = np.random.default_rng(1).normal(size=shape)
    smooth = resample(noise, affine, shape=target_shape, target_affine=target, antialias=True)
    sharp = resample(noise, affine, shape=target_shape, target_affine=target)
    assert smooth.std() < 0.8 * sharp.std()
    for axis in (1, 2):
        neighbours = np.corrcoef(*(np.take(smooth, range(i, i + 23), axis).ravel() for i in (0, 1)))[0, 1]
        assert abs(neighbours) < 0.1


def test_labels_cannot_be_antialiased() -> None:
    with pytest.raises(ValueError, match="labels"):
        resample(np.ones((3, 3, 3), int), np.eye(4), shape=(2, 2, 2), target_affine=np.eye(4), order=0, antialias=True)


@EXAMPLES
@given(grid=grids())
def test_images_keep_their_place_on_disk(grid: Grid, phantom, tmp_path_factory: pytest.TempPathFactory) -> None:
    shape, affine = grid
    path = tmp_path_factory.mktemp("place") / "sub-01_T1w.nii.gz"
    image = phantom.intensity(shape, affine)
    save_image(path, image, affine=affine)
    scan, reference = load_scan(path), nib.load(path)
    assert_allclose(scan.affine, affine, atol=1e-4)
    assert_allclose(reference.affine, affine, atol=1e-4)
    qform, code = reference.get_qform(coded=True)
    if code:
        assert_allclose(qform, affine, atol=1e-3)
    else:  # of a quaternion near half a turn, the number that the header leaves out has no digits left
        rotation = affine[:3, :3] / voxel_sizes(affine)
        rotation[:, 2] *= np.sign(np.linalg.det(rotation))
        assert abs(mat2quat(rotation)[0]) < 0.01
    assert_allclose(reference.header.get_zooms(), voxel_sizes(affine), rtol=1e-5)
    np.testing.assert_array_equal(scan.data, image)
    np.testing.assert_array_equal(reference.get_fdata(dtype=np.float32), image)
    assert scan.warnings == ()


@EXAMPLES
@given(matrix=world_affines(), mirrored=st.booleans())
def test_affines_decompose_and_compose(matrix: np.ndarray, mirrored: bool) -> None:
    matrix = matrix @ np.diag([-1.0 if mirrored else 1.0, 1, 1, 1])
    parts = affines.decompose(matrix)
    assert_allclose(affines.compose(parts), matrix, atol=1e-9)
    assert (parts.scale[0] < 0) == mirrored and parts.scale[1:].min() > 0
    assert affines.is_plausible_affine(matrix) != mirrored


@EXAMPLES
@given(angle=st.floats(0, 180), axis=st.sampled_from(np.eye(3).tolist()), base=world_affines())
def test_rotation_angles(angle: float, axis: list[float], base: np.ndarray) -> None:
    turn = from_matvec(Rotation.from_rotvec(np.radians(angle) * np.array(axis)).as_matrix(), [5, 6, 7])
    assert_allclose(affines.rotation_angle(turn), angle, atol=1e-5)
    assert_allclose(affines.rotation_angle(turn @ base, base), angle, atol=1e-5)


def test_lps_flips_the_first_two_axes_of_points() -> None:
    matrix = affines.compose(
        affines.AffineParts(np.array([1.0, 2, 3]), np.array([10.0, 20, 30]), np.ones(3), np.zeros(3))
    )
    point = np.array([4.0, 5.0, 6.0])
    flip = np.array([-1.0, -1.0, 1.0])
    assert_allclose(apply_affine(affines.flip_lps_ras(matrix), point * flip), apply_affine(matrix, point) * flip)
    assert_allclose(affines.flip_lps_ras(affines.flip_lps_ras(matrix)), matrix)


@pytest.mark.parametrize(
    "matrix",
    [
        np.zeros((4, 4)),
        np.full((4, 4), np.nan),
        np.diag([1.0, 1, -1, 1]),
        np.diag([2.0, 1, 1, 1]),
        np.diag([1.0, 0.4, 1, 1]),
        np.eye(3),
        from_matvec(np.eye(3), [5000, 0, 0]),
        from_matvec(np.diag([-1.0, -1, 1]), [0, 0, 0]),
    ],
)
def test_implausible_affines(matrix: np.ndarray) -> None:
    assert not affines.is_plausible_affine(matrix)


def test_singular_affines_have_no_parts() -> None:
    with pytest.raises(ValueError, match="singular"):
        affines.decompose(np.diag([1.0, 1, 0, 1]))


def test_grid_corners_and_center_by_hand() -> None:
    affine = from_matvec(np.diag([-2.0, 3.0, 1.0]), [10, 20, 30])
    corners = affines.grid_corners((5, 4, 3), affine)
    assert_allclose(corners.min(axis=0), [1, 18.5, 29.5])
    assert_allclose(corners.max(axis=0), [11, 30.5, 32.5])
    assert_allclose(affines.grid_center((5, 4, 3), affine), [6, 24.5, 31])


@EXAMPLES
@given(grid=grids(), spacing=st.floats(0.5, 4), margin=st.floats(0, 20))
def test_grid_around_covers_its_points_and_little_more(grid: Grid, spacing: float, margin: float) -> None:
    points = affines.grid_corners(*grid)
    shape, affine = affines.grid_around(points, spacing, margin=margin)
    corners = affines.grid_corners(shape, affine)
    assert nib.aff2axcodes(affine) == ("R", "A", "S")
    assert_allclose(voxel_sizes(affine), spacing)
    slack_low = points.min(axis=0) - margin - corners.min(axis=0)
    slack_high = corners.max(axis=0) - points.max(axis=0) - margin
    for slack in (slack_low, slack_high):
        assert slack.min() > -1e-4 and slack.max() < spacing / 2 + 1e-4
    assert_allclose(affines.grid_center(shape, affine), (points.min(axis=0) + points.max(axis=0)) / 2, atol=1e-9)


def test_anisotropic_grid_at() -> None:
    affine = affines.grid_at([1, 2, 3], (4, 5, 6), (1.0, 2.0, 3.0))
    assert_allclose(affines.grid_center((4, 5, 6), affine), [1, 2, 3])
    assert_allclose(voxel_sizes(affine), [1, 2, 3])


SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.data
@pytest.mark.parametrize("path", sorted((SHARED / "ds000011").glob("sub-*/anat/*_T1w.nii.gz"))[:1])
def test_a_real_scan_is_read_as_nibabel_reads_it(path: Path) -> None:
    scan, reference = load_scan(path), nib.load(path)
    assert_allclose(scan.affine, reference.affine)
    np.testing.assert_array_equal(scan.data, np.asarray(reference.dataobj, dtype=np.float32).reshape(scan.data.shape))
