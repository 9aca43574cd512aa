"""Recipe of UniBrain as published: brain masks, one labelled template, a class for each person, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from unibrain_bids.model.atlas import Atlas
from unibrain_bids.model.presets import UniBrainPreset
from unibrain_bids.model.published import PublishedOutputs, PublishedUniBrain
from unibrain_bids.model.soft_template import SoftTemplate
from unibrain_bids.model.spatial import warp
from unibrain_bids.training import objectives
from unibrain_bids.training.recipes.basis import EVALUATION_SEED, Heads
from unibrain_bids.training.recipes.cohort import Cohort, KnownCohort, simulated_cohort
from unibrain_bids.training.simulation.geometry import PoseRange, draw_pose

# Augmentation: two voxels, two degrees, two per cent.
_SHIFT_VOXELS, _ROTATION, _SCALE = 2.0, 2.0, 0.02
_TRAINING_SEED = 5_000_000


@dataclass(frozen=True)
class LossWeights:
    """CE(class) + alpha CE(mask) + beta (1 - correlation) + gamma CE(tissues, warped tissues)."""

    mask: float = 1.0
    similarity: float = 0.1
    tissues: float = 1.0
    classification: float = 1.0


class PublishedRecipe:
    """The joint loss on a few persons of a cohort.

    Parameters
    ----------
    cohort
        What is learnt from.
    held_out
        Persons to measure on.
    template
        On the preset's grid.
    preset
        Sizes.
    weights
        Of the loss' terms.
    people
        Persons in one forward pass (UniBrain: 1).
    frozen
        Modules of the model that stay as they are drawn.
    weigh_tissues
        Whether rare tissues count more in their cross-entropy (`rarity`).
    """

    def __init__(
        self,
        cohort: Cohort,
        held_out: KnownCohort,
        template: SoftTemplate,
        preset: UniBrainPreset,
        *,
        weights: LossWeights | None = None,
        people: int = 1,
        frozen: Collection[str] = (),
        weigh_tissues: bool = True,
    ) -> None:
        self.tissue_weights = rarity(template.tissues) if weigh_tissues else None
        self.cohort, self.held_out, self.weights, self.people = cohort, held_out, weights or LossWeights(), people
        network = PublishedUniBrain(preset, template)
        for name in frozen:
            network.get_submodule(name).requires_grad_(False)
        self.model: nn.Module = network

    @classmethod
    def simulated(
        cls, heads: Heads, atlas: Atlas, preset: UniBrainPreset, *, training: int = 96, held_out: int = 48
    ) -> PublishedRecipe:
        """On simulated persons of two groups, with the population's mean brain as template."""
        template = SoftTemplate.from_atlas(atlas, preset.shape, preset.spacing).to(heads.training.t1.device)
        cohort = simulated_cohort(heads.training, preset, training, first_seed=_TRAINING_SEED)
        known = simulated_cohort(heads.held_out, preset, held_out, first_seed=EVALUATION_SEED)
        return cls(cohort.given, known, template, preset)

    def loss(self, model: nn.Module, seed: int) -> tuple[Tensor, dict[str, float]]:
        """The joint loss on persons drawn by the seed, each moved a little."""
        assert isinstance(model, PublishedUniBrain)
        image, mask, classes = draw(self.cohort, model, seed, self.people)
        torch.manual_seed(seed)  # the classifier's perturbations
        terms = loss_terms(model(image), mask, classes, model.image, tissue_weights=self.tissue_weights)
        total = torch.stack([getattr(self.weights, name) * term for name, term in terms.items()]).sum()
        return total, {name: term.item() for name, term in terms.items()}

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Mean figures of the held-out persons."""
        from unibrain_bids.evaluation.published import assess

        assert isinstance(model, PublishedUniBrain)
        return assess(model, self.held_out).means()


def loss_terms(
    outputs: PublishedOutputs,
    mask: Tensor,
    classes: Tensor,
    template: Tensor,
    *,
    tissue_weights: Tensor | None = None,
) -> dict[str, Tensor]:
    """The four terms of the joint loss, named as in `LossWeights`.

    The tissues' target is a constant: through it the cross-entropy, which is least where the warped labels have left
    the view, would drive them out (measured: docs/training-log.md).

    Parameters
    ----------
    outputs
        Of the model.
    mask, classes
        (batch, 1, X, Y, Z) 0/1 and (batch,).
    template
        (1, 1, X, Y, Z) brain.
    tissue_weights
        (4,) of the tissues in their cross-entropy; all 1 when None.
    """
    assert outputs.class_logits is not None
    return {
        "classification": functional.cross_entropy(outputs.class_logits, classes),
        "mask": functional.binary_cross_entropy_with_logits(outputs.mask_logits, mask),
        "similarity": 1 - objectives.correlation(outputs.aligned, template.expand_as(outputs.aligned)),
        "tissues": functional.cross_entropy(outputs.tissue_logits, outputs.propagated.detach(), weight=tissue_weights),
    }


def rarity(tissues: Tensor) -> Tensor:
    """Weights (4,) of the tissues (1, 4, X, Y, Z) of a template: the inverse 4th root of their volume, 1 on average."""
    share = tissues.mean((0, 2, 3, 4)).clamp(min=1e-6)
    weights = share.pow(-0.25)
    return weights / (weights * share).sum()


def draw(cohort: Cohort, model: PublishedUniBrain, seed: int, people: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images and masks (people, 1, X, Y, Z) and classes (people,) of persons of a cohort, each moved at random."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(cohort.classes), (people,), generator=generator).to(cohort.classes.device)
    pose = PoseRange(_ROTATION, _SHIFT_VOXELS * model.preset.spacing, -math.log(1 - _SCALE), 0.0)
    matrices = torch.stack([draw_pose(pose, generator) for _ in range(people)]).to(cohort.images)
    both = torch.cat([cohort.images[chosen], cohort.masks[chosen]], dim=1)
    moved = warp(both, matrices, model.points, model.voxel_from_grid)
    return moved[:, :1], (moved[:, 1:] >= 0.5).float(), cohort.classes[chosen]
