"""The progress display, fed with what Nipype's plugins say."""

import io
import logging
from types import SimpleNamespace

import pytest

from unibrain_bids.app.progress import Progress
from unibrain_bids.workflows.names import LAST_NODE


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def follow(caplog):
    """Feed a display with "scan step status"; return what was logged, and the scans that it called done."""
    caplog.set_level(logging.INFO)

    def run(progress, *events):
        done = []
        for event in events:
            scan, step, status = event.split()
            done.append(progress(SimpleNamespace(fullname=f"unibrain_wf.{scan}_wf.{step}"), status))
        lines = [record.getMessage().split(" (")[0] for record in caplog.records]
        return lines, [scan for scan in done if scan]

    return run


def test_scans_that_end(follow):
    progress = Progress(2, stream=io.StringIO())
    lines, done = follow(
        progress,
        "sub-01 predict start", "sub-02 predict start", "sub-01 predict end",
        "sub-02 predict exception", f"sub-01 {LAST_NODE} start", f"sub-01 {LAST_NODE} end",
    )  # fmt: skip
    assert lines == ["[1/2] sub-02: failed at predict", "[2/2] sub-01: done"]
    assert done == ["sub-01"]
    assert set(progress.seconds) == {"sub-01", "sub-02"}


def test_nodes_that_never_started_do_not_end(follow):
    progress = Progress(1, stream=io.StringIO())
    # Nipype's Linear plugin says so after a failure.
    lines, done = follow(progress, "sub-01 predict start", "sub-01 predict exception", f"sub-01 {LAST_NODE} end")
    assert lines == ["[1/1] sub-01: failed at predict"]
    assert done == []


def test_live_line_on_a_terminal(follow):
    terminal = Terminal()
    progress = Progress(2, stream=terminal)
    follow(progress, "sub-01 predict start", f"sub-01 {LAST_NODE} start", f"sub-01 {LAST_NODE} end")
    last = terminal.getvalue().rsplit("\x1b[K", 1)[1]
    assert last.startswith("1/2 scans, about 0:0")
    assert last.endswith("| sub-01 predict")
    progress.close()
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_no_live_line_in_a_file(follow):
    stream = io.StringIO()
    follow(Progress(1, stream=stream), "sub-01 predict start")
    assert stream.getvalue() == ""
