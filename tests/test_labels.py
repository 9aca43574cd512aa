"""The packaged label tables against their specification, and the reader against bad tables."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from unibrain_bids.errors import ResourceError
from unibrain_bids.labels import LabelTable

TABLES = ("aseg", "tissue", "DK")
SHARED = Path(__file__).parents[2] / "shared" / "data"
LABELMAPS = SHARED / "labelmaps/labels.tsv"
DK_ATLAS = SHARED / "atlas/tpl-MNI152NLin6Asym_res-1_atlas-DK_dseg.nii.gz"
MUSE = SHARED / "muse/labels.tsv"


@pytest.mark.parametrize("name", TABLES)
def test_every_row_is_complete_and_unique(name: str) -> None:
    table = LabelTable.load(name)
    assert table.name == name
    assert len(set(table.indices)) == len(set(table.names)) == len({row.abbreviation for row in table}) == len(table)
    for row in table:
        assert re.fullmatch(r"#[0-9A-F]{6}", row.color)
        assert row.mapping == {"GM": 1, "WM": 2, "CSF": 3}[row.tissue]
        assert table[row.index] is row and row.index in table


@pytest.mark.parametrize("name", TABLES)
def test_flipping_swaps_sides_and_is_its_own_inverse(name: str) -> None:
    table = LabelTable.load(name)
    opposite = {"left": "right", "right": "left", "midline": "midline", "both": "both"}
    for row in table:
        mirror = table[table.flipped(row.index)]
        assert mirror.hemisphere == opposite[row.hemisphere]
        assert table.flipped(mirror.index) == row.index
        assert mirror.tissue == row.tissue
    assert table.flipped(0) == 0
    with pytest.raises(KeyError):
        table.flipped(987654)


def test_flipping_keeps_the_structure() -> None:
    assert LabelTable.load("aseg").flipped(17) == 53
    assert LabelTable.load("aseg").flipped(16) == 16
    assert LabelTable.load("tissue").flipped(1) == 1
    dk = LabelTable.load("DK")
    assert all(dk.flipped(index) == index + 1000 for index in dk.indices if 1000 < index < 2000)
    assert dk.flipped(26) == 58


def test_dk_order_is_that_of_mrtrix() -> None:
    names = LabelTable.load("DK").names
    assert len(names) == 84
    assert [names[i] for i in (0, 33, 34, 35, 42, 48, 49, 83)] == [
        "ctx-lh-bankssts",
        "ctx-lh-insula",
        "Left-Cerebellum-Cortex",
        "Left-Thalamus",
        "Right-Thalamus",
        "Right-Accumbens-area",
        "ctx-rh-bankssts",
        "Right-Cerebellum-Cortex",
    ]


def test_aseg_and_dk_agree_where_they_share_labels() -> None:
    aseg, dk = LabelTable.load("aseg"), LabelTable.load("DK")
    shared = [index for index in dk.indices if index < 1000]
    assert len(shared) == 16
    assert all(aseg[index] == dk[index] for index in shared)


@pytest.mark.data
@pytest.mark.skipif(not LABELMAPS.exists(), reason="needs the shared label maps")
def test_aseg_covers_the_targets_of_the_training_label_maps() -> None:
    with LABELMAPS.open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert set(LabelTable.load("aseg").indices) == {int(row["target"]) for row in rows} - {0}


@pytest.mark.data
@pytest.mark.skipif(not MUSE.exists(), reason="needs the shared MUSE table")
def test_tissues_agree_with_the_evaluation_labels() -> None:
    aseg = LabelTable.load("aseg")
    with MUSE.open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream, delimiter="\t") if row["aseg"] not in ("n/a", "24")]
    assert len(rows) > 50
    for row in rows:
        assert aseg[int(row["aseg"])].tissue == row["tissue"], row


@pytest.mark.data
@pytest.mark.skipif(not DK_ATLAS.exists(), reason="needs the shared DK atlas")
def test_dk_regions_occur_in_the_atlas_image() -> None:
    import nibabel as nib
    import numpy as np

    present = set(np.unique(np.asarray(nib.load(DK_ATLAS).dataobj)).astype(int).tolist())
    assert set(LabelTable.load("DK").indices) <= present


def test_unknown_table_names_the_known_ones() -> None:
    with pytest.raises(ResourceError, match="DK, aseg, tissue"):
        LabelTable.load("nope")


def test_minimal_user_table(tmp_path: Path) -> None:
    path = tmp_path / "atlas-mine_dseg.tsv"
    path.write_text("index\tname\n0\tbackground\n7\tblob\n")
    table = LabelTable.read(path, name="mine")
    assert table.indices == (7,) and table[7].color == "n/a" and table[7].mapping is None and table.flipped(7) == 7


@pytest.mark.parametrize(
    "text", ["", "index\tname\n", "name\tvalue\nx\t1\n", "index\tname\none\tx\n", "index\tname\n1\tx\n1\ty\n"]
)
def test_bad_user_table_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad_dseg.tsv"
    path.write_text(text)
    with pytest.raises(ResourceError, match=r"bad_dseg\.tsv"):
        LabelTable.read(path, name="bad")


def test_missing_user_table_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"none\.tsv"):
        LabelTable.read(tmp_path / "none.tsv", name="none")
