"""Recipes of the two networks that find the head: the first look at 8 mm and the aligner at 4 mm."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from unibrain_bids.model import frame
from unibrain_bids.model.aligner import Aligner, group_channels
from unibrain_bids.model.atlas import Atlas
from unibrain_bids.model.first_look import FirstLook
from unibrain_bids.model.places import fit_places
from unibrain_bids.model.presets import UNIFIED
from unibrain_bids.model.spatial import transform_points
from unibrain_bids.training import objectives
from unibrain_bids.training.recipes.basis import EVALUATION_SEED, Heads, dice_scores, half_precision
from unibrain_bids.training.simulation.simulator import FIRST_LOOK, SECOND_LOOK, simulate


class FirstLookRecipe:
    """Brain and place of every voxel at 8 mm over the whole field of view, in any pose."""

    def __init__(self, heads: Heads) -> None:
        self.heads = heads
        self.model: nn.Module = FirstLook(UNIFIED.first_look_widths)
        self.points = frame.points(FIRST_LOOK.shape, FIRST_LOOK.spacing, heads.training.t1.device)

    def loss(self, model: nn.Module, seed: int) -> tuple[Tensor, dict[str, float]]:
        """Mask loss, and the distance of the guessed places (in cm) over brain and, less, the rest of the head."""
        head = simulate(self.heads.training, FIRST_LOOK, seed)
        with half_precision(head.image.device):
            logits, places = model(head.image)
        mask = objectives.mask_loss(logits, head.brain)
        exact = transform_points(head.frame_from_grid, self.points).permute(0, 4, 1, 2, 3)
        distance = (places - exact).norm(dim=1, keepdim=True)
        weight = head.brain + 0.1 * (head.image > 0.05) * (1 - head.brain)
        place = (weight * distance).sum() / weight.sum() / 10
        return mask + place, {"mask": mask.item(), "place": place.item()}

    def evaluate(self, model: nn.Module, scans: int = 12) -> dict[str, float]:
        """Mask Dice, and the distance of the fitted affine over the brain, on scans of the held-out heads."""
        dice, distance = [], []
        for i in range(scans):
            head = simulate(self.heads.held_out, FIRST_LOOK, EVALUATION_SEED + i, i % len(self.heads.held_out.heads))
            with half_precision(head.image.device):
                logits, places = model(head.image)
            dice.append(float(dice_scores((logits > 0).long(), head.brain.long(), 2)[0]))
            weight = torch.sigmoid(logits[0, 0]) * (logits[0, 0] > 0)
            # Before any brain is found, the guess is that the head stands in the frame already.
            found = int((weight > 0).sum()) > 100
            fitted = fit_places(weight, places[0], self.points)[None].float() if found else torch.eye(4)[None]
            exact_pose = head.frame_from_grid
            gap = transform_points(fitted.to(exact_pose), self.points) - transform_points(exact_pose, self.points)
            distance.append(float(gap[0][head.brain[0, 0] > 0].norm(dim=-1).mean()))
        return {
            "brain_dice": float(np.mean(dice)), "fit_mm": float(np.mean(distance)), "worst_fit_mm": max(distance),
        }  # fmt: skip


class AlignerRecipe:
    """Groups of structures at 4 mm in roughly aligned heads."""

    def __init__(self, heads: Heads, atlas: Atlas) -> None:
        self.heads = heads
        self.model: nn.Module = Aligner(UNIFIED.aligner_widths, atlas)
        self.channels = group_channels().to(heads.training.t1.device)

    def loss(self, model: nn.Module, seed: int) -> tuple[Tensor, dict[str, float]]:
        """Soft Dice and cross-entropy of the groups on one simulated scan."""
        head = simulate(self.heads.training, SECOND_LOOK, seed)
        with half_precision(head.image.device):
            logits = model(head.image)
        dice, cross_entropy = objectives.segmentation_loss(logits, self.channels[head.structures])
        return dice + cross_entropy, {"dice": dice.item(), "cross_entropy": cross_entropy.item()}

    def evaluate(self, model: nn.Module, scans: int = 12) -> dict[str, float]:
        """Group Dice, and the closed form's distance from the exact affine, on scans of the held-out heads."""
        assert isinstance(model, Aligner)
        records = []
        for i in range(scans):
            head = simulate(self.heads.held_out, SECOND_LOOK, EVALUATION_SEED + i, i % len(self.heads.held_out.heads))
            with half_precision(head.image.device):
                logits = model(head.image)
            dice = dice_scores(logits.argmax(1), self.channels[head.structures], logits.shape[1]).nanmean()
            inside, exact = head.brain[0, 0] > 0, transform_points(head.frame_from_grid, model.points)
            fitted = transform_points(model.fit(logits.float().softmax(1)), model.points)
            distances = [(places - exact)[0][inside].norm(dim=-1).mean() for places in (fitted, model.points[None])]
            records.append((float(dice), *(float(distance) for distance in distances)))
        means = np.mean(records, axis=0).tolist()
        return dict(zip(("group_dice", "fit_mm", "start_mm"), means, strict=True)) | {
            "worst_fit_mm": max(record[1] for record in records)
        }
