"""What UniBrain as published is measured by: mask, alignment, tissues, parcels and classes, person by person."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unibrain_bids.evaluation.metrics import mutual_information, normalised_cross_correlation
from unibrain_bids.model.published import PublishedOutputs, PublishedUniBrain
from unibrain_bids.model.soft_template import TISSUES
from unibrain_bids.training.recipes.basis import dice_scores
from unibrain_bids.training.recipes.cohort import KnownCohort

_GREY = 1
_ALIGNED = ("mutual_information", "correlation", "parcel_dice")


@dataclass(frozen=True)
class Assessment:
    """One figure a person, (persons,) float64 each.

    Attributes
    ----------
    mask_dice
        Of the extracted brain.
    mutual_information, correlation
        Of the aligned brain and the template; nats, and Pearson's.
    tissue_dice
        Mean over GM, WM and ventricles of the segmentation.
    grey_white_dice
        The same without the ventricles.
    propagated_dice, propagated_grey_white_dice
        The same two of the template's tissues, warped to the head by the affine.
    parcel_dice
        Mean over the 84 regions of the template's, warped to the head; the likeliest where its tissue is grey matter.
    classes
        The true class.
    probability
        Of the second class.
    """

    mask_dice: NDArray[np.float64]
    mutual_information: NDArray[np.float64]
    correlation: NDArray[np.float64]
    tissue_dice: NDArray[np.float64]
    grey_white_dice: NDArray[np.float64]
    propagated_dice: NDArray[np.float64]
    propagated_grey_white_dice: NDArray[np.float64]
    parcel_dice: NDArray[np.float64]
    classes: NDArray[np.float64]
    probability: NDArray[np.float64]

    @property
    def accuracy(self) -> float:
        """Share of the persons whose likelier class is theirs."""
        return float(((self.probability > 0.5) == (self.classes > 0.5)).mean())

    @property
    def area_under_curve(self) -> float:
        """See `area_under_curve`."""
        return area_under_curve(self.classes, self.probability)

    def means(self) -> dict[str, float]:
        """Mean of every figure, accuracy and area under the curve."""
        names = [field.name for field in fields(self) if field.name not in ("classes", "probability")]
        means = {name: float(np.nanmean(getattr(self, name))) for name in names}
        return means | {"accuracy": self.accuracy, "area_under_curve": self.area_under_curve}


def area_under_curve(classes: NDArray[np.float64], probability: NDArray[np.float64]) -> float:
    """How often the person of the second class has the higher probability of the two of a pair; NaN without pairs."""
    first, second = probability[classes < 0.5], probability[classes > 0.5]
    if not (len(first) and len(second)):
        return float("nan")
    return float(np.mean(np.sign(second[:, None] - first[None]) / 2 + 0.5))


@torch.no_grad()
def assess(model: PublishedUniBrain, known: KnownCohort) -> Assessment:
    """Measure a model on persons whose truth is known, one by one."""
    was_training = model.training
    model.eval()
    rows = []
    for person in range(len(known.given.classes)):
        outputs = model(known.given.images[person : person + 1])
        rows.append({**_figures(model, outputs, known, person), "classes": float(known.given.classes[person])})
    model.train(was_training)
    return Assessment(**{name: np.array([row[name] for row in rows]) for name in rows[0]})


def _figures(model: PublishedUniBrain, outputs: PublishedOutputs, known: KnownCohort, person: int) -> dict[str, float]:
    assert outputs.class_logits is not None
    mask = known.given.masks[person, 0].long()
    labels = label_figures(model, outputs.template_from_grid, outputs.extracted[0], known, person)
    labels = {name if name in _ALIGNED else f"propagated_{name}": value for name, value in labels.items()}
    labels["propagated_dice"] = labels.pop("propagated_tissue_dice")
    return labels | {
        "mask_dice": float(dice_scores((outputs.mask_logits[0, 0] > 0).long(), mask, 2)[0]),
        **_tissue_figures(outputs.tissue_logits[0], known.tissues[person]),
        "probability": float(torch.softmax(outputs.class_logits[0], dim=0)[1]),
    }


def label_figures(
    model: PublishedUniBrain, template_from_grid: Tensor, brain: Tensor, known: KnownCohort, person: int
) -> dict[str, float]:
    """How well an affine (1, 4, 4) brings a brain (1, X, Y, Z) to the template, and its labels back to the head."""
    aligned = model.align(brain[None], torch.linalg.inv(template_from_grid))[0, 0].cpu().numpy()
    template = model.image[0, 0].cpu().numpy()
    tissues, regions = model.propagate(template_from_grid)[0], model.parcellate(template_from_grid)[0]
    parcels = torch.where(tissues.argmax(0) == _GREY, regions.argmax(0) + 1, 0)
    return {
        "mutual_information": mutual_information(aligned, template),
        "correlation": normalised_cross_correlation(aligned, template),
        **_tissue_figures(tissues, known.tissues[person]),
        "parcel_dice": _mean_dice(parcels, known.regions[person], len(regions) + 1),
    }


def _tissue_figures(scores: Tensor, truth: Tensor) -> dict[str, float]:
    """Mean Dice of the likeliest tissues of scores (4, X, Y, Z), with and without the ventricles."""
    dice = dice_scores(scores.argmax(0), truth, TISSUES)
    return {"tissue_dice": float(dice.nanmean()), "grey_white_dice": float(dice[:2].nanmean())}


def _mean_dice(predicted: Tensor, truth: Tensor, classes: int) -> float:
    """Mean Dice of labels (X, Y, Z) over the classes but 0."""
    return float(dice_scores(predicted, truth, classes).nanmean())
