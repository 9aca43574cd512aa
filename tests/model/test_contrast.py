"""What a scan's tissues look like: levels in any units, of any scan."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unibrain_bids.model import frame
from unibrain_bids.model.contrast import Levels, in_levels, tissue_levels

CLASSES = len(frame.STRUCTURES) + 1


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 50), st.floats(-20, 20), st.booleans())
def test_levels_are_the_scan_s_own(scale: float, shift: float, inverted: bool) -> None:
    """Any other scale of the intensities, a negative too, looks the same."""
    factor = -scale if inverted else scale
    levels = Levels(csf=0.3, gray=0.6, white=1.0)
    image = torch.linspace(0.2, 1.1, 27).view(1, 1, 3, 3, 3)
    moved = Levels(*(factor * level + shift for level in (levels.csf, levels.gray, levels.white)))
    reference = in_levels(image, levels)
    spread = min(abs(moved.white - moved.gray), abs(moved.gray - moved.csf))
    if spread > 0.06 * max(abs(moved.white), abs(moved.gray)):
        torch.testing.assert_close(in_levels(factor * image + shift, moved), reference, atol=1e-2, rtol=1e-2)
    assert float(in_levels(torch.tensor(levels.gray).view(1, 1, 1, 1, 1), levels)[0, 0]) == pytest.approx(0, abs=1e-5)
    assert float(in_levels(torch.tensor(levels.white).view(1, 1, 1, 1, 1), levels)[0, 0]) == pytest.approx(1)


def test_levels_of_a_scan_without_contrast_are_finite() -> None:
    image = torch.rand(1, 1, 4, 4, 4)
    assert torch.isfinite(in_levels(image, Levels(0.5, 0.5, 0.5))).all()
    assert torch.isfinite(in_levels(image, Levels(0.0, 0.0, 0.0))).all()


def test_levels_are_the_tissues_medians() -> None:
    structures, intensity = torch.zeros(CLASSES, 600), torch.zeros(600)
    for part, (numbers, level) in enumerate((((4, 43), 10.0), ((3, 42), 60.0), ((2, 41), 100.0))):
        for side, number in enumerate(numbers):
            place = slice(200 * part + 100 * side, 200 * part + 100 * side + 100)
            intensity[place] = level + torch.linspace(-3, 3, 100)
            structures[frame.STRUCTURES.index(number) + 1, place] = 1
    levels = tissue_levels(intensity, structures)
    assert (levels.csf, levels.gray, levels.white) == pytest.approx((10, 60, 100), abs=0.1)
    guessed = tissue_levels(intensity, torch.zeros_like(structures))
    assert guessed.csf < guessed.gray < guessed.white, "guessed from the brain's quantiles"


def test_fluid_is_as_dark_as_the_middle_of_the_ventricles() -> None:
    """Narrow ones share most of their voxels with what lies around them; without a middle, all their voxels count."""
    ventricle = frame.STRUCTURES.index(4) + 1
    structures, intensity = torch.zeros(CLASSES, 400), torch.full((400,), 50.0)
    structures[ventricle, :100], intensity[:100] = 0.99, 10.0
    structures[ventricle, 100:] = 0.6
    assert tissue_levels(intensity, structures).csf == pytest.approx(10.0)
    assert tissue_levels(intensity[80:], structures[:, 80:]).csf == pytest.approx(50.0)
