"""The first look: structures of the whole field of view at 4 mm, from which the brain's pose follows."""

from __future__ import annotations

from torch import Tensor, nn

from unibrain_bids.model.backbone import Backbone
from unibrain_bids.model.frame import STRUCTURES

SPACING = 4.0
MULTIPLE = 16


class FirstLook(nn.Module):
    """Plain U-Net over the whole head at 4 mm; any grid whose sizes are multiples of 16."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.backbone = Backbone(1, widths)
        self.structures = nn.Conv3d(widths[0], len(STRUCTURES) + 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (batch, 1 + structures, X, Y, Z) of a head (batch, 1, X, Y, Z) on the 0..1 scale, RAS, 4 mm."""
        return self.structures(self.backbone(image).full)
