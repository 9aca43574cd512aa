"""The model card: facts from the weights file, limits from people."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from unibrain_bids.training import card

WEIGHTS = Path(card.__file__).parents[1] / "resources" / "weights" / "unified.safetensors"


def test_shipped_card_is_what_its_weights_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written anew, nothing changes: neither the facts nor the limits below them."""
    copies = [Path(shutil.copy(WEIGHTS.with_suffix(suffix), tmp_path)) for suffix in (".safetensors", ".md")]
    before = copies[1].read_text()
    monkeypatch.setattr(sys, "argv", ["card", str(copies[0])])
    card.main()
    assert copies[1].read_text() == before
    assert before.count(card.LIMITS) == 1 and len(before.partition(card.LIMITS)[2]) > 100
