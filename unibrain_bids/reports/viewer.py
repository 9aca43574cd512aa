"""The interactive viewer of a report: NiiVue, with one scan's head and labels as small volumes inside the page."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from isal import igzip
from markupsafe import Markup
from nibabel.affines import apply_affine
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray
from scipy import ndimage

from unibrain_bids.labels import LabelTable
from unibrain_bids.reports.figures import Canvas, colors_of
from unibrain_bids.reports.page import Html
from unibrain_bids.reports.slices import Volume

__all__ = ["Overlay", "library", "viewer_block", "volumes_of"]

_MARGIN_MM = 22.0
_GREYS = 90  # more levels than can be told apart only cost space
_NAME = "{}-volumes"

_BLOCK = Markup("""\
<div class="viewer screen" data-volumes="{name}">
<button type="button" data-open>Open the viewer</button>
<div class="stage" hidden>
<div class="canvas">
<canvas tabindex="0" aria-label="Slices of the head. Arrow keys, Page Up and Page Down move the cross.">\
</canvas></div>
<div class="controls">
<label>Colours <select data-overlay></select></label>
<label>Opacity <input type="range" min="0" max="1" step="0.05" value="0.5" data-opacity></label>
<label>View <select data-view><option value="3">three planes<option value="0">axial<option value="1">coronal\
<option value="2">sagittal<option value="4">surface</select></label>
<output aria-live="off"></output>
</div>
</div>
<p class="note">{note}</p>
</div>""")


@dataclass(frozen=True)
class Overlay:
    """Labels to lay over the head: what they are called, on the head's grid, and their table."""

    title: str
    volume: Volume
    table: LabelTable | None = None


def viewer_block(name: str, *, spacing: float) -> Html:
    """Return the viewer of the volumes that the page holds under the name of `volumes_of`."""
    note = (
        f"The brain and its surroundings at {spacing:g} mm in {_GREYS} grey levels: for a look, not to measure on. "
        "Drawn by NiiVue (BSD-2-Clause); needs WebGL 2."
    )
    return Html(_BLOCK.format(name=_NAME.format(name), note=note))


def volumes_of(name: str, canvas: Canvas, overlays: Sequence[Overlay], *, spacing: float) -> dict[str, Any]:
    """Return the page's data for one viewer: head and labels, cut to the brain and brought to `spacing` (mm).

    Parameters
    ----------
    name
        Of the viewer, unique in the page.
    canvas
        The head, and where its brain is.
    overlays
        Labels on the same grid.
    spacing
        Size of the cubic voxels in mm.
    """
    head = canvas.head
    low, shape = _box(canvas.brain, head.spacing, spacing)
    affine = head.affine @ np.diag([*(spacing / np.array(head.spacing)), 1.0])
    affine[:3, 3] = apply_affine(head.affine, low)
    step = spacing / np.array(head.spacing)

    def small(data: NDArray[Any], order: int) -> NDArray[Any]:
        return ndimage.affine_transform(data, step, offset=low, output_shape=shape, order=order, mode="constant")

    grey = np.clip(small(head.data.astype(np.float32), 1) / canvas.top, 0, 1) * _GREYS
    laid = [
        {
            "title": overlay.title,
            "volume": _packed(small(overlay.volume.data.astype(np.int16), 0), affine),
            "colors": _colormap(overlay.table),
        }
        for overlay in overlays
    ]
    return {_NAME.format(name): {"head": _packed(grey.round().astype(np.uint8), affine), "overlays": laid}}


def library() -> dict[str, str]:
    """Return the page's data that holds NiiVue itself, once for all viewers."""
    return {"niivue": _library()}


@cache
def _library() -> str:
    path = files("unibrain_bids") / "resources/reports/niivue/niivue.umd.js.gz"
    return base64.b64encode(path.read_bytes()).decode("ascii")


def _box(
    brain: NDArray[np.bool_], voxel: Sequence[float], spacing: float
) -> tuple[NDArray[np.float64], tuple[int, ...]]:
    """Return the first voxel (3,) of the surroundings of the brain, and their size in voxels of `spacing` mm."""
    extent = ndimage.find_objects(brain.astype(np.uint8))[0]
    bounds = [
        (max(0.0, part.start - _MARGIN_MM / step), min(float(length), part.stop + _MARGIN_MM / step))
        for part, step, length in zip(extent, voxel, brain.shape, strict=True)
    ]
    shape = tuple(int((stop - start) * step / spacing) for (start, stop), step in zip(bounds, voxel, strict=True))
    return np.array([start for start, _ in bounds]), shape


def _colormap(table: LabelTable | None) -> dict[str, list[Any]]:
    """Return the colours of labels as NiiVue takes them; without a table, label 1 is red."""
    rows = list(_rows(table))
    return {key: [row[i] for row in rows] for i, key in enumerate(("I", "R", "G", "B", "A", "labels"))}


def _rows(table: LabelTable | None) -> Iterator[tuple[int, int, int, int, int, str]]:
    yield (0, 0, 0, 0, 0, "")
    if table is None:
        yield (1, 255, 72, 66, 255, "brain")
        return
    colors = colors_of(table)
    for row in sorted(table, key=lambda row: row.index):
        if row.index in colors:
            yield (row.index, *colors[row.index], 255, row.name)


def _packed(data: NDArray[Any], affine: NDArray[np.float64]) -> str:
    """Return a volume as the base64 text of a .nii.gz file."""
    image = Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    return base64.b64encode(igzip.compress(image.to_bytes(), 3, mtime=0)).decode("ascii")
