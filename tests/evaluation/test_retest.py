"""Test-retest of volumes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from unibrain_bids.evaluation.networks import ORIGINAL
from unibrain_bids.evaluation.retest import BRAIN, document, measure, variation, variations, volumes
from unibrain_bids.inference import Prediction


def test_variation_of_two_scans_is_that_of_bland_and_altman() -> None:
    first, second = np.array([100.0, 200.0, 0.0]), np.array([110.0, 200.0, 0.0])
    expected = 100 * math.sqrt((np.std([100, 110], ddof=1) / 105) ** 2 / 2)
    assert variation(first, second) == pytest.approx(expected)
    assert math.isnan(variation(np.zeros(2), np.zeros(2)))


def test_scans_are_predicted_once_and_compared_with_the_original(exact: Prediction, tmp_path: Path) -> None:
    calls = []

    def predicted() -> Prediction:
        calls.append(1)
        return exact

    scans = [("a", ORIGINAL, predicted), ("a", "noise", predicted)]
    first = measure(iter(scans), tmp_path / "volumes.tsv")
    assert measure(iter(scans), tmp_path / "volumes.tsv") == first and len(calls) == 2
    assert first["a", "noise"][BRAIN] == pytest.approx(
        float(exact.mask.sum()) * abs(np.linalg.det(exact.scan.affine[:3, :3]))
    )
    doubled = {name: 2 * volume for name, volume in first["a", "noise"].items()}
    rows = variations({("a", ORIGINAL): first["a", ORIGINAL], ("a", "noise"): doubled})
    assert [row["noise"] for row in rows if row["volume"] == BRAIN] == [pytest.approx(100 / 1.5 / math.sqrt(2))]
    assert "| brain mask | 47.1 |" in document(rows, "facts")
    assert list(volumes(exact)) == [row["volume"] for row in rows[1:]]
