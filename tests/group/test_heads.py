"""Heads at group level: trained, applied to other participants, and written where BIDS allows it."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from unibrain_bids.app.cli import main
from unibrain_bids.bids.atomic import write_json
from unibrain_bids.classification.card import find_head
from unibrain_bids.errors import ExitCode
from unibrain_bids.group.predictions import sex_mismatches

pytestmark = pytest.mark.slow

_BESIDE_PYTHON = str(Path(sys.executable).parent)
VALIDATOR = shutil.which("bids-validator-deno", path=_BESIDE_PYTHON) or shutil.which("bids-validator-deno")


def read(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


@pytest.fixture(scope="module")
def trained(simulate, tmp_path_factory):
    """(raw, out, path of the head) after --classify by the command line."""
    raw, out = simulate(tmp_path_factory.mktemp("learned"), participants=40, effect=2.5)
    (raw / "sub-0000").mkdir()
    words = [str(raw), str(out), "group", "--classify", "diagnosis", "--permutations", "99", "--covariates", "age"]
    assert main(words) == ExitCode.SUCCESS
    return raw, out, out / "group_desc-diagnosis_head.safetensors"


def test_head_is_good_and_its_card_stands_beside_it(trained):
    *_, path = trained
    card = json.loads(path.with_suffix(".json").read_text())
    assert card == find_head(path).card
    folds, sites = card["Validation"]
    assert folds["Figures"]["head"]["auc"] > 0.8
    assert folds["PermutationTests"]["Refitted"]["P"] == pytest.approx(0.01)
    assert "whole sites" in sites["Scheme"]
    assert set(sites["BySite"]) == {"Lima", "Oslo"}
    assert card["SiteFromFeatures"]["chance"] == 0.5


def test_page_tells_how_good_it_is(trained):
    page = (trained[1] / "group_T1w.html").read_text()
    assert "Research use only" in page
    assert "whole sites held out" in page.lower()


def test_phenotype_has_one_row_per_participant(trained, simulate, tmp_path):
    *_, head = trained
    raw, out = simulate(tmp_path, participants=12, effect=2.5, sessions=("a", "b"), seed=7)
    (raw / "sub-0000").mkdir()
    assert main([str(raw), str(out), "group", "--classifier", str(head)]) == ExitCode.SUCCESS
    rows = read(out / "phenotype" / "diagnosis.tsv")
    assert len(rows) == 12
    assert {row["n_scans"] for row in rows} == {"2"}
    right = sum(row["predicted_class"] == ("control", "patient")[k % 2] for k, row in enumerate(rows))
    assert right >= 10
    described = json.loads((out / "phenotype" / "diagnosis.json").read_text())
    assert "Research use only" in described["MeasurementToolMetadata"]["Description"]
    assert described["predicted_class"]["Derivative"] is True


@pytest.mark.skipif(VALIDATOR is None, reason="needs the BIDS validator")
def test_validator_finds_no_error(trained):
    raw, out, head = trained
    assert main([str(raw), str(out), "group", "--classifier", str(head), "--compare", "diagnosis"]) == ExitCode.SUCCESS
    command = [str(VALIDATOR), str(out), "--format", "json", "--ignoreWarnings"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    issues = json.loads(result.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []


def test_head_of_other_weights_is_refused(trained, simulate, tmp_path, capsys):
    *_, head = trained
    raw, out = simulate(tmp_path, participants=4)
    (raw / "sub-0000").mkdir()
    for path in (out / "logs" / "complete").glob("*.json"):
        write_json(path, {"version": "0.1", "fingerprint": {"weights": "f" * 64}})
    assert main([str(raw), str(out), "group", "--classifier", str(head)]) == ExitCode.RESOURCE
    assert "ffffffffffff" in capsys.readouterr().err


def test_sex_that_does_not_fit_is_remarked(trained):
    from dataclasses import replace

    from unibrain_bids.classification.head import Outcome, load_head

    head = load_head(find_head(trained[2]))
    head = replace(head, card={**head.card, "Classes": ["F", "M"]})
    outcomes = {
        "sub-1_ses-a": Outcome("inside", 1.0, 2.0, 0.99, "M"),
        "sub-2": Outcome("inside", 1.0, 2.0, 0.99, "M"),
        "sub-3": Outcome("flagged", 3.0, 2.0, 0.99, "M"),
        "sub-4": Outcome("inside", 1.0, 2.0, 0.90, "M"),
    }
    recorded = {"sub-1": "F", "sub-2": "M", "sub-3": "F", "sub-4": "F"}
    assert list(sex_mismatches(head, outcomes, recorded)) == ["sub-1_ses-a"]
