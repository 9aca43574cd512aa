"""The refiner's answer at a scan's own voxels, against scipy, on oblique scans that look at the grid from anywhere."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from unibrain_bids.inference import refined as room
from unibrain_bids.inference.refined import refine
from unibrain_bids.model import frame
from unibrain_bids.model.locate import Volume
from unibrain_bids.model.native import NativeGrid
from unibrain_bids.model.refiner import COARSE, FINE, MASK_VOICE, Refiner, Weighing
from unibrain_bids.model.tissues import GRAY, tissue_of_class

CLASSES = 1 + len(frame.STRUCTURES)
SHAPE = (52, 61, 48)


@pytest.fixture(scope="module")
def frame_from_voxel() -> np.ndarray:
    """An oblique scan of 3.1 x 2.6 x 3.4 mm, stored from right to left."""
    matrix = np.eye(4)
    turn = Rotation.from_euler("xyz", (11, -8, 14), degrees=True).as_matrix()
    matrix[:3, :3] = turn @ np.diag([-3.1, 2.6, 3.4])
    matrix[:3, 3] = (4, -3, 5) - matrix[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    return matrix


@pytest.fixture(scope="module")
def seen() -> Any:
    """An ellipsoid of a brain, more to the front than to the back, with two structures of smooth probabilities."""
    torch.manual_seed(0)
    points = frame.points()
    inside = ((points - torch.tensor([3.0, 8.0, -4.0])) / torch.tensor([58.0, 72.0, 52.0])).square().sum(-1)
    mask_logits = (20 * (1 - inside))[None, None]
    coarse = torch.randn(1, CLASSES, 10, 12, 10)
    structures = torch.nn.functional.interpolate(coarse, size=frame.SHAPE, mode="trilinear")
    dense = SimpleNamespace(
        features=SimpleNamespace(full=torch.randn(1, 4, *frame.SHAPE)),
        mask_logits=torch.cat([mask_logits, mask_logits], dim=1),
        structure_logits=structures,
    )
    return SimpleNamespace(
        outputs=SimpleNamespace(dense=dense),
        found=SimpleNamespace(brain=torch.sigmoid(mask_logits), structures=structures.softmax(1)),
        log_gain=0.1 * torch.nn.functional.interpolate(torch.randn(1, 1, 3, 3, 3), size=frame.SHAPE, mode="trilinear"),
        frame_from_scan=np.eye(4),
    )


def test_structures_of_a_tissue_share_what_the_refiner_gives_it(frame_from_voxel: np.ndarray, seen: Any) -> None:
    """A residual that speaks for grey matter alone makes every voxel grey; its structures keep their proportions."""
    network = Refiner(4, 8, 8).eval()
    found = run(network, seen, frame_from_voxel)
    inside = found.brain.numpy() > 0.5
    tissue = tissue_of_class()
    with torch.inference_mode():
        before = found.judge(inside)[0]
        found.residual[:, GRAY] += 60
        after = found.judge(inside)[0]
    assert float(after[tissue == GRAY].sum(0).min()) > 0.999
    share = before[tissue == GRAY] / before[tissue == GRAY].sum(0)
    torch.testing.assert_close(after[tissue == GRAY], share, atol=1e-3, rtol=1e-2)


@torch.inference_mode()
def run(network: Refiner, seen: Any, matrix: np.ndarray) -> room.Refined:
    rng = np.random.default_rng(0)
    data = rng.uniform(10, 100, SHAPE).astype(np.float32)
    volume = Volume(torch.from_numpy(data)[None, None], matrix)
    native = NativeGrid(SHAPE, np.linalg.inv(frame.affine()) @ matrix)
    return refine(network, seen, volume, native, data)


def test_mask_is_read_where_the_scan_s_voxels_lie(frame_from_voxel: np.ndarray, seen: Any) -> None:
    """The mask is what scipy reads off the logits on the model's grid."""
    found = run(Refiner(4, 8, 8).eval(), seen, frame_from_voxel)
    voxels = np.argwhere(found.possible)
    places = voxels @ frame_from_voxel[:3, :3].T + frame_from_voxel[:3, 3]
    grid = (places - frame.affine()[:3, 3]) / frame.SPACING
    logits = seen.outputs.dense.mask_logits[0, 0].numpy()
    expected = 1 / (1 + np.exp(-map_coordinates(logits, grid.T, order=1, mode="nearest")))
    assert np.sum(np.abs(expected - 0.5) < 0.4) > 300
    np.testing.assert_allclose(found.brain.numpy(), expected, atol=1e-3)
    with torch.inference_mode():
        structures = found.judge(found.brain.numpy() > 0.5)[0]
    torch.testing.assert_close(structures.sum(0), torch.ones(structures.shape[1]))


@torch.inference_mode()
def test_outside_is_what_place_and_a_quiet_intensity_say(frame_from_voxel: np.ndarray, seen: Any) -> None:
    found = run(Refiner(4, 8, 8).eval(), seen, frame_from_voxel)
    inside = found.brain.numpy() > 0.5
    quiet = Weighing(place=1.0, voice=MASK_VOICE, coupling=FINE.coupling, outside=0.2)
    alone = replace(found, weighing=quiet)
    probability, outside = alone.judge(inside)
    assert 0 < outside.sum() < len(outside)
    torch.testing.assert_close(outside, probability[0] >= 0.2)
    assert torch.equal(replace(alone, weighing=replace(quiet, place=0.5, voice=2.0)).judge(inside)[1], outside)


def test_slabs_change_nothing(frame_from_voxel: np.ndarray, seen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    network = Refiner(4, 8, 8).eval()
    for layer in (network.residual, network.structures):
        torch.nn.init.normal_(layer.weight, std=0.3)
    answers = []
    monkeypatch.setattr(room, "_COARSE_SCAN", 5.0)
    for thickness in (7, 200):
        monkeypatch.setattr(room, "_SLAB", thickness)
        answers.append(run(network, seen, frame_from_voxel))
    assert answers[0].residual.any()
    # Each slab has a box of its own, beyond which nothing is asked for.
    possible = torch.nn.functional.interpolate((seen.found.brain > 0.05).float(), scale_factor=2)[0, 0] > 0
    few, many = (answer.residual[0, :, possible] for answer in answers)
    torch.testing.assert_close(few, many, atol=1e-3, rtol=1e-3)
    inside = answers[0].brain.numpy() > 0.5
    with torch.inference_mode():
        one, other = (answer.judge(inside)[0] for answer in answers)
    torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


def test_scans_of_large_voxels_are_read_from_the_model_s_grid(frame_from_voxel: np.ndarray, seen: Any) -> None:
    network = Refiner(4, 8, 8).eval()
    torch.nn.init.normal_(network.residual.weight)
    coarse = run(network, seen, frame_from_voxel)
    assert not coarse.residual.any() and coarse.weighing == COARSE
    thick_slices = frame_from_voxel @ np.diag([0.3, 0.3, 1, 1])
    fine = run(network, seen, thick_slices)
    assert fine.residual.any() and fine.weighing == FINE


def test_every_voxel_of_the_brain_is_asked(frame_from_voxel: np.ndarray, seen: Any) -> None:
    found = run(Refiner(4, 8, 8).eval(), seen, frame_from_voxel)
    native = NativeGrid(SHAPE, np.linalg.inv(frame.affine()) @ frame_from_voxel)
    assert not ((native.volume(seen.found.brain) > 0.05) & ~found.possible).any()


def test_where_no_brain_is_nothing_is_refined(frame_from_voxel: np.ndarray, seen: Any) -> None:
    away = frame_from_voxel.copy()
    away[:3, 3] += 900
    found = run(Refiner(4, 8, 8).eval(), seen, away)
    assert not found.possible.any() and len(found.brain) == 0
    with torch.inference_mode():
        assert found.judge(np.zeros(0, dtype=bool))[0].shape == (CLASSES, 0)
