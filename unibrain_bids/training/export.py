"""Checkpoints to the weights file that is shipped, with the facts of its model card.

Usage:

    python -m unibrain_bids.training.export --first-look runs/first-look --aligner runs/aligner
        --unified runs/unified --parcellation runs/parcellation --network runs/network --out FILE.safetensors
    python -m unibrain_bids.training.export --published npp-small runs/npp-small --out FILE.safetensors
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
from datetime import date
from pathlib import Path

import torch
from torch import Tensor

from unibrain_bids.model.weights import average_of, save_weights
from unibrain_bids.training.recipes import MODULES

# Modules whose training is another recipe's: they are not part of the shipped model.
_LEFT_OUT = ("classifier.",)


def last_figures(folder: Path) -> dict[str, float]:
    """The last evaluation in a run's log."""
    figures: dict[str, float] = {}
    with open(folder / "log.csv", newline="") as stream:
        for row in csv.DictReader(stream):
            if row["name"].startswith("eval_"):
                figures[row["name"].removeprefix("eval_")] = float(row["value"])
    return figures


def run_facts(folder: Path) -> dict[str, object]:
    """Steps and held-out figures of one run."""
    step = torch.load(folder / "checkpoint.pt", map_location="cpu", weights_only=True)["step"]
    return {"steps": step, "held_out": last_figures(folder)}


def unified_states(args: argparse.Namespace) -> tuple[dict[str, Path], dict[str, dict[str, Tensor]]]:
    """Folders of the runs, and the averaged weights of the unified model's modules that they have trained."""
    runs = {"first_look": args.first_look, "aligner": args.aligner, "unibrain": args.unified, "network": args.network}
    if args.parcellation:
        runs["parcellation"] = args.parcellation
    states = {name: average_of(folder / "checkpoint.pt") for name, folder in runs.items()}
    for part in {"parcellation", "network"} & runs.keys():
        others = {key: tensor for key, tensor in states["unibrain"].items() if not key.startswith(f"{part}.")}
        states["unibrain"] = others | {f"{part}.{key}": tensor for key, tensor in states.pop(part).items()}
    return runs, states


def main() -> None:
    """Write the weights file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first-look", type=Path, help="folder of the run")
    parser.add_argument("--aligner", type=Path, help="folder of the run")
    parser.add_argument("--unified", type=Path, help="folder of the run")
    parser.add_argument("--parcellation", type=Path, help="folder of the run, if the head was trained apart")
    parser.add_argument("--network", type=Path, help="folder of the run")
    text = "a paper's own system by itself: its recipe, and the folder of the run"
    parser.add_argument("--published", nargs=2, metavar=("RECIPE", "FOLDER"), help=text)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    name, preset = "unified", {}
    if args.published:
        recipe, folder = args.published
        name, preset = MODULES[recipe], {"preset": recipe}
        runs = {name: Path(folder)}
        states = {name: average_of(Path(folder) / "checkpoint.pt")}
    elif all((args.first_look, args.aligner, args.unified, args.network)):
        runs, states = unified_states(args)
    else:
        parser.error("give --published, or all of --first-look, --aligner, --unified and --network")
    modules = {
        module: {key: tensor for key, tensor in state.items() if not key.startswith(_LEFT_OUT)}
        for module, state in states.items()
    }
    revision = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    metadata = {
        "name": preset.get("preset", name),
        **preset,
        "training_data": "simulated scans of 12 SynthSeg label maps (Apache-2.0); heads 13-16 held out; no real images",
        "licence": "Apache-2.0",
        "intended_use": "Research use only; not for diagnosis. Adult T1-weighted heads.",
        "git_revision": revision,
        "date": date.today().isoformat(),
        "runs": json.dumps({run: run_facts(folder) for run, folder in runs.items()}),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_weights(args.out, modules, metadata)


if __name__ == "__main__":
    main()
