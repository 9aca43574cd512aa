"""Deformable registration of the labelled heads by ANTs' SyN, for comparison with `unibrain-bids --nonlinear`.

In the environment of `benchmarks/peers.py`, from the repository root:

    PYTHONPATH=. .venv-peers/bin/python benchmarks/syn.py --data DATA --heads muse-01 muse-03

Each head is stripped by its true mask and registered to the stripped MNI152NLin6Asym T1 with ANTsPy's defaults; its
true structures are warped by ANTs itself and scored as `unibrain-evaluate` does. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")
os.environ.setdefault("ANTS_RANDOM_SEED", "1")

import ants
import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from unibrain_bids.evaluation.heads import LabelledHead, muse_heads
from unibrain_bids.evaluation.registration import TemplateTruth, load_template_truth, score_warped


def register(head: LabelledHead, template: TemplateTruth) -> tuple[float, float, float]:
    """Return the mean Dice of the warped structures, the correlation with the template, and CPU seconds."""
    with tempfile.TemporaryDirectory() as folder:

        def image(data: NDArray, affine: NDArray[np.float64]) -> ants.core.ANTsImage:
            path = Path(folder) / "image.nii"
            nib.save(nib.Nifti1Image(data.astype(np.float32), affine), path)
            return ants.image_read(str(path))

        fixed = image(template.brain, template.affine)
        moving = image(np.where(head.masks["solid"], head.image, 0), head.affine)
        labels = image(head.structures, head.affine)
        start = time.process_time()
        found = ants.registration(fixed=fixed, moving=moving, type_of_transform="SyN")
        seconds = time.process_time() - start
        warped = ants.apply_transforms(fixed, labels, found["fwdtransforms"], interpolator="nearestNeighbor").numpy()
        scores = score_warped(template, warped.astype(np.int16), found["warpedmovout"].numpy())
    return scores.mean_dice, scores.ncc, seconds


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--heads", nargs="+", default=["muse-01", "muse-03"])
    options = parser.parse_args()
    template = load_template_truth(options.data)
    print(f"ANTs SyN, antspyx {version('antspyx')}, one thread\n")
    print("| head | structure Dice | NCC | CPU s |\n|---|---|---|---|")
    for record in muse_heads(options.data):
        if record.name in options.heads:
            dice, correlation, seconds = register(record.load(), template)
            print(f"| {record.name} | {dice:.3f} | {correlation:.3f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
