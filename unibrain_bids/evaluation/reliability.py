"""How well networks repeat: intraclass correlation of every edge, and whether persons are recognised by their edges."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["edges", "icc", "identifiability", "self_others_gap", "similarity_of_networks"]


def edges(networks: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the upper triangles (..., E) of networks (..., R, R) without those edges that any network lacks (NaN)."""
    rows, columns = np.triu_indices(networks.shape[-1], 1)
    values = networks[..., rows, columns].astype(np.float64)
    known = np.isfinite(values.reshape(-1, values.shape[-1])).all(axis=0)
    return values[..., known]


def icc(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ICC(2,1) of each edge (E,): two-way random effects, absolute agreement, one scan (Shrout and Fleiss 1979).

    Parameters
    ----------
    values
        (persons, scans, E).
    """
    persons, scans, _ = values.shape
    grand = values.mean(axis=(0, 1))
    between = scans * ((values.mean(axis=1) - grand) ** 2).sum(axis=0) / (persons - 1)
    sessions = persons * ((values.mean(axis=0) - grand) ** 2).sum(axis=0) / (scans - 1)
    residual = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0, keepdims=True) + grand
    error = (residual**2).sum(axis=(0, 1)) / ((persons - 1) * (scans - 1))
    total = between + (scans - 1) * error + scans * (sessions - error) / persons
    return np.divide(between - error, total, out=np.full(total.shape, np.nan), where=total > 1e-12)


def similarity_of_networks(
    first: NDArray[np.float64], second: NDArray[np.float64], *, centred: bool
) -> NDArray[np.float64]:
    """Return the correlations (persons, persons) of edges (persons, E); `centred`: less the mean of all persons."""
    scaled = []
    for values in (first, second):
        own = values - values.mean(axis=0) if centred else values
        own = own - own.mean(axis=1, keepdims=True)
        scaled.append(own / np.maximum(np.linalg.norm(own, axis=1, keepdims=True), 1e-12))
    return scaled[0] @ scaled[1].T


def identifiability(similarity: NDArray[np.float64]) -> float:
    """Return the share of persons whose other scan is the most similar of all, mean of both directions."""
    truth = np.arange(len(similarity))
    return float(np.mean([similarity.argmax(axis=0) == truth, similarity.argmax(axis=1) == truth]))


def self_others_gap(similarity: NDArray[np.float64]) -> float:
    """Return the mean similarity to oneself less the mean similarity to others."""
    own = np.diag(similarity).mean()
    others = (similarity.sum() - np.trace(similarity)) / (similarity.size - len(similarity))
    return float(own - others)
