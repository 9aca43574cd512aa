"""Structures: the network's residual on the soft atlas that it was aligned with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unibrain_bids.model import frame
from unibrain_bids.model.steady import Pointwise

_PRIOR_FLOOR = 1e-4
# The prior speaks with half its voice: it is averaged over heads that are better aligned than a new scan may be.
_PRIOR_WEIGHT = 0.5
# A step of the optimiser must be able to move a logit by as much as the prior can be wrong.
_RESIDUAL_SCALE = 8.0


def log_prior(probability: Tensor) -> Tensor:
    """Logarithm of the soft atlas with a floor, so that the network can say what the atlas has not seen."""
    return torch.log((probability + _PRIOR_FLOOR) / (1 + probability.shape[1] * _PRIOR_FLOOR))


def group_prior(probability: Tensor) -> Tensor:
    """The soft atlas (batch, 1 + structures, ...) summed into the few channels that the backbone sees."""
    return torch.cat([probability[:, group].sum(1, keepdim=True) for group in frame.prior_groups()], dim=1)


class SegmentationHead(nn.Module):
    """Logits = tempered log prior + residual; the residual is zero at the start, so training begins at the atlas."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.residual = Pointwise(width, len(frame.STRUCTURES) + 1)
        nn.init.zeros_(self.residual.weight)
        assert self.residual.bias is not None
        nn.init.zeros_(self.residual.bias)

    def forward(self, full: Tensor, prior: Tensor) -> Tensor:
        """Logits (batch, 1 + structures, X, Y, Z) from features and the log prior."""
        return _RESIDUAL_SCALE * self.residual(full) + _PRIOR_WEIGHT * prior
