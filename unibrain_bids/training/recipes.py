"""Recipes: what each training command trains, on what, towards what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from unibrain_bids.model.first_look import FirstLook
from unibrain_bids.model.presets import UNIFIED
from unibrain_bids.training.objectives import segmentation_loss
from unibrain_bids.training.simulation.material import Material, load_material
from unibrain_bids.training.simulation.simulator import FIRST_LOOK, simulate

HELD_OUT = ("head-13", "head-14", "head-15", "head-16")
# Evaluation seeds lie far from those of training steps.
_EVALUATION_SEED = 2_000_000_000


@dataclass(frozen=True)
class Heads:
    """Training and held-out label maps on one device."""

    training: Material
    held_out: Material

    @classmethod
    def load(cls, path: Path, device: torch.device, *, keep_all: bool = False) -> Heads:
        """Read the packed file; `keep_all` trains on the held-out heads too (for final weights)."""
        material = load_material(path).to(device)
        names = tuple(head.name for head in material.heads)
        held_out = tuple(name for name in names if name in HELD_OUT)
        training = names if keep_all else tuple(name for name in names if name not in held_out)
        return cls(material.subset(training), material.subset(held_out))


def dice_scores(predicted: Tensor, truth: Tensor, classes: int) -> Tensor:
    """Dice of classes 1..classes-1 between label volumes; NaN for classes absent from both."""
    joint = torch.bincount((truth * classes + predicted).flatten(), minlength=classes**2).view(classes, classes)
    joint = joint.double()
    return (2 * joint.diagonal() / (joint.sum(0) + joint.sum(1)))[1:]


class FirstLookRecipe:
    """Structures at 4 mm over the whole field of view, in any pose."""

    def __init__(self, heads: Heads) -> None:
        self.heads = heads
        self.model: nn.Module = FirstLook(UNIFIED.first_look_widths)

    def loss(self, model: nn.Module, seed: int) -> tuple[Tensor, dict[str, float]]:
        """Soft Dice and cross-entropy on one simulated scan."""
        head = simulate(self.heads.training, FIRST_LOOK, seed)
        dice, cross_entropy = segmentation_loss(model(head.image), head.structures)
        return dice + cross_entropy, {"dice_loss": dice.item(), "cross_entropy": cross_entropy.item()}

    def evaluate(self, model: nn.Module, scans: int = 8) -> dict[str, float]:
        """Mean structure Dice on simulated scans of the held-out heads."""
        scores = []
        for i in range(scans):
            head = simulate(self.heads.held_out, FIRST_LOOK, _EVALUATION_SEED + i, i % len(self.heads.held_out.heads))
            logits = model(head.image)
            scores.append(dice_scores(logits.argmax(1), head.structures, logits.shape[1]).nanmean())
        return {"structure_dice": float(torch.stack(scores).mean())}


def make(name: str, heads: Heads) -> FirstLookRecipe:
    """The recipe of that name."""
    return {"first-look": FirstLookRecipe}[name](heads)
