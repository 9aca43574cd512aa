"""What can be said of the SLURM plugin without a cluster; `make slurm` tests it on one."""

import os
import re
import shutil

import pytest

os.environ["NO_ET"] = "1"

from nipype import Function, Node, Workflow

from unibrain_bids.workflows.slurm import SafeSlurmPlugin


def add_one(value):
    return value + 1


@pytest.mark.slow
@pytest.mark.skipif("SLURM_CONF" in os.environ, reason="there is a cluster, which accepts jobs")
def test_refused_jobs_are_errors_of_their_nodes(tmp_path):
    """Without Slurm, or without its controller, every submission is refused; all nodes are told so, none waits."""
    workflow = Workflow("root", base_dir=str(tmp_path / "work"))
    workflow.config["execution"] = {
        "poll_sleep_duration": 0.05, "crashdump_dir": str(tmp_path), "crashfile_format": "txt"
    }  # fmt: skip
    for index in range(2):
        node = Node(Function(function=add_one, output_names=["value"]), name=f"node{index}")
        node.inputs.value = index
        workflow.add_nodes([node])
    with pytest.raises(RuntimeError):
        workflow.run(SafeSlurmPlugin({"max_tries": 1, "retry_timeout": 0}))
    crashes = [path.read_text() for path in tmp_path.glob("crash-*.txt")]
    assert {re.search(r"^Node: root\.(\w+)$", text, re.MULTILINE)[1] for text in crashes} == {"node0", "node1"}
    said = "sbatch: " if shutil.which("sbatch") else "sbatch: No such file or directory"
    assert all(f"unibrain_bids.errors.UsageError: Slurm refuses the job: {said}" in text for text in crashes)
