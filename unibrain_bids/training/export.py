"""Checkpoints to the weights file that is shipped, with the facts of its model card.

Usage:

    python -m unibrain_bids.training.export --first-look runs/first-look --aligner runs/aligner --unified runs/unified
        --parcellation runs/parcellation --network runs/network --refiner runs/refiner --out FILE.safetensors
    python -m unibrain_bids.training.export --base OLD.safetensors --refiner runs/refiner [--share 0.25]
        --out FILE.safetensors
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
from safetensors.torch import load_file
from torch import Tensor

from unibrain_bids.errors import UsageError
from unibrain_bids.model.weights import average_of, save_weights, weights_metadata
from unibrain_bids.training.recipes import MODULES

# The part of a module whose training is another recipe's: it is not shipped.
_LEFT_OUT = "classifier."


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


# The modules of the unified model that have a recipe, each with the option that names its run.
_UNIFIED = {
    "first_look": "first_look", "aligner": "aligner", "unified": "unibrain", "parcellation": "unibrain.parcellation",
    "network": "unibrain.network", "refiner": "refiner",
}  # fmt: skip


def unified_states(args: argparse.Namespace) -> tuple[dict[str, object], dict[str, Tensor]]:
    """Facts of the runs, and the averaged weights that they have trained, on top of those of `--base`.

    A part of a module (its network, say) that has a run of its own takes the place of the module's. With a `--share`
    below 1, the rest of each weight is the base's: a mean of weights between those that training went from and to.
    """
    facts: dict[str, object] = {}
    tensors: dict[str, Tensor] = {}
    if args.base:
        tensors = load_file(args.base)
        facts = json.loads(weights_metadata(args.base).get("runs", "{}"))
    for option, module in _UNIFIED.items():
        folder = getattr(args, option)
        if folder is not None:
            before = {key: tensors.pop(key).float() for key in list(tensors) if key.startswith(f"{module}.")}
            state = {f"{module}.{key}": tensor for key, tensor in average_of(folder / "checkpoint.pt").items()}
            fact = run_facts(folder)
            if args.share < 1:
                if not state.keys() <= before.keys():
                    raise UsageError(f"{args.base}: its {module} is not that of {folder}.", "Leave --share out.")
                state = {key: before[key].lerp(tensor, args.share) for key, tensor in state.items()}
                # The run's figures are not those of the mean.
                fact |= {"share": args.share, "held_out": {}}
            tensors |= state
            facts[module.removeprefix("unibrain.")] = fact
    return facts, tensors


def main() -> None:
    """Write the weights file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first-look", type=Path, help="folder of the run")
    parser.add_argument("--aligner", type=Path, help="folder of the run")
    parser.add_argument("--unified", type=Path, help="folder of the run")
    parser.add_argument("--parcellation", type=Path, help="folder of the run, if the head was trained apart")
    parser.add_argument("--network", type=Path, help="folder of the run")
    parser.add_argument("--refiner", type=Path, help="folder of the run")
    parser.add_argument("--base", type=Path, help="weights of the unified model that keep what no run is given for")
    text = "of the runs' weights, the rest being those of --base (default: 1)"
    parser.add_argument("--share", type=float, default=1.0, help=text)
    text = "a paper's own system by itself: its recipe, and the folder of the run"
    parser.add_argument("--published", nargs=2, metavar=("RECIPE", "FOLDER"), help=text)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if not 0 < args.share <= 1 or (args.share < 1 and not args.base):
        parser.error("--share is above 0 and at most 1, and needs --base below 1")
    name, preset = "unified", {}
    if args.published:
        recipe, folder = args.published
        name, preset = MODULES[recipe], {"preset": recipe}
        facts: dict[str, object] = {name: run_facts(Path(folder))}
        state = average_of(Path(folder) / "checkpoint.pt")
        tensors = {f"{name}.{key}": tensor for key, tensor in state.items()}
    elif args.base or all((args.first_look, args.aligner, args.unified, args.network, args.refiner)):
        facts, tensors = unified_states(args)
    else:
        parser.error("give --published, --base, or all of --first-look, --aligner, --unified, --network and --refiner")
    modules: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        module, _, rest = key.partition(".")
        if not rest.startswith(_LEFT_OUT):
            modules.setdefault(module, {})[rest] = tensor
    revision = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    metadata = {
        "name": preset.get("preset", name),
        **preset,
        "training_data": "simulated scans of 12 SynthSeg label maps (Apache-2.0); heads 13-16 held out; no real images",
        "licence": "Apache-2.0",
        "intended_use": "Research use only; not for diagnosis. Adult T1-weighted heads.",
        "git_revision": revision,
        "date": date.today().isoformat(),
        "runs": json.dumps(facts),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_weights(args.out, modules, metadata)


if __name__ == "__main__":
    main()
