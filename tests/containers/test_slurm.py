"""Several scans on a real Slurm, through the plugin and as a job array, with what goes wrong on a cluster.

`make slurm` (tools/check_slurm.sh) starts a Slurm of one node and runs this. The tests build on each other: what one
run has left undone is what the next one does.
"""

from __future__ import annotations

import filecmp
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from unibrain_bids import demo
from unibrain_bids.errors import ExitCode

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster")]

SCANS = tuple(demo.DemoScan(f"{number:02}", "1", 100 + number) for number in (1, 2))
OPTIONS = (
    "--device", "cpu", "--omp-nthreads", "1", "--skip-bids-validation", "--output-spaces", "T1w", "--tasks", "mask",
    "--no-report",
)  # fmt: skip
ENOUGH, TOO_LITTLE = "3G", "300M"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for everything, with a space in its name."""
    return tmp_path_factory.mktemp("on a cluster")


@pytest.fixture(scope="module")
def heads(folder):
    span = replace(demo.SPAN, shape=(72, 88, 84), spacing=3.0)
    return demo.write_dataset(folder, SCANS, span)


@pytest.fixture
def by_plugin(folder, heads, environment):
    """Return a function that starts a run through the SLURM plugin, its output in the file `log`."""

    def start(out, *options, memory=ENOUGH):
        plugin = folder / "plugin.yml"
        plugin.write_text(f"plugin: SLURM\nplugin_args: {{sbatch_args: --mem={memory}, max_jobs: 4, poll: 1}}\n")
        words = [str(heads), str(folder / out), "participant", "--use-plugin", str(plugin), *OPTIONS, *options]
        command = [sys.executable, "-m", "unibrain_bids", *words, "-w", str(folder / "work")]
        with (folder / "log").open("w") as log:
            return subprocess.Popen(command, env=environment, stderr=log)

    return start


@pytest.fixture
def by_array(folder, heads, environment, root):
    """Return a function that starts docs/slurm-array.sh, and waits for it as `sbatch --wait` does."""

    def start(out, tasks, memory=ENOUGH):
        variables = {**environment, "UNIBRAIN": f"{sys.executable} -m unibrain_bids"}
        sbatch = ["sbatch", "--wait", f"--array={tasks}", f"--mem={memory}", f"--output={folder}/array-%a.log"]
        script = [str(root / "docs" / "slurm-array.sh"), str(heads), str(folder / out), *OPTIONS]
        return subprocess.Popen([*sbatch, *script], env=variables)

    return start


def predict_of(scan):
    return f"unibrain_wf.sub-{scan.participant}_ses-{scan.session}_wf.predict"


def derivatives(out):
    """Return all files of the participants."""
    return {str(path.relative_to(out)) for path in Path(out).glob("sub-*/**/*") if path.is_file()}


def masks(out):
    return sorted(path[4:6] for path in derivatives(out) if path.endswith("desc-brain_mask.nii.gz"))


def leftovers(out):
    return list(Path(out).glob(".unibrain-tmp-*"))


def test_plugin_with_a_killed_and_a_requeued_job(by_plugin, folder, cluster):
    run = by_plugin("plugin")
    cluster.cancel(predict_of(SCANS[0]))
    cluster.requeue(predict_of(SCANS[1]))
    assert run.wait() == ExitCode.WORKER_KILLED
    log = (folder / "log").read_text()
    assert "2 scan(s): 1 done, 1 failed" in log
    assert "FAILED sub-01_ses-1: Slurm ended job" in log
    assert "(CANCELLED)" in log
    assert masks(folder / "plugin") == ["02"]


def test_plugin_goes_on_where_it_was(by_plugin, folder):
    assert by_plugin("plugin").wait() == ExitCode.SUCCESS
    assert "2 scan(s): 1 done, 1 complete before, 0 failed" in (folder / "log").read_text()
    assert masks(folder / "plugin") == ["01", "02"]


def test_plugin_with_too_little_memory(by_plugin, folder):
    assert by_plugin("short", "--participant-label", "01", memory=TOO_LITTLE).wait() == ExitCode.WORKER_KILLED
    assert "More --mem or --time in sbatch_args may help" in (folder / "log").read_text()
    assert not derivatives(folder / "short")


def test_interrupted_plugin_leaves_no_jobs_behind(by_plugin, folder, cluster):
    run = by_plugin("interrupted", "--participant-label", "01")
    cluster.becomes(predict_of(SCANS[0]), "RUNNING")
    run.send_signal(signal.SIGTERM)
    assert run.wait() == ExitCode.INTERRUPTED
    cluster.empty()
    assert not derivatives(folder / "interrupted")


def test_array_with_a_killed_and_a_requeued_task(by_array, folder, cluster):
    run = by_array("array", "1-2")
    cluster.cancel("1")
    cluster.requeue("2")
    assert run.wait() != 0
    assert masks(folder / "array") == ["02"]


def test_array_with_too_little_memory(by_array, folder):
    assert by_array("array", "1", memory=TOO_LITTLE).wait() != 0
    assert masks(folder / "array") == ["02"]


def test_array_submitted_again(by_array, folder):
    assert by_array("array", "1-3").wait() == ExitCode.SUCCESS
    assert masks(folder / "array") == ["01", "02"]
    assert not leftovers(folder / "array")
    assert "1 done, 0 failed" in (folder / "array-1.log").read_text()
    assert "1 complete before, 0 failed" in (folder / "array-2.log").read_text()
    assert "nothing to do" in (folder / "array-3.log").read_text()


def test_both_ways_give_the_same_files(folder):
    names = derivatives(folder / "plugin")
    assert names
    assert names == derivatives(folder / "array")
    _, differ, missing = filecmp.cmpfiles(folder / "plugin", folder / "array", names, shallow=False)
    assert not differ + missing
