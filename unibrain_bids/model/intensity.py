"""The intensity scale of the networks' input, the same in training and in use."""

from __future__ import annotations

import torch
from torch import Tensor

_PERCENTILE = 99.5
# Fewer voxels above zero than this make no scale.
_FEWEST_VOXELS = 100


def unit_divisor(image: Tensor) -> float:
    """A high percentile of the voxels above zero; 1 where there are hardly any."""
    positive = image[image > 0]
    if positive.numel() < _FEWEST_VOXELS:
        return 1.0
    step = max(positive.numel() // 50000, 1)
    return float(torch.quantile(positive[::step].float(), _PERCENTILE / 100))


def scale_to_unit(image: Tensor) -> Tensor:
    """Divide by `unit_divisor` and clip to 0..1; zero stays zero, so that a multiplicative field stays one."""
    return (image / unit_divisor(image)).clamp(0, 1)
