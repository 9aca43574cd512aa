"""Recipe of the refiner: structures and mask at 1 mm, on a trained model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unibrain_bids.inference.found import find_brain
from unibrain_bids.model import frame, refiner
from unibrain_bids.model.blocks import twice_as_fine
from unibrain_bids.model.gain import refine_log_gain
from unibrain_bids.model.intensity import scale_to_unit
from unibrain_bids.model.presets import UNIFIED
from unibrain_bids.model.refiner import Coarse, Contrast, Refiner, learn_contrast
from unibrain_bids.model.unibrain import UniBrain
from unibrain_bids.training import objectives
from unibrain_bids.training.recipes.basis import EVALUATION_SEED, Heads, dice_scores, half_precision
from unibrain_bids.training.simulation.material import Material
from unibrain_bids.training.simulation.simulator import ALIGNED, SimulatedHead, simulate

SPAN = replace(ALIGNED, shape=refiner.SHAPE, spacing=refiner.SPACING)
# Simulating a head at 1 mm takes as long as several steps: each is looked at so often, in other pieces.
_PIECES = 8
_PIECE = (40, 48, 40)
_SMOOTHNESS = 0.1


@dataclass(frozen=True)
class Seen:
    """A simulated head at 1 mm as the trained model sees it: the refiner's inputs, and the truth."""

    head: SimulatedHead
    image: Tensor
    coarse: Coarse
    contrast: Contrast


class RefinerRecipe:
    """The refiner on simulated heads, behind a model that stays as it is."""

    def __init__(self, heads: Heads, trained: UniBrain) -> None:
        self.heads, self.trained = heads, trained
        self.model: Refiner = Refiner(UNIFIED.widths[0], *UNIFIED.refiner_widths)
        self._latest = lru_cache(maxsize=1)(self._look)

    def loss(self, model: nn.Module, seed: int) -> tuple[Tensor, dict[str, float]]:
        """Dice and cross-entropy of structures and mask in a random piece of a simulated head."""
        assert isinstance(model, Refiner)
        seen = self._latest(seed // _PIECES)
        generator = torch.Generator().manual_seed(seed)
        x, y, z = (
            slice(first, first + part)
            for whole, part in zip(frame.SHAPE, _PIECE, strict=True)
            for first in [int(torch.randint(whole - part + 1, (), generator=generator))]
        )
        coarse = seen.coarse.piece((x, y, z))
        where = (slice(None), slice(None), *refiner.finer_box((x, y, z)))
        with half_precision(seen.image.device):
            fine = model(seen.image[where], coarse, seen.contrast)
            structures = model.weigh(fine.structure_logits, seen.image[where], seen.contrast)
        dice, cross_entropy = objectives.segmentation_loss(structures, seen.head.parts[where])
        mask = objectives.mask_loss(fine.mask_logits, seen.head.brain_share[where])
        terms = {"dice": dice, "cross_entropy": cross_entropy, "mask": mask}
        return dice + cross_entropy + mask, {name: term.item() for name, term in terms.items()}

    def evaluate(self, model: nn.Module, scans: int = 4) -> dict[str, float]:
        """Dice at 1 mm on scans of the held-out heads."""
        assert isinstance(model, Refiner)
        records = []
        for i in range(scans):
            seen = self._look(EVALUATION_SEED + i, self.heads.held_out, i % len(self.heads.held_out.heads))
            with half_precision(seen.image.device):
                fine = model(seen.image, seen.coarse, seen.contrast)
                structures = model.weigh(fine.structure_logits, seen.image, seen.contrast)
            records.append(figures(structures, fine.mask_logits, seen.head))
        return {name: float(np.mean([record[name] for record in records])) for name in records[0]}

    @torch.no_grad()
    def _look(self, seed: int, material: Material | None = None, which: int | None = None) -> Seen:
        head = simulate(material or self.heads.training, SPAN, seed, which)
        image = functional.avg_pool3d(head.image, refiner.FACTOR)
        smoothness = torch.full((1,), _SMOOTHNESS, device=image.device)
        with half_precision(image.device):
            dense = self.trained.mirrored_mean(scale_to_unit(image), smoothness)
        found = find_brain(dense)
        proposed = dense.multiplier.log_gain()
        log_gain = refine_log_gain(image, found.structures, found.brain, proposed, smoothness=_SMOOTHNESS)
        corrected = head.image * twice_as_fine(log_gain).exp()
        every = (slice(None, None, refiner.FACTOR),) * 3
        inside = found.brain[0, 0] > 0.5
        contrast = learn_contrast(corrected[(0, 0, *every)][inside], found.structures[0][:, inside])
        coarse = Coarse(dense.features.full, dense.mask_logits, dense.structure_logits)
        return Seen(head, corrected, coarse, contrast)


def figures(structures: Tensor, mask_logits: Tensor, head: SimulatedHead) -> dict[str, float]:
    """Dice of structures (mean of those there), of the cortex, of the mask, and of CSF within the mask."""
    classes = structures.shape[1]
    found, mask = structures.argmax(1), mask_logits[:, 0] > 0
    fluid, true_fluid = (found == 0) & mask, (head.structures == 0) & (head.brain[:, 0] > 0)
    return {
        "structure_dice": float(dice_scores(found, head.structures, classes).nanmean()),
        "cortex_dice": float(dice_scores(found, head.structures, classes)[[1, 15]].mean()),
        "brain_dice": float(dice_scores(mask.long(), head.brain[:, 0].long(), 2)[0]),
        "sulci_dice": float(dice_scores(fluid.long(), true_fluid.long(), 2)[0]),
    }
