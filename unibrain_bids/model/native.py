"""From the model grid back to the scan's own voxels.

Only voxels inside the grid's box are looked at, slab by slab, so that memory stays small for scans of any size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unibrain_bids.model import frame
from unibrain_bids.model.spatial import sample

_POINTS_AT_ONCE = 400_000


@dataclass(frozen=True)
class NativeGrid:
    """A scan's grid seen from the model grid.

    Attributes
    ----------
    shape
        Of the scan.
    grid_from_scan
        (4, 4) float64: the scan's voxel index to the model grid's voxel index.
    grid_shape
        Of the model grid.
    """

    shape: tuple[int, int, int]
    grid_from_scan: NDArray[np.float64]
    grid_shape: tuple[int, int, int] = frame.SHAPE

    def box(self) -> tuple[slice, slice, slice]:
        """The scan's voxels that can lie inside the model grid."""
        last = np.array(self.grid_shape) - 0.5
        corners = np.stack(np.meshgrid(*[(-0.5, n) for n in last], indexing="ij"), -1).reshape(-1, 3)
        inverse = np.linalg.inv(self.grid_from_scan)
        voxels = corners @ inverse[:3, :3].T + inverse[:3, 3]
        low = np.clip(np.floor(voxels.min(0)), 0, self.shape).astype(int)
        high = np.clip(np.ceil(voxels.max(0)) + 1, 0, self.shape).astype(int)
        x, y, z = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        return x, y, z

    def read(self, volume: Tensor, voxels: Tensor) -> Tensor:
        """Trilinear values (channels, N) of (1, channels, X, Y, Z) on the model grid at scan voxels (N, 3)."""
        matrix = torch.from_numpy(self.grid_from_scan).float().to(volume.device)
        places = voxels.to(volume.device).float() @ matrix[:3, :3].T + matrix[:3, 3]
        return sample(volume, places[None, None, None])[0, :, 0, 0]

    def volume(self, volume: Tensor) -> NDArray[np.float32]:
        """One channel (1, 1, X, Y, Z) on the scan's grid, float32; zero where the model grid does not reach."""
        result = np.zeros(self.shape, dtype=np.float32)
        box = self.box()
        view = result[box]
        for slab, voxels in _slabs(box):
            view[slab] = self.read(volume, voxels)[0].reshape(view[slab].shape).cpu().numpy()
        return result


def inside(mask: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """Pieces of a mask's voxels: flat indices (n,) and coordinates (n, 3)."""
    flat = np.flatnonzero(mask)
    for start in range(0, len(flat), _POINTS_AT_ONCE):
        piece = flat[start : start + _POINTS_AT_ONCE]
        yield piece, torch.from_numpy(np.stack(np.unravel_index(piece, mask.shape), axis=-1))


def extended_log_gain(log_gain: Tensor, native: NativeGrid) -> NDArray[np.float32]:
    """The smooth log gain over the whole scan; beyond the model grid its border value goes on."""
    result = np.empty(native.shape, dtype=np.float32)
    matrix = torch.from_numpy(native.grid_from_scan).float().to(log_gain.device)
    limits = torch.tensor(native.grid_shape, device=log_gain.device) - 1.0
    for slab, voxels in _slabs(tuple(slice(0, n) for n in native.shape)):
        places = voxels.to(log_gain.device).float() @ matrix[:3, :3].T + matrix[:3, 3]
        places = places.clamp(min=torch.zeros(3, device=places.device), max=limits)
        values = sample(log_gain, places[None, None, None])[0, 0, 0, 0]
        result[slab] = values.reshape(result[slab].shape).cpu().numpy()
    return result


def _slabs(box: tuple[slice, ...]) -> Iterator[tuple[slice, Tensor]]:
    """Slabs along the first axis of a box: their place within the box, and their voxels (N, 3)."""
    x, y, z = (torch.arange(s.start, s.stop) for s in box)
    thickness = max(_POINTS_AT_ONCE // max(len(y) * len(z), 1), 1)
    for start in range(0, len(x), thickness):
        part = x[start : start + thickness]
        yield slice(start, start + len(part)), torch.cartesian_prod(part, y, z)
