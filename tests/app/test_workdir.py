"""The folder for intermediate files."""

from pathlib import Path

import pytest

from unibrain_bids.app.workdir import PREFIX, work_folder
from unibrain_bids.errors import OutputError


@pytest.mark.parametrize("place", [None, "a/b"])
def test_folder_is_removed_whatever_happens(tmp_path, place):
    parent = None if place is None else tmp_path / place
    with pytest.raises(ZeroDivisionError), work_folder(parent) as folder:
        (folder / "file").touch()
        raise ZeroDivisionError
    assert not folder.exists()
    assert parent is None or (parent.is_dir() and folder.parent == parent)


def test_runs_do_not_meet(tmp_path):
    with work_folder(tmp_path) as one, work_folder(tmp_path) as other:
        assert one != other


def test_cleaning_removes_what_runs_have_left_and_nothing_else(tmp_path):
    left, file, link, others = (tmp_path / name for name in (f"{PREFIX}x", f"{PREFIX}file", f"{PREFIX}link", "mine"))
    for folder in (left, others):
        folder.mkdir()
        (folder / "file").touch()
    file.touch()
    link.symlink_to(others)
    with work_folder(tmp_path):
        assert left.exists()
    with work_folder(tmp_path, clean=True):
        assert not left.exists()
    assert file.exists() and link.exists() and (others / "file").exists()


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="--work-dir"), work_folder(tmp_path / "file" / "work"):
        pass
    with pytest.raises(OutputError), work_folder(Path("/proc/work")):
        pass
