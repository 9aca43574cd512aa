"""The report of a participant, made from derivatives on disk."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markupsafe import escape

from unibrain_bids.reports.cohort import load_cohort
from unibrain_bids.reports.files import find_scans
from unibrain_bids.reports.history import flattened, read_history
from unibrain_bids.reports.participant import write_report


@pytest.fixture(scope="module")
def reports(dataset: Any) -> dict[str, str]:
    """The HTML of both participants."""
    made = {}
    for label in ("01", "02"):
        path = write_report(dataset.out, label, bids_dir=dataset.raw, templates=dataset.templates)
        assert path == dataset.out / f"sub-{label}.html"
        made[label] = path.read_text()
    return made


def headings(html: str) -> list[str]:
    return re.findall(r"<h[23][^>]*>([^<]*)</h[23]>", html)


def test_every_part_is_there(reports: dict[str, str]) -> None:
    expected = ["Summary", "Viewer", "Brain mask", "Intensities", "Registration", "Tissues and structures", "Regions"]
    expected += ["Networks", "Prediction", "Quality", "Methods", "About"]
    assert headings(reports["01"]) == expected
    assert reports["01"].count('class="flicker"') == 2
    assert "Good:" in reports["01"] and "Failed:" not in reports["01"]
    assert '<a href="https://doi.org/10.1000/xyz">' in reports["01"] and "<em>care</em>" in reports["01"]


def test_scans_of_one_participant_share_a_page(reports: dict[str, str]) -> None:
    titles = headings(reports["02"])
    assert titles.count("Brain mask") == 2 and {"sub-02_ses-a", "sub-02_ses-b"} <= set(titles)
    assert "Look at this:" in reports["02"]
    assert re.search(r"Failed:</strong> sub-02_ses-c: broken &lt;script", reports["02"])
    ids = re.findall(r' id="([^"]+)"', reports["02"])
    assert len(ids) == len(set(ids))


def test_what_the_dataset_says_is_escaped(dataset: Any, reports: dict[str, str]) -> None:
    for html in reports.values():
        assert escape(dataset.hostile) in html, "it is shown"
        assert "<script>alert" not in html and "<img src=http" not in html and dataset.hostile not in html
        assert not re.search(r"<[^<>]*(src|href)=.?https?://(?!doi\.org|arxiv\.org)", html)


def test_the_same_derivatives_make_the_same_page(dataset: Any, reports: dict[str, str]) -> None:
    again = write_report(dataset.out, "01", bids_dir=dataset.raw, templates=dataset.templates)
    assert again.read_text() == reports["01"]


def test_a_part_that_was_not_written_is_left_out(dataset: Any, tmp_path: Path) -> None:
    anat = tmp_path / "sub-01" / "anat"
    anat.mkdir(parents=True)
    for name in ("desc-brain_mask.nii.gz", "desc-preproc_T1w.nii.gz", "desc-qc_T1w.json"):
        shutil.copy(dataset.out / "sub-01" / "anat" / f"sub-01_{name}", anat)
    html = write_report(tmp_path, "01").read_text()
    assert headings(html) == ["Summary", "Viewer", "Brain mask", "Intensities", "Quality", "Methods", "About"]
    assert "the raw scan was not at hand" in html
    assert "no derivatives" in write_report(tmp_path, "09").read_text()


def test_files_belong_to_the_scan_with_the_longest_common_name(tmp_path: Path) -> None:
    anat = tmp_path / "sub-01" / "anat"
    anat.mkdir(parents=True)
    for name in ("sub-01", "sub-01_acq-x", "sub-01_acq-x_run-2"):
        (anat / f"{name}_desc-qc_T1w.json").write_text("{}")
        (anat / f"{name}_desc-brain_mask.nii.gz").write_bytes(b"")
    found = {files.key: files.find("mask", desc="brain") for files in find_scans(tmp_path, "01")}
    assert found == {key: anat / f"{key}_desc-brain_mask.nii.gz" for key in found} and len(found) == 3


def test_a_later_success_makes_a_failure_forgotten(tmp_path: Path) -> None:
    runs = [
        {"Start": "2", "Scans": {"Done": ["sub-01_ses-1"], "Failed": {"sub-011": "not ours"}}},
        {"Start": "1", "Scans": {"Done": [], "Failed": {"sub-01_ses-1": "full", "sub-01_ses-2": "torn"}}},
        {"Start": "3"},
    ]
    for number, run in enumerate(runs):
        (tmp_path / "logs" / str(number)).mkdir(parents=True)
        (tmp_path / "logs" / str(number) / "run.json").write_text(json.dumps(run))
    (tmp_path / "logs" / "0" / "other").mkdir()
    history = read_history(tmp_path, "01")
    assert history.failed == {"sub-01_ses-2": "torn"}
    assert history.made_by == {"sub-01_ses-1": runs[0]}
    assert dict(flattened({"a": {"b": [1, 2]}, "c": None, "d": True})) == {"a.b": "1 2", "d": "True"}


def test_the_cohort_shows_where_a_value_lies(tmp_path: Path) -> None:
    table = tmp_path / "group_T1w.tsv"
    table.write_text("scan\tcjv\trare\n" + "".join(f"s{i}\t{i}\t{i if i < 5 else 'n/a'}\n" for i in range(21)))
    cohort = load_cohort(table)
    said = cohort.spread("cjv", 15.0)
    assert "76 % of 21 scans" in said and "from 1 to 19" in said
    centre = float(re.findall(r'cx="([\d.]+)"', said)[0])
    assert centre == pytest.approx(5 + 80 * 15 / 20)
    assert cohort.spread("rare", 1.0) == cohort.spread("cjv", None) == cohort.spread("cjv", np.nan) == ""
    assert not load_cohort(tmp_path / "none.tsv")
