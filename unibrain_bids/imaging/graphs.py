"""Graph measures of a region network's nodes, by networkx: the content of `_graph.tsv`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    import networkx

    known = np.flatnonzero(np.isfinite(matrix).any(axis=1))
    weights = np.array(matrix, dtype=np.float64)[np.ix_(known, known)]
    np.fill_diagonal(weights, 0.0)
    graph = networkx.from_numpy_array(weights)
    for _, _, edge in graph.edges(data=True):
        edge["length"] = 1 / edge["weight"]
    found: dict[str, Any] = {column: {} for column in ("clustering", "eigenvector_centrality", "closeness")}
    if graph.number_of_edges():
        found["clustering"] = dict(enumerate(_clustering(weights).tolist()))
        found["closeness"] = networkx.closeness_centrality(graph, distance="length")
        # Of a graph in several parts the leading eigenvector is not unique. Power iteration starts alike every time;
        # ARPACK, behind `eigenvector_centrality_numpy`, starts at random.
        if networkx.is_connected(graph) and len(graph) > 2:
            found["eigenvector_centrality"] = networkx.eigenvector_centrality(
                graph, weight="weight", tol=1e-10, max_iter=10_000
            )
    found = {"strength": dict(graph.degree(weight="weight")), **found}
    node = {region: i for i, region in enumerate(known.tolist())}
    return [
        {"index": index, "name": name}
        | {column: float(values.get(node.get(row), np.nan)) for column, values in found.items()}
        for row, (index, name) in enumerate(zip(indices, names, strict=True))
    ]


def _clustering(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Clustering (K,) as `networkx.clustering` defines it, which takes a second for three networks."""
    root = np.cbrt(weights / weights.max())
    neighbours = np.count_nonzero(weights, axis=1)
    pairs = neighbours * (neighbours - 1)
    triangles = np.einsum("ij,ji->i", root @ root, root)
    return np.divide(triangles, pairs, out=np.zeros(len(weights)), where=pairs > 0)
