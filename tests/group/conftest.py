"""Simulated derivatives on disk (benchmarks/group.py)."""

import runpy
import shutil
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


@pytest.fixture(scope="session")
def small_cohort(simulate, tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    simulate(folder, participants=12, sessions=("a", "b"))
    return folder


@pytest.fixture
def small(small_cohort, tmp_path):
    """(raw, out) of 12 participants with two sessions each; a test may change them."""
    shutil.copytree(small_cohort, tmp_path, dirs_exist_ok=True)
    return tmp_path / "raw", tmp_path / "out"
