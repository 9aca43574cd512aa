"""A killed worker must be an error of its node, never a hang, and no other node's business."""

import os
import re
from collections import defaultdict

import pytest

os.environ["NO_ET"] = "1"

from nipype import Function, Node, Workflow

from unibrain_bids.workflows.multiproc import SafeMultiProcPlugin


def work(value, kill):
    import os
    import signal

    if kill:
        os.kill(os.getpid(), signal.SIGKILL)
    return value + 1


@pytest.fixture
def make_workflow(tmp_path):
    def make(killed=(), first_mem_gb=0.2):
        workflow = Workflow("root", base_dir=str(tmp_path / "work"))
        crashes = str(tmp_path / "crashes")
        workflow.config["execution"] = {
            "poll_sleep_duration": 0.05, "crashdump_dir": crashes, "crashfile_format": "txt"
        }  # fmt: skip
        for index in range(4):
            function = Function(function=work, output_names=["value"])
            first = Node(function, name=f"first{index}", mem_gb=first_mem_gb)
            second = Node(Function(function=work, output_names=["value"]), name=f"second{index}")
            first.inputs.value, first.inputs.kill, second.inputs.kill = index, index in killed, False
            workflow.connect(first, "value", second, "value")
        return workflow

    return make


@pytest.fixture
def statuses():
    """What the plugin has said: status to names of nodes."""
    return defaultdict(set)


def run(workflow, statuses, **plugin_args):
    def note(node, status):
        statuses[status].add(node.name)

    workflow.run(SafeMultiProcPlugin(plugin_args={"status_callback": note, **plugin_args}))


@pytest.mark.slow
def test_killed_worker_is_an_error_and_others_go_on(make_workflow, statuses, tmp_path):
    with pytest.raises(RuntimeError, match="WorkerKilledError"):
        run(make_workflow(killed=[1]), statuses, n_procs=1)
    assert statuses["exception"] == {"first1"}
    assert statuses["end"] == {"first0", "second0", "first2", "second2", "first3", "second3"}
    (crash,) = (tmp_path / "crashes").glob("crash-*.txt")
    assert re.search(r"^Node: root\.first1$", crash.read_text(), re.MULTILINE)
    assert "unibrain_bids.errors.WorkerKilledError: A worker process was killed" in crash.read_text()


@pytest.mark.slow
def test_workers_that_are_killed_one_after_the_other(make_workflow, statuses):
    with pytest.raises(RuntimeError):
        run(make_workflow(killed=range(4)), statuses, n_procs=2)
    assert statuses["exception"] == {f"first{index}" for index in range(4)}
    assert not statuses["end"]


@pytest.mark.slow
def test_what_has_begun_goes_first(make_workflow):
    ended = []
    plugin_args = {"n_procs": 1, "status_callback": lambda node, status: ended.append(node.name)}
    make_workflow().run(SafeMultiProcPlugin(plugin_args=plugin_args))
    order = list(dict.fromkeys(ended))
    assert all(order.index(f"second{index}") == order.index(f"first{index}") + 1 for index in range(4))


@pytest.mark.slow
def test_node_that_needs_more_memory_than_there_is_runs_all_the_same(make_workflow, statuses):
    run(make_workflow(first_mem_gb=100), statuses, n_procs=2, memory_gb=1)
    assert len(statuses["end"]) == 8
