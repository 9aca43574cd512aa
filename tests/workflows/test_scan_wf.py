"""Which nodes a scan gets, and how they are wired."""

import os
from pathlib import Path

import pytest

os.environ["NO_ET"] = "1"

from unibrain_bids.app.engine import configure
from unibrain_bids.app.settings import Settings
from unibrain_bids.bids.inputs import ScanRecord
from unibrain_bids.bids.publish import Fingerprint
from unibrain_bids.bids.templates import Space
from unibrain_bids.classification.card import HeadFile
from unibrain_bids.workflows.names import LAST_NODE, scan_name, split_name
from unibrain_bids.workflows.participant import init_participant_wf
from unibrain_bids.workflows.processing import TASKS, Processing
from unibrain_bids.workflows.scan import init_scan_wf

FINGERPRINT = Fingerprint("a", "b", "c")
RAW, OUT = Path("/data/raw"), Path("/data/out")


def record(name="sub-01/anat/sub-01_T1w.nii.gz"):
    return ScanRecord.from_path(RAW / name, dataset=RAW)


def nodes(workflow):
    return {node.name for node in workflow._graph.nodes()}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"predict", "resample", "regions", "similarity", LAST_NODE}),
        ({"spaces": ()}, {"predict", "regions", "similarity", LAST_NODE}),
        ({"tasks": ("mask",)}, {"predict", LAST_NODE}),
        ({"tasks": ("mask", "register")}, {"predict", "resample", LAST_NODE}),
        ({"tasks": ("parcellate",)}, {"predict", "regions", LAST_NODE}),
        ({"tasks": ("network",)}, {"predict", "similarity", LAST_NODE}),
    ],
)
def test_only_what_was_asked_for(changes, expected):
    workflow = init_scan_wf(Processing(RAW, OUT, **changes), record(), fingerprint=FINGERPRINT)
    assert nodes(workflow) == expected


def test_heads_get_the_tables_they_need():
    head = HeadFile(Path("sex.safetensors"), "sex", "d" * 64, {})
    workflow = init_scan_wf(Processing(RAW, OUT, heads=(head,)), record(), fingerprint=FINGERPRINT)
    sources = {node.name for node in workflow._graph.predecessors(workflow.get_node("classify"))}
    assert sources == {"predict", "regions"}
    assert workflow.get_node("classify").inputs.heads == [head]


def test_another_head_is_another_result():
    one, other = (HeadFile(Path("sex.safetensors"), "sex", letter * 64, {}) for letter in "de")
    assert Processing(RAW, OUT, heads=(one,)).effective != Processing(RAW, OUT, heads=(other,)).effective


def test_only_images_that_will_be_published_are_resampled():
    processing = Processing(RAW, OUT, tasks=("mask", "register"))
    workflow = init_scan_wf(processing, record(), fingerprint=FINGERPRINT)
    assert workflow.get_node("resample").inputs.roles == ["mask"]


def test_settings_reach_the_nodes():
    processing = Processing(RAW, OUT, smoothness=2.5, device="cuda:1", omp_nthreads=3, random_seed=7)
    predict = init_scan_wf(processing, record(), fingerprint=FINGERPRINT).get_node("predict")
    assert predict.inputs.in_file == str(record().path)
    assert (predict.inputs.smoothness, predict.inputs.device, predict.inputs.random_seed) == (2.5, "cuda:1", 7)
    assert predict.n_procs == predict.inputs.num_threads == 3
    assert predict.is_gpu_node()


def test_one_workflow_per_scan(tmp_path):
    names = ["sub-01/ses-a+b/anat/sub-01_ses-a+b_run-1_T1w.nii.gz", "sub-02/anat/sub-02_T1w.nii"]
    scans = {record(name): FINGERPRINT for name in names}
    workflow = init_participant_wf(Processing(RAW, OUT), scans, work_dir=tmp_path)
    inner = workflow.list_node_names()
    assert len(inner) == 10
    found = {split_name(f"{workflow.name}.{name}") for name in inner if name.endswith("predict")}
    assert found == {(scan_name(scan), "predict") for scan in scans}


def test_foreign_templates_are_registered_once_for_all_scans(tmp_path):
    own, foreign = Space(), Space("mine", None, Path("/data/mine_T1w.nii.gz"), "e" * 64, "file:///data/mine_T1w.nii.gz")
    scans = {record(f"sub-{label}/anat/sub-{label}_T1w.nii.gz"): FINGERPRINT for label in ("01", "02")}
    workflow = init_participant_wf(Processing(RAW, OUT, spaces=(own, foreign)), scans, work_dir=tmp_path)
    assert workflow.get_node("shared.register_templates").inputs.spaces == [foreign]
    edges = {(one.fullname, other.fullname) for one, other in workflow._create_flat_graph().edges()}
    assert {other for one, other in edges if one.endswith("register_templates")} == {
        "unibrain_wf.sub-01_wf.resample",
        "unibrain_wf.sub-02_wf.resample",
    }
    assert workflow.get_node("sub-01_wf.resample").inputs.spaces == [own, foreign]
    unregistered = init_participant_wf(
        Processing(RAW, OUT, spaces=(foreign,), tasks=("mask",)), scans, work_dir=tmp_path
    )
    assert unregistered.get_node("shared") is None


def test_device_and_threads_do_not_change_what_the_results_depend_on():
    one, other = Processing(RAW, OUT), Processing(RAW, OUT, device="cpu", omp_nthreads=8)
    assert one.effective == other.effective
    assert one.effective != Processing(RAW, OUT, smoothness=1.0).effective
    assert one.effective["tasks"] == list(TASKS)


def test_graph(tmp_path):
    settings = Settings(Processing(RAW, OUT), write_graph=True)
    configure(init_participant_wf(settings.processing, {record(): FINGERPRINT}, work_dir=tmp_path), settings, tmp_path)
    graph = (tmp_path / "graph.dot").read_text()
    assert "digraph" in graph and "predict" in graph and LAST_NODE in graph
