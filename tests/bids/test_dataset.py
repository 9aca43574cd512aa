from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import pytest

from unibrain_bids import __version__
from unibrain_bids.bids.dataset import check_output_dir, container_from_environment, write_dataset_files
from unibrain_bids.errors import DatasetError, OutputError, UsageError
from unibrain_bids.labels import LabelTable

SCAN = "sub-01/anat/sub-01_T1w.nii.gz"


@pytest.fixture
def raw(tmp_path, make_raw):
    return make_raw(tmp_path / "raw", [SCAN])


def description(out: Path) -> dict:
    return json.loads((out / "dataset_description.json").read_text())


def snapshot(out: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.rglob("*") if path.is_file()}


def test_second_writing_changes_nothing(raw, tmp_path):
    out = tmp_path / "out"
    write_dataset_files(out, raw)
    before = snapshot(out)
    write_dataset_files(out, raw)
    assert snapshot(out) == before
    assert {path.name for path in before} == {
        ".bidsignore",
        "README.md",
        "atlas-DK_description.json",
        "atlas-DK_dseg.tsv",
        "dataset_description.json",
        "descriptions.tsv",
        "seg-aseg_dseg.tsv",
        "seg-tissue_dseg.tsv",
    }


def test_description(raw, tmp_path):
    content = json.loads((raw / "dataset_description.json").read_text())
    (raw / "dataset_description.json").write_text(json.dumps(content | {"DatasetDOI": "doi:10.0/x"}))
    out = tmp_path / "deep" / "out"
    write_dataset_files(out, raw, container={"Type": "docker", "Tag": "a/b:1"})
    written = description(out)
    assert written["DatasetType"] == "derivative" and written["License"] == "CC0"
    assert written["DatasetLinks"] == {"raw": "../../raw"} and (out / written["DatasetLinks"]["raw"]).samefile(raw)
    assert written["SourceDatasets"] == [{"DOI": "doi:10.0/x"}]
    generator = written["GeneratedBy"][0]
    assert (generator["Name"], generator["Version"]) == ("unibrain-bids", __version__)
    assert generator["Container"] == {"Type": "docker", "Tag": "a/b:1"}
    assert "Authors" not in written and None not in written.values()


def test_what_others_wrote_is_kept(raw, tmp_path):
    out = tmp_path / "out"
    write_dataset_files(out, raw)
    edited = description(out)
    edited["License"] = "CC-BY-4.0"
    edited["DatasetLinks"]["atlas"] = "https://example.org"
    edited["GeneratedBy"] = [{"Name": "unibrain-bids", "Version": "0.0.1"}, {"Name": "Manual"}]
    (out / "dataset_description.json").write_text(json.dumps(edited))
    (out / ".bidsignore").write_text("mine\n*_xfm.*\n")
    (out / "README.md").write_text("mine\n")
    write_dataset_files(out, raw)
    merged = description(out)
    assert merged["License"] == "CC-BY-4.0" and set(merged["DatasetLinks"]) == {"raw", "atlas"}
    assert [(e["Name"], e.get("Version")) for e in merged["GeneratedBy"]] == [
        ("unibrain-bids", __version__),
        ("unibrain-bids", "0.0.1"),
        ("Manual", None),
    ]
    ignored = (out / ".bidsignore").read_text().splitlines()
    assert ignored[0] == "mine" and ignored.count("*_xfm.*") == 1 and "*_relmat.*" in ignored
    assert (out / "README.md").read_text() == "mine\n"


def test_further_atlases_and_heads(raw, tmp_path):
    table = LabelTable("AAL", LabelTable.load("DK").rows[:3])
    text = {"Name": "Anatomical labelling", "License": "Apache-2.0"}
    out = tmp_path / "out"
    write_dataset_files(out, raw, atlases={"AAL": text}, tables=[table], heads={"mdd": "A head."})
    assert json.loads((out / "atlas-AAL_description.json").read_text()) == text
    assert len((out / "atlas-AAL_dseg.tsv").read_text().splitlines()) == 4
    assert "desc-mdd\tA head.\n" in (out / "descriptions.tsv").read_text()
    with pytest.raises(UsageError, match="License"):
        write_dataset_files(out, raw, atlases={"X": {"Name": "x"}}, tables=[table])
    with pytest.raises(UsageError, match="table"):
        write_dataset_files(out, raw, atlases={"X": text}, tables=[table])


def test_container_is_said_by_the_image_only():
    assert container_from_environment({"HOME": "/root"}) == {}
    values = {"UNIBRAIN_CONTAINER_TYPE": "docker", "UNIBRAIN_CONTAINER_TAG": "unibrain:1"}
    assert container_from_environment(values) == {"Type": "docker", "Tag": "unibrain:1"}


def _write(folders: tuple[Path, Path]) -> list[str]:
    """Write again and again, reading in between: what stands there is never half a file."""
    out, raw = folders
    seen = []
    for _ in range(10):
        (out / "dataset_description.json").unlink(missing_ok=True)
        write_dataset_files(out, raw)
        try:
            seen.append(json.loads((out / "dataset_description.json").read_text())["Name"])
        except FileNotFoundError:  # another process has just removed it
            continue
    return seen


def test_many_processes_at_once(raw, tmp_path):
    out = tmp_path / "out"
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        seen = pool.map(_write, [(out, raw)] * 8)
    write_dataset_files(out, raw)
    assert {name for names in seen for name in names} == {"Tiny: unibrain-bids derivatives"}
    assert len(description(out)["GeneratedBy"]) == 1
    assert not [path for path in out.iterdir() if path.name.startswith(".") and path.name != ".bidsignore"]


@pytest.mark.parametrize("place", [".", "sub-01", "out", "derivatives", "sourcedata/out"])
def test_places_in_the_raw_dataset_are_refused(raw, place):
    with pytest.raises(OutputError, match="derivatives/unibrain-bids"):
        check_output_dir(raw / place, raw)
    assert not (raw / "out").exists()


def test_link_into_the_raw_dataset_is_refused(raw, tmp_path):
    (tmp_path / "link").symlink_to(raw)
    with pytest.raises(OutputError, match="raw dataset"):
        check_output_dir(tmp_path / "link", raw)


@pytest.mark.parametrize("place", ["derivatives/unibrain-bids", "../out", "../raw2", "derivatives/a/b"])
def test_other_places_are_accepted(raw, place):
    check_output_dir(raw / place, raw)


def test_folders_of_others_are_refused(raw, tmp_path, make_raw):
    with pytest.raises(OutputError, match="holds a raw dataset"):
        write_dataset_files(make_raw(tmp_path / "second", [SCAN]), raw)
    out = tmp_path / "fmriprep"
    out.mkdir()
    content = {"DatasetType": "derivative", "GeneratedBy": [{"Name": "fMRIPrep"}]}
    (out / "dataset_description.json").write_text(json.dumps(content))
    with pytest.raises(OutputError, match="derivatives by fMRIPrep"):
        write_dataset_files(out, raw)
    (out / "dataset_description.json").write_text("{")
    with pytest.raises(OutputError, match="cannot be read"):
        write_dataset_files(out, raw)
    assert [path.name for path in out.iterdir()] == ["dataset_description.json"]


def test_unusable_folders(raw, tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(OutputError, match="not a folder"):
        write_dataset_files(file, raw)
    with pytest.raises(OutputError, match="cannot be written"):
        write_dataset_files(file / "below", raw)
    with pytest.raises(OutputError, match="cannot be written"):
        write_dataset_files(Path("/proc/unibrain"), raw)
    with pytest.raises(DatasetError):
        write_dataset_files(tmp_path / "out", tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission(raw, tmp_path):
    out = tmp_path / "out"
    out.mkdir(mode=0o555)
    with pytest.raises(OutputError, match="cannot be written"):
        write_dataset_files(out, raw)
