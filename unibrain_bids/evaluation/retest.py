"""Test-retest: how much the volumes of one brain differ between two scans of it.

    python -m unibrain_bids.evaluation.retest --markdown docs/retest.md

Real heads are scanned once and changed in one way each (`perturbations`), so that nothing but the change can make a
difference.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unibrain_bids.evaluation.networks import ORIGINAL, as_markdown, real_scans
from unibrain_bids.evaluation.perturbations import PERTURBATIONS
from unibrain_bids.labels import LabelTable

if TYPE_CHECKING:
    from unibrain_bids.inference import Prediction

Volumes = Mapping[tuple[str, str], Mapping[str, float]]
"""Person and condition to the volumes in mm3, by name."""

INTRACRANIAL, BRAIN = "intracranial volume", "brain mask"
TISSUES = {"grey matter": 1, "white matter": 2, "cerebrospinal fluid": 3}


def volumes(prediction: Prediction) -> dict[str, float]:
    """Return the volumes (mm3) of the intracranial space, the mask, the tissues and every structure of a scan."""
    voxel = float(abs(np.linalg.det(prediction.scan.affine[:3, :3])))
    counts = np.bincount(prediction.structures.ravel())
    tissues = np.bincount(prediction.tissues.ravel(), minlength=4)
    table = LabelTable.load("aseg")
    return {
        INTRACRANIAL: prediction.intracranial_volume,
        BRAIN: float(prediction.mask.sum()) * voxel,
        **{name: float(tissues[number]) * voxel for name, number in TISSUES.items()},
        **{row.name: (float(counts[row.index]) if row.index < len(counts) else 0.0) * voxel for row in table},
    }


def variation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return the within-person coefficient of variation in per cent, the root of its mean square over persons.

    Two values of one person have the standard deviation |a - b| / sqrt(2) (Bland & Altman 1996,
    doi:10.1136/bmj.313.7049.106). A volume that is missing in both scans of a person says nothing.
    """
    mean = (first + second) / 2
    known = mean > 0
    share = (first - second)[known] / (np.sqrt(2) * mean[known])
    return 100 * float(np.sqrt(np.mean(share**2))) if known.any() else float("nan")


def variations(measured: Volumes) -> list[dict[str, float | str]]:
    """Return one row per volume: the variation under each condition, against the person's scan as it is."""
    conditions = list(dict.fromkeys(condition for _, condition in measured if condition != ORIGINAL))
    names = next(iter(measured.values()))
    rows: list[dict[str, float | str]] = []
    for name in names:
        row: dict[str, float | str] = {"volume": name}
        for condition in conditions:
            persons = [person for person, found in measured if found == condition]
            pairs = np.array([[measured[p, c][name] for c in (ORIGINAL, condition)] for p in persons])
            row[condition] = variation(pairs[:, 0], pairs[:, 1])
        rows.append(row)
    structures = rows[2 + len(TISSUES) :]
    middle = {condition: float(np.nanmedian([float(row[condition]) for row in structures])) for condition in conditions}
    return [{"volume": "median of the structures", **middle}, *rows]


def document(rows: Sequence[Mapping[str, float | str]], facts: str) -> str:
    """Return the results as a page of the documentation."""
    lines = [
        "# Test-retest",
        "",
        "Made by `python -m unibrain_bids.evaluation.retest`: the coefficient of variation in per cent of every volume "
        "between a head of ds000011 and the same head changed in one way (`evaluation/perturbations.py`), "
        "the root mean square over heads. A second scan of a person differs in more than one way. For comparison: "
        "FastSurfer and SynthSeg vary by 7-8 % in small structures between scans of one person.",
        "",
        facts,
        "",
        as_markdown([{k: v if isinstance(v, str) else f"{v:.1f}" for k, v in row.items()} for row in rows]),
    ]
    return "\n".join(lines) + "\n"


def measure(scans: Iterator[tuple[str, str, Callable[[], Prediction]]], path: Path) -> Volumes:
    """Predict the scans that the table `path` (TSV) does not hold yet; returns all volumes."""
    measured: dict[tuple[str, str], dict[str, float]] = {}
    if path.is_file():
        with path.open(newline="") as stream:
            for row in csv.DictReader(stream, delimiter="\t"):
                key = row.pop("person"), row.pop("condition")
                measured[key] = {name: float(value) for name, value in row.items()}
    for person, condition, predicted in scans:
        if (person, condition) not in measured:
            measured[person, condition] = volumes(predicted())
            print(f"{person}, {condition}", flush=True)
            _write(measured, path)
    return measured


def _write(measured: Volumes, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t")
        writer.writerow(["person", "condition", *next(iter(measured.values()))])
        writer.writerows([*key, *values.values()] for key, values in measured.items())


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    from unibrain_bids.inference.loading import load_model

    parser = argparse.ArgumentParser(prog="python -m unibrain_bids.evaluation.retest", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with ds000011/")
    parser.add_argument("--heads", type=int, default=2, help="real heads (default: %(default)s)")
    parser.add_argument("--changes", nargs="+", choices=list(PERTURBATIONS), default=list(PERTURBATIONS))
    parser.add_argument("--out", type=Path, default=Path("work/retest"), help="folder that keeps the volumes")
    parser.add_argument("--markdown", type=Path, help="write the table as a document")
    options = parser.parse_args(argv)
    model = load_model()
    paths = sorted((options.data / "ds000011").glob("sub-*/**/anat/*_T1w.nii.gz"))[: options.heads]
    real = real_scans(paths, model, changes=options.changes)
    measured = measure(real, options.out / f"{model.sha256[:12]}.tsv")
    facts = f"{len(paths)} real heads; weights sha256 `{model.sha256}`."
    text = document(variations(measured), facts)
    print(text)
    if options.markdown:
        options.markdown.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
