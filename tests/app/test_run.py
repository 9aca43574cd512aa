"""What holds a run together: the work folder, and interruptions that Nipype would swallow."""

import os
import signal
from pathlib import Path

import pytest

os.environ["NO_ET"] = "1"

from nipype import Function, Node, Workflow

from unibrain_bids.app.run import _interruptible, _work_dir
from unibrain_bids.errors import OutputError


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
    with pytest.raises(KeyboardInterrupt), _interruptible() as check:
        workflow.run("Linear", plugin_args={"status_callback": lambda *_: check()})
    assert not (tmp_path / "mark").exists()
    assert signal.getsignal(signal.SIGTERM) is handler


def test_temporary_work_folder_is_removed_whatever_happens():
    with pytest.raises(ZeroDivisionError), _work_dir(None) as folder:
        (folder / "file").touch()
        raise ZeroDivisionError
    assert not folder.exists()


def test_chosen_work_folder_stays(tmp_path):
    chosen = tmp_path / "a" / "b"
    with _work_dir(chosen) as folder:
        (folder / "file").touch()
    assert folder == chosen
    assert [path.name for path in chosen.iterdir()] == ["file"]


def test_work_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="--work-dir"), _work_dir(tmp_path / "file" / "work"):
        pass
    with pytest.raises(OutputError), _work_dir(Path("/proc/work")):
        pass
