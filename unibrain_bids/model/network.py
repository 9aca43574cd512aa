"""The region network (UniBrain's f_o): one embedding a region, their inner products as edges."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from unibrain_bids.model.steady import voxel_sums

_EPSILON = 1e-6
_SMALLEST_SPREAD = 1e-3


class RegionNetwork(nn.Module):
    """Features pooled over soft regions, a shared MLP, l2-normalised embeddings H, and C = H H^T without negatives.

    Parameters
    ----------
    width
        Channels of the features that are pooled.
    outputs
        Width of an embedding.
    hidden
        Width of the MLP's two hidden layers.
    """

    def __init__(self, width: int, outputs: int, hidden: int = 256) -> None:
        super().__init__()
        described = 2 * (width + 1) + 1
        self.normalise = nn.LayerNorm(described)
        self.mlp = nn.Sequential(
            nn.Linear(described, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
        )

    def forward(self, regions: Tensor, features: Tensor, normalised: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings H (batch, R, outputs) and network C (batch, R, R) with values 0..1 and a diagonal of ones.

        Parameters
        ----------
        regions
            (batch, R, X, Y, Z) soft region masks.
        features
            (batch, width, X, Y, Z).
        normalised
            (batch, 1, X, Y, Z) normalised brain.
        """
        embedding = self.embed(describe(regions, features, normalised))
        return embedding, torch.relu(embedding @ embedding.transpose(1, 2))

    def embed(self, description: Tensor) -> Tensor:
        """Embeddings H (batch, R, outputs) of unit length from what `describe` gives.

        Each measure is standardised over the scan's regions first: what moves all regions alike is the scanner's.
        """
        spread = description.std(dim=-2, keepdim=True) + _SMALLEST_SPREAD
        standardised = (description - description.mean(dim=-2, keepdim=True)) / spread
        return functional.normalize(self.mlp(self.normalise(standardised)), dim=-1)


def describe(regions: Tensor, features: Tensor, normalised: Tensor) -> Tensor:
    """Mean and standard deviation of every feature in every region, and its log volume: (batch, R, described)."""
    values = torch.cat([features.float(), normalised.float()], dim=1).flatten(2).transpose(1, 2)
    weight = regions.float().flatten(2)
    powers = torch.cat([torch.ones_like(values[..., :1]), values, values.square()], dim=2)
    volume, first, second = voxel_sums(weight, powers).split([1, values.shape[2], values.shape[2]], dim=2)
    mean = first / (volume + _EPSILON)
    spread = (second / (volume + _EPSILON) - mean.square()).clamp(min=_EPSILON).sqrt()
    return torch.cat([mean, spread, torch.log1p(volume)], dim=2).float()
