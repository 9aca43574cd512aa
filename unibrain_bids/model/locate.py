"""From a scan of any orientation and field of view to its place in the population frame.

A volume comes with the matrix from its voxel indices to world mm; nothing is reoriented or copied: every grid pulls
its values through matrices.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation
from torch import Tensor

from unibrain_bids.model import frame
from unibrain_bids.model.aligner import SPACING as SECOND_SPACING
from unibrain_bids.model.aligner import Aligner
from unibrain_bids.model.first_look import MULTIPLE, FirstLook
from unibrain_bids.model.first_look import SPACING as FIRST_SPACING
from unibrain_bids.model.intensity import scale_to_unit, unit_divisor
from unibrain_bids.model.places import fit_places
from unibrain_bids.model.spatial import SUBVOXEL, downsample, sample, transform_points

# Fewer voxels (of 512 mm3) than this are no brain.
_SMALLEST_BRAIN = 400
_LARGEST_GRID = 64
# A pose is taken without looking any further where the second look agrees with the atlas by more than this.
_AGREED = 0.45
# The negative is taken from a little above the brightest voxels; what is darker than this part of them is air or bone.
_NEGATIVE_OF, _DARK = 1.1, 0.08
# Beyond this change of volume, or its inverse, no pose is a head's.
_SMALLEST_SCALE = 0.15


@dataclass(frozen=True)
class Volume:
    """A scan as tensors.

    Attributes
    ----------
    data
        (1, 1, X, Y, Z) float32, as stored.
    affine
        (4, 4) float64 numpy: voxel index to world mm (RAS).
    """

    data: Tensor
    affine: NDArray[np.floating]

    def spacing(self) -> NDArray[np.floating]:
        """Voxel sizes in mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    def corners(self) -> NDArray[np.floating]:
        """World coordinates (8, 3) of the outermost voxel centres."""
        last = np.array(self.data.shape[2:]) - 1
        corners = np.stack(np.meshgrid(*[(0, n) for n in last], indexing="ij"), -1).reshape(-1, 3)
        return corners @ self.affine[:3, :3].T + self.affine[:3, 3]


def coarse(volume: Volume, spacing: float) -> Volume:
    """Block averages to voxels not larger than `spacing`, with the affine that belongs to them."""
    factors = np.maximum(np.floor(spacing / volume.spacing() + 1e-3), 1).astype(int)
    affine = volume.affine @ np.diag([*factors, 1.0])
    affine[:3, 3] = volume.affine[:3, 3] + volume.affine[:3, :3] @ ((factors - 1) / 2)
    x, y, z = (int(f) for f in factors)
    return Volume(downsample(volume.data, (x, y, z)), affine)


def pull(volume: Volume, world_from_grid: NDArray[np.floating], points: Tensor) -> Tensor:
    """Trilinear values (1, 1, A, B, C) at grid points (A, B, C, 3), zeros outside the scan."""
    matrix = torch.from_numpy(np.linalg.inv(volume.affine) @ world_from_grid).float().to(points.device)
    return sample(volume.data, transform_points(matrix[None], points))


def pull_averaged(volume: Volume, world_from_grid: NDArray[np.floating], points: Tensor, spacing: float) -> Tensor:
    """As `pull`, averaged over four sub-voxel positions of a grid with that spacing in mm: no aliasing."""
    offsets = spacing * torch.tensor(SUBVOXEL, device=points.device)
    return torch.stack([pull(volume, world_from_grid, points + offset) for offset in offsets]).mean(0)


@dataclass(frozen=True)
class Located:
    """Where a head stands.

    Attributes
    ----------
    frame_from_world
        (4, 4) float64: world mm (RAS) to population frame mm.
    agreement
        Soft Dice, 0..1, of the groups of structures seen there with the atlas: about .5 to .65 where the head was
        found, below .3 where it was not.
    """

    frame_from_world: NDArray[np.floating]
    agreement: float


def find_head(first: FirstLook, second: Aligner, volume: Volume) -> Located | None:
    """The pose at which the second look agrees best with the atlas; None if no start finds a brain.

    An upright T1-weighted head is found at once. For others the looks start again on the scan's negative, which shows a
    T2-weighted head as they know heads, and along turned axes: the second look knows a wrong pose from a right one.
    """
    positive = coarse(volume, SECOND_SPACING / 2)
    best: Located | None = None
    for turn, inverted in _starts():
        seen = negative(positive) if inverted else positive
        pose = first_look(first, seen, turn)
        if pose is None:
            continue
        located = second_look(second, seen, pose)
        if best is None or located.agreement > best.agreement:
            best = located
        if best.agreement > _AGREED:
            break
    return best


def _starts() -> Iterator[tuple[NDArray[np.float64], bool]]:
    """Turns (3, 3) of the axes to look along, half-way to the next axis and onto it, and whether on the negative."""
    yield np.eye(3), False
    yield np.eye(3), True
    for degrees in (45, -45, 90, -90, 180):
        for axis in np.eye(3):
            yield Rotation.from_rotvec(degrees * axis, degrees=True).as_matrix(), False


def negative(volume: Volume) -> Volume:
    """Bright for dark, except in the dark around the head."""
    brightest = unit_divisor(volume.data)
    inverted = (_NEGATIVE_OF * brightest - volume.data).clamp(min=0)
    return Volume(torch.where(volume.data > _DARK * brightest, inverted, volume.data), volume.affine)


def first_look(
    network: FirstLook, volume: Volume, turn: NDArray[np.floating] | None = None, passes: int = 2
) -> NDArray[np.floating] | None:
    """`frame_from_world` (4, 4) fitted to the brain's guessed places at 8 mm; None if there is no brain.

    The first pass looks at the whole field of view; further passes look again along the axes that the pass before has
    found, where the network is at its best.

    Parameters
    ----------
    network
        The trained first look.
    volume
        The scan.
    turn
        (3, 3) rotation from the axes of the first pass's grid to the world's; the world's own axes when None.
    """
    volume = coarse(volume, FIRST_SPACING)
    turn = np.eye(3) if turn is None else turn
    world = volume.corners()
    world_from_grid: NDArray[np.floating] = np.eye(4)
    world_from_grid[:3, :3], world_from_grid[:3, 3] = turn, (world.min(0) + world.max(0)) / 2
    shape = _grid_shape(np.ptp(world @ turn, axis=0))
    frame_from_world: NDArray[np.floating] = np.linalg.inv(world_from_grid)
    for _ in range(passes):
        points = frame.points(shape, FIRST_SPACING, volume.data.device)
        image = scale_to_unit(pull(volume, world_from_grid, points))
        logits, places = network(image)
        weight = torch.sigmoid(logits[0, 0]) * (logits[0, 0] > 0)
        if int((weight > 0).sum()) < _SMALLEST_BRAIN:
            return None
        fit = fit_places(weight, places[0], points).cpu().numpy()
        frame_from_world = fit @ np.linalg.inv(world_from_grid)
        world_from_grid = np.linalg.inv(rigid_part(frame_from_world))
        shape = _grid_shape(np.full(3, 256.0))
    return frame_from_world


def second_look(network: Aligner, volume: Volume, frame_from_world: NDArray[np.floating], passes: int = 3) -> Located:
    """A better pose by repeated closed-form fits at 4 mm, each from where the last has led."""
    volume = coarse(volume, SECOND_SPACING / 2)
    agreement = 0.0
    for _ in range(passes):
        if not _SMALLEST_SCALE < np.linalg.det(frame_from_world[:3, :3]) < 1 / _SMALLEST_SCALE:
            return Located(frame_from_world, 0.0)
        image = pull_averaged(volume, np.linalg.inv(frame_from_world), network.points, SECOND_SPACING)
        probability = torch.softmax(network(scale_to_unit(image)).float(), dim=1)
        # What looks like brain elsewhere, in the neck say, would drag the groups' centres along.
        brain = largest_component((probability[0, 0] < 0.5).cpu().numpy())
        probability = probability * torch.from_numpy(brain).to(probability.device)
        agreement = float(network.agreement(probability))
        frame_from_world = network.fit(probability)[0].double().cpu().numpy() @ frame_from_world
    return Located(frame_from_world, agreement)


def largest_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest connected part of a mask (X, Y, Z), with its holes filled."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return fill_holes(labels == sizes.argmax())


def fill_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask (X, Y, Z) with what it encloses; `scipy.ndimage.binary_fill_holes`, many times as fast on large grids."""
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    # With a rim of background all that is outside the mask is one part.
    background, _ = ndimage.label(np.pad(~mask[box], 1, constant_values=True))
    filled = mask.copy()
    filled[box] = (background != background[0, 0, 0])[1:-1, 1:-1, 1:-1]
    return filled


def rigid_part(matrix: NDArray[np.floating]) -> NDArray[np.floating]:
    """Nearest rotation, with the shift that keeps the inverse image of the origin where it was."""
    u, _, vt = np.linalg.svd(matrix[:3, :3])
    rotation = u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt
    origin = np.linalg.inv(matrix)[:3, 3]
    rigid = np.eye(4)
    rigid[:3, :3] = rotation
    rigid[:3, 3] = -rotation @ origin
    return rigid


def _grid_shape(extent: NDArray[np.floating]) -> tuple[int, int, int]:
    """Grid sizes at 8 mm that hold the extent (mm), multiples of what the network needs."""
    voxels = np.ceil(extent / FIRST_SPACING / MULTIPLE) * MULTIPLE
    x, y, z = (int(v) for v in np.clip(voxels, 24, _LARGEST_GRID))
    return x, y, z
