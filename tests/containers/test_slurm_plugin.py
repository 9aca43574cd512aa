"""The SLURM plugin on a real Slurm, with nodes that do nothing but last. `make slurm` runs this."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections import defaultdict

import pytest

os.environ["NO_ET"] = "1"

from nipype import Function, Node, Workflow

from unibrain_bids.workflows.slurm import SafeSlurmPlugin

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster")]

FOREVER = 3600


def last(seconds, megabytes):
    import time

    block = b"x" * (megabytes << 20)
    time.sleep(seconds)
    return len(block)


def chain(workflow, name, seconds=1, megabytes=1):
    """Add a node that lasts, and one that needs its result."""
    first = Node(Function(function=last, output_names=["megabytes"]), name=name)
    first.inputs.seconds, first.inputs.megabytes = seconds, megabytes
    second = Node(Function(function=last, output_names=["megabytes"]), name=f"after_{name}")
    second.inputs.seconds = 0
    workflow.connect(first, ("megabytes", zero), second, "megabytes")


def zero(_):
    return 0


def cpus():
    import os

    return int(os.environ["SLURM_CPUS_PER_TASK"])


@pytest.fixture
def workflow(tmp_path):
    workflow = Workflow("root", base_dir=str(tmp_path / "a folder"))
    crashes = {"crashdump_dir": str(tmp_path / "crashes"), "crashfile_format": "txt"}
    workflow.config["execution"] = {"poll_sleep_duration": 0.2, **crashes}
    return workflow


def plugin(statuses=None, **arguments):
    def note(node, status):
        if statuses is not None:
            statuses[status].add(node.name)

    return SafeSlurmPlugin({"sbatch_args": "--mem=400M", "poll": 1, "status_callback": note, **arguments})


@pytest.fixture
def meanwhile():
    """Return a function that starts another beside the test, which ends after it."""
    started = []

    def start(function):
        started.append(threading.Thread(target=function, daemon=True))
        started[-1].start()

    yield start
    for thread in started:
        thread.join()


def test_what_is_killed_fails_and_what_is_requeued_is_waited_for(workflow, tmp_path, cluster, meanwhile):
    def interfere():
        cluster.cancel("root.killed")
        cluster.requeue("root.requeued")

    chain(workflow, "killed", FOREVER)
    chain(workflow, "requeued", 5)
    chain(workflow, "greedy", FOREVER, megabytes=800)
    chain(workflow, "plain")
    statuses = defaultdict(set)
    meanwhile(interfere)
    with pytest.raises(RuntimeError):
        workflow.run(plugin(statuses))
    assert statuses["exception"] == {"killed", "greedy"}
    assert statuses["end"] == {"requeued", "after_requeued", "plain", "after_plain"}
    crashes = [path.read_text() for path in (tmp_path / "crashes").glob("crash-*.txt")]
    reasons = {re.search(r"^Node: root\.(\w+)$", text, re.M)[1]: text for text in crashes}
    assert reasons.keys() == {"killed", "greedy"}
    assert all("WorkerKilledError: Slurm ended job" in text for text in reasons.values())
    assert "(CANCELLED)" in reasons["killed"]


@pytest.fixture
def interruptible():
    """Ctrl-C interrupts, also where the tests run in the background and ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_interruption_cancels_the_jobs(workflow, cluster, meanwhile):
    def interrupt():
        cluster.becomes("root.killed", "RUNNING")
        os.kill(os.getpid(), signal.SIGINT)

    chain(workflow, "killed", FOREVER)
    meanwhile(interrupt)
    with pytest.raises(KeyboardInterrupt):
        workflow.run(plugin())
    cluster.empty()


def test_refused_job_is_an_error_of_its_node(workflow, tmp_path):
    chain(workflow, "plain")
    with pytest.raises(RuntimeError, match="UsageError: Slurm refuses the job"):
        workflow.run(plugin(sbatch_args="--partition=nowhere", max_tries=0))
    (crash,) = (tmp_path / "crashes").glob("crash-*.txt")
    assert "invalid partition" in crash.read_text()


def test_job_gets_the_cpus_of_its_node(workflow, cluster):
    wanted = min(2, int(cluster("sinfo", "--noheader", "--format=%c")))
    workflow.add_nodes([Node(Function(function=cpus, output_names=["cpus"]), name="cpus", n_procs=wanted)])
    (done,) = workflow.run(plugin()).nodes
    assert done.result.outputs.cpus == wanted
