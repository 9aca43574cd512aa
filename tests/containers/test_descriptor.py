"""boutiques.json says what the parser says, and Boutiques can run the app by it."""

from __future__ import annotations

import json
import runpy
import shlex
import subprocess

import pytest

from unibrain_bids.app.options import build_parser
from unibrain_bids.errors import ExitCode

pytest.importorskip("boutiques")


@pytest.fixture
def bosh(environment, tmp_path):
    """Return a function that runs `bosh` in an empty folder."""

    def run(*words):
        command = ["bosh", *map(str, words)]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def descriptor(root):
    return root / "boutiques.json"


@pytest.fixture
def invocation(tmp_path):
    """Return a function that writes an invocation."""

    def write(**inputs):
        path = tmp_path / "invocation.json"
        path.write_text(json.dumps(inputs))
        return path

    return write


def test_follows_the_parser(root, descriptor):
    made = runpy.run_path(str(root / "tools" / "make_descriptor.py"))["descriptor"]()
    assert json.loads(descriptor.read_text()) == made, "boutiques.json is out of date: run `make descriptor`"


@pytest.mark.slow
def test_is_valid_by_the_bids_profile(bosh, descriptor):
    result = bosh("validate", "-b", descriptor)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
def test_simulated_command_means_what_was_asked_for(bosh, descriptor, invocation, tmp_path):
    (tmp_path / "filter.json").write_text("{}")
    asked = invocation(
        bids_dir=str(tmp_path),
        output_dir="my results",
        analysis_level="participant",
        participant_label=["01", "02"],
        session_label=["a"],
        bids_filter_file="filter.json",
        tasks=["mask", "segment"],
        smoothness=0.5,
        nprocs=2,
        mem="3G",
        force=True,
    )
    result = bosh("exec", "simulate", descriptor, "-i", asked)
    assert result.returncode == 0, result.stdout + result.stderr
    mkdir, command = result.stdout.strip().splitlines()[-1].split("; ")
    assert mkdir == "mkdir -p 'my results'"
    program, *words = shlex.split(command)
    options, problems = build_parser().read(words)
    assert (program, problems) == ("unibrain-bids", [])
    defaults = vars(build_parser().read([])[0])
    assert {name: value for name, value in vars(options).items() if value != defaults[name]} == {
        "bids_dir": str(tmp_path),
        "output_dir": "my results",
        "analysis_level": "participant",
        "participants": ["01", "02"],
        "sessions": ["a"],
        "bids_filter_file": "filter.json",
        "tasks": ["mask", "segment"],
        "smoothness": "0.5",
        "nprocs": "2",
        "mem": "3G",
        "force": True,
    }


@pytest.mark.slow
def test_launched_without_container(bosh, bids, descriptor, invocation, tmp_path):
    asked = invocation(
        bids_dir=str(bids),
        output_dir="out",
        analysis_level="participant",
        tasks=["mask"],
        output_spaces=["T1w"],
        nprocs=1,
        device="cpu",
        skip_bids_validation=True,
    )
    result = bosh("exec", "launch", descriptor, asked, "--no-container", "--skip-data-collection")
    assert result.returncode == ExitCode.SUCCESS, result.stdout + result.stderr
    assert (tmp_path / "out/sub-01/ses-1/anat/sub-01_ses-1_desc-brain_mask.nii.gz").is_file()


@pytest.mark.slow
def test_failure_is_explained_by_its_exit_code(bosh, descriptor, invocation, tmp_path):
    (tmp_path / "no dataset").mkdir()
    asked = invocation(bids_dir="no dataset", output_dir="out", analysis_level="participant")
    result = bosh("exec", "launch", descriptor, asked, "--no-container", "--skip-data-collection")
    assert result.returncode == ExitCode.NOT_BIDS
    assert ExitCode.NOT_BIDS.meaning in result.stdout
