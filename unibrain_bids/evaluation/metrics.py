"""Measures of agreement between a result and its truth.

Pure functions of numpy arrays; distances in mm. A measure that is not defined (a label that neither image holds, the
surface of an empty mask) is NaN and never a flattering 1 or 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

__all__ = [
    "SurfaceDistances",
    "coefficient_of_joint_variation",
    "coefficient_of_variation",
    "dice",
    "dice_per_label",
    "mean_of_known",
    "mutual_information",
    "normalised_cross_correlation",
    "psnr",
    "scaled_to",
    "ssim",
    "surface_distances",
]

SSIM_WINDOW = 5
MUTUAL_INFORMATION_BINS = 64


class SurfaceDistances(NamedTuple):
    """Distances between two surfaces in mm: the 95 % Hausdorff distance and the mean symmetric distance."""

    hd95: float
    mean: float


def dice(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Dice overlap of two masks of the same shape, 0..1; NaN where both are empty."""
    a, b = np.asarray(truth, dtype=bool), np.asarray(predicted, dtype=bool)
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else float("nan")


def dice_per_label(
    truth: NDArray[np.integer],
    predicted: NDArray[np.integer],
    labels: Sequence[int],
    *,
    ignored: int | None = None,
) -> dict[int, float]:
    """Dice overlap of each label.

    Parameters
    ----------
    truth, predicted
        Label images of the same shape.
    labels
        The labels to measure.
    ignored
        Voxels with this label in either image are left out of both.

    Returns
    -------
    dict
        Label to Dice, 0..1; NaN where neither image holds the label.
    """
    a, b = truth.ravel(), predicted.ravel()
    if ignored is not None:
        known = (a != ignored) & (b != ignored)
        a, b = a[known], b[known]
    both = a[a == b]
    return {label: _overlap(_count(both, label), _count(a, label) + _count(b, label)) for label in labels}


def _count(values: NDArray[np.integer], label: int) -> int:
    return int(np.count_nonzero(values == label))


def _overlap(common: int, total: int) -> float:
    return 2 * common / total if total else float("nan")


def mean_of_known(values: Iterable[float]) -> float:
    """Mean of the values that are numbers; NaN if none is."""
    numbers = [value for value in values if not np.isnan(value)]
    return float(np.mean(numbers)) if numbers else float("nan")


def surface_distances(truth: ArrayLike, predicted: ArrayLike, spacing: ArrayLike) -> SurfaceDistances:
    """Distances between the surfaces of two masks.

    The surface of a mask is its voxels with a face neighbour outside it (outside the image counts as outside). With the
    distances from every surface voxel of one mask to the nearest surface voxel of the other, in both directions, HD95
    is the larger of the two 95th percentiles and the mean is over both sets together.

    Parameters
    ----------
    truth, predicted
        Masks of the same shape (X, Y, Z).
    spacing
        Voxel edge lengths in mm, shape (3,).

    Returns
    -------
    SurfaceDistances
        In mm; NaN where a mask is empty.
    """
    a, b = np.asarray(truth, dtype=bool), np.asarray(predicted, dtype=bool)
    if not (a.any() and b.any()):
        return SurfaceDistances(float("nan"), float("nan"))
    box = ndimage.find_objects((a | b).astype(np.uint8))[0]
    surface_a, surface_b = _surface(a[box]), _surface(b[box])
    edges = np.asarray(spacing, dtype=float)
    there = ndimage.distance_transform_edt(~surface_b, sampling=edges)[surface_a]
    back = ndimage.distance_transform_edt(~surface_a, sampling=edges)[surface_b]
    hd95 = max(float(np.percentile(there, 95)), float(np.percentile(back, 95)))
    return SurfaceDistances(hd95, float(np.concatenate([there, back]).mean()))


def _surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return mask & ~ndimage.binary_erosion(mask)


def normalised_cross_correlation(a: ArrayLike, b: ArrayLike) -> float:
    """Pearson correlation of the intensities of two images of the same shape, -1..1; NaN where one is constant."""
    x = np.asarray(a, dtype=np.float64).ravel()
    y = np.asarray(b, dtype=np.float64).ravel()
    x, y = x - x.mean(), y - y.mean()
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / norm if norm > 0 else float("nan")


def mutual_information(a: ArrayLike, b: ArrayLike, *, bins: int = MUTUAL_INFORMATION_BINS) -> float:
    """Mutual information of two images in nats, from a joint histogram of `bins` x `bins` over their ranges."""
    joint, _, _ = np.histogram2d(np.ravel(a), np.ravel(b), bins=bins)
    joint /= joint.sum()
    independent = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    filled = joint > 0
    return float(np.sum(joint[filled] * np.log(joint[filled] / independent[filled])))


def scaled_to(truth: NDArray[np.floating], estimate: NDArray[np.floating], mask: NDArray[np.bool_]) -> NDArray:
    """Multiply `estimate` by the one factor that brings it nearest to `truth` inside the mask (least squares).

    Fields and intensities are known up to a global scale; it must not decide a comparison. An estimate that is zero
    inside the mask is returned as it is.
    """
    x, y = estimate[mask].astype(np.float64), truth[mask].astype(np.float64)
    energy = float(x @ x)
    return estimate * (float(x @ y) / energy) if energy > 0 else estimate


def ssim(
    truth: NDArray[np.floating], estimate: NDArray[np.floating], mask: NDArray[np.bool_], *, data_range: float
) -> float:
    """Mean structural similarity (Wang et al. 2004) inside a mask, in 3D.

    Means, variances and the covariance are taken over the voxels of a cubic window of 5 voxels that lie inside the
    mask. The libraries' SSIM knows no mask: with the outside set to zero, the mask's own edge, which both images
    share, would dominate the windows there and flatter every result.

    Parameters
    ----------
    truth, estimate
        Images (X, Y, Z) on the same scale.
    mask
        Which voxels count, not empty.
    data_range
        Intensity range that SSIM's constants refer to.

    Returns
    -------
    float
        Mean over the mask of the local index, -1..1.
    """
    box = _box(mask, margin=SSIM_WINDOW // 2)
    inside = mask[box]
    weight = np.maximum(_window_mean(inside.astype(np.float64)), 1e-12)
    x, y = (np.where(inside, image[box], 0).astype(np.float64) for image in (truth, estimate))
    mean_x, mean_y = _window_mean(x) / weight, _window_mean(y) / weight
    variance_x = _window_mean(x * x) / weight - mean_x**2
    variance_y = _window_mean(y * y) / weight - mean_y**2
    covariance = _window_mean(x * y) / weight - mean_x * mean_y
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    local = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    local /= (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    return float(local[inside].mean())


def _window_mean(image: NDArray[np.float64]) -> NDArray[np.float64]:
    return ndimage.uniform_filter(image, size=SSIM_WINDOW, mode="constant")


def _box(mask: NDArray[np.bool_], *, margin: int) -> tuple[slice, ...]:
    """Bounding box of a mask, widened by `margin` voxels where the image allows."""
    found = ndimage.find_objects(mask.astype(np.uint8))[0]
    return tuple(
        slice(max(s.start - margin, 0), min(s.stop + margin, size)) for s, size in zip(found, mask.shape, strict=True)
    )


def psnr(
    truth: NDArray[np.floating], estimate: NDArray[np.floating], mask: NDArray[np.bool_], *, data_range: float
) -> float:
    """Peak signal-to-noise ratio inside a mask in dB; infinite where both agree exactly."""
    difference = truth[mask].astype(np.float64) - estimate[mask].astype(np.float64)
    error = float(np.mean(difference**2))
    return float(10 * np.log10(data_range**2 / error)) if error > 0 else float("inf")


def coefficient_of_variation(values: ArrayLike) -> float:
    """Divide the standard deviation of one tissue's intensities by their mean; NaN where the mean is not positive."""
    x = np.asarray(values, dtype=np.float64)
    mean = float(x.mean()) if x.size else 0.0
    return float(x.std()) / mean if mean > 0 else float("nan")


def coefficient_of_joint_variation(gray: ArrayLike, white: ArrayLike) -> float:
    """Divide the sum of two tissues' standard deviations by the distance of their means (lower is better).

    It falls as intensities within the tissues become uniform and the tissues stand apart: the usual measure of a bias
    correction where the true field is not known.
    """
    g, w = np.asarray(gray, dtype=np.float64), np.asarray(white, dtype=np.float64)
    if not (g.size and w.size):
        return float("nan")
    distance = abs(float(w.mean()) - float(g.mean()))
    return (float(g.std()) + float(w.std())) / distance if distance > 0 else float("nan")
