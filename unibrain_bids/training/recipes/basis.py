"""What the recipes share: label maps, the seeds that are kept for evaluation, precision, Dice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unibrain_bids.training.simulation.material import Material, load_material

HELD_OUT = ("head-13", "head-14", "head-15", "head-16")
# FreeSurfer's cortical region numbers 1..35 (4 is not used) to the parcellation's channels 0..33.
REGION_CHANNEL = torch.tensor([-1, 0, 1, 2, -1, *range(3, 34)])
# Evaluation seeds lie far from those of training steps.
EVALUATION_SEED = 2_000_000_000


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


def half_precision(device: torch.device) -> torch.autocast:
    """bfloat16 for convolutions; geometry and losses stay outside, in float32."""
    return torch.autocast(device.type, torch.bfloat16)
