"""Each interface as a Nipype node, on a tiny scan."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from nipype import Node

from unibrain_bids.bids.derivatives import catalogue, expected_outputs
from unibrain_bids.bids.inputs import ScanRecord
from unibrain_bids.bids.publish import Fingerprint, is_complete
from unibrain_bids.bids.templates import Space
from unibrain_bids.errors import OutputError
from unibrain_bids.imaging.itk import read_itk_affine, write_itk_affine
from unibrain_bids.interfaces.predict import quality_report, save_prediction
from unibrain_bids.interfaces.report import known_templates
from unibrain_bids.interfaces.resample import ResampleToTemplates, resample_file, with_agreement
from unibrain_bids.interfaces.tables import RegionTables, SimilarityNetwork
from unibrain_bids.interfaces.template import Template, save_template, template_path
from unibrain_bids.interfaces.write import WriteDerivatives, stage
from unibrain_bids.labels import LabelTable
from unibrain_bids.model import frame
from unibrain_bids.model.refine import AlignedBrain, Refinement

TEMPLATE = "MNI152NLin2009aSym"
LABELS = LabelTable.load("DK")


@pytest.fixture(scope="session")
def native(prediction, tmp_path_factory):
    return save_prediction(prediction, tmp_path_factory.mktemp("native"))


@pytest.fixture
def template():
    affine = nib.affines.from_matvec(np.diag([4.0, 4.0, 4.0]), [-80, -90, -80])
    nothing = AlignedBrain(torch.zeros(frame.SHAPE).long(), torch.zeros(frame.SHAPE), torch.zeros(frame.SHAPE))
    return Template(TEMPLATE, (40, 45, 40), affine, np.eye(4), nothing)


def run(interface, folder, name="node"):
    return Node(interface, name=name, base_dir=str(folder)).run().outputs


def test_predicted_images_keep_grid_and_values(prediction, native):
    for role in ("mask", "preproc", "brain", "structures", "tissues", "probability_WM", "parcels_DK"):
        image = nib.load(native[role])
        np.testing.assert_allclose(image.affine, prediction.scan.affine, atol=1e-5)
        assert image.shape == prediction.mask.shape
    np.testing.assert_array_equal(nib.load(native["parcels_DK"]).dataobj, prediction.parcellations["DK"])
    np.testing.assert_allclose(nib.load(native["preproc"]).get_fdata(), prediction.preproc, atol=0.05)
    np.testing.assert_allclose(
        nib.load(native["probability_CSF"]).get_fdata(), prediction.tissue_probabilities["CSF"], atol=0.003
    )


def test_learned_network_stands_in_the_order_of_the_label_table(native):
    table = pd.read_csv(native["network_DK_innerproduct"], sep="\t")
    assert tuple(table.columns) == LABELS.names
    expected = np.add.outer(np.array(LABELS.indices), np.array(LABELS.indices))
    np.testing.assert_allclose(table.to_numpy(), expected)


def test_quality_holds_measures_of_image_and_model(native):
    report = json.loads(Path(native["quality"]).read_text())
    assert report["model_realignment_mm"] == 0.5
    assert report["intracranial_volume"] == 1.4e6
    assert report["inu_range"] == pytest.approx(0)
    assert report["icvs_gm"] + report["icvs_wm"] + report["icvs_csf"] == pytest.approx(1)


def test_flags_of_model_and_image_come_together(prediction):
    quality = quality_report(replace(prediction, quality={"flags": ["the model is lost."]}, intracranial_volume=4e5))
    assert quality["flags"][0] == "the model is lost."
    assert any(flag.startswith("intracranial_volume is 4e+05, below 900000") for flag in quality["flags"])


def test_region_table(prediction, native, tmp_path):
    files = run(RegionTables(files=native, tables=[LABELS], mni_from_scan=np.eye(4).tolist()), tmp_path).files
    table = pd.read_csv(files["regions_DK"], sep="\t", na_values="n/a")
    assert tuple(table["name"]) == LABELS.names
    inside = prediction.parcellations["DK"] == LABELS.indices[3]
    assert table["n_voxels"][3] == inside.sum()
    assert table["intensity_mean"][3] == pytest.approx(prediction.brain[inside].mean(), abs=0.01)


def test_similarity_network(native, tmp_path):
    files = run(SimilarityNetwork(files=native, tables=[LABELS]), tmp_path).files
    for measure in ("kls", "mind"):
        table = pd.read_csv(files[f"network_DK_{measure}"], sep="\t", na_values="n/a")
        assert tuple(table.columns) == LABELS.names
        assert table.shape == (len(LABELS), len(LABELS))
    graph = pd.read_csv(files["graph_DK_innerproduct"], sep="\t", na_values="n/a")
    assert tuple(graph["name"]) == LABELS.names
    learned = pd.read_csv(native["network_DK_innerproduct"], sep="\t").to_numpy()
    np.testing.assert_allclose(graph["strength"], learned.sum(0) - np.diag(learned), rtol=1e-5)


def test_resampling_through_the_world(prediction, native, template, tmp_path):
    shift = np.eye(4)
    shift[:3, 3] = [8, -4, 12]
    for role in ("mask", "structures", "brain"):
        resample_file(role, native[role], tmp_path / f"{role}.nii", template, shift)
    mask = nib.load(tmp_path / "mask.nii")
    assert mask.shape == template.shape
    assert mask.header["sform_code"] == 4
    assert set(np.unique(mask.dataobj)) == {0, 1}
    # The centre of mass of the mask moves by exactly the transform.
    before = nib.affines.apply_affine(prediction.scan.affine, np.argwhere(prediction.mask).mean(axis=0))
    after = nib.affines.apply_affine(template.affine, np.argwhere(np.asarray(mask.dataobj)).mean(axis=0))
    np.testing.assert_allclose(after - before, [8, -4, 12], atol=0.5)
    assert set(np.unique(nib.load(tmp_path / "structures.nii").dataobj)) == {0, 17}
    assert nib.load(tmp_path / "brain.nii").get_data_dtype() == np.int16


def test_a_brain_that_does_not_fit_the_template_is_flagged():
    good, bad = (with_agreement({"flags": ["dark"]}, Refinement(np.eye(4), overlap, 0.5)) for overlap in (0.55, 0.2))
    assert good["flags"] == ["dark"] and good["registration_overlap"] == 0.55
    assert len(bad["flags"]) == 2 and "does not fit the template" in bad["flags"][1]


def test_template_is_found_without_a_download():
    image = nib.load(template_path(TEMPLATE))
    assert image.shape == (197, 233, 189)
    np.testing.assert_allclose(nib.affines.voxel_sizes(image.affine), 1)


def test_every_template_is_a_space_of_its_own(native, template, tmp_path):
    """Two templates from files: one as registered, one whose world is 8 mm further to the right."""
    shift = nib.affines.from_matvec(np.eye(3), [8.0, 0, 0])
    moved = replace(template, name="moved", affine=shift @ template.affine, frame_from_template=np.linalg.inv(shift))
    spaces = [Space(name, None, Path(f"{name}.nii")) for name in ("still", "moved")]
    registered = {}
    for space, one in zip(spaces, (template, moved), strict=True):
        registered[space.label] = str(tmp_path / f"{space.label}.npz")
        save_template(one, Path(registered[space.label]))
    resample = ResampleToTemplates(
        spaces=spaces, registered=registered, files=native, roles=["mask"], frame_from_scan=np.eye(4).tolist()
    )
    files = run(resample, tmp_path).files
    transforms, images = ("scan_to_template", "template_to_scan"), ("mask",)
    expected = {space.role(role) for space in spaces for role in (*transforms, *images)}
    assert set(files) == {*expected, "quality"}
    # The brain and its template moved together: the same voxels, at another place of the world.
    still, other = (nib.load(files[space.role("mask")]) for space in spaces)
    np.testing.assert_array_equal(still.dataobj, other.dataobj)
    assert np.asarray(still.dataobj).any()
    np.testing.assert_allclose(other.affine, moved.affine, atol=1e-5)
    there, back = (read_itk_affine(files[spaces[1].role(role)]) for role in transforms)
    np.testing.assert_allclose(back, shift, atol=1e-6)
    np.testing.assert_allclose(there @ back, np.eye(4), atol=1e-6)


def test_reports_find_the_images_of_templates(tmp_path):
    image, folder = tmp_path / "my head.nii.gz", tmp_path / "sub-01" / "anat"
    image.write_bytes(b"an image")
    folder.mkdir(parents=True)
    references = {"mine": image.as_uri(), "gone": (tmp_path / "gone.nii").as_uri(), TEMPLATE: None}
    for space, reference in references.items():
        content = {"SpatialReference": reference} if reference else {}
        (folder / f"sub-01_space-{space}_desc-brain_T1w.json").write_text(json.dumps(content))
    (folder / "sub-01_desc-qc_T1w.json").write_text("{}")
    assert known_templates(tmp_path, "01") == {"mine": image, TEMPLATE: template_path(TEMPLATE)}


@pytest.fixture
def computed(native, template, tmp_path):
    """All inputs of WriteDerivatives."""
    folder = tmp_path / "computed"
    folder.mkdir()
    images = ("preproc", "brain", "mask", "structures", "tissues", "parcels_DK")
    for role in images:
        resample_file(role, native[role], folder / f"template_{role}.nii", template, np.eye(4))
    transforms = ("scan_to_template", "template_to_scan")
    for role in transforms:
        write_itk_affine(folder / f"{role}.txt", np.eye(4))
    return {
        "native": native,
        "templates": {Space().role(role): str(folder / f"template_{role}.nii") for role in images}
        | {Space().role(role): str(folder / f"{role}.txt") for role in transforms},
        "regions": run(
            RegionTables(files=native, tables=[LABELS], mni_from_scan=np.eye(4).tolist()), folder, "regions"
        ).files,
        "networks": run(SimilarityNetwork(files=native, tables=[LABELS]), folder, "networks").files,
    }


def test_writing_publishes_exactly_the_catalogue(raw, computed, tmp_path):
    record = ScanRecord.from_path(raw / "sub-01" / "anat" / "sub-01_T1w.nii.gz", dataset=raw)
    fingerprint = Fingerprint("a", "b", "c")
    selection = {"spaces": (Space(),), "atlases": ("DK",), "tasks": ("mask", "preproc", "register", "segment")}
    selection["tasks"] = (*selection["tasks"], "parcellate", "network")
    out = tmp_path / "out"
    published = run(
        WriteDerivatives(
            record=record, fingerprint=fingerprint, output_dir=str(out), selection=selection, num_threads=2, **computed
        ),
        tmp_path,
    ).published
    expected = expected_outputs(record, **selection)
    assert [Path(path) for path in published] == expected
    assert is_complete(out, record, fingerprint, expected)
    found = {path.relative_to(out) for path in (out / "sub-01").rglob("*") if path.is_file()}
    assert found == set(expected)
    mask = nib.load(out / "sub-01/anat/sub-01_desc-brain_mask.nii.gz")
    np.testing.assert_array_equal(mask.dataobj, nib.load(computed["native"]["mask"]).dataobj)


def test_only_what_was_asked_for_is_published(raw, native, tmp_path):
    record = ScanRecord.from_path(raw / "sub-01" / "anat" / "sub-01_T1w.nii.gz", dataset=raw)
    selection = {"spaces": (), "atlases": ("DK",), "tasks": ("mask",)}
    writer = WriteDerivatives(
        record=record, fingerprint=Fingerprint("a", "b", "c"), output_dir=str(tmp_path), selection=selection
    )
    writer.inputs.native = native
    names = {Path(path).name for path in run(writer, tmp_path / "work").published}
    assert names == {"sub-01_desc-brain_mask.nii.gz", "sub-01_desc-brain_mask.json", "sub-01_desc-qc_T1w.json"}


def test_same_input_gives_the_same_bytes(raw, native, tmp_path):
    record = ScanRecord.from_path(raw / "sub-01" / "anat" / "sub-01_T1w.nii.gz", dataset=raw)
    outputs = catalogue(record, tasks=("mask", "segment"))
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder, threads in zip(folders, (1, 4), strict=True):
        folder.mkdir()
        stage(native, outputs, folder, num_threads=threads)
    one, two = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders)
    assert one == two
    image = one["sub-01_desc-brain_mask.nii.gz"]
    assert gzip.decompress(image) == Path(native["mask"]).read_bytes()


def test_full_disk_is_explained(raw, native, tmp_path):
    record = ScanRecord.from_path(raw / "sub-01" / "anat" / "sub-01_T1w.nii.gz", dataset=raw)
    outputs = catalogue(record, tasks=("mask",))
    (tmp_path / outputs["mask"].name).symlink_to("/dev/full")
    with pytest.raises(OutputError, match="No space left on device"):
        stage(native, outputs, tmp_path)
