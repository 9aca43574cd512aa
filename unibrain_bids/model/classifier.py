"""The graph classifier (UniBrain's f_g): two graph convolutions on the region network, then an MLP."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class GraphClassifier(nn.Module):
    """GCN on (H, C) with feature and edge perturbation while training.

    Parameters
    ----------
    inputs
        Width of the region embeddings.
    hidden
        Width of the two graph convolutions (UniBrain: 128).
    classes
        Number of classes.
    feature_noise
        Standard deviation of the noise added to embeddings in training.
    dropped_edges
        Part of the edges removed in training (the paper's code kept that part instead).
    """

    def __init__(
        self, inputs: int, hidden: int, classes: int, *, feature_noise: float = 0.01, dropped_edges: float = 0.05
    ) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList([nn.Linear(inputs, hidden), nn.Linear(hidden, hidden)])
        self.output = nn.Linear(hidden, classes)
        self.feature_noise, self.dropped_edges = feature_noise, dropped_edges

    def forward(self, embedding: Tensor, network: Tensor) -> Tensor:
        """Class logits (batch, classes) from H (batch, R, inputs) and C (batch, R, R)."""
        if self.training:
            embedding = embedding + self.feature_noise * torch.randn_like(embedding)
            network = network * keep_edges(network, self.dropped_edges)
        adjacency = normalise_adjacency(network)
        x = embedding
        for convolution in self.convolutions:
            x = functional.relu(adjacency @ convolution(x))
        return self.output(x.mean(1))


def normalise_adjacency(network: Tensor) -> Tensor:
    """Symmetric normalisation D^-1/2 C D^-1/2 (Kipf and Welling 2017); the diagonal of C holds the self-loops."""
    scale = network.sum(-1).clamp(min=1e-6).rsqrt()
    return scale[..., :, None] * network * scale[..., None, :]


def keep_edges(network: Tensor, dropped: float) -> Tensor:
    """Symmetric 0/1 mask that drops a part of the edges; self-loops stay."""
    kept = (torch.rand_like(network) >= dropped).triu(1).to(network.dtype)
    return kept + kept.transpose(1, 2) + torch.eye(network.shape[-1], device=network.device)
