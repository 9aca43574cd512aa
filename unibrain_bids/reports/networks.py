"""Pictures of a network of regions: its matrix, and its strongest edges in a glass brain."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unibrain_bids.labels import LabelTable
from unibrain_bids.reports.files import read_rows
from unibrain_bids.reports.page import Figure, data_uri

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

__all__ = ["centroids", "connectome_figure", "matrix_figure", "read_matrix"]

_SHOWN_EDGES = 100
# What the edges of the program's own measures compare.
_MEASURES = {
    "innerproduct": "features that the model has learned (innerproduct)",
    "kls": "distributions of intensities (kls)",
    "mind": "local features of the voxels (mind)",
}
_DPI = 110


def read_matrix(path: Path) -> tuple[list[str], NDArray[np.float64]]:
    """Return the names of the regions and the matrix (R, R) of a `_relmat.tsv`; n/a is NaN."""
    rows = read_rows(path)
    values = [[_number(cell) for cell in row.values()] for row in rows]
    return list(rows[0]), np.array(values)


def matrix_figure(names: Sequence[str], matrix: NDArray[np.float64], table: LabelTable, *, measure: str) -> Figure:
    """Draw a matrix (R, R) as an image, with lines between the left, the right and the other regions."""
    from matplotlib.figure import Figure as Drawing

    sides = {row.name: row.hemisphere for row in table}
    groups = [sides.get(name, "n/a") for name in names]
    starts = [i for i, group in enumerate(groups) if i == 0 or groups[i - 1] != group]
    drawing = Drawing(figsize=(5.2, 4.3), layout="constrained")
    axes = drawing.subplots()
    image = axes.imshow(matrix, cmap="viridis", interpolation="nearest", vmin=0, vmax=1)
    for start in starts[1:]:
        axes.axhline(start - 0.5, color="white", linewidth=0.8)
        axes.axvline(start - 0.5, color="white", linewidth=0.8)
    shown = [groups[start] for start in starts] if len(starts) > 1 else [""]
    middles = [(a + b - 1) / 2 for a, b in zip(starts, [*starts[1:], len(groups)], strict=True)]
    axes.set_xticks(middles, shown)
    axes.set_yticks(middles, shown, rotation=90, va="center")
    axes.tick_params(length=0)
    drawing.colorbar(image, shrink=0.8)
    alt = f"Matrix of the network {measure}: {len(names)} by {len(names)} regions."
    return Figure(
        _encoded(drawing),
        alt,
        f"Similarity of each pair of regions in {_MEASURES.get(measure, measure)}; white is unknown.",
        paper=True,
    )


def connectome_figure(matrix: NDArray[np.float64], places: NDArray[np.float64], *, measure: str) -> Figure:
    """Draw the strongest edges of a network between the places (R, 3), RAS mm in MNI space, of its regions."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from nilearn.plotting import plot_connectome

    known = np.isfinite(places).all(axis=1)
    edges = np.nan_to_num(matrix[np.ix_(known, known)])
    np.fill_diagonal(edges, 0)
    strengths = np.sort(edges[np.triu_indices_from(edges, k=1)])
    least = max(float(strengths[-min(_SHOWN_EDGES, strengths.size)]), 1e-6)
    edges[edges < least] = 0
    drawing = pyplot.figure(figsize=(8.4, 3.0))
    plot_connectome(
        edges, places[known], figure=drawing, node_size=12, edge_cmap="viridis", edge_vmin=least, edge_vmax=1.0,
        node_color="#1f6f8b", edge_kwargs={"linewidth": 1.1, "alpha": 0.7},
    )  # fmt: skip
    picture = _encoded(drawing)
    pyplot.close(drawing)
    count = int(np.count_nonzero(edges) // 2)
    return Figure(
        picture,
        f"The {count} strongest edges of the network {measure} in a glass brain, from three sides.",
        f"The {count} strongest edges of {measure} (at least {least:.2f}), between the centres of the regions.",
        paper=True,
    )


def centroids(regions: Path, names: Sequence[str]) -> NDArray[np.float64]:
    """Return the centres (R, 3) of regions in MNI RAS mm, from a `_morph.tsv`; NaN where one was not found."""
    axes = ("mni_x", "mni_y", "mni_z")
    found = {row["name"]: [_number(row.get(axis, "n/a")) for axis in axes] for row in read_rows(regions)}
    return np.array([found.get(name, [np.nan] * 3) for name in names])


def _number(cell: str) -> float:
    return np.nan if cell == "n/a" else float(cell)


def _encoded(drawing: Drawing) -> str:
    """Return a drawing as a data URI (WebP)."""
    stream = io.BytesIO()
    drawing.savefig(stream, format="webp", dpi=_DPI, pil_kwargs={"quality": 82, "method": 2})
    return data_uri(stream.getvalue(), "image/webp")
