"""The packaged head phantom; no training data are needed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from unibrain_bids.demo import phantom_material
from unibrain_bids.training.simulation.material import Material


@pytest.fixture(scope="session")
def phantom() -> Material:
    return phantom_material()


@pytest.fixture(autouse=True)
def _processor_as_found() -> Iterator[None]:
    """A trainer flushes subnormal numbers in its whole process; the tests that follow count on them."""
    yield
    torch.set_flush_denormal(False)
