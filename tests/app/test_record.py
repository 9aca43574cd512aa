"""The record of a run."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from unibrain_bids import __version__
from unibrain_bids.app.failures import Failure
from unibrain_bids.app.monitor import ResourceMonitor
from unibrain_bids.app.options import parse_options
from unibrain_bids.app.plan import Plan
from unibrain_bids.app.provenance import environment, revision
from unibrain_bids.app.record import run_record
from unibrain_bids.app.settings import make_settings
from unibrain_bids.bids.inputs import ScanRecord
from unibrain_bids.bids.publish import Fingerprint

RAW = Path("/data/raw")
SCANS = [ScanRecord.from_path(RAW / f"sub-0{n}/anat/sub-0{n}_T1w.nii.gz", dataset=RAW) for n in (1, 2, 3)]
MARK = Fingerprint("i" * 64, "s", "w")
PLAN = Plan(todo=dict.fromkeys(SCANS[:2], MARK), complete={SCANS[2]: MARK})


@pytest.fixture
def settings(tmp_path):
    words = [str(tmp_path / "raw"), str(tmp_path / "out"), "participant", "--gpu", "--n_cpus", "3", "-v"]
    words += ["--participant-label", "01", "sub-02", "--smoothness", "0.5", "--resource-monitor"]
    made = make_settings(*parse_options(words))
    return replace(made, processing=replace(made.processing, device="cpu"))


def read(record):
    return json.loads((record.folder / "run.json").read_text())


def test_what_is_kept(settings):
    with run_record(settings, weights="w" * 64) as record:
        assert "End" not in read(record)
        record.inputs(PLAN)
        record.outcome(PLAN, [Failure("sub-02", "is empty")], {"sub-01": 1.26, "sub-02": 0.5})
    kept = read(record)
    assert record.folder.parent == settings.processing.output_dir / "logs"
    assert kept["Version"] == __version__ and kept["WeightsSHA256"] == "w" * 64
    assert kept["Settings"]["processing"]["smoothness"] == 0.5 and kept["Settings"]["nprocs"] == 3
    assert kept["Settings"]["processing"]["random_seed"] == 0
    assert kept["Device"] == {"Name": "cpu"} and kept["Libraries"]["torch"]
    assert kept["Inputs"] == {scan.relative_path: MARK.input for scan in SCANS}
    assert kept["Scans"] == {"Done": ["sub-01"], "CompleteBefore": ["sub-03"], "Failed": {"sub-02": "is empty"}}
    assert kept["Seconds"] == {"sub-01": 1.3, "sub-02": 0.5}
    assert kept["Start"] <= kept["End"] and kept["PeakMemoryMB"] > 10
    header, first, *_ = (record.folder / "resources.tsv").read_text().splitlines()
    assert header.split("\t") == ["seconds", "processes", "memory_mb", "cpu_seconds"]
    assert float(first.split("\t")[2]) > 10


def test_error_is_kept(settings):
    with pytest.raises(KeyboardInterrupt), run_record(settings, weights="") as record:
        raise KeyboardInterrupt("stop")
    assert read(record)["Error"] == "KeyboardInterrupt: stop" and "End" in read(record)


def test_options_are_kept_in_a_form_that_repeats_the_run(settings):
    with run_record(settings, weights="") as record:
        pass
    again = make_settings(*parse_options(["--config-file", str(record.folder / "config.yml")]))
    assert again == replace(settings, processing=replace(settings.processing, device="cuda"))


def test_memory_of_children_counts():
    monitor = ResourceMonitor(interval=0.01)
    monitor.start()
    hold = "import sys; held = bytearray(200_000_000); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        monitor.close()
    assert monitor.samples[-1]["processes"] >= 2
    assert monitor.samples[-1]["memory_mb"] > 200


def test_environment_is_light_and_knows_the_revision():
    assert environment()["Revision"] == revision()
    root = Path(__file__).parents[2]
    if (root / ".git").exists():
        words = ["git", "-C", str(root), "rev-parse", "HEAD"]
        head = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
        assert revision().removesuffix("+") == head
