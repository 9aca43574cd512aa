"""The recipe of the region network: persons are recognised again across contrast, noise and re-scan.

The backbone stays as it is. A small table is measured in each of some simulated scans; the network follows from these
tables in closed form, as linear discriminants of the persons. There are too few label maps for more: an MLP on features
of the voxels learnt the training persons by heart (docs/training-log.md).
"""

from __future__ import annotations

import csv
import os
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from unibrain_bids.model.morphometry import PLACE, MorphometricNetwork, measure
from unibrain_bids.model.unibrain import UniBrain
from unibrain_bids.training.simulation.geometry import PoseRange
from unibrain_bids.training.simulation.material import Material
from unibrain_bids.training.simulation.simulator import ALIGNED, simulate

# Scans as inference sees them: settled in the frame, whole, T1-like; and persons who differ as much as real ones do.
RESCAN = replace(
    ALIGNED, pose=PoseRange(1.5, 1.5, 0.02, 0.01, least_deformation=1.0), missing_parts=False, t1_fraction=1.0
)
PERSONS = 24
SCANS = 2


@torch.no_grad()
def gather_measures(model: UniBrain, material: Material, bank: Path, *, persons: int, first_seed: int) -> Tensor:
    """Measures (persons, 2, 84, 6) of simulated persons, each scanned twice; the file `bank` keeps them one by one.

    A person is a label map with one deformation; every scan draws pose, contrast, bias, noise and resolution anew.
    """
    rows = list(torch.load(bank, weights_only=True)) if bank.exists() else []
    smoothness = torch.full((1,), 0.1, device=material.t1.device)
    for person in range(len(rows), persons):
        scans = []
        for scan in range(SCANS):
            head = simulate(material, RESCAN, first_seed + person * SCANS + scan, anatomy=first_seed + person)
            outputs = model(head.image, smoothness)
            scans.append(measure(outputs.regions, outputs.normalised, model.points)[0].cpu())
        rows.append(torch.stack(scans))
        aside = bank.with_name(f"{bank.name}.part")
        torch.save(torch.stack(rows), aside)
        os.replace(aside, bank)
        print(f"{bank.stem}: measured person {person + 1} of {persons}", flush=True)
    return torch.stack(rows[:persons])


@torch.no_grad()
def solve(network: MorphometricNetwork, measures: Tensor) -> None:
    """Fit a network to the measures (persons, scans, 84, 6) of persons who were scanned repeatedly.

    Over all regions together, W is the covariance of a person's scans and B that of persons. Embeddings deviate from
    their anchors along the axes of B relative to W, in units of W, each weighted by B / (B + W): how far it can be
    trusted. Anchors are the regions' mean measures along orthogonal axes, as long as a typical deviation.
    """
    persons, scans = measures.shape[:2]
    network.reference.copy_(measures[..., PLACE].mean((0, 1)))
    values = network.standardise(measures)
    centre = values.mean((0, 1))
    repeated = values - values.mean(1, keepdim=True)
    variance = repeated.square().sum((0, 1)) / (persons * (scans - 1))
    # A region's own variance is known from few scans: half of it comes from all regions.
    scale = ((variance + variance.mean(0)) / 2).sqrt()
    noise = covariance(repeated / scale) * scans / (scans - 1)
    signal = covariance((values.mean(1) - centre) / scale) * persons / (persons - 1) - noise / scans
    whiten = torch.linalg.inv(torch.linalg.cholesky(noise))
    ratio, axes = torch.linalg.eigh(whiten @ signal @ whiten.T)
    ratio = ratio.flip(0).clamp(min=0)
    projection = (ratio / (1 + ratio))[:, None] * (axes.flip(1).T @ whiten)
    typical = (((values - centre) / scale) @ projection.T).norm(dim=-1).mean()
    orthogonal = torch.linalg.svd((centre - centre.mean(0)) / centre.std(0), full_matrices=False)[0]
    rank = min(len(network.projection), len(projection))
    network.centre.copy_(centre)
    network.scale.copy_(scale)
    network.projection.zero_()[:rank] = projection[:rank]
    network.anchors.zero_()[:, :rank] = typical * functional.normalize(orthogonal[:, :rank], dim=1)


def covariance(samples: Tensor) -> Tensor:
    """Mean outer product (M, M) of samples (..., M) around zero."""
    flat = samples.flatten(0, -2)
    return flat.T @ flat / len(flat)


class NetworkRecipe:
    """Solves a model's network; no steps, no gradients."""

    def __init__(self, network: MorphometricNetwork, training: Tensor, held_out: Tensor) -> None:
        """Take the measures (persons, scans, 84, 6) of training and held-out persons."""
        self.model, self.training, self.held_out = network, training, held_out

    @classmethod
    def build(
        cls, model: UniBrain, training: Material, held_out: Material, folder: Path, persons: int
    ) -> NetworkRecipe:
        """Measure persons, and half as many held-out ones; those that `folder` holds from an earlier call are kept."""
        folder.mkdir(parents=True, exist_ok=True)
        return cls(
            model.network.cpu(),
            gather_measures(model, training, folder / "training.pt", persons=persons, first_seed=3_000_000),
            gather_measures(model, held_out, folder / "held_out.pt", persons=persons // 2, first_seed=4_000_000),
        )

    def run(self, folder: Path) -> None:
        """Solve, and write checkpoint and log as the trainer does."""
        solve(self.model, self.training)
        figures = self.evaluate()
        torch.save({"step": len(self.training), "average": self.model.state_dict()}, folder / "checkpoint.pt")
        with open(folder / "log.csv", "w", newline="") as stream:
            rows = [[len(self.training), 0, f"eval_{name}", round(value, 5)] for name, value in figures.items()]
            csv.writer(stream).writerows([["step", "seconds", "name", "value"], *rows])
        print(" ".join(f"{name} {value:.4f}" for name, value in figures.items()), flush=True)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """How often a held-out person's other scan is the one nearest by the edges, and the mean edge."""
        a, b = (self.model.embed(self.held_out[:, scan]) for scan in (0, 1))
        similarity = edge_similarity(a, b)
        own = torch.arange(len(similarity))
        found = torch.stack([similarity.argmax(axis) == own for axis in (0, 1)])
        return {"identifiability": float(found.float().mean()), "edge": float(torch.relu(a @ a.transpose(1, 2)).mean())}


def edge_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Correlation of the persons' edges, less the group's mean edges: (persons, persons)."""
    rows, columns = torch.triu_indices(a.shape[1], a.shape[1], offset=1, device=a.device)
    edges = [torch.relu(h @ h.transpose(1, 2))[:, rows, columns] for h in (a, b)]
    own = [functional.normalize(e - e.mean(0, keepdim=True), dim=1) for e in edges]
    return own[0] @ own[1].T
