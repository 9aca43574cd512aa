"""Spoilt heads: every condition keeps scan and truth together, in the file and in the world."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from unibrain_bids.evaluation.conditions import CONDITIONS
from unibrain_bids.evaluation.heads import TISSUES, LabelledHead
from unibrain_bids.evaluation.robustness import Trial, markdown, write_tsv

# Where the world's points stay where they were.
IN_PLACE = [name for name in CONDITIONS if "rotated" not in name and "child" not in name]


@pytest.fixture(scope="module")
def head() -> LabelledHead:
    """A lopsided brain, white matter around one structure, in a head of a size that a test can afford."""
    shape, affine = (44, 52, 40), np.diag([-4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = [88, -104, -70]
    world = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    brain = np.linalg.norm(world / [60, 75, 55], axis=-1) < 1
    image = np.where(np.linalg.norm(world / [75, 90, 70], axis=-1) < 1, 300.0, 2.0)
    structures = np.where(brain, np.where(world[..., 0] > 0, 41, 2), 0)
    structures[np.linalg.norm(world - [30, 20, 10], axis=-1) < 15] = 51
    image = np.where(brain, 600 + 2 * structures, image)
    tissues = np.where(structures == 51, TISSUES["GM"], np.where(brain, TISSUES["WM"], 0))
    masks = {"solid": brain, "brain": brain, "icv": brain}
    return LabelledHead(
        "lopsided", Path("none"), image.astype(np.float32), affine, masks,
        structures.astype(np.int16), tissues.astype(np.uint8),
    )  # fmt: skip


def centre(head: LabelledHead, number: int) -> np.ndarray:
    voxels = np.argwhere(head.structures == number).mean(0)
    return head.affine[:3, :3] @ voxels + head.affine[:3, 3]


@pytest.mark.parametrize("condition", list(CONDITIONS))
def test_scan_and_truth_stay_together(head: LabelledHead, condition: str) -> None:
    spoilt = CONDITIONS[condition](head)
    assert spoilt.image.dtype == np.float32 and np.isfinite(spoilt.image).all()
    for array in (spoilt.structures, spoilt.tissues, *spoilt.masks.values()):
        assert array.shape == spoilt.image.shape
    assert np.linalg.det(spoilt.affine[:3, :3]) * np.linalg.det(head.affine[:3, :3]) > 0
    if condition in IN_PLACE:
        np.testing.assert_allclose(centre(spoilt, 51), centre(head, 51), atol=2.1)
    changed = spoilt.image.shape != head.image.shape or not np.array_equal(spoilt.image, head.image)
    assert changed == (condition not in ("as it is", "child's size") and "rotated" not in condition)


def test_turns_and_sizes_are_those_asked_for(head: LabelledHead) -> None:
    turned = CONDITIONS["rotated 45 deg about x"](head)
    cosine = np.cos(np.radians(45))
    expected = np.array([[1, 0, 0], [0, cosine, -cosine], [0, cosine, cosine]]) @ centre(head, 51)
    np.testing.assert_allclose(centre(turned, 51), expected, atol=1e-6)
    np.testing.assert_allclose(CONDITIONS["child's size"](head).spacing, 0.85 * head.spacing)


def test_crops_take_from_the_right_end(head: LabelledHead) -> None:
    before = np.argwhere(head.masks["solid"])[:, 2]
    crown, neck = (CONDITIONS[name](head) for name in ("crown cropped 15 mm", "neck and 10 mm cropped"))
    assert crown.image.shape[2] == before.max() + 1 - 4 and crown.affine[2, 3] == head.affine[2, 3]
    assert neck.image.shape[2] == head.image.shape[2] - before.min() - 2
    upside_down = replace(head, affine=head.affine @ np.diag([-1.0, 1, -1, 1]))
    assert CONDITIONS["crown cropped 15 mm"](upside_down).image.shape[2] == head.image.shape[2] - before.min() - 4


def test_slices_are_as_thick_as_they_say(head: LabelledHead) -> None:
    thick = CONDITIONS["6 mm slices"](replace(head, affine=head.affine @ np.diag([0.5, 0.5, 0.5, 1.0])))
    np.testing.assert_allclose(thick.spacing, [2, 2, 6])


def test_table_counts_what_was_flagged(tmp_path: Path) -> None:
    trials = [
        Trial("noise", "a", 0.95, 0.8, (), {"certainty": 0.9}),
        Trial("noise", "b", 0.85, 0.6, ("doubtful",), {"certainty": 0.5}),
        Trial("crop", "a", 0.80, 0.5, (), {"certainty": 0.4}),
        Trial("crop", "b", 0.0, 0.0, ("refused",), {}),
    ]
    text = markdown(trials, "the command")
    assert "| noise | 0.900 | 0.850 | 0.700 | 0.600 | 1 of 2 |" in text
    assert "Masks below 0.90: 3, of which flagged or refused: 2." in text
    assert "| `certainty` | 1.00 | 1.00 |" in text
    write_tsv(trials, tmp_path / "table.tsv")
    rows = [line.split("\t") for line in (tmp_path / "table.tsv").read_text().splitlines()]
    assert rows[0][-1] == "certainty" and rows[4][-1] == "n/a" and len(rows) == 5
