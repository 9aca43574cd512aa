"""Slices through volumes as pictures: the same cuts through several volumes on one grid, with labels over them.

Volumes are in canonical order (RAS+, shape (X, Y, Z)). Pictures are uint8 (H, W, 3), seen from behind and from above:
left is left, right is right.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.funcs import as_closest_canonical
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray
from scipy import ndimage

from unibrain_bids.reports.page import data_uri

__all__ = ["Cut", "Volume", "choose_cuts", "contour", "diverging", "grey", "load_volume", "overlay", "strips"]

_MARGIN_MM = 9.0
_PIXELS_PER_MM = 1.25
_PER_STRIP = 4
_BELOW, _ABOVE = np.array([42, 110, 187]), np.array([240, 138, 36])
# Share of the brain's extent within which cuts are spread: its very ends show little.
_ENDS = (0.12, 0.88)

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Volume:
    """A volume in canonical order: data (X, Y, Z), voxel size (3,) in mm, and voxel to RAS mm (4, 4)."""

    data: NDArray[Any]
    spacing: tuple[float, ...]
    affine: NDArray[np.float64]


@dataclass(frozen=True)
class Cut:
    """One plane: its axis (0 sagittal, 1 coronal, 2 axial), its place in voxels, and what is shown of it.

    The window is (start, stop) in voxels along the plane's two axes, `size` that of the picture (width, height).
    """

    axis: int
    index: int
    window: tuple[tuple[int, int], ...]
    size: tuple[int, int]

    def plane(self, data: NDArray[Any], *, smooth: bool = True) -> NDArray[np.float32]:
        """Return the plane of a volume in square pixels, (H, W), the top row first."""
        from PIL import Image

        across, up = (slice(*part) for part in self.window)
        plane = np.moveaxis(data, self.axis, 0)[self.index, across, up].T[::-1]
        how = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
        picture = Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32))
        return np.asarray(picture.resize(self.size, how))


def load_volume(path: Path) -> Volume:
    """Read an image and bring its axes into canonical order."""
    image = as_closest_canonical(Nifti1Image.from_filename(path))
    data = np.asarray(image.dataobj)
    spacing = tuple(float(step) for step in image.header.get_zooms()[:3])
    return Volume(data, spacing, np.asarray(image.affine, dtype=np.float64))


def choose_cuts(mask: Volume, *, per_axis: int = 8) -> list[Cut]:
    """Spread cuts evenly over the brain: axial, coronal, sagittal, `per_axis` of each.

    Raises
    ------
    ValueError
        The mask is empty.
    """
    bounds = ndimage.find_objects((mask.data > 0).astype(np.uint8))
    if not bounds:
        raise ValueError("the brain mask is empty")
    box = bounds[0]
    window = [
        (max(0, part.start - round(_MARGIN_MM / step)), min(length, part.stop + round(_MARGIN_MM / step)))
        for part, step, length in zip(box, mask.spacing, mask.data.shape, strict=True)
    ]
    pixels = [
        round((stop - start) * step * _PIXELS_PER_MM) for (start, stop), step in zip(window, mask.spacing, strict=True)
    ]
    cuts = []
    for axis in (2, 1, 0):
        across, up = (other for other in range(3) if other != axis)
        for share in np.linspace(*_ENDS, per_axis):
            place = round(box[axis].start + share * (box[axis].stop - 1 - box[axis].start))
            cuts.append(Cut(axis, place, (window[across], window[up]), (pixels[across], pixels[up])))
    return cuts


def grey(plane: NDArray[np.float32], *, top: float) -> Picture:
    """Return intensities (H, W) in grey: 0 black, `top` white."""
    level = np.clip(plane / max(top, 1e-6), 0, 1) * 255
    return np.repeat(level.astype(np.uint8)[..., None], 3, axis=2)


def diverging(plane: NDArray[np.float32], *, reach: float) -> Picture:
    """Return values (H, W) in colour: blue at -`reach`, dark at 0, orange at +`reach`."""
    share = np.clip(plane / max(reach, 1e-6), -1, 1)[..., None]
    return (np.where(share < 0, _BELOW, _ABOVE) * np.abs(share)).astype(np.uint8)


def overlay(
    picture: Picture, labels: NDArray[np.float32], colors: Mapping[int, Sequence[int]], *, alpha: float = 0.55
) -> Picture:
    """Lay the colours (RGB, 0 to 255) of labels (H, W) over a picture; labels without a colour stay clear."""
    numbers = labels.astype(np.int64)
    table = np.zeros((max([int(numbers.max(initial=0)), *colors]) + 1, 4), dtype=np.float32)
    for number, color in colors.items():
        table[number] = [*color, alpha]
    chosen = table[np.maximum(numbers, 0)]
    weight = chosen[..., 3:]
    return (picture * (1 - weight) + chosen[..., :3] * weight).astype(np.uint8)


def contour(picture: Picture, inside: NDArray[np.float32], color: Sequence[int]) -> Picture:
    """Draw the border of a region, given as shares (H, W) of 0 to 1, in a colour."""
    region = inside > 0.5
    border = region & ~ndimage.binary_erosion(region, iterations=2, border_value=1)
    return np.where(border[..., None], np.array(color, dtype=np.uint8), picture)


def strips(pictures: Sequence[Picture]) -> list[str]:
    """Join pictures, as many of one height as fit, into strips; return each as a data URI (WebP)."""
    from PIL import Image

    found = []
    for start in range(0, len(pictures), _PER_STRIP):
        part = pictures[start : start + _PER_STRIP]
        stream = io.BytesIO()
        Image.fromarray(np.concatenate(part, axis=1)).save(stream, "WEBP", quality=60, method=2)
        found.append(data_uri(stream.getvalue(), "image/webp"))
    return found
