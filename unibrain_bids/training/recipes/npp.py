"""Recipe of NPP alone, as published: the clean, normalised brain in the template's space is the only teacher."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from unibrain_bids.model import frame
from unibrain_bids.model.locate import largest_component
from unibrain_bids.model.npp import MASK_THRESHOLD, NPP, NppOutputs
from unibrain_bids.model.presets import NppPreset
from unibrain_bids.model.spatial import transform_points
from unibrain_bids.training import objectives
from unibrain_bids.training.recipes.basis import EVALUATION_SEED, Heads, dice_scores, half_precision
from unibrain_bids.training.simulation.geometry import PoseRange
from unibrain_bids.training.simulation.simulator import SimulatedHead, SimulationRange, simulate

# The cube is centred on the brain before it counts (`inference.npp`): shifts are small.
POSE = PoseRange(rotation=10.0, translation=6.0, scale=0.12, shear=0.02)


def span_of(preset: NppPreset, pose: PoseRange = POSE) -> SimulationRange:
    """T1-like heads on the preset's grid; the simulator's own random contrast is NPP's random gamma."""
    return SimulationRange(preset.shape, preset.spacing, pose, t1_fraction=1.0, bias=0.4)


class NppRecipe:
    """1 - SSIM in the template's space + lambda x total variation of chi, lambda log-uniform from 0.001 to 10.

    There are no other terms: mask, field and affine are learnt from the normalised brain alone.
    """

    def __init__(self, heads: Heads, preset: NppPreset) -> None:
        self.heads, self.span = heads, span_of(preset)
        self.model: nn.Module = NPP(preset)

    def loss(self, model: nn.Module, seed: int) -> tuple[Tensor, dict[str, float]]:
        """The objective on one simulated scan."""
        assert isinstance(model, NPP)
        head = simulate(self.heads.training, self.span, seed)
        smoothness = draw_smoothness(seed).to(head.image.device)
        with half_precision(head.image.device):
            outputs = model(head.image, smoothness)
        aligned = model.to_template(outputs.normalised.float(), outputs.grid_from_frame)
        terms = {
            "reconstruction": 1 - objectives.ssim(aligned, target_in_template(model, head)),
            "variation": smoothness.mean() * objectives.total_variation(outputs.multiplier.chi_half()),
        }
        return torch.stack(list(terms.values())).sum(), {name: term.item() for name, term in terms.items()}

    def evaluate(self, model: nn.Module, scans: int = 8) -> dict[str, float]:
        """Figures on simulated scans of the held-out heads, at lambda 0.1."""
        assert isinstance(model, NPP)
        records = []
        for i in range(scans):
            head = simulate(self.heads.held_out, self.span, EVALUATION_SEED + i, i % len(self.heads.held_out.heads))
            with half_precision(head.image.device):
                outputs = model(head.image, torch.full((1,), 0.1, device=head.image.device))
            records.append(npp_figures(model, outputs, head))
        return {name: float(np.mean([record[name] for record in records])) for name in records[0]}


def draw_smoothness(seed: int) -> Tensor:
    """Lambda (1,), log-uniform from 0.001 to 10."""
    return 10 ** (4 * torch.rand(1, generator=torch.Generator().manual_seed(seed)) - 3)


def target_in_template(model: NPP, head: SimulatedHead) -> Tensor:
    """The clean, normalised brain at its exact place in the template's space."""
    return model.to_template(head.normalised, torch.linalg.inv(head.frame_from_grid))


def npp_figures(model: NPP, outputs: NppOutputs, head: SimulatedHead) -> dict[str, float]:
    """Mask Dice, SSIM on the grid and in the template's space, and registration errors over the brain in mm."""
    mask = largest_component((outputs.multiplier.chi() > MASK_THRESHOLD)[0, 0].cpu().numpy())
    aligned = model.to_template(outputs.normalised.float(), outputs.grid_from_frame)
    preset = model.preset
    points = frame.points(preset.shape, preset.spacing, head.image.device)[head.brain[0, 0] > 0]
    exact = transform_points(head.frame_from_grid, points)

    def distance(frame_from_grid: Tensor) -> float:
        return float((transform_points(frame_from_grid, points) - exact).norm(dim=-1).mean())

    return {
        "brain_dice": float(dice_scores(torch.from_numpy(mask).long(), head.brain[0, 0].long().cpu(), 2)[0]),
        "ssim": float(objectives.ssim(outputs.normalised, head.normalised)),
        "template_ssim": float(objectives.ssim(aligned, target_in_template(model, head))),
        "affine_mm": distance(torch.linalg.inv(outputs.grid_from_frame)),
        "start_mm": distance(torch.eye(4).to(exact)[None]),
    }
