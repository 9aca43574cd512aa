"""The packaged atlas, and random affines."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from unibrain_bids.inference.loading import population_atlas
from unibrain_bids.model.atlas import Atlas

MakeAffine = Callable[..., torch.Tensor]


@pytest.fixture(scope="session")
def atlas() -> Atlas:
    return population_atlas()


@pytest.fixture(scope="session")
def make_affine() -> MakeAffine:
    """Return a function that gives (4, 4) float64: rotation about x, y, z in degrees, one scale per axis, shift."""

    def make(
        angles: Sequence[float] = (0, 0, 0), scale: Sequence[float] = (1, 1, 1), shift: Sequence[float] = (0, 0, 0)
    ) -> torch.Tensor:
        matrix = np.eye(4)
        matrix[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ np.diag(scale)
        matrix[:3, 3] = shift
        return torch.from_numpy(matrix)

    return make
