"""`--config-file`: options under their names, below those of the command line."""

import json
from pathlib import Path

import pytest

from unibrain_bids.app.options import parse_options
from unibrain_bids.app.settings import make_settings
from unibrain_bids.errors import UsageError

PLACES = ["/data/raw", "/data/out", "participant"]
TOML = """
participant-label = ["01", "sub-02"]
nprocs = 3
mem_gb = "4000M"
smoothness = 0.5
force = true
dry-run = false
verbose = 2
"""
YAML = """
participant_label: ["01", sub-02]
nprocs: 3
mem: 4
smoothness: 0.5
force: true
dry_run: false
verbose: 2
device:
"""


def settings(path, text, *words):
    path.write_text(text)
    return make_settings(*parse_options([*words, "--config-file", str(path)]))


@pytest.mark.parametrize(("name", "text"), [("a.toml", TOML), ("a.yml", YAML)])
def test_values(tmp_path, name, text):
    chosen = settings(tmp_path / name, text, *PLACES)
    assert chosen.participants == ("01", "02")
    assert (chosen.nprocs, chosen.mem_gb, chosen.processing.smoothness) == (3, 4.0, 0.5)
    assert (chosen.force, chosen.dry_run, chosen.verbosity) == (True, False, 2)
    assert chosen.processing.device == "auto"


def test_command_line_wins(tmp_path):
    words = [*PLACES, "--n-cpus", "5", "--participant_label", "07", "-v"]
    chosen = settings(tmp_path / "a.toml", TOML, *words)
    assert (chosen.nprocs, chosen.participants, chosen.verbosity) == (5, ("07",), 1)
    assert chosen.mem_gb == 4.0


def test_places_may_stand_there_too(tmp_path):
    text = "{bids-dir: /data/raw, output_dir: /data/out, analysis_level: participant}"
    assert settings(tmp_path / "a.yaml", text).processing.output_dir == Path("/data/out")
    assert settings(tmp_path / "a.yaml", text, "/other").processing.bids_dir == Path("/other")


def test_all_problems_of_both_at_once(tmp_path):
    path = tmp_path / "a.json"
    content = {"nprocs": "x", "colour": "red", "version": True, "atlas": {"a": 1}, "smoothness": [1, 2]}
    with pytest.raises(UsageError) as error:
        settings(path, json.dumps(content), *PLACES, "--mem", "much")
    for named in ("--nprocs x", f"{path}: --colour=red", "version: only on the command line", "--atlas", "--mem much"):
        assert named in str(error.value)
    assert f"{path}: 2: no option takes this word" in str(error.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.toml", "nprocs: 3"), ("a.yml", "a: ["), ("a.yml", "- nprocs"), ("a.yml", ""), ("a.yml", "1: 2")],
)
def test_files_that_hold_no_options(tmp_path, name, text):
    with pytest.raises(UsageError, match=f"--config-file .*{name}.*nprocs = 8"):
        settings(tmp_path / name, text, *PLACES)


def test_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"absent\.yml"):
        parse_options([*PLACES, "--config-file", str(tmp_path / "absent.yml")])


def test_no_code_from_a_file(tmp_path):
    with pytest.raises(UsageError, match="python/object"):
        settings(tmp_path / "a.yml", f"nprocs: !!python/object/apply:os.mkdir ['{tmp_path}/made']", *PLACES)
    assert not (tmp_path / "made").exists()
