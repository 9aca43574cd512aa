"""A smooth, invertible deformation between two brains that an affine has already brought together.

What moves is a stationary velocity field (Arsigny 2006; as in DARTEL and VoxelMorph) on a coarse grid in the population
frame. Its exponential is a diffeomorphism, that of its negative the inverse. It is fitted, for each pair of brains, to
the structures that the model has found, and the intensities within them (the affine, `refine`, sees no intensities).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from unibrain_bids.model import frame
from unibrain_bids.model.refine import AlignedBrain, read_own_channel

# mm between neighbouring velocities, and between the displacements that are kept. Velocities every 4 mm, or coarser
# ones first, gained less than .005 Dice on real heads.
_FITTED_MM, _KEPT_MM = 8.0, 4.0
_HALVINGS = 5
_STEPS, _LEARNING_RATE = 35, 0.8
# Price of the velocity's mean squared slope; half of it brings Jacobian determinants below .2 and no more overlap.
_STIFFNESS = 2.0
# Compared is every second voxel, background near a structure as well, or nothing would keep structures from growing.
_STRIDE, _MARGIN_VOXELS = 2, 2


@dataclass(frozen=True)
class Deformation:
    """Displacements in the population frame.

    Attributes
    ----------
    forward
        (3, x, y, z) float32, mm, every 4 mm: a point of the fixed brain plus its displacement is the same place in the
        moving one.
    inverse
        The same from the moving brain to the fixed one.
    """

    forward: NDArray[np.float32]
    inverse: NDArray[np.float32]

    def moving_from_fixed(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Points (N, 3) of the fixed brain, frame mm, to the same places in the moving one."""
        return _displaced(self.forward, points)

    def fixed_from_moving(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Points (N, 3) of the moving brain, frame mm, to the same places in the fixed one."""
        return _displaced(self.inverse, points)

    def determinants(self) -> NDArray[np.float32]:
        """Jacobian determinants (x, y, z) of the map from fixed to moving: how much each place grows."""
        slopes = np.stack([np.stack(np.gradient(component, _KEPT_MM)) for component in self.forward])
        jacobian = np.moveaxis(slopes, (0, 1), (-2, -1)) + np.eye(3)
        return np.linalg.det(jacobian).astype(np.float32)


def deform(fixed: AlignedBrain, moving: AlignedBrain) -> Deformation:
    """Fit the deformation from the fixed brain to the moving one, which the affine has brought to its place.

    Where the two have no structure in common, nothing moves.
    """
    comparison = _Comparison(fixed, moving)
    velocity = torch.zeros(1, 3, *_grid(_FITTED_MM))
    # Sums over many voxels are divided among threads, and a digit more or less would grow on the way.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if comparison.known:
            velocity = _minimised(comparison, velocity)
        kept = functional.interpolate(velocity, _grid(_KEPT_MM), mode="trilinear")
        return Deformation(_exponential(kept)[0].numpy(), _exponential(-kept)[0].numpy())
    finally:
        torch.set_num_threads(threads)


def _minimised(comparison: _Comparison, velocity: Tensor) -> Tensor:
    """Take the steps of Adam (Kingma 2015); `torch.optim` imports torch's compiler first: two seconds."""
    mean, square = torch.zeros_like(velocity), torch.zeros_like(velocity)
    for step in range(1, _STEPS + 1):
        with torch.inference_mode(False), torch.enable_grad():
            variable = velocity.clone().requires_grad_(True)
            (gradient,) = torch.autograd.grad(comparison.cost(variable), variable)
        mean, square = mean.lerp(gradient, 0.1), square.lerp(gradient.square(), 0.001)
        scale = (square / (1 - 0.999**step)).sqrt() + 1e-8
        velocity = velocity - _LEARNING_RATE * mean / (1 - 0.9**step) / scale
    return velocity


class _Comparison:
    """Places of the fixed brain and what lies there; the moving brain's structures and intensities."""

    def __init__(self, fixed: AlignedBrain, moving: AlignedBrain) -> None:
        near = ndimage.binary_dilation(fixed.channels.numpy() > 0, iterations=_MARGIN_VOXELS)
        every = (slice(None, None, _STRIDE),) * 3
        chosen = torch.from_numpy(near)[every]
        self.points = frame.points()[every][chosen]
        self.channel = fixed.channels[every][chosen]
        self.inside = self.channel > 0
        self.intensity = fixed.image[every][chosen][self.inside]
        self.volume = torch.cat([moving.shares(), moving.image[None]])
        self.image = torch.full_like(self.channel[self.inside], len(self.volume) - 1)
        self.known = bool(torch.isin(self.channel[self.inside], moving.channels).any())
        # Of small structures each voxel counts more, of two structures the larger one in all still more.
        weight = torch.bincount(self.channel, minlength=len(self.volume)).clamp(min=1).float().rsqrt()[self.channel]
        self.weight = weight / weight.sum()

    def cost(self, velocity: Tensor) -> Tensor:
        """What is minimised: disagreement of labels and of intensities, and slopes of the velocity."""
        places = self.points + _read(_exponential(velocity), self.points)
        voxels = places / frame.SPACING + (torch.tensor(self.volume.shape[1:]) - 1) / 2
        agreement = (self.weight * read_own_channel(self.volume, self.channel, voxels)).sum()
        values = read_own_channel(self.volume, self.image, voxels[self.inside])
        a, b = values - values.mean(), self.intensity - self.intensity.mean()
        correlation = (a * b).sum() / (a.square().sum() * b.square().sum() + 1e-12).sqrt()
        slopes = torch.stack([torch.diff(velocity, dim=axis).square().mean() for axis in (2, 3, 4)]).sum()
        return -agreement - correlation + _STIFFNESS * slopes / _FITTED_MM**2


def _grid(spacing: float) -> list[int]:
    return [round(n * frame.SPACING / spacing) for n in frame.SHAPE]


def _exponential(velocity: Tensor) -> Tensor:
    """Displacements (1, 3, x, y, z), mm, of a velocity field on the same grid, by scaling and squaring."""
    shape = tuple(velocity.shape[2:])
    points = frame.points(shape, frame.SHAPE[0] * frame.SPACING / shape[0])
    displacement = velocity / 2**_HALVINGS
    for _ in range(_HALVINGS):
        places = points + displacement[0].permute(1, 2, 3, 0)
        displacement = displacement + _read(displacement, places.reshape(-1, 3)).T.reshape(displacement.shape)
    return displacement


def _read(field: Tensor, points: Tensor) -> Tensor:
    """Values (N, 3) of a field (1, 3, x, y, z) at points (N, 3) in frame mm; the outermost ones beyond it."""
    extent = torch.tensor(frame.SHAPE) * frame.SPACING
    places = (2 * points / extent).flip(-1)[None, None, None]
    return functional.grid_sample(field, places, padding_mode="border", align_corners=False)[0, :, 0, 0].T


def _displaced(field: NDArray[np.float32], points: NDArray[np.floating]) -> NDArray[np.float64]:
    shape = np.array(field.shape[1:])
    places = (np.asarray(points, dtype=np.float64) / _KEPT_MM + (shape - 1) / 2).T
    moves = [ndimage.map_coordinates(component, places, order=1, mode="nearest") for component in field]
    return points + np.stack(moves, axis=1)
