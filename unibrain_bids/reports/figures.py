"""The pictures of one scan: brain mask, normalisation, labels, and the match with the template."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from unibrain_bids.imaging.resample import resample
from unibrain_bids.labels import LabelTable
from unibrain_bids.reports.files import ScanFiles, read_json
from unibrain_bids.reports.page import Details, Flicker, Legend, Mosaic
from unibrain_bids.reports.slices import (
    Cut,
    Volume,
    choose_cuts,
    contour,
    diverging,
    grey,
    load_volume,
    overlay,
    strips,
)

__all__ = [
    "Canvas", "colors_of", "label_figure", "legend", "make_canvas", "mask_figure", "normalisation_figures",
    "registration", "spaces_of",
]  # fmt: skip

_CUTS = "Axial, coronal and sagittal slices; left is left."
_FEW_COLORS = 6
_MASK_COLOR = (255, 72, 66)
_GAIN_SMOOTHING = 5  # pixels
_DARK = 0.05  # share of the brightest tissue below which nothing can be said about the gain

Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class Canvas:
    """A scan to draw on.

    Attributes
    ----------
    head
        The head, bias-corrected.
    brain
        Whether a voxel belongs to the brain mask (or what stands for it), (X, Y, Z).
    cuts
        Where it is cut.
    top
        Intensity that is shown white.
    """

    head: Volume
    brain: NDArray[np.bool_]
    cuts: Sequence[Cut]
    top: float

    def mosaic(self, draw: Callable[[Cut], NDArray[np.uint8]], *, alt: str, caption: str) -> Mosaic:
        """Draw each cut and join the pictures."""
        return Mosaic(_joined(self.cuts, draw), alt=alt, caption=caption)

    def grey(self, cut: Cut) -> NDArray[np.uint8]:
        """One cut through the head."""
        return grey(cut.plane(self.head.data), top=self.top)


def make_canvas(files: ScanFiles) -> Canvas | None:
    """Choose what to draw on from what was written; None where no brain was outlined or no image written."""
    image = files.find(files.suffix, desc="preproc") or files.find(files.suffix, desc="brain")
    outline = (
        files.find("mask", desc="brain") or files.find("dseg", seg="aseg") or files.find(files.suffix, desc="brain")
    )
    if image is None or outline is None:
        return None
    head, mask = load_volume(image), load_volume(outline)
    brain = mask.data > 0
    return Canvas(head, brain, choose_cuts(mask), _top(head.data[brain])) if brain.any() else None


def mask_figure(canvas: Canvas) -> Mosaic:
    """The outline of the brain mask on the head."""

    def draw(cut: Cut) -> NDArray[np.uint8]:
        return contour(canvas.grey(cut), cut.plane(canvas.brain), _MASK_COLOR)

    return canvas.mosaic(
        draw,
        alt="Slices of the head with the outline of the brain mask.",
        caption=f"Red: border of the brain mask. {_CUTS}",
    )


def label_figure(canvas: Canvas, path: Path, table: LabelTable, *, what: str) -> Mosaic:
    """Labels in the colours of their table over the head; `what` names them."""
    labels, colors = load_volume(path), colors_of(table)

    def draw(cut: Cut) -> NDArray[np.uint8]:
        return overlay(canvas.grey(cut), cut.plane(labels.data, smooth=False), colors)

    return canvas.mosaic(
        draw, alt=f"Slices of the head with {what} in colour.", caption=f"{what[0].upper()}{what[1:]}. {_CUTS}"
    )


def legend(table: LabelTable) -> Legend | Details:
    """Return what the colours of `label_figure` mean; many of them are folded away."""
    colors = Legend([(row.color, row.name) for row in table if row.index in colors_of(table)])
    return colors if len(colors.rows) <= _FEW_COLORS else Details("What the colours mean", [colors])


def normalisation_figures(canvas: Canvas, raw: Path | None) -> Iterator[Flicker | Mosaic]:
    """Yield the head before and after bias correction, and the multiplier field between them.

    The field is read from the two images, on each slice: the ratio of both, smoothed. Without the raw scan there is
    only the head after correction.
    """
    after = canvas.mosaic(canvas.grey, alt="Slices of the corrected head.", caption="After correction")
    before = load_volume(raw) if raw else None
    if before is None or before.data.shape != canvas.head.data.shape:
        yield Mosaic(after.sources, after.alt, f"The corrected head; the raw scan was not at hand. {_CUTS}")
        return
    top = _top(before.data[canvas.brain])
    shown = canvas.mosaic(
        lambda cut: grey(cut.plane(before.data), top=top), alt="Slices of the head as scanned.", caption="As scanned"
    )
    yield Flicker(shown, after, f"The head as scanned, and after correction of its intensities. {_CUTS}")
    gains = {cut: _log_gain(cut.plane(before.data), cut.plane(canvas.head.data), top=top) for cut in canvas.cuts}
    within = np.concatenate([gain[cut.plane(canvas.brain) > 0.5] for cut, gain in gains.items()])
    low, high = np.percentile(within, [2, 98])
    reach = max(abs(low), abs(high), 0.05)
    yield Mosaic(
        _joined(canvas.cuts, lambda cut: diverging(gains[cut], reach=reach)),
        alt="Slices of the multiplier field.",
        caption=f"Multiplier field: the factor by which intensities were raised (orange) or lowered (blue). Within the "
        f"brain it goes from {2**low:.2f} to {2**high:.2f} (2nd to 98th percentile); black is 1.",
    )


def registration(files: ScanFiles, space: str, template: Path) -> Flicker | None:
    """The brain on the template's grid in turn with the template; None where it was not written.

    Parameters
    ----------
    files
        Derivatives of the scan.
    space
        Label of the template.
    template
        Its image; brought to the grid of the derivative if that is another one.
    """
    brain, mask = (_in_space(files, suffix, space) for suffix in (files.suffix, "mask"))
    if brain is None or mask is None:
        return None
    ours, outline = load_volume(brain), load_volume(mask)
    there = _on_grid(load_volume(template), ours)
    cuts = choose_cuts(outline)
    inside = outline.data > 0

    def sources(data: NDArray[Any]) -> list[str]:
        top = _top(data[inside])
        return _joined(cuts, lambda cut: contour(grey(cut.plane(data), top=top), cut.plane(inside), _MASK_COLOR))

    came_by = read_json(brain.with_name(brain.name.replace(".nii.gz", ".json"))).get("Sources", [])
    deformed = " and the deformation" if any("_desc-warp_xfm" in source for source in came_by) else ""
    return Flicker(
        Mosaic(sources(ours.data), alt="Slices of this brain on the template's grid.", caption="This brain"),
        Mosaic(sources(there), alt="The same slices of the template.", caption=f"Template {space}"),
        f"This brain after the affine{deformed}, and {space}; on both, in red, the border of this brain's mask. "
        f"{_CUTS}",
    )


def colors_of(table: LabelTable) -> dict[int, Rgb]:
    """Return the colour (RGB, 0 to 255) of each label that has one."""
    return {row.index: _rgb(row.color) for row in table if row.color.startswith("#") and len(row.color) == 7}


def spaces_of(files: ScanFiles) -> list[str]:
    """Return the templates on whose grids the brain was written."""
    found = (files.own(derivative).get("space") for derivative in files.every(files.suffix))
    return sorted({space for space in found if space})


def _in_space(files: ScanFiles, suffix: str, space: str) -> Path | None:
    for derivative in files.every(suffix):
        own: Mapping[str, str] = files.own(derivative)
        if own.get("space") == space and own.get("desc") == "brain":
            return derivative.path
    return None


def _on_grid(volume: Volume, grid: Volume) -> NDArray[Any]:
    """Return a volume on the grid of another one, (X, Y, Z)."""
    if volume.data.shape == grid.data.shape and np.allclose(volume.affine, grid.affine, atol=1e-3):
        return volume.data
    data = volume.data.astype(np.float32)
    return resample(data, volume.affine, shape=grid.data.shape, target_affine=grid.affine)


def _joined(cuts: Sequence[Cut], draw: Callable[[Cut], NDArray[np.uint8]]) -> list[str]:
    """Draw all cuts; strips join those of one axis, whose pictures are alike in size."""
    axes = dict.fromkeys(cut.axis for cut in cuts)
    return [strip for axis in axes for strip in strips([draw(cut) for cut in cuts if cut.axis == axis])]


def _log_gain(before: NDArray[np.float32], after: NDArray[np.float32], *, top: float) -> NDArray[np.float32]:
    """Return log2 of the smoothed ratio of two slices (H, W); 0 where both are dark."""
    low, high = (ndimage.gaussian_filter(plane, _GAIN_SMOOTHING) for plane in (before, after))
    lit = low > _DARK * top
    return np.where(lit, np.log2(np.maximum(high, 1e-6) / np.where(lit, low, 1)), 0).astype(np.float32)


def _top(values: NDArray[Any]) -> float:
    """Return the intensity that is shown white: somewhat above the brightest tissue."""
    return 1.15 * float(np.percentile(values, 99))


def _rgb(color: str) -> Rgb:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
