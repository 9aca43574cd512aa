"""The closed-form gain on the mean head, whose bias field is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from unibrain_bids.model import frame
from unibrain_bids.model.atlas import Atlas
from unibrain_bids.model.gain import refine_log_gain

WHITE, GREY = 100.0, 70.0


def wave(amplitude: float = 0.2) -> Tensor:
    """A smooth logarithm of a gain over the model grid, 20 cm long along y and x."""
    points = frame.points()
    return (amplitude * torch.sin(torch.pi * points[..., 1] / 100) * torch.cos(torch.pi * points[..., 0] / 100))[
        None, None
    ]


@pytest.fixture(scope="module")
def probability(atlas: Atlas) -> Tensor:
    """The atlas's most likely structures, softened a little."""
    labels = atlas.structures[0].argmax(0)
    hard = torch.nn.functional.one_hot(labels, len(frame.STRUCTURES) + 1).movedim(-1, 0)[None].float()
    return 0.9 * hard + 0.1 * atlas.structures


@pytest.fixture(scope="module")
def head(probability: Tensor) -> Tensor:
    """Two intensities and noise, without a bias field (1, 1, X, Y, Z)."""
    labels = probability[0].argmax(0)
    numbers = torch.tensor([0, *frame.STRUCTURES])[labels]
    image = torch.where(labels > 0, GREY, 0.0)
    image[torch.isin(numbers, torch.tensor([2, 41, 7, 46]))] = WHITE
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    return (image * (1 + 0.05 * noise))[None, None]


def refined(head: Tensor, probability: Tensor, log_gain: Tensor, smoothness: float = 0.1) -> Tensor:
    brain = 1 - probability[:, :1]
    flat = torch.zeros_like(head)
    return refine_log_gain(head * torch.exp(-log_gain), probability, brain, flat, smoothness=smoothness)


def error(found: Tensor, truth: Tensor, probability: Tensor) -> float:
    """Standard deviation of the difference in the brain: a constant factor is nobody's error."""
    brain = probability[:, :1] < 0.5
    return float((found - truth)[brain].std())


def test_the_field_is_found(head: Tensor, probability: Tensor) -> None:
    truth, brain = wave(), probability[:, :1] < 0.5
    assert error(refined(head, probability, truth), truth, probability) < 0.27 * float(truth[brain].std())


def test_a_field_that_darkens_the_cerebellum_is_no_contrast(head: Tensor, probability: Tensor) -> None:
    height = frame.points()[None, None, ..., 2]
    truth = 0.3 * torch.sigmoid(-(height + 30) / 15)
    corrected = head * torch.exp(refined(head, probability, truth) - truth)
    winner = torch.tensor([0, *frame.STRUCTURES])[probability[0].argmax(0)][None, None]
    cerebrum, cerebellum = (corrected[torch.isin(winner, torch.tensor(pair))].median() for pair in ((2, 41), (7, 46)))
    assert float(cerebellum / cerebrum) == pytest.approx(1.0, abs=0.02)


def test_where_there_is_no_field_none_is_made_up(head: Tensor, probability: Tensor) -> None:
    assert error(refined(head, probability, wave(0)), wave(0), probability) < 0.005


def test_texture_is_no_field(head: Tensor, probability: Tensor) -> None:
    """Blobs of 1 cm with a standard deviation of 10 %: strong scatter, and no field that it could hide."""
    coarse = torch.randn(1, 1, 16, 19, 16, generator=torch.Generator().manual_seed(1))
    texture = torch.nn.functional.interpolate(coarse, size=frame.SHAPE, mode="trilinear", align_corners=False)
    texture = 0.1 * texture / texture.std()
    assert error(refined(head * torch.exp(texture), probability, wave(0)), wave(0), probability) < 0.005


def test_scalp_mistaken_for_white_matter_does_not_hide_the_field(head: Tensor, probability: Tensor) -> None:
    truth, brain = wave(), probability[:, :1] < 0.5
    mistaken = brain & (frame.points()[..., 2] > 52)
    wrong = torch.where(mistaken, torch.zeros(()), probability)
    wrong[:, frame.STRUCTURES.index(2) + 1][mistaken[:, 0]] = 1.0
    spoilt = torch.where(mistaken, 3 * head, head)
    rest = brain & ~mistaken
    found = refined(spoilt, wrong, truth)
    assert float((found - truth)[rest].std()) < 0.25 * float(truth[rest].std())


def test_lambda_steers_from_rough_to_smooth(head: Tensor, probability: Tensor) -> None:
    fields = [refined(head, probability, wave(), lam)[0, 0] for lam in (0.001, 0.1, 10.0)]
    roughness = [sum(float(field.diff(n=2, dim=axis).square().mean()) for axis in range(3)) for field in fields]
    assert roughness == sorted(roughness, reverse=True)
    assert roughness[0] > 1.2 * roughness[2]


def test_scale_of_the_scan_does_not_matter(head: Tensor, probability: Tensor) -> None:
    once, again = (refined(factor * head, probability, wave()) for factor in (1.0, 37.0))
    torch.testing.assert_close(once, again, atol=1e-4, rtol=0)


def test_it_goes_on_calmly_beyond_the_brain(head: Tensor, probability: Tensor) -> None:
    found = refined(head, probability, wave())
    brain = probability[:, :1] < 0.5
    assert found.abs().max() < 2 * found[brain].abs().max()
    assert max(float(found.diff(dim=axis).abs().max()) for axis in (2, 3, 4)) < 0.05


def test_without_white_matter_the_network_is_believed(head: Tensor, probability: Tensor) -> None:
    nothing = torch.zeros_like(probability)
    nothing[:, 0] = 1
    start = wave()
    result = refine_log_gain(head, nothing, torch.ones_like(head), start, smoothness=0.1)
    np.testing.assert_array_equal(result, start)
