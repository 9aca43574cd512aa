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
from torch.nn import functional

from unibrain_bids.model import frame
from unibrain_bids.model.parcellation import CORTICAL_REGIONS
from unibrain_bids.training.recipes import HELD_OUT, REGION_CHANNEL
from unibrain_bids.training.simulation.appearance import gaussian_blur
from unibrain_bids.training.simulation.geometry import Geometry, look_up
from unibrain_bids.training.simulation.material import MIRRORED, Material, is_brain, load_material, row_of

PHANTOM_SHAPE = (112, 136, 128)
PHANTOM_SPACING = 2.0
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


def phantom(material: Material) -> NDArray[np.int16]:
    """Label map of the whole mean head (most frequent label of each voxel), label numbers of the table."""
    points = frame.points(PHANTOM_SHAPE, PHANTOM_SPACING) - torch.tensor([0.0, 0.0, _PHANTOM_DROP])
    rows = len(material.index)
    votes = torch.zeros(rows, *PHANTOM_SHAPE)
    mirrored = mirrored_rows(material)
    for labels, _, flip in looked_up(material, points):
        row = row_of(labels)
        row = mirrored[row] if flip else row
        votes.scatter_add_(0, row[None], torch.ones_like(row[None], dtype=torch.float32))
    winner = _blur(votes, 0.7).argmax(0)
    return material.index[winner].numpy().astype(np.int16)


def mirrored_rows(material: Material) -> Tensor:
    """Row of the mirrored label, for each row of the label table."""
    numbers = material.index.tolist()
    return torch.tensor([numbers.index(MIRRORED.get(n, n)) for n in numbers])


def write_phantom(labels: NDArray[np.int16], path: Path) -> None:
    """Save the phantom in frame mm (RAS)."""
    import nibabel as nib

    affine = frame.affine(PHANTOM_SPACING, PHANTOM_SHAPE)
    affine[2, 3] -= _PHANTOM_DROP
    nib.save(nib.Nifti1Image(labels, affine), path)


def _blur(volume: Tensor, sigma: float) -> Tensor:
    return torch.stack([gaussian_blur(channel[None, None], [sigma] * 3)[0, 0] for channel in volume])


def _quantise(volume: Tensor) -> NDArray[np.uint8]:
    return (255 * volume).round().byte().numpy()


def main() -> None:
    """Write population/atlas.npz and population/phantom_dseg.nii.gz."""
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
    write_phantom(phantom(material), args.output / "phantom_dseg.nii.gz")


if __name__ == "__main__":
    main()
