"""What `--print-completion` prints makes a real shell complete our options."""

import shutil
import subprocess
import sys

import pytest

from unibrain_bids.app.cli import main
from unibrain_bids.errors import ExitCode

ASK = """
source {script}
COMP_WORDS=(unibrain-bids /data /out participant {typed}); COMP_CWORD=4
{function}
echo "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def bash(tmp_path):
    program = shutil.which("bash")
    if program is None:
        pytest.skip("there is no bash")
    words = [sys.executable, "-m", "unibrain_bids", "--print-completion", "bash"]
    script = tmp_path / "completion"
    script.write_text(subprocess.run(words, capture_output=True, text=True, check=True).stdout)

    def complete(typed):
        listed = subprocess.run(
            [program, "-c", f"source {script}; complete -p unibrain-bids"], capture_output=True, text=True, check=True
        ).stdout.split()
        text = ASK.format(script=script, typed=typed, function=listed[listed.index("-F") + 1])
        return subprocess.run([program, "-c", text], capture_output=True, text=True).stdout.split()

    return complete


def test_bash_completes_options(bash):
    assert bash("--omp") == ["--omp-nthreads"]
    assert {"--participant-label", "--print-completion"} <= set(bash("--p"))


def test_unknown_shell_names_those_that_are_known(capsys):
    assert main(["--print-completion", "ksh"]) == ExitCode.USAGE
    assert "bash" in capsys.readouterr().err
