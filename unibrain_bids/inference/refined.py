"""The refiner's answer at a scan's own voxels, slab by slab, so that no volume of 32 classes at 1 mm is ever held."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from unibrain_bids.inference.seen import Look
from unibrain_bids.model import frame, refiner
from unibrain_bids.model.blocks import twice_as_fine
from unibrain_bids.model.contrast import Contrast, learn_contrast
from unibrain_bids.model.evidence import Evidence
from unibrain_bids.model.locate import Volume, fill_holes, pull, pull_averaged
from unibrain_bids.model.native import NativeGrid
from unibrain_bids.model.neighbours import Couplings, couplings
from unibrain_bids.model.refiner import (
    MASK_VOICE,
    Coarse,
    Refiner,
    Weighing,
    box_around,
    box_within,
    finer_box,
    posterior,
    wider_box,
)
from unibrain_bids.model.spatial import sample
from unibrain_bids.model.tissues import TISSUES, shared_evidence

# Voxels of 2 mm along x that are refined at once, besides those around them that they depend on.
_SLAB = 24
# Where the model at 2 mm rules the brain out by more than this, next to such voxels too, nothing is refined.
_POSSIBLE = 0.05
# Scans of smaller voxels, mm, are averaged; scans of larger ones show nothing between the voxels of the model at 2 mm,
# and are read from that: on real ones the refiner did harm (docs/training-log.md).
_FINE_SCAN, _COARSE_SCAN = 0.8, 1.5
# Voxels that tell the scan's contrast.
_WITNESSES = 200_000
# Pieces that stay in the processor's cache.
_VOXELS_AT_ONCE = 8192


@dataclass(frozen=True)
class Refined:
    """A scan's voxels that may be brain, and all that is known of them.

    Attributes
    ----------
    possible
        (X, Y, Z) where these voxels are; without holes.
    brain
        (N,) probabilities in the order of `numpy.flatnonzero(possible)`.
    intensity
        (N,) without bias field.
    places
        (N, 3) in voxels of the model's grid.
    structures_seen
        (1, 1 + structures, X, Y, Z) logarithms of the structures' probabilities on the model's grid, with the refiner's
        residual.
    residual
        (1, 3, 2X, 2Y, 2Z) the refiner's, of the tissues.
    evidence, weighing
        The structures' intensities in this scan, and how its voxels are judged.
    """

    possible: NDArray[np.bool_]
    brain: Tensor
    intensity: Tensor
    places: Tensor
    structures_seen: Tensor
    residual: Tensor
    evidence: Evidence
    weighing: Weighing

    def judge(self, chosen: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
        """Probabilities (1 + structures, n) at some of the voxels, and which lie outside the brain (n,).

        Place, intensity and refiner weigh against each other, each voxel by itself; `chosen` is (N,).
        """
        where = torch.from_numpy(np.flatnonzero(chosen)).to(self.brain.device)
        result = torch.empty(self.structures_seen.shape[1], len(where), device=self.brain.device)
        outside = torch.empty(len(where), dtype=torch.bool, device=self.brain.device)
        for start in range(0, len(where), _VOXELS_AT_ONCE):
            part = where[start : start + _VOXELS_AT_ONCE]
            structures = _at(self.structures_seen, self.places[part])
            residual = _at(self.residual, _on_finer_grid(self.places[part]))
            told = structures, self.intensity[part][None, None], self.evidence, residual
            loud = posterior(*told, voice=self.weighing.voice, place=self.weighing.place)[0].exp()
            quiet = posterior(*told, voice=MASK_VOICE)[0].exp()
            result[:, start : start + len(part)] = loud
            outside[start : start + len(part)] = quiet[0] >= self.weighing.outside
        return result, outside

    def couplings(self, corrected: NDArray[np.float32], spacing: NDArray[np.floating]) -> Couplings:
        """Of neighbouring voxels of the scan, whose intensities without bias field are (X, Y, Z)."""
        looks = torch.from_numpy(corrected).to(self.brain.device)
        return couplings(looks, float(self.evidence.spread.mean()), self.weighing.coupling, spacing)


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
    matrix = torch.from_numpy(native.grid_from_scan).float().to(near.device)
    places = voxels.float() @ matrix[:3, :3].T + matrix[:3, 3]
    dense = seen.outputs.dense
    contrast = _contrast(seen, native, voxels, intensity)
    coarse = Coarse.of(dense, contrast)
    residual = _refined(network, seen, volume, near[0, 0] > 0, coarse)
    return Refined(
        possible=possible,
        brain=torch.sigmoid(_at(coarse.mask_logits, places)[0, 0]),
        intensity=intensity,
        places=places,
        structures_seen=coarse.structures,
        residual=residual,
        evidence=shared_evidence(contrast),
        weighing=refiner.COARSE if _is_coarse(volume) else refiner.FINE,
    )


def _at(volume: Tensor, places: Tensor) -> Tensor:
    """Values (1, channels, n) of a volume (1, channels, X, Y, Z) at voxels (n, 3), the border's beyond it."""
    last = torch.tensor(volume.shape[2:], device=places.device) - 1.0
    inside = places.clamp(min=torch.zeros_like(last), max=last)
    return sample(volume, inside[None, None, None])[:, :, 0, 0]


def _on_finer_grid(places: Tensor) -> Tensor:
    # The middle of the first coarse voxel lies between the first two fine ones.
    return refiner.FACTOR * places + (refiner.FACTOR - 1) / 2


def _contrast(seen: Look, native: NativeGrid, voxels: Tensor, intensity: Tensor) -> Contrast:
    """The scan's contrast, from a part of the voxels that may be brain."""
    chosen = slice(None, None, max(len(voxels) // _WITNESSES, 1))
    some, values = voxels[chosen], intensity[chosen]
    brain = native.read(seen.found.brain, some)[0] > 0.5
    return learn_contrast(values[brain], native.read(seen.found.structures, some[brain]))


def _is_coarse(volume: Volume) -> bool:
    return bool((volume.spacing() > _COARSE_SCAN).all())


def _refined(network: Refiner, seen: Look, volume: Volume, near: Tensor, coarse: Coarse) -> Tensor:
    """The refiner's residual of the tissues (1, 3, 2X, 2Y, 2Z), slab by slab along x; zero away from `near` (X, Y, Z).

    That of the structures is added to `coarse.structures`: they are large, and the refiner does not look at them.
    """
    result = torch.zeros(1, TISSUES, *refiner.SHAPE, device=near.device)
    if _is_coarse(volume):
        return result
    points = frame.points(refiner.SHAPE, refiner.SPACING, near.device)
    for first in range(0, len(near), _SLAB):
        x, y, z = box_around(near[first : first + _SLAB])
        if x.start == x.stop:
            continue
        inner = (slice(first + x.start, first + x.stop), y, z)
        outer = wider_box(inner, refiner.REACH, frame.SHAPE)
        gain = twice_as_fine(seen.log_gain[(..., *outer)]).exp()
        image = _read(volume, seen, points[finer_box(outer)]) * gain
        answer = network(image, coarse.piece(outer), box_within(inner, outer))
        coarse.structures[(..., *inner)] += answer.structures
        result[(..., *finer_box(inner))] = answer.tissues
    return result


def _read(volume: Volume, seen: Look, points: Tensor) -> Tensor:
    """The scan (1, 1, A, B, C) at points (A, B, C, 3) of the frame, at 1 mm resolution."""
    world_from_frame = np.linalg.inv(seen.frame_from_scan)
    if (volume.spacing() < _FINE_SCAN).all():
        return pull_averaged(volume, world_from_frame, points, refiner.SPACING)
    return pull(volume, world_from_frame, points)
