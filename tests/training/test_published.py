"""The published recipe on the packaged phantom: what it is given, that it learns, stops and goes on."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from unibrain_bids.evaluation.published import area_under_curve, assess
from unibrain_bids.inference import resource
from unibrain_bids.model.atlas import Atlas
from unibrain_bids.model.presets import UNIBRAIN_8MM
from unibrain_bids.model.published import PublishedUniBrain
from unibrain_bids.model.soft_template import SoftTemplate
from unibrain_bids.training.recipes.cohort import Cohort, KnownCohort, simulated_cohort
from unibrain_bids.training.recipes.published import LossWeights, PublishedRecipe, draw
from unibrain_bids.training.simulation.material import Material
from unibrain_bids.training.trainer import Trainer, TrainerSettings

TINY = replace(UNIBRAIN_8MM, stages=2)
CSF, RIGHT_THALAMUS = 3, 69 + 8


@pytest.fixture(scope="module")
def cohort(phantom: Material) -> KnownCohort:
    return simulated_cohort(phantom, TINY, 4, first_seed=1)


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    with np.load(resource("population/atlas.npz")) as arrays:
        return Atlas.from_arrays(arrays)


def make(atlas: Atlas, cohort: KnownCohort) -> PublishedRecipe:
    torch.manual_seed(0)
    return PublishedRecipe(cohort.given, cohort, SoftTemplate.from_atlas(atlas, TINY.shape, TINY.spacing), TINY)


def test_nothing_but_heads_masks_and_classes_is_given() -> None:
    assert [field.name for field in fields(Cohort)] == ["images", "masks", "classes"]


def test_the_second_group_has_wider_ventricles(cohort: KnownCohort) -> None:
    assert cohort.given.classes.tolist() == [0, 1, 0, 1]
    volumes = (cohort.tissues == CSF).sum((1, 2, 3)) / cohort.given.masks.sum((1, 2, 3, 4))
    assert volumes[1::2].min() > volumes[0::2].max()


def test_truth_lies_where_the_template_has_it(atlas: Atlas, cohort: KnownCohort) -> None:
    """The exact affine brings the template's labels onto the head's."""
    model = make(atlas, cohort).model
    assert isinstance(model, PublishedUniBrain)
    warped = model.propagate(cohort.template_from_grid[:1])[0].argmax(0)
    agreement = ((warped > 0) == (cohort.tissues[0] > 0)).float().mean()
    assert agreement > 0.9
    thalamus = (cohort.regions[0] == RIGHT_THALAMUS).nonzero().float().mean(0)
    found = model.parcellate(cohort.template_from_grid[:1])[0, RIGHT_THALAMUS - 1]
    voxels = torch.stack(torch.meshgrid(*map(torch.arange, TINY.shape), indexing="ij"), dim=-1)
    centre = (found[..., None] * voxels).sum((0, 1, 2)) / found.sum()
    assert float((centre - thalamus).norm()) < 1.5


def test_augmentation_moves_image_and_mask_alike(atlas: Atlas, cohort: KnownCohort) -> None:
    model = make(atlas, cohort).model
    assert isinstance(model, PublishedUniBrain)
    first = cohort.given.masks[:1]
    image, mask, classes = draw(Cohort(first, first, torch.tensor([1])), model, 3, 3)
    assert ((image - mask).abs() > 0.5).float().mean() == 0
    changes = (mask.flatten(1).sum(1) / first.sum() - 1).abs()
    assert 0 < changes.max() < 0.12
    assert classes.tolist() == [1, 1, 1]


def test_it_learns_stops_and_goes_on(atlas: Atlas, cohort: KnownCohort, tmp_path: Path) -> None:
    settings = TrainerSettings(minutes=10, learning_rate=3e-3, warmup=3, anneal=8, evaluate_every=100)
    trainer = Trainer(make(atlas, cohort), tmp_path, settings, torch.device("cpu"))
    losses = [trainer.train_step() for _ in range(8)]
    assert set(losses[0]) == {field.name for field in fields(LossWeights)}
    for name in ("mask", "tissues"):
        assert np.mean([loss[name] for loss in losses[-3:]]) < 0.9 * losses[0][name], name
    trainer.save()
    resumed = Trainer(make(atlas, cohort), tmp_path, settings, torch.device("cpu"))
    resumed.restore()
    assert resumed.step == 8
    assert all(torch.equal(a, b) for a, b in zip(resumed.model.parameters(), trainer.model.parameters(), strict=True))
    assert trainer.recipe.evaluate(trainer.model)["mask_dice"] > 0.3


def test_a_frozen_module_stays_as_it_is(atlas: Atlas, cohort: KnownCohort, tmp_path: Path) -> None:
    template = SoftTemplate.from_atlas(atlas, TINY.shape, TINY.spacing)
    recipe = PublishedRecipe(cohort.given, cohort, template, TINY, frozen=("registration",))
    before = {name: parameter.clone() for name, parameter in recipe.model.named_parameters()}
    trainer = Trainer(recipe, tmp_path, TrainerSettings(minutes=1, warmup=1), torch.device("cpu"))
    trainer.train_step()
    moved = {name.split(".")[0] for name, p in recipe.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"extraction", "segmentation", "network", "classifier"}


def test_area_under_curve_counts_pairs() -> None:
    classes, probability = np.array([0, 0, 1, 1.0]), np.array([0.1, 0.6, 0.6, 0.9])
    assert area_under_curve(classes, probability) == pytest.approx((1 + 0.5 + 1 + 1) / 4)
    assert np.isnan(area_under_curve(classes[:2], probability[:2]))


def test_figures_are_those_of_each_person(atlas: Atlas, cohort: KnownCohort) -> None:
    model = make(atlas, cohort).model
    assert isinstance(model, PublishedUniBrain)
    found = assess(model, cohort)
    assert found.classes.tolist() == [0, 1, 0, 1]
    assert found.propagated_dice.min() > 0 and found.correlation.min() > 0
    assert set(found.means()) >= {"mask_dice", "tissue_dice", "parcel_dice", "accuracy", "area_under_curve"}
