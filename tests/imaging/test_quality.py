"""Quality measures whose answer is known from the noise that was put in, and the limits beyond which they flag."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from unibrain_bids.imaging.quality import LIMITS, quality_flags, quality_measures


def test_dietrichs_noise_is_that_of_the_signal() -> None:
    rng = np.random.default_rng(0)
    radius = np.linalg.norm(np.indices((72, 72, 72)) - 35.5, axis=0)
    tissues = np.select([radius < 12, radius < 18, radius < 22], [2, 1, 3], 0)
    signal = np.select([tissues == 2, tissues == 1, tissues == 3], [120.0, 80, 40], 0)
    noisy = np.hypot(signal + rng.normal(0, 3, signal.shape), rng.normal(0, 3, signal.shape))
    measures = quality_measures(noisy, tissues > 0, tissues)
    for tissue, level in {"wm": 120, "gm": 80, "csf": 40}.items():
        assert measures[f"snrd_{tissue}"] == pytest.approx(level / 3, rel=0.05)
    assert measures["summary_bg_mean"] == pytest.approx(3 * math.sqrt(math.pi / 2), rel=0.05)
    assert measures["summary_gm_mad"] == pytest.approx(3, rel=0.1)
    blank = quality_measures(noisy * (tissues > 0), tissues > 0, tissues)
    assert math.isnan(blank["snrd_total"]) and math.isnan(blank["fber"]) and math.isfinite(blank["cnr"])


def test_smoothness_is_found_along_each_axis() -> None:
    widths = np.array([2.5, 3.5, 5.0])
    noise = np.random.default_rng(0).normal(size=(60, 60, 60))
    image = 100 + ndimage.gaussian_filter(noise, widths / 2.355)
    mask = np.zeros(image.shape)
    mask[8:52, 8:52, 8:52] = 1
    measures = quality_measures(image, mask, mask)
    assert [measures[f"fwhm_{axis}"] for axis in "xyz"] == pytest.approx(widths, rel=0.12)
    assert measures["fwhm_avg"] == pytest.approx(np.mean([measures[f"fwhm_{axis}"] for axis in "xyz"]))
    assert math.isnan(quality_measures(np.ones_like(image), mask, mask)["fwhm_avg"])


def test_values_beyond_their_limits_are_flagged() -> None:
    good = {name: (low + min(high, 1e7)) / 2 for name, (low, high, _) in LIMITS.items()}
    assert quality_flags(good) == []
    assert quality_flags({"cjv": 1.5, "snr_total": 2.0, "unknown": 1e9}) == [
        "cjv is 1.5, above 0.9: noise, motion, or tissues that were not told apart.",
        "snr_total is 2, below 3: noise, or tissues that were not told apart.",
    ]
    assert quality_flags(dict.fromkeys(LIMITS)) == quality_flags(dict.fromkeys(LIMITS, math.nan)) == []
