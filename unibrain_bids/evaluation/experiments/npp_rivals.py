"""NPP beside what its paper compares it with, from the same parts and by the same recipe.

Each answers with the normalised brain in the template's space. The naive U-Net has to do everything by its
convolutions; U-Net + STN draws an image and moves it; UMIRGPIT (Arar et al. 2020) asks in addition that drawing and
moving can be exchanged (its adversarial loss is left out). NPP multiplies instead of drawing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from unibrain_bids.evaluation.metrics import psnr, ssim
from unibrain_bids.model import frame
from unibrain_bids.model.backbone import Backbone
from unibrain_bids.model.npp import NPP
from unibrain_bids.model.presets import NppPreset
from unibrain_bids.model.registration import BottleneckStage
from unibrain_bids.model.spatial import warp
from unibrain_bids.training import objectives
from unibrain_bids.training.recipes.basis import EVALUATION_SEED, Heads, half_precision
from unibrain_bids.training.recipes.npp import draw_smoothness, span_of
from unibrain_bids.training.simulation.simulator import simulate
from unibrain_bids.training.trainer import Trainer, TrainerSettings

# Lambda of the evaluation: the paper's best.
_SMOOTHNESS = 0.1


@dataclass(frozen=True)
class Answer:
    """What a rival gives; volumes are (batch, 1, X, Y, Z).

    Attributes
    ----------
    aligned
        In the template's space; the first one counts, the others are taught besides.
    in_place
        The brain where the scan has it, before any movement; None for a rival that knows no such thing.
    penalty
        Added to the loss.
    """

    aligned: tuple[Tensor, ...]
    in_place: Tensor | None
    penalty: Tensor


class Rival(nn.Module):
    """A U-Net that draws the normalised brain, as wide and deep as the preset's, without lambda."""

    template_points: Tensor
    voxel_from_grid: Tensor

    def __init__(self, preset: NppPreset) -> None:
        super().__init__()
        self.backbone = Backbone(1, preset.widths, transformer_blocks=preset.transformer_blocks)
        self.draw = nn.Conv3d(preset.widths[0], 1, 1)
        voxel_from_grid = torch.linalg.inv(torch.from_numpy(frame.affine(preset.spacing, preset.shape))).float()
        self.register_buffer("template_points", frame.points(preset.shape, preset.spacing), persistent=False)
        self.register_buffer("voxel_from_grid", voxel_from_grid, persistent=False)

    def drawn(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The drawn brain (batch, 1, X, Y, Z), 0..1, where the image stands, and the bottleneck's features."""
        features = self.backbone(image)
        return torch.sigmoid(self.draw(features.full).float()), features.bottleneck

    def moved(self, volume: Tensor, grid_from_frame: Tensor) -> Tensor:
        """A volume in the template's space."""
        return warp(volume.float(), grid_from_frame, self.template_points, self.voxel_from_grid)

    def forward(self, image: Tensor, smoothness: Tensor) -> Answer:
        """The naive U-Net: what is drawn is taken as being in the template's space."""
        return Answer((self.drawn(image)[0],), None, torch.zeros((), device=image.device))


class RivalWithAffine(Rival):
    """U-Net + STN: the drawn brain is moved by NPP's own stage."""

    def __init__(self, preset: NppPreset) -> None:
        super().__init__(preset)
        self.stage = BottleneckStage(preset.widths[-1])

    def forward(self, image: Tensor, smoothness: Tensor) -> Answer:
        """Draw, then move."""
        drawn, bottleneck = self.drawn(image)
        return Answer((self.moved(drawn, self.stage(bottleneck)),), drawn, torch.zeros((), device=image.device))


class RivalInBothOrders(RivalWithAffine):
    """UMIRGPIT's idea: to draw and then to move must give the same as to move and then to draw."""

    def forward(self, image: Tensor, smoothness: Tensor) -> Answer:
        """Both orders; the first is the answer."""
        drawn, bottleneck = self.drawn(image)
        affine = self.stage(bottleneck)
        other = self.drawn(self.moved(image, affine))[0]
        return Answer((self.moved(drawn, affine), other), drawn, torch.zeros((), device=image.device))


class NppAnswer(NPP):
    """NPP itself, answering in the same form."""

    def forward(self, image: Tensor, smoothness: Tensor) -> Answer:  # type: ignore[override]
        """Multiply, then move; the total variation of chi is part of the loss."""
        outputs = super().forward(image, smoothness)
        aligned = self.to_template(outputs.normalised.float(), outputs.grid_from_frame)
        penalty = smoothness.mean() * objectives.total_variation(outputs.multiplier.chi_half())
        return Answer((aligned,), outputs.normalised.float(), penalty)


RIVALS: dict[str, type[nn.Module]] = {
    "naive U-Net": Rival,
    "U-Net + STN": RivalWithAffine,
    "UMIRGPIT-like": RivalInBothOrders,
    "NPP": NppAnswer,
}


class RivalRecipe:
    """1 - SSIM with the clean brain in the template's space, and the rival's own penalty."""

    def __init__(self, heads: Heads, preset: NppPreset, rival: str) -> None:
        self.heads, self.span = heads, span_of(preset)
        self.model: nn.Module = RIVALS[rival](preset)
        self.grid = Rival(preset).to(heads.training.t1.device)

    def loss(self, model: nn.Module, seed: int) -> tuple[Tensor, dict[str, float]]:
        """The objective on one simulated scan."""
        head = simulate(self.heads.training, self.span, seed)
        with half_precision(head.image.device):
            answer: Answer = model(head.image, draw_smoothness(seed).to(head.image.device))
        target = self.grid.moved(head.normalised, torch.linalg.inv(head.frame_from_grid))
        similarity = torch.stack([objectives.ssim(volume, target) for volume in answer.aligned]).mean()
        return 1 - similarity + answer.penalty, {"reconstruction": 1 - similarity.item()}

    def evaluate(self, model: nn.Module, scans: int = 12) -> dict[str, float]:
        """`scores` of the answers, and within the brain those of the unmoved ones too, on held-out heads."""
        records = []
        for i in range(scans):
            head = simulate(self.heads.held_out, self.span, EVALUATION_SEED + i, i % len(self.heads.held_out.heads))
            with half_precision(head.image.device):
                answer: Answer = model(head.image, torch.full((1,), _SMOOTHNESS, device=head.image.device))
            exact = torch.linalg.inv(head.frame_from_grid)
            found = scores(
                answer.aligned[0], self.grid.moved(head.normalised, exact), self.grid.moved(head.brain, exact)
            )
            if answer.in_place is not None:
                in_place = scores(answer.in_place, head.normalised, head.brain)
                found |= {f"{name}_in_place": in_place[name] for name in ("ssim_brain", "psnr_brain")}
            records.append(found)
        return {name: float(np.mean([record[name] for record in records])) for name in records[0]}


def scores(answer: Tensor, truth: Tensor, brain: Tensor) -> dict[str, float]:
    """SSIM over the whole grid and within the brain, PSNR within it in dB; all (1, 1, X, Y, Z)."""
    inside = brain[0, 0].cpu().numpy() > 0.5
    estimate, clean = (volume[0, 0].float().cpu().numpy() for volume in (answer, truth))
    peak = float(np.percentile(clean[inside], 99.9))
    return {
        "ssim": float(objectives.ssim(answer, truth)),
        "ssim_brain": ssim(clean, estimate, inside, data_range=peak),
        "psnr_brain": psnr(clean, estimate, inside, data_range=peak),
    }


# The paper's parts at a size that one thread trains in minutes: a box of 192 x 240 x 192 mm, four levels.
REDUCED = NppPreset("reduced", (32, 40, 32), 6.0, (16, 32, 64, 96), 3, (64, 128))


def train_rival(heads: Heads, rival: str, folder: Path, *, steps: int, seed: int = 0) -> dict[str, float]:
    """Train one rival for so many steps (or take it from its folder where that is done), and measure it."""
    torch.manual_seed(seed)
    recipe = RivalRecipe(heads, REDUCED, rival)
    settings = TrainerSettings(
        minutes=math.inf, learning_rate=3e-3, anneal=steps, ema=0.98, evaluate_every=steps + 1, seed=seed
    )
    trainer = Trainer(recipe, folder, settings, heads.training.t1.device)
    trainer.restore()
    if trainer.step < steps:
        trainer.run()
    return {name.removeprefix("eval_"): value for name, value in trainer.evaluate().items()}
