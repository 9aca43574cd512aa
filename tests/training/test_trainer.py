"""The loop: exact resume, budget, averaging, safe checkpoints, steps that must not be taken."""

from __future__ import annotations

import csv
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unibrain_bids.training.trainer import Trainer, TrainerSettings

SETTINGS = TrainerSettings(
    minutes=10, learning_rate=0.05, warmup=3, plateau=5, batch=2, evaluate_every=4, checkpoint_every=3, anneal=10
)


class LineRecipe:
    """Fit y = 3 x - 1 from points drawn by the seed."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
        self.seeds: list[int] = []
        self.interrupt_at = -1
        self.poisoned = -1
        self.pause = 0.0

    def loss(self, model: nn.Module, seed: int) -> tuple[Tensor, dict[str, float]]:
        if len(self.seeds) == self.interrupt_at:
            raise KeyboardInterrupt
        time.sleep(self.pause)
        self.seeds.append(seed)
        assert model.training
        x = torch.randn(16, 1, generator=torch.Generator().manual_seed(seed))
        loss = (model(x) - (3 * x - 1)).square().mean()
        if len(self.seeds) - 1 == self.poisoned:
            loss = loss * torch.tensor(float("nan"))
        return loss, {"square": loss.item()}

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        assert not model.training and not torch.is_grad_enabled()
        x = torch.linspace(-1, 1, 20)[:, None]
        return {"error": float((model(x) - (3 * x - 1)).abs().mean())}


def make(folder: Path, settings: TrainerSettings = SETTINGS, **changes: Any) -> Trainer:
    recipe = LineRecipe()
    for name, value in changes.items():
        setattr(recipe, name, value)
    return Trainer(recipe, folder, settings, torch.device("cpu"))


def figures(folder: Path, name: str) -> list[float]:
    with open(folder / "log.csv", newline="") as stream:
        return [float(row["value"]) for row in csv.DictReader(stream) if row["name"] == name]


def assert_same(a: Any, b: Any) -> None:
    """Bit for bit, through dictionaries and lists."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list):
        for one, other in zip(a, b, strict=True):
            assert_same(one, other)
    elif isinstance(a, Tensor):
        assert torch.equal(a, b)
    else:
        assert a == b


def checkpoint(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoint.pt", weights_only=True)


def test_interrupted_run_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    whole = make(tmp_path / "whole")
    whole.run()
    assert whole.step == SETTINGS.anneal
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "parts", interrupt_at=15).run()
    assert checkpoint(tmp_path / "parts")["step"] == 6, "the last checkpoint, of step 7's interruption"
    resumed = make(tmp_path / "parts")
    resumed.run()
    assert resumed.recipe.seeds == whole.recipe.seeds[12:]
    assert_same(checkpoint(tmp_path / "parts"), checkpoint(tmp_path / "whole"))
    assert len(set(whole.recipe.seeds)) == len(whole.recipe.seeds) == 20, "no sample is seen twice"


class KernelRecipe(LineRecipe):
    """The same line through a convolution, whose kernel Muon takes."""

    def __init__(self) -> None:
        super().__init__()
        layers = (
            nn.Unflatten(1, (1, 1, 1, 1)),
            nn.Conv3d(1, 8, 3, padding=1),
            nn.Flatten(),
            nn.Tanh(),
            nn.Linear(8, 1),
        )
        self.model = nn.Sequential(*layers)


def test_muon_takes_the_kernels_and_goes_on_where_it_was(tmp_path: Path) -> None:
    settings = replace(SETTINGS, muon=True)

    def trainer(folder: str, steps: int = -1) -> Trainer:
        recipe = KernelRecipe()
        recipe.interrupt_at = steps
        return Trainer(recipe, tmp_path / folder, settings, torch.device("cpu"))

    whole = trainer("whole")
    adam, muon = whole.optimisers
    kernel = whole.model[1].weight
    assert [id(p) for p in muon.param_groups[0]["params"]] == [id(kernel)]
    assert len(adam.param_groups[0]["params"]) == 3
    before = kernel.detach().clone()
    whole.run()
    assert not torch.equal(kernel, before)
    with pytest.raises(KeyboardInterrupt):
        trainer("parts", 15).run()
    trainer("parts").run()
    assert_same(checkpoint(tmp_path / "parts"), checkpoint(tmp_path / "whole"))


def test_training_lowers_the_error_and_logs_it(tmp_path: Path) -> None:
    make(tmp_path, replace(SETTINGS, anneal=120, plateau=100)).run()
    errors = figures(tmp_path, "eval_error")
    assert len(errors) == 120 // 4 + 1
    assert errors[-1] < 0.3 * errors[0]
    assert len(figures(tmp_path, "square")) == 12


def test_time_budget_ends_a_run_that_can_go_on(tmp_path: Path) -> None:
    settings = replace(SETTINGS, minutes=0.5 / 60, anneal=0)
    first = make(tmp_path, settings, pause=0.02)
    start = time.monotonic()
    first.run()
    assert 0.5 <= time.monotonic() - start < 5
    assert first.step > 1
    assert checkpoint(tmp_path)["step"] == first.step
    second = make(tmp_path, settings, pause=0.02)
    second.run()
    assert second.step > first.step


def test_average_follows_its_recursion_and_training_goes_on_from_the_weights(tmp_path: Path) -> None:
    trainer = make(tmp_path)
    expected = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    for step in range(1, 6):
        trainer.train_step()
        decay = min(SETTINGS.ema, (1 + step) / (10 + step))
        for name, tensor in trainer.model.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * tensor
            torch.testing.assert_close(trainer.average[name], expected[name])
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    found = trainer.evaluate()["eval_error"]
    assert_same(dict(trainer.model.state_dict()), before)
    trainer.model.load_state_dict(expected)
    trainer.model.eval()
    with torch.no_grad():
        assert found == pytest.approx(trainer.recipe.evaluate(trainer.model)["error"])


def test_interrupted_save_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(tmp_path)
    trainer.train_step()
    trainer.save()
    kept = checkpoint(tmp_path)
    trainer.train_step()

    def fill_the_disk(state: object, path: Path) -> None:
        path.write_bytes(b"half of a checkpoint")
        raise OSError("No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(torch, "save", fill_the_disk)
        trainer.save()
    assert_same(checkpoint(tmp_path), kept)
    resumed = make(tmp_path)
    resumed.restore()
    assert resumed.step == 1


def test_step_with_a_gradient_that_is_not_finite_is_not_taken(tmp_path: Path) -> None:
    trainer = make(tmp_path, poisoned=5)
    for _ in range(2):
        trainer.train_step()
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.train_step()  # its second sample is poisoned
    assert trainer.step == 3
    assert_same(dict(trainer.model.state_dict()), before)
    assert all(torch.isfinite(tensor).all() for tensor in trainer.average.values())
    trainer.train_step()
    after = trainer.model.state_dict()
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    assert not torch.equal(after["0.weight"], before["0.weight"]), "training goes on"


def test_learning_rate_rises_holds_falls_and_anneals(tmp_path: Path) -> None:
    def rates(settings: TrainerSettings, steps: int) -> list[float]:
        trainer = make(tmp_path / str(settings.anneal), settings)
        trainer.anneal_start = 0 if settings.anneal else None
        found = []
        for _ in range(steps):
            trainer.train_step()
            found.append(trainer.optimisers[0].param_groups[0]["lr"] / settings.learning_rate)
        return found

    free = rates(replace(SETTINGS, anneal=0), 20)
    assert free[:5] == pytest.approx([1 / 3, 2 / 3, 1, 1, 1])
    assert free[19] == pytest.approx((5 / 20) ** 0.5)
    annealed = rates(replace(SETTINGS, anneal=20), 20)
    assert annealed == pytest.approx([rate * (1 - i / 20) for i, rate in enumerate(free)])
