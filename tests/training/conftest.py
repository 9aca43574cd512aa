"""The packaged head phantom; no training data are needed."""

from __future__ import annotations

import pytest

from unibrain_bids.demo import phantom_material
from unibrain_bids.training.simulation.material import Material


@pytest.fixture(scope="session")
def phantom() -> Material:
    return phantom_material()
