"""The recipe of the region network: persons and regions are recognised again across contrast, noise and pose.

The backbone stays as it is; what the embeddings are computed from (a small table per scan) is gathered once, so that
thousands of steps cost minutes.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from unibrain_bids.model.network import RegionNetwork, describe
from unibrain_bids.model.unibrain import UniBrain
from unibrain_bids.training.simulation.material import Material
from unibrain_bids.training.simulation.simulator import ALIGNED, simulate

_TEMPERATURE = 0.1
# Recognising regions keeps the embeddings apart; recognising persons by their edges is what the network is for.
_REGION_WEIGHT = 0.1
_PERSONS_PER_STEP = 16
# Persons and scans of each: with 32 persons the embeddings learn these by heart (docs/training-log.md).
_TRAINING = {"persons": 96, "scans": 3}
_HELD_OUT = {"persons": 24, "scans": 2}


@torch.no_grad()
def gather_descriptions(model: UniBrain, material: Material, *, persons: int, scans: int, first_seed: int) -> Tensor:
    """Region descriptions (persons, scans, R, described) of simulated persons, each scanned several times.

    A person is a label map with one deformation; every scan draws pose, contrast, bias, noise and resolution anew.
    """
    described = []
    smoothness = torch.full((1,), 0.1, device=material.t1.device)
    for person in range(persons):
        for scan in range(scans):
            head = simulate(material, ALIGNED, first_seed + person * scans + scan, anatomy=first_seed + person)
            outputs = model(head.image, smoothness)
            described.append(describe(outputs.regions, outputs.dense.features.full, outputs.normalised)[0])
        print(f"described person {person + 1} of {persons}", flush=True)
    return torch.stack(described).view(persons, scans, *described[0].shape)


class NetworkRecipe:
    """Trains `UniBrain.network` alone."""

    def __init__(self, model: UniBrain, training: Tensor, held_out: Tensor) -> None:
        """Take a trained model and the descriptions of training and held-out persons."""
        self.model: nn.Module = model.network
        self.training, self.held_out = training, held_out

    @classmethod
    def build(cls, model: UniBrain, training: Material, held_out: Material, bank: Path) -> NetworkRecipe:
        """Gather the descriptions, or read those gathered before from the file `bank`."""
        if not bank.exists():
            bank.parent.mkdir(parents=True, exist_ok=True)
            sets = {
                "training": gather_descriptions(model, training, **_TRAINING, first_seed=3_000_000),
                "held_out": gather_descriptions(model, held_out, **_HELD_OUT, first_seed=4_000_000),
            }
            torch.save(sets, bank)
        sets = torch.load(bank, weights_only=True)
        return cls(model, sets["training"], sets["held_out"])

    def loss(self, model: nn.Module, seed: int) -> tuple[Tensor, dict[str, float]]:
        """Contrastive loss over some persons, each in two of their scans."""
        generator = torch.Generator().manual_seed(seed)
        persons = torch.randperm(len(self.training), generator=generator)[:_PERSONS_PER_STEP]
        first, second = torch.randperm(self.training.shape[1], generator=generator)[:2].tolist()
        a, b = (embed(model, self.training[persons, scan]) for scan in (first, second))
        terms = {"person": person_loss(a, b), "region": region_loss(a, b)}
        loss = terms["person"] + _REGION_WEIGHT * terms["region"]
        return loss, {name: term.item() for name, term in terms.items()}

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """How often a held-out person's second scan is the one nearest to the first, by the edges."""
        a, b = (embed(model, self.held_out[:, scan]) for scan in (0, 1))
        similarity = edge_similarity(a, b)
        right = similarity.argmax(1) == torch.arange(len(similarity), device=similarity.device)
        return {"identifiability": float(right.float().mean()), "edge": float(torch.relu(a @ a.transpose(1, 2)).mean())}


def embed(network: nn.Module, description: Tensor) -> Tensor:
    """Embeddings H (batch, R, F) of descriptions, by the parts of a `RegionNetwork` that are trained."""
    assert isinstance(network, RegionNetwork)
    return network.embed(description)


def edge_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Correlation of the persons' edges, less the group's mean edges: (persons, persons)."""
    rows, columns = torch.triu_indices(a.shape[1], a.shape[1], offset=1, device=a.device)
    edges = [(h @ h.transpose(1, 2))[:, rows, columns] for h in (a, b)]
    own = [functional.normalize(e - e.mean(0, keepdim=True), dim=1) for e in edges]
    return own[0] @ own[1].T


def person_loss(a: Tensor, b: Tensor) -> Tensor:
    """Cross-entropy of finding each person's other scan among all persons."""
    logits = edge_similarity(a, b) / _TEMPERATURE
    truth = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits, truth) + functional.cross_entropy(logits.T, truth)) / 2


def region_loss(a: Tensor, b: Tensor) -> Tensor:
    """Cross-entropy of finding each region again in the other scan of its person."""
    logits = a @ b.transpose(1, 2) / _TEMPERATURE
    truth = torch.arange(a.shape[1], device=a.device).expand(len(a), -1)
    return functional.cross_entropy(logits.flatten(0, 1), truth.flatten())
