"""Affine registration of the labelled heads by ANTs, for `unibrain-evaluate --peers FILE`.

Runs in an environment of its own (antspyx pins an older numpy), made once by

    python3 -m venv .venv-peers
    .venv-peers/bin/pip install -c benchmarks/constraints-peers.txt antspyx nibabel

and then, from the repository root:

    PYTHONPATH=. .venv-peers/bin/python benchmarks/peers.py --data DATA --out work/peers/ants.json

Each head is masked by its true solid mask and registered to the stripped MNI152NLin6Asym T1 (`DATA/atlas`): the best
case for a classical tool, which gets the mask for nothing. Written per head: `template_from_scan` (4 x 4, RAS mm) and
the wall and CPU seconds of the registration alone.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

# ITK and ANTs read both when they are loaded: one thread, so that CPU seconds compare, and a fixed random seed.
os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")
os.environ.setdefault("ANTS_RANDOM_SEED", "1")

import ants
import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from unibrain_bids.evaluation.heads import muse_heads
from unibrain_bids.evaluation.metrics import normalised_cross_correlation
from unibrain_bids.evaluation.registration import TemplateTruth, load_template_truth, warp_to_template

LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def to_ants(image: NDArray[np.float32], affine: NDArray[np.float64]) -> ants.core.ANTsImage:
    """Wrap an array (X, Y, Z) with its RAS voxel-to-world matrix as an ANTs image, which lives in LPS."""
    lps = LPS_FROM_RAS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    return ants.from_numpy(
        image.astype(np.float32), origin=lps[:3, 3].tolist(), spacing=spacing.tolist(), direction=lps[:3, :3] / spacing
    )


def matrix_of(transform_file: str) -> NDArray[np.float64]:
    """Read an ITK affine as `moving_from_fixed`, 4 x 4, RAS mm: x -> A (x - c) + c + t in LPS."""
    transform = ants.read_transform(transform_file)
    parameters = np.asarray(transform.parameters, dtype=np.float64)
    centre = np.asarray(transform.fixed_parameters, dtype=np.float64)
    lps = np.eye(4)
    lps[:3, :3] = parameters[:9].reshape(3, 3)
    lps[:3, 3] = parameters[9:] + centre - lps[:3, :3] @ centre
    return LPS_FROM_RAS @ lps @ LPS_FROM_RAS


def register(
    stripped: NDArray[np.float32], affine: NDArray[np.float64], template: TemplateTruth, kind: str
) -> dict[str, object]:
    """Register one stripped head to the template; returns the JSON entry of this head.

    Raises
    ------
    RuntimeError
        If our reading of the matrix does not give the image that ANTs itself resampled.
    """
    fixed, moving = to_ants(template.brain, template.affine), to_ants(stripped, affine)
    wall, cpu = time.perf_counter(), time.process_time()
    result = ants.registration(fixed=fixed, moving=moving, type_of_transform=kind)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    template_from_scan = np.linalg.inv(matrix_of(result["fwdtransforms"][0]))
    ours = warp_to_template(stripped, affine, template, template_from_scan, order=1)
    agreement = normalised_cross_correlation(ours, result["warpedmovout"].numpy())
    if agreement < 0.999:
        raise RuntimeError(f"the matrix was misread: correlation with the image that ANTs resampled {agreement:.4f}")
    return {"template_from_scan": template_from_scan.tolist(), "seconds": wall, "cpu_seconds": cpu}


def stripped_heads(options: argparse.Namespace) -> Iterator[tuple[str, NDArray[np.float32], NDArray[np.float64]]]:
    """Yield name, stripped image and voxel-to-world matrix of the scan that was asked for, or of every MUSE head."""
    if options.scan:
        scan, mask = (nib.Nifti1Image.from_filename(path) for path in options.scan)
        stripped = np.where(np.asarray(mask.dataobj) > 0, np.asarray(scan.dataobj, dtype=np.float32), 0)
        yield Path(options.scan[0]).name, stripped, scan.affine
        return
    for record in muse_heads(options.data):
        head = record.load()
        yield head.name, np.where(head.masks["solid"], head.image, 0), head.affine


def main() -> None:
    """Register the heads and write the JSON after each, so that an interrupted run keeps what it has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds muse/ and atlas/")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--transform", default="Affine", help="ANTs' type_of_transform (default: %(default)s)")
    parser.add_argument("--scan", nargs=2, metavar=("IMAGE", "MASK"), help="this one head instead of the MUSE heads")
    options = parser.parse_args()
    template = load_template_truth(options.data)
    peer = {
        "name": f"ANTs {options.transform}",
        "version": ants.__version__,
        "template": template.name,
        "heads": {},
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for name, stripped, affine in stripped_heads(options):
        peer["heads"][name] = register(stripped, affine, template, options.transform)
        print(f"{name}: {peer['heads'][name]['cpu_seconds']:.1f} CPU s", flush=True)
        options.out.write_text(json.dumps(peer, indent=1))


if __name__ == "__main__":
    main()
