"""Intensities weighed against the network's probabilities."""

from __future__ import annotations

import torch

from unibrain_bids.model.evidence import class_statistics, gather_evidence, weigh


def _two_classes(shift: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A line of voxels with two intensities; the network's boundary lies `shift` voxels beside the true one."""
    generator = torch.Generator().manual_seed(0)
    place = torch.arange(400.0)
    truth = (place >= 200).long()
    intensity = 50 + 50 * truth + 5 * torch.randn(400, generator=generator)
    second = torch.sigmoid((place - 200 - shift) / 4)
    return torch.stack([1 - second, second]), intensity, truth


def _posterior(probability: torch.Tensor, intensity: torch.Tensor) -> torch.Tensor:
    prior = probability[None].clamp(min=1e-6).log()
    return weigh(prior, intensity[None, None], gather_evidence(probability, intensity))[0].exp()


def test_boundary_moves_to_where_the_scan_has_it() -> None:
    probability, intensity, truth = _two_classes(shift=6)
    before = (probability.argmax(0) != truth).sum()
    posterior = _posterior(probability, intensity)
    after = (posterior.argmax(0) != truth).sum()
    torch.testing.assert_close(posterior.sum(0), torch.ones(400))
    assert before >= 5 and after <= 1


def test_statistics_are_those_of_the_sure_voxels() -> None:
    probability, intensity, truth = _two_classes(shift=0)
    found = class_statistics(probability, intensity)
    for label in (0, 1):
        values = intensity[truth == label]
        assert abs(found.mean[label] - values.mean()) < 1 and abs(found.spread[label] - values.std()) < 1
    assert found.known.all()


def test_a_class_too_small_to_be_known_keeps_its_place() -> None:
    probability, intensity, _ = _two_classes(shift=0)
    tiny = torch.zeros(1, 400)
    tiny[0, 100:105] = 20.0
    probability = torch.cat([probability, tiny])
    probability = probability / probability.sum(0)
    posterior = _posterior(probability, intensity)
    assert (posterior.argmax(0)[100:105] == 2).all()
    assert torch.isfinite(posterior).all()


def test_without_a_known_class_the_network_is_believed() -> None:
    probability = torch.full((2, 9), 0.5)
    torch.testing.assert_close(_posterior(probability, torch.rand(9)), probability)
    assert torch.isfinite(gather_evidence(torch.zeros(2, 0), torch.zeros(0)).spread).all()
