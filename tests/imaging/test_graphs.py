"""Graph measures against formulas on small networks."""

from __future__ import annotations

import networkx
import numpy as np
import pytest

from unibrain_bids.imaging.graphs import COLUMNS, node_measures


def measures(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """Return the columns of the table."""
    size = len(matrix)
    rows = node_measures(matrix, indices=range(1, size + 1), names=[f"r{i}" for i in range(size)])
    assert all(list(row) == list(COLUMNS) for row in rows)
    return {column: np.array([row[column] for row in rows]) for column in list(COLUMNS)[2:]}


def test_a_complete_network_against_formulas() -> None:
    rng = np.random.default_rng(0)
    weights = rng.uniform(0.2, 1, size=(6, 6))
    weights = (weights + weights.T) / 2
    np.fill_diagonal(weights, 1.0)
    found = measures(weights)
    off = weights - np.eye(6)
    np.testing.assert_allclose(found["strength"], off.sum(0))
    cubes = np.cbrt(off / off.max())
    np.testing.assert_allclose(found["clustering"], np.diag(cubes @ cubes @ cubes) / (5 * 4))
    leading = np.abs(np.linalg.eigh(off)[1][:, -1])
    np.testing.assert_allclose(found["eigenvector_centrality"], leading, rtol=1e-6)


def test_paths_are_as_long_as_inverse_weights() -> None:
    chain = np.diag([0.5, 0.25], 1) + np.diag([0.5, 0.25], -1)
    np.testing.assert_allclose(measures(chain)["closeness"], [2 / (2 + 6), 2 / (2 + 4), 2 / (6 + 4)])


def test_missing_regions_shift_nobody() -> None:
    weights = np.full((4, 4), 0.5)
    with_gap = np.full((5, 5), np.nan)
    known = [0, 1, 3, 4]
    with_gap[np.ix_(known, known)] = weights
    for column, values in measures(with_gap).items():
        np.testing.assert_allclose(values[known], measures(weights)[column])
        assert np.isnan(values[2])


@pytest.mark.parametrize("matrix", [np.full((3, 3), np.nan), np.eye(3)])
def test_networks_without_edges(matrix: np.ndarray) -> None:
    found = measures(matrix)
    assert np.isnan(found["closeness"]).all() and np.isnan(found["eigenvector_centrality"]).all()


def test_a_network_in_parts_as_networkx_has_it() -> None:
    weights = np.zeros((6, 6))
    for i, j, weight in [(0, 1, 0.9), (1, 2, 0.4), (0, 2, 0.3), (3, 4, 0.7)]:
        weights[i, j] = weights[j, i] = weight
    graph = networkx.from_numpy_array(weights)
    for _, _, edge in graph.edges(data=True):
        edge["length"] = 1 / edge["weight"]
    found = measures(weights)
    expected = {
        "strength": dict(graph.degree(weight="weight")),
        "clustering": networkx.clustering(graph, weight="weight"),
        "closeness": networkx.closeness_centrality(graph, distance="length"),
    }
    for column, values in expected.items():
        np.testing.assert_allclose(found[column], [values[i] for i in range(6)], err_msg=column)
    assert np.isnan(found["eigenvector_centrality"]).all()
