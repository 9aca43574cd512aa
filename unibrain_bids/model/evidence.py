"""What the scan's own voxels say: intensities, weighed against the network's probabilities at the scan's resolution.

The network works at 2 mm; between its voxels its probabilities are smooth, while the bias-corrected scan knows where
the boundary runs. Every structure gets a Gaussian of the intensities where the network is sure of it, and Bayes' rule
combines the two, with half a voice for the intensities: neighbouring voxels share noise and partial volume.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

# Chosen on three of the MUSE heads among 0, 0.5 and 1 (docs/training-log.md).
VOICE = 0.5
_ROUNDS = 2
_SURE = 0.5
_FEWEST_VOXELS = 20
_NARROWEST = 0.03
_RAREST = 1e-6


@dataclass(frozen=True)
class Evidence:
    """A Gaussian of the intensities of each class.

    Attributes
    ----------
    mean, spread
        (classes,) of the bias-corrected intensities.
    known
        (classes,) whether there were enough voxels to know them.
    """

    mean: Tensor
    spread: Tensor
    known: Tensor

    def log_likelihood(self, intensity: Tensor) -> Tensor:
        """Of each class (batch, classes, ...) at intensities (batch, 1, ...), up to a constant."""
        shape = (1, -1) + (1,) * (intensity.ndim - 2)
        mean, spread = self.mean.view(shape), self.spread.view(shape)
        likelihood = (intensity - mean).div_(spread).square_().mul_(-0.5).sub_(spread.log())
        if not self.known.any():
            return torch.zeros_like(likelihood)
        # A structure too small to know its intensities is judged by the network alone: no voxel speaks against it.
        likelihood[:, ~self.known] = likelihood[:, self.known].amax(1, keepdim=True)
        return likelihood


def gather_evidence(probability: Tensor, intensity: Tensor) -> Evidence:
    """Learn the classes' intensities from voxels.

    Parameters
    ----------
    probability
        (classes, N) of the network at the voxels.
    intensity
        (N,) bias-corrected.
    """
    posterior, prior = probability, probability.clamp(min=_RAREST).log()
    for _ in range(_ROUNDS):
        evidence = class_statistics(posterior, intensity)
        posterior = weigh(prior[None], intensity[None, None], evidence)[0].exp()
    return evidence


def weigh(log_probability: Tensor, intensity: Tensor, evidence: Evidence) -> Tensor:
    """Logarithms of the posterior (batch, classes, ...) from those of the prior, at intensities (batch, 1, ...)."""
    return (log_probability + VOICE * evidence.log_likelihood(intensity)).log_softmax(1)


def class_statistics(probability: Tensor, intensity: Tensor) -> Evidence:
    """Mean and standard deviation of the intensities (N,) where a class of (classes, N) is sure."""
    weight = functional.threshold(probability, _SURE, 0.0).double()
    powers = torch.stack([torch.ones_like(intensity), intensity, intensity.square()], dim=1).double()
    total, first, second = (weight @ powers).unbind(1)
    mean = first / total.clamp(min=1)
    variance = second / total.clamp(min=1) - mean.square()
    narrowest = _NARROWEST * float(intensity.double().mean().abs()) + 1e-6 if len(intensity) else 1.0
    spread = variance.clamp(min=0).sqrt().clamp(min=narrowest)
    return Evidence(mean.float(), spread.float(), total > _FEWEST_VOXELS)
