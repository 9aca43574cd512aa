from __future__ import annotations

from pathlib import Path

import pytest

from unibrain_bids.bids.derivatives import (
    TASKS,
    DerivativePath,
    catalogue,
    expected_outputs,
    figure_path,
    report_path,
)
from unibrain_bids.bids.inputs import ScanRecord
from unibrain_bids.bids.sidecars import label_rows, make_sidecar, make_sidecars
from unibrain_bids.bids.templates import Space
from unibrain_bids.bids.texts import texts
from unibrain_bids.errors import UsageError
from unibrain_bids.labels import LabelTable

TEMPLATE = "MNI152NLin2009aSym"
IN = Space(TEMPLATE)
SPACES = [IN]


def record(relative: str) -> ScanRecord:
    return ScanRecord.from_path(Path("/data") / relative, dataset=Path("/data"))


SCAN = record("sub-01/ses-x/anat/sub-01_ses-x_acq-hi_run-02_T1w.nii.gz")


def test_the_tree_of_the_design():
    names = {path.as_posix() for path in expected_outputs(record("sub-01/anat/sub-01_T1w.nii.gz"), spaces=SPACES)}
    grid = f"space-{TEMPLATE}"
    assert {name.removeprefix("sub-01/anat/sub-01_") for name in names if not name.endswith(".json")} == {
        "desc-preproc_T1w.nii.gz",
        "desc-brain_T1w.nii.gz",
        "desc-brain_mask.nii.gz",
        "seg-tissue_dseg.nii.gz",
        "seg-tissue_label-CSF_probseg.nii.gz",
        "seg-tissue_label-GM_probseg.nii.gz",
        "seg-tissue_label-WM_probseg.nii.gz",
        "seg-aseg_dseg.nii.gz",
        "atlas-DK_dseg.nii.gz",
        f"{grid}_res-1_desc-preproc_T1w.nii.gz",
        f"{grid}_res-1_desc-brain_T1w.nii.gz",
        f"{grid}_res-1_desc-brain_mask.nii.gz",
        f"{grid}_seg-tissue_res-1_dseg.nii.gz",
        f"{grid}_seg-aseg_res-1_dseg.nii.gz",
        f"{grid}_atlas-DK_res-1_dseg.nii.gz",
        f"from-T1w_to-{TEMPLATE}_mode-image_xfm.txt",
        f"from-{TEMPLATE}_to-T1w_mode-image_xfm.txt",
        "atlas-DK_morph.tsv",
        "atlas-DK_meas-innerproduct_relmat.tsv",
        "atlas-DK_meas-kls_relmat.tsv",
        "atlas-DK_meas-mind_relmat.tsv",
        "atlas-DK_meas-innerproduct_graph.tsv",
        "atlas-DK_meas-kls_graph.tsv",
        "atlas-DK_meas-mind_graph.tsv",
    }
    data = {name.split(".")[0] for name in names if not name.endswith(".json")}
    assert {name.split(".")[0] for name in names if name.endswith(".json")} == data | {"sub-01/anat/sub-01_desc-qc_T1w"}


def test_entities_of_the_scan_are_kept_and_in_place():
    outputs = catalogue(SCAN, spaces=SPACES)
    stem = "sub-01/ses-x/anat/sub-01_ses-x_acq-hi_run-02"
    assert outputs["mask"].relative == Path(f"{stem}_desc-brain_mask.nii.gz")
    assert outputs[IN.role("mask")].relative == Path(f"{stem}_space-{TEMPLATE}_res-1_desc-brain_mask.nii.gz")
    assert outputs[IN.role("scan_to_template")].sidecar == Path(f"{stem}_from-T1w_to-{TEMPLATE}_mode-image_xfm.json")
    assert outputs["network_DK_kls"].uri == f"bids::{stem}_atlas-DK_meas-kls_relmat.tsv"
    assert figure_path(SCAN, desc="mask") == Path("sub-01/figures/sub-01_ses-x_acq-hi_run-02_desc-mask_T1w.svg")
    assert report_path("01") == Path("sub-01.html")


def test_order_of_entities_is_that_of_the_schema():
    schema = pytest.importorskip("bidsschematools.schema").load_schema().to_dict()
    official = [schema["objects"]["entities"][name]["name"] for name in schema["rules"]["entities"]]
    own = [key for key in texts("terms")["entity_order"] if key not in ("from", "to", "mode", "meas")]
    assert [key for key in own if key in official] == [key for key in official if key in own]
    raw = schema["rules"]["files"]["raw"]["anat"]["nonparametric"]["entities"]
    assert {schema["objects"]["entities"][name]["name"] for name in raw} <= set(own)
    volumes = set(schema["objects"]["enums"]["_StandardTemplateCoordSys"]["enum"])
    assert set(texts("terms")["standard_spaces"]) <= volumes


@pytest.mark.parametrize("task", TASKS)
def test_tasks_choose_subsets(task):
    everything = set(expected_outputs(SCAN, spaces=SPACES))
    without = set(expected_outputs(SCAN, spaces=SPACES, tasks=[t for t in TASKS if t != task]))
    alone = set(expected_outputs(SCAN, spaces=SPACES, tasks=[task]))
    assert without < everything and alone < everything
    assert any(path.name.endswith("_desc-qc_T1w.json") for path in without & alone)
    own_grid = {path for path in everything if "space-" not in path.name}
    assert own_grid <= without | alone


def test_no_template_means_the_scans_grid_alone():
    assert not [path for path in expected_outputs(SCAN) if TEMPLATE in path.name]
    tasks = [task for task in TASKS if task != "register"]
    assert expected_outputs(SCAN) == expected_outputs(SCAN, spaces=SPACES, tasks=tasks)


def test_further_atlases_and_heads():
    outputs = catalogue(SCAN, spaces=SPACES, atlases=["DK", "AAL"], heads=["mdd"])
    assert {role for role in outputs if "AAL" in role} == {
        "parcels_AAL",
        f"{TEMPLATE}_parcels_AAL",
        "regions_AAL",
        "network_AAL_kls",
        "network_AAL_mind",
        "graph_AAL_kls",
        "graph_AAL_mind",
    }
    assert outputs["prediction_mdd"].name.endswith("_desc-mdd_predictions.tsv")
    assert len({output.relative for output in outputs.values()}) == len(outputs)


def test_labels_that_cannot_stand_in_a_name():
    with pytest.raises(UsageError, match="my-atlas"):
        catalogue(SCAN, atlases=["my-atlas"])
    with pytest.raises(UsageError, match="paint"):
        catalogue(SCAN, tasks=["paint"])
    with pytest.raises(ValueError, match="hash"):
        DerivativePath(SCAN, "mask", "mask", entities=(("hash", "1"),))


def test_sources_are_the_direct_inputs():
    outputs = catalogue(SCAN, spaces=SPACES, atlases=["DK", "AAL"])
    sidecars = make_sidecars(outputs)
    assert sidecars["mask"]["Sources"] == [f"bids:raw:{SCAN.relative_path}"]
    assert sidecars[IN.role("mask")]["Sources"] == [outputs["mask"].uri, outputs[IN.role("scan_to_template")].uri]
    assert set(sidecars["network_AAL_kls"]["Sources"]) == {outputs["parcels_AAL"].uri, outputs["brain"].uri}
    assert sidecars["graph_DK_mind"]["Sources"] == [outputs["network_DK_mind"].uri]
    alone = catalogue(SCAN, spaces=SPACES, tasks=["network"])
    assert make_sidecars(alone)["network_DK_kls"]["Sources"] == [f"bids:raw:{SCAN.relative_path}"]


def test_sidecars_say_what_bids_requires():
    sidecars = make_sidecars(catalogue(SCAN, spaces=SPACES))
    assert sidecars["preproc"]["SkullStripped"] is False and sidecars["brain"]["SkullStripped"] is True
    assert sidecars["mask"]["Type"] == "Brain" and sidecars["mask"]["SpatialReference"] == "orig"
    assert "Resolution" in sidecars[IN.role("tissues")] and "Resolution" not in sidecars["tissues"]
    assert {"Directed", "RelationshipMeasure", "Software", "ValidDiagonal", "Weighted"} <= set(
        sidecars["network_DK_kls"]
    )
    assert sidecars["regions_DK"]["volume"]["Units"] == "mm^3"
    assert TEMPLATE in sidecars[IN.role("scan_to_template")]["Description"]
    assert "that the voxel is GM" in sidecars["probability_GM"]["Description"]
    texts_written = [text for content in sidecars.values() for text in content.values() if isinstance(text, str)]
    assert not [text for text in texts_written if "{" in text]


def test_space_that_bids_does_not_name_needs_a_reference():
    outputs = catalogue(SCAN, spaces=[Space("MNIInfant+2")])
    with pytest.raises(UsageError, match="MNIInfant"):
        make_sidecar(outputs["MNIInfant+2_mask"], outputs)


@pytest.mark.parametrize("name", ["aseg", "tissue", "DK"])
def test_lookup_tables(name):
    table = LabelTable.load(name)
    rows = label_rows(table)
    assert [row["index"] for row in rows] == list(table.indices)
    assert {row["mapping"] for row in rows} <= {1, 2, 3, None}
