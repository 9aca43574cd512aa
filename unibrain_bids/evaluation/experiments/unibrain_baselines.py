"""What UniBrain is compared with: labels propagated by other affines, and other classifiers on the same regions.

    python -m unibrain_bids.evaluation.experiments.unibrain_baselines --data packed/heads.npz

Reads the cohorts of `experiments.unibrain`, and its run `start`, whose frozen networks describe regions and align
brains for the classifiers that are trained afterwards; from its run `ernet`, if that is there, a chain without a
learned segmentation: extraction and registration trained alone, propagated labels, KNN network and GCN.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional

from unibrain_bids.evaluation.experiments.unibrain import (
    PARTIAL,
    PRESET,
    RUNS,
    START,
    Material,
    load_material,
    recipe_of,
)
from unibrain_bids.evaluation.published import assess, label_figures
from unibrain_bids.model.classifier import GraphClassifier
from unibrain_bids.model.published import PublishedUniBrain
from unibrain_bids.model.registration import affine_from_parameters, carry_through
from unibrain_bids.model.weights import average_of
from unibrain_bids.training import objectives
from unibrain_bids.training.recipes.cohort import Cohort, KnownCohort

_NEIGHBOURS = 10
_AFFINE_STEPS, _AFFINE_RATE = 60, 0.02
_GRAPH_STEPS, _GRAPH_RATE = 200, 3e-3
# Layers and heads are BrainNetworkTransformer's.
_LAYERS, _HEADS, _TRANSFORMER_STEPS, _TRANSFORMER_RATE = 2, 4, 100, 1e-3
# Strong shrinkage, fixed beforehand: there are more features than persons.
_INVERSE_PENALTY = 0.01


def optimised_affine(model: PublishedUniBrain, brain: Tensor) -> Tensor:
    """`template_from_grid` of the affine that correlates a brain (1, 1, X, Y, Z) best with the template, by descent."""
    parameters = torch.zeros(1, 12, requires_grad=True)
    optimiser = torch.optim.Adam([parameters], lr=_AFFINE_RATE)
    for _ in range(_AFFINE_STEPS):
        optimiser.zero_grad()
        aligned = model.align(brain, affine_from_parameters(parameters))
        (1 - objectives.correlation(aligned, model.image)).backward()
        optimiser.step()
    return torch.linalg.inv(affine_from_parameters(parameters.detach()))


def propagation(model: PublishedUniBrain, known: KnownCohort) -> dict[str, dict[str, list[float]]]:
    """Figures of the template's labels, warped by other affines, person by person."""
    brains = known.given.images * known.given.masks
    ways: dict[str, Callable[[int], Tensor]] = {
        "labels propagated without registration": lambda person: torch.eye(4)[None],
        "labels propagated by descent on the correlation (true masks)": lambda person: optimised_affine(
            model, brains[person : person + 1]
        ),
        "labels propagated by the exact affine": lambda person: known.template_from_grid[person : person + 1],
    }
    results = {}
    for name, way in ways.items():
        figures = [label_figures(model, way(person), brains[person], known, person) for person in range(len(brains))]
        results[name] = {key: [figure[key] for figure in figures] for key in figures[0]}
    return results


@torch.no_grad()
def look(model: PublishedUniBrain, cohort: Cohort, *, segmented: bool = True) -> tuple[Tensor, Tensor]:
    """Descriptions (persons, 84, 17), by segmented or propagated tissues, and aligned brains (persons, voxels)."""
    outputs = [model.eval()(image[None]) for image in cohort.images]
    descriptions = [
        o.description if segmented else model.describe(o.extracted, o.propagated, o.template_from_grid) for o in outputs
    ]
    return torch.cat(descriptions), torch.cat([o.aligned.flatten(1) for o in outputs])


def similarities(description: Tensor) -> Tensor:
    """Networks (persons, 84, 84) of how much regions look alike, -1 to 1."""
    standardised = functional.normalize(description - description.mean(1, keepdim=True), dim=-1)
    return standardised @ standardised.transpose(1, 2)


def nearest_neighbours(description: Tensor) -> Tensor:
    """Networks (persons, 84, 84) that join each region with those that look most like it, weight 1."""
    similarity = similarities(description)
    edges = torch.zeros_like(similarity).scatter_(2, similarity.topk(_NEIGHBOURS + 1).indices, 1.0)
    return torch.maximum(edges, edges.transpose(1, 2))


def graph_probabilities(training: Tensor, classes: Tensor, held_out: Tensor) -> NDArray[np.float64]:
    """Probability of the second class by a GCN on networks of nearest neighbours (KNN-GCN)."""
    torch.manual_seed(0)
    scaled = _standardised(training, held_out)
    network = GraphClassifier(training.shape[2], PRESET.graph_features, 2)
    for layer in network.modules():
        carry_through(layer)
    given, asked = ((d, nearest_neighbours(whole)) for d, whole in zip(scaled, (training, held_out), strict=True))
    return _fitted(network, given, classes, asked, steps=_GRAPH_STEPS, rate=_GRAPH_RATE)


class ConnectionTransformer(nn.Module):
    """A transformer whose tokens are the rows of a network (persons, R, R); class logits from their mean.

    BrainNetworkTransformer (Kan et al. 2022) with that mean in place of its readout by orthonormal clusters. A row says
    by itself which region it is of, so that there is no embedding of the position.
    """

    def __init__(self, regions: int, classes: int) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(regions, _HEADS, dim_feedforward=2 * regions, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, _LAYERS)
        self.output = nn.Linear(regions, classes)

    def forward(self, network: Tensor) -> Tensor:
        """Class logits (persons, classes)."""
        return self.output(self.encoder(network).mean(1))


def transformer_probabilities(training: Tensor, classes: Tensor, held_out: Tensor) -> NDArray[np.float64]:
    """Probability of the second class by a transformer on the rows of networks of similarities (BNT)."""
    torch.manual_seed(0)
    given, asked = _standardised(similarities(training), similarities(held_out))
    network = ConnectionTransformer(training.shape[1], 2)
    return _fitted(network, (given,), classes, (asked,), steps=_TRANSFORMER_STEPS, rate=_TRANSFORMER_RATE)


def _standardised(training: Tensor, held_out: Tensor) -> tuple[Tensor, Tensor]:
    """Both, by mean and spread of each feature over the training persons."""
    centre, spread = training.mean(0), training.std(0) + 1e-3
    return (training - centre) / spread, (held_out - centre) / spread


def _fitted(
    network: nn.Module,
    given: tuple[Tensor, ...],
    classes: Tensor,
    asked: tuple[Tensor, ...],
    *,
    steps: int,
    rate: float,
) -> NDArray[np.float64]:
    """Train a network on all persons at once; its probability of the second class for those asked about."""
    optimiser = torch.optim.Adam(network.parameters(), lr=rate, weight_decay=1e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        functional.cross_entropy(network(*given), classes).backward()
        optimiser.step()
    with torch.no_grad():
        logits = network.eval()(*asked)
    return torch.softmax(logits, dim=1)[:, 1].double().numpy()


def logistic_probabilities(training: Tensor, classes: Tensor, held_out: Tensor) -> NDArray[np.float64]:
    """Probability of the second class by a logistic regression on standardised features."""
    regression = make_pipeline(StandardScaler(), LogisticRegression(C=_INVERSE_PENALTY, max_iter=2000))
    regression.fit(training.flatten(1).numpy(), classes.numpy())
    probability: NDArray[np.float64] = regression.predict_proba(held_out.flatten(1).numpy())[:, 1]
    return probability


def classifiers(model: PublishedUniBrain, material: Material) -> dict[str, dict[str, list[float]]]:
    """Probabilities by classifiers that are trained on what frozen networks give."""
    regions, voxels = look(model, material.training.given)
    held_regions, held_voxels = look(model, material.held_out.given)
    classes = material.training.given.classes
    probabilities = {
        "KNN network and GCN": graph_probabilities(regions, classes, held_regions),
        "transformer on rows of similarities (BNT-like)": transformer_probabilities(regions, classes, held_regions),
        "logistic regression on regions": logistic_probabilities(regions, classes, held_regions),
        "logistic regression on voxels": logistic_probabilities(voxels, classes, held_voxels),
    }
    truth = material.held_out.given.classes.double().tolist()
    return {name: {"probability": values.tolist(), "classes": truth} for name, values in probabilities.items()}


def extraction_and_registration(model: PublishedUniBrain, material: Material) -> dict[str, list[float]]:
    """Figures of a model that learnt these two alone: tissues are propagated, classes by KNN network and GCN."""
    figures = asdict(assess(model, material.held_out))
    figures["tissue_dice"], figures["grey_white_dice"] = (
        figures[name] for name in ("propagated_dice", "propagated_grey_white_dice")
    )
    regions, _ = look(model, material.training.given, segmented=False)
    held_regions, _ = look(model, material.held_out.given, segmented=False)
    figures["probability"] = graph_probabilities(regions, material.training.given.classes, held_regions)
    return {name: values.tolist() for name, values in figures.items()}


def main() -> None:
    """Write the figures of all baselines to `baselines.json` in the folder of the runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("packed/heads.npz"), help="file made by training.packing")
    parser.add_argument("--out", type=Path, default=Path("work/experiments/unibrain"), help="folder of the runs")
    args = parser.parse_args()
    torch.set_num_threads(1)
    material = load_material(args.data, args.out)
    model = recipe_of(RUNS[START], material).model
    assert isinstance(model, PublishedUniBrain)
    found = {}
    if (checkpoint := args.out / PARTIAL / "checkpoint.pt").exists():
        model.load_state_dict(average_of(checkpoint))
        found[RUNS[PARTIAL].label] = extraction_and_registration(model, material)
    model.load_state_dict(average_of(args.out / START / "checkpoint.pt"))
    found |= propagation(model, material.held_out) | classifiers(model, material)
    (args.out / "baselines.json").write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
