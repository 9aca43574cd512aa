"""Neighbours speak for their own classes: against a sum by hand, and against noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from unibrain_bids.model.neighbours import Coupling, couplings, heed_neighbours, heed_neighbours_within, neighbours_say

COUPLING = Coupling(8.0, contrast=2.0)


def test_neighbours_that_look_alike_count_by_their_distance_alone() -> None:
    volume = torch.rand(5, 6, 7, generator=torch.Generator().manual_seed(0))
    kernel = np.zeros((3, 3, 3))
    kernel[0, 1, 1] = kernel[2, 1, 1] = kernel[1, 0, 1] = kernel[1, 2, 1] = COUPLING.strength / 2 / (2 + 1 / 25)
    kernel[1, 1, 0] = kernel[1, 1, 2] = kernel[0, 1, 1] / 25
    expected = ndimage.convolve(volume.double().numpy(), kernel, mode="constant")
    found = neighbours_say(volume, couplings(torch.ones(5, 6, 7), 1.0, COUPLING, np.array([1.0, 1.0, 5.0])))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_neighbours_that_look_unlike_count_little() -> None:
    x, y, z = couplings(torch.tensor([0.0, 1.0, 5.0]).view(3, 1, 1), 0.5, COUPLING)
    alike = COUPLING.strength / 6
    assert x.flatten().tolist() == pytest.approx([alike * np.exp(-0.5), alike * np.exp(-8)], rel=1e-4)
    assert not y.numel() and not z.numel()
    x, _, _ = couplings(torch.tensor([0.0, 1.0, 5.0]).view(3, 1, 1), 0.5, Coupling(8.0, math.inf))
    assert x.flatten().tolist() == pytest.approx([alike, alike]), "unless no contrast matters"


def test_in_a_mask_as_in_a_volume_that_is_nothing_beyond_it() -> None:
    generator = torch.Generator().manual_seed(1)
    mask, intensity = (torch.rand(8, 9, 7, generator=generator) for _ in range(2))
    mask = mask < 0.6
    mask[0] = mask[:, :, -1] = False
    volume = torch.rand(1, 4, 8, 9, 7, generator=generator).softmax(1)
    nothing = torch.zeros(4, 1)
    nothing[0] = 1
    volume[0, :, ~mask] = nothing
    expected = heed_neighbours(volume.log().clamp(min=-60), intensity[None, None], 0.3, COUPLING).exp()[0, :, mask]
    found = heed_neighbours_within(volume[0, :, mask].clone(), mask.numpy(), couplings(intensity, 0.3, COUPLING))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.sum(0), torch.ones(found.shape[1]))


def test_a_class_that_is_hardly_anywhere_is_left_to_itself() -> None:
    mask = np.ones((4, 4, 4), dtype=bool)
    probability = torch.full((3, 64), 0.001)
    probability[0], probability[1] = 0.5, 0.499
    found = heed_neighbours_within(probability, mask, couplings(torch.ones(4, 4, 4), 1.0, COUPLING))
    assert float(found[2].max()) < 0.001


def test_noise_is_outvoted_and_borders_stay() -> None:
    """Two halves, told by intensities with as much noise as contrast: fewer voxels are wrong, on either side alike."""
    generator = torch.Generator().manual_seed(2)
    truth = (torch.arange(24) >= 10).long().view(24, 1, 1).expand(24, 60, 60)
    intensity = truth + torch.randn(truth.shape, generator=generator)
    alone = torch.stack([-(intensity**2) / 2, -((intensity - 1) ** 2) / 2])[None].log_softmax(1)
    together = heed_neighbours(alone, intensity[None, None], 1.0, Coupling(6.0, math.inf))
    wrong_alone, wrong = (x.argmax(1)[0] != truth for x in (alone, together))
    assert wrong.float().mean() < 0.5 * wrong_alone.float().mean()
    border = slice(9, 11)
    assert abs(float(together.argmax(1)[0, border].float().mean()) - 0.5) < 0.02
