"""What is measured on a head: the definitions, and the function that measures one prediction."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unibrain_bids.errors import ResourceError
from unibrain_bids.evaluation import metrics
from unibrain_bids.evaluation.heads import IGNORED, TISSUES, LabelledHead
from unibrain_bids.labels import LabelTable

if TYPE_CHECKING:
    from unibrain_bids.inference import Prediction


@dataclass(frozen=True)
class Measure:
    """One number of a head: its key in tables for machines, its title, decimals and definition for readers."""

    key: str
    title: str
    decimals: int
    definition: str


MASK = (
    Measure("mask_dice", "mask Dice", 3, "of the brain mask against the *solid* truth."),
    Measure("mask_hd95", "HD95 (mm)", 2, "the larger of the two directed 95th percentiles of surface distances."),
    Measure("mask_distance", "mean distance (mm)", 2, "mean symmetric surface distance to the *solid* truth."),
    Measure("mask_dice_brain", "Dice, brain", 3, "the same mask against labels without sulcal CSF (open sulci)."),
    Measure("mask_dice_icv", "Dice, ICV", 3, "the same mask against all labels, CSF included."),
)
SEGMENTATION = (
    Measure("structure_dice", "structure Dice", 3, "mean over the structures that truth or prediction hold."),
    Measure("structure_dice_merged", "sides merged", 3, "the same with left and right counted as one structure."),
    Measure("tissue_dice", "tissue Dice", 3, "mean of GM, WM and CSF; true CSF counts inside the *solid* mask only."),
    Measure("tissue_dice_GM", "GM", 3, "gray matter, cortex and deep nuclei."),
    Measure("tissue_dice_WM", "WM", 3, "white matter, brain stem included."),
    Measure("tissue_dice_CSF", "CSF", 3, "ventricles and sulci inside the *solid* mask."),
)
UNIFORMITY = (
    Measure(
        "cjv_input",
        "CJV before",
        3,
        "joint variation of the scan: sd of GM plus sd of WM, over the distance of their means.",
    ),
    Measure("cjv_n4", "CJV, N4", 3, "the same after N4 with ANTsPy's defaults, which gets the true *solid* mask."),
    Measure("cjv_output", "CJV after", 3, "the same after our bias correction; lower is better."),
    Measure("wm_cv_input", "WM CV before", 3, "standard deviation over mean in the true white matter of the scan."),
    Measure("wm_cv_n4", "WM CV, N4", 3, "the same after N4."),
    Measure("wm_cv_output", "WM CV after", 3, "the same after our bias correction; lower is better."),
    Measure("gm_cv_input", "GM CV before", 3, "standard deviation over mean in the true grey matter of the scan."),
    Measure("gm_cv_n4", "GM CV, N4", 3, "the same after N4."),
    Measure("gm_cv_output", "GM CV after", 3, "the same after our bias correction; lower is better."),
)
SIMULATED = (
    Measure(
        "bias_ssim", "bias SSIM", 3, "estimated against true bias field in the *solid* mask; range: 0 to its maximum."
    ),
    Measure("bias_ssim_flat", "flat field", 3, "the same that no correction at all would get: what there was to win."),
    Measure("bias_ssim_stretched", "bias SSIM, stretched", 3, "range: the 1st to 99th percentile of the true field."),
    Measure("bias_ssim_stretched_flat", "flat field, stretched", 3, "that no correction at all would get."),
    Measure("bias_psnr", "bias PSNR (dB)", 1, "of the same fields; peak: the largest true value in the mask."),
    Measure("bias_correlation", "log-bias r", 3, "correlation of the logarithms of both fields in the mask."),
    Measure("reconstruction_ssim", "reconstruction SSIM", 3, "stripped, normalised brain against the true one."),
    Measure("reconstruction_psnr", "PSNR (dB)", 1, "of the same images; peak: 99.9th percentile of the true brain."),
)
TIME = (Measure("seconds", "seconds", 2, "wall time of `predict` on this head, reading included, model loaded."),)

SECTIONS: Mapping[str, tuple[Measure, ...]] = {
    "Brain mask": MASK,
    "Segmentation": SEGMENTATION,
    "Uniformity": UNIFORMITY,
    "Bias field and reconstruction": SIMULATED,
    "Time": TIME,
}

_SMALLEST = 1e-6  # guards divisions and logarithms of a gain that should never come near it


@dataclass(frozen=True)
class HeadMeasures:
    """The numbers of one head: by the keys of `SECTIONS`, and Dice by structure number."""

    values: Mapping[str, float]
    structures: Mapping[int, float]


def measure(head: LabelledHead, prediction: Prediction) -> HeadMeasures:
    """Compare a prediction with the truth of its head, on the scan's own grid.

    Parameters
    ----------
    head
        The labelled head.
    prediction
        What `unibrain_bids.inference.predict` made of `head.path`.

    Raises
    ------
    ValueError
        If the prediction lies on another grid than the truth.
    """
    if prediction.mask.shape != head.structures.shape:
        raise ValueError(f"{head.path}: prediction {prediction.mask.shape} and truth {head.structures.shape} differ.")
    even = uniformity(head, head.image, "input") | uniformity(head, prediction.preproc, "output")
    if not head.labelled:
        return HeadMeasures(even, {})
    structures = _structure_dice(head.structures, prediction.structures)
    values = mask_measures(head, prediction.mask)
    sides_merged = _structure_dice(_merged(head.structures), _merged(prediction.structures))
    values |= {
        "structure_dice": metrics.mean_of_known(structures.values()),
        "structure_dice_merged": metrics.mean_of_known(sides_merged.values()),
    }
    values |= _tissue_measures(head, prediction.tissues) | even
    if head.bias is not None:
        values |= _bias_measures(head.bias, prediction.gain, head.masks["solid"])
    if head.clean is not None:
        values |= _reconstruction_measures(head.clean, prediction.brain, head.masks["solid"])
    return HeadMeasures(values, structures)


def _structure_dice(truth: NDArray, predicted: NDArray) -> dict[int, float]:
    return metrics.dice_per_label(truth, predicted, LabelTable.load("aseg").indices, ignored=IGNORED)


def _merged(structures: NDArray) -> NDArray[np.int16]:
    """Give both sides of a structure the number of the left one."""
    table = LabelTable.load("aseg")
    lookup = np.arange(-1, max(table.indices) + 1, dtype=np.int16)  # entry 0 stands for IGNORED
    for index in table.indices:
        lookup[index + 1] = min(index, table.flipped(index))
    return lookup[structures + 1]


def mask_measures(head: LabelledHead, mask: NDArray) -> dict[str, float]:
    """Compare a mask (X, Y, Z) with the truths of its head: the keys of `MASK`."""
    distances = metrics.surface_distances(head.masks["solid"], mask, head.spacing)
    values = {"mask_hd95": distances.hd95, "mask_distance": distances.mean}
    for name, truth in head.masks.items():
        values["mask_dice" if name == "solid" else f"mask_dice_{name}"] = metrics.dice(truth, mask)
    return values


def _tissue_measures(head: LabelledHead, tissues: NDArray) -> dict[str, float]:
    dice = metrics.dice_per_label(head.tissues, tissues, list(TISSUES.values()))
    values = {f"tissue_dice_{name}": dice[index] for name, index in TISSUES.items()}
    return {"tissue_dice": metrics.mean_of_known(dice.values()), **values}


def uniformity(head: LabelledHead, image: NDArray, when: str) -> dict[str, float]:
    """How even the tissues of an image on the head's grid are: `UNIFORMITY`'s keys that end with `when`."""
    gray, white = image[head.tissues == TISSUES["GM"]], image[head.tissues == TISSUES["WM"]]
    return {
        f"cjv_{when}": metrics.coefficient_of_joint_variation(gray, white),
        f"wm_cv_{when}": metrics.coefficient_of_variation(white),
        f"gm_cv_{when}": metrics.coefficient_of_variation(gray),
    }


def read_uniformity(path: Path) -> dict[str, dict[str, float]]:
    """Measures of `uniformity` by the heads' names, as benchmarks/n4.py writes them.

    Raises
    ------
    ResourceError
        If the file is missing or is no such JSON.
    """
    try:
        heads = json.loads(path.read_text())["heads"]
        return {name: {key: float(value) for key, value in values.items()} for name, values in heads.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResourceError(
            f"{path}: cannot be read as measures of heads ({error!r}).", "Make it with benchmarks/n4.py."
        ) from error


def _bias_measures(bias: NDArray, gain: NDArray, solid: NDArray[np.bool_]) -> dict[str, float]:
    """Compare the fields up to a factor; a smooth field is mostly its mean, so its variation is looked at apart."""
    estimate = metrics.scaled_to(bias, 1 / np.maximum(gain, _SMALLEST), solid)
    flat = metrics.scaled_to(bias, np.ones_like(bias), solid)
    peak = float(bias[solid].max())
    low, high = np.percentile(bias[solid], [1, 99])
    values = {
        "bias_psnr": metrics.psnr(bias, estimate, solid, data_range=peak),
        "bias_correlation": metrics.normalised_cross_correlation(
            np.log(bias[solid]), np.log(np.maximum(estimate[solid], _SMALLEST))
        ),
    }
    for suffix, field in (("", estimate), ("_flat", flat)):
        values[f"bias_ssim{suffix}"] = metrics.ssim(bias, field, solid, data_range=peak)
        values[f"bias_ssim_stretched{suffix}"] = metrics.ssim(bias - low, field - low, solid, data_range=high - low)
    return values


def _reconstruction_measures(clean: NDArray, brain: NDArray, solid: NDArray[np.bool_]) -> dict[str, float]:
    estimate = metrics.scaled_to(clean, brain, solid)
    peak = float(np.percentile(clean[solid], 99.9))
    return {
        "reconstruction_ssim": metrics.ssim(clean, estimate, solid, data_range=peak),
        "reconstruction_psnr": metrics.psnr(clean, estimate, solid, data_range=peak),
    }
