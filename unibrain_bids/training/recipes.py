"""Recipes: what each training command trains, on what, towards what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unibrain_bids.errors import UsageError
from unibrain_bids.model import frame
from unibrain_bids.model.aligner import Aligner, group_channels
from unibrain_bids.model.atlas import Atlas
from unibrain_bids.model.first_look import FirstLook
from unibrain_bids.model.places import PlaceHead, fit_places
from unibrain_bids.model.presets import UNIFIED
from unibrain_bids.model.spatial import transform_points
from unibrain_bids.model.unibrain import Dense, UniBrain
from unibrain_bids.model.weights import average_of
from unibrain_bids.training import objectives
from unibrain_bids.training.embeddings import NetworkRecipe
from unibrain_bids.training.simulation.material import Material, load_material
from unibrain_bids.training.simulation.simulator import ALIGNED, FIRST_LOOK, SECOND_LOOK, SimulatedHead, simulate
from unibrain_bids.training.trainer import Recipe

HELD_OUT = ("head-13", "head-14", "head-15", "head-16")
# FreeSurfer's cortical region numbers 1..35 (4 is not used) to the parcellation's channels 0..33.
REGION_CHANNEL = torch.tensor([-1, 0, 1, 2, -1, *range(3, 34)])
# Name, in the weights file, of the module that each recipe trains.
MODULES = {
    "first-look": "first_look", "aligner": "aligner", "unified": "unibrain",
    "parcellation": "unibrain.parcellation", "network": "unibrain.network",
}  # fmt: skip
# Evaluation seeds lie far from those of training steps.
_EVALUATION_SEED = 2_000_000_000


@dataclass(frozen=True)
class Heads:
    """Training and held-out label maps on one device."""

    training: Material
    held_out: Material

    @classmethod
    def load(cls, path: Path, device: torch.device, *, keep_all: bool = False) -> Heads:
        """Read the packed file; `keep_all` trains on the held-out heads too (for final weights)."""
        material = load_material(path).to(device)
        names = tuple(head.name for head in material.heads)
        held_out = tuple(name for name in names if name in HELD_OUT)
        training = names if keep_all else tuple(name for name in names if name not in held_out)
        return cls(material.subset(training), material.subset(held_out))


def dice_scores(predicted: Tensor, truth: Tensor, classes: int) -> Tensor:
    """Dice of classes 1..classes-1 between label volumes; NaN for classes absent from both."""
    joint = torch.bincount((truth * classes + predicted).flatten(), minlength=classes**2).view(classes, classes)
    joint = joint.double()
    return (2 * joint.diagonal() / (joint.sum(0) + joint.sum(1)))[1:]


def half_precision(device: torch.device) -> torch.autocast:
    """bfloat16 for convolutions; geometry and losses stay outside, in float32."""
    return torch.autocast(device.type, torch.bfloat16)


class FirstLookRecipe:
    """Brain and place of every voxel at 8 mm over the whole field of view, in any pose."""

    def __init__(self, heads: Heads) -> None:
        self.heads = heads
        self.model: nn.Module = FirstLook(UNIFIED.first_look_widths)
        self.points = frame.points(FIRST_LOOK.shape, FIRST_LOOK.spacing, heads.training.t1.device)

    def loss(self, model: nn.Module, seed: int) -> tuple[Tensor, dict[str, float]]:
        """Mask loss, and the distance of the guessed places (in cm) over brain and, less, the rest of the head."""
        head = simulate(self.heads.training, FIRST_LOOK, seed)
        with half_precision(head.image.device):
            logits, places = model(head.image)
        mask = objectives.mask_loss(logits, head.brain)
        exact = transform_points(head.frame_from_grid, self.points).permute(0, 4, 1, 2, 3)
        distance = (places - exact).norm(dim=1, keepdim=True)
        weight = head.brain + 0.1 * (head.image > 0.05) * (1 - head.brain)
        place = (weight * distance).sum() / weight.sum() / 10
        return mask + place, {"mask": mask.item(), "place": place.item()}

    def evaluate(self, model: nn.Module, scans: int = 12) -> dict[str, float]:
        """Mask Dice, and the distance of the fitted affine over the brain, on scans of the held-out heads."""
        dice, distance = [], []
        for i in range(scans):
            head = simulate(self.heads.held_out, FIRST_LOOK, _EVALUATION_SEED + i, i % len(self.heads.held_out.heads))
            with half_precision(head.image.device):
                logits, places = model(head.image)
            dice.append(float(dice_scores((logits > 0).long(), head.brain.long(), 2)[0]))
            weight = torch.sigmoid(logits[0, 0]) * (logits[0, 0] > 0)
            # Before any brain is found, the guess is that the head stands in the frame already.
            found = int((weight > 0).sum()) > 100
            fitted = fit_places(weight, places[0], self.points)[None].float() if found else torch.eye(4)[None]
            exact_pose = head.frame_from_grid
            gap = transform_points(fitted.to(exact_pose), self.points) - transform_points(exact_pose, self.points)
            distance.append(float(gap[0][head.brain[0, 0] > 0].norm(dim=-1).mean()))
        return {
            "brain_dice": float(np.mean(dice)), "fit_mm": float(np.mean(distance)), "worst_fit_mm": max(distance),
        }  # fmt: skip


class AlignerRecipe:
    """Groups of structures at 4 mm in roughly aligned heads."""

    def __init__(self, heads: Heads, atlas: Atlas) -> None:
        self.heads = heads
        self.model: nn.Module = Aligner(UNIFIED.aligner_widths, atlas)
        self.channels = group_channels().to(heads.training.t1.device)

    def loss(self, model: nn.Module, seed: int) -> tuple[Tensor, dict[str, float]]:
        """Soft Dice and cross-entropy of the groups on one simulated scan."""
        head = simulate(self.heads.training, SECOND_LOOK, seed)
        with half_precision(head.image.device):
            logits = model(head.image)
        dice, cross_entropy = objectives.segmentation_loss(logits, self.channels[head.structures])
        return dice + cross_entropy, {"dice": dice.item(), "cross_entropy": cross_entropy.item()}

    def evaluate(self, model: nn.Module, scans: int = 12) -> dict[str, float]:
        """Group Dice, and the closed form's distance from the exact affine, on scans of the held-out heads."""
        assert isinstance(model, Aligner)
        records = []
        for i in range(scans):
            head = simulate(self.heads.held_out, SECOND_LOOK, _EVALUATION_SEED + i, i % len(self.heads.held_out.heads))
            with half_precision(head.image.device):
                logits = model(head.image)
            dice = dice_scores(logits.argmax(1), self.channels[head.structures], logits.shape[1]).nanmean()
            inside, exact = head.brain[0, 0] > 0, transform_points(head.frame_from_grid, model.points)
            fitted = transform_points(model.fit(logits.float().softmax(1)), model.points)
            distances = [(places - exact)[0][inside].norm(dim=-1).mean() for places in (fitted, model.points[None])]
            records.append((float(dice), *(float(distance) for distance in distances)))
        means = np.mean(records, axis=0).tolist()
        return dict(zip(("group_dice", "fit_mm", "start_mm"), means, strict=True)) | {
            "worst_fit_mm": max(record[1] for record in records)
        }


class UnifiedRecipe:
    """The unified model on roughly aligned heads: every task at once (DESIGN section 3)."""

    # Weight of each term; those that are worth 1 are left out.
    WEIGHTS: ClassVar[dict[str, float]] = {"similarity": 0.1, "gain": 2.0, "regions": 0.2}

    # Registration and regions learn from a part of the scans: they took a quarter of the time and learn little more.
    REGISTER_EVERY: ClassVar[int] = 3

    def __init__(self, heads: Heads, atlas: Atlas) -> None:
        self.heads = heads
        self.model: UniBrain = UniBrain(UNIFIED, atlas)

    def loss(self, model: nn.Module, seed: int) -> tuple[Tensor, dict[str, float]]:
        """The joint loss on one simulated scan, lambda drawn log-uniformly from 1e-3 to 10 (NPP)."""
        assert isinstance(model, UniBrain)
        head = simulate(self.heads.training, ALIGNED, seed)
        generator = torch.Generator().manual_seed(seed)
        smoothness = 10 ** (4 * torch.rand(1, generator=generator) - 3).to(head.image.device)
        with half_precision(head.image.device):
            dense = model.dense(head.image, smoothness)
        dice, cross_entropy = objectives.segmentation_loss(dense.structure_logits, head.structures)
        truth = torch.cat([head.brain, head.intracranial], dim=1)
        terms = {
            "dice": dice,
            "cross_entropy": cross_entropy,
            "mask": objectives.mask_loss(dense.mask_logits, truth),
            **multiplier_terms(dense, head, smoothness, similarity=seed % 2 == 0),
        }
        if seed % self.REGISTER_EVERY == 0:
            terms |= self._registration_terms(model, dense, head, generator)
        total = torch.stack([self.WEIGHTS.get(name, 1.0) * term for name, term in terms.items()]).sum()
        return total, {name: term.item() for name, term in terms.items()}

    def _registration_terms(
        self, model: UniBrain, dense: Dense, head: SimulatedHead, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Distance to the exact affine per stage, similarity to the template, and regions through the affine."""
        stages = model.register(dense, head.image)
        exact = torch.linalg.inv(head.frame_from_grid)
        points = model.points[::8, ::8, ::8]
        goal = transform_points(exact, points)
        distance = torch.stack([(transform_points(s, points) - goal).norm(dim=-1).mean() for s in stages]).mean()
        terms = {"distance": distance / 10, "place": place_error(model, dense, head) / 10}
        if head.t1_like:
            aligned = model.align(head.brain * head.image, stages[-1])
            terms["similarity"] = 1 - objectives.correlation(aligned, model.template)
        terms["regions"] = region_loss(model, dense, head, torch.linalg.inv(stages[-1]), generator)
        return terms

    def evaluate(self, model: nn.Module, scans: int = 8) -> dict[str, float]:
        """Figures on simulated scans of the held-out heads, at lambda 0.1."""
        assert isinstance(model, UniBrain)
        records = []
        for i in range(scans):
            head = simulate(self.heads.held_out, ALIGNED, _EVALUATION_SEED + i, i % len(self.heads.held_out.heads))
            with half_precision(head.image.device):
                dense = model.dense(head.image, torch.full((1,), 0.1, device=head.image.device))
            records.append(unified_figures(model, dense, head))
        return {name: sum(r[name] for r in records) / len(records) for name in records[0]}


class ParcellationRecipe:
    """The parcellation's head alone, on a trained model: for cortical labels that have changed since."""

    def __init__(self, heads: Heads, trained: UniBrain) -> None:
        self.heads, self.trained = heads, trained
        self.model: nn.Module = trained.parcellation

    def loss(self, model: nn.Module, seed: int) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy of the regions on one simulated scan, through the model's own affine."""
        head = simulate(self.heads.training, ALIGNED, seed)
        loss = functional.cross_entropy(*self._regions(head, seed, count=32768))
        return loss, {"regions": loss.item()}

    def evaluate(self, model: nn.Module, scans: int = 12) -> dict[str, float]:
        """Share of the true cortex's voxels that get their region, on scans of the held-out heads."""
        right = []
        for i in range(scans):
            head = simulate(self.heads.held_out, ALIGNED, _EVALUATION_SEED + i, i % len(self.heads.held_out.heads))
            logits, truth = self._regions(head, i, count=8192)
            right.append(float((logits.argmax(1) == truth).float().mean()))
        return {"region_accuracy": float(np.mean(right)), "worst_accuracy": min(right)}

    def _regions(self, head: SimulatedHead, seed: int, *, count: int) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            with half_precision(head.image.device):
                dense = self.trained.dense(head.image, torch.full((1,), 0.1, device=head.image.device))
            affine = torch.linalg.inv(self.trained.register(dense, head.image)[-1])
        generator = torch.Generator().manual_seed(seed)
        return region_logits_at_cortex(self.trained, dense, head, affine, count, generator)


def multiplier_terms(
    dense: Dense, head: SimulatedHead, smoothness: Tensor, *, similarity: bool = True
) -> dict[str, Tensor]:
    """NPP's objective (SSIM of the normalised brain, lambda x total variation) and the exact gain inside the head.

    Scans of any contrast have no meaningful white matter level: they count less. The SSIM is slow on a CPU and can be
    left out (`similarity`).
    """
    weight = 1.0 if head.t1_like else 0.2
    inside = head.brain + 0.1 * (head.image > 0.02) * (1 - head.brain)
    error = (dense.multiplier.log_gain() - head.log_gain).abs()
    terms = {
        "gain": weight * (inside * error).sum() / inside.sum(),
        "variation": smoothness.mean() * objectives.total_variation(dense.multiplier.log_gain_half),
    }
    if similarity:
        normalised = dense.multiplier.chi() * head.image
        terms["reconstruction"] = weight * (1 - objectives.ssim(normalised, head.normalised))
    return terms


def place_error(model: UniBrain, dense: Dense, head: SimulatedHead) -> Tensor:
    """Mean distance in mm between guessed and exact places over the brain."""
    exact = transform_points(head.frame_from_grid, model.places.points).permute(0, 4, 1, 2, 3)
    brain = functional.avg_pool3d(head.brain, PlaceHead.FACTOR)
    return ((dense.places - exact).norm(dim=1, keepdim=True) * brain).sum() / brain.sum().clamp(min=1)


def region_loss(
    model: UniBrain, dense: Dense, head: SimulatedHead, frame_from_grid: Tensor, generator: torch.Generator
) -> Tensor:
    """Cross-entropy of the cortical regions at a sample of the true cortex's voxels."""
    logits, truth = region_logits_at_cortex(model, dense, head, frame_from_grid, 8192, generator)
    return functional.cross_entropy(logits, truth)


def region_logits_at_cortex(
    model: UniBrain, dense: Dense, head: SimulatedHead, frame_from_grid: Tensor, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Region logits (n, 34) and true channels (n,) at up to `count` random voxels of the true cortex."""
    channel = REGION_CHANNEL.to(head.regions.device)[head.regions[0]]
    voxels = (channel >= 0).nonzero()
    chosen = torch.randint(len(voxels), (count,), generator=generator).to(voxels.device)
    x, y, z = voxels[chosen].unbind(1)
    features = dense.features.full[:, :, x, y, z][:, :, None, None].float()
    points = model.points[x, y, z][None, None]
    logits = model.parcellation.region_logits(features, model.region_atlas, frame_from_grid, points)
    return logits[0, :, 0, 0].T, channel[x, y, z]


def unified_figures(model: UniBrain, dense: Dense, head: SimulatedHead) -> dict[str, float]:
    """Dice of structures and masks, gain error, registration errors in mm, region accuracy."""
    logits = dense.structure_logits
    masks = (dense.mask_logits > 0).long()
    truth = torch.cat([head.brain, head.intracranial], dim=1).long()
    figures = {"structure_dice": float(dice_scores(logits.argmax(1), head.structures, logits.shape[1]).nanmean())}
    for name, predicted, true in zip(("brain", "intracranial"), masks[0], truth[0], strict=True):
        figures[f"{name}_dice"] = float(dice_scores(predicted, true, 2)[0])
    error = (dense.multiplier.log_gain() - head.log_gain).abs()
    figures["gain_error"] = float((error * head.brain).sum() / head.brain.sum())
    figures["ssim"] = float(objectives.ssim(dense.multiplier.chi() * head.image, head.normalised))
    exact, stages = torch.linalg.inv(head.frame_from_grid), model.register(dense, head.image)
    fitted = torch.linalg.inv(model.fit(torch.softmax(logits.float(), dim=1)))
    points = model.points[::8, ::8, ::8]
    found = int((dense.mask_logits[:, 0] > 0).sum()) > 1000
    placed = torch.linalg.inv(model.fit_to_places(dense)) if found else torch.eye(4).to(exact)[None]
    start = torch.eye(4).to(exact)[None]
    for name, matrix in {"stages": stages[-1], "fitted": fitted, "placed": placed, "start": start}.items():
        distance = (transform_points(matrix, points) - transform_points(exact, points)).norm(dim=-1)
        figures[f"{name}_mm"] = float(distance.mean())
    generator = torch.Generator().manual_seed(0)
    inverse = torch.linalg.inv(stages[-1])
    regions, true_regions = region_logits_at_cortex(model, dense, head, inverse, 8192, generator)
    figures["region_accuracy"] = float((regions.argmax(1) == true_regions).float().mean())
    return figures


def make(
    name: str, heads: Heads, atlas_path: Path, unified: Path | None, folder: Path, *, parcellation: Path | None = None
) -> Recipe:
    """The recipe of that name.

    Parameters
    ----------
    heads
        Label maps.
    atlas_path
        The population's soft atlas.
    unified
        Folder of a run of `unified`, on which `parcellation` and `network` build.
    folder
        Of the run to come.
    parcellation
        Folder of a run of `parcellation` that `network` shall take into the model.
    """
    if name == "first-look":
        return FirstLookRecipe(heads)
    with np.load(atlas_path) as arrays:
        atlas = Atlas.from_arrays(arrays)
    if name == "aligner":
        return AlignerRecipe(heads, atlas)
    recipe = UnifiedRecipe(heads, atlas)
    if name == "unified":
        return recipe
    if unified is None:
        raise UsageError(f"The recipe {name!r} needs a trained model.", "Give --unified FOLDER.")
    model = recipe.model.to(heads.training.t1.device).eval().requires_grad_(False)
    model.load_state_dict(average_of(unified / "checkpoint.pt"))
    if name == "parcellation":
        model.parcellation.requires_grad_(True)
        return ParcellationRecipe(heads, model)
    if parcellation is not None:
        model.parcellation.load_state_dict(average_of(parcellation / "checkpoint.pt"))
    model.network.requires_grad_(True)
    return NetworkRecipe.build(model, heads.training, heads.held_out, folder / "descriptions.pt")
