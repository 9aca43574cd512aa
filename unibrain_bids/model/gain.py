"""The smooth gain, fitted in closed form to the white matter that the network has found.

The network proposes the logarithm of a gain that removes the bias field. Here it is fitted anew to the scan itself:
in each kind of white matter the logarithm of the intensities should be the same everywhere, so that what is left of
them, smoothed, is the field (as in the segmentations of SPM, FAST and SAMSEG). Class statistics, memberships and field
are estimated in turn; the network's gain is where they start. Grey matter is left out: partial volume with the sulci
makes it a witness of the cortex's folding rather than of the coils.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unibrain_bids.model import frame

# NPP's lambda, 0.001 to 10, times this is the penalty (mm^4, relative to the weight of the data). Chosen at lambda 0.1
# on real heads (uniformity) and simulated ones (error of the field) together.
_PENALTY = 2e-2
_ROUNDS = 10
# Every second voxel along each axis of the model grid: its 20 000 voxels of white and grey matter are plenty.
_STEP = 2
# Cosines along x, y and z; the shortest half wave is 2 cm long.
_ORDERS = (8, 10, 8)
_CELL = 4
_SURE = 0.5
_FEWEST_VOXELS = 20
_NARROWEST = 0.03
# Darker voxels than this part of the brain's median are no tissue: a cropped corner, say.
_DARKEST = 0.02
# The spread (of log intensities) and the distance from every class that is granted to what is no structure.
_OTHER_SPREAD, _OTHER_DISTANCE = 0.3, 2.0
_WHITE = ((2, 41), (7, 46))
_OTHERS = (
    (3, 42), (8, 47), (10, 49), (11, 50), (12, 51), (13, 52), (16,), (17, 53), (18, 54), (26, 58), (28, 60),
    (4, 5, 14, 15, 43, 44),
)  # fmt: skip


@dataclass(frozen=True)
class _Voxels:
    """What the fit looks at: N voxels of the brain, each class's prior (classes + 1, N), the last being "other"."""

    places: tuple[Tensor, Tensor, Tensor]
    log_intensity: Tensor
    prior: Tensor


def refine_log_gain(image: Tensor, probability: Tensor, brain: Tensor, start: Tensor, *, smoothness: float) -> Tensor:
    """Logarithm of the gain that makes the white matter uniform; mean 0 over the brain.

    Parameters
    ----------
    image
        (1, 1, X, Y, Z) the head on the model grid, intensities 0 or more on any scale.
    probability
        (1, 1 + structures, X, Y, Z), background first.
    brain
        (1, 1, X, Y, Z) probability of brain.
    start
        (1, 1, X, Y, Z) the network's logarithm of the gain.
    smoothness
        NPP's lambda: the bending energy of the field weighs so much against the data.

    Returns
    -------
    Tensor
        (1, 1, X, Y, Z) float32, smooth over the whole grid; `start` where there is no white matter to go by.
    """
    voxels = _voxels(image, probability, brain)
    log_gain = start[0, 0].double()
    field = _CosineField(start.device)
    for _ in range(_ROUNDS):
        corrected = voxels.log_intensity + _at(log_gain, voxels)
        membership, mean, spread = _memberships(voxels.prior, corrected)
        weight = membership[: len(_WHITE)].square() / spread[: len(_WHITE), None].square()
        if float(weight.sum()) <= 0:
            return start
        residual = (weight * (mean[: len(_WHITE), None] - voxels.log_intensity)).sum(0)
        log_gain = field.fit(voxels.places, weight.sum(0), residual, penalty=_PENALTY * smoothness)
        log_gain = log_gain - _at(log_gain, voxels).mean()
    return log_gain.float()[None, None]


def _voxels(image: Tensor, probability: Tensor, brain: Tensor) -> _Voxels:
    grid = (slice(_STEP // 2, None, _STEP),) * 3
    intensity, inside = image[0, 0][grid].double(), brain[0, 0][grid] > 0.5
    if inside.any():
        inside &= intensity > _DARKEST * intensity[inside].median()
    channel = {number: i + 1 for i, number in enumerate(frame.STRUCTURES)}
    found = probability[0][(slice(None), *grid)][:, inside].double()
    classes = [found[[channel[number] for number in group]].sum(0) for group in _WHITE + _OTHERS]
    prior = torch.stack([*classes, 1 - torch.stack(classes).sum(0)]).clamp(min=1e-6)
    x, y, z = (_STEP // 2 + _STEP * place for place in inside.nonzero(as_tuple=True))
    return _Voxels((x, y, z), intensity[inside].log(), prior)


def _at(volume: Tensor, voxels: _Voxels) -> Tensor:
    return volume[voxels.places]


def _memberships(prior: Tensor, log_intensity: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Posterior (classes, N) by Bayes' rule, with the classes' means and standard deviations (classes,).

    A class too small for statistics has no members.
    """
    sure = prior[:-1] * (prior[:-1] > _SURE)
    total = sure.sum(1)
    mean = sure @ log_intensity / total.clamp(min=1)
    deviation = log_intensity - mean[:, None]
    spread = ((sure * deviation.square()).sum(1) / total.clamp(min=1)).sqrt().clamp(min=_NARROWEST)
    likelihood = -0.5 * (deviation / spread[:, None]).square() - spread.log()[:, None]
    likelihood[total < _FEWEST_VOXELS] = -math.inf
    other = torch.full_like(log_intensity, -0.5 * _OTHER_DISTANCE**2 - math.log(_OTHER_SPREAD))
    posterior = (prior.log() + torch.cat([likelihood, other[None]])).softmax(0)
    return posterior[:-1], mean, spread


class _CosineField:
    """Penalised least squares of a field over the model grid, a sum of products of cosines.

    The data enter by cells of 8 mm; the penalty is the bending energy, and the field is flat across the grid's border,
    so that it goes on calmly beyond the brain.
    """

    def __init__(self, device: torch.device) -> None:
        self.bases = [_cosines(n, order).to(device) for n, order in zip(frame.SHAPE, _ORDERS, strict=True)]
        self.cells = [n // _CELL for n in frame.SHAPE]
        self.cell_bases = [_cosines(n, order).to(device) for n, order in zip(self.cells, _ORDERS, strict=True)]
        squares = [
            (torch.pi * torch.arange(order, dtype=torch.float64) / (n * frame.SPACING)).square()
            for n, order in zip(frame.SHAPE, _ORDERS, strict=True)
        ]
        norms = [torch.where(torch.arange(order) == 0, 1.0, 0.5).double() for order in _ORDERS]
        curvature = squares[0][:, None, None] + squares[1][:, None] + squares[2]
        norm = norms[0][:, None, None] * norms[1][:, None] * norms[2]
        volume = float(np.prod(frame.SHAPE)) * frame.SPACING**3
        self.energy = (curvature.square() * norm * volume).flatten().to(device)

    def fit(self, places: tuple[Tensor, Tensor, Tensor], weight: Tensor, residual: Tensor, *, penalty: float) -> Tensor:
        """Field (X, Y, Z) from weights and weighted residuals (N,) at voxels."""
        x, y, z = (place // _CELL for place in places)
        cell = (x * self.cells[1] + y) * self.cells[2] + z
        zeros = weight.new_zeros(int(np.prod(self.cells)))
        weights, residuals = (zeros.index_add(0, cell, values).view(self.cells) for values in (weight, residual))
        products = [(b[:, :, None] * b[:, None, :]).flatten(1) for b in self.cell_bases]
        normal = _contract(weights, products).view([n for order in _ORDERS for n in (order, order)])
        count = len(self.energy)
        normal = normal.permute(0, 2, 4, 1, 3, 5).reshape(count, count)
        # The mean of the field costs nothing; a trace of ridge keeps the system defined.
        ridge = float(weight.sum()) * (penalty * self.energy + 1e-9)
        coefficients = torch.linalg.solve(normal + torch.diag(ridge), _contract(residuals, self.cell_bases).flatten())
        return _contract(coefficients.view(_ORDERS), [basis.T for basis in self.bases])


def _cosines(n: int, order: int) -> Tensor:
    """First cosines (n, order) of the discrete cosine transform at the centres of n cells, float64."""
    middle = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return torch.cos(torch.pi * middle[:, None] * torch.arange(order))


def _contract(volume: Tensor, matrices: list[Tensor]) -> Tensor:
    """Multiply each axis of (X, Y, Z) by a matrix (axis, new axis)."""
    for matrix in matrices:
        volume = torch.tensordot(volume, matrix, dims=([0], [0]))
    return volume
