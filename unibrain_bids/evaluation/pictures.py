"""Pictures of labelled heads: the scan with both masks, the true structures, and those found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from numpy.typing import NDArray

from unibrain_bids.evaluation.heads import HeadRecord, LabelledHead
from unibrain_bids.labels import LabelTable

if TYPE_CHECKING:
    from unibrain_bids.inference import Prediction

_TITLES = ("scan; mask: true (green), found (red)", "true structures", "structures found")
_AXES = (2, 1)  # axial, coronal
_TRUE, _FOUND = "#2ca02c", "#d62728"
_INCHES = 2.4


def write_pictures(records: Sequence[HeadRecord], predict: Callable[[Path], Prediction], path: Path) -> None:
    """Draw each head in a row, an axial and a coronal cut through the middle of its brain, left on the left.

    Parameters
    ----------
    records
        Heads that may be shown: simulated ones.
    predict
        The inference.
    path
        PNG file to write.
    """
    from matplotlib.figure import Figure

    columns = len(_AXES) * len(_TITLES)
    figure = Figure(figsize=(_INCHES * columns, 1.15 * _INCHES * len(records)), layout="compressed", facecolor="black")
    panels = figure.subplots(len(records), columns, squeeze=False)
    for row, record in zip(panels, records, strict=True):
        head = record.load()
        _draw(head, predict(head.path), row)
        row[0].set_ylabel(record.name, color="white")
    for number, panel in enumerate(panels[0]):
        panel.set_title(_TITLES[number % len(_TITLES)], color="white", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90, facecolor="black")


def _draw(head: LabelledHead, prediction: Prediction, panels: NDArray) -> None:
    truth, found = head.masks["solid"], prediction.mask > 0
    colours = _colours()
    for part, axis in zip(np.split(panels, len(_AXES)), _AXES, strict=True):
        images = [
            _upright(data, head.affine) for data in (head.image, truth, found, head.structures, prediction.structures)
        ]
        middle = int(np.median(np.nonzero(images[1])[axis]))
        scan, true_mask, found_mask, true_labels, found_labels = (image.take(middle, axis).T for image in images)
        top = np.percentile(scan[true_mask], 99.5)
        for panel in part:
            panel.imshow(scan, cmap="gray", vmin=0, vmax=top, origin="lower")
            panel.set(xticks=[], yticks=[])
        part[0].contour(true_mask, [0.5], colors=_TRUE, linewidths=0.8)
        part[0].contour(found_mask, [0.5], colors=_FOUND, linewidths=0.8)
        for panel, labels in ((part[1], true_labels), (part[2], found_labels)):
            panel.imshow(colours[np.maximum(labels, 0)], origin="lower")


def _colours() -> NDArray[np.float64]:
    """RGBA (number + 1, 4) of each structure; what is none is clear."""
    from matplotlib.colors import to_rgba

    table = LabelTable.load("aseg")
    colours = np.zeros((max(table.indices) + 1, 4))
    for row in table:
        colours[row.index] = to_rgba(row.color, 0.75)
    return colours


def _upright(data: NDArray, affine: NDArray[np.float64]) -> NDArray:
    """Turn a volume so that its axes run to the right, to the front and up."""
    turn = ornt_transform(io_orientation(affine), axcodes2ornt("RAS"))
    return np.asarray(nib.orientations.apply_orientation(data, turn))
