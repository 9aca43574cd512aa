"""The tables of UniBrain's experiments, from the runs that are there.

    python -m unibrain_bids.evaluation.experiments.unibrain_tables

Writes one TSV a table to `docs/experiments` and all of them into `docs/experiments/unibrain.md`. A run that was not
carried out has no row: it is named below its table.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unibrain_bids.evaluation.experiments.results import Row, as_markdown, read_rows, write_rows
from unibrain_bids.evaluation.experiments.unibrain import (
    HELD_OUT,
    LEARNING_RATE,
    PEOPLE,
    PRESET,
    RUNS,
    START_STEPS,
    STEPS,
    TRAINING,
    WEIGHTS,
)
from unibrain_bids.evaluation.published import area_under_curve
from unibrain_bids.training.recipes.published import LossWeights

JOINT = "joint"
_RESAMPLES = 2000
_COLUMNS = {
    "mask Dice": "mask_dice", "MI": "mutual_information", "CC": "correlation", "tissue Dice": "tissue_dice",
    "GM, WM": "grey_white_dice", "propagated": "propagated_dice", "parcel Dice": "parcel_dice",
}  # fmt: skip

Figures = Mapping[str, NDArray[np.float64]]


def _shown_weights(weights: LossWeights) -> str:
    return ", ".join(f"{getattr(weights, name):g}" for name in ("mask", "similarity", "tissues", "classification"))


INTRODUCTION = f"""# UniBrain's experiments

Made by `python -m unibrain_bids.evaluation.experiments.unibrain`, `.unibrain_baselines`, `.unibrain_networks`,
`.unibrain_real`, `.gradients` and `.unibrain_tables`. **Reduced to what one slow processor thread can do**:
{TRAINING} simulated persons of label maps 1-12 to learn from (brain masks, the population's mean brain with its labels
as the one template, a class for each); {HELD_OUT} persons of label maps 13-16 to measure on, half of each with wider
ventricles; the preset `{PRESET.name}`, {" x ".join(map(str, PRESET.shape))} voxels of {PRESET.spacing:g} mm. All runs
start from the same weights ({START_STEPS} steps of the joint recipe with the classification's gradient stopped before
the regions), but for modules that are frozen, which are drawn anew, and take {STEPS} steps more. A step is {PEOPLE}
persons; the rate of learning falls from {LEARNING_RATE:g} to 0 over the start, and again over each run.

The paper's figures are of 96 x 96 x 96 voxels, real heads and 1000 epochs: orderings may be compared, heights may not.
CSF is that of the ventricles. Where rows differ by less than their seeds or intervals do, nothing can be said.

What differs from the paper, and why:

- Weights of mask, similarity, tissues and classification are {_shown_weights(WEIGHTS)} (the paper's, and the start's:
  {_shown_weights(LossWeights())}). With the paper's, the classification's gradient, in the registration hundreds of
  times that of the similarity, drives the labels out of the view: see *Weights of the losses*.
- The tissues' target, the template's warped labels, is a constant: through it the cross-entropy would drive the labels
  out of the view. So similarity and classification alone reach the registration.
- Rare tissues count more in that cross-entropy, by the inverse 4th root of their volume: else the ventricles, one
  voxel of a hundred, are not learnt.
- The registration's layers have He's initialisation: with torch's own the images fade behind the biases, and nothing
  but one constant is learnt for some hundred steps.
- Embeddings of regions are centred over a scan's regions before they get unit length: edges are correlations. Without
  that nearly all edges come to be near 1. Each region has weights of its own in the region MLP's first layer, as it has
  in the paper, where that layer sees flattened masked volumes.
"""

TITLES = {
    "main": "Results",
    "ablations": "Without one of the modules",
    "stages": "Number of stages M",
    "weights": "Weights of the losses",
    "atlas": "Another template",
}
NOTES = {
    "main": "JERS- and ERNet-like rows are UniBrain's own networks with parts of the loss off; ERNet's tissues are "
    "propagated, its classes by KNN network and GCN on its own regions. The last four rows were trained on what the "
    "frozen networks of the start say of regions, or on brains that they aligned. The BNT-like transformer takes the "
    "rows of a region's similarities as tokens; its readout is reduced to a mean.\n\n"
    "Tissue Dice (GM, WM and ventricles; then without these) is the segmentation's, and for baselines that of "
    "the propagated labels; *propagated* is the same of the template's tissues, warped to the head by the run's own "
    "affine. AUC with the 95 % interval of a bootstrap over persons.",
    "ablations": "The module stays as it was drawn. Parcellation has no weights: without it the template's regions are "
    "laid on the head as they are.",
    "stages": "The start has M = 5, so the others have only the steps of the run to learn theirs.",
    "weights": f"Of mask, similarity, tissues, classification; those of the first row are {_shown_weights(WEIGHTS)}.",
    "atlas": "",
}  # fmt: skip


# Tables that other commands write.
FURTHER = {
    "unibrain-real": (
        "Real heads",
        "Heads of MUSE (manual labels), the whole app with `--model unibrain`. Its third tissue is the ventricles; the "
        "truth's CSF takes in the sulci inside the mask. *Warped Dice*, NCC and MI are of the model's affine as it is, "
        "measured as in [accuracy](../accuracy.md). **Both sets of UniBrain's weights were trained for minutes, on a "
        "grid of 8 mm and simulated heads alone**: those of the package, and those of *UniBrain, joint* above. The "
        "last row is the shipped `unified` model on the same heads.",
    ),
    "unibrain-networks": (
        "Learned matrices of the two groups",
        "*Apart* is the mean absolute difference between the groups' mean edges, beside that of groups drawn at random "
        "from the same held-out persons.\n\n![Mean networks and their difference](unibrain-networks.png)",
    ),
    "gradients-unibrain": (
        "Which loss reaches which module: `unibrain`",
        'Norm of the gradient of each term, before its weight, in the weights of each module of the joint run; "-" is '
        "exactly zero. The published code's classification reaches the last two modules alone.",
    ),
    "unibrain-apart": (
        "What the classification changes in the weights",
        "How far the averaged weights of the joint run lie from those of other runs, relative to their norm. But for "
        "the gradient that is stopped, the second column's run is the same, person by person.",
    ),
    "gradients-unified": (
        "Which loss reaches which module: `unified`",
        "The same for the shipped model on one scan. NPP's terms are *gain*, *variation* and *reconstruction*; the "
        "classifier is drawn at random, because none is shipped. The scan is not T1-like, so that there is no term for "
        "the similarity.",
    ),
}


@dataclass(frozen=True)
class Interval:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def bootstrap(figure: Callable[[NDArray[np.int64]], float], persons: int) -> Interval:
    """A figure of all persons, and its percentiles over persons drawn with replacement."""
    generator = np.random.default_rng(0)
    drawn = [figure(generator.integers(persons, size=persons)) for _ in range(_RESAMPLES)]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Interval(figure(np.arange(persons)), float(low), float(high))


def read_figures(path: Path) -> Figures:
    """Figures of a run, person by person."""
    return {name: np.array(values) for name, values in json.loads(path.read_text())["people"].items()}


def row_of(label: str, figures: Figures) -> Row:
    """Mean figures as text; those that there are none of stay empty."""
    row = {"system": label}
    for column, name in _COLUMNS.items():
        row[column] = f"{np.nanmean(figures[name]):.3f}" if name in figures else ""
    row |= {"ACC": "", "AUC": ""}
    if "probability" in figures:
        classes, probability = figures["classes"], figures["probability"]
        row["ACC"] = f"{np.mean((probability > 0.5) == (classes > 0.5)):.3f}"
        row["AUC"] = str(bootstrap(lambda chosen: area_under_curve(classes[chosen], probability[chosen]), len(classes)))
    return row


def bar(figures: Figures, baselines: Mapping[str, Figures]) -> Iterable[str]:
    """Whether the joint recipe beats plain propagation in tissue Dice, with intervals of the paired difference."""
    compared = {"tissue_dice": "propagated_dice", "grey_white_dice": "propagated_grey_white_dice"}
    rivals = {"its own affine": {name: figures[own] for name, own in compared.items()}}
    rivals |= {label: dict(given) for label, given in baselines.items() if compared.keys() <= given.keys()}
    for label, rival in rivals.items():
        apart = {name: figures[name] - rival[name] for name in compared}
        found = [
            bootstrap(lambda chosen, d=difference: float(np.nanmean(d[chosen])), len(difference))  # type: ignore[misc]
            for difference in apart.values()
        ]
        yield f"- against {label}: {found[0]}; grey and white matter alone: {found[1]}"


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("work/experiments/unibrain"), help="folder of the runs")
    parser.add_argument("--out", type=Path, default=Path("docs/experiments"))
    args = parser.parse_args()
    found = {name: read_figures(path) for name in RUNS if (path := args.runs / f"{name}.json").exists()}
    stored = args.runs / "baselines.json"
    given = json.loads(stored.read_text()) if stored.exists() else {}
    baselines = {label: {key: np.array(values) for key, values in figures.items()} for label, figures in given.items()}
    remarks = args.out / "unibrain.note"  # what people have written about the tables
    text = [INTRODUCTION, remarks.read_text() if remarks.exists() else ""]
    for table, title in TITLES.items():
        names = [name for name, run in RUNS.items() if run.table == table]
        shown = [name for name in (JOINT, *names) if name in found]
        rows = [row_of(RUNS[name].label, found[name]) for name in dict.fromkeys(shown)]
        if table == "main":
            rows += [row_of(label, figures) for label, figures in baselines.items()]
        if not any(name in found for name in names):
            text.append(f"## {title}\n\nNot run.\n")
            continue
        write_rows(args.out / f"unibrain-{table}.tsv", rows)
        text.append("\n\n".join(part for part in (f"## {title}", NOTES[table], as_markdown(rows)) if part) + "\n")
        if table == "main" and JOINT in found:
            lines = "\n".join(bar(found[JOINT], baselines))
            text.append(f"Tissue Dice of *{RUNS[JOINT].label}* less that of plainly propagated labels:\n\n{lines}\n")
        missing = [RUNS[name].label for name in names if name not in found]
        if table == "main":
            missing += [run.label for run in RUNS.values() if run.table == "baselines" and run.label not in baselines]
        if missing:
            text.append(f"Not run: {'; '.join(missing)}.\n")
    for stem, (title, note) in FURTHER.items():
        path = args.out / f"{stem}.tsv"
        text.append(f"## {title}\n\n{note}\n\n{as_markdown(read_rows(path))}\n" if path.exists() else "")
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "unibrain.md").write_text("\n".join(text))


if __name__ == "__main__":
    main()
