"""Recipe of fine-tuning: a cohort's own target, masks and segmentations, and simulated heads beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unibrain_bids.classification.cohort import CLIP
from unibrain_bids.classification.graph import GraphModel, RegionGraph
from unibrain_bids.model.description import Description, describe_head
from unibrain_bids.model.unibrain import UniBrain
from unibrain_bids.training import objectives
from unibrain_bids.training.augmentation import Sample, augment
from unibrain_bids.training.recipes.basis import dice_scores, half_precision
from unibrain_bids.training.recipes.unified import UnifiedRecipe

_SMOOTHNESS = 0.1
_INFINITE = 1e12


class JointModel(nn.Module):
    """The model and, behind it, a graph head on what it sees of a scan.

    Parameters
    ----------
    unibrain
        Trained in place.
    head
        Where the head starts: its features' scale stays as it is; None to train without a target.
    """

    def __init__(self, unibrain: UniBrain, head: GraphModel | None) -> None:
        super().__init__()
        self.unibrain = unibrain
        self.graph: RegionGraph | None = head.network if head else None
        scale = [head.scaler.mean, head.scaler.sd, np.array([head.mean, head.sd])] if head else []
        for name, values in zip(("feature_mean", "feature_sd", "target_scale"), scale, strict=False):
            # Constant features have an infinite spread, of which no average can be taken.
            finite = np.nan_to_num(values, posinf=_INFINITE)
            self.register_buffer(name, torch.as_tensor(finite, dtype=torch.float32))

    feature_mean: Tensor
    feature_sd: Tensor
    target_scale: Tensor

    def score(self, seen: Description) -> Tensor:
        """Logits of class 1, or the number in units of the training targets' spread: (batch,)."""
        assert self.graph is not None
        flat = torch.cat([seen.regions.flatten(1), seen.whole], dim=1)
        scaled = ((flat - self.feature_mean) / self.feature_sd).clamp(-CLIP, CLIP)
        batch, regions, features = seen.regions.shape
        own = scaled[:, : regions * features].view(batch, regions, features)
        whole = scaled[:, None, regions * features :].expand(-1, regions, -1)
        scores: Tensor = self.graph(torch.cat([own, whole], dim=2), seen.network)
        return scores


class FinetuneRecipe:
    """Trains a `JointModel`; every second sample is a simulated head, so that the model does not forget."""

    def __init__(
        self,
        model: JointModel,
        simulated: UnifiedRecipe,
        samples: Mapping[str, Sample],
        *,
        training: Sequence[str],
        validation: Sequence[str],
        targets: Mapping[str, float],
        classes: bool,
        device: torch.device,
    ) -> None:
        """Take the scans by name; `targets` has those of all of them, or none."""
        self.model: nn.Module = model
        self.simulated, self.samples, self.device = simulated, samples, device
        self.training, self.validation = tuple(training), tuple(validation)
        self.targets, self.classes = targets, classes

    def loss(self, model: nn.Module, seed: int) -> tuple[Tensor, dict[str, float]]:
        """Of a simulated head with all its truth, or of one of the cohort's scans with what is known of it."""
        assert isinstance(model, JointModel)
        torch.manual_seed(seed)  # of the graph's perturbations
        if seed % 2:
            loss, terms = self.simulated.loss(model.unibrain, seed)
            return loss, {f"simulated_{name}": value for name, value in terms.items()}
        round_, place = divmod(seed // 2, len(self.training))
        order = torch.randperm(len(self.training), generator=torch.Generator().manual_seed(round_))
        name = self.training[int(order[place])]
        terms_of = self._terms(model, name, augment(self.samples[name].to(self.device), seed))
        loss = torch.stack(list(terms_of.values())).sum()
        return loss, {name: term.item() for name, term in terms_of.items()}

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Mean losses and Dice over the validation scans; `error` decides when to stop."""
        assert isinstance(model, JointModel)
        records = [self._figures(model, name) for name in self.validation]
        names = {name for record in records for name in record}
        means = {name: float(np.mean([r[name] for r in records if name in r])) for name in sorted(names)}
        overlaps = [means[name] for name in ("mask_dice", "structure_dice") if name in means]
        return means | {"error": means["target"] if self.targets else 1 - float(np.mean(overlaps))}

    def _terms(self, model: JointModel, name: str, given: Sample) -> dict[str, Tensor]:
        dense, seen = self._see(model, given)
        terms: dict[str, Tensor] = {}
        if self.targets:
            terms["target"] = self._target_loss(model, seen, name)
        if given.mask is not None:
            terms["mask"] = objectives.mask_loss(dense.mask_logits[:, :1], given.mask.clamp(0, 1))
        if given.structures is not None:
            known = given.structures[0] >= 0
            logits, truth = dense.structure_logits[:, :, known], given.structures[:, known]
            terms["dice"], terms["cross_entropy"] = objectives.segmentation_loss(logits, truth)
        return terms

    def _figures(self, model: JointModel, name: str) -> dict[str, float]:
        given = self.samples[name].to(self.device)
        dense, seen = self._see(model, given)
        figures = {}
        if self.targets:
            figures["target"] = float(self._target_loss(model, seen, name))
        if given.mask is not None:
            ours, theirs = (dense.mask_logits[:, :1] > 0).long(), (given.mask > 0.5).long()
            figures["mask_dice"] = float(dice_scores(ours, theirs, 2)[0])
        if given.structures is not None:
            known = given.structures >= 0
            logits = dense.structure_logits
            scores = dice_scores(logits.argmax(1)[known], given.structures[known], logits.shape[1])
            figures["structure_dice"] = float(scores.nanmean())
        return figures

    def _see(self, model: JointModel, given: Sample) -> tuple[Any, Description]:
        smoothness = torch.full((1,), _SMOOTHNESS, device=given.image.device)
        with half_precision(given.image.device):
            dense = model.unibrain.dense(given.image, smoothness)
        return dense, describe_head(model.unibrain.complete(dense, given.image), given.voxel)

    def _target_loss(self, model: JointModel, seen: Description, name: str) -> Tensor:
        score = model.score(seen)
        target = torch.full_like(score, self.targets[name])
        if self.classes:
            return functional.binary_cross_entropy_with_logits(score, target)
        mean, spread = model.target_scale
        return functional.mse_loss(score, (target - mean) / spread)
