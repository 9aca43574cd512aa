"""The heads that come with the package fit the weights that come with it, and were found good enough."""

from __future__ import annotations

from pathlib import Path

import pytest

from unibrain_bids.classification.card import find_head
from unibrain_bids.inference import resource, weights_digest

NAMES = sorted(path.stem for path in Path(resource("heads")).glob("*.safetensors"))


def test_there_are_some():
    assert "sex" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_head_belongs_to_the_shipped_weights(name):
    """With new weights it has to be made anew: `python benchmarks/classification.py ship`."""
    assert find_head(name).card["Model"]["Weights"] == weights_digest(None)


def test_sex_was_told_by_held_out_participants():
    (validation,) = find_head("sex").card["Validation"]
    assert validation["Figures"]["head"]["auc"] >= 0.75
    assert validation["PermutationTests"]["Refitted"]["P"] < 0.01
