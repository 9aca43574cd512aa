"""The model card of a weights file: its facts from its own metadata, its known limits as people wrote them.

Usage:

    python -m unibrain_bids.training.card unibrain_bids/resources/weights/unified.safetensors
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from pathlib import Path

from safetensors import safe_open

LIMITS = "## Known limits"


def main() -> None:
    """Write the card beside the weights; what stands below its heading of limits stays."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="the .safetensors file")
    weights = parser.parse_args().weights
    card = weights.with_suffix(".md")
    limits = card.read_text().partition(LIMITS)[2] if card.exists() else "\n\nNot written yet.\n"
    card.write_text(facts(weights) + LIMITS + limits)


def facts(weights: Path) -> str:
    """What the file says of itself, as Markdown."""
    with safe_open(weights, "pt") as stream:
        metadata = stream.metadata()
        sizes: Counter[str] = Counter()
        for name in stream.keys():  # noqa: SIM118 - the stream cannot be iterated over
            sizes[name.split(".")[0]] += stream.get_tensor(name).numel()
    runs = json.loads(metadata["runs"])
    own = ["first-look", "aligner", "unified", "network", "refiner"]
    trained = [metadata["preset"]] if "preset" in metadata else own
    recipes = ", ".join(f"`{name}`" for name in trained) + " of `unibrain_bids/training/recipes/`"
    elsewhere = "Figures on real heads: `docs/accuracy.md`."
    if "preset" in metadata:
        elsewhere = "Figures beside the unified model: `docs/experiments.md`."
    rows = [
        f"| {name} | {_steps(run)} | {', '.join(f'{key} {value:.3g}' for key, value in run['held_out'].items())} |"
        for name, run in runs.items()
    ]
    parameters = ", ".join(f"{name} {size / 1e6:.2f} M" for name, size in sizes.items())
    return f"""# Model card: {metadata["name"]}

| | |
|---|---|
| file | `{weights.name}`, float16, {weights.stat().st_size / 1e6:.1f} MB |
| sha256 | `{hashlib.sha256(weights.read_bytes()).hexdigest()}` |
| date, revision | {metadata["date"]}, `{metadata["git_revision"]}` |
| licence | {metadata["licence"]} |
| parameters | {parameters} |
| training data | {metadata["training_data"]} |
| recipes | {recipes}; what was run stands in `docs/training-log.md` |
| intended use | {metadata["intended_use"]} |

**Research use only.** No diagnosis head is part of these weights: none was trained on real labels.

Figures on simulated scans of the held-out label maps 13-16, at the end of each run (averaged weights):

| run | steps | held-out figures |
|---|---|---|
{chr(10).join(rows)}

{elsewhere}

"""


def _steps(run: dict[str, float]) -> str:
    share = f", weighed {run['share']:g} against the weights before" if "share" in run else ""
    return f"{run['steps']}{share}"


if __name__ == "__main__":
    main()
