"""The recipes run on the packaged phantom, and learn."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from unibrain_bids.errors import UsageError
from unibrain_bids.inference import resource
from unibrain_bids.model.atlas import Atlas
from unibrain_bids.model.first_look import FirstLook
from unibrain_bids.model.morphometry import MorphometricNetwork
from unibrain_bids.model.presets import UNIFIED
from unibrain_bids.model.unibrain import UniBrain
from unibrain_bids.model.weights import average_of
from unibrain_bids.training import export
from unibrain_bids.training.recipes import (
    FirstLookRecipe,
    Heads,
    ParcellationRecipe,
    RefinerRecipe,
    UnifiedRecipe,
    make,
)
from unibrain_bids.training.recipes.basis import HELD_OUT, REGION_CHANNEL
from unibrain_bids.training.recipes.network import NetworkRecipe, edge_similarity, gather_measures, solve
from unibrain_bids.training.simulation.material import Material
from unibrain_bids.training.trainer import Trainer, TrainerSettings

# All parts of the shipped model, with few channels.
SMALL = replace(UNIFIED, widths=(4, 4, 8, 8, 16), transformer_blocks=1, hypernetwork=(8, 8), stage_widths=(4, 4))
PHANTOM = resource("population/phantom.npz")
ATLAS = resource("population/atlas.npz")


def repack(path: Path, names: tuple[str, ...]) -> Path:
    """Write a packed file that holds the phantom under several names."""
    with np.load(PHANTOM) as packed:
        arrays = dict(packed)
    for kind in ("labels", "regions", "affine", "frame_from_head"):
        arrays |= {f"{kind}_{i}": arrays[f"{kind}_0"] for i in range(len(names))}
    np.savez(path, allow_pickle=False, **arrays | {"names": np.array(names)})
    return path


def test_held_out_heads_are_not_trained_on(tmp_path: Path) -> None:
    path = repack(tmp_path / "heads.npz", ("head-01", "head-13", "head-02"))
    heads, everyone = (Heads.load(path, torch.device("cpu"), keep_all=keep) for keep in (False, True))
    assert [head.name for head in heads.training.heads] == ["head-01", "head-02"]
    assert [head.name for head in everyone.training.heads] == ["head-01", "head-13", "head-02"]
    assert [head.name for head in heads.held_out.heads] == ["head-13"] and "head-13" in HELD_OUT


def test_region_numbers_to_channels() -> None:
    assert sorted(REGION_CHANNEL[REGION_CHANNEL >= 0].tolist()) == list(range(34))
    assert (REGION_CHANNEL[[0, 4]] == -1).all() and REGION_CHANNEL[1] == 0 and REGION_CHANNEL[35] == 33


def test_network_recipe_needs_a_trained_model(phantom: Material, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--unified"):
        make("network", Heads(phantom, phantom), ATLAS, None, tmp_path)


def test_first_look_learns_one_scan_by_heart(phantom: Material) -> None:
    recipe = FirstLookRecipe(Heads(phantom, phantom))
    torch.manual_seed(0)
    network = FirstLook((4, 8, 8, 16))
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(35):
        loss, terms = recipe.loss(network, seed=3)
        assert all(math.isfinite(value) for value in terms.values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert np.mean(losses[-10:]) < 0.75 * losses[0]


def test_first_look_is_evaluated_before_it_finds_any_brain(phantom: Material) -> None:
    network = FirstLook((4, 8))
    with torch.no_grad():
        network.head.bias.fill_(-50)
        figures = FirstLookRecipe(Heads(phantom, phantom)).evaluate(network, scans=2)
    assert figures["brain_dice"] == 0
    assert 5 < figures["fit_mm"] <= figures["worst_fit_mm"] < 100


@pytest.mark.slow
def test_unified_recipe_trains_every_part(phantom: Material, tmp_path: Path) -> None:
    """Two steps on the processor: all terms are finite, and every part of the model but the network moves."""
    with np.load(ATLAS) as arrays:
        recipe = UnifiedRecipe(Heads(phantom, phantom), Atlas.from_arrays(arrays))
    trainer = Trainer(recipe, tmp_path, TrainerSettings(minutes=1), torch.device("cpu"))
    before = {name: parameter.detach().clone() for name, parameter in recipe.model.named_parameters()}
    # The first step has every term; the second leaves out what is learnt from a part of the scans only.
    terms, fewer = trainer.train_step(), trainer.train_step()
    assert set(fewer) < set(terms)
    assert {"dice", "cross_entropy", "mask", "gain", "reconstruction", "variation", "distance"} <= set(terms)
    assert all(math.isfinite(value) for value in (*terms.values(), *fewer.values()))
    moved = {name.split(".")[0] for name, p in recipe.model.named_parameters() if not torch.equal(p, before[name])}
    parts = {name.split(".")[0] for name in before}
    assert moved >= parts - {"network"}
    with torch.no_grad():
        figures = recipe.evaluate(recipe.model.eval(), scans=1)
    assert all(math.isfinite(value) for value in figures.values()), figures
    assert figures["structure_dice"] > 0.3, "training begins at the atlas"


@pytest.mark.slow
def test_parcellation_recipe_trains_that_head_alone(phantom: Material, tmp_path: Path) -> None:
    with np.load(ATLAS) as arrays:
        trained = UniBrain(SMALL, Atlas.from_arrays(arrays)).eval().requires_grad_(False)
    trained.parcellation.requires_grad_(True)
    recipe = ParcellationRecipe(Heads(phantom, phantom), trained)
    trainer = Trainer(recipe, tmp_path, TrainerSettings(minutes=1, warmup=1), torch.device("cpu"))
    before = {name: parameter.clone() for name, parameter in trained.named_parameters()}
    terms = trainer.train_step()
    moved = {name for name, parameter in trained.named_parameters() if not torch.equal(parameter, before[name])}
    assert math.isfinite(terms["regions"])
    assert moved == {"parcellation.residual.weight", "parcellation.residual.bias"}
    with torch.no_grad():
        figures = recipe.evaluate(recipe.model.eval(), scans=1)
    assert 0.3 < figures["region_accuracy"] <= 1, "the atlas alone is better than that"


class TestNetworkRecipe:
    @pytest.fixture
    def measures(self) -> torch.Tensor:
        """Persons (36) differ in the places and volumes of their regions, two scans in brightness for the most."""
        generator = torch.Generator().manual_seed(0)

        def draw(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, 84, 6, generator=generator)

        typical = torch.tensor([0.4, 0.1, 6.0, 0.0, 0.0, 0.0]) + torch.tensor([0.1, 0.03, 0.5, 40, 40, 40]) * draw(1, 1)
        own = torch.tensor([0.01, 0.01, 0.1, 2, 2, 2]) * draw(36, 1)
        return typical + own + torch.tensor([0.1, 0.05, 0.1, 1, 1, 1]) * draw(36, 2)

    def test_edges_are_compared_without_the_groups_mean(self) -> None:
        h = torch.nn.functional.normalize(torch.randn(5, 6, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
        g = torch.nn.functional.normalize(torch.randn(5, 6, 4, generator=torch.Generator().manual_seed(1)), dim=-1)
        pairs = np.triu_indices(6, 1)
        edges = [np.stack([np.maximum(m @ m.T, 0)[pairs] for m in x.double().numpy()]) for x in (h, g)]
        centred = [e - e.mean(0) for e in edges]
        unit = [c / np.linalg.norm(c, axis=1, keepdims=True) for c in centred]
        np.testing.assert_allclose(edge_similarity(h, g), unit[0] @ unit[1].T, atol=1e-5)

    def test_new_persons_are_recognised_once_it_is_solved(self, measures: torch.Tensor, tmp_path: Path) -> None:
        recipe = NetworkRecipe(MorphometricNetwork(6), measures[:24], measures[24:])
        before = recipe.evaluate()["identifiability"]
        recipe.run(tmp_path)
        after = recipe.evaluate()
        assert before < 0.7 and after["identifiability"] > 0.95 and 0 < after["edge"] < 1
        assert export.last_figures(tmp_path) == pytest.approx(after, abs=1e-4)
        again = MorphometricNetwork(6)
        again.load_state_dict(average_of(tmp_path / "checkpoint.pt"))
        torch.testing.assert_close(again.embed(measures), recipe.model.embed(measures))

    def test_unreliable_measures_weigh_little(self, measures: torch.Tensor) -> None:
        network = MorphometricNetwork(6)
        solve(network, measures)
        weight = network.projection.detach().norm(dim=0)
        assert weight[:2].max() < 0.3 * weight[2:].min(), "per unit of what a repeated scan changes"

    @pytest.mark.slow
    def test_measuring_goes_on_where_it_was(self, phantom: Material, tmp_path: Path) -> None:
        with np.load(ATLAS) as arrays:
            model = UniBrain(SMALL, Atlas.from_arrays(arrays)).eval()
        bank = tmp_path / "training.pt"
        first = torch.rand(1, 2, 84, 6, generator=torch.Generator().manual_seed(0))
        torch.save(first, bank)
        both = gather_measures(model, phantom, bank, persons=2, first_seed=7)
        assert both.shape == (2, 2, 84, 6) and torch.equal(both[:1], first), "who was measured is not measured again"
        assert torch.isfinite(both).all() and not torch.equal(both[1, 0], both[1, 1])
        assert torch.equal(torch.load(bank, weights_only=True), both)
        assert torch.equal(gather_measures(model, phantom, bank, persons=1, first_seed=7), first)


@pytest.mark.slow
def test_refiner_learns_one_piece_by_heart(phantom: Material) -> None:
    """And what it says of the scan gets better; the model that it stands behind stays as it is."""
    torch.manual_seed(0)
    with np.load(ATLAS) as arrays:
        trained = UnifiedRecipe(Heads(phantom, phantom), Atlas.from_arrays(arrays)).model.eval().requires_grad_(False)
    recipe = RefinerRecipe(Heads(phantom, phantom), trained)
    optimiser = torch.optim.Adam(recipe.model.parameters(), lr=2e-3)
    losses = []
    for _ in range(30):
        loss, terms = recipe.loss(recipe.model, seed=24)
        assert all(math.isfinite(value) for value in terms.values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(parameter.grad is not None for parameter in recipe.model.parameters())
    with torch.no_grad():
        figures = recipe.evaluate(recipe.model.eval(), scans=1)
    assert all(0 <= value <= 1 for value in figures.values()), figures


def test_export_joins_the_averaged_weights_of_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One checkpoint each; the network's run replaces what the unified run had of it, a classifier stays out."""
    torch.manual_seed(0)
    runs = {
        "first_look": nn.ModuleDict({"head": nn.Linear(2, 2)}),
        "aligner": nn.ModuleDict({"head": nn.Linear(4, 2)}),
        "unified": nn.ModuleDict({name: nn.Linear(3, 3) for name in ("network", "backbone", "classifier")}),
        "network": nn.Linear(3, 3),
        "refiner": nn.Linear(2, 5),
    }
    arguments = []
    for name, model in runs.items():
        trainer = Trainer(_Idle(model), tmp_path / name, TrainerSettings(minutes=0), torch.device("cpu"))
        trainer.run()
        arguments += [f"--{name.replace('_', '-')}", str(tmp_path / name)]
    out = tmp_path / "new" / "weights.safetensors"
    monkeypatch.setattr(sys, "argv", ["export", *arguments, "--out", str(out)])
    export.main()
    with safe_open(out, framework="pt") as opened:
        stored = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        card = opened.metadata()
    parts = ("first_look.head", "aligner.head", "unibrain.network", "unibrain.backbone", "refiner")
    assert set(stored) == {f"{part}.{kind}" for part in parts for kind in ("weight", "bias")}
    assert all(tensor.dtype == torch.float16 for tensor in stored.values())
    assert torch.equal(stored["unibrain.network.weight"], runs["network"].weight.half())
    assert card["licence"] == "Apache-2.0" and "Research use only" in card["intended_use"]
    assert '"held_out": {"figure": 0.25}' in card["runs"]

    again = nn.Linear(2, 5)
    Trainer(_Idle(again), tmp_path / "again", TrainerSettings(minutes=0), torch.device("cpu")).run()
    second = tmp_path / "second.safetensors"
    words = ["--base", str(out), "--refiner", str(tmp_path / "again"), "--out", str(second)]
    monkeypatch.setattr(sys, "argv", ["export", *words])
    export.main()
    replaced = load_file(second)
    assert set(replaced) == set(stored)
    assert torch.equal(replaced["refiner.weight"], again.weight.half())
    assert torch.equal(replaced["unibrain.network.weight"], stored["unibrain.network.weight"])

    monkeypatch.setattr(sys, "argv", ["export", *words, "--share", "0.25"])
    export.main()
    mean = 0.75 * stored["refiner.weight"].float() + 0.25 * again.weight
    torch.testing.assert_close(load_file(second)["refiner.weight"], mean.detach().half())

    unlike, folder = _Idle(nn.ModuleDict({"other": again})), tmp_path / "other"
    Trainer(unlike, folder, TrainerSettings(minutes=0), torch.device("cpu")).run()
    monkeypatch.setattr(sys, "argv", ["export", *words, "--refiner", str(folder), "--share", "0.25"])
    with pytest.raises(UsageError, match="refiner"):
        export.main()


class _Idle:
    """A recipe whose model is trained already."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def loss(self, model: nn.Module, seed: int) -> tuple[torch.Tensor, dict[str, float]]:
        raise AssertionError("a budget of no minutes takes no step")

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {"figure": 0.25}
