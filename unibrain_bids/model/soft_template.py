"""One labelled template with soft labels: what UniBrain is given besides masks and a class for each person."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from unibrain_bids.labels import LabelTable
from unibrain_bids.model import frame
from unibrain_bids.model.atlas import Atlas
from unibrain_bids.model.parcellation import joined_regions
from unibrain_bids.model.spatial import SUBVOXEL, sample

# Channels of the tissues; BIDS' numbers are 1 GM, 2 WM, 3 CSF, and 0 is none of them.
TISSUES = 4


@dataclass(frozen=True)
class SoftTemplate:
    """A brain and its labels on a grid that is centred on the frame's origin.

    Attributes
    ----------
    image
        (1, 1, X, Y, Z) brain, 0..1.
    tissues
        (1, 4, X, Y, Z) probabilities: none, GM, WM, CSF (BIDS' order).
    regions
        (1, 84, X, Y, Z) probabilities, in the order of `parcellation.region_numbers`.
    """

    image: Tensor
    tissues: Tensor
    regions: Tensor

    @classmethod
    def from_atlas(
        cls, atlas: Atlas, shape: tuple[int, int, int], spacing: float, *, likeliest: bool = True
    ) -> SoftTemplate:
        """The population's mean brain on a grid of `shape` voxels of `spacing` mm.

        With the likeliest labels of the population's atlas as its own: a template has one label at a place, and soft
        are only the shares of labels in a voxel, and what warping makes of them. Or else with the atlas' probabilities.
        """
        structures, cortical = atlas.structures, atlas.regions
        if likeliest:
            structures, cortical = _likeliest(structures), _likeliest(cortical)
        volumes = atlas.template, tissue_probabilities(structures), joined_regions(structures, cortical)
        image, tissues, regions = (_on_grid(volume, shape, spacing) for volume in volumes)
        tissues[:, 0] = 1 - tissues[:, 1:].sum(1)  # the grid may be wider than the atlas
        return cls(image, tissues, regions)

    def to(self, device: torch.device | str) -> SoftTemplate:
        """A copy on the device."""
        return SoftTemplate(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def tissue_of_channel() -> Tensor:
    """Tissue 0..3 of each output channel of the structures (background first), int64."""
    mapping = {row.index: row.mapping for row in LabelTable.load("aseg")}
    return torch.tensor([0, *(mapping[number] or 0 for number in frame.STRUCTURES)])


def tissue_probabilities(structures: Tensor) -> Tensor:
    """Tissues (batch, 4, ...) from structures (batch, 1 + structures, ...), background first."""
    tissue = tissue_of_channel()
    return torch.stack([structures[:, tissue == number].sum(1) for number in range(TISSUES)], dim=1)


def _likeliest(probability: Tensor) -> Tensor:
    """Ones in the likeliest channel of (1, channels, X, Y, Z), zeros in the others."""
    return torch.zeros_like(probability).scatter_(1, probability.argmax(1, keepdim=True), 1.0)


def _on_grid(volume: Tensor, shape: tuple[int, int, int], spacing: float) -> Tensor:
    """Means of four sub-voxel positions of a volume (1, channels, X, Y, Z) of the frame's grid."""
    voxel_from_mm = torch.linalg.inv(torch.from_numpy(frame.affine())).float()
    points = frame.points(shape, spacing)[None]
    voxels = [points + spacing * torch.tensor(offset) for offset in SUBVOXEL]
    parts = [sample(volume, v @ voxel_from_mm[:3, :3].T + voxel_from_mm[:3, 3]) for v in voxels]
    return torch.stack(parts).mean(0)
