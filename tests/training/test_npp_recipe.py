"""NPP's recipe on the packaged phantom: its one objective, and that it learns, stops and goes on."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from unibrain_bids.inference import resource
from unibrain_bids.model.npp import NPP
from unibrain_bids.model.presets import NPP_SMALL
from unibrain_bids.training import cli
from unibrain_bids.training.recipes.basis import Heads
from unibrain_bids.training.recipes.npp import NppRecipe, draw_smoothness, target_in_template
from unibrain_bids.training.simulation.material import Material
from unibrain_bids.training.simulation.simulator import simulate
from unibrain_bids.training.trainer import Trainer, TrainerSettings

TINY = replace(NPP_SMALL, shape=(32, 32, 32), spacing=8.0, widths=(4, 8, 16, 16), hypernetwork=(8, 16))


def test_lambda_is_drawn_log_uniformly() -> None:
    drawn = torch.log10(torch.cat([draw_smoothness(seed) for seed in range(400)]))
    assert drawn.min() >= -3 and drawn.max() <= 1
    assert abs(float(drawn.mean()) + 1) < 0.2 and abs(float(drawn.std()) - 4 / math.sqrt(12)) < 0.1


def test_the_target_stands_in_the_template_whatever_the_pose(phantom: Material) -> None:
    """Two poses of one person give the same target, up to what sampling twice costs."""
    recipe = NppRecipe(Heads(phantom, phantom), NPP_SMALL)
    assert isinstance(recipe.model, NPP)
    heads = [simulate(phantom, replace(recipe.span, missing_parts=False), seed, 0, anatomy=5) for seed in (1, 2)]
    apart, together = (
        float(torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0))
        for a, b in (
            (heads[0].normalised, heads[1].normalised),
            tuple(target_in_template(recipe.model, head) for head in heads),
        )
    )
    assert together > 0.95 > apart


def test_it_learns_one_scan_by_heart(phantom: Material) -> None:
    recipe = NppRecipe(Heads(phantom, phantom), TINY)
    torch.manual_seed(0)
    optimiser = torch.optim.Adam(recipe.model.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss, terms = recipe.loss(recipe.model, seed=3)
        assert set(terms) == {"reconstruction", "variation"}
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.7 * losses[0]


def test_the_learning_rate_is_halved(phantom: Material, tmp_path: Path) -> None:
    settings = TrainerSettings(minutes=1, learning_rate=1e-4, warmup=1, halve_after=1)
    trainer = Trainer(NppRecipe(Heads(phantom, phantom), TINY), tmp_path, settings, torch.device("cpu"))
    rates = []
    for _ in range(2):
        trainer.train_step()
        rates.append(trainer.optimisers[0].param_groups[0]["lr"])
    assert rates == [pytest.approx(1e-4), pytest.approx(5e-5)]


@pytest.mark.slow
def test_the_command_trains_saves_and_resumes(tmp_path: Path) -> None:
    with np.load(resource("population/phantom.npz")) as packed:
        arrays = dict(packed)
    for kind in ("labels", "regions", "affine", "frame_from_head"):
        arrays[f"{kind}_1"] = arrays[f"{kind}_0"]
    np.savez(tmp_path / "heads.npz", allow_pickle=False, **arrays | {"names": np.array(["head-01", "head-13"])})
    words = ["npp-small", "--data", str(tmp_path / "heads.npz"), "--out", str(tmp_path / "run"), "--minutes", "0.02"]
    steps = []
    for _ in range(2):
        assert cli.main([*words, "--threads", "1"]) == 0
        steps.append(torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"])
    assert 0 < steps[0] < steps[1]
    with open(tmp_path / "run" / "log.csv", newline="") as stream:
        figures = {row["name"]: float(row["value"]) for row in csv.DictReader(stream)}
    names = {"eval_brain_dice", "eval_ssim", "eval_template_ssim", "eval_affine_mm", "eval_start_mm"}
    assert names <= set(figures) and all(math.isfinite(value) for value in figures.values())
