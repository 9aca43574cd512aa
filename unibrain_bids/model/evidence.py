"""What the scan's own voxels say: intensities, weighed against the network's probabilities at the scan's resolution.

The network works at 2 mm; between its voxels its probabilities are smooth, while the bias-corrected scan knows where
the boundary runs. Every structure gets a Gaussian of the intensities where the network is sure of it, and Bayes' rule
combines the two, with half a voice for the intensities: neighbouring voxels share noise and partial volume.
"""

from __future__ import annotations

from torch import Tensor

# Chosen on three of the MUSE heads among 0, 0.5 and 1 (docs/training-log.md).
_VOICE = 0.5
_ROUNDS = 2
_SURE = 0.5
_FEWEST_VOXELS = 20
_NARROWEST = 0.03


def weigh_by_intensity(probability: Tensor, intensity: Tensor) -> Tensor:
    """Posterior probabilities (classes, N) of voxels.

    Parameters
    ----------
    probability
        (classes, N) of the network at the voxels.
    intensity
        (N,) bias-corrected.
    """
    prior = probability.clamp(min=1e-6).log()
    posterior = probability
    for _ in range(_ROUNDS):
        mean, spread, known = class_statistics(posterior, intensity)
        likelihood = -0.5 * ((intensity - mean[:, None]) / spread[:, None]).square() - spread.log()[:, None]
        if not known.any():
            return probability
        # A structure too small to know its intensities is judged by the network alone: no voxel speaks against it.
        likelihood[~known] = likelihood[known].amax(0)
        posterior = (prior + _VOICE * likelihood).softmax(0)
    return posterior


def class_statistics(probability: Tensor, intensity: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and standard deviation (classes,) of the intensities where a class is sure, and whether it has enough."""
    weight = probability * (probability > _SURE)
    total = weight.sum(1)
    mean = weight @ intensity / total.clamp(min=1)
    variance = weight @ intensity.square() / total.clamp(min=1) - mean.square()
    spread = variance.clamp(min=0).sqrt().clamp(min=_NARROWEST * float(intensity.mean().abs()) + 1e-6)
    return mean, spread, total > _FEWEST_VOXELS
