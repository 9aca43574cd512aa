"""What is said where."""

import subprocess
import sys

SCRIPT = """
import logging, sys, warnings
from pathlib import Path
from unibrain_bids.workflows.logs import start_logging
start_logging(Path(sys.argv[1]), int(sys.argv[2]))
logging.getLogger("unibrain_bids.app").info("ours")
logging.getLogger("nipype.workflow").info("nipype's")
logging.getLogger("unibrain_bids.app").debug("details")
warnings.warn("a library's warning")
"""


def run(log, verbosity):
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(log), str(verbosity)], capture_output=True, text=True, check=True
    )
    assert result.stdout == ""
    return result.stderr, log.read_text()


def test_terminal_gets_our_messages_and_the_file_all(tmp_path):
    terminal, file = run(tmp_path / "log", 0)
    assert "ours" in terminal and "nipype's" not in terminal and "warning" not in terminal
    assert "ours" in file and "nipype's" in file and "a library's warning" in file and "details" not in file
    assert "\x1b" not in terminal


def test_verbosity(tmp_path):
    terminal, _ = run(tmp_path / "log1", 1)
    assert "nipype's" in terminal and "details" not in terminal
    terminal, file = run(tmp_path / "log2", 2)
    assert "details" in terminal and "details" in file
