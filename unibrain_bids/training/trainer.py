"""The training loop: time budget, exact resume, weight averaging, log; the same on CPU and GPU."""

from __future__ import annotations

import csv
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from unibrain_bids.imaging.memory import keep_freed_memory
from unibrain_bids.training.muon import Muon
from unibrain_bids.training.progress import LiveLine


class Recipe(Protocol):
    """What is trained, on what, towards what."""

    @property
    def model(self) -> nn.Module:
        """The network, trained in place."""
        ...

    def loss(self, model: nn.Module, seed: int) -> tuple[Tensor, dict[str, float]]:
        """Draw one sample from the seed; the loss and its parts for the log."""
        ...

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Figures on held-out heads."""
        ...


@dataclass(frozen=True)
class TrainerSettings:
    """How the loop runs.

    Attributes
    ----------
    minutes
        Time budget of this call; the loop stops by itself and can be resumed.
    learning_rate
        Peak of Adam's; it grows over `warmup` steps and then falls with the inverse square root of the step,
        so that the length of a run need not be known beforehand.
    batch
        Samples whose gradients are averaged in one step.
    anneal
        When > 0: the last so many steps, over which the learning rate goes to zero. The run is over after them: its
        folder trains no further, a new one can start from its weights.
    muon
        Whether the kernels of convolutions take Muon's steps (`training.muon`) instead of Adam's.
    halve_after
        When > 0: after so many steps the learning rate is halved.
    keep_best
        Name of a figure of the recipe's evaluation: the averaged weights with which it was smallest are kept in the
        checkpoint as `best`, those before the first step among them.
    """

    minutes: float
    learning_rate: float = 1e-3
    warmup: int = 50
    plateau: int = 1500
    batch: int = 1
    clip: float = 1.0
    ema: float = 0.998
    evaluate_every: int = 200
    checkpoint_every: int = 50
    log_every: int = 10
    anneal: int = 0
    muon: bool = False
    halve_after: int = 0
    keep_best: str = ""
    seed: int = 0


def optimisers_of(model: nn.Module, settings: TrainerSettings) -> list[torch.optim.Optimizer]:
    """AdamW for all that is trained; with `muon`, that for kernels wider than a voxel and AdamW for the rest."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    kernels = [p for p in trainable if p.ndim == 5 and p.shape[2] > 1] if settings.muon else []
    chosen = {id(parameter) for parameter in kernels}
    rest = [parameter for parameter in trainable if id(parameter) not in chosen]
    adam = torch.optim.AdamW(rest, lr=settings.learning_rate, weight_decay=1e-5)
    return [adam, Muon(kernels, lr=settings.learning_rate, weight_decay=1e-2)] if kernels else [adam]


class Trainer:
    """Trains a recipe's model; state lives in `folder/checkpoint.pt`, the log in `folder/log.csv`."""

    def __init__(self, recipe: Recipe, folder: Path, settings: TrainerSettings, device: torch.device) -> None:
        self.recipe, self.folder, self.settings, self.device = recipe, folder, settings, device
        self.model = recipe.model.to(device)
        self.average = {name: tensor.detach().clone().float() for name, tensor in self.model.state_dict().items()}
        self.optimisers = optimisers_of(self.model, settings)
        self.step = 0
        self.anneal_start: int | None = None
        self.best: dict[str, Any] = {}
        self.live = LiveLine(folder.name)

    def run(self) -> None:
        """Train until the budget is spent; resumes from the folder's checkpoint when there is one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        keep_freed_memory()
        torch.set_flush_denormal(True)
        try:
            self._run()
        finally:
            # It holds for the whole process, where others may count on subnormal numbers.
            torch.set_flush_denormal(False)

    def _run(self) -> None:
        self.restore()
        if self.settings.anneal and self.anneal_start is None:
            self.anneal_start = self.step
        start, losses = time.monotonic(), []
        if self.settings.keep_best and not self.step:
            self._keep_if_best(self.evaluate())
        while time.monotonic() - start < 60 * self.settings.minutes and not self.finished:
            losses.append(self.train_step())
            last = self.anneal_start + self.settings.anneal if self.anneal_start is not None else None
            self.live.show(self.step, last, sum(losses[-1].values()), 60 * self.settings.minutes)
            if self.step % self.settings.log_every == 0:
                self._log(losses, time.monotonic() - start)
                losses = []
            if self.step % self.settings.evaluate_every == 0 or (self.settings.keep_best and self.finished):
                figures = self.evaluate()
                self._log([figures], time.monotonic() - start)
                self._keep_if_best(figures)
            if self.step % self.settings.checkpoint_every == 0:
                self.save()
        self.save()
        self._log([self.evaluate()], time.monotonic() - start)

    def train_step(self) -> dict[str, float]:
        """One optimiser step; every random decision follows from the step's number."""
        self.model.train()
        rate = self._learning_rate()
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.zero_grad(set_to_none=True)
        parts: dict[str, float] = {}
        for sample in range(self.settings.batch):
            seed = (self.settings.seed * 1_000_003 + self.step) * self.settings.batch + sample
            loss, terms = self.recipe.loss(self.model, seed)
            (loss / self.settings.batch).backward()
            for name, value in terms.items():
                parts[name] = parts.get(name, 0.0) + value / self.settings.batch
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        if math.isfinite(float(norm)):
            for optimiser in self.optimisers:
                optimiser.step()
        self.step += 1
        self._update_average()
        return parts

    def evaluate(self) -> dict[str, float]:
        """The recipe's figures with the averaged weights."""
        trained = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        self.model.load_state_dict(self.average)
        self.model.eval()
        with torch.no_grad():
            figures = self.recipe.evaluate(self.model)
        self.model.load_state_dict(trained)
        return {f"eval_{name}": value for name, value in figures.items()}

    def save(self) -> None:
        """Write the checkpoint aside, then put it in place: an interrupted write never spoils the last one."""
        state = {
            "step": self.step, "anneal_start": self.anneal_start, "settings": asdict(self.settings),
            "model": self.model.state_dict(), "average": self.average, "best": self.best,
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
        }  # fmt: skip
        aside = self.folder / "checkpoint.pt.part"
        torch.save(state, aside)
        os.replace(aside, self.folder / "checkpoint.pt")

    def restore(self) -> None:
        """Continue from the folder's checkpoint, if there is one."""
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimiser, stored in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(stored)
        self.average = state["average"]
        self.step, self.anneal_start = state["step"], state["anneal_start"]
        self.best = state.get("best", {})

    def _keep_if_best(self, figures: dict[str, float]) -> None:
        value = figures.get(f"eval_{self.settings.keep_best}", math.inf)
        if value < self.best.get("value", math.inf):
            average = {name: tensor.clone() for name, tensor in self.average.items()}
            self.best = {"step": self.step, "value": value, "average": average}

    @property
    def finished(self) -> bool:
        """Whether the steps of `anneal` are done."""
        return self.anneal_start is not None and self.step >= self.anneal_start + self.settings.anneal

    def _learning_rate(self) -> float:
        step, settings = self.step + 1, self.settings
        rate = settings.learning_rate * min(step / settings.warmup, 1.0)
        rate *= math.sqrt(settings.plateau / max(step, settings.plateau))
        if 0 < settings.halve_after < step:
            rate /= 2
        if self.anneal_start is not None:
            rate *= max(1 - (self.step - self.anneal_start) / max(settings.anneal, 1), 0.0)
        return rate

    def _update_average(self) -> None:
        # Young averages follow faster, so that early evaluations show what has been learnt.
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, tensor in self.model.state_dict().items():
                self.average[name].lerp_(tensor.float(), 1 - decay)

    def _log(self, records: list[dict[str, float]], seconds: float) -> None:
        names = sorted({name for record in records for name in record})
        means = {n: sum(r[n] for r in records if n in r) / sum(n in r for r in records) for n in names}
        path = self.folder / "log.csv"
        new = not path.exists()
        with open(path, "a", newline="") as stream:
            writer = csv.writer(stream)
            if new:
                writer.writerow(["step", "seconds", "name", "value"])
            for name, value in means.items():
                writer.writerow([self.step, round(seconds, 1), name, round(value, 5)])
        text = " ".join(f"{name} {value:.4f}" for name, value in means.items())
        self.live.clear()
        print(f"step {self.step} {seconds:.0f} s {text}", flush=True)
