"""Results as tables: TSV files for machines, one markdown document for readers."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from unibrain_bids.evaluation.evaluate import Evaluation, HeadScores
from unibrain_bids.evaluation.measures import SECTIONS, Measure
from unibrain_bids.evaluation.metrics import mean_of_known
from unibrain_bids.labels import LabelTable

MEAN = "mean"

PREAMBLE = """\
Measured by `unibrain-evaluate`; this file is generated, do not edit it. All overlaps are measured on the scan's own
grid, at its own resolution.

* Mask truths: *solid* is all labelled brain and ventricles, closed by 6 mm and with holes filled, which is what the app
  writes; *brain* leaves the sulci open, *ICV* takes all CSF in.
* Structures are the app's FreeSurfer (aseg) numbers. Voxels whose true label has no counterpart among them (corpus
  callosum, vermis, basal forebrain, optic chiasm) are left out of truth and prediction alike. A structure that
  neither holds is left out of the mean.
* Surface distances run between face-connected surface voxels in mm.
* SSIM is Wang's with a window of 5 voxels, taken over the voxels of each window inside the mask.
* Registration: the scan's *true* structures, warped by the method to MNI152NLin6Asym (1 mm, nearest neighbour), against
  FreeSurfer's labels of that template; NCC and mutual information (64 bins, nats) of the truly stripped scan and the
  stripped template inside the template's brain. Peers get the true mask for nothing; ours gets the whole head. CPU
  seconds: registration alone; ours is the refinement (and the deformation), the network's part is in the seconds of
  `predict`.
"""

_UNLABELLED = """\
Nobody has labelled these heads: mask, grey and white matter are those that ours finds, for every method alike.
"""

REGISTRATION = (
    Measure("warped_dice", "warped-structure Dice", 3, ""),
    Measure("ncc", "NCC", 3, ""),
    Measure("mutual_information", "MI (nats)", 3, ""),
    Measure("cpu_seconds", "CPU s", 1, ""),
)

Row = Mapping[str, float]


def write_tsv(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write `<source>_heads.tsv`, `<source>_registration.tsv` and `<source>_structures.tsv`; a last row holds means.

    Numbers that do not exist are n/a.
    """
    folder.mkdir(parents=True, exist_ok=True)
    keys = [measure.key for measure in _present(evaluation, _all_measures())]
    heads = [{"head": s.name, **{key: s.measures.values.get(key, np.nan) for key in keys}} for s in evaluation.scores]
    if heads:
        heads.append({"head": MEAN, **_mean_row([s.measures.values for s in evaluation.scores], keys)})
    tables = {"heads": heads, "registration": _registration_rows(evaluation), "structures": _structure_rows(evaluation)}
    return [_write_rows(folder / f"{evaluation.source}_{name}.tsv", rows) for name, rows in tables.items() if rows]


def markdown(evaluations: Sequence[Evaluation], facts: Mapping[str, str], *, picture: Path | None = None) -> str:
    """Return the document: facts of the run, definitions, the picture, and the tables of every source."""
    parts = ["# Accuracy", PREAMBLE, "\n".join(f"* {name}: {value}" for name, value in facts.items())]
    parts += ["## Means", _overview(evaluations)]
    if picture is not None:
        parts.append(
            f"![The simulated heads with the best and the worst structures]({picture.parent.name}/{picture.name})"
        )
    for evaluation in evaluations:
        parts += _source_sections(evaluation)
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def summary(evaluation: Evaluation) -> str:
    """Return the means of a source as a few markdown tables, for the terminal."""
    parts = [f"{evaluation.source}: {len(evaluation.scores)} heads, {len(evaluation.failures)} failed"]
    for title, measures in SECTIONS.items():
        if present := _present(evaluation, measures):
            parts.append(f"{title}\n{_head_table(evaluation, present, means_only=True)}")
    if evaluation.scores:
        parts.append(f"Registration\n{_registration_means(evaluation)}")
    return "\n\n".join(parts)


def _all_measures() -> list[Measure]:
    return [measure for measures in SECTIONS.values() for measure in measures]


def _present(evaluation: Evaluation, measures: Iterable[Measure]) -> list[Measure]:
    """Return the measures that at least one head of the source has."""
    keys = {key for scores in evaluation.scores for key in scores.measures.values}
    return [measure for measure in measures if measure.key in keys]


def _mean_row(rows: Sequence[Row], keys: Iterable[str]) -> dict[str, float]:
    return {key: mean_of_known(row.get(key, np.nan) for row in rows) for key in keys}


def _registration_values(scores: HeadScores) -> dict[str, Row]:
    return {
        found.method: {
            "warped_dice": found.scores.mean_dice,
            "ncc": found.scores.ncc,
            "mutual_information": found.scores.mutual_information,
            "cpu_seconds": found.cpu_seconds,
        }
        for found in scores.registrations
    }


def _by_method(evaluation: Evaluation) -> dict[str, dict[str, Row]]:
    """Return each method's values by head, methods in order of appearance."""
    methods: dict[str, dict[str, Row]] = {}
    for scores in evaluation.scores:
        for method, row in _registration_values(scores).items():
            methods.setdefault(method, {})[scores.name] = row
    return methods


def _registration_rows(evaluation: Evaluation) -> list[dict[str, object]]:
    keys = [measure.key for measure in REGISTRATION]
    rows: list[dict[str, object]] = []
    for method, heads in _by_method(evaluation).items():
        rows += [{"method": method, "head": head, **values} for head, values in heads.items()]
        rows.append({"method": method, "head": MEAN, **_mean_row(list(heads.values()), keys)})
    return rows


def _structure_rows(evaluation: Evaluation) -> list[dict[str, object]]:
    """One row a structure: mean Dice over the heads, then each head's, then the mean of each method's warped Dice."""
    if not any(scores.measures.structures for scores in evaluation.scores):
        return []
    methods = [found.method for found in evaluation.scores[0].registrations]
    rows: list[dict[str, object]] = []
    for label in LabelTable.load("aseg"):
        dice = {scores.name: scores.measures.structures[label.index] for scores in evaluation.scores}
        warped = {
            f"warped, {method}": mean_of_known(
                found.scores.dice[label.index]
                for scores in evaluation.scores
                for found in scores.registrations
                if found.method == method
            )
            for method in methods
        }
        rows.append({"index": label.index, "name": label.name, MEAN: mean_of_known(dice.values()), **dice, **warped})
    return rows


def _write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return path


def _cell(value: object, decimals: int = 5) -> str:
    if isinstance(value, float):
        return "n/a" if np.isnan(value) else f"{value:.{decimals}f}"
    return str(value)


def _source_sections(evaluation: Evaluation) -> list[str]:
    parts = [f"## Heads: {evaluation.source}"]
    if evaluation.scores and not any(scores.measures.structures for scores in evaluation.scores):
        parts.append(_UNLABELLED)
    for title, measures in SECTIONS.items():
        if present := _present(evaluation, measures):
            parts += [f"### {title} ({evaluation.source})", _head_table(evaluation, present)]
    if evaluation.scores:
        parts += [f"### Registration ({evaluation.source})", _registration_means(evaluation)]
    if _structure_rows(evaluation):
        parts += [f"### Structures ({evaluation.source})", _structure_table(evaluation)]
    if evaluation.failures:
        failed = "\n".join(f"* {failure.name}: {failure.reason}" for failure in evaluation.failures)
        parts += [f"### Failed ({evaluation.source})", failed]
    return parts


def _overview(evaluations: Sequence[Evaluation]) -> str:
    """Return a table of every measure: its mean over the heads of each source, and its definition."""
    sources = [f"{evaluation.source} ({len(evaluation.scores)} heads)" for evaluation in evaluations]
    lines = ["| " + " | ".join(["measure", *sources, "definition"]) + " |", "|" + "---|" * (len(sources) + 2)]
    for measure in _all_measures():
        means = [
            mean_of_known(scores.measures.values.get(measure.key, np.nan) for scores in evaluation.scores)
            for evaluation in evaluations
        ]
        if not all(np.isnan(means)):
            cells = [_cell(mean, measure.decimals) for mean in means]
            lines.append("| " + " | ".join([measure.title, *cells, measure.definition]) + " |")
    return "\n".join(lines)


def _head_table(evaluation: Evaluation, measures: Sequence[Measure], *, means_only: bool = False) -> str:
    rows = [] if means_only else [(scores.name, scores.measures.values) for scores in evaluation.scores]
    means = _mean_row([scores.measures.values for scores in evaluation.scores], [m.key for m in measures])
    return _table("head", measures, [*rows, (f"**{MEAN}**", means)])


def _registration_means(evaluation: Evaluation) -> str:
    keys = [measure.key for measure in REGISTRATION]
    rows = [
        (f"{method} ({len(heads)} heads)", _mean_row(list(heads.values()), keys))
        for method, heads in _by_method(evaluation).items()
    ]
    return _table("method", REGISTRATION, rows)


def _structure_table(evaluation: Evaluation) -> str:
    rows = _structure_rows(evaluation)
    heads = {scores.name for scores in evaluation.scores}
    columns = [Measure(key, "Dice" if key == MEAN else key, 3, "") for key in rows[0] if key not in heads][2:]
    return _table("structure", columns, [(str(row["name"]), row) for row in rows])  # type: ignore[misc]


def _table(corner: str, measures: Sequence[Measure], rows: Sequence[tuple[str, Row]]) -> str:
    lines = [
        "| " + " | ".join([corner, *(measure.title for measure in measures)]) + " |",
        "|" + "---|" * (len(measures) + 1),
    ]
    for name, values in rows:
        cells = [_cell(float(values.get(m.key, np.nan)), m.decimals) for m in measures]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)
