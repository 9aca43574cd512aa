"""N4 on the real heads, for `unibrain-evaluate --n4 FILE`: how even white and grey matter are afterwards.

Runs in the environment of benchmarks/peers.py, from the repository root:

    PYTHONPATH=. .venv-peers/bin/python benchmarks/n4.py --data DATA --out work/peers/n4.json

N4 (Tustison 2010) runs with ANTsPy's defaults within the head's true solid mask: the best case for it, ours gets the
whole head and finds the mask itself. Heads without labels need ours' masks: `--unlabelled work/evaluation/unlabelled`,
after `unibrain-evaluate --heads unlabelled`.
"""

from __future__ import annotations

import argparse
import json
import os
from importlib.metadata import version
from pathlib import Path

# One thread, as for the other peers; ITK reads it when it is loaded.
os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")

import ants
import numpy as np

from unibrain_bids.evaluation.heads import LabelledHead, muse_heads
from unibrain_bids.evaluation.measures import uniformity
from unibrain_bids.evaluation.unlabelled import unlabelled_heads


def corrected(head: LabelledHead) -> dict[str, float]:
    """Return the measures of a head after N4."""
    image, mask = (
        ants.from_numpy(data.astype(np.float32), spacing=head.spacing.tolist())
        for data in (head.image, head.masks["solid"])
    )
    return uniformity(head, ants.n4_bias_field_correction(image, mask=mask).numpy(), "n4")


def main() -> None:
    """Correct every head and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds muse/")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--unlabelled", type=Path, help="folder with masks and tissues of the heads without labels")
    options = parser.parse_args()
    heads = {}
    records = muse_heads(options.data)
    records += unlabelled_heads(options.data, options.unlabelled) if options.unlabelled else []
    for record in records:
        heads[record.name] = corrected(record.load())
        print(record.name, heads[record.name], flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    found = {"name": "N4", "version": version("antspyx"), "heads": heads}
    options.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
