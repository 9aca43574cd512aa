"""Which loss reaches which module: norms of gradients, measured.

    python -m unibrain_bids.evaluation.experiments.gradients --data packed/heads.npz --runs work/experiments/unibrain

One backward pass for each term of a loss, before its weight, on trained weights; "-" means exactly zero. With the runs
of `experiments.unibrain`, also what becomes of that in training: how far the weights end from those of other runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unibrain_bids.evaluation.experiments.results import Row, write_rows
from unibrain_bids.evaluation.experiments.unibrain import PRESET, START
from unibrain_bids.inference import resource
from unibrain_bids.model.atlas import Atlas
from unibrain_bids.model.presets import UNIFIED
from unibrain_bids.model.published import PublishedUniBrain
from unibrain_bids.model.soft_template import SoftTemplate
from unibrain_bids.model.unibrain import UniBrain
from unibrain_bids.model.weights import average_of, load_weights
from unibrain_bids.training.recipes.basis import Heads
from unibrain_bids.training.recipes.cohort import simulated_cohort
from unibrain_bids.training.recipes.published import draw, loss_terms
from unibrain_bids.training.recipes.unified import UnifiedRecipe
from unibrain_bids.training.simulation.simulator import ALIGNED, simulate

PUBLISHED_MODULES = ("extraction", "registration", "segmentation", "network", "classifier")
UNIFIED_MODULES = (
    "backbone", "multiplier", "extraction", "segmentation", "places", "registration", "parcellation", "network",
    "classifier",
)  # fmt: skip
# Runs that the joint one's weights are compared with.
COMPARED = {
    START: "the start",
    "class-stopped": "classification's gradient stopped",
    "joint-1": "another order of persons",
}  # fmt: skip
_SEED = 6_000_000
_PEOPLE = 4


def gradient_norms(terms: Mapping[str, Tensor], model: nn.Module, modules: tuple[str, ...]) -> dict[str, list[float]]:
    """For each loss, the norm of its gradient in every module; 0 where it does not reach."""
    parameters = [list(model.get_submodule(name).parameters()) for name in modules]
    norms = {}
    for loss, term in terms.items():
        flat = [parameter for group in parameters for parameter in group]
        found = iter(torch.autograd.grad(term, flat, retain_graph=True, allow_unused=True))
        squares = [[g.square().sum() for g in islice(found, len(group)) if g is not None] for group in parameters]
        norms[loss] = [float(torch.stack(group).sum().sqrt()) if group else 0.0 for group in squares]
    return norms


def weight_distances(
    weights: Mapping[str, Tensor], others: Mapping[str, Mapping[str, Tensor]], modules: tuple[str, ...]
) -> list[Row]:
    """For each module, how far its weights lie from those of others, relative to their norm."""
    rows: list[Row] = []
    for module in modules:
        row = {"module": module}
        names = [name for name in weights if name.startswith(f"{module}.")]
        norm = torch.stack([weights[name].square().sum() for name in names]).sum()
        for label, other in others.items():
            apart = torch.stack([(weights[name] - other[name]).square().sum() for name in names]).sum()
            row[label] = f"{float((apart / norm).sqrt()):.2g}"
        rows.append(row)
    return rows


def published_map(heads: Heads, atlas: Atlas, checkpoint: Path) -> dict[str, list[float]]:
    """The four terms of the published model on a few persons."""
    model = PublishedUniBrain(PRESET, SoftTemplate.from_atlas(atlas, PRESET.shape, PRESET.spacing))
    model.load_state_dict(average_of(checkpoint))
    cohort = simulated_cohort(heads.training, PRESET, _PEOPLE, first_seed=_SEED).given
    image, mask, classes = draw(cohort, model, _SEED, _PEOPLE)
    return gradient_norms(loss_terms(model(image), mask, classes, model.image), model, PUBLISHED_MODULES)


def unified_map(heads: Heads, atlas: Atlas) -> dict[str, list[float]]:
    """Every term of the shipped model on one scan, and the classification's through a classifier drawn at random."""
    torch.manual_seed(0)
    model = UniBrain(UNIFIED, atlas)
    load_weights(resource("weights/unified.safetensors"), {"unibrain": model})
    model.classifier = UniBrain(UNIFIED, atlas, classes=2).classifier
    head = simulate(heads.training, ALIGNED, _SEED)
    # A multiple of six: this scan has every term.
    terms = UnifiedRecipe(heads, atlas).terms(model, head, 6 * (_SEED // 6))
    logits = model(head.image, torch.full((1,), 0.1)).class_logits
    assert logits is not None
    terms["classification"] = functional.cross_entropy(logits, torch.tensor([1]))
    return gradient_norms(terms, model, UNIFIED_MODULES)


def main() -> None:
    """Write one of the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("packed/heads.npz"), help="file made by training.packing")
    parser.add_argument("--runs", type=Path, help="folder of the runs of `experiments.unibrain`; else `unified`")
    parser.add_argument("--out", type=Path, default=Path("docs/experiments"))
    args = parser.parse_args()
    heads = Heads.load(args.data, torch.device("cpu"))
    with np.load(resource("population/atlas.npz")) as arrays:
        atlas = Atlas.from_arrays(arrays)
    name: str
    modules: tuple[str, ...]
    if args.runs:
        checkpoints = {name: args.runs / name / "checkpoint.pt" for name in ("joint", *COMPARED)}
        name, modules, norms = "unibrain", PUBLISHED_MODULES, published_map(heads, atlas, checkpoints["joint"])
        others = {label: average_of(checkpoints[other]) for other, label in COMPARED.items()}
        distances = weight_distances(average_of(checkpoints["joint"]), others, modules)
        write_rows(args.out / "unibrain-apart.tsv", distances)
    else:
        name, modules, norms = "unified", UNIFIED_MODULES, unified_map(heads, atlas)
    rows = [
        dict(zip(("loss", *modules), (loss, *(f"{norm:.2g}" if norm else "-" for norm in values)), strict=True))
        for loss, values in norms.items()
    ]
    write_rows(args.out / f"gradients-{name}.tsv", rows)


if __name__ == "__main__":
    main()
