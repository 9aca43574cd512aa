"""Interruptions, which Nipype would swallow."""

import os
import signal

import pytest

os.environ["NO_ET"] = "1"

from nipype import Function, Node, Workflow

from unibrain_bids.app.signals import interruptible


def terminate(before):
    import os
    import signal

    os.kill(os.getpid(), signal.SIGTERM)


def leave_mark(before):
    from pathlib import Path

    Path(before).touch()


def test_termination_within_a_node_ends_the_run(tmp_path):
    workflow = Workflow("root", base_dir=str(tmp_path / "work"))
    workflow.config["execution"] = {"crashdump_dir": str(tmp_path / "logs")}
    for name, function in (("a", terminate), ("b", leave_mark)):
        node = Node(Function(function=function), name=name)
        node.inputs.before = str(tmp_path / "mark")
        workflow.add_nodes([node])
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), interruptible() as check:
        workflow.run("Linear", plugin_args={"status_callback": lambda *_: check()})
    assert not (tmp_path / "mark").exists()
    assert signal.getsignal(signal.SIGTERM) is handler
