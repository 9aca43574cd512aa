"""The refiner: contrast, pieces, and that it begins at the interpolated answer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from unibrain_bids.model import frame, refiner
from unibrain_bids.model.evidence import Evidence, weigh
from unibrain_bids.model.refiner import (
    Coarse,
    Contrast,
    Levels,
    Refiner,
    finer_box,
    in_levels,
    learn_contrast,
    rival_levels,
    tissue_levels,
)

CLASSES = len(frame.STRUCTURES) + 1


def coarse(*shape: int) -> Coarse:
    return Coarse(torch.rand(1, 4, *shape), torch.randn(1, 2, *shape), torch.randn(1, CLASSES, *shape))


@pytest.fixture
def network() -> Refiner:
    torch.manual_seed(0)
    return Refiner(4, 8, 8).eval()


def contrast() -> Contrast:
    evidence = Evidence(torch.rand(CLASSES), 0.2 + torch.rand(CLASSES), torch.rand(CLASSES) > 0.3)
    return Contrast(Levels(0.2, 0.5, 0.9), evidence)


@torch.no_grad()
def test_begins_at_the_interpolated_and_weighed_answer(network: Refiner) -> None:
    before, image, scan = coarse(6, 5, 4), torch.rand(1, 1, 12, 10, 8), contrast()
    fine = network(image, before, scan)
    expected = functional.interpolate(before.structure_logits.log_softmax(1), scale_factor=2, mode="trilinear")
    weighed = network.weigh(fine.structure_logits, image, scan)
    torch.testing.assert_close(weighed, weigh(expected.exp(), image, scan.evidence), atol=1e-4, rtol=1e-4)
    mask = functional.interpolate(before.mask_logits[:, :1], scale_factor=2, mode="trilinear")
    torch.testing.assert_close(fine.mask_logits, mask, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_piece_and_its_surroundings_say_what_the_whole_says(network: Refiner) -> None:
    torch.nn.init.normal_(network.residual)
    whole, image, scan = coarse(24, 11, 12), torch.rand(1, 1, 48, 22, 24), contrast()
    everything = network(image, whole, scan)
    box = (slice(3, 20), slice(0, 11), slice(0, 12))
    part = network(image[(..., *finer_box(box))], whole.piece(box), scan)
    inner = slice(2 * refiner.REACH, 2 * (17 - refiner.REACH))
    here = slice(2 * (3 + refiner.REACH), 2 * (20 - refiner.REACH))
    torch.testing.assert_close(part.structure_logits[:, :, inner], everything.structure_logits[:, :, here])
    assert not torch.allclose(part.structure_logits[:, :, :2], everything.structure_logits[:, :, 6:8])


@torch.no_grad()
def test_the_scan_s_scale_changes_nothing(network: Refiner) -> None:
    """With a voice of its own for each class, too: stored intensities may be 0..1 or 0..4095."""
    torch.nn.init.normal_(network.residual, std=0.3)
    torch.nn.init.uniform_(network.voice, 0.1, 0.9)
    before, image = coarse(6, 5, 4), torch.rand(1, 1, 12, 10, 8)
    intensity, structures = torch.rand(4000), torch.randn(CLASSES, 4000).mul(4).softmax(0)
    answers = []
    for scale in (1.0, 1000.0):
        scan = learn_contrast(scale * intensity, structures)
        fine = network(scale * image, before, scan)
        answers.append(network.weigh(fine.structure_logits, scale * image, scan))
    torch.testing.assert_close(answers[0], answers[1], atol=1e-2, rtol=1e-3)


def test_rivals_are_told_by_their_brightness() -> None:
    """Who is likelier does not matter for the order, the darker always comes first."""
    scan = Contrast(
        Levels(0.0, 0.5, 1.0), Evidence(torch.linspace(0, 1, CLASSES), torch.ones(CLASSES), torch.ones(CLASSES) > 0)
    )
    structures = torch.full((1, CLASSES, 1, 1, 2), -9.0)
    structures[0, 31, 0, 0] = torch.log(torch.tensor([0.75, 0.25]))
    structures[0, 0, 0, 0] = torch.log(torch.tensor([0.25, 0.75]))
    dark, bright, share = rival_levels(structures, scan)[0, :, 0, 0]
    assert dark.tolist() == pytest.approx([-1, -1]) and bright.tolist() == pytest.approx([1, 1])
    assert share.tolist() == pytest.approx([0.75, 0.25])


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
