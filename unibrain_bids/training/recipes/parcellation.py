"""Recipe of the parcellation's head, and the loss of the cortical regions."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unibrain_bids.model.unibrain import Dense, UniBrain
from unibrain_bids.training.recipes.basis import EVALUATION_SEED, REGION_CHANNEL, Heads, half_precision
from unibrain_bids.training.simulation.simulator import ALIGNED, SimulatedHead, simulate


class ParcellationRecipe:
    """The parcellation's head alone, on a trained model: for cortical labels that have changed since."""

    def __init__(self, heads: Heads, trained: UniBrain) -> None:
        self.heads, self.trained = heads, trained
        self.model: nn.Module = trained.parcellation

    def loss(self, model: nn.Module, seed: int) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy of the regions on one simulated scan, through the model's own affine."""
        head = simulate(self.heads.training, ALIGNED, seed)
        loss = functional.cross_entropy(*self._regions(head, seed, count=32768))
        return loss, {"regions": loss.item()}

    def evaluate(self, model: nn.Module, scans: int = 12) -> dict[str, float]:
        """Share of the true cortex's voxels that get their region, on scans of the held-out heads."""
        right = []
        for i in range(scans):
            head = simulate(self.heads.held_out, ALIGNED, EVALUATION_SEED + i, i % len(self.heads.held_out.heads))
            logits, truth = self._regions(head, i, count=8192)
            right.append(float((logits.argmax(1) == truth).float().mean()))
        return {"region_accuracy": float(np.mean(right)), "worst_accuracy": min(right)}

    def _regions(self, head: SimulatedHead, seed: int, *, count: int) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            with half_precision(head.image.device):
                dense = self.trained.dense(head.image, torch.full((1,), 0.1, device=head.image.device))
            affine = torch.linalg.inv(self.trained.register(dense, head.image)[-1])
        generator = torch.Generator().manual_seed(seed)
        return region_logits_at_cortex(self.trained, dense, head, affine, count, generator)


def region_loss(
    model: UniBrain, dense: Dense, head: SimulatedHead, frame_from_grid: Tensor, generator: torch.Generator
) -> Tensor:
    """Cross-entropy of the cortical regions at a sample of the true cortex's voxels."""
    logits, truth = region_logits_at_cortex(model, dense, head, frame_from_grid, 8192, generator)
    return functional.cross_entropy(logits, truth)


def region_logits_at_cortex(
    model: UniBrain, dense: Dense, head: SimulatedHead, frame_from_grid: Tensor, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Region logits (n, 34) and true channels (n,) at up to `count` random voxels of the true cortex."""
    channel = REGION_CHANNEL.to(head.regions.device)[head.regions[0]]
    voxels = (channel >= 0).nonzero()
    chosen = torch.randint(len(voxels), (count,), generator=generator).to(voxels.device)
    x, y, z = voxels[chosen].unbind(1)
    features = dense.features.full[:, :, x, y, z][:, :, None, None].float()
    points = model.points[x, y, z][None, None]
    logits = model.parcellation.region_logits(features, model.region_atlas, frame_from_grid, points)
    return logits[0, :, 0, 0].T, channel[x, y, z]
