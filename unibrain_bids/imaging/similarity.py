"""The classical individual network: similarity of the distributions of intensity in pairs of regions (KLS)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from unibrain_bids.imaging.regions import region_voxels

__all__ = ["kls_network"]

_STEPS_PER_BANDWIDTH = 4
_MAX_STEPS = 4096
_REACH = 8.0
_FLOOR = 1e-12


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
    edges = np.arange(low - margin, high + margin + 2 * step, step)
    rows = [
        gaussian_filter1d(np.histogram(part, edges)[0] / part.size, bandwidth / step, mode="constant", truncate=_REACH)
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
