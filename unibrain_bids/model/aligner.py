"""The second look: groups of structures at 4 mm in a roughly aligned head, from which a better affine follows.

The affine is the closed form between the groups' centres and the soft atlas'; a few repetitions bring a head from
where the first look has put it into the population frame.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from unibrain_bids.model import frame
from unibrain_bids.model.atlas import Atlas
from unibrain_bids.model.backbone import Backbone
from unibrain_bids.model.registration import centroids, closed_form_affine
from unibrain_bids.model.segmentation import group_prior
from unibrain_bids.model.steady import Pointwise

SPACING = 4.0
# Wider than the frame's box, so that a brain which stands 16 mm beside it is still seen whole.
SHAPE = (48, 56, 48)
# Groups of fewer voxels (of 64 mm3) don't enter the fit.
_SMALLEST_GROUP = 8


class Aligner(nn.Module):
    """Plain U-Net (four levels) over head and atlas groups on the 4 mm grid."""

    def __init__(self, widths: tuple[int, ...], atlas: Atlas) -> None:
        super().__init__()
        groups = on_coarse_grid(group_prior(atlas.structures))
        count = groups.shape[1]
        self.backbone = Backbone(1 + count, widths)
        self.head = Pointwise(widths[0], 1 + count)
        points = frame.points(SHAPE, SPACING)
        background = (1 - groups.sum(1, keepdim=True)).clamp(min=0)
        self.register_buffer("groups", groups, persistent=False)
        self.register_buffer("points", points, persistent=False)
        self.register_buffer("target", centroids(torch.cat([background, groups], dim=1), points)[0], persistent=False)

    groups: Tensor
    points: Tensor
    target: Tensor

    def forward(self, image: Tensor) -> Tensor:
        """Logits (batch, 1 + groups, 48, 56, 48), background first, of heads (batch, 1, 48, 56, 48), 0..1."""
        groups = self.groups.expand(len(image), -1, -1, -1, -1)
        return self.head(self.backbone(torch.cat([image, groups.to(image)], dim=1)).full)

    def fit(self, probability: Tensor) -> Tensor:
        """`frame_from_grid` (batch, 4, 4) by the closed form on the groups' centres, background first."""
        centre, volume = centroids(probability, self.points)
        return closed_form_affine(centre, volume, self.target, smallest=_SMALLEST_GROUP)

    def agreement(self, probability: Tensor) -> Tensor:
        """Soft Dice (batch,) of the groups (batch, 1 + groups, 48, 56, 48) with the atlas, mean over the groups."""
        seen, axes = probability[:, 1:], (2, 3, 4)
        dice = 2 * (seen * self.groups).sum(axes) / (seen.sum(axes) + self.groups.sum(axes)).clamp(min=1e-6)
        return dice.mean(1)


def on_coarse_grid(volume: Tensor) -> Tensor:
    """A volume of the frame's 2 mm grid as block means on the aligner's wider 4 mm grid, zeros around it."""
    pooled = functional.avg_pool3d(volume, 2)
    padding: list[int] = []
    for size, wanted in reversed(list(zip(pooled.shape[2:], SHAPE, strict=True))):
        padding += [(wanted - size) // 2] * 2
    return functional.pad(pooled, padding)


def group_channels() -> Tensor:
    """Group (0 for none) of each output channel of the structures, (1 + structures,) int64."""
    channels = torch.zeros(len(frame.STRUCTURES) + 1, dtype=torch.int64)
    for number, members in enumerate(frame.prior_groups(), start=1):
        channels[members] = number
    return channels
