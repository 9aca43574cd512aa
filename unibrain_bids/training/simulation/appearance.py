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
_WHITE_AND_GREY = (2, 3)
_WHITE_OF_THE_HINDBRAIN = (7, 16, 28, 46, 60)
_CEREBELLAR_CORTEX = (8, 47)
# Lesions lie around the ventricles within some such mm; one is a few such mm wide.
_AROUND_VENTRICLES_MM, _LESION_MM = 5.0, 7.0


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
    tied = material.tied_class.cpu()
    t1_like = _uniform(generator) < t1_fraction
    if t1_like:
        means, spreads = _t1_tissues(material, generator)
    else:
        means = 250 * torch.rand(len(tied), generator=generator)[tied]
        spreads = 30 * torch.rand(len(tied), generator=generator)[tied]
    # The priors' spreads hold partial volume, which is simulated apart: use a part of them.
    outside = material.index.cpu() >= _EXTRACEREBRAL
    spreads = spreads * torch.where(outside, 0.2 + 0.5 * _uniform(generator), 0.05 + 0.4 * _uniform(generator))
    background = material.index.cpu() == 0
    dark = 0.0 if _uniform(generator) < 0.6 else 12 * _uniform(generator)
    means, spreads = torch.where(background, dark, means), torch.where(background, dark / 3, spreads)
    device = material.t1.device
    return Tissues((means / 255).to(device), (spreads / 255).to(device), t1_like)


def _t1_tissues(material: Material, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Means and spreads of the rows from the T1 priors, widened to what sequences and ages show.

    The priors come from one group of scans. In others white and grey matter lie closer together (old age, other
    inversion times), brain stem and cerebellum are as bright as the cerebrum, and the scalp is far brighter.
    """
    tied, index = material.tied_class.cpu(), material.index.cpu()
    mean, mean_sd, sd, sd_sd = material.t1.cpu().unbind(1)
    # Labels with the same prior (grey matters, say) move together for the most part, as they do between scanners.
    common = torch.unique(mean, return_inverse=True)[1]
    own, shared = torch.randn(len(tied), generator=generator)[tied], torch.randn(len(tied), generator=generator)[common]
    means = (mean + mean_sd * (0.8 * shared + 0.6 * own)).clamp(min=1)
    spreads = (sd + sd_sd * torch.randn(len(tied), generator=generator)[tied]).abs()
    white, grey = (float(means[index == number]) for number in _WHITE_AND_GREY)
    share = _uniform(generator)
    for numbers, level in ((_WHITE_OF_THE_HINDBRAIN, white), (_CEREBELLAR_CORTEX, grey)):
        rows = torch.isin(index, torch.tensor(numbers))
        means[rows] = (1 - share) * means[rows] + share * level
    outside = index >= _EXTRACEREBRAL
    power = 0.45 + 0.75 * _uniform(generator)
    scalp = torch.exp(0.3 * torch.randn((), generator=generator) + 0.3 * torch.randn(len(tied), generator=generator))
    means = torch.where(outside, (means * scalp).clamp(max=1.8 * white), white * (means / white) ** power)
    return means, spreads * torch.where(outside, scalp, power)


def texture(like: torch.Tensor, generator: torch.Generator, device_generator: torch.Generator) -> torch.Tensor:
    """Unit-variance noise, part white and part smooth, (1, 1, X, Y, Z)."""
    white = _noise(like.shape, like.device, device_generator)
    coarse_shape = [max(n // 3, 2) for n in like.shape[2:]]
    coarse = _noise((1, 1, *coarse_shape), like.device, device_generator)
    smooth = functional.interpolate(coarse, size=like.shape[2:], mode="trilinear", align_corners=False)
    share = _uniform(generator)
    return math.sqrt(share) * white + math.sqrt(1 - share) * 1.4 * smooth


def add_lesions(
    clean: torch.Tensor,
    white: torch.Tensor,
    ventricles: torch.Tensor,
    levels: tuple[float, float],
    spacing: float,
    generator: torch.Generator,
) -> torch.Tensor:
    """White matter that is as dark as grey matter: caps and bands around the ventricles, and patches elsewhere.

    Most brains of sixty years and more have some (leukoaraiosis, Wahlund 2001); they stay white matter in the truth.

    Parameters
    ----------
    clean
        (1, 1, X, Y, Z) intensities.
    white, ventricles
        (1, 1, X, Y, Z) part of each voxel that is cerebral white matter, and lateral ventricle.
    levels
        Of white and of grey matter.
    spacing
        Voxel size in mm.
    """
    near = gaussian_blur(ventricles, [_AROUND_VENTRICLES_MM / spacing] * 3)
    coarse = torch.randn(1, 1, *(max(round(n * spacing / _LESION_MM), 2) for n in clean.shape[2:]), generator=generator)
    patches = functional.interpolate(coarse.to(clean), size=clean.shape[2:], mode="trilinear", align_corners=True)
    extent = 1.3 + 1.5 * _uniform(generator)
    lesion = white * torch.sigmoid(8 * ((4 * near).clamp(max=2) + patches - extent))
    darkness = 0.3 + 0.9 * _uniform(generator)
    return clean + lesion * darkness * (levels[1] - levels[0])


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
    for axis, sigma in enumerate(sigmas, start=2):
        if sigma >= 0.1:
            # A product of matrices: ten times as fast on a CPU as a convolution of one channel with a long kernel.
            matrix = _blur_matrix(volume.shape[axis], sigma).to(volume)
            volume = torch.tensordot(volume, matrix, dims=([axis], [1])).movedim(-1, axis)
    return volume.contiguous()


def _blur_matrix(size: int, sigma: float) -> torch.Tensor:
    """Weights (size, size) of the voxels of a line in each of its smoothed voxels."""
    reach = max(1, min(round(3 * sigma), size - 1))
    offsets = torch.arange(-reach, reach + 1)
    kernel = torch.exp(-offsets.float().square() / (2 * sigma**2))
    sources = (torch.arange(size)[:, None] + offsets).clamp(0, size - 1)
    return torch.zeros(size, size).scatter_add(1, sources, (kernel / kernel.sum()).expand(size, -1))


def lower_resolution(
    image: torch.Tensor, spacing: float, generator: torch.Generator, *, large_voxels: bool = True
) -> torch.Tensor:
    """Blur; in a part of the scans, with `large_voxels`, thick slices along one axis or larger voxels altogether."""
    image = gaussian_blur(image, [0.7 * _uniform(generator)] * 3)
    kind = _uniform(generator)
    if kind < 0.6 or not large_voxels:
        return image
    axis = int(torch.randint(0, 3, (), generator=generator))
    thickness = 1.5 + 5 * _uniform(generator) if kind > 0.75 else 1.2 + 1.3 * _uniform(generator)
    factors = [thickness / spacing if kind < 0.75 or axis == side else 1.0 for side in range(3)]
    if max(factors) <= 1.2:
        return image
    image = gaussian_blur(image, [0.4 * factor if factor > 1 else 0.0 for factor in factors])
    size = list(image.shape[2:])
    fewer = [max(int(n / factor), 8) if factor > 1 else n for n, factor in zip(size, factors, strict=True)]
    coarse = functional.interpolate(image, size=fewer, mode="trilinear", align_corners=False)
    return functional.interpolate(coarse, size=size, mode="trilinear", align_corners=False)


def change_contrast(image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Random gamma on a 0..1 image."""
    exponent = math.exp(0.25 * float(torch.randn((), generator=generator)))
    return image.clamp(min=0) ** exponent


def add_noise(image: torch.Tensor, generator: torch.Generator, device_generator: torch.Generator) -> torch.Tensor:
    """Magnitude (Rician) noise."""
    sigma = 0.035 * _uniform(generator) ** 2
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
