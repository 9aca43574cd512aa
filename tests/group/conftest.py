"""Simulated derivatives on disk (benchmarks/group.py)."""

import runpy
from pathlib import Path

import pytest

BENCHMARK = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "group.py"))


@pytest.fixture(scope="session")
def simulate():
    return BENCHMARK["simulate"]


@pytest.fixture(scope="session")
def cohort(simulate, tmp_path_factory):
    """(raw, out) of 40 participants; not to be changed."""
    return simulate(tmp_path_factory.mktemp("cohort"), participants=40, effect=2.5)


@pytest.fixture
def small(simulate, tmp_path):
    """(raw, out) of 12 participants with two sessions each; a test may change them."""
    return simulate(tmp_path, participants=12, sessions=("a", "b"))
