"""The refiner: that it begins at the interpolated answer, works in pieces, and knows no scale."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from unibrain_bids.model import frame, refiner
from unibrain_bids.model.contrast import Contrast, Levels, learn_contrast
from unibrain_bids.model.evidence import Evidence
from unibrain_bids.model.refiner import Coarse, Refiner, finer_box
from unibrain_bids.model.tissues import TissuePrior, log_probability

CLASSES = len(frame.STRUCTURES) + 1


@pytest.fixture
def network() -> Refiner:
    """Untrained, but for a residual that is not zero."""
    torch.manual_seed(0)
    result = Refiner(4, 8, 8).eval()
    torch.nn.init.normal_(result.residual.weight, std=0.3)
    return result


def coarse(*shape: int, contrast: Contrast | None = None) -> Coarse:
    evidence = Evidence(torch.rand(CLASSES), 0.2 + torch.rand(CLASSES), torch.rand(CLASSES) > 0.3)
    contrast = contrast or Contrast(Levels(0.2, 0.5, 0.9), evidence)
    prior = TissuePrior.of(log_probability(torch.randn(1, CLASSES, *shape)), contrast)
    return Coarse(torch.rand(1, 4, *shape), torch.randn(1, 1, *shape), prior, contrast.levels)


@torch.no_grad()
def test_begins_at_the_interpolated_and_weighed_answer() -> None:
    network, before, image = Refiner(4, 8, 8), coarse(6, 5, 4), torch.rand(1, 1, 12, 10, 8)
    residual = network(image, before)
    assert residual.shape == (1, 3, 12, 10, 8) and not residual.any()
    logits, mean, spread = (
        functional.interpolate(x, scale_factor=2, mode="trilinear")
        for x in (before.prior.logits, before.prior.mean, before.prior.spread)
    )
    likelihood = torch.distributions.Normal(mean, spread).log_prob(image)
    expected = (logits + 0.5 * likelihood).log_softmax(1)
    torch.testing.assert_close(network.weigh(before.prior.finer(), image, residual), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_piece_and_its_surroundings_say_what_the_whole_says(network: Refiner) -> None:
    whole, image = coarse(24, 11, 12), torch.rand(1, 1, 48, 22, 24)
    everything = network(image, whole)
    box = (slice(3, 20), slice(0, 11), slice(0, 12))
    part = network(image[(..., *finer_box(box))], whole.piece(box))
    inner = slice(2 * refiner.REACH, 2 * (17 - refiner.REACH))
    here = slice(2 * (3 + refiner.REACH), 2 * (20 - refiner.REACH))
    torch.testing.assert_close(part[:, :, inner], everything[:, :, here])
    assert not torch.allclose(part[:, :, :2], everything[:, :, 6:8])


@torch.no_grad()
def test_the_scan_s_scale_changes_nothing(network: Refiner) -> None:
    """Stored intensities may be 0..1 or 0..4095."""
    image, intensity = torch.rand(1, 1, 12, 10, 8), torch.rand(4000)
    structures = torch.randn(CLASSES, 4000).mul(4).softmax(0)
    answers = []
    for scale in (1.0, 1000.0):
        torch.manual_seed(1)
        before = coarse(6, 5, 4, contrast=learn_contrast(scale * intensity, structures))
        residual = network(scale * image, before)
        answers.append(network.weigh(before.prior.finer(), scale * image, residual))
    torch.testing.assert_close(answers[0], answers[1], atol=1e-3, rtol=1e-3)
