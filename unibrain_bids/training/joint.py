"""Joint fine-tuning as a candidate of `classification.validation`: image and target in one training."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unibrain_bids.classification.cohort import Cohort, Scaler
from unibrain_bids.classification.graph import EPOCHS, Graph, GraphModel, RegionGraph
from unibrain_bids.classification.splits import Split
from unibrain_bids.inference.loading import Model
from unibrain_bids.inference.prediction import as_arrays
from unibrain_bids.model.description import describe_head
from unibrain_bids.training.cohort import PreparedScan
from unibrain_bids.training.recipes.finetune import FinetuneRecipe, JointModel
from unibrain_bids.training.recipes.unified import UnifiedRecipe
from unibrain_bids.training.trainer import Trainer, TrainerSettings

Array = NDArray[np.float64]
_SMOOTHNESS = 0.1


class TimeUp(Exception):
    """The time budget is spent; what is done is kept."""


@dataclass(frozen=True)
class Budget:
    """How long each training is, and when this call ends (`time.monotonic`)."""

    steps: int
    learning_rate: float
    batch: int
    evaluate_every: int
    deadline: float
    seed: int = 0


@dataclass
class Fitted:
    """A model trained jointly.

    Attributes
    ----------
    joint
        In evaluation mode, on its device.
    head
        Its graph head, which scores descriptions.
    scans
        The cohort's scans.
    facts
        Steps and figures of the training, for the card.
    """

    joint: JointModel
    head: GraphModel | None
    scans: Mapping[str, PreparedScan]
    device: torch.device
    facts: dict[str, Any]
    _seen: dict[str, Any] = field(default_factory=dict)

    def scores(self, cohort: Cohort) -> Array:
        """Logits of class 1 (N,), or the number."""
        assert self.head is not None
        return self.head.scores(self.described(cohort))

    def described(self, cohort: Cohort) -> Cohort:
        """The cohort as this model sees whole heads and their mirror images; inference sees stripped ones as well."""
        assert cohort.scans is not None
        seen = [self._describe(name) for name in cohort.scans.tolist()]
        regions, whole, networks = (np.stack(part) for part in zip(*seen, strict=True))
        return replace(cohort, regions=regions, whole=whole, networks=networks)

    @torch.inference_mode()
    def _describe(self, name: str) -> Any:
        if name not in self._seen:
            given = self.scans[name].sample.to(self.device)
            smoothness = torch.full((1,), _SMOOTHNESS, device=self.device)
            outputs = self.joint.unibrain(given.image, smoothness, mirror=True)
            arrays = as_arrays(describe_head(outputs, given.voxel))
            self._seen[name] = (arrays.regions, arrays.whole, arrays.network)
        return self._seen[name]


@dataclass(frozen=True)
class Joint:
    """How such a model is trained: the head alone on the unchanged model first, then both, until validation says stop.

    Attributes
    ----------
    model
        Where training starts.
    scans
        The cohort's scans, by name.
    simulated
        Source of simulated heads.
    folder
        One folder for each training, named by what it depends on.
    budget
        Of time and steps.
    """

    model: Model
    scans: Mapping[str, PreparedScan]
    simulated: UnifiedRecipe
    folder: Path
    budget: Budget
    name: str = "joint"
    _last: dict[str, Fitted] = field(default_factory=dict)

    def tune(self, cohort: Cohort, splits: Sequence[Split], seed: int) -> tuple[str, Array]:
        """Train on the first of the splits; returns the training's name, and the scores (N,) of its validation part.

        Raises
        ------
        TimeUp
            It is not finished.
        """
        split = splits[0]
        training, validation = cohort.take(split.train), cohort.take(split.test)
        run = self.train(training, validation, seed)
        scores = np.full(len(cohort), np.nan)
        scores[split.test] = self.load(run).scores(validation)
        return run, scores

    def fit(self, cohort: Cohort, setting: str, seed: int) -> Fitted:
        """Read the training `setting` that `tune` has made within this cohort."""
        return self.load(setting)

    def train(self, training: Cohort, validation: Cohort, seed: int, *, targets: bool = True) -> str:
        """Train, or go on; without `targets` on masks and segmentations alone. Returns the training's name."""
        assert training.scans is not None and validation.scans is not None
        names, held_out = training.scans.tolist(), validation.scans.tolist()
        values = np.concatenate([training.target, validation.target]).tolist()
        known = dict(zip(names + held_out, values, strict=True)) if targets else {}
        run = self._name(names, held_out, known, seed)
        head = Graph().fit(training, EPOCHS[1], seed) if targets else None
        unibrain = deepcopy(self.model.unibrain).requires_grad_(True)
        unibrain.parcellation.requires_grad_(True)
        recipe = FinetuneRecipe(
            JointModel(unibrain, head),
            self.simulated,
            {name: self.scans[name].sample for name in names + held_out},
            training=names,
            validation=held_out,
            targets=known,
            classes=training.classes is not None,
            device=self.model.device,
        )
        settings = TrainerSettings(
            minutes=max(self.budget.deadline - time.monotonic(), 0) / 60,
            learning_rate=self.budget.learning_rate,
            warmup=max(self.budget.steps // 10, 1),
            batch=self.budget.batch,
            ema=0.9,
            evaluate_every=self.budget.evaluate_every,
            checkpoint_every=5,
            log_every=5,
            anneal=self.budget.steps,
            keep_best="error",
            seed=seed,
        )
        trainer = Trainer(recipe, self.folder / run, settings, self.model.device)
        trainer.restore()
        if not trainer.finished:
            print(f"training {run}: {len(names)} scans, {len(held_out)} for validation", flush=True)
            trainer.run()
        if not trainer.finished:
            raise TimeUp
        return run

    def load(self, run: str) -> Fitted:
        """The best state of a finished training; the last one that was asked for is kept."""
        if run not in self._last:
            self._last.clear()
            self._last[run] = self._read(run)
        return self._last[run]

    def _read(self, run: str) -> Fitted:
        best = torch.load(self.folder / run / "checkpoint.pt", map_location="cpu", weights_only=True)["best"]
        state = best["average"]
        head = None
        if "feature_mean" in state:
            n_regions, features, _ = state["graph.embedding"].shape
            scaler = Scaler(state["feature_mean"].double().numpy(), state["feature_sd"].double().numpy())
            mean, sd = state["target_scale"].tolist()
            head = GraphModel(scaler, RegionGraph(n_regions, features), mean, sd)
        joint = JointModel(deepcopy(self.model.unibrain), head)
        joint.load_state_dict(state)
        joint = joint.eval().requires_grad_(False)
        if head is not None:
            head = replace(head, network=deepcopy(head.network).cpu())
        facts = {"best_step": best["step"], "validation_error": best["value"]}
        return Fitted(joint.to(self.model.device), head, self.scans, self.model.device, facts)

    def _name(self, names: Sequence[str], held_out: Sequence[str], targets: Mapping[str, float], seed: int) -> str:
        facts = [self.model.sha256, names, held_out, sorted(targets.items()), seed, self.budget.steps]
        facts += [self.scans[name].digest for name in (*names, *held_out)]
        facts += [self.budget.learning_rate, self.budget.batch, self.budget.evaluate_every]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:8]
