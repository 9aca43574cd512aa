"""The refiner's answer at a scan's own voxels, slab by slab, so that no volume of 32 classes at 1 mm is ever held."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from unibrain_bids.inference.seen import Look
from unibrain_bids.model import frame, refiner
from unibrain_bids.model.blocks import twice_as_fine
from unibrain_bids.model.locate import Volume, fill_holes, pull, pull_averaged
from unibrain_bids.model.native import NativeGrid
from unibrain_bids.model.refiner import Box, Coarse, Contrast, Fine, Refiner, finer_box, learn_contrast
from unibrain_bids.model.spatial import sample

# Voxels of 2 mm along x that are refined at once, besides those around them that they depend on.
_SLAB = 24
# Where the model at 2 mm rules the brain out by more than this, next to such voxels too, nothing is refined.
_POSSIBLE = 0.05
# Logits: of what is not looked at, and of the mask where structures are not read.
_RULED_OUT, _NO_MASK = -12.0, -2.0
# Scans of smaller voxels, mm, are averaged.
_FINE_SCAN = 0.8
# Voxels that tell the scan's contrast.
_WITNESSES = 200_000
# Pieces that stay in the processor's cache.
_VOXELS_AT_ONCE = 8192


@dataclass(frozen=True)
class Refined:
    """The refiner's answer at the voxels of a scan that may be brain.

    Attributes
    ----------
    possible
        (X, Y, Z) where these voxels are; without holes.
    brain
        (N,) probabilities in the order of `numpy.flatnonzero(possible)`.
    structure_logits
        (1 + structures, N), background first.
    intensity
        (N,) without bias field.
    contrast
        What the scan's structures look like.
    """

    possible: NDArray[np.bool_]
    brain: Tensor
    structure_logits: Tensor
    intensity: Tensor
    contrast: Contrast

    def structures(self, network: Refiner, chosen: NDArray[np.bool_]) -> Tensor:
        """Probabilities (1 + structures, n) at some of the voxels, their intensities weighed in; `chosen` is (N,)."""
        where = torch.from_numpy(np.flatnonzero(chosen)).to(self.brain.device)
        result = self.structure_logits[:, where]
        for start in range(0, len(where), _VOXELS_AT_ONCE):
            part = slice(start, start + _VOXELS_AT_ONCE)
            intensity = self.intensity[where[part]][None, None]
            result[:, part] = network.weigh(result[None, :, part], intensity, self.contrast)[0].exp()
        return result


def refine(network: Refiner, seen: Look, volume: Volume, native: NativeGrid, corrected: NDArray[np.float32]) -> Refined:
    """Refine what the model has seen of a scan, at the voxels of the scan's grid.

    Parameters
    ----------
    network
        The trained refiner.
    seen
        What the model saw at 2 mm.
    volume, native
        The scan, and its grid.
    corrected
        (X, Y, Z) its intensities times the exponential of `seen.log_gain`.
    """
    near = functional.max_pool3d((seen.found.brain > _POSSIBLE).float(), 3, stride=1, padding=1)
    possible = native.volume(near) > 0
    possible = fill_holes(possible) if possible.any() else possible
    voxels = torch.from_numpy(np.argwhere(possible)).to(near.device)
    intensity = torch.from_numpy(corrected[possible]).to(near.device)
    contrast = _contrast(seen, native, voxels, intensity)
    matrix = torch.from_numpy(native.grid_from_scan).float().to(near.device)
    # The middle of the first coarse voxel lies between the first two fine ones.
    places = refiner.FACTOR * (voxels.float() @ matrix[:3, :3].T + matrix[:3, 3]) + (refiner.FACTOR - 1) / 2
    mask_logits = torch.full((len(places),), _RULED_OUT, device=near.device)
    structure_logits = torch.full((1 + len(frame.STRUCTURES), len(places)), _RULED_OUT, device=near.device)
    structure_logits[0] = 0
    for box, fine in _slabs(network, seen, volume, near[0, 0] > 0, contrast):
        # Two slabs share a voxel of 2 mm: what lies there is read from the second, which overwrites it.
        here = ((places[:, 0] >= box[0].start) & (places[:, 0] <= box[0].stop - 1)).nonzero()[:, 0]
        origin = torch.tensor([side.start for side in box], device=near.device, dtype=torch.float32)
        found = sample(fine.mask_logits, (places[here] - origin)[None, None, None])[0, 0, 0, 0]
        mask_logits[here] = found
        # Outside the mask nobody asks for structures.
        here = here[found > _NO_MASK]
        structure_logits[:, here] = sample(fine.structure_logits, (places[here] - origin)[None, None, None])[0, :, 0, 0]
    return Refined(possible, torch.sigmoid(mask_logits), structure_logits, intensity, contrast)


def _contrast(seen: Look, native: NativeGrid, voxels: Tensor, intensity: Tensor) -> Contrast:
    """The scan's contrast, from a part of the voxels that may be brain."""
    chosen = slice(None, None, max(len(voxels) // _WITNESSES, 1))
    some, values = voxels[chosen], intensity[chosen]
    brain = native.read(seen.found.brain, some)[0] > 0.5
    return learn_contrast(values[brain], native.read(seen.found.structures, some[brain]))


def _slabs(
    network: Refiner, seen: Look, volume: Volume, near: Tensor, contrast: Contrast
) -> Iterator[tuple[Box, Fine]]:
    """The refiner's answer in slabs along x that overlap by a voxel of 2 mm: the box at 1 mm, and the logits in it."""
    dense = seen.outputs.dense
    coarse = Coarse(dense.features.full, dense.mask_logits, dense.structure_logits)
    points = frame.points(refiner.SHAPE, refiner.SPACING, near.device)
    x, y, z = _box(near)
    for first in range(x.start, x.stop, _SLAB):
        inner = (slice(first, min(first + _SLAB + 1, x.stop)), y, z)
        outer = _wider(inner)
        gain = twice_as_fine(seen.log_gain[(..., *outer)]).exp()
        image = _read(volume, seen, points[finer_box(outer)]) * gain
        answer = network(image, coarse.piece(outer), contrast)
        kept = finer_box(_within(inner, outer))
        yield finer_box(inner), Fine(answer.mask_logits[(..., *kept)], answer.structure_logits[(..., *kept)])


def _read(volume: Volume, seen: Look, points: Tensor) -> Tensor:
    """The scan (1, 1, A, B, C) at points (A, B, C, 3) of the frame, at 1 mm resolution."""
    world_from_frame = np.linalg.inv(seen.frame_from_scan)
    if (volume.spacing() < _FINE_SCAN).all():
        return pull_averaged(volume, world_from_frame, points, refiner.SPACING)
    return pull(volume, world_from_frame, points)


def _box(near: Tensor) -> Box:
    spans = [near.any(1).any(1).nonzero(), near.any(0).any(1).nonzero(), near.any(0).any(0).nonzero()]
    x, y, z = (slice(int(s.min()), int(s.max()) + 1) if len(s) else slice(0, 0) for s in spans)
    return x, y, z


def _wider(box: Box) -> Box:
    x, y, z = (
        slice(max(side.start - refiner.REACH, 0), min(side.stop + refiner.REACH, size))
        for side, size in zip(box, frame.SHAPE, strict=True)
    )
    return x, y, z


def _within(box: Box, outer: Box) -> Box:
    x, y, z = (slice(side.start - other.start, side.stop - other.start) for side, other in zip(box, outer, strict=True))
    return x, y, z
