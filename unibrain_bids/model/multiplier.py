"""NPP's multiplier field: one smooth field strips the head and normalises its intensities."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from unibrain_bids.model.steady import Pointwise

_LARGEST_LOG_GAIN = 3.0


@dataclass(frozen=True)
class Multiplier:
    """The field, factored; each (batch, 1, ...), the half-grid parts with half the sizes.

    chi = sigmoid(strip) * exp(log_gain). The gain alone is the bias correction, defined over the whole head.
    """

    log_gain_half: Tensor
    strip_half: Tensor

    def log_gain(self) -> Tensor:
        """Logarithm of the smooth gain on the full grid."""
        return functional.interpolate(self.log_gain_half, scale_factor=2.0, mode="trilinear", align_corners=False)

    def chi_half(self) -> Tensor:
        """The multiplier on the half grid, where it is predicted."""
        return torch.sigmoid(self.strip_half) * torch.exp(self.log_gain_half)

    def chi(self) -> Tensor:
        """The multiplier on the full grid, up-sampled trilinearly from the half grid (NPP section 2.1)."""
        return functional.interpolate(self.chi_half(), scale_factor=2.0, mode="trilinear", align_corners=False)


class MultiplierHead(nn.Module):
    """Gain and stripping from the half-grid features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = Pointwise(width, 2)

    def forward(self, half: Tensor) -> Multiplier:
        """Read the field off features (batch, width, X/2, Y/2, Z/2)."""
        log_gain, strip = self.head(half).float().split(1, dim=1)
        bounded = _LARGEST_LOG_GAIN * torch.tanh(log_gain / _LARGEST_LOG_GAIN)
        return Multiplier(log_gain_half=bounded, strip_half=strip)
