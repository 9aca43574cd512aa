"""Networks of an individual that need no training: how alike the voxels of two regions are distributed (KLS, MIND)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, gaussian_gradient_magnitude, uniform_filter

from unibrain_bids.imaging.regions import region_voxels

__all__ = ["kls_network", "local_features", "mind_network"]

_STEPS_PER_BANDWIDTH = 4
_MAX_STEPS = 4096
_REACH = 8.0
_FLOOR = 1e-12
_SMALLEST_SQUARE = 1e-8


def kls_network(
    intensity: NDArray[Any], labels: NDArray[Any], indices: Sequence[int], *, min_voxels: int = 100
) -> NDArray[np.float64]:
    """Return the Kullback-Leibler similarity of every pair of regions.

    Each region's density p is a Gaussian kernel estimate of its voxel values (Scott's bandwidth, n^(-1/5) sd). With the
    symmetric divergence J(p, q) = KL(p|q) + KL(q|p), the similarity is exp(-J): 1 for equal distributions, 0 for such
    that share no value (Kong et al. 2015, doi:10.1371/journal.pone.0141840; Wang et al. 2016, doi:10.1002/brb3.448).
    Densities are floored at 1e-12 of their mass per step of the grid, so that J stays finite.

    Parameters
    ----------
    intensity
        (X, Y, Z), on a continuous scale; the scale's unit and offset do not matter.
    labels
        (X, Y, Z) integers on the same grid.
    indices
        The regions, in the order of rows and columns.
    min_voxels
        Smaller regions get a row and a column of NaN: their density is not known well enough.

    Returns
    -------
    ndarray
        (K, K) float64, symmetric, 0 to 1, with a diagonal of 1.
    """
    voxels, bounds = region_voxels(labels, indices)
    values = intensity.ravel()[voxels].astype(np.float64)
    samples = {k: part for k, part in enumerate(np.split(values, bounds[1:-1])) if part.size >= max(min_voxels, 2)}
    network = np.full((len(indices), len(indices)), np.nan)
    if samples:
        known = list(samples)
        network[np.ix_(known, known)] = _similarity(_densities(list(samples.values())))
    return network


def _densities(samples: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return kernel density estimates (K, grid) on one common grid, each with sum 1.

    Binning first and smoothing the bins costs nothing per voxel; with bins of a quarter of the smallest bandwidth the
    error is far below the estimate's own.
    """
    low, high = min(part.min() for part in samples), max(part.max() for part in samples)
    span = max(high - low, np.finfo(np.float64).tiny)
    bandwidths = np.array([part.std(ddof=1) * part.size**-0.2 for part in samples])
    bandwidths = np.maximum(bandwidths, span * _STEPS_PER_BANDWIDTH / _MAX_STEPS)  # a constant region has none
    step = bandwidths.min() / _STEPS_PER_BANDWIDTH
    margin = _REACH * bandwidths.max()
    bins = math.ceil((high - low + 2 * margin) / step) + 1
    ends = (low - margin, low - margin + bins * step)
    rows = [
        gaussian_filter1d(
            np.histogram(part, bins, ends)[0] / part.size, bandwidth / step, mode="constant", truncate=_REACH
        )
        for part, bandwidth in zip(samples, bandwidths, strict=True)
    ]
    densities = np.maximum(np.stack(rows), _FLOOR)
    return densities / densities.sum(axis=1, keepdims=True)


def _similarity(densities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return exp(-J) of all pairs of the densities (K, grid)."""
    cross = densities @ np.log(densities).T
    negative_entropy = np.diag(cross)
    divergence = negative_entropy[:, None] + negative_entropy[None, :] - (cross + cross.T)
    similarity = np.exp(-np.maximum(divergence, 0))  # rounding may leave a divergence just below 0
    np.fill_diagonal(similarity, 1.0)
    return similarity


def local_features(intensity: NDArray[Any], grey: NDArray[Any]) -> NDArray[np.float32]:
    """Return what `mind_network` compares regions by, (4, X, Y, Z).

    The intensity, its mean over 3 x 3 x 3 voxels, its gradient's magnitude (Gaussian derivative of one voxel), and the
    probability of grey matter.

    Parameters
    ----------
    intensity
        (X, Y, Z), normalised and stripped.
    grey
        (X, Y, Z) probability of grey matter, 0 to 1.
    """
    data = intensity.astype(np.float32, copy=False)
    return np.stack([data, uniform_filter(data, 3), gaussian_gradient_magnitude(data, 1.0), grey.astype(np.float32)])


def mind_network(
    features: NDArray[Any], labels: NDArray[Any], indices: Sequence[int], *, samples: int = 200, min_voxels: int = 100
) -> NDArray[np.float64]:
    """Return the inverse divergence of every pair of regions, after MIND.

    Each region is a sample of voxels with several features, standardised over all regions. With the divergences
    KL(p|q) estimated by nearest neighbours (Perez-Cruz 2008), estimates below 0 counting as 0, the similarity is
    1 / (1 + KL(p|q) + KL(q|p)) (Sebenius et al. 2023, doi:10.1038/s41593-023-01376-7, who sample a surface's vertices).
    The same number of voxels, evenly spread over it, stands for every region: the estimate's bias depends on their
    number.

    Parameters
    ----------
    features
        (F, X, Y, Z), continuous.
    labels
        (X, Y, Z) integers on the same grid.
    indices
        The regions, in the order of rows and columns.
    samples
        Voxels per region; regions that have fewer give all they have.
    min_voxels
        Smaller regions get a row and a column of NaN.

    Returns
    -------
    ndarray
        (K, K) float64, symmetric, 0 to 1, with a diagonal of 1.
    """
    voxels, bounds = region_voxels(labels, indices)
    chosen = {
        k: voxels[np.linspace(low, high - 1, min(samples, high - low)).astype(np.intp)]
        for k, (low, high) in enumerate(pairwise(bounds))
        if high - low >= max(min_voxels, 2)
    }
    network = np.full((len(indices), len(indices)), np.nan)
    if chosen:
        values = features.reshape(len(features), -1)[:, np.concatenate(list(chosen.values()))].T.astype(np.float64)
        values = (values - values.mean(0)) / np.maximum(values.std(0), 1e-9)
        divergence = _neighbour_divergence(values, np.array([part.size for part in chosen.values()]))
        similarity = 1 / (1 + divergence + divergence.T)
        np.fill_diagonal(similarity, 1.0)
        known = list(chosen)
        network[np.ix_(known, known)] = similarity
    return network


def _neighbour_divergence(values: NDArray[np.float64], sizes: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return max(KL(p|q), 0) of all pairs of samples, (K, K); `values` (sum of sizes, F) holds them one by one."""
    starts = np.concatenate([[0], np.cumsum(sizes)])
    # |v - w|^2 as one product of matrices: (v, |v|^2, 1) times (-2 w, 1, |w|^2)
    square, ones = (values**2).sum(1, keepdims=True), np.ones((len(values), 1))
    left, right = np.hstack([values, square, ones]), np.hstack([-2 * values, ones, square]).T
    divergence = np.zeros((sizes.size, sizes.size))
    for k, size in enumerate(sizes):
        own = slice(starts[k], starts[k + 1])
        distance = left[own] @ right
        distance[np.arange(size), np.arange(starts[k], starts[k + 1])] = np.inf  # no voxel is its own neighbour
        smallest = np.maximum(np.minimum.reduceat(distance, starts[:-1], axis=1), _SMALLEST_SQUARE)
        nearest = 0.5 * np.log(smallest).mean(0)
        divergence[k] = values.shape[1] * (nearest - nearest[k]) + np.log(sizes / (size - 1))
    np.fill_diagonal(divergence, 0.0)
    return np.maximum(divergence, 0.0)
