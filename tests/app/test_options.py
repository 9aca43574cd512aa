"""The command line: what is understood, and how mistakes are shown."""

import subprocess
import sys
from pathlib import Path

import pytest

from unibrain_bids import __version__
from unibrain_bids.app.cli import main
from unibrain_bids.app.options import parse_options
from unibrain_bids.app.rules import available_cpus, gigabytes
from unibrain_bids.app.settings import make_settings
from unibrain_bids.bids.templates import DEFAULT_TEMPLATE, Space
from unibrain_bids.errors import ExitCode, UsageError
from unibrain_bids.workflows.processing import TASKS

HEAVY = ("torch", "nipype", "bids", "pandas", "nibabel", "numpy", "scipy", "nilearn")


def settings(*options, places=("/data/raw", "/data/out", "participant")):
    return make_settings(*parse_options([*places, *options]))


def problems(*options, **places):
    with pytest.raises(UsageError) as error:
        settings(*options, **places)
    return str(error.value)


def test_defaults():
    chosen = settings()
    assert chosen.processing.bids_dir == Path("/data/raw")
    assert chosen.processing.output_dir == Path("/data/out")
    assert (chosen.processing.tasks, chosen.processing.atlases) == (TASKS, ("DK",))
    assert (chosen.processing.spaces, chosen.processing.smoothness) == ((Space(),), 0.1)
    assert (chosen.processing.device, chosen.nprocs) == ("auto", available_cpus())
    assert chosen.participants == chosen.sessions == ()


@pytest.mark.parametrize(
    ("options", "attribute", "value"),
    [
        (["--participant-label", "01", "sub-02"], "participants", ("01", "02")),
        (["--participant_label", "01"], "participants", ("01",)),
        (["--participant-labels", "sub-01", "--participant-label", "03", "01"], "participants", ("01", "03")),
        (["--session-id", "ses-a"], "sessions", ("a",)),
        (["--session-label", "a", "b"], "sessions", ("a", "b")),
        (["--n_cpus", "3"], "nprocs", 3),
        (["--nthreads", "3"], "nprocs", 3),
        (["--ncpus", "3"], "nprocs", 3),
        (["--omp_nthreads", "2"], "omp_nthreads", 2),
        (["--mem_gb", "8"], "mem_gb", 8.0),
        (["--work_dir", "/scratch"], "work_dir", Path("/scratch")),
        (["-w", "/scratch"], "work_dir", Path("/scratch")),
        (["--skip_bids_validator"], "skip_validation", True),
        (["--skip-bids-validation"], "skip_validation", True),
        (["--stop-on-first-crash"], "stop_on_first_crash", True),
        (["--bids-database-dir", "/index"], "database_dir", Path("/index")),
        (["--low-mem"], "low_mem", True),
        (["--clean-workdir", "-w", "/scratch"], "clean_workdir", True),
        (["--resource-monitor"], "resource_monitor", True),
        (["--write-graph"], "write_graph", True),
        (["--md-only-boilerplate"], "boilerplate_only", True),
        (["--dry-run"], "dry_run", True),
        (["--force"], "force", True),
        (["-vv"], "verbosity", 2),
    ],
)
def test_options_and_aliases(options, attribute, value):
    assert getattr(settings(*options), attribute) == value


@pytest.mark.parametrize(
    ("options", "attribute", "value"),
    [
        (["--gpu"], "device", "cuda"),
        (["--device", "cuda:1"], "device", "cuda:1"),
        (["--lambda", "1e-2"], "smoothness", 0.01),
        (["--output-spaces", "T1w"], "spaces", ()),
        (["--output-spaces", "anat", f"{DEFAULT_TEMPLATE}:res-1"], "spaces", (Space(),)),
        (["--tasks", "register", "mask"], "tasks", ("mask", "register")),
        (["--model", "npp"], "tasks", ("mask", "preproc", "register")),
        (["--model", "npp", "--tasks", "mask"], "model", "npp"),
        (["--random_seed", "5"], "random_seed", 5),
    ],
)
def test_options_of_processing(options, attribute, value):
    assert getattr(settings(*options).processing, attribute) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("8", 8), ("8G", 8), ("8gb", 8), ("8000M", 8), ("0.5", 0.5), ("2T", 2000), ("16 GiB", 16)],
)
def test_memory(text, value):
    assert gigabytes(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["8000", "0", "-1", "much", "8 GX", ""])
def test_memory_that_cannot_be_meant(text):
    with pytest.raises(ValueError):
        gigabytes(text)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--nprocs", "0"], "--nprocs 0"),
        (["--mem", "8000"], "write 8000M"),
        (["--device", "tpu"], "--device tpu"),
        (["--smoothness", "nan"], "--smoothness nan"),
        (["--smoothness", "100"], "0.001 to 10"),
        (["--output-spaces", "MNI152NLin6Asym"], DEFAULT_TEMPLATE),
        (["--output-spaces", f"{DEFAULT_TEMPLATE}:res-2"], "res-2"),
        (["--atlas", "Foo"], "DK"),
        (["--tasks", "everything"], ", ".join(TASKS)),
        (["--model", "nnp"], "unified, npp"),
        (["--model", "npp", "--tasks", "mask", "segment"], "npp gives no segment"),
        (["--model", "npp", "--atlas", "DK"], "npp gives no parcellation"),
        (["--model", "npp", "--classifier", "HEAD"], "--classifier"),
        (["--participant-label", "0_1"], "0_1"),
        (["--bids-filter-file", "/no/such.json"], "/no/such.json"),
        (["--random-seed", "x"], "--random-seed x"),
        (["-w", "/data/raw/work"], "/data/raw/work"),
        (["--participants", "01"], "--participants"),
        (["--nprocs"], "--nprocs: expected one argument"),
        (["--nproc", "3"], "did you mean --nprocs?"),
        (["-vx"], "--verbose: ignored explicit argument 'x'"),
        (["--clean-workdir"], "--work-dir"),
    ],
)
def test_mistakes_are_named(options, named):
    assert named in problems(*options)


def test_all_mistakes_at_once():
    places = ("/data/raw", "/data/out", "level")
    message = problems("--nprocs", "x", "--mem", "much", "--foo", "--device", "--gpu=1", places=places)
    for named in ("6 problems", "--nprocs x", "--mem much", "--foo", "level", "--device: expected", "--gpu: ignored"):
        assert named in message


def test_missing_arguments():
    assert "missing bids_dir, output_dir, analysis_level" in problems(places=())
    assert "missing analysis_level" in problems(places=("/data/raw", "/data/out"))


def test_level_that_does_not_exist(capsys):
    assert main(["/data/raw", "/data/out", "cohort"]) == ExitCode.USAGE
    assert "'participant' or 'group'" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out.strip() == f"unibrain-bids {__version__}"


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_loads_nothing_heavy(option):
    script = (
        "import sys; from unibrain_bids.app.cli import main\n"
        f"try: main([{option!r}])\nexcept SystemExit: pass\n"
        f"print('LOADED', sorted(set({HEAVY}) & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "LOADED []" in result.stdout


def test_module_is_the_command():
    command = [sys.executable, "-m", "unibrain_bids", "/data/raw"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == ExitCode.USAGE
    assert result.stderr.startswith("unibrain-bids: ")
