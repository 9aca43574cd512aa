"""UniBrain's experiments, reduced: `python -m unibrain_bids.evaluation.experiments.unibrain --only joint ...`.

Every run starts from the same weights, those of the run `start`, in which the classification's gradient is stopped, but
for modules that are frozen, which are drawn anew; is trained for the same number of steps on one simulated cohort; and
measured on persons from label maps that no run has seen. A run that is finished is kept in the folder of the runs, one
that was stopped goes on. Tables are made from the runs that are there (`experiments.unibrain_tables`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from unibrain_bids.evaluation.published import assess
from unibrain_bids.model.atlas import Atlas
from unibrain_bids.model.presets import UNIBRAIN_8MM
from unibrain_bids.model.published import PublishedUniBrain
from unibrain_bids.model.soft_template import TISSUES, SoftTemplate
from unibrain_bids.model.weights import average_of
from unibrain_bids.training.cli import ATLAS
from unibrain_bids.training.recipes.basis import EVALUATION_SEED, Heads
from unibrain_bids.training.recipes.cohort import Cohort, KnownCohort, simulated_cohort
from unibrain_bids.training.recipes.published import LossWeights, PublishedRecipe
from unibrain_bids.training.trainer import Trainer, TrainerSettings

PRESET = UNIBRAIN_8MM
TRAINING, HELD_OUT = 96, 48
START, START_STEPS = "start", 700
PARTIAL = "ernet"
STEPS, PEOPLE, LEARNING_RATE = 300, 4, 2e-3
# The paper's (1, 1, 0.1, 1) let the classification's gradient, in the registration hundreds of times that of
# the similarity, drive the labels out of the view. Modules that it alone reaches learn no slower: Adam knows no scale.
WEIGHTS = LossWeights(mask=1.0, similarity=1.0, tissues=1.0, classification=0.01)
_FIRST_SEED = 5_000_000


@dataclass(frozen=True)
class Run:
    """How a run differs from the joint one.

    Attributes
    ----------
    table, label
        Where it is reported, and as what.
    stages
        Affine stages.
    weights
        Of the losses.
    frozen
        Modules that stay as they are drawn.
    switches
        Attributes of the model (`PublishedUniBrain`) that are turned off.
    template
        "population"; "probabilities": the same, with the atlas' probabilities for labels; "one head": brain and labels
        of one training person, who leaves the cohort.
    weigh_tissues
        Whether rare tissues count more.
    seed
        Of weights and of the order of the persons.
    """

    table: str
    label: str
    stages: int = PRESET.stages
    weights: LossWeights = WEIGHTS
    frozen: tuple[str, ...] = ()
    switches: tuple[str, ...] = ()
    template: str = "population"
    weigh_tissues: bool = True
    seed: int = 0


def _without(label: str, *frozen: str, switches: tuple[str, ...] = ()) -> Run:
    return Run("ablations", f"without {label}", frozen=frozen, switches=switches)


def _weighed(label: str, **weights: float) -> Run:
    return Run("weights", label, weights=replace(WEIGHTS, **weights))


RUNS: dict[str, Run] = {
    START: Run("start", "what all runs start from", weights=LossWeights(), switches=("class_reaches",)),
    "joint": Run("main", "UniBrain, joint"),
    "class-stopped": Run("main", "JERS-like: classification's gradient stopped", switches=("class_reaches",)),
    "joint-1": Run("main", "UniBrain, joint, another order of persons", seed=1),
    "class-stopped-1": Run("main", "JERS-like, another order of persons", switches=("class_reaches",), seed=1),
    PARTIAL: Run(
        "baselines", "ERNet-like: Ext and Reg alone", weights=replace(WEIGHTS, tissues=0.0, classification=0.0)
    ),
    "no-reg": _without("Reg", "registration"),
    "no-ext": _without("Ext", "extraction"),
    "no-seg": _without("Seg", "segmentation"),
    "no-parc": _without("Parc", switches=("propagates",)),
    "no-bn": _without("BN", "network"),
    "no-cls": _without("CLS", "classifier"),
    "stages-1": Run("stages", "M = 1", stages=1),
    "stages-3": Run("stages", "M = 3", stages=3),
    "paper": _weighed("the paper's: mask 1, similarity 0.1, tissues 1, classification 1", **asdict(LossWeights())),
    "similarity-0.1": _weighed("similarity 0.1", similarity=0.1),
    "tissues-0.1": _weighed("tissues 0.1", tissues=0.1),
    "mask-0.1": _weighed("mask 0.1", mask=0.1),
    "alike": Run("weights", "all tissues alike, as published", weigh_tissues=False),
    "probabilities": Run("atlas", "the atlas' probabilities as labels", template="probabilities"),
    "one-head": Run("atlas", "one person's hard labels as template", template="one head"),
}  # fmt: skip


@dataclass(frozen=True)
class Material:
    """What all runs share."""

    training: KnownCohort
    held_out: KnownCohort
    template: SoftTemplate
    probabilities: SoftTemplate


def load_material(data: Path, folder: Path) -> Material:
    """Simulate both cohorts, or read those simulated before."""
    with np.load(ATLAS) as arrays:
        atlas = Atlas.from_arrays(arrays)
    template, probabilities = (
        SoftTemplate.from_atlas(atlas, PRESET.shape, PRESET.spacing, likeliest=likeliest) for likeliest in (True, False)
    )
    path = folder / "cohorts.pt"
    if not path.exists():
        heads = Heads.load(data, torch.device("cpu"))
        sets = {
            "training": (heads.training, TRAINING, _FIRST_SEED),
            "held_out": (heads.held_out, HELD_OUT, EVALUATION_SEED),
        }  # fmt: skip
        known = {
            name: simulated_cohort(material, PRESET, persons, first_seed=seed)
            for name, (material, persons, seed) in sets.items()
        }
        folder.mkdir(parents=True, exist_ok=True)
        torch.save({name: asdict(cohort) for name, cohort in known.items()}, path)
    stored = torch.load(path, weights_only=True)
    cohorts = {name: KnownCohort(**{**s, "given": Cohort(**s["given"])}) for name, s in stored.items()}
    return Material(cohorts["training"], cohorts["held_out"], template, probabilities)


def template_of_person(known: KnownCohort, person: int) -> SoftTemplate:
    """The brain of one person with its own labels, where it stands."""
    tissues = torch.nn.functional.one_hot(known.tissues[person], TISSUES).movedim(-1, 0)[None].float()
    regions = torch.nn.functional.one_hot(known.regions[person], 85).movedim(-1, 0)[None, 1:].float()
    brain = known.given.images[person] * known.given.masks[person]
    return SoftTemplate(brain[None] / brain.max(), tissues, regions)


def recipe_of(run: Run, material: Material) -> PublishedRecipe:
    """The recipe of a run, its weights drawn from the run's seed."""
    given, template = material.training.given, material.template
    if run.template == "probabilities":
        template = material.probabilities
    elif run.template == "one head":
        template = template_of_person(material.training, 0)
        given = Cohort(given.images[1:], given.masks[1:], given.classes[1:])
    torch.manual_seed(run.seed)
    recipe = PublishedRecipe(
        given, material.held_out, template, replace(PRESET, stages=run.stages),
        weights=run.weights, people=PEOPLE, frozen=run.frozen, weigh_tissues=run.weigh_tissues,
    )  # fmt: skip
    for switch in run.switches:
        setattr(recipe.model, switch, False)
    return recipe


def carry_out(name: str, material: Material, folder: Path) -> None:
    """Train a run, or go on with it, and write its figures to `<folder>/<name>.json`."""
    run = RUNS[name]
    recipe = recipe_of(run, material)
    steps = START_STEPS if name == START else STEPS
    if name != START:
        start_from(recipe.model, average_of(folder / START / "checkpoint.pt"), run.frozen)
    settings = TrainerSettings(
        minutes=600, learning_rate=LEARNING_RATE, warmup=20, ema=0.98, anneal=steps, evaluate_every=steps + 1,
        seed=run.seed,
    )  # fmt: skip
    trainer = Trainer(recipe, folder / name, settings, torch.device("cpu"))
    trainer.run()
    recipe.model.load_state_dict(trainer.average)
    assert isinstance(recipe.model, PublishedUniBrain)
    people = {key: values.tolist() for key, values in asdict(assess(recipe.model, material.held_out)).items()}
    (folder / f"{name}.json").write_text(json.dumps({"steps": steps, "people": people}) + "\n")


def start_from(model: nn.Module, weights: Mapping[str, Tensor], drawn: Collection[str]) -> None:
    """Take over weights, but for those of some modules."""
    kept = {name: tensor for name, tensor in weights.items() if name.partition(".")[0] not in drawn}
    model.load_state_dict(kept, strict=False)


def main() -> None:
    """Carry out the runs that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("packed/heads.npz"), help="file made by training.packing")
    parser.add_argument("--out", type=Path, default=Path("work/experiments/unibrain"), help="folder of the runs")
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS), metavar="RUN", help=", ".join(RUNS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    material = load_material(args.data, args.out)
    for name in dict.fromkeys((START, *args.only)):
        if not (args.out / f"{name}.json").exists():
            print(f"run {name}: {RUNS[name].label}", flush=True)
            carry_out(name, material, args.out)


if __name__ == "__main__":
    main()
