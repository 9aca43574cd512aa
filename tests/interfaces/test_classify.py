"""A head within a scan's workflow: from tables on disk to a prediction that BIDS can name."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from unibrain_bids import __version__
from unibrain_bids.bids.atomic import write_json, write_tsv
from unibrain_bids.bids.derivatives import catalogue
from unibrain_bids.bids.inputs import ScanRecord
from unibrain_bids.classification.card import find_head
from unibrain_bids.classification.linear import Ridge
from unibrain_bids.classification.training import train_head
from unibrain_bids.interfaces.classify import ClassifyScan
from unibrain_bids.interfaces.write import stage
from unibrain_bids.labels import LabelTable

BENCHMARK = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "classification.py"))


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A head of log volumes around 1, and so on: features of the simulated cohort, with a whole-brain one."""
    from dataclasses import replace

    cohort = BENCHMARK["simulated_cohort"](1.0, seed=3, participants=40, hit=range(8))
    cohort = replace(cohort, whole=np.random.default_rng(0).normal(size=(40, 1)).astype("f4"))
    details = {
        "label": "case",
        "target": "diagnosis",
        "weights": "0" * 64,
        "version": __version__,
        "atlas": "DK",
        "excluded": {},
    }
    trained = train_head(cohort, candidates=[Ridge("ridge")], permutations=9, **details)
    path = tmp_path_factory.mktemp("head") / "case.safetensors"
    path.write_bytes(trained.head.to_bytes())
    return find_head(path)


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
