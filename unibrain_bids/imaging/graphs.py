"""Graph measures of a region network's nodes, as networkx defines them: the content of `_graph.tsv`.

A network here is a dense matrix of some tens of regions: scipy and numpy take milliseconds where networkx, which walks
over edges one by one, takes a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import shortest_path

__all__ = ["COLUMNS", "node_measures"]

COLUMNS: dict[str, dict[str, str]] = {
    "index": {"Description": "Number of the region in the label image."},
    "name": {"Description": "Name of the region."},
    "strength": {"Description": "Sum of the weights of the region's edges (networkx.Graph.degree).", "Units": "1"},
    "clustering": {
        "Description": "Geometric mean of the weights of the triangles through the region, divided by the largest "
        "weight (as networkx.clustering has it).",
        "Units": "1",
    },
    "eigenvector_centrality": {
        "Description": "Entry of the leading eigenvector of the weights (networkx.eigenvector_centrality).",
        "Units": "1",
    },
    "closeness": {
        "Description": "Inverse of the mean length of the shortest paths to all other regions, where an edge is as "
        "long as the inverse of its weight (networkx.closeness_centrality).",
        "Units": "1",
    },
}
"""The columns of `node_measures` as BIDS describes them in a JSON sidecar."""


def node_measures(
    matrix: NDArray[np.floating], *, indices: Sequence[int], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Return one row per region with the columns of `COLUMNS`.

    Parameters
    ----------
    matrix
        (K, K) symmetric weights from 0; the diagonal does not count. Regions whose row is NaN are left out of the graph
        and get NaN.
    indices, names
        The regions, in the order of rows and columns.
    """
    known = np.isfinite(matrix).any(axis=1)
    weights = np.array(matrix, dtype=np.float64)[np.ix_(known, known)]
    np.fill_diagonal(weights, 0.0)
    measures = {name: np.full(len(matrix), np.nan) for name in list(COLUMNS)[2:]}
    measures["strength"][known] = weights.sum(0)
    if weights.any():
        distances = shortest_path(np.divide(1.0, weights, out=np.zeros_like(weights), where=weights > 0))
        measures["clustering"][known] = _clustering(weights)
        measures["closeness"][known] = _closeness(distances)
        # Of a graph in several parts the leading eigenvector is not unique.
        if np.isfinite(distances).all() and len(weights) > 2:
            measures["eigenvector_centrality"][known] = np.abs(np.linalg.eigh(weights)[1][:, -1])
    return [
        {"index": index, "name": name} | {column: float(values[row]) for column, values in measures.items()}
        for row, (index, name) in enumerate(zip(indices, names, strict=True))
    ]


def _closeness(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Closeness (K,) from the lengths of the shortest paths; in a graph in parts, times the share that is reached."""
    reached = np.isfinite(distances)
    total = np.where(reached, distances, 0.0).sum(1)
    others = reached.sum(1) - 1
    share = others / max(len(distances) - 1, 1)
    return np.divide(others, total, out=np.zeros(len(distances)), where=total > 0) * share


def _clustering(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Clustering (K,) from the geometric mean of the weights of triangles."""
    root = np.cbrt(weights / weights.max())
    neighbours = np.count_nonzero(weights, axis=1)
    pairs = neighbours * (neighbours - 1)
    triangles = np.einsum("ij,ji->i", root @ root, root)
    return np.divide(triangles, pairs, out=np.zeros(len(weights)), where=pairs > 0)
