"""Recipe of the refiner: tissues and structures at 1 mm, on a trained model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unibrain_bids.inference.found import find_brain, see_stripped, strip
from unibrain_bids.model import frame, refiner
from unibrain_bids.model.blocks import twice_as_fine
from unibrain_bids.model.contrast import learn_contrast
from unibrain_bids.model.evidence import Evidence
from unibrain_bids.model.gain import refine_log_gain
from unibrain_bids.model.intensity import scale_to_unit
from unibrain_bids.model.neighbours import heed_neighbours
from unibrain_bids.model.presets import UNIFIED
from unibrain_bids.model.refiner import FINE, Box, Coarse, Refiner, Residual, posterior
from unibrain_bids.model.tissues import TISSUES, TissuePrior, shared_evidence, tissue_log_probability, tissue_of_class
from unibrain_bids.model.unibrain import Dense, UniBrain
from unibrain_bids.training.objectives import segmentation_loss
from unibrain_bids.training.recipes.basis import EVALUATION_SEED, Heads, dice_scores, half_precision
from unibrain_bids.training.simulation.material import Material
from unibrain_bids.training.simulation.simulator import ALIGNED, SimulatedHead, SimulationRange, simulate

# Thick slices are read from the model at 2 mm (`inference.refined`).
SPAN = replace(ALIGNED, shape=refiner.SHAPE, spacing=refiner.SPACING, large_voxels=False)
TRAINING = replace(SPAN, t1_fraction=0.93, lesions=0.35)
# To simulate a head at 1 mm and to look at it takes as long as ten steps: so many are kept, and pieces drawn of them.
# Several pieces of one head in a row, as in an earlier recipe, taught its contrast instead of any.
_HEADS = 64
_PIECE = (36, 40, 36)
_SMOOTHNESS = 0.1
# Of the loss' terms; those that are worth 1 are left out.
_WEIGHTS = {"structure_dice": 2.0}
# Of the mask at 2 mm, within two voxels of which everything is learnt.
_POSSIBLE = 0.05


@dataclass(frozen=True)
class Seen:
    """The brain of a simulated head at 1 mm as the trained model sees it, and its truth; kept small.

    Attributes
    ----------
    image
        (1, 1, 2X, 2Y, 2Z) float16, without bias field.
    coarse
        The refiner's inputs, float16.
    evidence
        The structures' intensities.
    parts
        (1, 4, 2X, 2Y, 2Z) uint8: the structure at four places within each voxel.
    share
        (1, 1, 2X, 2Y, 2Z) float16: part of them within the brain.
    """

    image: Tensor
    coarse: Coarse
    evidence: Evidence
    parts: Tensor
    share: Tensor


class RefinerRecipe:
    """The refiner on simulated heads, behind a model that stays as it is."""

    def __init__(self, heads: Heads, trained: UniBrain) -> None:
        self.heads, self.trained = heads, trained
        self.model: Refiner = Refiner(UNIFIED.widths[0], *UNIFIED.refiner_widths)
        self._kept = lru_cache(maxsize=_HEADS)(self._training_head)

    def loss(self, model: nn.Module, seed: int) -> tuple[Tensor, dict[str, float]]:
        """Dice and cross-entropy of tissues and structures in a random piece of a random head.

        Of the tissues alone the small structures are too small a part.
        """
        assert isinstance(model, Refiner)
        generator = torch.Generator().manual_seed(seed)
        seen = self._kept(int(torch.randint(_HEADS, (), generator=generator)))
        box = _draw_box((*seen.coarse.mask_logits.shape[2:],), generator)
        coarse = _stored_as(seen.coarse.piece(box), torch.float32)
        where = (slice(None), slice(None), *refiner.finer_box(box))
        image, share = seen.image[where].float(), seen.share[where].float()
        with half_precision(image.device):
            residual = model(image, coarse)
        structures = at_work(image, coarse, residual, seen.evidence)
        truth = seen.parts[where]
        tissue = tissue_of_class().to(truth.device)[truth.long()]
        dice, cross_entropy = tissue_loss(tissue_log_probability(structures), tissue, share)
        structure_dice, structure_cross_entropy = segmentation_loss(structures, truth)
        terms = {
            "dice": dice,
            "cross_entropy": cross_entropy,
            "structure_dice": structure_dice,
            "structure_cross_entropy": structure_cross_entropy,
        }
        total = torch.stack([_WEIGHTS.get(name, 1.0) * term for name, term in terms.items()]).sum()
        return total, {name: term.item() for name, term in terms.items()}

    def evaluate(self, model: nn.Module, scans: int = 4) -> dict[str, float]:
        """Dice at 1 mm on scans of the held-out heads."""
        assert isinstance(model, Refiner)
        records = []
        for i in range(scans):
            which = i % len(self.heads.held_out.heads)
            head, image, coarse, evidence = self._look(self.heads.held_out, SPAN, EVALUATION_SEED + i, which)
            with half_precision(image.device):
                residual = model(image, coarse)
            structures = at_work(image, coarse, residual, evidence)
            records.append(figures(structures.argmax(1), twice_as_fine(coarse.mask_logits) > 0, head))
        return {name: float(np.mean([record[name] for record in records])) for name in records[0]}

    def _training_head(self, number: int) -> Seen:
        head, image, coarse, evidence = self._look(self.heads.training, TRAINING, number)
        box = _brain_box(coarse.mask_logits)
        where = (slice(None), slice(None), *refiner.finer_box(box))
        coarse = _stored_as(coarse.piece(box), torch.float16)
        return Seen(image[where].half(), coarse, evidence, head.parts[where].clone(), head.brain_share[where].half())

    @torch.no_grad()
    def _look(
        self, material: Material, span: SimulationRange, seed: int, which: int | None = None
    ) -> tuple[SimulatedHead, Tensor, Coarse, Evidence]:
        """A head, its image without bias field, what the trained model sees of it, and the structures' intensities."""
        head = simulate(material, span, seed, which)
        image = functional.avg_pool3d(head.image, refiner.FACTOR)
        smoothness = torch.full((1,), _SMOOTHNESS, device=image.device)
        with half_precision(image.device):
            dense = self._see(image, smoothness)
        found = find_brain(dense)
        proposed = dense.multiplier.log_gain()
        log_gain = refine_log_gain(image, found.structures, found.brain, proposed, smoothness=_SMOOTHNESS)
        corrected = head.image * twice_as_fine(log_gain).exp()
        every = (slice(None, None, refiner.FACTOR),) * 3
        inside = found.brain[0, 0] > 0.5
        contrast = learn_contrast(corrected[(0, 0, *every)][inside], found.structures[0][:, inside])
        return head, corrected, Coarse.of(dense, contrast), shared_evidence(contrast)

    def _see(self, image: Tensor, smoothness: Tensor) -> Dense:
        # As it will be seen when the refiner is at work (`inference.unified.look`).
        whole = scale_to_unit(image)
        seen = self.trained.dense(whole, smoothness)
        return see_stripped(self.trained, strip(image, find_brain(seen)), whole, seen, smoothness)


def at_work(image: Tensor, coarse: Coarse, residual: Residual, evidence: Evidence) -> Tensor:
    """Logarithms of the structures' probabilities (1, 1 + structures, 2X, 2Y, 2Z) as they are at work."""
    structures = twice_as_fine(coarse.structures + residual.structures)
    alone = posterior(structures, image, evidence, residual.tissues, voice=FINE.voice, place=FINE.place)
    return heed_neighbours(alone, image, float(evidence.spread.mean()), FINE.coupling)


def tissue_loss(log_probability: Tensor, truth: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Soft Dice loss of the tissues inside the brain, and cross-entropy in it and up to 3 voxels around it.

    Parameters
    ----------
    log_probability
        (1, 3, X, Y, Z).
    truth
        (1, places, X, Y, Z), tissues at several places within each voxel.
    share
        (1, 1, X, Y, Z) part of the voxel inside the brain.
    """
    target = torch.stack([(truth == tissue).float().mean(1) for tissue in range(TISSUES)], dim=1)
    near = (functional.max_pool3d(share, 7, stride=1, padding=3) > 0).float()
    cross_entropy = -(target * log_probability * near).sum() / near.sum().clamp(min=1)
    axes = (0, 2, 3, 4)
    found, true = log_probability.exp() * share, target * share
    dice = (2 * (found * true).sum(axes) + 1) / (found.sum(axes) + true.sum(axes) + 1)
    return 1 - dice.mean(), cross_entropy


def figures(found: Tensor, mask: Tensor, head: SimulatedHead) -> dict[str, float]:
    """Dice of structures (mean of those there), of the cortex, and of tissues within the mask; from (1, X, Y, Z)."""
    classes, tissue = len(frame.STRUCTURES) + 1, tissue_of_class().to(found.device)
    scores = dice_scores(found, head.structures, classes)
    # Nothing, then the tissues.
    within = (tissue[found] + 1) * mask[:, 0], (tissue[head.structures] + 1) * head.brain[:, 0].long()
    tissues = dice_scores(*within, TISSUES + 1)
    sides = [frame.STRUCTURES.index(number) for number in (3, 42)]
    return {
        "structure_dice": float(scores.nanmean()),
        "cortex_dice": float(scores[sides].mean()),
        "tissue_dice": float(tissues.mean()),
        "fluid_dice": float(tissues[0]),
    }


def _stored_as(coarse: Coarse, dtype: torch.dtype) -> Coarse:
    prior = TissuePrior.from_channels(coarse.prior.channels().to(dtype))
    features, mask_logits, structures = (x.to(dtype) for x in (coarse.features, coarse.mask_logits, coarse.structures))
    return Coarse(features, mask_logits, structures, prior, coarse.levels)


def _brain_box(mask_logits: Tensor) -> Box:
    """Where brain may be, at least as large as a piece."""
    near = functional.max_pool3d((torch.sigmoid(mask_logits) > _POSSIBLE).float(), 5, stride=1, padding=2)[0, 0] > 0
    sides = []
    for side, part, size in zip(refiner.box_around(near), _PIECE, near.shape, strict=True):
        first, last = (side.start, side.stop) if near.any() else (0, size)
        first = min(first, size - part)
        sides.append(slice(first, max(last, first + part)))
    x, y, z = sides
    return x, y, z


def _draw_box(shape: tuple[int, ...], generator: torch.Generator) -> Box:
    x, y, z = (
        slice(first, first + part)
        for whole, part in zip(shape, _PIECE, strict=True)
        for first in [int(torch.randint(whole - part + 1, (), generator=generator))]
    )
    return x, y, z
