"""Quality measures of a scan in the manner of MRIQC, from the image, its brain mask, tissues and bias correction.

Names and formulas follow MRIQC's, so that users can compare; where MRIQC segments the air, a simple threshold on a
coarse grid stands here. A measure that cannot be computed (no such tissue, no noise in the air of a stripped scan)
is NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["MEASURES", "quality_measures"]

_TISSUES = {"gm": 1, "wm": 2, "csf": 3}
_AIR_FRACTION = 0.2
_COARSE_VOXELS = 96


def _described(name: str, description: str, units: str = "1") -> dict[str, str]:
    return {"LongName": name, "Description": description, "Units": units}


MEASURES: dict[str, dict[str, str]] = {
    **{
        f"snr_{tissue}": _described(
            f"Signal-to-noise ratio in {tissue.upper()}",
            "Median over standard deviation (with n - 1) within the tissue; higher is better.",
        )
        for tissue in _TISSUES
    },
    "snr_total": _described("Signal-to-noise ratio", "Mean of snr_gm, snr_wm and snr_csf; higher is better."),
    "cnr": _described(
        "Contrast-to-noise ratio",
        "|mean WM - mean GM| / sqrt(var GM + var WM + var air); higher is better.",
    ),
    "cjv": _described(
        "Coefficient of joint variation", "(sd WM + sd GM) / |mean WM - mean GM|; lower is better (noise, bias)."
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
    "inu_range": _described(
        "Range of intensity non-uniformity",
        "Distance of the 5th and 95th percentile of the bias field in the brain over its median; lower is better.",
    ),
    **{
        f"icvs_{tissue}": _described(
            f"Fraction of {tissue.upper()}", "Volume of the tissue over that of all three tissues."
        )
        for tissue in _TISSUES
    },
}
"""What each measure of `quality_measures` means, as a JSON sidecar describes it."""


def quality_measures(
    image: NDArray[Any], mask: NDArray[Any], tissues: NDArray[Any], *, gain: NDArray[Any] | None = None
) -> dict[str, float]:
    """Compute all `MEASURES` of one scan.

    Parameters
    ----------
    image
        (X, Y, Z) head as acquired, intensities of any scale.
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
    snr = {f"snr_{name}": _signal_to_noise(values) for name, values in samples.items()}
    head, air = _head_and_air(image, mask)
    total = sum(values.size for values in samples.values())
    return {
        **snr,
        "snr_total": float(np.mean(list(snr.values()))),
        "cnr": _contrast(samples) / _norm(samples["gm"], samples["wm"], air),
        "cjv": (_deviation(samples["gm"]) + _deviation(samples["wm"])) / _positive(_contrast(samples)),
        "efc": _entropy_focus(image),
        "fber": _median(head**2) / _positive(_median(air**2)),
        "wm2max": _median(samples["wm"]) / _positive(float(np.percentile(image, 99.95))),
        "inu_range": np.nan if gain is None else _nonuniformity(gain[mask > 0]),
        **{f"icvs_{name}": values.size / total if total else np.nan for name, values in samples.items()},
    }


def _signal_to_noise(values: NDArray[np.float64]) -> float:
    return _median(values) / _positive(_deviation(values, ddof=1))


def _contrast(samples: dict[str, NDArray[np.float64]]) -> float:
    if not (samples["gm"].size and samples["wm"].size):
        return np.nan
    return float(abs(samples["wm"].mean() - samples["gm"].mean()))


def _norm(*samples: NDArray[np.float64]) -> float:
    """Return the root of the summed variances."""
    return _positive(float(np.sqrt(sum(_deviation(values) ** 2 for values in samples))))


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


def _nonuniformity(gain: NDArray[Any]) -> float:
    if not gain.size:
        return np.nan
    low, middle, high = np.percentile(1 / gain.astype(np.float64), [5, 50, 95])
    return float((high - low) / middle)


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
