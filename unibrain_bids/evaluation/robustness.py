"""Robustness: labelled heads under every condition, with what the app itself thinks of its answer.

Usage:

    python -m unibrain_bids.evaluation.robustness --data ../shared/data --markdown docs/robustness.md
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np

from unibrain_bids.errors import UnibrainError
from unibrain_bids.evaluation import metrics
from unibrain_bids.evaluation.conditions import CONDITIONS
from unibrain_bids.evaluation.evaluate import Predictor
from unibrain_bids.evaluation.heads import IGNORED, HeadRecord, LabelledHead, muse_heads
from unibrain_bids.labels import LabelTable

if TYPE_CHECKING:
    from unibrain_bids.inference import Prediction

# Below this Dice a mask is one that a flag should have told of.
POOR_MASK = 0.90


@dataclass(frozen=True)
class Trial:
    """One head under one condition.

    Attributes
    ----------
    condition, head
        Names.
    mask_dice, structure_dice
        Against the truth; 0 where the app refused the scan.
    flags
        What the app itself says against its answer, or why it refused.
    quality
        The model's own measures.
    """

    condition: str
    head: str
    mask_dice: float
    structure_dice: float
    flags: tuple[str, ...]
    quality: dict[str, float]


def try_heads(
    records: Iterable[HeadRecord], folder: Path, predictor: Predictor, *, conditions: Sequence[str]
) -> Iterator[Trial]:
    """Spoil, predict and compare; scans are written below `folder`, one at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    for record in records:
        head = record.load()
        for condition in conditions:
            spoilt = replace(CONDITIONS[condition](head), path=folder / "spoilt_T1w.nii.gz")
            nib.Nifti1Image(spoilt.image, spoilt.affine).to_filename(spoilt.path)
            yield _try(condition, spoilt, predictor)


def _try(condition: str, head: LabelledHead, predictor: Predictor) -> Trial:
    try:
        prediction = predictor(head.path)
    except UnibrainError as error:
        return Trial(condition, head.name, 0.0, 0.0, (f"refused: {error}",), {})
    return compare(condition, head, prediction)


def compare(condition: str, head: LabelledHead, prediction: Prediction) -> Trial:
    """Dice of mask and structures, and the flags that the model's own measures raise."""
    from unibrain_bids.imaging.quality import quality_flags

    structures = metrics.dice_per_label(
        head.structures, prediction.structures, LabelTable.load("aseg").indices, ignored=IGNORED
    )
    return Trial(
        condition=condition,
        head=head.name,
        mask_dice=metrics.dice(head.masks["solid"], prediction.mask),
        structure_dice=metrics.mean_of_known(structures.values()),
        flags=tuple(quality_flags(prediction.quality)),
        quality=prediction.quality,
    )


def write_tsv(trials: Sequence[Trial], path: Path) -> None:
    """One row a trial, the model's own measures as columns."""
    names = list(dict.fromkeys(name for trial in trials for name in trial.quality))
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t")
        writer.writerow(["condition", "head", "mask_dice", "structure_dice", "flags", *names])
        for t in trials:
            quality = [t.quality.get(name, "n/a") for name in names]
            writer.writerow([t.condition, t.head, t.mask_dice, t.structure_dice, len(t.flags), *quality])


def markdown(trials: Sequence[Trial], command: str) -> str:
    """The table of conditions, and how well the app knows when it fails."""
    lines = [
        "# Robustness",
        "",
        f"Made by `{command}`: the same heads, spoilt in one way each (`unibrain_bids/evaluation/conditions.py`). Mask "
        "Dice against the *solid* truth, structure Dice over 31 structures (docs/accuracy.md defines both).",
        "",
        "| condition | mask Dice | worst | structure Dice | worst | flagged |",
        "|---|---|---|---|---|---|",
    ]
    for condition in dict.fromkeys(trial.condition for trial in trials):
        rows = [trial for trial in trials if trial.condition == condition]
        masks, structures = [t.mask_dice for t in rows], [t.structure_dice for t in rows]
        flagged = sum(bool(t.flags) for t in rows)
        lines.append(
            f"| {condition} | {np.mean(masks):.3f} | {min(masks):.3f} | {np.mean(structures):.3f} "
            f"| {min(structures):.3f} | {flagged} of {len(rows)} |"
        )
    poor = [t for t in trials if t.mask_dice < POOR_MASK]
    silent = [t for t in poor if not t.flags]
    good = [t for t in trials if t.mask_dice >= POOR_MASK]
    lines += [
        "",
        f"Masks below {POOR_MASK:.2f}: {len(poor)}, of which flagged or refused: {len(poor) - len(silent)}. "
        f"Masks above it that are flagged: {sum(bool(t.flags) for t in good)} of {len(good)}.",
        "",
        *_correlations([t for t in trials if t.quality]),
    ]
    return "\n".join(lines) + "\n"


def _correlations(trials: Sequence[Trial]) -> list[str]:
    from scipy.stats import spearmanr

    lines = ["| the model's own measure | rank correlation with mask Dice | with structure Dice |", "|---|---|---|"]
    for name in trials[0].quality:
        values = [t.quality[name] for t in trials]
        found = [
            spearmanr(values, truth)[0] for truth in ([t.mask_dice for t in trials], [t.structure_dice for t in trials])
        ]
        lines.append(f"| `{name}` | {found[0]:.2f} | {found[1]:.2f} |")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m unibrain_bids.evaluation.robustness", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with muse/")
    parser.add_argument("--heads", type=int, default=3, help="how many MUSE heads (default: %(default)s)")
    parser.add_argument("--conditions", nargs="+", choices=list(CONDITIONS), default=list(CONDITIONS))
    parser.add_argument("--weights", type=Path, help="weights file (default: those of the package)")
    parser.add_argument("--out", type=Path, default=Path("work/robustness"), help="folder of the TSV file")
    parser.add_argument("--markdown", type=Path, help="also write the table as a document")
    options = parser.parse_args(argv)

    from unibrain_bids.inference import load_model, predict

    predictor = partial(predict, model=load_model(weights=options.weights))
    trials = []
    records = muse_heads(options.data)[: options.heads]
    report = partial(print, flush=True)
    for trial in try_heads(records, options.out, predictor, conditions=options.conditions):
        trials.append(trial)
        report(f"{trial.head} {trial.condition}: mask {trial.mask_dice:.3f}, structures {trial.structure_dice:.3f}")
        report("  ", *trial.flags, {name: round(value, 3) for name, value in trial.quality.items()})
        write_tsv(trials, options.out / "robustness.tsv")
    if options.markdown:
        options.markdown.write_text(markdown(trials, "python -m unibrain_bids.evaluation.robustness"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
