"""Where two scans of one head land: the comparison of affines, and the truth that it is made with."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from numpy.typing import NDArray
from scipy import ndimage

from unibrain_bids.evaluation.perturbations import draw_movement, moved
from unibrain_bids.evaluation.repeatability import MOVED, RESCANNED, document, repeatability
from unibrain_bids.imaging.scan import Scan


def test_a_second_scan_of_the_same_head() -> None:
    points = np.random.default_rng(0).uniform(-60, 60, (100, 3))
    turn, shift = np.eye(4), np.eye(4)
    turn[:2, :2] = [[np.cos(0.01), -np.sin(0.01)], [np.sin(0.01), np.cos(0.01)]]
    shift[:3, 3] = [0.3, 0, 0.4]
    second_from_first = turn @ shift
    exact = repeatability(points, np.eye(4), np.linalg.inv(second_from_first), second_from_first)
    assert exact.mean_mm == pytest.approx(0, abs=1e-9) and exact.rotation_degrees == pytest.approx(0, abs=1e-6)
    shifted = repeatability(points, np.eye(4), shift @ np.linalg.inv(second_from_first), second_from_first)
    assert shifted.mean_mm == pytest.approx(0.5)
    turned = repeatability(points, np.eye(4), turn @ np.linalg.inv(second_from_first), second_from_first)
    assert turned.rotation_degrees == pytest.approx(np.degrees(0.01))


def centre(scan: Scan) -> NDArray[np.float64]:
    return np.asarray(apply_affine(scan.affine, ndimage.center_of_mass(scan.data)))


def test_the_truth_of_a_moved_head_leads_from_the_first_scan_to_the_second() -> None:
    data = np.zeros((40, 44, 36), np.float32)
    data[8:14, 20:26, 22:30] = 100
    affine = np.array([[-2.0, 0, 0, 40], [0, 2, 0, -50], [0, 0, 2, -30], [0, 0, 0, 1]])
    scan = Scan(Path("head.nii"), data, affine, nib.Nifti1Header())
    matrix = draw_movement(scan, np.ones(data.shape, np.uint8), np.random.default_rng(0))
    np.testing.assert_allclose(centre(moved(scan, matrix)), apply_affine(matrix, centre(scan)), atol=0.05)
    assert np.linalg.norm(centre(moved(scan, matrix)) - centre(scan)) > 1


def test_document_gives_the_mean_of_each_condition() -> None:
    rows: list[dict[str, float | str]] = [
        {"head": head, "condition": condition, "distance (mm)": distance, "rotation (degrees)": 0.1}
        for head, condition, distance in (("a", MOVED, 0.1), ("b", MOVED, 0.3), ("a", RESCANNED, 0.5))
    ]
    text = document(rows, "Weights: none.")
    assert f"| mean of 2 | {MOVED} | 0.200 | 0.100 |" in text
    assert f"| mean of 1 | {RESCANNED} | 0.500 | 0.100 |" in text
    assert f"| b | {MOVED} | 0.300 | 0.100 |" in text
