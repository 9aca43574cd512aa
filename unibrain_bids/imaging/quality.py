"""Quality measures of a scan under MRIQC's names, from the image, its brain mask, tissues and bias correction.

Formulas follow MRIQC's (docs/quality.md lists them, with sources and differences), so that users can compare; where
MRIQC segments the air, a simple threshold on a coarse grid stands here. A measure that cannot be computed (no such
tissue, no noise in the air of a stripped scan) is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["LIMITS", "MEASURES", "quality_flags", "quality_measures"]

_TISSUES = {"gm": 1, "wm": 2, "csf": 3}
_REGIONS = {"gm": "grey matter", "wm": "white matter", "csf": "cerebrospinal fluid", "bg": "air"}
_AXES = "xyz"
# A normal distribution's standard deviation is this times its median absolute deviation.
_NORMAL_MAD = 1.482602218505602
_AIR_FRACTION = 0.2
_COARSE_VOXELS = 96
# The noise of a magnitude image in air is Rayleigh-distributed; its standard deviation times this is that of the
# Gaussian noise of the signal (Dietrich et al. 2007).
_RAYLEIGH = math.sqrt(2 / (4 - math.pi))
_SIGMAS_PER_FWHM = 2 * math.sqrt(2 * math.log(2))


def _described(name: str, description: str, units: str = "1") -> dict[str, str]:
    return {"LongName": name, "Description": description, "Units": units}


MEASURES: dict[str, dict[str, str]] = {
    **{
        f"snr_{tissue}": _described(
            f"Signal-to-noise ratio in {_REGIONS[tissue]}",
            "Median over standard deviation (with n - 1) within the tissue; higher is better.",
        )
        for tissue in _TISSUES
    },
    "snr_total": _described("Signal-to-noise ratio", "Mean of snr_gm, snr_wm and snr_csf; higher is better."),
    **{
        f"snrd_{tissue}": _described(
            f"Dietrich's signal-to-noise ratio in {_REGIONS[tissue]}",
            "Median over the noise that the air shows; higher is better; n/a where the air is blank.",
        )
        for tissue in _TISSUES
    },
    "snrd_total": _described("Dietrich's signal-to-noise ratio", "Mean of snrd_gm, snrd_wm and snrd_csf."),
    "cnr": _described(
        "Contrast-to-noise ratio",
        "|median WM - median GM| / sqrt(var GM + var WM + var air); higher is better.",
    ),
    "cjv": _described(
        "Coefficient of joint variation",
        "(MAD WM + MAD GM) / |median WM - median GM|, with normalised median absolute deviations; lower is better "
        "(noise, motion, bias).",
    ),
    "efc": _described(
        "Entropy focus criterion",
        "Shannon entropy of the voxel magnitudes over its largest possible value; lower is better (ghosts, blur).",
    ),
    "fber": _described(
        "Foreground to background energy ratio",
        "Median squared intensity within the head over that in the air; higher is better; n/a where the air is blank.",
    ),
    "wm2max": _described(
        "White matter to maximum", "Median of WM over the 99.95th percentile of the image; 0.6 to 0.8 is usual."
    ),
    **{
        f"fwhm_{axis}": _described(
            f"Smoothness along {axis}",
            "Width (FWHM) of the correlation of neighbours within the brain; lower is better.",
            "voxels",
        )
        for axis in _AXES
    },
    "fwhm_avg": _described("Smoothness", "Mean of fwhm_x, fwhm_y and fwhm_z; lower is better.", "voxels"),
    "inu_range": _described(
        "Range of intensity non-uniformity",
        "Distance of the 5th and 95th percentile of the bias field in the brain over its median; lower is better.",
    ),
    "inu_med": _described(
        "Median of intensity non-uniformity",
        "Median of the bias field in the brain, whose geometric mean is 1: far from 1 means a skewed field.",
    ),
    **{
        f"icvs_{tissue}": _described(
            f"Fraction of {_REGIONS[tissue]}", "Volume of the tissue over that of all three tissues."
        )
        for tissue in _TISSUES
    },
    **{
        f"summary_{region}_{statistic}": _described(
            f"{text} in {_REGIONS[region]}", f"{text} of the intensities.", units
        )
        for region in _REGIONS
        for statistic, (text, units) in {
            "mean": ("Mean", "arbitrary"),
            "median": ("Median", "arbitrary"),
            "stdv": ("Standard deviation", "arbitrary"),
            "mad": ("Median absolute deviation", "arbitrary"),
            "k": ("Excess kurtosis", "1"),
            "p05": ("5th percentile", "arbitrary"),
            "p95": ("95th percentile", "arbitrary"),
        }.items()
    },
}
"""What each measure of `quality_measures` means, as a JSON sidecar describes it."""

LIMITS: dict[str, tuple[float, float, str]] = {
    "cjv": (0.0, 0.9, "noise, motion, or tissues that were not told apart"),
    "snr_total": (3.0, math.inf, "noise, or tissues that were not told apart"),
    "cnr": (1.0, math.inf, "grey and white matter hardly differ"),
    "wm2max": (0.3, 1.0, "white matter is unusually dark or bright against the rest"),
    "inu_range": (0.0, 0.8, "a strong bias field"),
    "icvs_gm": (0.3, 0.7, "the tissues' volumes are unusual"),
    "icvs_wm": (0.2, 0.55, "the tissues' volumes are unusual"),
    "icvs_csf": (0.005, 0.35, "the tissues' volumes are unusual"),
    "intracranial_volume": (0.9e6, 2.1e6, "no adult's head, or a wrong outline"),
    "model_atlas_agreement": (0.45, 1.0, "the head may not have been found: check the affine"),
    "model_realignment_mm": (0.0, 3.0, "registration and segmentation disagree"),
    "model_structure_certainty": (0.76, 1.0, "the structures are guesses: check that the scan is T1-weighted"),
    "model_outside_view": (0.0, 0.02, "a part of the brain lies outside the field of view"),
    "model_tilt_deg": (
        0.0,
        75.0,
        "the head lies askew: check the orientation in the file's header, left and right too",
    ),
    "registration_overlap": (
        0.35,
        math.inf,
        "the brain does not fit the template: look at it before you use that grid",
    ),
}
"""Lowest and highest value that is not flagged, and what a value beyond may mean (docs/quality.md says why)."""


def quality_flags(measures: Mapping[str, Any]) -> list[str]:
    """Return, for each measure beyond its `LIMITS`, a line that says so."""
    flags = []
    for name, (low, high, meaning) in LIMITS.items():
        value = measures.get(name)
        if value is not None and math.isfinite(value) and not low <= value <= high:
            side = f"below {low:g}" if value < low else f"above {high:g}"
            flags.append(f"{name} is {value:.4g}, {side}: {meaning}.")
    return flags


def quality_measures(
    image: NDArray[Any], mask: NDArray[Any], tissues: NDArray[Any], *, gain: NDArray[Any] | None = None
) -> dict[str, float]:
    """Compute all `MEASURES` of one scan.

    Parameters
    ----------
    image
        (X, Y, Z) head, intensities of any scale; MRIQC takes the bias-corrected one.
    mask
        (X, Y, Z) brain mask, 0 or 1.
    tissues
        (X, Y, Z) 1 GM, 2 WM, 3 CSF.
    gain
        (X, Y, Z) multiplicative correction (corrected = gain * image), the inverse of the bias field.

    Returns
    -------
    dict
        The names of `MEASURES`, in their order; NaN where a measure cannot be computed.
    """
    samples = {name: image[tissues == number].astype(np.float64) for name, number in _TISSUES.items()}
    head, air = _head_and_air(image, mask)
    regions = {name: _summary(values) for name, values in {**samples, "bg": air}.items()}
    grey, white, background = regions["gm"], regions["wm"], regions["bg"]
    contrast = _positive(abs(white["median"] - grey["median"]))
    snr = {name: regions[name]["median"] / _positive(_deviation(values, ddof=1)) for name, values in samples.items()}
    noise = _RAYLEIGH * _positive(background["stdv"] if background["median"] > 0 else np.nan)
    snrd = {name: regions[name]["median"] / noise for name in samples}
    fwhm = _smoothness(image, mask)
    total = sum(values.size for values in samples.values())
    return {
        **{f"snr_{name}": value for name, value in snr.items()},
        "snr_total": float(np.mean(list(snr.values()))),
        **{f"snrd_{name}": value for name, value in snrd.items()},
        "snrd_total": float(np.mean(list(snrd.values()))),
        "cnr": contrast / _positive(math.sqrt(grey["stdv"] ** 2 + white["stdv"] ** 2 + background["stdv"] ** 2)),
        "cjv": (white["mad"] + grey["mad"]) / contrast,
        "efc": _entropy_focus(image),
        "fber": _median(head**2) / _positive(_median(air**2)),
        "wm2max": white["median"] / _positive(float(np.percentile(image, 99.95))),
        **{f"fwhm_{axis}": width for axis, width in zip(_AXES, fwhm, strict=True)},
        "fwhm_avg": float(np.mean(fwhm)),
        **_nonuniformity(None if gain is None else gain[mask > 0]),
        **{f"icvs_{name}": values.size / total if total else np.nan for name, values in samples.items()},
        **{f"summary_{name}_{key}": value for name, summary in regions.items() for key, value in summary.items()},
    }


def _summary(values: NDArray[np.float64]) -> dict[str, float]:
    """Return the statistics of a region, NaN where it is empty."""
    if not values.size:
        return dict.fromkeys(("mean", "median", "stdv", "mad", "k", "p05", "p95"), np.nan)
    low, median, high = (float(value) for value in np.percentile(values, [5, 50, 95]))
    deviation = _deviation(values)
    return {
        "mean": float(values.mean()),
        "median": median,
        "stdv": deviation,
        "mad": _NORMAL_MAD * float(np.median(np.abs(values - median))),
        "k": float(np.mean(((values - values.mean()) / deviation) ** 4)) - 3 if deviation > 0 else np.nan,
        "p05": low,
        "p95": high,
    }


def _deviation(values: NDArray[np.float64], *, ddof: int = 0) -> float:
    return float(values.std(ddof=ddof)) if values.size > ddof else np.nan


def _median(values: NDArray[np.float64]) -> float:
    return float(np.median(values)) if values.size else np.nan


def _positive(value: float) -> float:
    """Return a divisor: NaN in place of 0."""
    return value if value > 0 else np.nan


def _entropy_focus(image: NDArray[Any]) -> float:
    """Return -sum x/E ln(x/E), E = sqrt(sum x^2), over its maximum sqrt(n) ln sqrt(n) (Atkinson 1997)."""
    magnitudes = np.abs(image[image != 0]).astype(np.float64)
    if not magnitudes.size:
        return np.nan
    magnitudes /= np.sqrt(np.sum(magnitudes**2))
    entropy = -float(np.sum(magnitudes * np.log(magnitudes)))
    return entropy / _positive(np.sqrt(image.size) * np.log(np.sqrt(image.size)))


def _nonuniformity(gain: NDArray[Any] | None) -> dict[str, float]:
    if gain is None or not gain.size:
        return {"inu_range": np.nan, "inu_med": np.nan}
    low, middle, high = np.percentile(1 / gain.astype(np.float64), [5, 50, 95])
    return {"inu_range": float((high - low) / middle), "inu_med": float(middle)}


def _smoothness(image: NDArray[Any], mask: NDArray[Any]) -> list[float]:
    """Return the FWHM in voxels along each axis: a Gaussian whose correlation of neighbours is the one seen.

    Forman et al. (1995): r = 1 - var(difference of neighbours) / (2 var), FWHM = 2.355 sqrt(-1 / (4 ln r)).
    """
    bounds = ndimage.find_objects((mask > 0).astype(np.uint8))
    if not bounds:
        return [np.nan] * 3
    inside, values = mask[bounds[0]] > 0, image[bounds[0]].astype(np.float64)
    variance = float(values[inside].var())
    widths = []
    for axis in range(3):
        pairs = np.logical_and(*_neighbours(inside, axis))
        lower, upper = _neighbours(values, axis)
        differences = (upper - lower)[pairs]
        likeness = 1 - float(differences.var()) / (2 * variance) if differences.size and variance > 0 else np.nan
        inside_range = 0 < likeness < 1
        widths.append(_SIGMAS_PER_FWHM * math.sqrt(-1 / (4 * math.log(likeness))) if inside_range else np.nan)
    return widths


def _neighbours(volume: NDArray[Any], axis: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return a volume without its last and without its first plane."""
    moved = np.moveaxis(volume, axis, 0)
    return moved[:-1], moved[1:]


def _head_and_air(image: NDArray[Any], mask: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the intensities of a coarse subset of voxels within the head and in the air around it.

    The head is what is brighter than a fifth of the brain, after light smoothing, with its holes (skull) filled.
    """
    step = tuple(slice(None, None, max(1, round(length / _COARSE_VOXELS))) for length in image.shape)
    coarse, brain = image[step].astype(np.float64), mask[step] > 0
    if not brain.any():
        return coarse[:0].ravel(), coarse[:0].ravel()
    bright = ndimage.gaussian_filter(coarse, 1.0) > _AIR_FRACTION * np.median(coarse[brain])
    head = ndimage.binary_fill_holes(ndimage.binary_closing(bright | brain, iterations=3) | bright)
    return coarse[head], coarse[~ndimage.binary_dilation(head, iterations=2)]
