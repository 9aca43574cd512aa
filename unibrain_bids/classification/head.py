"""A trained head: what is written, read again, and applied to scans of which only the derivatives are known."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save

from unibrain_bids.classification.card import HeadFile
from unibrain_bids.classification.cohort import Cohort, Scaler
from unibrain_bids.classification.features import Features
from unibrain_bids.classification.graph import GraphModel, RegionGraph
from unibrain_bids.classification.linear import LinearModel
from unibrain_bids.classification.novelty import Novelty, Verdict
from unibrain_bids.errors import ResourceError

__all__ = ["Head", "Outcome", "load_head"]


@dataclass(frozen=True)
class Outcome:
    """What a head says of one scan.

    Attributes
    ----------
    verdict
        Whether the scan is like the training scans; where it is "refused", nothing is predicted.
    distance, limit
        How far it is from them, and how far it may be.
    value
        Probability of the second class, or the number; None if refused.
    predicted
        The chosen class; None for a number, or if refused.
    """

    verdict: Verdict
    distance: float
    limit: float
    value: float | None
    predicted: str | None


@dataclass(frozen=True)
class Head:
    """A model, the novelty of scans, and a card.

    Attributes
    ----------
    model
        Gives scores.
    novelty
        Judges scans.
    threshold
        Logit from which the second class is chosen.
    card
        See `card.new_card`.
    """

    model: LinearModel | GraphModel
    novelty: Novelty
    threshold: float
    card: dict[str, Any]

    @property
    def label(self) -> str:
        """Label in file names."""
        return str(self.card["Label"])

    @property
    def classes(self) -> tuple[str, str] | None:
        """Names of the classes, or None where a number is predicted."""
        classes = self.card["Classes"]
        return (str(classes[0]), str(classes[1])) if classes else None

    def apply(self, features: Features) -> Outcome:
        """Predict for one scan."""
        cohort = _single(features, self.classes)
        distance = float(self.novelty.distance(cohort.flat)[0])
        verdict = self.novelty.verdict(distance)
        limit = self.novelty.limit
        if verdict == "refused":
            return Outcome(verdict, distance, limit, None, None)
        score = float(self.model.scores(cohort)[0])
        if self.classes is None:
            return Outcome(verdict, distance, limit, score, None)
        probability = 1 / (1 + float(np.exp(-score)))
        return Outcome(verdict, distance, limit, probability, self.class_of(probability))

    def class_of(self, probability: float) -> str | None:
        """Return the class that is chosen at a probability of the second class; None where there are no classes."""
        if self.classes is None:
            return None
        return self.classes[int(probability > 1 / (1 + float(np.exp(-self.threshold))))]

    def to_bytes(self) -> bytes:
        """Return the content of the head's file."""
        state = {
            **_prefixed("novelty.scaler", mean=self.novelty.scaler.mean, sd=self.novelty.scaler.sd),
            **_prefixed("novelty", components=self.novelty.components, variances=self.novelty.variances),
            **_prefixed("novelty", rest=self.novelty.rest, limit=self.novelty.limit),
            **_prefixed("model.scaler", mean=self.model.scaler.mean, sd=self.model.scaler.sd),
            "threshold": _tensor(self.threshold),
        }
        if isinstance(self.model, LinearModel):
            state |= _prefixed("linear", weight=self.model.weight, bias=self.model.bias)
        else:
            state |= _prefixed("graph", mean=self.model.mean, sd=self.model.sd)
            state |= {f"graph.network.{name}": tensor for name, tensor in self.model.network.state_dict().items()}
        return save(state, metadata={"card": json.dumps(self.card)})


def load_head(file: HeadFile) -> Head:
    """Read a head.

    Raises
    ------
    ResourceError
        A part of it is missing.
    """
    with safe_open(file.path, framework="pt") as opened:
        state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
    numbers = {name: tensor.double().numpy() for name, tensor in state.items()}
    try:
        novelty = Novelty(
            Scaler(numbers["novelty.scaler.mean"], numbers["novelty.scaler.sd"]),
            numbers["novelty.components"],
            numbers["novelty.variances"],
            float(numbers["novelty.rest"]),
            float(numbers["novelty.limit"]),
        )
        return Head(_model(state, numbers), novelty, float(numbers["threshold"]), file.card)
    except (KeyError, RuntimeError) as error:
        raise ResourceError(f"{file.path}: lacks a part of the head ({error}).", "Train it again.") from error


def _model(state: dict[str, torch.Tensor], numbers: dict[str, NDArray[np.float64]]) -> LinearModel | GraphModel:
    scaler = Scaler(numbers["model.scaler.mean"], numbers["model.scaler.sd"])
    if "linear.weight" in numbers:
        return LinearModel(scaler, numbers["linear.weight"], float(numbers["linear.bias"]))
    regions, features, _ = state["graph.network.embedding"].shape
    network = RegionGraph(regions, features).eval()
    prefix = "graph.network."
    network.load_state_dict({n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)})
    return GraphModel(scaler, network, float(numbers["graph.mean"]), float(numbers["graph.sd"]))


def _single(features: Features, classes: tuple[str, str] | None) -> Cohort:
    return Cohort(
        features.regions[None],
        features.whole[None],
        features.network[None],
        target=np.zeros(1),
        participants=np.array([""]),
        covariates=np.zeros((1, 0)),
        classes=classes,
    )


def _prefixed(prefix: str, **values: Any) -> dict[str, torch.Tensor]:
    return {f"{prefix}.{name}": _tensor(value) for name, value in values.items()}


def _tensor(value: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(value, dtype=np.float64))
