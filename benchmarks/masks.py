"""Brain masks of other tools beside ours, on the same heads, in one run.

The peers come from a folder of their own, so that they change nothing of the project's environment; made once by

    pip install --no-deps --target work/peers/site -r benchmarks/requirements-masks.txt

and then, from the repository root:

    PYTHONPATH=.:work/peers/site python benchmarks/masks.py --data ../shared/data --markdown docs/masks.md
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray

from unibrain_bids.evaluation.heads import HeadRecord, muse_heads
from unibrain_bids.evaluation.measures import MASK, mask_measures
from unibrain_bids.evaluation.simulated import simulated_heads

Method = Callable[[Path], NDArray]
"""Path of a scan to its brain mask on the scan's grid."""


def ours() -> Method:
    """Run this project: the model computes all its outputs at once."""
    from unibrain_bids.inference import load_model, predict

    model = load_model("cpu")
    return lambda path: predict(path, model=model).mask > 0


def deepbet() -> Method:
    """Run deepbet at its defaults."""
    from deepbet import BrainExtraction

    network = BrainExtraction(no_gpu=True)

    def extract(path: Path) -> NDArray:
        _, mask, _ = network.run(str(path))
        return np.asarray(mask.dataobj) > 0

    return extract


def median_otsu() -> Method:
    """Run dipy's median Otsu at its defaults."""
    from dipy.segment.mask import median_otsu

    return lambda path: median_otsu(nib.load(path).get_fdata(dtype=np.float32))[1] > 0


METHODS: dict[str, tuple[str | None, Callable[[], Method]]] = {
    "unibrain_bids": (None, ours),
    "deepbet": ("deepbet", deepbet),
    "dipy median_otsu": ("dipy", median_otsu),
}
"""Name to its package, None for ourselves, and what loads it."""


def compare(records: Sequence[HeadRecord], names: Sequence[str]) -> dict[str, list[dict[str, float]]]:
    """Return the measures of every head by each method; `seconds` is the CPU time, model loaded."""
    methods = {name: METHODS[name][1]() for name in names}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for record in records:
        head = record.load()
        for name, method in methods.items():
            start = time.process_time()
            mask = method(head.path)
            seconds = time.process_time() - start
            found[name].append(mask_measures(head, mask) | {"seconds": seconds})
            print(f"{record.name}, {name}: {found[name][-1]['mask_dice']:.3f}, {seconds:.1f} s", flush=True)
    return found


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Return the means and the worst head of each method as Markdown."""
    titles = ["method", "mask Dice", "worst", *(measure.title for measure in MASK[1:]), "CPU s"]
    lines = [titles, ["---"] * len(titles)]
    for name, heads in found.items():
        package = METHODS[name][0]
        means = [f"{np.mean([h[m.key] for h in heads]):.{m.decimals}f}" for m in MASK]
        worst = f"{min(h['mask_dice'] for h in heads):.3f}"
        label = f"{name} {version(package)}" if package else name
        lines.append([label, means[0], worst, *means[1:], f"{np.mean([h['seconds'] for h in heads]):.1f}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Print the tables, and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with muse/, labelmaps/ and atlas/")
    parser.add_argument("--heads", type=int, default=8, help="real heads (default: %(default)s)")
    parser.add_argument("--simulated", type=int, default=4, help="simulated heads (default: %(default)s)")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--work", type=Path, default=Path("work/masks"), help="folder of the simulated scans")
    parser.add_argument("--markdown", type=Path, help="write the tables as a document")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    groups = {
        "Real heads (MUSE, elderly, 2 mm)": muse_heads(options.data)[: options.heads],
        "Simulated heads (held-out label maps, 1 mm)": simulated_heads(
            options.data, options.work, count=options.simulated
        ),
    }
    parts = [
        "# Brain masks beside those of other tools",
        "Made by `benchmarks/masks.py`: every tool at its defaults on the same whole heads, one CPU thread, the model "
        "loaded. Dice against the *solid* truth, what our mask means (docs/accuracy.md has the definitions); a tool "
        "whose mask means the brain with open sulci, or all within the skull, is best compared in its own column. "
        "Only ours computes everything else as well.",
    ]
    for title, records in groups.items():
        if not records:
            continue
        parts += [f"## {title}", f"{len(records)} heads.", table(compare(records, options.methods))]
    text = "\n\n".join(parts) + "\n"
    print(text)
    if options.markdown:
        options.markdown.write_text(text)


if __name__ == "__main__":
    main()
