"""Time and memory of the group level on simulated derivatives.

    python benchmarks/group.py FOLDER [--participants 1000]

FOLDER gets a raw dataset (raw/, participants.tsv alone) and its derivatives (out/, tables alone).
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np

from unibrain_bids import __version__
from unibrain_bids.bids.atomic import write_json, write_text, write_tsv
from unibrain_bids.bids.derivatives import DEFAULT_ATLAS, catalogue
from unibrain_bids.bids.inputs import ScanRecord
from unibrain_bids.group.level import run_group
from unibrain_bids.group.options import GroupOptions
from unibrain_bids.labels import LabelTable

WEIGHTS = "0" * 64
SITES = ("Oslo", "Lima")
HIT = 8  # regions that are larger in patients


def main() -> None:
    """Simulate, run, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--participants", type=int, default=1000)
    options = parser.parse_args()
    raw, out = simulate(options.folder, participants=options.participants)
    start, cpu = time.perf_counter(), time.process_time()
    run_group(raw, out, options=GroupOptions(compare="diagnosis"))
    seconds, used = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{options.participants} participants: {seconds:.0f} s ({used:.0f} s of CPU), at most {peak:.0f} MB")


def simulate(
    folder: Path, *, participants: int, effect: float = 1.0, sessions: tuple[str, ...] = ("",), seed: int = 0
) -> tuple[Path, Path]:
    """Write participants.tsv and the tables of participants, of whom every other one is a patient.

    Parameters
    ----------
    folder
        Gets `raw` and `out`, which are returned.
    participants
        Their number.
    effect
        By how many standard deviations the first `HIT` regions are larger in patients.
    sessions
        Labels of the sessions of each participant; "" for none.
    seed
        Of all numbers.
    """
    generator = np.random.default_rng(seed)
    raw, out = folder / "raw", folder / "out"
    people = []
    for number in range(participants):
        patient = number % 2
        sex, age = generator.choice(["F", "M"]), int(generator.integers(20, 80))
        person = {"participant_id": f"sub-{number:04}", "age": age, "sex": sex, "site": SITES[number // 2 % 2]}
        people.append({**person, "diagnosis": ("control", "patient")[patient]})
        size = 1.5e6 + 1.2e5 * generator.normal() + 1e5 * (sex == "M")
        for session in sessions:
            _write_scan(out, f"{number:04}", session, size, effect * patient, generator)
    write_tsv(raw / "participants.tsv", people)
    write_json(raw / "dataset_description.json", {"Name": "Simulated", "BIDSVersion": "1.10.0", "License": "CC0"})
    write_text(raw / "README", "Simulated participants, without images, for measuring the group level.\n")
    return raw, out


def _write_scan(
    out: Path, subject: str, session: str, size: float, effect: float, generator: np.random.Generator
) -> None:
    labels = LabelTable.load(DEFAULT_ATLAS)
    names, count = labels.names, len(labels.names)
    folder = Path(f"sub-{subject}", *([f"ses-{session}"] if session else []), "anat")
    stem = f"sub-{subject}" + (f"_ses-{session}" if session else "")
    record = ScanRecord.from_path(out / folder / f"{stem}_T1w.nii.gz", dataset=out)
    outputs = catalogue(record)
    volumes = 3000 * (size / 1.5e6) * (1 + 0.1 * (generator.normal(size=count) + effect * (np.arange(count) < HIT)))
    intensities = 70 + 3 * generator.normal(size=count)
    rows = [
        {"index": index, "name": name, "volume": volume, "intensity_mean": mean, "intensity_sd": 10 + mean / 100}
        for index, name, volume, mean in zip(labels.indices, names, volumes, intensities, strict=True)
    ]
    write_tsv(out / outputs[f"regions_{DEFAULT_ATLAS}"].relative, rows)
    embedding = np.ones(8) + generator.normal(size=(count, 8))
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    network = np.maximum(embedding @ embedding.T, 0)
    for measure in ("innerproduct", "kls"):
        table = [dict(zip(names, row, strict=True)) for row in network.tolist()]
        write_tsv(out / outputs[f"network_{DEFAULT_ATLAS}_{measure}"].relative, table)
    quality = {"snr_total": 10 + generator.normal(), "cnr": 3 + 0.2 * generator.normal(), "fber": None}
    write_json(out / outputs["quality"].relative, {**quality, "intracranial_volume": size})
    write_json(
        out / "logs" / "complete" / f"{record.key}.json", {"version": __version__, "fingerprint": {"weights": WEIGHTS}}
    )


if __name__ == "__main__":
    main()
