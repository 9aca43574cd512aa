"""The refiner: that it begins at the interpolated answer, works in pieces, and knows no scale."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from unibrain_bids.model import frame, refiner
from unibrain_bids.model.contrast import Contrast, Levels, learn_contrast
from unibrain_bids.model.evidence import Evidence
from unibrain_bids.model.refiner import Coarse, Refiner, finer_box, posterior
from unibrain_bids.model.tissues import TissuePrior, log_probability, tissue_of_class

CLASSES = len(frame.STRUCTURES) + 1


@pytest.fixture
def network() -> Refiner:
    """Untrained, but for a residual that is not zero."""
    torch.manual_seed(0)
    result = Refiner(4, 8, 8).eval()
    for layer in (result.residual, result.structures):
        torch.nn.init.normal_(layer.weight, std=0.3)
    return result


def coarse(*shape: int, contrast: Contrast | None = None) -> Coarse:
    evidence = Evidence(torch.rand(CLASSES), 0.2 + torch.rand(CLASSES), torch.rand(CLASSES) > 0.3)
    contrast = contrast or Contrast(Levels(0.2, 0.5, 0.9), evidence)
    structures = log_probability(torch.randn(1, CLASSES, *shape))
    prior = TissuePrior.of(structures, contrast)
    return Coarse(torch.rand(1, 4, *shape), torch.randn(1, 1, *shape), structures, prior, contrast.levels)


@torch.no_grad()
def test_begins_at_the_interpolated_and_weighed_answer() -> None:
    network, before, image = Refiner(4, 8, 8), coarse(6, 5, 4), torch.rand(1, 1, 12, 10, 8)
    residual = network(image, before)
    assert residual.tissues.shape == (1, 3, 12, 10, 8) and not residual.tissues.any()
    assert residual.structures.shape == (1, CLASSES, 6, 5, 4) and not residual.structures.any()
    logits, mean, spread = (
        functional.interpolate(x, scale_factor=2, mode="trilinear")
        for x in (before.prior.logits, before.prior.mean, before.prior.spread)
    )
    likelihood = torch.distributions.Normal(mean, spread).log_prob(image)
    expected = (logits + 0.5 * likelihood).log_softmax(1)
    found = network.weigh(before.prior.finer(), image, residual.tissues)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_structures_are_weighed_by_bayes_rule() -> None:
    """Place times intensity times the tissue's residual; what its place rules out stays out, whatever it looks like."""
    torch.manual_seed(0)
    structures, residual = torch.randn(1, CLASSES, 50).log_softmax(1), torch.randn(1, 3, 50)
    structures[:, 5] = -11.0
    known = torch.ones(CLASSES, dtype=torch.bool)
    evidence, intensity = Evidence(torch.rand(CLASSES), torch.full((CLASSES,), 0.4), known), torch.rand(1, 1, 50)
    found = posterior(structures, intensity, evidence, residual, voice=2.0, place=0.7).exp()
    likelihood = torch.distributions.Normal(evidence.mean[:, None], 0.4).log_prob(intensity)
    expected = structures.exp() ** 0.7 * likelihood.exp() ** 2 * residual[:, tissue_of_class()].exp()
    expected[:, 5] = 0
    torch.testing.assert_close(found, expected / expected.sum(1, keepdim=True))
    assert float(found[:, 5].max()) < 1e-9


@torch.no_grad()
def test_a_piece_and_its_surroundings_say_what_the_whole_says(network: Refiner) -> None:
    whole, image = coarse(24, 11, 12), torch.rand(1, 1, 48, 22, 24)
    everything = network(image, whole)
    box = (slice(3, 20), slice(0, 11), slice(0, 12))
    part = network(image[(..., *finer_box(box))], whole.piece(box))
    inner = slice(2 * refiner.REACH, 2 * (17 - refiner.REACH))
    here = slice(2 * (3 + refiner.REACH), 2 * (20 - refiner.REACH))
    torch.testing.assert_close(part.tissues[:, :, inner], everything.tissues[:, :, here])
    assert not torch.allclose(part.tissues[:, :, :2], everything.tissues[:, :, 6:8])
    inner, here = slice(refiner.REACH, 17 - refiner.REACH), slice(3 + refiner.REACH, 20 - refiner.REACH)
    torch.testing.assert_close(part.structures[:, :, inner], everything.structures[:, :, here])
    assert not torch.allclose(part.structures[:, :, :1], everything.structures[:, :, 3:4])


def test_what_lies_outside_the_brain_is_not_brain_because_it_is_bright() -> None:
    """Fat is as bright as white matter: intensities speak up to a limit."""
    structures = torch.full((1, CLASSES, 1), -7.5)
    structures[:, 0] = -0.02
    evidence = Evidence(torch.linspace(0, 1, CLASSES), torch.full((CLASSES,), 0.01), torch.ones(CLASSES).bool())
    found = posterior(structures, torch.ones(1, 1, 1), evidence, torch.zeros(1, 3, 1), voice=1.5).exp()
    assert float(found[0, 0]) > 0.5


@torch.no_grad()
def test_what_is_not_asked_for_changes_nothing(network: Refiner) -> None:
    whole, image = coarse(9, 8, 12), torch.rand(1, 1, 18, 16, 24)
    everything = network(image, whole)
    for asked in ((slice(0, 3), slice(3, 8), slice(5, 7)), (slice(4, 9), slice(0, 8), slice(11, 12))):
        part = network(image, whole, asked)
        torch.testing.assert_close(part.tissues, everything.tissues[(..., *finer_box(asked))])
        torch.testing.assert_close(part.structures, everything.structures[(..., *asked)])


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
        answers.append(network.weigh(before.prior.finer(), scale * image, residual.tissues))
    torch.testing.assert_close(answers[0], answers[1], atol=1e-3, rtol=1e-3)
