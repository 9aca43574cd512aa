from __future__ import annotations

import fcntl
import json
import math
import os
import stat
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from unibrain_bids.bids.atomic import format_tsv, write_json, write_text
from unibrain_bids.bids.derivatives import catalogue, expected_outputs
from unibrain_bids.bids.inputs import ScanRecord
from unibrain_bids.bids.publish import is_complete, make_fingerprint, publish, staging
from unibrain_bids.errors import OutputError, ScanError

SCAN = "sub-01/anat/sub-01_run-1_T1w.nii.gz"


@pytest.fixture
def record(tmp_path, make_raw) -> ScanRecord:
    raw = make_raw(tmp_path / "raw", [SCAN])
    return ScanRecord.from_path(raw / SCAN, dataset=raw)


@pytest.fixture
def out(tmp_path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def stage(folder: Path, record: ScanRecord) -> dict[Path, Path]:
    files = {}
    for path in expected_outputs(record):
        (folder / path.name).write_text(path.name)
        files[folder / path.name] = path
    return files


def test_outputs_appear_together_and_are_complete(record, out):
    expected = expected_outputs(record)
    mark = make_fingerprint(record, settings={"smoothness": 0.1, "tasks": ["mask"]}, weights="abc")
    with staging(out, record.key) as folder:
        files = stage(folder, record)
        assert not (out / "sub-01").exists() and not is_complete(out, record, mark, expected)
        publish(files, output_dir=out, record=record, fingerprint=mark)
    assert is_complete(out, record, mark, expected)
    assert sorted(path.name for path in out.iterdir()) == ["logs", "sub-01"]
    assert all((out / path).read_text() == path.name for path in expected)


def test_what_the_outputs_depend_on(record, out):
    expected = expected_outputs(record)
    mark = make_fingerprint(record, settings={"a": 1, "b": 2}, weights="abc")
    with staging(out, record.key) as folder:
        publish(stage(folder, record), output_dir=out, record=record, fingerprint=mark)

    assert is_complete(out, record, make_fingerprint(record, settings={"b": 2, "a": 1}, weights="abc"), expected)
    assert not is_complete(out, record, make_fingerprint(record, settings={"a": 1, "b": 3}, weights="abc"), expected)
    assert not is_complete(out, record, replace(mark, weights="def"), expected)
    assert not is_complete(out, record, mark, [*expected, Path("sub-01/anat/more.nii.gz")])
    (out / expected[0]).unlink()
    assert not is_complete(out, record, mark, expected)
    record.path.write_bytes(b"another image")
    assert make_fingerprint(record, settings={"a": 1, "b": 2}, weights="abc").input != mark.input


def test_interrupted_publishing_counts_as_not_done(record, out):
    """A folder stands where an image belongs: the sidecar is there already, the image and the record are not."""
    expected = expected_outputs(record)
    mark = make_fingerprint(record, settings={}, weights="abc")
    mask = catalogue(record)["mask"]
    with staging(out, record.key) as folder:
        publish(stage(folder, record), output_dir=out, record=record, fingerprint=mark)
    (out / mask.relative).unlink()
    (out / mask.relative).mkdir()
    (out / mask.sidecar).unlink()
    with staging(out, record.key) as folder, pytest.raises(OutputError, match="not done"):
        publish(stage(folder, record), output_dir=out, record=record, fingerprint=mark)
    assert (out / mask.sidecar).is_file()
    (out / mask.relative).rmdir()
    (out / mask.relative).touch()
    assert not is_complete(out, record, mark, expected)


def test_one_process_at_a_time_publishes(record, out):
    mark = make_fingerprint(record, settings={}, weights="abc")
    expected = expected_outputs(record)
    (out / "logs" / "complete").mkdir(parents=True)
    with staging(out, record.key) as folder:
        files = stage(folder, record)
        where = {"output_dir": out, "record": record, "fingerprint": mark}
        publishing = threading.Thread(target=publish, args=[files], kwargs=where)
        with (out / "logs" / "complete" / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            publishing.start()
            publishing.join(0.5)
            assert publishing.is_alive() and not (out / "sub-01").exists()
        publishing.join()
    assert is_complete(out, record, mark, expected)


def test_a_scan_that_another_run_puts_in_place_once_more_is_complete(record, out):
    mark = make_fingerprint(record, settings={}, weights="abc")
    expected = expected_outputs(record)
    with staging(out, record.key) as folder:
        publish(stage(folder, record), output_dir=out, record=record, fingerprint=mark)
    completion = out / "logs" / "complete" / f"{record.key}.json"
    answers: list[bool] = []
    asking = threading.Thread(target=lambda: answers.append(is_complete(out, record, mark, expected)))
    with (out / "logs" / "complete" / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        content = completion.read_text()
        completion.unlink()
        asking.start()
        asking.join(0.3)
        completion.write_text(content)
    asking.join()
    assert answers == [True]


def test_missing_staged_file_publishes_nothing(record, out):
    mark = make_fingerprint(record, settings={}, weights="abc")
    with staging(out, record.key) as folder:
        files = stage(folder, record)
        next(iter(files)).unlink()
        with pytest.raises(OutputError, match="not written"):
            publish(files, output_dir=out, record=record, fingerprint=mark)
    assert list(out.iterdir()) == []


def test_damaged_record_counts_as_not_done(record, out):
    mark = make_fingerprint(record, settings={}, weights="abc")
    for content in ("{", "[]", "{}"):
        write_text(out / "logs" / "complete" / f"{record.key}.json", content)
        assert not is_complete(out, record, mark, [])


def test_unreadable_scan(record):
    with pytest.raises(ScanError, match="DataLad"):
        make_fingerprint(replace(record, path=record.path.parent / "absent.nii"), settings={}, weights="abc")


def test_leftovers_are_removed_after_an_hour(record, out):
    left = out / ".unibrain-tmp-sub-09-77-abc"
    fresh = out / ".unibrain-tmp-sub-08-78-def"
    for folder in (left, fresh):
        folder.mkdir(parents=True)
    os.utime(left, (0, 0))
    with staging(out, record.key) as one, staging(out, record.key) as two:
        assert one != two and not left.exists() and fresh.exists()


def test_error_removes_the_staging_folder(record, out):
    with pytest.raises(RuntimeError), staging(out, record.key) as folder:
        (folder / "part").touch()
        raise RuntimeError
    assert list(out.iterdir()) == []


def test_write_text_tells_whether_it_changed(tmp_path):
    path = tmp_path / "new" / "a.txt"
    assert write_text(path, "ä") and not write_text(path, "ä") and write_text(path, "b")
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
    with pytest.raises(OutputError, match="cannot be written"):
        write_text(path / "below", "c")
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "nan.json", {"x": math.nan})
    write_json(path, {"b": 1, "a": [1.5]})
    assert json.loads(path.read_text()) == {"b": 1, "a": [1.5]}


def test_tables():
    rows = [
        {"index": np.int32(7), "name": "x y", "volume": np.float32(0.1), "other": None},
        {"index": 8, "name": "z", "volume": 1523456.0, "other": math.nan},
    ]
    assert format_tsv(rows) == "index\tname\tvolume\tother\n7\tx y\t0.1\tn/a\n8\tz\t1523456\tn/a\n"
