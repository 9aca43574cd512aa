"""The reliability study of the region networks, by one command; its document is `docs/networks.md`.

    python -m unibrain_bids.evaluation.networks --markdown docs/networks.md

Persons are scanned repeatedly: simulated ones (held-out label maps, each with deformations of its own that make persons
as unlike as real ones) under other contrasts, noise, bias, resolution and position; real heads after the changes of
`evaluation.perturbations`. Every scan goes through the whole of `inference.predict`; its networks are kept in `--out`,
so that an interrupted study goes on. Simulated scans have voxels of 2 mm: a scan of 1 mm costs four times as much.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unibrain_bids.evaluation.reliability import (
    edges,
    icc,
    identifiability,
    self_others_gap,
    similarity_of_networks,
)

if TYPE_CHECKING:
    from unibrain_bids.imaging.scan import Scan
    from unibrain_bids.inference import Model, Prediction

KINDS = ("innerproduct", "kls", "mind", "msn")
ORIGINAL = "original"
MARK = "<!-- below: written by `python -m unibrain_bids.evaluation.networks` -->"
# More scans of a person than a study has: their seeds stay apart.
_MOST_SCANS = 100
Networks = dict[str, NDArray[np.float64]]
"""Kind to network (R, R)."""


@dataclass(frozen=True)
class Study:
    """One group of persons in the same conditions.

    Attributes
    ----------
    name
        Of the group.
    conditions
        What the scans of each person are called; the first one is what the others are compared with.
    networks
        For each kind (persons, conditions, R, R).
    """

    name: str
    conditions: tuple[str, ...]
    networks: dict[str, NDArray[np.float64]]


def networks_of(prediction: Prediction) -> Networks:
    """Return the networks of one scan, of every kind; the regions are those of DK in its table's order."""
    from unibrain_bids.imaging.similarity import kls_network, local_features, mind_network
    from unibrain_bids.labels import LabelTable

    table, parcels = LabelTable.load("DK"), prediction.parcellations["DK"]
    features = local_features(prediction.brain, prediction.tissue_probabilities["GM"])
    return {
        "innerproduct": prediction.networks["innerproduct"].matrix.astype(np.float64),
        "kls": kls_network(prediction.brain, parcels, table.indices),
        "mind": mind_network(features, parcels, table.indices),
        "msn": morphometric_similarity(prediction),
    }


def morphometric_similarity(prediction: Prediction) -> NDArray[np.float64]:
    """Return the baseline (R, R): correlation of the regions' standardised measures (MSN).

    After Seidlitz et al. (2018, doi:10.1016/j.neuron.2017.11.039), who measure surfaces. Here the measures are volume,
    thickness, mean and sd of the intensity, and the share of grey matter; regions without a thickness (deep grey
    matter) take the mean of the others.
    """
    from unibrain_bids.imaging.regions import region_table
    from unibrain_bids.imaging.thickness import mean_thickness
    from unibrain_bids.labels import LabelTable

    labels, parcels, affine = LabelTable.load("DK"), prediction.parcellations["DK"], prediction.scan.affine
    table = region_table(
        parcels, prediction.brain, affine, indices=labels.indices, names=labels.names,
        tissues=prediction.tissue_probabilities, mni_from_scan=np.eye(4),
        intracranial_volume=prediction.intracranial_volume,
        thickness=mean_thickness(parcels, prediction.structures, affine, indices=labels.indices),
    )  # fmt: skip
    measures = table[["volume", "thickness", "intensity_mean", "intensity_sd", "gm_fraction"]]
    missing = (table["n_voxels"] == 0).to_numpy()
    scaled = ((measures - measures.mean()) / measures.std()).fillna(0.0)
    network = np.corrcoef(scaled.to_numpy())
    network[missing], network[:, missing] = np.nan, np.nan
    return network


def real_scans(
    paths: Sequence[Path], model: Model, *, changes: Sequence[str], seed: int = 0
) -> Iterator[tuple[str, str, Callable[[], Prediction]]]:
    """Yield person, condition and what predicts the scan: each head as it is, and perturbed."""
    from unibrain_bids.evaluation.perturbations import PERTURBATIONS, Perturbation

    for number, path in enumerate(paths):
        person, original = path.name.split("_")[0], cache(partial(process, path, model))
        yield person, ORIGINAL, original
        for name in changes:

            def changed(
                change: Perturbation = PERTURBATIONS[name],
                original: Callable[[], Prediction] = original,
                number: int = number,
            ) -> Prediction:
                rng = np.random.default_rng([seed, number])
                return process(change(original().scan, original().mask, rng), model)

            yield person, name, changed


def simulated_scans(
    packed: Path, model: Model, *, persons: int, scans: int, seed: int = 5_000_000
) -> Iterator[tuple[str, str, Callable[[], Prediction]]]:
    """Yield person, condition and what predicts the scan, for persons simulated from the held-out label maps."""
    from unibrain_bids.evaluation.simulated import SPAN
    from unibrain_bids.training.recipes.basis import HELD_OUT
    from unibrain_bids.training.simulation.material import load_material
    from unibrain_bids.training.simulation.simulator import simulate

    material = load_material(packed).subset(HELD_OUT)
    shape = (SPAN.shape[0] // 2, SPAN.shape[1] // 2, SPAN.shape[2] // 2)
    pose = replace(SPAN.pose, least_deformation=1.0)
    span = replace(SPAN, shape=shape, spacing=2 * SPAN.spacing, pose=pose, missing_parts=False)
    for person in range(persons):
        for scan in range(scans):

            def simulated(person: int = person, scan: int = scan) -> Prediction:
                head = simulate(material, span, seed + person * _MOST_SCANS + scan, anatomy=seed + person)
                return process(as_scan(head.image[0, 0].numpy(), span.spacing), model)

            yield f"simulated-{person + 1:02d}", ORIGINAL if scan == 0 else f"scan-{scan + 1}", simulated


def process(scan: Scan | Path, model: Model) -> Prediction:
    """Return what the app makes of a scan, regions included."""
    from unibrain_bids.inference import predict
    from unibrain_bids.interfaces.predict import follow_subject

    return follow_subject(predict(scan, model=model))[0]


def as_scan(image: NDArray[np.float32], spacing: float) -> Scan:
    """Return a simulated image (X, Y, Z) on the 0..1 scale as a scan centred on the origin."""
    from nibabel.nifti1 import Nifti1Header

    from unibrain_bids.imaging.scan import Scan
    from unibrain_bids.model.frame import affine

    return Scan(Path("simulated.nii"), 1000 * image, affine(spacing, image.shape), Nifti1Header())


def run_study(name: str, scans: Iterator[tuple[str, str, Callable[[], Prediction]]], folder: Path) -> Study:
    """Predict all scans of a group that `folder` does not hold yet, and gather their networks."""
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Networks]] = {}
    for person, condition, predicted in scans:
        path = folder / f"{name}_{person}_{condition}.npz"
        if not path.exists():
            np.savez_compressed(path, allow_pickle=False, **networks_of(predicted()))
            print(f"{name}: {person}, {condition}", flush=True)
        with np.load(path) as stored:
            found.setdefault(person, {})[condition] = {kind: stored[kind] for kind in KINDS}
    conditions = tuple(next(iter(found.values())))
    networks = {
        kind: np.array([[scans[condition][kind] for condition in conditions] for scans in found.values()])
        for kind in KINDS
    }
    return Study(name, conditions, networks)


def summary(study: Study) -> list[dict[str, float | str]]:
    """Return one row per kind of network: how well it repeats over all conditions."""
    rows: list[dict[str, float | str]] = []
    for kind, networks in study.networks.items():
        values = edges(networks)
        reliable = icc(values)
        pairs = [(values[:, 0], values[:, other]) for other in range(1, values.shape[1])]
        plain = [similarity_of_networks(a, b, centred=False) for a, b in pairs]
        centred = [similarity_of_networks(a, b, centred=True) for a, b in pairs]
        rows.append({
            "network": kind,
            "edges": values.shape[-1],
            "ICC(2,1), median": float(np.nanmedian(reliable)),
            "edges with ICC >= .75": float((reliable >= 0.75).mean()),
            "identifiability": float(np.mean([identifiability(s) for s in plain])),
            "identifiability, centred": float(np.mean([identifiability(s) for s in centred])),
            "self - others": float(np.mean([self_others_gap(s) for s in plain])),
        })  # fmt: skip
    return rows


def sensitivity(study: Study) -> list[dict[str, float | str]]:
    """Return one row per kind: how alike a person's edges are before and after each change, and who is found."""
    rows: list[dict[str, float | str]] = []
    for kind, networks in study.networks.items():
        values = edges(networks)
        row: dict[str, float | str] = {"network": kind}
        for i, condition in enumerate(study.conditions[1:], start=1):
            plain = similarity_of_networks(values[:, 0], values[:, i], centred=False)
            row[f"{condition}: r"] = float(np.diag(plain).mean())
            row[f"{condition}: found"] = identifiability(plain)
        rows.append(row)
    return rows


def as_markdown(rows: Sequence[Mapping[str, float | str]]) -> str:
    """Return rows as a Markdown table."""

    def cell(value: float | str) -> str:
        return str(value) if isinstance(value, str | int) else f"{value:.3f}"

    lines = [list(rows[0]), ["---"] * len(rows[0]), *([cell(value) for value in row.values()] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def document(studies: Sequence[Study], facts: str) -> str:
    """Return the results as the generated part of `docs/networks.md`."""
    parts = [facts]
    for study in studies:
        persons = len(next(iter(study.networks.values())))
        scans = f"{persons} persons, {len(study.conditions)} scans each ({', '.join(study.conditions)})"
        parts += [f"### {study.name}\n\n{scans}.\n\n{as_markdown(summary(study))}"]
        parts += [f"Each change for itself:\n\n{as_markdown(sensitivity(study))}"]
    return "\n\n".join(parts) + "\n"


def write_below_mark(path: Path, text: str) -> None:
    """Put text below the line `MARK` of a document, in the place of what was there; without the line, at the end."""
    written = path.read_text(encoding="utf-8") if path.is_file() else ""
    kept = written.partition(MARK)[0].rstrip("\n")
    path.write_text(f"{kept}\n\n{MARK}\n\n{text}".lstrip("\n"), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    from unibrain_bids.evaluation.perturbations import PERTURBATIONS
    from unibrain_bids.inference.loading import load_model

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packed", type=Path, default=Path("packed/heads_dk.npz"), help="file of training.packing")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with the real datasets")
    parser.add_argument("--datasets", nargs="*", default=["ds000011", "ds002748"], help="which of them")
    parser.add_argument("--persons", type=int, default=8, help="persons of each group, as far as there are")
    parser.add_argument("--scans", type=int, default=3, help="scans of each simulated person; 0: none simulated")
    parser.add_argument("--changes", nargs="+", choices=list(PERTURBATIONS), default=list(PERTURBATIONS))
    parser.add_argument("--weights", type=Path, help="weights of the unified model, instead of the shipped ones")
    parser.add_argument("--out", type=Path, default=Path("work/networks"), help="folder that keeps the networks")
    parser.add_argument("--markdown", type=Path, help="document whose part below the mark is replaced")
    args = parser.parse_args(argv)
    model = load_model(weights=args.weights)
    folder = args.out / model.sha256[:12]
    studies = []
    if args.scans > 1:
        scans = simulated_scans(args.packed, model, persons=args.persons, scans=args.scans)
        studies.append(run_study("simulated", scans, folder))
    for dataset in args.datasets:
        paths = sorted((args.data / dataset).glob("sub-*/**/anat/*_T1w.nii.gz"))[: args.persons]
        studies.append(run_study(dataset, real_scans(paths, model, changes=args.changes), folder))
    text = document(studies, f"Weights sha256 `{model.sha256}`.")
    print(text)
    if args.markdown:
        write_below_mark(args.markdown, text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
