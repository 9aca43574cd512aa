"""A head trained on simulated features."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from unibrain_bids import __version__
from unibrain_bids.bids.derivatives import DEFAULT_ATLAS
from unibrain_bids.classification.card import find_head
from unibrain_bids.classification.linear import Ridge
from unibrain_bids.classification.training import train_head

WEIGHTS = "0" * 64
BENCHMARK = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "classification.py"))


@pytest.fixture(scope="session")
def simulated_cohort():
    return BENCHMARK["simulated_cohort"]


@pytest.fixture(scope="session")
def cohort(simulated_cohort):
    return simulated_cohort(1.0, seed=3, participants=60, regions=12, hit=range(6))


@pytest.fixture(scope="session")
def train(cohort):
    """Return a function that trains a head with some candidates."""

    def make(*candidates):
        details = {
            "label": "case",
            "target": "diagnosis",
            "weights": WEIGHTS,
            "version": __version__,
            "atlas": DEFAULT_ATLAS,
            "excluded": {},
        }
        return train_head(cohort, candidates=candidates, permutations=19, **details)

    return make


@pytest.fixture(scope="session")
def trained(train):
    return train(Ridge("ridge"))


@pytest.fixture
def head_file(trained, tmp_path):
    path = tmp_path / "case.safetensors"
    path.write_bytes(trained.head.to_bytes())
    return find_head(path)


@pytest.fixture
def scan(cohort):
    """Return a function that gives the features of one scan of the cohort, moved by some standard deviations."""
    from unibrain_bids.classification.features import Features

    def one(row, moved=0.0):
        return Features(cohort.regions[row] + np.float32(moved), cohort.whole[row], cohort.networks[row])

    return one
