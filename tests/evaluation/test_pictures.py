"""Pictures of labelled heads."""

from __future__ import annotations

from pathlib import Path

from matplotlib.image import imread

from unibrain_bids.evaluation.heads import HeadRecord, LabelledHead
from unibrain_bids.evaluation.pictures import write_pictures
from unibrain_bids.inference import Prediction


def test_a_wrong_mask_looks_otherwise(head: LabelledHead, exact: Prediction, tmp_path: Path) -> None:
    records = [HeadRecord("tiny", lambda: head)]
    write_pictures(records, lambda path: exact, tmp_path / "right.png")
    exact.mask[:10] = 0
    write_pictures(records, lambda path: exact, tmp_path / "wrong.png")
    right, wrong = imread(tmp_path / "right.png"), imread(tmp_path / "wrong.png")
    assert right.shape == wrong.shape and right.shape[1] > 3 * right.shape[0]
    differs = (right != wrong).any(axis=2).any(axis=0)
    third = len(differs) // 3  # the first panel of the axial cut, and of the coronal one, shows masks
    assert differs[: third // 2].any() and not differs[third // 2 + 20 : 3 * third // 2 - 20].any()
