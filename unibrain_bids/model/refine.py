"""The affine of two brains that the model has brought into its frame, refined on what it found in them.

The closed form brings every brain near to its place. From there twelve parameters are optimised on two things
together: the overlap of the segmented structures, and the correlation of the brains' tissues, painted as an ideal
T1-weighted scan would show them. The first keeps the second from sliding along sulci. The scan's own intensities take
no part: painted brains of two scans of one head are more alike than the scans (docs/training-log.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize
from torch import Tensor
from torch.nn import functional

from unibrain_bids.model import frame
from unibrain_bids.model.locate import Volume, pull_averaged
from unibrain_bids.model.spatial import sample, transform_points
from unibrain_bids.model.tissues import tissue_of_class

# Structures and tissues of the moving brain are averaged over so many voxels (4 mm, at first 12) around each corner
# of its grid, and looked up at every second voxel of the fixed one: more places gained less than .01 Dice on real
# heads. Begun at 4 mm, one of three scans of a head stopped .9 mm away from the others (docs/training-log.md).
_STEP = 2
_FINE, _COARSE = 2, 6
_OPTIONS = {"maxiter": 30, "maxfun": 40}
# Voice of the correlation against that of the overlap, in which a structure counts with this power of its size: small
# structures are the noisiest. Chosen for scans of one head to land close together (docs/training-log.md).
_CORRELATION_VOICE, _SIZE_POWER = 1.0, 0.5
# What fluid, grey and white matter are painted with.
_PAINT = (0.2, 0.7, 1.0)
# One unit of the linear part moves the border of a brain by as many mm as one unit of the shift.
_RADIUS_MM = 80.0
# A refinement beyond this is none: the closed form is usually within 5 mm.
_LARGEST_STRETCH, _LARGEST_SHIFT_MM = 1.25, 25.0


@dataclass(frozen=True)
class AlignedBrain:
    """A brain on the model grid, in the place that the closed form gave it.

    Attributes
    ----------
    channels
        (X, Y, Z) int64, the model's channel of each voxel's structure (`frame.STRUCTURES` from 1), 0 for none.
    image
        (X, Y, Z) float32, intensities on any scale; zero outside the brain.
    tissues
        (X, Y, Z) float32, the painted tissues; zero outside the brain.
    """

    channels: Tensor
    image: Tensor
    tissues: Tensor

    def shares(self) -> Tensor:
        """Return what each channel has of each voxel, (1 + structures, X, Y, Z): 0 or 1."""
        count = len(frame.STRUCTURES) + 1
        return torch.zeros(count, *self.channels.shape).scatter_(0, self.channels[None], 1.0)


@dataclass(frozen=True)
class Refinement:
    """An affine between two aligned brains, and how well they agree there.

    Attributes
    ----------
    moving_from_fixed
        (4, 4) float64, frame mm; the identity where no better one was found.
    overlap
        Mean soft Dice of the structures, 0..1, the moving ones averaged over the width compared (at last 4 mm).
    correlation
        Of the scans' own intensities within the structures, -1..1.
    """

    moving_from_fixed: NDArray[np.float64]
    overlap: float
    correlation: float

    def worlds(
        self, frame_from_fixed: NDArray[np.floating], frame_from_moving: NDArray[np.floating]
    ) -> NDArray[np.float64]:
        """Return the affine (4, 4) from the moving brain's world to the fixed one's, RAS mm.

        Parameters
        ----------
        frame_from_fixed, frame_from_moving
            Each world to population frame, as `align_brain` was given them.
        """
        return np.linalg.inv(self.moving_from_fixed @ frame_from_fixed) @ frame_from_moving


def align_brain(
    image: NDArray[np.floating],
    structures: NDArray[np.integer],
    affine: NDArray[np.floating],
    frame_from_world: NDArray[np.floating],
) -> AlignedBrain:
    """Bring a stripped image and its structures onto the model grid.

    Parameters
    ----------
    image, structures
        (X, Y, Z) intensities, zero outside the brain, and FreeSurfer numbers on the same grid.
    affine
        Voxel to world, RAS mm.
    frame_from_world
        World to population frame, RAS mm, by the closed form.
    """
    lookup = torch.zeros(max(*frame.STRUCTURES, int(structures.max())) + 1)
    lookup[list(frame.STRUCTURES)] = torch.arange(1, len(frame.STRUCTURES) + 1).float()
    channels = lookup[torch.from_numpy(np.ascontiguousarray(structures, dtype=np.int64))]
    points = frame.points()
    world_from_frame = np.linalg.inv(frame_from_world)
    voxel_from_frame = torch.from_numpy(np.linalg.inv(affine) @ world_from_frame).float()
    places = transform_points(voxel_from_frame[None], points)
    intensity = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
    painted = torch.tensor(_PAINT)[tissue_of_class()[channels.long()]] * ((intensity != 0) | (channels > 0))
    data = torch.stack([intensity, painted])[None]
    averaged = pull_averaged(Volume(data, affine), world_from_frame, points, frame.SPACING)[0]
    return AlignedBrain(
        channels=sample(channels[None, None], places, mode="nearest")[0, 0].long(),
        image=averaged[0],
        tissues=averaged[1],
    )


def refine_twice(
    fixed: AlignedBrain,
    image: NDArray[np.floating],
    structures: NDArray[np.integer],
    affine: NDArray[np.floating],
    frame_from_world: NDArray[np.floating],
) -> Refinement:
    """Refine the affine to a brain that lies on its own grid; parameters as of `align_brain`.

    First on a blurred brain, whose one optimum is wide; then on a sharper one, sampled where the first has led, so that
    the result depends less on the start, and two scans of one head land closer together.
    """
    first = refine(fixed, align_brain(image, structures, affine, frame_from_world), width=_COARSE)
    nearer = np.linalg.inv(first.moving_from_fixed) @ frame_from_world
    second = refine(fixed, align_brain(image, structures, affine, nearer))
    return replace(second, moving_from_fixed=first.moving_from_fixed @ second.moving_from_fixed)


def refine(fixed: AlignedBrain, moving: AlignedBrain, *, width: int = _FINE) -> Refinement:
    """Optimise the affine from the fixed brain to the moving one, from the identity on.

    Brains that share no structure agree by 0, and nothing is moved. `width` is what the moving brain is averaged over,
    in voxels.
    """
    comparison = _Comparison(fixed, moving, width)
    if not comparison.known.any():
        return Refinement(np.eye(4), 0.0, 0.0)
    # scipy's, as `torch.optim` imports torch's compiler first: two seconds.
    found = optimize.minimize(comparison.cost, np.zeros(12), jac=True, method="L-BFGS-B", options=_OPTIONS)
    matrix = _affine(torch.from_numpy(found.x).float())
    if not _is_small(matrix):
        matrix = torch.eye(4)
    dice, _ = comparison.at(matrix)
    return Refinement(matrix.double().numpy(), float(dice.mean()), comparison.of_intensities(matrix))


class _Comparison:
    """Places of the fixed brain in all structures; the moving brain's structures and tissues, smoothed."""

    def __init__(self, fixed: AlignedBrain, moving: AlignedBrain, width: int) -> None:
        every = (slice(None, None, _STEP),) * 3
        inside = fixed.channels[every] > 0
        self.points = frame.points()[every][inside]
        self.channel = fixed.channels[every][inside]
        self.tissue, self.intensity = fixed.tissues[every][inside], fixed.image[every][inside]
        shares = moving.shares()
        shares[0] = moving.tissues
        count = len(shares)
        self.volume, self.image = _smooth(shares, width), _smooth(moving.image[None], width)
        self.moving_size = self.volume[1:].sum((1, 2, 3)) / _STEP**3
        self.fixed_size = torch.bincount(self.channel, minlength=count)[1:].float()
        self.known = (self.moving_size > 0) & (self.fixed_size > 0)
        weight = self.fixed_size[self.known] ** _SIZE_POWER
        self.weight = weight / weight.sum()

    def at(self, moving_from_fixed: Tensor) -> tuple[Tensor, Tensor]:
        """Soft Dice of the known structures and correlation of the tissues after an affine (4, 4), differentiable."""
        voxels = self._voxels(moving_from_fixed)
        found = read_own_channel(self.volume, self.channel, voxels)
        common = torch.zeros(len(self.volume)).index_add(0, self.channel, found)[1:]
        # Where the affine enlarges the step from fixed to moving, the moving structures get fewer voxels.
        moving_size = self.moving_size / torch.linalg.det(moving_from_fixed[:3, :3])
        dice = (2 * common / (moving_size + self.fixed_size))[self.known]
        return dice, _correlation(self.volume, voxels, self.tissue)

    def of_intensities(self, moving_from_fixed: Tensor) -> float:
        """Correlation of the scans' intensities after an affine (4, 4)."""
        return float(_correlation(self.image, self._voxels(moving_from_fixed), self.intensity))

    def cost(self, parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """What is minimised over the twelve parameters, and its gradient."""
        with torch.inference_mode(False), torch.enable_grad():
            variable = torch.tensor(parameters, dtype=torch.float32, requires_grad=True)
            dice, correlation = self.at(_affine(variable))
            value = -(self.weight * dice).sum() - _CORRELATION_VOICE * correlation
            (gradient,) = torch.autograd.grad(value, variable)
        return float(value.detach()), gradient.double().numpy()

    def _voxels(self, moving_from_fixed: Tensor) -> Tensor:
        points = self.points @ moving_from_fixed[:3, :3].T + moving_from_fixed[:3, 3]
        return points / frame.SPACING + (torch.tensor(self.volume.shape[1:]) - 1) / 2


def _smooth(volume: Tensor, width: int) -> Tensor:
    # Smoothed but not thinned out: a coarser grid's own places would decide where the brain comes to lie.
    for kernel in ((width, 1, 1), (1, width, width)):
        volume = functional.avg_pool3d(volume, kernel, stride=1)
    return volume


def _correlation(volume: Tensor, voxels: Tensor, values: Tensor) -> Tensor:
    """Of the first channel of a volume (channels, X, Y, Z), read at voxels (N, 3), with values (N,)."""
    found = read_own_channel(volume, torch.zeros(len(voxels), dtype=torch.int64), voxels)
    a, b = found - found.mean(), values - values.mean()
    return (a * b).sum() / (a.square().sum() * b.square().sum() + 1e-12).sqrt()


def _affine(parameters: Tensor) -> Tensor:
    linear = torch.eye(3) + parameters[:9].view(3, 3) / _RADIUS_MM
    top = torch.cat([linear, parameters[9:, None]], dim=1)
    return torch.cat([top, torch.tensor([[0.0, 0.0, 0.0, 1.0]])])


def _is_small(matrix: Tensor) -> bool:
    if not torch.isfinite(matrix).all():
        return False
    stretch = torch.linalg.svdvals(matrix[:3, :3])
    return bool(
        torch.linalg.det(matrix[:3, :3]) > 0
        and stretch.max() < _LARGEST_STRETCH
        and stretch.min() > 1 / _LARGEST_STRETCH
        and matrix[:3, 3].norm() < _LARGEST_SHIFT_MM
    )


def read_own_channel(volume: Tensor, channel: Tensor, voxels: Tensor) -> Tensor:
    """Trilinear values (N,) of (channels, X, Y, Z), each place (N, 3) in a channel of its own; zeros outside.

    `grid_sample` would read all channels everywhere, thirty times as much.
    """
    flat, sizes = volume.flatten(), volume.shape[1:]
    low = voxels.detach().floor()
    part = voxels - low
    places, shares = [], []
    for axis, size in enumerate(sizes):
        sides = [low[:, axis].long() + side for side in (0, 1)]
        inside = [(side >= 0) & (side < size) for side in sides]
        shares.append(((1 - part[:, axis]) * inside[0], part[:, axis] * inside[1]))
        places.append([side.clamp(0, size - 1) * math.prod(sizes[axis + 1 :]) for side in sides])
    channel = channel * math.prod(sizes)
    total = torch.zeros(len(voxels))
    for i, j in product((0, 1), repeat=2):
        share, place = shares[0][i] * shares[1][j], channel + places[0][i] + places[1][j]
        for k in (0, 1):
            total = total + share * shares[2][k] * flat[place + places[2][k]]
    return total
