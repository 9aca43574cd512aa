"""Dice of the cortical regions on held-out label maps, beside atlases that are brought by the affine alone.

    python -m unibrain_bids.evaluation.parcels --packed packed/heads_dk.npz

Truth are the regions of the packed file (made by `training.deformable`) in simulated scans of the label maps 13-16.
Compared are: the app's regions, those of its template deformed to the scan; the model's own, from its last layer; the
labelled template, brought by the model's affine and kept to the segmented cortex (`imaging.atlases`); and the same
template warped by the affine alone, as UniBrain does. What the app's regions lack lies in the cortex or in the
regions: beside them stand the Dice of its whole cortex, which none of the first three can exceed by much, and the share
of right regions where both the truth and the app see cortex.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unibrain_bids.evaluation.metrics import dice_per_label, mean_of_known

if TYPE_CHECKING:
    from unibrain_bids.inference import Prediction
    from unibrain_bids.training.simulation.simulator import SimulatedHead

TEMPLATE_SPACE = "MNI152NLin6Asym"
METHODS = ("template, deformed", "model", "affine, kept to the cortex", "affine alone")


def cortical_numbers() -> tuple[int, ...]:
    """FreeSurfer's numbers of the 68 cortical regions."""
    from unibrain_bids.labels import LabelTable

    return tuple(index for index in LabelTable.load("DK").indices if index > 1000)


def true_parcels(head: SimulatedHead) -> NDArray[np.int32]:
    """Regions (X, Y, Z) of a simulated scan with FreeSurfer's numbers; the side is that of the cortex."""
    from unibrain_bids.model import frame

    numbers = np.array([0, *frame.STRUCTURES])[head.structures[0].cpu().numpy()]
    region = head.regions[0].cpu().numpy()
    side = np.select([numbers == 3, numbers == 42], [1000, 2000], 0)
    return np.where((side > 0) & (region > 0), side + region, 0).astype(np.int32)


def compared_parcels(
    prediction: Prediction, template: NDArray[np.int32], affine: NDArray[np.float64]
) -> dict[str, NDArray[np.int32]]:
    """Regions (X, Y, Z) of one scan by each of `METHODS`; `template` holds FreeSurfer's numbers in `TEMPLATE_SPACE`."""
    from unibrain_bids.imaging.atlases import CORTEX, prepare_atlas, project_atlas
    from unibrain_bids.imaging.resample import resample
    from unibrain_bids.interfaces.atlases import frame_from_space
    from unibrain_bids.interfaces.predict import follow_subject

    template_from_scan = np.linalg.inv(frame_from_space(TEMPLATE_SPACE)) @ prediction.frame_from_scan
    regions = np.where(np.isin(template, cortical_numbers()), template, 0)
    structures = np.where(regions > 0, np.where(regions < 2000, *CORTEX), 0)
    kept = project_atlas(
        prepare_atlas(regions, affine, structures), prediction.structures, prediction.scan.affine,
        atlas_from_scan=template_from_scan,
    )  # fmt: skip
    alone = resample(
        regions, affine, shape=prediction.mask.shape, target_affine=prediction.scan.affine,
        target_from_source=np.linalg.inv(template_from_scan), order=0,
    )  # fmt: skip
    followed, _ = follow_subject(prediction)
    found = (followed.parcellations["DK"], prediction.parcellations["DK"], kept, alone)
    return dict(zip(METHODS, found, strict=True))


def evaluate(packed: Path, aparc: Path, *, count: int = 4, seed: int = 6_000_000) -> list[dict[str, float]]:
    """Mean Dice of the 68 regions by each method, and of the cortex; a row per simulated scan (map 13 + i mod 4)."""
    from unibrain_bids.evaluation.networks import as_scan
    from unibrain_bids.evaluation.simulated import SPAN
    from unibrain_bids.inference import predict
    from unibrain_bids.training.packing import read_canonical
    from unibrain_bids.training.recipes.basis import HELD_OUT
    from unibrain_bids.training.simulation.material import load_material
    from unibrain_bids.training.simulation.simulator import simulate

    material = load_material(packed).subset(HELD_OUT)
    labels, affine = read_canonical(aparc)
    rows = []
    for i in range(count):
        head = simulate(material, replace(SPAN, missing_parts=False), seed + i, i % len(HELD_OUT))
        found = compared_parcels(
            predict(as_scan(head.image[0, 0].numpy(), SPAN.spacing)), labels.astype(np.int32), affine
        )
        truth = true_parcels(head)
        rows.append({name: _mean_dice(truth, parcels) for name, parcels in found.items()})
        rows[-1] |= _cortex(truth, found[METHODS[0]])
        print(
            f"{HELD_OUT[i % len(HELD_OUT)]}:", {name: round(value, 3) for name, value in rows[-1].items()}, flush=True
        )
    return rows


def _mean_dice(truth: NDArray[np.int32], parcels: NDArray[np.int32]) -> float:
    return mean_of_known(dice_per_label(truth, parcels, cortical_numbers()).values())


def _cortex(truth: NDArray[np.int32], parcels: NDArray[np.int32]) -> dict[str, float]:
    """Dice of all regions taken as one, and the share of right regions where both volumes have one."""
    both = (truth > 0) & (parcels > 1000)
    total = (truth > 0).sum() + (parcels > 1000).sum()
    return {"cortex": float(2 * both.sum() / total), "right regions": float((truth == parcels)[both].mean())}


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packed", type=Path, default=Path("packed/heads_dk.npz"), help="file of training.packing")
    parser.add_argument(
        "--aparc",
        type=Path,
        default=Path("../shared/data/atlas/tpl-MNI152NLin6Asym_res-1_atlas-DK_dseg.nii.gz"),
        help="aparc+aseg labels of MNI152NLin6Asym",
    )
    parser.add_argument("--count", type=int, default=4, help="how many scans (default: one of each label map)")
    args = parser.parse_args(argv)
    rows = evaluate(args.packed, args.aparc, count=args.count)
    for name in rows[0]:
        print(f"{name}: mean {np.mean([row[name] for row in rows]):.3f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
