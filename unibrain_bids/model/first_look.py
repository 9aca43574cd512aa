"""The first look over the whole field of view at 8 mm: where the brain is, and where in the frame each voxel lies.

Every voxel of the head guesses its own place in the population frame; the affine is the least-squares fit to the
guesses of the brain's voxels, thousands of them; what was tried before stands in docs/training-log.md. Guesses go out
as steps from where the voxel would lie if the brain's centre were all that is known: what is left to learn, turn and
size about that centre, is local. Group normalisation, because instance normalisation takes away any shift common to
all voxels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unibrain_bids.model import frame
from unibrain_bids.model.backbone import Backbone
from unibrain_bids.model.steady import Pointwise

SPACING = 8.0
MULTIPLE = 8
# Guesses come in units of this many mm, about the half width of a head.
_UNIT_MM = 80.0
# Centre of the frame's mean brain mask, mm.
_BRAIN_CENTRE = (0.0, -6.2, 6.6)


class FirstLook(nn.Module):
    """Plain U-Net over the whole head at 8 mm; any grid whose sizes are multiples of 8 (four levels)."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.backbone = Backbone(4, widths, groups=4)
        self.head = Pointwise(widths[0], 4)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Brain logits and guessed places of a head (batch, 1, X, Y, Z), 0..1, RAS, 8 mm.

        Returns
        -------
        tuple
            (batch, 1, X, Y, Z) logits; (batch, 3, X, Y, Z) frame coordinates in mm.
        """
        x, y, z = image.shape[2:]
        points = frame.points((x, y, z), SPACING, image.device).permute(3, 0, 1, 2)[None]
        ramps = (points / _UNIT_MM).expand(len(image), -1, -1, -1, -1)
        features = self.backbone(torch.cat([image, ramps.to(image)], dim=1)).full
        logits, steps = self.head(features).float().split([1, 3], dim=1)
        shift = torch.tensor(_BRAIN_CENTRE, device=image.device) - brain_centre(logits.detach(), points)
        return logits, points + shift[..., None, None, None] + _UNIT_MM * steps


def brain_centre(logits: Tensor, points: Tensor) -> Tensor:
    """Centre in mm (batch, 3) of the voxels taken for brain; the grid's centre when there are none.

    `logits` is (batch, 1, X, Y, Z), `points` (1, 3, X, Y, Z) mm.
    """
    weight = torch.sigmoid(logits) * (logits > 0)
    return (weight * points).sum((2, 3, 4)) / weight.sum((2, 3, 4)).clamp(min=1e-3)
