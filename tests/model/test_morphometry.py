"""The region network: its measures, what does not move them, and what comes of weights that lack it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from unibrain_bids.model import frame
from unibrain_bids.model.morphometry import PLACE, MorphometricNetwork, measure
from unibrain_bids.model.network import RegionNetwork


def test_measures_against_brute_force() -> None:
    generator = torch.Generator().manual_seed(0)
    regions = torch.rand(2, 5, 4, 3, 6, generator=generator) ** 4
    regions[:, 2] = 0  # a region that was not found
    normalised = torch.rand(2, 1, 4, 3, 6, generator=generator)
    points = frame.points((4, 3, 6), 2.0)
    found = measure(regions, normalised, points).numpy()
    for batch in range(2):
        values = np.concatenate([normalised[batch, 0, ..., None], points], axis=-1).reshape(-1, 4)
        for region in (0, 1, 3, 4):
            weight = regions[batch, region].numpy().ravel()
            mean = np.average(values, axis=0, weights=weight)
            spread = np.sqrt(np.average((values[:, 0] - mean[0]) ** 2, weights=weight))
            np.testing.assert_allclose(found[batch, region, :2], [mean[0], spread], atol=1e-3)
            np.testing.assert_allclose(found[batch, region, 2], np.log(1 + weight.sum()), rtol=1e-5)
            np.testing.assert_allclose(found[batch, region, PLACE], mean[1:], atol=1e-3)
    assert np.isfinite(found).all()


@pytest.fixture
def measures() -> torch.Tensor:
    """Measures (84, 6) of one head."""
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(84, 6, generator=generator)
    values[:, 2] = 6 + 0.5 * values[:, 2]
    values[:, PLACE] *= 40
    return values


@pytest.fixture
def network(measures: torch.Tensor) -> MorphometricNetwork:
    """One that has seen a population near `measures`."""
    network, generator = MorphometricNetwork(6), torch.Generator().manual_seed(2)
    network.reference.copy_(measures[:, PLACE] + 3 * torch.randn(84, 3, generator=generator))
    with torch.no_grad():
        network.anchors.copy_(torch.randn(84, 6, generator=generator))
    return network


def test_pose_size_and_scanner_do_not_matter(measures: torch.Tensor, network: MorphometricNetwork) -> None:
    turn = torch.linalg.matrix_exp(torch.tensor([[0.0, 0.2, 0.1], [-0.2, 0.0, 0.1], [-0.1, -0.1, 0.0]]))
    moved = measures.clone()
    moved[:, PLACE] = 1.1 * measures[:, PLACE] @ turn + torch.tensor([5.0, -8.0, 3.0])
    moved[:, :2] = 1.7 * moved[:, :2] + 0.2
    moved[:, 2] += 0.3
    with torch.no_grad():
        before, after = network.embed(measures), network.embed(moved)
        assert (before - after).norm(dim=1).max() < 0.05
        moved[10, PLACE] += torch.tensor([6.0, 0.0, 0.0])
        change = (before - network.embed(moved)).norm(dim=1)
    assert change.argmax() == 10 and change[10] > 0.2


def test_regions_that_vanish_spoil_nothing(measures: torch.Tensor, network: MorphometricNetwork) -> None:
    without = measures.clone()
    without[7] = 0
    with torch.no_grad():
        change = (network.standardise(without) - network.standardise(measures))[:, PLACE]
    assert torch.isfinite(change).all()
    assert np.delete(change.abs().amax(1).numpy(), 7).max() < 1, "mm"


def test_network_is_a_similarity(network: MorphometricNetwork) -> None:
    regions = torch.rand(2, 84, 4, 3, 6, generator=torch.Generator().manual_seed(3)) ** 4
    with torch.no_grad():
        embedding, matrix = network(regions, torch.rand(2, 1, 4, 3, 6), frame.points((4, 3, 6), 2.0))
    np.testing.assert_allclose(embedding.norm(dim=-1), 1, rtol=1e-5)
    torch.testing.assert_close(matrix, torch.clamp(torch.einsum("brf,bsf->brs", embedding, embedding), min=0))
    np.testing.assert_allclose(matrix.diagonal(dim1=1, dim2=2), 1, rtol=1e-5)
    assert matrix.min() >= 0 and matrix.max() <= 1 + 1e-5 and matrix.std() > 0.1


def test_weights_of_another_network_leave_it_untrained(network: MorphometricNetwork) -> None:
    class Holder(nn.Module):
        def __init__(self, part: nn.Module) -> None:
            super().__init__()
            self.network, self.other = part, nn.Linear(2, 2)

    old, holder = Holder(RegionNetwork(4, 6)), Holder(MorphometricNetwork(6))
    holder.load_state_dict(old.state_dict())
    torch.testing.assert_close(holder.other.weight, old.other.weight)
    torch.testing.assert_close(holder.network.state_dict(), MorphometricNetwork(6).state_dict())
    holder.load_state_dict(Holder(network).state_dict())
    torch.testing.assert_close(holder.network.state_dict(), network.state_dict())
