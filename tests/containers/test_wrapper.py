"""unibrain-bids-docker: the command it makes, without anything but Python's standard library."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

import pytest

import unibrain_bids


@pytest.fixture
def wrapper(root, tmp_path):
    """Return a function that runs the wrapper in an empty folder, in a Python without site-packages."""
    script = root / "wrapper" / "unibrain_bids_docker.py"
    variables = {key: value for key, value in os.environ.items() if key not in ("UNIBRAIN_IMAGE", "TEMPLATEFLOW_HOME")}

    def run(*words, **extra):
        command = [sys.executable, "-I", "-S", str(script), *map(str, words)]
        environment = {**variables, **extra}
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def command(wrapper):
    """Return a function that gives the words of the command that the wrapper would run."""

    def words(*given, **extra):
        result = wrapper("--print-command", *given, **extra)
        assert result.returncode == 0, result.stderr
        return shlex.split(result.stdout)

    return words


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw data"
    folder.mkdir()
    return folder


def after(words, option):
    """Return what follows each occurrence of an option."""
    return [words[index + 1] for index, word in enumerate(words) if word == option]


def same(path, mode):
    return f"{path}:{path}:{mode}"


def test_paths_are_mounted_under_their_own_names(command, raw, tmp_path):
    (tmp_path / "filter.json").touch()
    options = ["--nprocs", "4", "--bids-filter-file=filter.json", "-w", "scratch"]
    words = command(*options, "raw data", "out", "participant", "--participant-label", "01")
    image = words.index(f"localhost/unibrain-bids:{unibrain_bids.__version__}")
    assert words[image + 1 :] == [*options, "raw data", "out", "participant", "--participant-label", "01"]
    assert after(words, "--workdir") == [str(tmp_path)]
    assert after(words, "--user") == [f"{os.getuid()}:{os.getgid()}"]
    assert sorted(after(words, "--volume")) == sorted(
        [
            same(raw, "ro"),
            same(tmp_path / "out", "rw"),
            same(tmp_path / "scratch", "rw"),
            same(tmp_path / "filter.json", "ro"),
        ]
    )
    assert not (tmp_path / "out").exists()


def test_a_template_with_a_name_is_mounted(command, raw, tmp_path):
    (tmp_path / "head.nii.gz").touch()
    words = command("raw data", "out", "participant", "--output-spaces", "mine=head.nii.gz")
    assert same(tmp_path / "head.nii.gz", "ro") in after(words, "--volume")


def test_derivatives_inside_the_raw_dataset(command, raw):
    out = raw / "derivatives" / "unibrain-bids"
    words = command(raw, out, "group")
    assert after(words, "--volume") == [same(raw, "ro"), same(out, "rw")]


def test_what_is_mounted_needs_no_second_mount(command, raw):
    (raw / "filter.json").touch()
    words = command(raw, raw.parent / "out", "participant", "--bids-filter-file", raw / "filter.json")
    assert after(words, "--volume") == [same(raw, "ro"), same(raw.parent / "out", "rw")]


@pytest.mark.parametrize(
    ("engine", "expected"),
    [("docker", "--gpus all"), ("podman", "--device nvidia.com/gpu=all"), ("apptainer", "--nv")],
)
@pytest.mark.parametrize("asked", [["--gpu"], ["--device", "cuda:1"], ["--device=cuda"]])
def test_gpu(command, raw, engine, expected, asked):
    image = "some/image"
    words = command("--engine", engine, "--image", image, raw, "out", "participant", *asked)
    assert words[:2] == [engine, "run"]
    assert expected in " ".join(words[: words.index(image)])
    without = command("--engine", engine, "--image", image, raw, "out", "participant", "--device", "cpu")
    assert expected not in " ".join(without[: without.index(image)])


def test_apptainer_sees_nothing_but_what_is_bound(command, raw):
    words = command("--engine", "apptainer", "--image", "x.sif", raw, "out", "participant")
    assert words[:6] == ["apptainer", "run", "--cleanenv", "--containall", "--no-home", "--pwd"]
    assert after(words, "--bind") == [same(raw, "ro"), same(raw.parent / "out", "rw")]


def test_environment(command, raw, tmp_path):
    words = command(raw, "out", "participant", UNIBRAIN_IMAGE="my:image", TEMPLATEFLOW_HOME=str(tmp_path / "tf"))
    assert "my:image" in words
    assert after(words, "--env") == [f"TEMPLATEFLOW_HOME={tmp_path / 'tf'}"]
    assert same(tmp_path / "tf", "ro") in after(words, "--volume")


@pytest.mark.parametrize("words", [["missing", "out", "participant"], ["/usr/share", "out", "participant"]])
def test_what_cannot_be_mounted(wrapper, words):
    result = wrapper(*words)
    assert result.returncode == 2
    assert words[0] in result.stderr


def test_engine_that_is_missing(wrapper, raw):
    result = wrapper("--engine", "apptainer", raw, "out", "participant", PATH="/nowhere")
    assert result.returncode == 2
    assert "apptainer" in result.stderr
