"""The simulated scheduler of docs/scaling.md."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace

import pytest


@pytest.fixture(scope="module")
def simulation(root):
    spec = importlib.util.spec_from_file_location("simulate_cluster", root / "tools" / "simulate_cluster.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def cluster(simulation):
    return simulation.Cluster(
        slots=10,
        start_s=6,
        head_s=30,
        spread=0.3,
        check_s=0.1,
        kill_rate=0,
        limit_s=3600,
        array_size=1000,
    )


def test_undisturbed(simulation, cluster):
    outcome = simulation.simulate(1000, 10, cluster, requeue=True, seed=1)
    assert (outcome.rounds, outcome.submissions, outcome.kills, len(outcome.starts)) == (1, 1, 0, 100)
    assert outcome.busy == pytest.approx(outcome.useful + 100 * cluster.start_s)
    assert outcome.busy / cluster.slots <= outcome.seconds < 1.2 * outcome.busy / cluster.slots
    assert outcome.useful == pytest.approx(1000 * 30, rel=0.05)


@pytest.mark.parametrize("requeue", [True, False])
def test_kills_cost_time_and_nothing_else(simulation, cluster, requeue):
    rough = replace(cluster, kill_rate=10)
    outcome = simulation.simulate(1000, 10, rough, requeue=requeue, seed=1)
    assert outcome.kills > 10
    assert (outcome.rounds > 1) == (not requeue)
    assert outcome.useful == simulation.simulate(1000, 10, cluster, requeue=requeue, seed=1).useful
    assert outcome.busy > outcome.useful


def test_tasks_longer_than_their_limit_get_done_all_the_same(simulation, cluster):
    outcome = simulation.simulate(300, 300, replace(cluster, limit_s=1800), requeue=True, seed=1)
    assert outcome.kills == len(outcome.starts) - 1 > 3


def test_arrays_are_limited(simulation, cluster):
    assert simulation.simulate(100, 1, replace(cluster, array_size=30), requeue=True, seed=1).submissions == 4
