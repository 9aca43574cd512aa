"""Recipe of the unified model: every task at once on roughly aligned heads."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from unibrain_bids.model.atlas import Atlas
from unibrain_bids.model.places import PlaceHead
from unibrain_bids.model.presets import UNIFIED
from unibrain_bids.model.spatial import transform_points
from unibrain_bids.model.unibrain import Dense, UniBrain
from unibrain_bids.training import objectives
from unibrain_bids.training.recipes.basis import EVALUATION_SEED, Heads, dice_scores, half_precision
from unibrain_bids.training.recipes.parcellation import region_logits_at_cortex, region_loss
from unibrain_bids.training.simulation.simulator import ALIGNED, SimulatedHead, simulate

# Other contrasts are rarer in training than in the evaluation: they were learnt early, and cost the T1-like ones.
# Without lesions in training, those of old brains were taken for grey matter.
TRAINING = replace(ALIGNED, t1_fraction=0.93, lesions=0.35)


class UnifiedRecipe:
    """The unified model on roughly aligned heads: every task at once (DESIGN section 3)."""

    # Weight of each term; those that are worth 1 are left out.
    WEIGHTS: ClassVar[dict[str, float]] = {"similarity": 0.1, "regions": 0.2}

    # Registration and regions, and the SSIM, learn from a part of the scans: they take time and learn little more.
    REGISTER_EVERY: ClassVar[int] = 6
    COMPARE_EVERY: ClassVar[int] = 4

    def __init__(self, heads: Heads, atlas: Atlas) -> None:
        self.heads = heads
        self.model: UniBrain = UniBrain(UNIFIED, atlas)

    def loss(self, model: nn.Module, seed: int) -> tuple[Tensor, dict[str, float]]:
        """The joint loss on one simulated scan, lambda drawn log-uniformly from 1e-3 to 10 (NPP)."""
        assert isinstance(model, UniBrain)
        terms = self.terms(model, simulate(self.heads.training, TRAINING, seed), seed)
        total = torch.stack([self.WEIGHTS.get(name, 1.0) * term for name, term in terms.items()]).sum()
        return total, {name: term.item() for name, term in terms.items()}

    def terms(self, model: UniBrain, head: SimulatedHead, seed: int) -> dict[str, Tensor]:
        """The terms of the loss, before they are weighted."""
        generator = torch.Generator().manual_seed(seed)
        smoothness = 10 ** (4 * torch.rand(1, generator=generator) - 3).to(head.image.device)
        with half_precision(head.image.device):
            dense = model.dense(head.image, smoothness)
        dice, cross_entropy = objectives.segmentation_loss(dense.structure_logits, head.parts)
        truth = torch.cat([head.brain_share, head.intracranial_share], dim=1)
        terms = {
            "dice": dice,
            "cross_entropy": cross_entropy,
            "mask": objectives.mask_loss(dense.mask_logits, truth),
            **multiplier_terms(dense, head, smoothness, similarity=seed % self.COMPARE_EVERY == 0),
        }
        if seed % self.REGISTER_EVERY == 0:
            terms |= self._registration_terms(model, dense, head, generator)
        return terms

    def _registration_terms(
        self, model: UniBrain, dense: Dense, head: SimulatedHead, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Distance to the exact affine per stage, similarity to the template, and regions through the affine."""
        stages = model.register(dense, head.image)
        exact = torch.linalg.inv(head.frame_from_grid)
        points = model.points[::8, ::8, ::8]
        goal = transform_points(exact, points)
        distance = torch.stack([(transform_points(s, points) - goal).norm(dim=-1).mean() for s in stages]).mean()
        terms = {"distance": distance / 10, "place": place_error(model, dense, head) / 10}
        if head.t1_like:
            aligned = model.align(head.brain * head.image, stages[-1])
            terms["similarity"] = 1 - objectives.correlation(aligned, model.template)
        terms["regions"] = region_loss(model, dense, head, torch.linalg.inv(stages[-1]), generator)
        return terms

    def evaluate(self, model: nn.Module, scans: int = 8) -> dict[str, float]:
        """Figures on simulated scans of the held-out heads, at lambda 0.1."""
        assert isinstance(model, UniBrain)
        records = []
        for i in range(scans):
            head = simulate(self.heads.held_out, ALIGNED, EVALUATION_SEED + i, i % len(self.heads.held_out.heads))
            with half_precision(head.image.device):
                dense = model.dense(head.image, torch.full((1,), 0.1, device=head.image.device))
            records.append(unified_figures(model, dense, head))
        return {name: sum(r[name] for r in records) / len(records) for name in records[0]}


def multiplier_terms(
    dense: Dense, head: SimulatedHead, smoothness: Tensor, *, similarity: bool = True
) -> dict[str, Tensor]:
    """NPP's objective (SSIM of the normalised brain, lambda x total variation) and the exact gain inside the head.

    Scans of any contrast have no meaningful white matter level: they count less. The SSIM is slow on a CPU and can be
    left out (`similarity`).
    """
    weight = 1.0 if head.t1_like else 0.2
    inside = head.brain + 0.1 * (head.image > 0.02) * (1 - head.brain)
    error = (dense.multiplier.log_gain() - head.log_gain).abs()
    terms = {
        "gain": weight * (inside * error).sum() / inside.sum(),
        "variation": smoothness.mean() * objectives.total_variation(dense.multiplier.log_gain_half),
    }
    if similarity:
        normalised = dense.multiplier.chi() * head.image
        terms["reconstruction"] = weight * (1 - objectives.ssim(normalised, head.normalised))
    return terms


def place_error(model: UniBrain, dense: Dense, head: SimulatedHead) -> Tensor:
    """Mean distance in mm between guessed and exact places over the brain."""
    exact = transform_points(head.frame_from_grid, model.places.points).permute(0, 4, 1, 2, 3)
    brain = functional.avg_pool3d(head.brain, PlaceHead.FACTOR)
    return ((dense.places - exact).norm(dim=1, keepdim=True) * brain).sum() / brain.sum().clamp(min=1)


def unified_figures(model: UniBrain, dense: Dense, head: SimulatedHead) -> dict[str, float]:
    """Dice of structures and masks, gain error, registration errors in mm, region accuracy."""
    logits = dense.structure_logits
    masks = (dense.mask_logits > 0).long()
    truth = torch.cat([head.brain, head.intracranial], dim=1).long()
    figures = {"structure_dice": float(dice_scores(logits.argmax(1), head.structures, logits.shape[1]).nanmean())}
    for name, predicted, true in zip(("brain", "intracranial"), masks[0], truth[0], strict=True):
        figures[f"{name}_dice"] = float(dice_scores(predicted, true, 2)[0])
    error = (dense.multiplier.log_gain() - head.log_gain).abs()
    figures["gain_error"] = float((error * head.brain).sum() / head.brain.sum())
    figures["ssim"] = float(objectives.ssim(dense.multiplier.chi() * head.image, head.normalised))
    exact, stages = torch.linalg.inv(head.frame_from_grid), model.register(dense, head.image)
    fitted = torch.linalg.inv(model.fit(torch.softmax(logits.float(), dim=1)))
    points = model.points[::8, ::8, ::8]
    found = int((dense.mask_logits[:, 0] > 0).sum()) > 1000
    placed = torch.linalg.inv(model.fit_to_places(dense)) if found else torch.eye(4).to(exact)[None]
    start = torch.eye(4).to(exact)[None]
    for name, matrix in {"stages": stages[-1], "fitted": fitted, "placed": placed, "start": start}.items():
        distance = (transform_points(matrix, points) - transform_points(exact, points)).norm(dim=-1)
        figures[f"{name}_mm"] = float(distance.mean())
    generator = torch.Generator().manual_seed(0)
    inverse = torch.linalg.inv(stages[-1])
    regions, true_regions = region_logits_at_cortex(model, dense, head, inverse, 8192, generator)
    figures["region_accuracy"] = float((regions.argmax(1) == true_regions).float().mean())
    return figures
