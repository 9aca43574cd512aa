"""The smooth gain, fitted in closed form to the white matter that the network has found.

The network proposes the logarithm of a gain that removes the bias field. Here it is fitted anew to the scan itself:
the logarithm of the white matter's intensities should be the same everywhere, so that what is left of them, smoothed,
is the field (as in the segmentations of SPM, FAST and SAMSEG). Class statistics, memberships and field
are estimated in turn; the network's gain is where they start. Grey matter is left out: partial volume with the sulci
makes it a witness of the cortex's folding rather than of the coils.

How far the field may bend is learned from the scan (empirical Bayes): its coefficients have a Gaussian prior whose
width is the one that makes the data most likely, given how much the residuals scatter. Where the white matter shows no
field beyond that scatter, none is removed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unibrain_bids.model import frame

# At this lambda of NPP's the field bends as the data say; others multiply its stiffness.
_NEUTRAL_SMOOTHNESS = 0.1
_ROUNDS = 12
# Every second voxel along each axis of the model grid: its 20 000 voxels of white and grey matter are plenty.
_STEP = 2
# Cosines along x, y and z; the shortest half wave is 2 cm long.
_ORDERS = (8, 10, 8)
# Voxels along a cell's edge, 8 mm. What is left over in one cell is like that in its neighbours: so many cells count
# as one. Chosen on simulated heads (error of the field) that no figure is read from, and on real ones (uniformity).
_CELL = 4
_ALIKE = 4.0
_STIFFEST = 1e7
# A cell of this weight knows its mean to 5 %.
_HEAVY = 1 / 0.05**2
_MEDIAN_CHI_SQUARE = 0.4549
_SD_PER_MAD = 1.4826
_UNIT_MM = 100.0
_SURE = 0.5
_FEWEST_VOXELS = 20
_NARROWEST = 0.03
# Darker voxels than this part of the brain's median are no tissue: a cropped corner, say.
_DARKEST = 0.02
# The spread (of log intensities) and the distance from every class that is granted to what is no structure.
_OTHER_SPREAD, _OTHER_DISTANCE = 0.3, 2.0
# White matter of cerebrum and cerebellum, together: with a level of its own, the cerebellum's would take a coil's fall
# towards the neck for contrast and keep it (docs/training-log.md).
_WHITE = (2, 41, 7, 46)
_OTHERS = (
    (3, 42), (8, 47), (10, 49), (11, 50), (12, 51), (13, 52), (16,), (17, 53), (18, 54), (26, 58), (28, 60),
    (4, 5, 14, 15, 43, 44),
)  # fmt: skip


@dataclass(frozen=True)
class _Voxels:
    """What the fit looks at: N voxels of the brain, each class's prior (classes + 1, N), white first, "other" last."""

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
        NPP's lambda: 0.1 lets the field bend as the scan suggests, larger values make it stiffer.

    Returns
    -------
    Tensor
        (1, 1, X, Y, Z) float32, smooth over the whole grid; `start` if there is no white matter to go by.
    """
    voxels = _voxels(image, probability, brain)
    field, belief = _CosineField(start.device), _Belief()
    log_gain, coefficients = start[0, 0].double(), None
    for _ in range(_ROUNDS):
        membership, mean, spread = _memberships(voxels.prior, voxels.log_intensity + log_gain[voxels.places])
        weight = (membership[0] / spread[0]).square()
        if float(weight.sum()) <= 0:
            return start
        cells = field.gather(voxels.places, weight, weight * (mean[0] - voxels.log_intensity))
        coefficients, belief = field.learn(cells, belief)
        log_gain = field.on_grid(coefficients)
    stiffer = replace(belief, stiffness=belief.stiffness * smoothness / _NEUTRAL_SMOOTHNESS)
    log_gain = field.on_grid(field.learn(cells, stiffer)[0])
    return (log_gain - log_gain[voxels.places].mean()).float()[None, None]


def _voxels(image: Tensor, probability: Tensor, brain: Tensor) -> _Voxels:
    grid = (slice(_STEP // 2, None, _STEP),) * 3
    intensity, inside = image[0, 0][grid].double(), brain[0, 0][grid] > 0.5
    if inside.any():
        inside &= intensity > _DARKEST * intensity[inside].median()
    channel = {number: i + 1 for i, number in enumerate(frame.STRUCTURES)}
    found = probability[0][(slice(None), *grid)][:, inside].double()
    classes = [found[[channel[number] for number in group]].sum(0) for group in (_WHITE, *_OTHERS)]
    prior = torch.stack([*classes, 1 - torch.stack(classes).sum(0)]).clamp(min=1e-6)
    x, y, z = (_STEP // 2 + _STEP * place for place in inside.nonzero(as_tuple=True))
    return _Voxels((x, y, z), intensity[inside].log(), prior)


def _memberships(prior: Tensor, log_intensity: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Posterior (classes, N) by Bayes' rule, with the classes' means and standard deviations (classes,).

    Both are taken from medians, which scalp or ventricle mistaken for white matter move but little. A class too small
    for statistics has no members.
    """
    sure = prior[:-1] > _SURE
    mean, spread = torch.zeros_like(prior[:-1, 0]), torch.ones_like(prior[:-1, 0])
    known = sure.sum(1) >= _FEWEST_VOXELS
    for index in known.nonzero()[:, 0]:
        values = log_intensity[sure[index]]
        mean[index] = values.median()
        spread[index] = (_SD_PER_MAD * (values - mean[index]).abs().median()).clamp(min=_NARROWEST)
    deviation = log_intensity - mean[:, None]
    likelihood = -0.5 * (deviation / spread[:, None]).square() - spread.log()[:, None]
    likelihood[~known] = -math.inf
    other = torch.full_like(log_intensity, -0.5 * _OTHER_DISTANCE**2 - math.log(_OTHER_SPREAD))
    posterior = (prior.log() + torch.cat([likelihood, other[None]])).softmax(0)
    return posterior[:-1], mean, spread


@dataclass(frozen=True)
class _Belief:
    """What the scan has taught of its field.

    Attributes
    ----------
    scatter
        By how much the cells' residuals vary more than those of voxels independent of each other would.
    stiffness
        Inverse variance that the prior gives to the field's bending, mm^-4 (100 mm)^4.
    """

    scatter: float = 10.0
    stiffness: float = 100.0


class _CosineField:
    """Penalised least squares of a field over the model grid, a sum of products of cosines.

    The data enter by cells of 8 mm; the penalty is the bending energy, and the field is flat across the grid's border,
    so that it goes on calmly beyond the brain.
    """

    def __init__(self, device: torch.device) -> None:
        self.bases = [_cosines(n, order).to(device) for n, order in zip(frame.SHAPE, _ORDERS, strict=True)]
        self.cells = [n // _CELL for n in frame.SHAPE]
        self.cell_bases = [_cosines(n, order).to(device) for n, order in zip(self.cells, _ORDERS, strict=True)]
        self.products = [(basis[:, :, None] * basis[:, None, :]).flatten(1) for basis in self.cell_bases]
        orders = [torch.arange(order, dtype=torch.float64) for order in _ORDERS]
        squares = [
            (torch.pi * order * _UNIT_MM / (n * frame.SPACING)).square()
            for n, order in zip(frame.SHAPE, orders, strict=True)
        ]
        norms = [torch.where(order == 0, 1.0, 0.5).double() for order in orders]
        curvature = squares[0][:, None, None] + squares[1][:, None] + squares[2]
        norm = norms[0][:, None, None] * norms[1][:, None] * norms[2]
        self.energy = (curvature.square() * norm).flatten().to(device)

    def gather(self, places: tuple[Tensor, Tensor, Tensor], weight: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Sum weights and weighted residuals (N,) of voxels in each cell."""
        x, y, z = (place // _CELL for place in places)
        cell = (x * self.cells[1] + y) * self.cells[2] + z
        zeros = weight.new_zeros(math.prod(self.cells))
        weights, residuals = (zeros.index_add(0, cell, values).view(self.cells) for values in (weight, residual))
        return weights, residuals

    def learn(self, cells: tuple[Tensor, Tensor], belief: _Belief) -> tuple[Tensor, _Belief]:
        """Coefficients that the belief makes most likely, and the belief after them (MacKay's fixed point)."""
        weights, residuals = cells
        normal = _contract(weights, self.products).view([n for order in _ORDERS for n in (order, order)])
        count = len(self.energy)
        normal = normal.permute(0, 2, 4, 1, 3, 5).reshape(count, count)
        # The mean of the field costs nothing; a trace of ridge keeps the system defined.
        ridge = _ALIKE * belief.scatter * belief.stiffness * self.energy + 1e-9 * weights.sum()
        factor = torch.linalg.cholesky(normal + torch.diag(ridge))
        right = _contract(residuals, self.cell_bases).flatten()
        coefficients = torch.cholesky_solve(right[:, None], factor)[:, 0]
        bound = float((ridge * torch.cholesky_inverse(factor).diagonal())[1:].sum())
        free = count - 1 - bound
        bending = float((self.energy * coefficients.square()).sum())
        stiffness = min(free / max(bending, 1e-12), _STIFFEST)
        return coefficients, _Belief(self._scatter(cells, coefficients, free, belief.scatter), stiffness)

    def _scatter(self, cells: tuple[Tensor, Tensor], coefficients: Tensor, free: float, before: float) -> float:
        """From the median of the cells that hold enough white matter: a few with wrong labels don't decide."""
        weights, residuals = cells
        heavy = weights > _HEAVY
        count = int(heavy.sum())
        if count < _FEWEST_VOXELS:
            return before
        left = residuals - weights * _contract(coefficients.view(_ORDERS), [basis.T for basis in self.cell_bases])
        ratio = float((left[heavy].square() / weights[heavy]).median()) / _MEDIAN_CHI_SQUARE
        return max(ratio * count / max(count - free, 0.2 * count), 0.3)

    def on_grid(self, coefficients: Tensor) -> Tensor:
        """The field (X, Y, Z)."""
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
