"""Intensities weighed against the network's probabilities."""

from __future__ import annotations

import torch

from unibrain_bids.model.evidence import class_statistics, weigh_by_intensity


def _two_classes(shift: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A line of voxels with two intensities; the network's boundary lies `shift` voxels beside the true one."""
    generator = torch.Generator().manual_seed(0)
    place = torch.arange(400.0)
    truth = (place >= 200).long()
    intensity = 50 + 50 * truth + 5 * torch.randn(400, generator=generator)
    second = torch.sigmoid((place - 200 - shift) / 4)
    return torch.stack([1 - second, second]), intensity, truth


def test_boundary_moves_to_where_the_scan_has_it() -> None:
    probability, intensity, truth = _two_classes(shift=6)
    before = (probability.argmax(0) != truth).sum()
    posterior = weigh_by_intensity(probability, intensity)
    after = (posterior.argmax(0) != truth).sum()
    torch.testing.assert_close(posterior.sum(0), torch.ones(400))
    assert before >= 5 and after <= 1


def test_statistics_are_those_of_the_sure_voxels() -> None:
    probability, intensity, truth = _two_classes(shift=0)
    mean, spread, known = class_statistics(probability, intensity)
    for label in (0, 1):
        values = intensity[truth == label]
        assert abs(mean[label] - values.mean()) < 1 and abs(spread[label] - values.std()) < 1
    assert known.all()


def test_a_class_too_small_to_be_known_keeps_its_place() -> None:
    probability, intensity, _ = _two_classes(shift=0)
    tiny = torch.zeros(1, 400)
    tiny[0, 100:105] = 20.0
    probability = torch.cat([probability, tiny])
    probability = probability / probability.sum(0)
    posterior = weigh_by_intensity(probability, intensity)
    assert (posterior.argmax(0)[100:105] == 2).all()
    assert torch.isfinite(posterior).all()
