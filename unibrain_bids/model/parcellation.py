"""Parcels: a soft atlas, warped inversely and refined by the network so that it follows the subject's own cortex.

Cortical regions are numbered alike in both hemispheres (the 34 of Desikan-Killiany); the side comes from the segmented
cortex, so that no region can cross the midline.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from unibrain_bids.model import frame
from unibrain_bids.model.spatial import warp
from unibrain_bids.model.steady import Pointwise

CORTICAL_REGIONS = 34
# Structures that are regions of their own.
_SUBCORTICAL_LEFT = (10, 11, 12, 13, 17, 18, 26, 8)
_SUBCORTICAL_RIGHT = (49, 50, 51, 52, 53, 54, 58, 47)
_PRIOR_FLOOR = 1e-3


def region_numbers() -> tuple[int, ...]:
    """FreeSurfer number of each of the 84 regions, in the order of `Parcellation`'s channels.

    Cortex comes first; label tables and published networks have the order of MRtrix's "fs_default" instead.
    """
    cortical = [n for n in range(1001, 1036) if n != 1004]
    return (*cortical, *(n + 1000 for n in cortical), *_SUBCORTICAL_LEFT, *_SUBCORTICAL_RIGHT)


class Parcellation(nn.Module):
    """Region probabilities from the inversely warped atlas, the network's residual and the segmentation."""

    voxel_from_frame: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.residual = Pointwise(width, CORTICAL_REGIONS)
        nn.init.zeros_(self.residual.weight)
        assert self.residual.bias is not None
        nn.init.zeros_(self.residual.bias)
        voxel_from_frame = torch.linalg.inv(torch.from_numpy(frame.affine()).float())
        self.register_buffer("voxel_from_frame", voxel_from_frame, persistent=False)

    def region_logits(self, features: Tensor, atlas: Tensor, frame_from_grid: Tensor, points: Tensor) -> Tensor:
        """Logits of the cortical regions at some points, sides not told apart.

        Parameters
        ----------
        features
            (batch, width, A, B, C) at the points.
        atlas
            (batch or 1, 34, X, Y, Z) soft cortical regions in the frame.
        frame_from_grid
            (batch, 4, 4) from the registration.
        points
            (A, B, C, 3) mm of the grid.

        Returns
        -------
        Tensor
            (batch, 34, A, B, C).
        """
        atlas = atlas.expand(len(frame_from_grid), -1, -1, -1, -1)
        warped = warp(atlas, frame_from_grid, points, self.voxel_from_frame)
        return torch.log(warped + _PRIOR_FLOOR) + self.residual(features).float()

    def forward(
        self, features: Tensor, structures: Tensor, atlas: Tensor, frame_from_grid: Tensor, points: Tensor
    ) -> Tensor:
        """Probabilities (batch, 84, X, Y, Z); their sum is that of the grey matter structures.

        `structures` are the segmentation's probabilities (batch, 1 + structures, X, Y, Z).
        """
        regions = functional.softmax(self.region_logits(features, atlas, frame_from_grid, points), dim=1)
        return joined_regions(structures, regions)


def joined_regions(structures: Tensor, cortical: Tensor) -> Tensor:
    """The 84 regions (batch, 84, ...): cortical ones (batch, 34, ...) in the cortex of each side, then structures."""
    channel = {number: i + 1 for i, number in enumerate(frame.STRUCTURES)}
    left, right = (structures[:, channel[number] : channel[number] + 1] for number in (3, 42))
    further = [channel[number] for number in _SUBCORTICAL_LEFT + _SUBCORTICAL_RIGHT]
    return torch.cat([left * cortical, right * cortical, structures[:, further]], dim=1)
