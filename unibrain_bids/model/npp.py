"""NPP as published: one smooth field strips and normalises the head, and the bottleneck gives the affine.

He, Wang & Sabuncu, "Neural Pre-processing", MICCAI 2023. It looks at the whole head on a conformed grid along the
world's axes, and knows a mask (chi > 0.2), the normalised brain and an affine: no structures and no regions. What
differs from the paper stands in docs/training.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unibrain_bids.model import frame
from unibrain_bids.model.backbone import Backbone
from unibrain_bids.model.multiplier import Multiplier, MultiplierHead
from unibrain_bids.model.presets import NppPreset
from unibrain_bids.model.registration import BottleneckStage
from unibrain_bids.model.spatial import warp

# Brain is where the multiplier exceeds this (section 2.1 of the paper).
MASK_THRESHOLD = 0.2


@dataclass(frozen=True)
class NppOutputs:
    """What one forward pass gives.

    Attributes
    ----------
    multiplier
        The field chi.
    normalised
        (batch, 1, X, Y, Z) T(x) = chi * x on the conformed grid.
    grid_from_frame
        (batch, 4, 4), mm: where each point of the template's frame lies in the conformed grid.
    """

    multiplier: Multiplier
    normalised: Tensor
    grid_from_frame: Tensor


class NPP(nn.Module):
    """Field and affine of conformed heads (batch, 1, X, Y, Z), 0..1, at lambda (batch,)."""

    template_points: Tensor
    voxel_from_grid: Tensor

    def __init__(self, preset: NppPreset) -> None:
        super().__init__()
        self.preset = preset
        self.backbone = Backbone(
            1, preset.widths,
            transformer_blocks=preset.transformer_blocks, hypernetwork=preset.hypernetwork, ends_at_half=True,
        )  # fmt: skip
        self.multiplier = MultiplierHead(preset.widths[1])
        self.stage = BottleneckStage(preset.widths[-1])
        # As in the paper the template's grid is as large as the head's: a smaller one leaves chi untaught around it.
        voxel_from_grid = torch.linalg.inv(torch.from_numpy(frame.affine(preset.spacing, preset.shape))).float()
        self.register_buffer("template_points", frame.points(preset.shape, preset.spacing), persistent=False)
        self.register_buffer("voxel_from_grid", voxel_from_grid, persistent=False)

    def forward(self, image: Tensor, smoothness: Tensor) -> NppOutputs:
        """Field, normalised brain and affine."""
        features = self.backbone(image, smoothness)
        multiplier = self.multiplier(features.half)
        return NppOutputs(multiplier, multiplier.chi() * image, self.stage(features.bottleneck))

    def to_template(self, volume: Tensor, grid_from_frame: Tensor) -> Tensor:
        """A volume of the conformed grid on the template's (same size, in the frame), sampled once."""
        return warp(volume, grid_from_frame, self.template_points, self.voxel_from_grid)
