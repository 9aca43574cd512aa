"""What a scanner would show: intensities, texture, bias field, resolution, noise, missing parts.

Each corruption draws its few parameters on the CPU (so that a seed means the same on every device) and applies them
on the device of the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

from unibrain_bids.training.simulation.material import Material

_EXTRACEREBRAL = 500


@dataclass(frozen=True)
class Tissues:
    """Drawn intensities, one entry a row of the label table, on a 0..1 scale.

    Attributes
    ----------
    mean, sd
        (rows,) of the Gaussian of each row.
    t1_like
        Whether they were drawn from the T1 priors.
    """

    mean: torch.Tensor
    sd: torch.Tensor
    t1_like: bool


def draw_tissues(material: Material, generator: torch.Generator, t1_fraction: float) -> Tissues:
    """Intensities from the T1 priors, or any contrast (SynthSeg), left and right alike."""
    rows = len(material.index)
    t1_like = _uniform(generator) < t1_fraction
    # Labels with the same prior (grey matters, say) move together for the most part, as they do between scanners.
    tied, common = material.tied_class.cpu(), torch.unique(material.t1.cpu()[:, 0], return_inverse=True)[1]
    own, shared = torch.randn(rows, generator=generator)[tied], torch.randn(rows, generator=generator)[common]
    if t1_like:
        mean, mean_sd, sd, sd_sd = material.t1.cpu().unbind(1)
        means = mean + mean_sd * (0.8 * shared + 0.6 * own)
        spreads = (sd + sd_sd * torch.randn(rows, generator=generator)[tied]).abs()
        means = means.clamp(min=0)
    else:
        means = 250 * torch.rand(rows, generator=generator)[tied]
        spreads = 30 * torch.rand(rows, generator=generator)[tied]
    inside = material.index.cpu() < _EXTRACEREBRAL
    # The priors' spreads hold partial volume, which is simulated apart: use a part of them within the brain.
    spreads = spreads * torch.where(inside, 0.1 + 0.6 * _uniform(generator), 0.3 + 0.7 * _uniform(generator))
    background = material.index.cpu() == 0
    dark = 0.0 if _uniform(generator) < 0.6 else 12 * _uniform(generator)
    means, spreads = torch.where(background, dark, means), torch.where(background, dark / 3, spreads)
    device = material.t1.device
    return Tissues((means / 255).to(device), (spreads / 255).to(device), t1_like)


def texture(like: torch.Tensor, generator: torch.Generator, device_generator: torch.Generator) -> torch.Tensor:
    """Unit-variance noise, part white and part smooth, (1, 1, X, Y, Z)."""
    white = _noise(like.shape, like.device, device_generator)
    coarse_shape = [max(n // 3, 2) for n in like.shape[2:]]
    coarse = _noise((1, 1, *coarse_shape), like.device, device_generator)
    smooth = functional.interpolate(coarse, size=like.shape[2:], mode="trilinear", align_corners=False)
    share = _uniform(generator)
    return math.sqrt(share) * white + math.sqrt(1 - share) * 1.4 * smooth


def draw_log_bias(
    shape: tuple[int, ...], generator: torch.Generator, device: torch.device, strongest: float
) -> torch.Tensor:
    """Logarithm of a smooth bias field (1, 1, X, Y, Z), zero mean over the grid."""
    strength = strongest * _uniform(generator)
    cells = int(torch.randint(3, 6, (), generator=generator))
    coarse = strength * torch.randn(1, 1, cells, cells, cells, generator=generator)
    # Trilinear interpolation leaves creases at the control points, which the blur takes away.
    field = functional.interpolate(coarse.to(device), size=shape, mode="trilinear", align_corners=True)
    field = gaussian_blur(field, [n / (cells - 1) / 3 for n in shape])
    return field - field.mean()


def gaussian_blur(volume: torch.Tensor, sigmas: list[float]) -> torch.Tensor:
    """Gaussian smoothing of (1, 1, X, Y, Z) by sigmas in voxels, axis by axis, edges replicated."""
    for axis, sigma in enumerate(sigmas):
        if sigma < 0.1:
            continue
        reach = max(1, min(round(3 * sigma), volume.shape[2 + axis] - 1))
        offsets = torch.arange(-reach, reach + 1, device=volume.device, dtype=volume.dtype)
        kernel = torch.exp(-offsets.square() / (2 * sigma**2))
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = 2 * reach + 1
        padding = [0] * 6
        padding[2 * (2 - axis)] = padding[2 * (2 - axis) + 1] = reach
        padded = functional.pad(volume, padding, mode="replicate")
        volume = functional.conv3d(padded, (kernel / kernel.sum()).view(shape))
    return volume


def lower_resolution(image: torch.Tensor, spacing: float, generator: torch.Generator) -> torch.Tensor:
    """Blur; and, in a part of the scans, thick slices along one axis."""
    image = gaussian_blur(image, [0.7 * _uniform(generator)] * 3)
    if _uniform(generator) < 0.75:
        return image
    axis = int(torch.randint(0, 3, (), generator=generator))
    thickness = (1.5 + 5 * _uniform(generator)) / spacing
    if thickness <= 1.2:
        return image
    sigmas = [0.0, 0.0, 0.0]
    sigmas[axis] = 0.4 * thickness
    image = gaussian_blur(image, sigmas)
    size = list(image.shape[2:])
    slices = size.copy()
    slices[axis] = max(int(size[axis] / thickness), 8)
    thick = functional.interpolate(image, size=slices, mode="trilinear", align_corners=False)
    return functional.interpolate(thick, size=size, mode="trilinear", align_corners=False)


def change_contrast(image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Random gamma on a 0..1 image."""
    exponent = math.exp(0.25 * float(torch.randn((), generator=generator)))
    return image.clamp(min=0) ** exponent


def add_noise(image: torch.Tensor, generator: torch.Generator, device_generator: torch.Generator) -> torch.Tensor:
    """Magnitude (Rician) noise."""
    sigma = 0.04 * _uniform(generator) ** 2
    real = image + sigma * _noise(image.shape, image.device, device_generator)
    imaginary = sigma * _noise(image.shape, image.device, device_generator)
    return (real.square() + imaginary.square()).sqrt()


def remove_parts(
    image: torch.Tensor, brain: torch.Tensor, frame_points: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Skull-stripped, defaced or cropped scans: zeros where nothing was kept.

    Parameters
    ----------
    image, brain
        (1, 1, X, Y, Z); defacing spares the brain, a cropped field of view may cut it.
    frame_points
        (X, Y, Z, 3) frame mm of each voxel.
    """
    choice = _uniform(generator)
    if choice < 0.10:
        reach = int(torch.randint(0, 3, (), generator=generator))
        kept = functional.max_pool3d(brain, 2 * reach + 1, stride=1, padding=reach)
        return image * kept
    if choice < 0.30:
        around = functional.max_pool3d(brain, 7, stride=1, padding=3)
        normal = torch.tensor([0.0, 0.6 + 0.4 * _uniform(generator), -0.8]).to(image.device)
        face = frame_points @ normal > 55 + 40 * _uniform(generator)
        return torch.where(face & (around < 0.5), torch.zeros_like(image), image)
    if choice < 0.45:
        axis = int(torch.randint(0, 3, (), generator=generator))
        side = 1.0 if _uniform(generator) < 0.5 else -1.0
        return image * (side * frame_points[..., axis] < 55 + 40 * _uniform(generator))
    return image


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def _noise(shape: tuple[int, ...], device: torch.device, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(tuple(shape), device=device, generator=generator)
