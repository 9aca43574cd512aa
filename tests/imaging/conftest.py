"""A head without symmetry, known in closed form at every point of the world."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from nibabel.affines import apply_affine
from numpy.typing import NDArray


@dataclass(frozen=True)
class Phantom:
    """Four soft balls of different size and brightness: left, right, front and top of the world's origin."""

    centers: NDArray[np.float64]
    radii: NDArray[np.float64]
    heights: NDArray[np.float64]

    def _world(self, shape: tuple[int, ...], affine: NDArray[np.float64]) -> NDArray[np.float64]:
        return apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))

    def intensity(self, shape: tuple[int, ...], affine: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return the exact intensity at the voxel centres of a grid."""
        points = self._world(shape, affine)
        balls = (
            height * np.exp(-0.5 * ((points - center) ** 2).sum(-1) / radius**2)
            for center, radius, height in zip(self.centers, self.radii, self.heights, strict=True)
        )
        return np.sum(list(balls), axis=0).astype(np.float32)

    def labels(self, shape: tuple[int, ...], affine: NDArray[np.float64]) -> NDArray[np.int16]:
        """Return 1 left, 2 right, 3 front, 4 top, each a ball of its radius."""
        points = self._world(shape, affine)
        labels = np.zeros(shape, dtype=np.int16)
        for number, (center, radius) in enumerate(zip(self.centers, self.radii, strict=True), start=1):
            labels[((points - center) ** 2).sum(-1) <= radius**2] = number
        return labels


@pytest.fixture(scope="session")
def phantom() -> Phantom:
    """Return the phantom; all of it lies within 55 mm of the origin."""
    return Phantom(
        centers=np.array([[-26.0, 2.0, -3.0], [24.0, -5.0, 4.0], [3.0, 30.0, -2.0], [-2.0, -4.0, 33.0]]),
        radii=np.array([11.0, 8.0, 9.5, 7.0]),
        heights=np.array([100.0, 160.0, 60.0, 220.0]),
    )
