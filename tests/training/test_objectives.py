"""Losses against their formulas, written once more with numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view

from unibrain_bids.training import objectives
from unibrain_bids.training.recipes.basis import dice_scores


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    torch.manual_seed(0)


def test_segmentation_loss() -> None:
    logits, truth = torch.randn(2, 5, 4, 5, 6), torch.randint(0, 4, (2, 4, 5, 6))  # class 4 is absent
    truth[1][truth[1] == 3] = 0  # and class 3 from the second scan
    dice_loss, cross_entropy = objectives.segmentation_loss(logits, truth)
    probability = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True)
    picked = np.take_along_axis(probability, truth.numpy()[:, None], axis=1)
    assert float(cross_entropy) == pytest.approx(-np.log(picked).mean(), rel=1e-5)
    scores = []
    for batch, classes in ((0, (1, 2, 3)), (1, (1, 2))):
        for c in classes:
            p, t = probability[batch, c], truth[batch].numpy() == c
            scores.append((2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1))
    assert float(dice_loss) == pytest.approx(1 - np.mean(scores), rel=1e-5)
    perfect = 30.0 * torch.nn.functional.one_hot(truth, 5).permute(0, 4, 1, 2, 3)
    assert max(float(term) for term in objectives.segmentation_loss(perfect, truth)) < 1e-4


def test_shares_of_classes_are_the_mean_over_places() -> None:
    """Cross-entropy against several places within a voxel is that against their shares; so is the overlap."""
    logits, places = torch.randn(1, 5, 4, 5, 6), torch.randint(0, 5, (1, 4, 4, 5, 6), dtype=torch.uint8)
    dice_loss, cross_entropy = objectives.segmentation_loss(logits, places)
    single = [float(objectives.segmentation_loss(logits, places[:, k].long())[1]) for k in range(4)]
    assert float(cross_entropy) == pytest.approx(np.mean(single), rel=1e-5)
    shares = torch.nn.functional.one_hot(places.long(), 5).double().mean(1).movedim(-1, 1).numpy()
    p = logits.double().softmax(1).numpy()
    scores = [(2 * (p[0, c] * shares[0, c]).sum() + 1) / (p[0, c].sum() + shares[0, c].sum() + 1) for c in range(1, 5)]
    assert float(dice_loss) == pytest.approx(1 - np.mean(scores), rel=1e-4)
    same = places[:, :1].expand(-1, 4, -1, -1, -1)
    for one, four in zip(
        objectives.segmentation_loss(logits, places[:, 0].long()), objectives.segmentation_loss(logits, same),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(one, four)


def test_mask_loss() -> None:
    logits, truth = torch.randn(2, 2, 4, 5, 6), torch.randint(0, 2, (2, 2, 4, 5, 6)).float()
    p, t = 1 / (1 + np.exp(-logits.numpy())), truth.numpy()
    entropy = -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean()
    axes = (2, 3, 4)
    dice = (2 * (p * t).sum(axes) + 1) / (p.sum(axes) + t.sum(axes) + 1)
    assert float(objectives.mask_loss(logits, truth)) == pytest.approx(entropy + 1 - dice.mean(), rel=1e-5)
    assert float(objectives.mask_loss(60 * (truth - 0.5), truth)) < 1e-4


def test_total_variation() -> None:
    field = torch.randn(1, 1, 4, 5, 6)
    expected = sum(np.abs(np.diff(field[0, 0].numpy(), axis=axis)).mean() for axis in range(3))
    assert float(objectives.total_variation(field)) == pytest.approx(expected, rel=1e-5)
    assert float(objectives.total_variation(torch.full((1, 1, 3, 3, 3), 7.0))) == 0


def test_ssim_is_wangs_formula_in_every_window() -> None:
    a = torch.rand(1, 1, 9, 8, 10)
    b = (a + 0.2 * torch.randn_like(a)).clamp(0, 1)
    windows = [sliding_window_view(x[0, 0].double().numpy(), (5, 5, 5)).reshape(-1, 125) for x in (a, b)]
    (mean_a, mean_b), (var_a, var_b) = ([getattr(w, m)(1) for w in windows] for m in ("mean", "var"))
    covariance = ((windows[0] - mean_a[:, None]) * (windows[1] - mean_b[:, None])).mean(1)
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    similarity /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    assert float(objectives.ssim(a, b)) == pytest.approx(similarity.mean(), abs=1e-4)
    assert float(objectives.ssim(a, a)) == pytest.approx(1, abs=1e-4)


def test_correlation() -> None:
    a, b = torch.rand(2, 1, 4, 5, 6), torch.rand(2, 1, 4, 5, 6)
    expected = np.mean([np.corrcoef(x.flatten(), y.flatten())[0, 1] for x, y in zip(a, b, strict=True)])
    assert float(objectives.correlation(a, b)) == pytest.approx(expected, abs=1e-6)
    assert float(objectives.correlation(a, 5 - 3 * a)) == pytest.approx(-1, abs=1e-5)


def test_dice_scores() -> None:
    truth, predicted = torch.randint(0, 4, (1, 6, 6, 6)), torch.randint(0, 4, (1, 6, 6, 6))
    scores = dice_scores(predicted, truth, 5)
    for c in (1, 2, 3):
        p, t = predicted == c, truth == c
        assert float(scores[c - 1]) == pytest.approx(2 * int((p & t).sum()) / int(p.sum() + t.sum()))
    assert torch.isnan(scores[3]), "absent from both"
