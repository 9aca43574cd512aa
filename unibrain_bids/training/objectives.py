"""Losses; volumes are (batch, channel, X, Y, Z), means over everything else give a scalar."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def segmentation_loss(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Soft Dice loss over the classes present, and cross-entropy.

    Parameters
    ----------
    logits
        (batch, classes, X, Y, Z).
    truth
        (batch, X, Y, Z) int64; or (batch, places, X, Y, Z), classes at several places within each voxel, which count
        alike: a voxel's target are then the classes' shares in it.
    """
    log_probability = functional.log_softmax(logits.float(), dim=1)
    index = truth.long().flatten(2) if truth.ndim == logits.ndim else truth.long().flatten(1)[:, None]
    places, classes = index.shape[1], logits.shape[1]
    flat = log_probability.flatten(2)
    cross_entropy = -flat.gather(1, index).mean()
    probability = flat.exp()
    # Sums per class by scatter: a one-hot copy of the truth would cost as much memory as the logits.
    picked = probability.gather(1, index).flatten(1) / places
    zeros = probability.new_zeros(logits.shape[0], classes)
    intersection = zeros.scatter_add(1, index.flatten(1), picked)
    volume = zeros.scatter_add(1, index.flatten(1), torch.full_like(picked, 1 / places))
    dice = (2 * intersection + 1) / (probability.sum(2) + volume + 1)
    present = volume > 0
    present[:, 0] = False
    return 1 - dice[present].mean(), cross_entropy


def mask_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Binary cross-entropy plus soft Dice loss of masks (batch, channels, X, Y, Z)."""
    logits = logits.float()
    probability = torch.sigmoid(logits)
    axes = (2, 3, 4)
    dice = (2 * (probability * truth).sum(axes) + 1) / (probability.sum(axes) + truth.sum(axes) + 1)
    return functional.binary_cross_entropy_with_logits(logits, truth) + 1 - dice.mean()


def total_variation(field: Tensor) -> Tensor:
    """Mean absolute difference of neighbours along the three axes (NPP's L_TV)."""
    terms = [torch.diff(field, dim=axis).abs().mean() for axis in (2, 3, 4)]
    return torch.stack(terms).sum()


def ssim(a: Tensor, b: Tensor, *, window: int = 5, data_range: float = 1.0) -> Tensor:
    """Mean structural similarity of (batch, 1, X, Y, Z) volumes with a uniform window (Wang et al. 2004)."""
    a, b = a.float(), b.float()

    def local_mean(x: Tensor) -> Tensor:
        return functional.avg_pool3d(x, window, stride=1)

    mean_a, mean_b = local_mean(a), local_mean(b)
    variance_a = local_mean(a * a) - mean_a**2
    variance_b = local_mean(b * b) - mean_b**2
    covariance = local_mean(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    similarity = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return (similarity / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2))).mean()


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation over the whole volume, mean over the batch (UniBrain's registration similarity)."""
    a, b = a.float().flatten(1), b.float().flatten(1)
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return (functional.cosine_similarity(a, b, dim=1)).mean()
