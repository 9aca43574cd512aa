"""The population's products: the soft atlas that the model is aligned with, and a head phantom for demonstrations.

    python -m unibrain_bids.training.population packed/heads.npz unibrain_bids/resources/population

Both are averages over the training label maps (SynthSeg's public maps, Apache-2.0) and their mirror images in the
population frame; no person's head can be told from them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unibrain_bids.model import frame
from unibrain_bids.model.parcellation import CORTICAL_REGIONS
from unibrain_bids.training.packing import BRAIN_BIT, INTRACRANIAL_BIT
from unibrain_bids.training.recipes.basis import HELD_OUT, REGION_CHANNEL
from unibrain_bids.training.simulation.appearance import gaussian_blur
from unibrain_bids.training.simulation.geometry import Geometry, look_up
from unibrain_bids.training.simulation.material import MIRRORED, Material, is_brain, load_material, row_of

PHANTOM_SHAPE = (150, 182, 172)
PHANTOM_SPACING = 1.5
# Neck and face hang below the frame's brain: the phantom's grid is lowered by so many mm.
_PHANTOM_DROP = 22.0


def looked_up(material: Material, points: Tensor) -> Iterator[tuple[Tensor, Tensor, bool]]:
    """Labels and regions of every head and its mirror image at frame points (X, Y, Z, 3)."""
    for head in material.heads:
        for flip in (False, True):
            plain = Geometry(torch.eye(4), (), 0.0, flip)
            labels, regions = look_up(head, plain, points, head.labels, head.regions)
            yield labels, regions, flip


def soft_atlas(material: Material) -> dict[str, NDArray]:
    """Structure and region probabilities, template and centroids in the population frame."""
    points = frame.points()
    structures = torch.zeros(len(frame.STRUCTURES) + 1, *frame.SHAPE)
    regions = torch.zeros(CORTICAL_REGIONS, *frame.SHAPE)
    template = torch.zeros(frame.SHAPE)
    permutation = torch.tensor(frame.flip_permutation())
    for labels, region, flip in looked_up(material, points):
        channel = material.channel[row_of(labels)]
        channel = permutation[channel] if flip else channel
        structures.scatter_add_(0, channel[None], torch.ones_like(channel[None], dtype=torch.float32))
        known = REGION_CHANNEL[region.long()]
        inside = (known >= 0).float()
        regions.scatter_add_(0, known.clamp(min=0)[None], inside[None])
        template += is_brain(labels) * material.t1[row_of(labels), 0]
    count = 2 * len(material.heads)
    structures = _blur(structures / count, 1.0)
    # Far from every cortex the nearest region still answers: a wide blur fills what a narrow one leaves empty.
    regions = _blur(regions, 1.5) + 1e-3 * _blur(regions, 6.0)
    regions = regions / regions.sum(0, keepdim=True).clamp(min=1e-9)
    template = _blur(template[None] / count, 0.5)[0]
    return {
        "structures": _quantise(structures), "regions": _quantise(regions),
        "template": _quantise(template / template.max()), "centroids": material.centroids.numpy(),
    }  # fmt: skip


def phantom(material: Material) -> dict[str, NDArray]:
    """The whole mean head (most frequent label of each voxel) as a packed file of one head.

    Its grid stands in the population frame; see `training.packing` for the arrays.
    """
    points = frame.points(PHANTOM_SHAPE, PHANTOM_SPACING) - torch.tensor([0.0, 0.0, _PHANTOM_DROP])
    votes = torch.zeros(len(material.index), *PHANTOM_SHAPE)
    region_votes = torch.zeros(36, *PHANTOM_SHAPE)
    bits = {BRAIN_BIT: torch.zeros(PHANTOM_SHAPE), INTRACRANIAL_BIT: torch.zeros(PHANTOM_SHAPE)}
    mirrored = mirrored_rows(material)
    for labels, regions, flip in looked_up(material, points):
        row = mirrored[row_of(labels)] if flip else row_of(labels)
        votes.scatter_add_(0, row[None], torch.ones(1, *PHANTOM_SHAPE))
        region_votes.scatter_add_(0, regions.long()[None], torch.ones(1, *PHANTOM_SHAPE))
        for bit, count in bits.items():
            count += (labels & bit) > 0
    row = _blur(votes, 0.7).argmax(0)
    cortex = torch.isin(material.index[row], torch.tensor([3, 42]))
    region = cortex * (_blur(region_votes[1:], 1.5).argmax(0) + 1)
    packed = row.byte()
    for bit, count in bits.items():
        packed |= bit * (count >= len(material.heads)).byte()
    affine = frame.affine(PHANTOM_SPACING, PHANTOM_SHAPE)
    affine[2, 3] -= _PHANTOM_DROP
    return {
        "index": material.index.numpy(), "target": material.target.numpy(), "t1": material.t1.numpy(),
        "intensity_class": material.tied_class.numpy(), "names": np.array(["phantom"]),
        "centroids": material.centroids.numpy(), "labels_0": packed.numpy(), "regions_0": region.byte().numpy(),
        "affine_0": affine, "frame_from_head_0": np.eye(4),
    }  # fmt: skip


def mirrored_rows(material: Material) -> Tensor:
    """Row of the mirrored label, for each row of the label table."""
    numbers = material.index.tolist()
    return torch.tensor([numbers.index(MIRRORED.get(n, n)) for n in numbers])


def _blur(volume: Tensor, sigma: float) -> Tensor:
    return torch.stack([gaussian_blur(channel[None, None], [sigma] * 3)[0, 0] for channel in volume])


def _quantise(volume: Tensor) -> NDArray[np.uint8]:
    return (255 * volume).round().byte().numpy()


def main() -> None:
    """Write atlas.npz and phantom.npz."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packed", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--all-heads", action="store_true", help="include the held-out heads (final products)")
    args = parser.parse_args()
    material = load_material(args.packed)
    if not args.all_heads:
        material = material.subset(tuple(h.name for h in material.heads if h.name not in HELD_OUT))
    args.output.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(args.output / "atlas.npz", allow_pickle=False, **soft_atlas(material))
    np.savez_compressed(args.output / "phantom.npz", allow_pickle=False, **phantom(material))


if __name__ == "__main__":
    main()
