"""A head within a scan's workflow: from tables on disk to a prediction that BIDS can name."""

import json
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from unibrain_bids import __version__
from unibrain_bids.bids.atomic import write_json, write_tsv
from unibrain_bids.bids.derivatives import catalogue
from unibrain_bids.bids.inputs import ScanRecord
from unibrain_bids.classification.card import FROM_MODEL, FROM_TABLES, find_head
from unibrain_bids.classification.features import Features
from unibrain_bids.classification.head import load_head
from unibrain_bids.classification.linear import Ridge
from unibrain_bids.classification.training import train_head
from unibrain_bids.interfaces.classify import ClassifyScan
from unibrain_bids.interfaces.write import stage
from unibrain_bids.labels import LabelTable

BENCHMARK = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "classification.py"))


def train(folder, features):
    """Train a head on the simulated cohort, whose features are 0 on average, with a whole-brain one."""
    cohort = BENCHMARK["simulated_cohort"](1.0, seed=3, participants=40, hit=range(8))
    cohort = replace(cohort, whole=np.random.default_rng(0).normal(size=(40, 1)).astype("f4"))
    details = {
        "label": "case",
        "target": "diagnosis",
        "weights": "0" * 64,
        "version": __version__,
        "atlas": "DK",
        "excluded": {},
        "features": features,
    }
    trained = train_head(cohort, candidates=[Ridge("ridge")], permutations=9, **details)
    path = folder / "case.safetensors"
    path.write_bytes(trained.head.to_bytes())
    return find_head(path)


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A head that sees log volumes, and so on."""
    return train(tmp_path_factory.mktemp("head"), FROM_TABLES)


@pytest.fixture
def tables(tmp_path):
    """Tables of a scan whose features are 0, as those of the simulated cohort are on average."""
    labels = LabelTable.load("DK")
    details = {"volume": 1.0, "intensity_mean": 0.0, "intensity_sd": 0.0}
    rows = [{"index": i, "name": n, **details} for i, n in zip(labels.indices, labels.names, strict=True)]
    write_tsv(tmp_path / "regions.tsv", rows)
    write_tsv(tmp_path / "network.tsv", [dict.fromkeys(labels.names, 0.5)] * len(labels.names))
    write_json(tmp_path / "quality.json", {"intracranial_volume": 1.0})
    files = {"network_DK_innerproduct": str(tmp_path / "network.tsv"), "quality": str(tmp_path / "quality.json")}
    return files, {"regions_DK": str(tmp_path / "regions.tsv")}


def test_prediction_and_its_sidecar(head, tables, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files, regions = tables
    outputs = ClassifyScan(heads=[head], files=files, regions=regions).run().outputs
    header, row = [line.split("\t") for line in Path(outputs.files["prediction_case"]).read_text().splitlines()]
    assert header[:3] == ["predicted_class", "prob_control", "prob_case"]
    assert float(row[1]) + float(row[2]) == pytest.approx(1, abs=1e-5)

    record = ScanRecord.from_path(tmp_path / "sub-01/anat/sub-01_T1w.nii.gz", dataset=tmp_path)
    wanted = {r: p for r, p in catalogue(record, heads=["case"]).items() if r == "prediction_case"}
    (tmp_path / "staged").mkdir()
    stage(outputs.files, wanted, tmp_path / "staged", more=outputs.sidecars)
    sidecar = json.loads((tmp_path / "staged" / "sub-01_desc-case_predictions.json").read_text())
    assert sidecar["Use"].startswith("Research use only")
    assert sidecar["Classifier"]["Card"] == head.card
    assert set(header) <= set(sidecar)


def test_head_that_was_trained_with_the_model_sees_its_description_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    head = train(tmp_path, FROM_MODEL)
    regions, whole, network = np.zeros((84, 2), "f4"), np.zeros(1, "f4"), np.eye(84, dtype="f4")
    np.savez(tmp_path / "description.npz", regions=regions, whole=whole, network=network)
    files = {"description": str(tmp_path / "description.npz")}
    outputs = ClassifyScan(heads=[head], files=files, regions={}).run().outputs
    _, row = [line.split("\t") for line in Path(outputs.files["prediction_case"]).read_text().splitlines()]
    expected = load_head(head).apply(Features(regions, whole, network))
    assert float(row[2]) == pytest.approx(expected.value, abs=1e-5)
    assert row[3] == expected.verdict == "inside"
