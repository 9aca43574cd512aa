"""What UniBrain as published is measured by: mask, alignment, tissues, parcels and classes, person by person."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray

from unibrain_bids.evaluation.metrics import mutual_information, normalised_cross_correlation
from unibrain_bids.model.parcellation import region_numbers
from unibrain_bids.model.published import PublishedOutputs, PublishedUniBrain
from unibrain_bids.model.soft_template import TISSUES
from unibrain_bids.training.recipes.basis import dice_scores
from unibrain_bids.training.recipes.cohort import KnownCohort


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
    propagated_dice
        The same of the template's tissues, warped to the head by the affine.
    parcel_dice
        Mean over the 84 regions of the template's, warped to the head.
    classes
        The true class.
    probability
        Of the second class.
    """

    mask_dice: NDArray[np.float64]
    mutual_information: NDArray[np.float64]
    correlation: NDArray[np.float64]
    tissue_dice: NDArray[np.float64]
    propagated_dice: NDArray[np.float64]
    parcel_dice: NDArray[np.float64]
    classes: NDArray[np.float64]
    probability: NDArray[np.float64]

    @property
    def accuracy(self) -> float:
        """Share of the persons whose likelier class is theirs."""
        return float(((self.probability > 0.5) == (self.classes > 0.5)).mean())

    @property
    def area_under_curve(self) -> float:
        """How often a person of the second class has the higher probability of the two of a pair."""
        from sklearn.metrics import roc_auc_score

        return float(roc_auc_score(self.classes, self.probability))

    def means(self) -> dict[str, float]:
        """Mean of every figure, accuracy and area under the curve."""
        names = [field.name for field in fields(self) if field.name not in ("classes", "probability")]
        means = {name: float(np.nanmean(getattr(self, name))) for name in names}
        return means | {"accuracy": self.accuracy, "area_under_curve": self.area_under_curve}


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
    mask = known.given.masks[person, 0].long()
    aligned, template = outputs.aligned[0, 0].cpu().numpy(), model.image[0, 0].cpu().numpy()
    tissues, regions = known.tissues[person], known.regions[person]
    warped = model.parcellate(outputs.template_from_grid)[0]
    parcels = torch.cat([1 - warped.sum(0, keepdim=True), warped]).argmax(0)
    return {
        "mask_dice": float(dice_scores((outputs.mask_logits[0, 0] > 0).long(), mask, 2)[0]),
        "mutual_information": mutual_information(aligned, template),
        "correlation": normalised_cross_correlation(aligned, template),
        "tissue_dice": float(dice_scores(outputs.tissue_logits[0].argmax(0), tissues, TISSUES).nanmean()),
        "propagated_dice": float(dice_scores(outputs.propagated[0].argmax(0), tissues, TISSUES).nanmean()),
        "parcel_dice": float(dice_scores(parcels, regions, len(region_numbers()) + 1).nanmean()),
        "probability": float(torch.softmax(outputs.class_logits[0], dim=0)[1]),
    }
