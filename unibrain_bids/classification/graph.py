"""The graph model: UniBrain's graph classifier on a scan's network and on features of its regions.

Each region's features first go through weights of its own (the graph convolutions share theirs, and the mean over the
regions would forget which is which); then come the two graph convolutions of `model.classifier`.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from unibrain_bids.classification.cohort import Cohort, Scaler
from unibrain_bids.classification.linear import mean_loss
from unibrain_bids.classification.splits import Split
from unibrain_bids.model.classifier import GraphClassifier

__all__ = ["EPOCHS", "Graph", "GraphModel", "RegionGraph"]

EPOCHS = (4, 8, 16)
EMBEDDING, HIDDEN = 8, 16
_LEARNING_RATE, _WEIGHT_DECAY, _BATCH = 1e-2, 0.05, 64
_FEATURE_NOISE = 0.1


class RegionGraph(nn.Module):
    """Per-region embedding, then graph convolutions; one score per scan.

    Parameters
    ----------
    regions, features
        R, and the number of features per region (those of the whole brain are given to each region).
    """

    def __init__(self, regions: int, features: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(regions, features, EMBEDDING) / features**0.5)
        self.classifier = GraphClassifier(EMBEDDING, HIDDEN, 1, feature_noise=_FEATURE_NOISE)

    def forward(self, features: Tensor, networks: Tensor) -> Tensor:
        """Scores (N,) of features (N, R, F) and networks (N, R, R)."""
        embedded = torch.einsum("nrf,rfe->nre", features, self.embedding)
        scores: Tensor = self.classifier(embedded, networks)[:, 0]
        return scores


@dataclass(frozen=True)
class GraphModel:
    """A fitted model: scores are logits of class 1, or the number.

    Attributes
    ----------
    scaler
        Of the features.
    network
        In evaluation mode; its scores are in units of the target's standard deviation from its mean.
    mean, sd
        Of the target; 0 and 1 for classes.
    """

    scaler: Scaler
    network: RegionGraph
    mean: float = 0.0
    sd: float = 1.0

    @torch.inference_mode()
    def scores(self, cohort: Cohort) -> NDArray[np.float64]:
        """Return the scores (N,) of scans."""
        features = _inputs(cohort, self.scaler)
        scores = self.network(features, torch.from_numpy(cohort.networks))
        return scores.double().numpy() * self.sd + self.mean


@dataclass(frozen=True)
class Graph:
    """How such a model is trained: AdamW, as many epochs as the inner folds favour."""

    name: str = "graph"

    def tune(self, cohort: Cohort, splits: Sequence[Split], seed: int) -> tuple[int, NDArray[np.float64]]:
        """Return the best number of epochs, and the held-out scores (N,) that it gives in `splits`."""
        scores = np.full((len(EPOCHS), len(cohort)), np.nan)
        for split in splits:
            test = cohort.take(split.test)
            for k, model in enumerate(_train(cohort.take(split.train), EPOCHS, seed)):
                scores[k, split.test] = model.scores(test)
        best = int(np.argmin([mean_loss(cohort, row) for row in scores]))
        return EPOCHS[best], scores[best]

    def fit(self, cohort: Cohort, setting: int, seed: int) -> GraphModel:
        """Train for `setting` epochs."""
        (model,) = _train(cohort, (setting,), seed)
        return model


def _train(cohort: Cohort, stops: Sequence[int], seed: int) -> list[GraphModel]:
    """Train once, and return the models after each number of epochs in `stops`."""
    scaler = Scaler.fit(cohort.flat)
    features, networks = _inputs(cohort, scaler), torch.from_numpy(cohort.networks)
    classes = cohort.classes is not None
    mean, sd = (0.0, 1.0) if classes else (float(cohort.target.mean()), float(cohort.target.std()) or 1.0)
    target = torch.from_numpy((cohort.target - mean) / sd).float()
    models = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = RegionGraph(features.shape[1], features.shape[2])
        with torch.no_grad():
            bias = torch.logit(target.mean()) if classes else torch.zeros(())
            network.classifier.output.bias.fill_(float(bias))
        optimiser = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
        for epoch in range(1, max(stops) + 1):
            network.train()
            for batch in torch.randperm(len(target)).split(_BATCH):
                scores = network(features[batch], networks[batch])
                loss = functional.binary_cross_entropy_with_logits if classes else functional.mse_loss
                optimiser.zero_grad()
                loss(scores, target[batch]).backward()
                optimiser.step()
            if epoch in stops:
                models.append(GraphModel(scaler, deepcopy(network).eval(), mean, sd))
    return models


def _inputs(cohort: Cohort, scaler: Scaler) -> Tensor:
    """Scaled features (N, R, F + G): each region gets its own, and those of the whole brain."""
    scaled = scaler(cohort.flat)
    n, regions, features = cohort.regions.shape
    own = scaled[:, : regions * features].reshape(n, regions, features)
    whole = np.repeat(scaled[:, None, regions * features :], regions, axis=1)
    return torch.from_numpy(np.concatenate([own, whole], axis=2)).float()
