"""A simulated dataset, and where the commands of this environment are."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from unibrain_bids import demo

ROOT = Path(__file__).parents[2]
SPAN = replace(demo.SPAN, shape=(108, 132, 126), spacing=2.0)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The environment of a process that finds the commands installed beside this Python, and this working tree."""
    here = Path(sys.executable).parent
    return {**os.environ, "PATH": f"{here}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def bids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw dataset with one simulated head."""
    return demo.write_dataset(tmp_path_factory.mktemp("phantom"), (demo.DemoScan("01", "1", 101),), SPAN)
