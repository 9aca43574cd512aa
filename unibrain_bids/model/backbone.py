"""The shared 3D U-Net (NPP's f_theta): features for every task, and the bottleneck for the affine."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from unibrain_bids.model.blocks import BottleneckTransformer, ConvBlock, Hypernetwork, twice_as_fine


@dataclass(frozen=True)
class Features:
    """What the backbone sees.

    Attributes
    ----------
    full
        (batch, widths[0], X, Y, Z) on the input grid; where the decoder ends on the half grid, the same as `half`.
    half
        (batch, widths[1], X/2, Y/2, Z/2).
    bottleneck
        (batch, widths[-1], X/16, Y/16, Z/16) for five levels.
    """

    full: Tensor
    half: Tensor
    bottleneck: Tensor


class Backbone(nn.Module):
    """U-Net of `len(widths)` levels, two convolutions each; optional bottleneck transformer and lambda conditioning.

    Parameters
    ----------
    inputs
        Input channels.
    widths
        Channels of each level, finest first; grid sizes must be multiples of 2 ** (levels - 1).
    transformer_blocks
        Blocks at the bottleneck; 0 for none.
    hypernetwork
        Hidden widths of the lambda hypernetwork; None for an unconditioned decoder.
    groups
        Groups of the normalisation; 0 for instance normalisation (see `ConvBlock`).
    ends_at_half
        Leave out the decoder's last level, the one on the input grid (NPP reads its field off the half grid).
    """

    def __init__(
        self,
        inputs: int,
        widths: tuple[int, ...],
        *,
        transformer_blocks: int = 0,
        hypernetwork: tuple[int, int] | None = None,
        groups: int = 0,
        ends_at_half: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(
            [ConvBlock(a, b, groups) for a, b in zip((inputs, *widths[:-1]), widths, strict=True)]
        )
        blocks = transformer_blocks
        self.transformer = BottleneckTransformer(widths[-1], blocks) if blocks else nn.Identity()
        self.ends_at_half = ends_at_half
        outputs = widths[-2:0:-1] if ends_at_half else widths[-2::-1]
        self.decoder = nn.ModuleList(
            [ConvBlock(below + skip, skip, groups) for below, skip in zip(widths[:0:-1], outputs, strict=False)]
        )
        self.hypernetwork = Hypernetwork(outputs, hypernetwork) if hypernetwork else None

    def forward(self, x: Tensor, smoothness: Tensor | None = None) -> Features:
        """Features of (batch, inputs, X, Y, Z); `smoothness` is lambda (batch,), needed with a hypernetwork."""
        skips = []
        for level, block in enumerate(self.encoder):
            x = block(functional.max_pool3d(x, 2) if level else x)
            skips.append(x)
        bottleneck = x = self.transformer(skips.pop())
        modulations: list[Tensor] | list[None] = [None] * len(self.decoder)
        if self.hypernetwork is not None and smoothness is not None:
            modulations = self.hypernetwork(smoothness)
        half = x
        for block, modulation in zip(self.decoder, modulations, strict=True):
            half = x
            x = twice_as_fine(x)
            x = block(torch.cat([x, skips.pop()], dim=1), modulation)
        return Features(full=x, half=x if self.ends_at_half else half, bottleneck=bottleneck)
