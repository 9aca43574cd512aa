"""Muon: orthogonal steps of Adam's size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unibrain_bids.training.muon import Muon, orthogonalised


@pytest.mark.parametrize("shape", [(5, 40), (40, 5), (16, 16)])
def test_singular_values_come_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalised(torch.randn(shape)))
    assert values.min() > 0.5 and values.max() < 1.3


def test_directions_are_those_of_the_matrix() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(6, 20)
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    aligned = u.T @ orthogonalised(matrix) @ vh.T
    assert (aligned - torch.diag(aligned.diagonal())).abs().max() < 1e-3 and (aligned.diagonal() > 0.5).all()


def test_learns_a_kernel() -> None:
    """A convolution finds the kernel that made its target."""
    torch.manual_seed(0)
    made, learnt = (nn.Conv3d(3, 4, 3, padding=1, bias=False) for _ in range(2))
    optimiser = Muon(learnt.parameters(), lr=0.01)
    errors = []
    for step in range(150):
        optimiser.param_groups[0]["lr"] = 0.01 * (1 - step / 150)
        x = torch.randn(2, 3, 6, 6, 6)
        loss = (learnt(x) - made(x)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        errors.append(loss.item())
    assert errors[-1] < 0.01 * errors[0]
