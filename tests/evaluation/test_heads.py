from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unibrain_bids.errors import ResourceError
from unibrain_bids.evaluation.heads import IGNORED, MuseTable, muse_heads

SHARED = Path("/work/shared/data")


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
