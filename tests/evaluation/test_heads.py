from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from unibrain_bids.errors import ResourceError
from unibrain_bids.evaluation.heads import IGNORED, MuseTable, muse_heads, solid_mask

SHARED = Path("/work/shared/data")


def test_solid_mask_is_the_closing_by_a_ball() -> None:
    rng = np.random.default_rng(0)
    brain = ndimage.gaussian_filter(rng.normal(size=(20, 18, 16)), 1.5) > 0.02
    padded = np.pad(brain, 5)
    grid = np.indices((7, 7, 7)) - 3
    closed = ndimage.binary_closing(padded, structure=(grid**2).sum(axis=0) <= 9)
    expected = ndimage.binary_fill_holes(closed)[5:-5, 5:-5, 5:-5]
    np.testing.assert_array_equal(solid_mask(brain, np.ones(3), radius=3), expected)


def test_solid_mask_closes_in_mm_and_keeps_the_brain() -> None:
    brain = np.zeros((40, 12, 12), bool)
    brain[5:15] = brain[19:35] = True
    brain[8:10, 5:7, 5:7] = False
    brain[:, 0] = False  # the rest of the brain touches the border
    narrow = solid_mask(brain, np.array([1.0, 3.0, 3.0]), radius=6)
    wide = solid_mask(brain, np.array([4.0, 3.0, 3.0]), radius=6)
    assert narrow[17, 6, 6], "a gap of 4 mm is closed"
    assert not wide[17, 6, 6], "a gap of 16 mm is not"
    assert narrow[9, 6, 6] and wide[9, 6, 6], "holes are filled"
    assert (narrow >= brain).all() and (wide >= brain).all()
    assert not narrow[:5].any() and not narrow[35:].any()


def test_muse_table_says_what_is_no_structure(tmp_path: Path) -> None:
    rows = ["index\tname\taseg\ttissue", "1\tCSF\t24\tCSF", "4\t3V\t14\tCSF", "45\tWM\t2\tWM", "95\tCC\tn/a\tWM"]
    (tmp_path / "labels.tsv").write_text("\n".join(rows))
    table = MuseTable.read(tmp_path / "labels.tsv")
    assert table.structures[[0, 1, 4, 45, 95]].tolist() == [0, 0, 14, 2, IGNORED]
    assert table.tissues[[0, 1, 4, 45, 95]].tolist() == [0, 3, 3, 2, 2]


def test_missing_heads_name_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=str(tmp_path)):
        muse_heads(tmp_path)


@pytest.mark.skipif(not (SHARED / "muse").is_dir(), reason="the shared MUSE heads are not on this machine")
@pytest.mark.data
def test_real_muse_head_is_consistent() -> None:
    records = muse_heads(SHARED)
    assert [record.name for record in records] == [f"muse-0{i}" for i in range(1, 9)]
    head = records[0].load()
    masks = head.masks
    assert (masks["brain"] <= masks["solid"]).all()
    assert (masks["brain"] <= masks["icv"]).all()
    assert len(np.unique(head.structures[head.structures > 0])) == 31
    assert not head.structures[~masks["brain"]].any(), "sulcal CSF is no structure"
    assert (masks["brain"] <= (head.tissues > 0)).all()
    assert not head.tissues[~masks["solid"]].any()
    white, gray = (float(np.median(head.image[head.tissues == t])) for t in (2, 1))
    assert white > gray > float(np.median(head.image[head.tissues == 3])), "T1 contrast, so labels lie on the image"
