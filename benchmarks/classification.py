"""Evidence for docs/classification.md: the classifier code finds what is there, and nothing else.

    python benchmarks/classification.py impac DIR       autism in the IMPAC tables, with sites held out
    python benchmarks/classification.py simulated       AUC against effect size, recovered regions, false positives
    python benchmarks/classification.py cohort BIDS OUT COLUMN [--regress]    a column of a processed dataset
    python benchmarks/classification.py ship BIDS OUT COLUMN                  the built-in head `sex`, written anew

The first three print Markdown tables. A cohort is processed first by

    unibrain-bids BIDS OUT participant --tasks parcellate network --output-spaces T1w
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

import unibrain_bids
from unibrain_bids.bids.atomic import write_bytes, write_json
from unibrain_bids.bids.derivatives import DEFAULT_ATLAS
from unibrain_bids.classification.cohort import Cohort
from unibrain_bids.classification.linear import Ridge
from unibrain_bids.classification.permutation import refitted_test
from unibrain_bids.classification.scores import auc
from unibrain_bids.classification.splits import outer_splits
from unibrain_bids.classification.training import train_head
from unibrain_bids.classification.validation import FOLDS, HEAD, Validation, leakage, validate
from unibrain_bids.group.derivatives import find_tables
from unibrain_bids.group.gather import gather
from unibrain_bids.group.learning import cohort_of, one_maker
from unibrain_bids.group.options import GroupOptions
from unibrain_bids.group.participants import read_participants
from unibrain_bids.group.statistics import Means, welch
from unibrain_bids.labels import LabelTable

PERMUTATIONS = 1000
GOOD_AUC, GOOD_P = 0.75, 0.01
_SEXES = {"f": "F", "female": "F", "m": "M", "male": "M"}


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("impac").add_argument("folder", type=Path)
    commands.add_parser("simulated")
    for name in ("cohort", "ship"):
        command = commands.add_parser(name)
        command.add_argument("bids_dir", type=Path)
        command.add_argument("output_dir", type=Path)
        command.add_argument("column")
        command.add_argument("--regress", action="store_true")
    options = parser.parse_args()
    if options.command == "impac":
        impac(options.folder)
    elif options.command == "simulated":
        simulated()
    elif options.command == "ship":
        ship(options.bids_dir, options.output_dir, options.column)
    else:
        real(options.bids_dir, options.output_dir, options.column, regress=options.regress)


def impac(folder: Path) -> None:
    """Autism against controls: five folds with a part of every site, and whole sites held out."""
    cohort = impac_cohort(folder)
    print(
        f"{len(cohort)} participants with QC 1, {len(set(cohort.sites))} sites; site from features: {leakage(cohort)}\n"
    )
    for by_site in (False, True):
        show(
            validate(
                cohort, by_site=by_site, permutations=PERMUTATIONS, progress=lambda line: print(f"<!-- {line} -->")
            )
        )


def impac_cohort(folder: Path) -> Cohort:
    """Read the tables of the IMPAC challenge; only scans whose quality was rated 1.

    Regions are the 68 of the cortex with area and thickness; the other numbers describe the whole brain. There is no
    network of intensities: edges are the likeness of two regions' area and thickness among the participant's regions.
    """
    people = {row["subject_id"]: row for row in _rows(folder / "participants.csv")}
    good = {row["subject_id"] for row in _rows(folder / "anatomy_qc.csv") if row["select"] == "1"}
    anatomy = [row for row in _rows(folder / "anatomy.csv") if row["subject_id"] in good]
    columns = [name for name in anatomy[0] if name != "subject_id"]
    areas = [name for name in columns if name.endswith("_area") and "WhiteSurfArea" not in name]
    cortex = [[name, name.removesuffix("_area") + "_thickness"] for name in areas]
    used = {name for pair in cortex for name in pair}
    values = {name: np.array([_number(row[name]) for row in anatomy]) for name in columns}
    regions = np.stack([np.stack([values[name] for name in pair], axis=1) for pair in cortex], axis=1)
    within = (regions - np.nanmean(regions, axis=1, keepdims=True)) / np.nanstd(regions, axis=1, keepdims=True)
    distance = np.nan_to_num(((within[:, :, None] - within[:, None]) ** 2).sum(axis=-1), nan=np.inf)
    networks = np.exp(-distance / 2)
    networks[:, np.arange(networks.shape[1]), np.arange(networks.shape[1])] = 1
    mine = [people[row["subject_id"]] for row in anatomy]
    return Cohort(
        regions=regions.astype(np.float32),
        whole=np.stack([values[name] for name in columns if name not in used], axis=1).astype(np.float32),
        networks=networks.astype(np.float32),
        target=np.array([float(person["asd"]) for person in mine]),
        participants=np.array([row["subject_id"] for row in anatomy]),
        covariates=np.array([[_number(person["age"]), float(person["sex"] == "M")] for person in mine]),
        sites=np.array([person["site"] for person in mine]),
        classes=("control", "autism"),
    )


def real(bids_dir: Path, output_dir: Path, column: str, *, regress: bool) -> None:
    """Validate a head on a processed dataset."""
    options = GroupOptions(**{"regress" if regress else "classify": column})
    gathered = gather(find_tables(output_dir), keep=True)
    cohort, excluded = cohort_of(gathered.features, read_participants(bids_dir), options)
    print(f"{column}: {len(cohort)} scans of {len(set(cohort.participants))} participants; left out: {excluded}\n")
    show(validate(cohort, permutations=PERMUTATIONS))


def ship(bids_dir: Path, output_dir: Path, column: str) -> None:
    """Train the head `sex` and write it into the package, if it is good enough to find mixed-up scans.

    It must be made again whenever the model's weights change: heads of other weights are refused.
    """
    gathered = gather(find_tables(output_dir), keep=True)
    cohort, excluded = cohort_of(gathered.features, read_participants(bids_dir), GroupOptions(classify=column))
    first, second = (_SEXES[name.lower()] for name in cohort.classes or ())
    cohort = replace(cohort, classes=(first, second))
    maker = one_maker(gathered)
    made_with = {"weights": maker.weights, "version": maker.release, "atlas": DEFAULT_ATLAS}
    trained = train_head(cohort, label="sex", target="sex", excluded=excluded, permutations=PERMUTATIONS, **made_with)
    (validation,) = trained.validations
    show(validation)
    if validation.figures[HEAD]["auc"] < GOOD_AUC or validation.refitted.p >= GOOD_P:
        print(f"Not written: the AUC is below {GOOD_AUC}, or p is not below {GOOD_P}.")
        return
    path = Path(unibrain_bids.__file__).parent / "resources" / "heads" / "sex.safetensors"
    write_bytes(path, trained.head.to_bytes())
    write_json(path.with_suffix(".json"), trained.head.card)
    print(f"Written: {path}")


def simulated() -> None:
    """Cohorts of region tables in which eight regions are larger in one class by a known effect."""
    names, hit = LabelTable.load(DEFAULT_ATLAS).names, range(8)
    print(
        "| effect d | AUC of ridge | AUC of the eight regions' mean | p | regions found of 8 (q < .05) | false ones |"
    )
    print("|---|---|---|---|---|---|")
    for effect in (0.0, 0.3, 0.6, 0.9, 1.2):
        cohort = simulated_cohort(effect, seed=round(10 * effect), regions=len(names), hit=hit)
        validation = validate(cohort, candidates=(Ridge("ridge"),), permutations=PERMUTATIONS)
        found = found_regions(cohort)
        plain = auc(cohort.target, cohort.regions[:, list(hit), 0].sum(axis=1))
        cells = [effect, validation.figures[HEAD]["auc"], float(plain), validation.refitted.p]
        print("| " + " | ".join(f"{cell:.3f}" for cell in cells), end=" | ")
        print(f"{len(found & set(hit))} | {len(found - set(hit))} |")
    p = np.array([null_p(seed) for seed in range(200)])
    print(f"\n200 cohorts of 60 without any effect: p < .05 in {np.mean(p < 0.05):.1%}, mean p {p.mean():.3f}")


def simulated_cohort(
    effect: float, *, seed: int, participants: int = 200, regions: int = 84, hit: Sequence[int] = ()
) -> Cohort:
    """Regions that share some variance, of two equal classes; the second has `effect` standard deviations more."""
    generator = np.random.default_rng(seed)
    target = (np.arange(participants) % 2).astype(float)
    common = generator.normal(size=(participants, 1, 1))
    values = np.sqrt(0.3) * common + np.sqrt(0.7) * generator.normal(size=(participants, regions, 2))
    values[:, list(hit), 0] += effect * target[:, None]
    embedding = generator.normal(size=(participants, regions, 8))
    embedding /= np.linalg.norm(embedding, axis=2, keepdims=True)
    return Cohort(
        regions=values.astype(np.float32),
        whole=np.zeros((participants, 0), dtype=np.float32),
        networks=np.maximum(embedding @ embedding.transpose(0, 2, 1), 0).astype(np.float32),
        target=target,
        participants=np.array([f"sub-{k:04}" for k in range(participants)]),
        covariates=generator.normal(size=(participants, 2)),
        classes=("control", "case"),
    )


def found_regions(cohort: Cohort) -> set[int]:
    """Regions whose first feature differs between the classes at a false discovery rate of 5 %."""
    sums = (Means(cohort.regions.shape[1]), Means(cohort.regions.shape[1]))
    for values, target in zip(cohort.regions[:, :, 0], cohort.target, strict=True):
        sums[int(target)].add(values)
    return set(np.flatnonzero(welch(*sums).q < 0.05).tolist())


def null_p(seed: int) -> float:
    """The refitted permutation test's p on a cohort without any effect."""
    cohort = simulated_cohort(0.0, seed=1000 + seed, participants=60, regions=20)
    return refitted_test(cohort, outer_splits(cohort, FOLDS, seed), 199, seed).p


def show(validation: Validation) -> None:
    """Print the figures of a validation as a table."""
    names = [name for name in validation.figures[HEAD] if not name.endswith("_interval")]
    print(f"Held out: {validation.scheme}. Head chosen: {validation.choices}.\n")
    print("| model | " + " | ".join(name.replace("_", " ") for name in names) + " |")
    print("|---" * (len(names) + 1) + "|")
    for model, figures in validation.figures.items():
        cells = [f"{figures[name]:.3f}" for name in names]
        low, high = next(value for name, value in figures.items() if name.endswith("_interval"))
        cells[0] += f" ({low:.3f} to {high:.3f})"
        print(f"| {model} | " + " | ".join(cells) + " |")
    for name, test in {"refitted ridge": validation.refitted, "fixed scores": validation.fixed}.items():
        print(f"\nPermutation test, {name}: {test.statistic:.3f}, null mean {test.null.mean():.3f}, p = {test.p:.4f}")
    print(flush=True)


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        yield from csv.DictReader(stream)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


if __name__ == "__main__":
    start = time.process_time()
    main()
    print(f"{time.process_time() - start:.0f} s of CPU")
