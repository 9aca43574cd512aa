"""The unified model's region network: one embedding a region of what tells persons apart, inner products as edges.

Persons are told apart by the size and the place of their regions far better than by features of the voxels, which say
more of the scanner (docs/training-log.md). So an embedding is a linear map of a few measures of the region, each as far
from the population's mean as it is reliable; the map is solved in closed form (`training.recipes.network`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unibrain_bids.model.steady import voxel_sums

MEASURES = ("intensity_mean", "intensity_sd", "log_volume", "x", "y", "z")
PLACE = slice(3, 6)
"""Where the centroid stands among the measures."""
_REGIONS = 84
_SMALLEST_VOLUME = 20.0
_SMALLEST_SPREAD = 1e-3
_EPSILON = 1e-6
_RADIUS_MM = 50.0


def measure(regions: Tensor, normalised: Tensor, points: Tensor) -> Tensor:
    """Measures (batch, R, 6) of soft regions: intensity, its standard deviation, log volume, centroid in mm.

    Parameters
    ----------
    regions
        (batch, R, X, Y, Z) probabilities.
    normalised
        (batch, 1, X, Y, Z) normalised brain.
    points
        (X, Y, Z, 3) mm of the grid.
    """
    intensity = normalised.float().flatten(2).transpose(1, 2)
    places = points.flatten(0, 2).expand(len(regions), -1, -1)
    values = torch.cat([torch.ones_like(intensity), intensity, intensity.square(), places], dim=2)
    volume, *sums = voxel_sums(regions.float().flatten(2), values).split([1, 1, 1, 3], dim=2)
    mean, square, centroid = (total / (volume + _EPSILON) for total in sums)
    spread = (square - mean.square()).clamp(min=_EPSILON).sqrt()
    return torch.cat([mean, spread, torch.log1p(volume), centroid], dim=2).float()


class MorphometricNetwork(nn.Module):
    """Measures of soft regions to l2-normalised embeddings H, and C = H H^T without negatives.

    Until it is trained, embeddings are the measures themselves, standardised within the head.

    Parameters
    ----------
    outputs
        Width of an embedding.
    """

    reference: Tensor
    centre: Tensor
    scale: Tensor

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.register_buffer("reference", torch.zeros(_REGIONS, 3))
        self.register_buffer("centre", torch.zeros(_REGIONS, len(MEASURES)))
        self.register_buffer("scale", torch.ones(_REGIONS, len(MEASURES)))
        self.anchors = nn.Parameter(torch.zeros(_REGIONS, outputs))
        self.projection = nn.Parameter(torch.eye(outputs, len(MEASURES)))

    def forward(self, regions: Tensor, normalised: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings H (batch, 84, outputs) and network C (batch, 84, 84), 0..1, diagonal 1; see `measure`."""
        embedding = self.embed(measure(regions, normalised, points))
        return embedding, torch.relu(embedding @ embedding.transpose(1, 2))

    def embed(self, measures: Tensor) -> Tensor:
        """Embeddings (batch, 84, outputs) of unit length: the region's own anchor, moved by how the person differs."""
        deviation = (self.standardise(measures) - self.centre) / self.scale
        return functional.normalize(self.anchors + deviation @ self.projection.T, dim=-1)

    def standardise(self, measures: Tensor) -> Tensor:
        """Measures (..., 84, 6) less what moves all regions alike: scanner, head size, pose.

        Intensities and volumes are standardised over the head's regions; centroids (mm) become their distance from the
        population's, after the affine that fits them best.
        """
        values = measures[..., : PLACE.start]
        spread = values.std(dim=-2, keepdim=True) + _SMALLEST_SPREAD
        values = (values - values.mean(dim=-2, keepdim=True)) / spread
        # Where next to nothing is left of a region, its centroid is nowhere.
        volume = torch.expm1(measures[..., PLACE.start - 1, None])
        share = volume / (volume + _SMALLEST_VOLUME)
        centroid = functional.pad(measures[..., PLACE] / _RADIUS_MM, (0, 1), value=1.0)
        weighted = share * centroid
        normal = centroid.transpose(-1, -2) @ weighted + _SMALLEST_SPREAD * torch.eye(4, device=measures.device)
        affine = torch.linalg.solve(normal, weighted.transpose(-1, -2) @ self.reference)
        return torch.cat([values, share * (centroid @ affine - self.reference)], dim=-1)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Weights made before this network, or by a recipe that doesn't train it, leave it as it is."""
        own = {f"{prefix}{name}": tensor for name, tensor in self.state_dict().items()}
        for name in [name for name in state_dict if name.startswith(prefix) and name not in own]:
            del state_dict[name]
        state_dict |= {name: tensor for name, tensor in own.items() if name not in state_dict}
        super()._load_from_state_dict(state_dict, prefix, *args)
