"""The metrics against brute force, against scikit-image where it is installed, and against cases with known answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from unibrain_bids.evaluation import metrics


def random_masks(seed: int, shape: tuple[int, int, int] = (9, 8, 7)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.random(shape) > 0.6, rng.random(shape) > 0.7


def ball(shape: tuple[int, int, int], radius_mm: float, spacing: np.ndarray) -> np.ndarray:
    grid = np.indices(shape).reshape(3, -1).T * spacing
    centre = (np.array(shape) - 1) / 2 * spacing
    return (np.linalg.norm(grid - centre, axis=1) <= radius_mm).reshape(shape)


def surface_by_neighbours(mask: np.ndarray) -> np.ndarray:
    """Voxel coordinates of the surface, found neighbour by neighbour."""
    offsets = np.vstack([np.eye(3, dtype=int), -np.eye(3, dtype=int)])
    inside = {tuple(v) for v in np.argwhere(mask)}
    return np.array([v for v in sorted(inside) if any(tuple(np.add(v, o)) not in inside for o in offsets)])


def test_dice_of_known_overlap() -> None:
    a = np.zeros((4, 4, 4), bool)
    b = a.copy()
    a[:2], b[1:3] = True, True
    assert metrics.dice(a, b) == pytest.approx(0.5)
    assert metrics.dice(a, a) == 1
    assert metrics.dice(a, ~a) == 0


def test_dice_of_two_empty_masks_is_undefined() -> None:
    empty = np.zeros((2, 2, 2), bool)
    assert np.isnan(metrics.dice(empty, empty))
    assert metrics.dice(empty, ~empty) == 0


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_dice_per_label_is_the_dice_of_each_labels_mask(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, predicted = rng.integers(0, 5, (2, 6, 5, 4))
    for label, value in metrics.dice_per_label(truth, predicted, [1, 2, 3, 4]).items():
        assert value == pytest.approx(metrics.dice(truth == label, predicted == label), nan_ok=True)


def test_ignored_voxels_count_neither_way() -> None:
    truth = np.array([[[1, 1, -1, -1, 0]]])
    predicted = np.array([[[1, 0, 1, 0, 0]]])
    assert metrics.dice_per_label(truth, predicted, [1])[1] == pytest.approx(0.5)
    assert metrics.dice_per_label(truth, predicted, [1], ignored=-1)[1] == pytest.approx(2 / 3)


def test_label_in_neither_image_is_undefined() -> None:
    image = np.ones((2, 2, 2), int)
    assert np.isnan(metrics.dice_per_label(image, image, [7])[7])


@given(seed=st.integers(0, 2**32 - 1), spacing=st.tuples(*[st.floats(0.3, 4)] * 3))
@settings(max_examples=25, deadline=None)
def test_surface_distances_equal_brute_force(seed: int, spacing: tuple[float, float, float]) -> None:
    a, b = random_masks(seed)
    distances = cdist(surface_by_neighbours(a) * spacing, surface_by_neighbours(b) * spacing)
    there, back = distances.min(axis=1), distances.min(axis=0)
    found = metrics.surface_distances(a, b, spacing)
    assert found.hd95 == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)))
    assert found.mean == pytest.approx(np.concatenate([there, back]).mean())


def test_surface_distance_of_a_shift_is_the_shift_in_mm() -> None:
    a = np.zeros((20, 10, 10), bool)
    b = a.copy()
    a[3:4], b[8:9] = True, True  # two plates, five voxels of 0.7 mm apart
    assert metrics.surface_distances(a, b, (0.7, 2.0, 3.0)) == pytest.approx((3.5, 3.5))


def test_surface_distance_of_concentric_balls_is_the_difference_of_their_radii() -> None:
    spacing = np.array([0.5, 1.0, 1.5])
    shape = (101, 51, 35)
    found = metrics.surface_distances(ball(shape, 20, spacing), ball(shape, 15, spacing), spacing)
    assert found.mean == pytest.approx(5, abs=0.5)
    assert found.hd95 == pytest.approx(5, abs=1.0)


def test_surface_distances_do_not_depend_on_the_order_and_need_two_masks() -> None:
    a, b = random_masks(3)
    spacing = (1, 2, 3)
    assert metrics.surface_distances(a, b, spacing) == pytest.approx(metrics.surface_distances(b, a, spacing))
    assert metrics.surface_distances(a, a, spacing) == (0, 0)
    assert np.isnan(metrics.surface_distances(a, np.zeros_like(b), spacing)).all()


def test_cross_correlation_ignores_scale_and_offset() -> None:
    image = np.random.default_rng(0).normal(size=(5, 6, 7))
    assert metrics.normalised_cross_correlation(image, 3 * image + 7) == pytest.approx(1)
    assert metrics.normalised_cross_correlation(image, -image) == pytest.approx(-1)
    other = np.random.default_rng(1).normal(size=image.shape)
    expected = np.corrcoef(image.ravel(), other.ravel())[0, 1]
    assert metrics.normalised_cross_correlation(image, other) == pytest.approx(expected)
    assert np.isnan(metrics.normalised_cross_correlation(image, np.ones_like(image)))


def test_mutual_information_of_a_relabelling_is_the_entropy() -> None:
    labels = np.repeat(np.arange(4), [10, 20, 30, 40])
    p = np.array([0.1, 0.2, 0.3, 0.4])
    relabelled = np.array([3.0, 0.0, 2.0, 1.0])[labels]
    assert metrics.mutual_information(labels, relabelled) == pytest.approx(-(p * np.log(p)).sum())


def test_mutual_information_of_independent_images_is_zero() -> None:
    a, b = np.meshgrid(np.arange(8), np.arange(8))
    assert metrics.mutual_information(a, b) == pytest.approx(0, abs=1e-12)


def test_mutual_information_of_gaussians() -> None:
    rho = 0.8
    a, noise = np.random.default_rng(0).normal(size=(2, 400_000))
    b = rho * a + np.sqrt(1 - rho**2) * noise
    assert metrics.mutual_information(a, b) == pytest.approx(-0.5 * np.log(1 - rho**2), abs=0.02)


def local_ssim(x: np.ndarray, y: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Wang's index (range 1), window by window over the voxels that lie in mask and image; NaN outside the mask."""
    c1, c2 = 0.01**2, 0.03**2
    index = np.full(x.shape, np.nan)
    for voxel in np.argwhere(mask):
        window = tuple(slice(max(v - 2, 0), v + 3) for v in voxel)
        a, b = x[window][mask[window]], y[window][mask[window]]
        covariance = np.mean((a - a.mean()) * (b - b.mean()))
        luminance = (2 * a.mean() * b.mean() + c1) / (a.mean() ** 2 + b.mean() ** 2 + c1)
        index[tuple(voxel)] = luminance * (2 * covariance + c2) / (a.var() + b.var() + c2)
    return index


def test_ssim_equals_brute_force_inside_an_irregular_mask() -> None:
    rng = np.random.default_rng(0)
    x = rng.random((11, 9, 10))
    y = x + 0.2 * rng.normal(size=x.shape)
    mask = rng.random(x.shape) > 0.4
    assert metrics.ssim(x, y, mask, data_range=1) == pytest.approx(np.nanmean(local_ssim(x, y, mask)))


def test_brute_force_ssim_is_scikit_images_where_windows_lie_inside_the_image() -> None:
    library = pytest.importorskip("skimage.metrics")
    rng = np.random.default_rng(1)
    x = rng.random((9, 8, 7))
    y = x + 0.1 * rng.normal(size=x.shape)
    options = {"win_size": 5, "data_range": 1.0, "full": True, "use_sample_covariance": False}
    _, expected = library.structural_similarity(x, y, **options)
    core = (slice(2, -2),) * 3
    np.testing.assert_allclose(local_ssim(x, y, np.ones(x.shape, bool))[core], expected[core])


def test_ssim_is_one_for_itself_and_sees_nothing_outside_the_mask() -> None:
    rng = np.random.default_rng(2)
    x = rng.random((12, 12, 12))
    mask = np.zeros(x.shape, bool)
    mask[3:9, 3:9, 3:9] = True
    spoilt = np.where(mask, x, 1e6)
    assert metrics.ssim(x, spoilt, mask, data_range=1) == pytest.approx(1)


def test_psnr_of_known_error() -> None:
    truth = np.zeros((4, 4, 4))
    mask = np.ones(truth.shape, bool)
    assert metrics.psnr(truth, truth + 0.1, mask, data_range=1) == pytest.approx(20)
    assert metrics.psnr(truth, truth, mask, data_range=1) == np.inf


def test_scaled_to_undoes_a_global_factor() -> None:
    truth = np.random.default_rng(0).random((4, 4, 4)) + 1
    mask = truth > 1.2
    np.testing.assert_allclose(metrics.scaled_to(truth, truth / 7, mask), truth)
    assert not metrics.scaled_to(truth, np.zeros_like(truth), mask).any()


def test_variation_of_known_tissues() -> None:
    gray, white = np.array([2.0, 4.0]), np.array([9.0, 11.0])
    assert metrics.coefficient_of_variation(white) == pytest.approx(0.1)
    assert metrics.coefficient_of_joint_variation(gray, white) == pytest.approx(2 / 7)
    assert np.isnan(metrics.coefficient_of_variation(np.zeros(3)))
    assert np.isnan(metrics.coefficient_of_joint_variation(gray, gray))
