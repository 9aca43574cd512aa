from __future__ import annotations

import json
import logging
import os
import pickle
from pathlib import Path

import pytest

from unibrain_bids.bids.filters import load_filters
from unibrain_bids.bids.inputs import ScanRecord, check_dataset, find_scans
from unibrain_bids.errors import DatasetError, NoScansError, UsageError

IMAGES = [
    "sub-01/ses-1/anat/sub-01_ses-1_acq-hi_run-01_T1w.nii.gz",
    "sub-01/ses-1/anat/sub-01_ses-1_acq-hi_run-02_T1w.nii.gz",
    "sub-01/ses-2/anat/sub-01_ses-2_T1w.nii",
    "sub-01/ses-2/anat/sub-01_ses-2_T2w.nii.gz",
    "sub-02/anat/sub-02_rec-norm_T1w.nii.gz",
]
KEYS = ["sub-01_ses-1_acq-hi_run-01", "sub-01_ses-1_acq-hi_run-02", "sub-01_ses-2", "sub-02_rec-norm"]


@pytest.fixture(scope="module")
def raw(tmp_path_factory, make_raw):
    root = make_raw(tmp_path_factory.mktemp("inputs") / "raw", IMAGES)
    # None of these is a raw T1w of the dataset.
    for other in (
        "sub-02/func/sub-02_task-rest_bold.nii.gz",
        "derivatives/x/sub-01/anat/sub-01_T1w.nii.gz",
        "sourcedata/sub-03/anat/sub-03_T1w.nii.gz",
        "sub-02/anat/sub-02_rec-norm_T1w_old.nii.gz",
        "sub-02/anat/.sub-02_T1w.nii.gz",
    ):
        (root / other).parent.mkdir(parents=True, exist_ok=True)
        (root / other).touch()
    (root / "sub-empty").mkdir()
    return root


def keys(records):
    return [record.key for record in records]


def test_each_run_and_session_is_a_scan(raw):
    records = find_scans(raw)
    assert keys(records) == KEYS
    assert [r.session for r in records] == ["1", "1", "2", None]
    assert records[0] == ScanRecord(
        raw / IMAGES[0], IMAGES[0], (("sub", "01"), ("ses", "1"), ("acq", "hi"), ("run", "01")), "T1w"
    )
    assert pickle.loads(pickle.dumps(records)) == records
    assert records == find_scans(Path(os.path.relpath(raw)))


@pytest.mark.parametrize("label", ["sub-02", "02"])
def test_participants_with_or_without_prefix(raw, label):
    assert keys(find_scans(raw, participant_labels=[label])) == KEYS[3:]


@pytest.mark.parametrize("label", ["ses-2", "2"])
def test_sessions_with_or_without_prefix(raw, label):
    assert keys(find_scans(raw, session_labels=[label])) == KEYS[2:3]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, KEYS),
        ({"acquisition": "hi"}, KEYS[:2]),
        ({"acquisition": None}, KEYS[2:]),
        ({"session": "*"}, KEYS[:3]),
        ({"run": [1, None]}, [KEYS[0], *KEYS[2:]]),
        ({"suffix": "T2w"}, ["sub-01_ses-2"]),
        ({"EchoTime": 0.003, "run": 2}, KEYS[1:2]),
    ],
)
def test_filter_file(raw, tmp_path, query, expected):
    path = tmp_path / "filter.json"
    path.write_text(json.dumps({"t1w": query, "bold": {"task": "rest"}}))
    assert keys(find_scans(raw, filters=load_filters(path))) == expected


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ('{"t1w": {"acq": "hi"}}', "acq"),
        ('{"T1w": {}}', "T1w"),
        ("[]", "form"),
        ('{"t1w": []}', "form"),
        ("{", "read"),
    ],
)
def test_bad_filter_file_is_named(tmp_path, content, named):
    path = tmp_path / "filter.json"
    path.write_text(content)
    with pytest.raises(UsageError) as caught:
        load_filters(path)
    assert str(path) in str(caught.value) and named in str(caught.value)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"participant_labels": ["01", "77", "sub-88"]}, ["77, 88", "01, 02"]),
        ({"session_labels": ["9"]}, ["9", "1, 2"]),
        ({"participant_labels": ["02"], "session_labels": ["1"]}, ["none"]),
        ({"participant_labels": ["empty"]}, ["sub-empty", "T1w"]),
        ({"filters": {"acquisition": "absent"}}, ["absent"]),
        ({"filters": {"EchoTime": 7}}, ["EchoTime"]),
        ({"filters": {"NoSuchField": 7}}, ["NoSuchField"]),
    ],
)
def test_nothing_found_says_what_there_is(raw, options, named):
    with pytest.raises(NoScansError) as caught:
        find_scans(raw, **options)
    assert all(word in str(caught.value) for word in named)


def test_participant_without_scan_is_mentioned(raw, caplog):
    with caplog.at_level(logging.WARNING):
        find_scans(raw)
    assert "empty" in caplog.text


def test_two_suffixes_of_one_name_are_refused(raw):
    with pytest.raises(UsageError, match="same outputs"):
        find_scans(raw, filters={"suffix": ["T1w", "T2w"]})


def test_compressed_twin_is_preferred(tmp_path, make_raw, caplog):
    root = make_raw(tmp_path, ["sub-01/anat/sub-01_T1w.nii", "sub-01/anat/sub-01_T1w.nii.gz"])
    assert [r.path.name for r in find_scans(root)] == ["sub-01_T1w.nii.gz"]
    assert "sub-01_T1w.nii is ignored" in caplog.text


def test_symbolic_links_keep_their_names(tmp_path, make_raw):
    root = make_raw(tmp_path / "raw", IMAGES[:1])
    store = make_raw(tmp_path / "store", ["sub-09/anat/sub-09_T1w.nii.gz"])
    (root / "sub-09").symlink_to(store / "sub-09")
    (root / "sub-10" / "anat").mkdir(parents=True)
    (root / "sub-10" / "anat" / "sub-10_T1w.nii.gz").symlink_to(tmp_path / "annex" / "not-fetched")
    records = find_scans(root)
    assert keys(records) == [KEYS[0], "sub-09", "sub-10"]
    assert records[1].path == root / "sub-09/anat/sub-09_T1w.nii.gz"


def test_index_is_kept_and_used(raw, tmp_path, make_raw):
    database = tmp_path / "index"
    first = find_scans(raw, participant_labels=["02"], database_dir=database)
    stamp = (database / "anat" / "layout_index.sqlite").stat().st_mtime_ns
    assert keys(first) == KEYS[3:]
    assert keys(find_scans(raw, database_dir=database)) == KEYS
    assert keys(find_scans(raw, database_dir=database, filters={"EchoTime": 0.003})) == KEYS
    assert (database / "anat" / "layout_index.sqlite").stat().st_mtime_ns == stamp
    assert [p.name for p in database.iterdir()] == ["anat"]
    other = make_raw(tmp_path / "other", IMAGES[-1:])
    with pytest.raises(UsageError, match="pybids index of"):
        find_scans(other, database_dir=database)


def test_index_of_pybids_is_used(raw, tmp_path):
    from bids import BIDSLayout

    BIDSLayout(raw).save(tmp_path / "index")
    assert keys(find_scans(raw, database_dir=tmp_path / "index")) == KEYS


def test_only_anatomical_images_are_indexed(tmp_path, monkeypatch):
    """No folder but `anat` is opened, nor one of participants that nobody asked for: thousands take seconds."""
    from bids import BIDSLayout

    (tmp_path / "dataset_description.json").write_text('{"Name": "Some", "BIDSVersion": "1.10.0"}')
    for subject in (f"sub-{number:02d}" for number in range(6)):
        for name in ("anat/{}_T1w.nii.gz", "anat/{}_T1w.json", "func/{}_task-rest_bold.nii.gz"):
            path = tmp_path / subject / name.format(subject)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")
    opened, scandir = set(), os.scandir

    def watched(path):
        opened.add(Path(path))
        return scandir(path)

    def opened_by(call):
        opened.clear()
        call()
        return {path.relative_to(tmp_path).as_posix() for path in opened if tmp_path in path.parents}

    monkeypatch.setattr(os, "scandir", watched)
    subjects = {f"sub-{number:02d}" for number in range(6)}
    folders = {f"{subject}/{folder}" for subject in subjects for folder in ("anat", "func")}
    assert opened_by(lambda: BIDSLayout(tmp_path)) == subjects | folders
    assert opened_by(lambda: find_scans(tmp_path)) == subjects | {f"{subject}/anat" for subject in subjects}
    few = opened_by(lambda: find_scans(tmp_path, participant_labels=["02", "05"]))
    assert few == {"sub-02", "sub-02/anat", "sub-05", "sub-05/anat"}


def test_not_a_dataset(tmp_path, make_raw):
    with pytest.raises(DatasetError, match="no such folder"):
        check_dataset(tmp_path / "absent")
    with pytest.raises(DatasetError, match=r"no dataset_description\.json"):
        check_dataset(tmp_path)
    root = make_raw(tmp_path / "raw", IMAGES[:1])
    with pytest.raises(DatasetError, match=f"mean {root}"):
        check_dataset(root / "sub-01")
    with pytest.raises(DatasetError, match=f"mean {root}"):
        check_dataset(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "cannot be read"), ("[]", "not a JSON object"), ('{"DatasetType": "derivative"}', "derivative")],
)
def test_bad_description(tmp_path, make_raw, content, message):
    root = make_raw(tmp_path, IMAGES[:1])
    assert check_dataset(root)["Name"] == "Tiny"
    (root / "dataset_description.json").write_text(content)
    with pytest.raises(DatasetError, match=message):
        check_dataset(root)


def test_no_participants(tmp_path):
    (tmp_path / "dataset_description.json").write_text("{}")
    with pytest.raises(DatasetError, match="sub-"):
        check_dataset(tmp_path)
