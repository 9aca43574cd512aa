"""Why a scan failed, from crash files that Nipype itself has written."""

import os

import pytest

os.environ["NO_ET"] = "1"

from nipype import Function, Node, Workflow

from unibrain_bids.app.failures import Failure, common_exit_code, explain, read_crashes
from unibrain_bids.errors import ExitCode


def fail(kind):
    from unibrain_bids.errors import OutputError, ScanError

    errors = {
        "scan": ScanError("/data/x.nii: is empty.", "Copy it again."),
        "output": OutputError("/out: cannot be written."),
        "memory": MemoryError(),
        "full": OSError(28, "No space left on device", "/out/x"),
        "bug": IndexError("list index out of range"),
        "lines": ValueError("one line\nand another"),
    }
    try:
        raise OSError("the cause")
    except OSError as cause:
        raise errors[kind] from cause


@pytest.fixture
def crash(tmp_path):
    """Let a node of a scan's workflow fail; returns what its crash file says."""

    def run(kind, plugin):
        workflow = Workflow("unibrain_wf", base_dir=str(tmp_path / "work"))
        logs = tmp_path / "logs"
        workflow.config["execution"] = {"crashdump_dir": str(logs), "crashfile_format": "txt"}
        inner = Workflow("sub-01_ses-a_wf")
        node = Node(Function(function=fail), name="predict")
        node.inputs.kind = kind
        inner.add_nodes([node])
        workflow.add_nodes([inner])
        with pytest.raises(Exception, match=r".*"):
            workflow.run(plugin)
        (failure,) = read_crashes(logs)
        assert failure.crash_file.parent == logs
        return failure

    return run


@pytest.mark.parametrize("plugin", ["Linear", pytest.param("MultiProc", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("kind", "reason", "code"),
    [
        ("scan", "/data/x.nii: is empty. Copy it again.", ExitCode.SCANS_FAILED),
        ("output", "/out: cannot be written.", ExitCode.OUTPUT),
        ("memory", "out of memory (no message). Use fewer --nprocs or --low-mem.", ExitCode.WORKER_KILLED),
        (
            "full",
            "a file could not be read or written ([Errno 28] No space left on device: '/out/x'). Check that the "
            "output and work folders are there, writable and not full.",
            ExitCode.OUTPUT,
        ),
        ("bug", "unexpected IndexError: list index out of range", ExitCode.SCANS_FAILED),
        ("lines", "unexpected ValueError: one line", ExitCode.SCANS_FAILED),
    ],
)
def test_reason_is_the_error_that_was_raised_last(crash, plugin, kind, reason, code):
    failure = crash(kind, plugin)
    assert (failure.scan, failure.reason, failure.exit_code) == ("sub-01_ses-a", reason, code)


def test_exit_code_that_failures_share():
    scan, output = Failure("a", ""), Failure("b", "", ExitCode.OUTPUT)
    assert common_exit_code([]) == ExitCode.SUCCESS
    assert common_exit_code([output, output]) == ExitCode.OUTPUT
    assert common_exit_code([scan, output]) == ExitCode.SCANS_FAILED
    assert common_exit_code([scan, Failure("c", "", ExitCode.INTERRUPTED)]) == ExitCode.INTERRUPTED


@pytest.mark.parametrize(
    ("name", "message", "code"),
    [
        ("OutOfMemoryError", "CUDA out of memory. Tried to allocate 20.00 GiB.", ExitCode.DEVICE),
        ("AcceleratorError", "CUDA error: an illegal memory access was encountered", ExitCode.DEVICE),
        ("RuntimeError", "[enforce fail] DefaultCPUAllocator: can't allocate memory", ExitCode.WORKER_KILLED),
        ("_ArrayMemoryError", "Unable to allocate 8.00 PiB", ExitCode.WORKER_KILLED),
        ("FileNotFoundError", "[Errno 2] No such file or directory: '/work/x'", ExitCode.OUTPUT),
        ("KeyboardInterrupt", "no message", ExitCode.INTERRUPTED),
        ("RuntimeError", "shapes do not match", ExitCode.SCANS_FAILED),
        ("ConnectionError", "no route", ExitCode.SCANS_FAILED),
    ],
)
def test_exit_codes_of_errors_that_are_not_ours(name, message, code):
    assert explain(name, message)[1] == code
