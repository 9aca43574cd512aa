"""UniBrain's experiments: what is measured, what is compared, and that no table says more than was run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from unibrain_bids.evaluation.evaluate import CLOSED_FORM, OURS
from unibrain_bids.evaluation.experiments import unibrain_real, unibrain_tables
from unibrain_bids.evaluation.experiments.gradients import gradient_norms, weight_distances
from unibrain_bids.evaluation.experiments.results import read_rows, write_rows
from unibrain_bids.evaluation.experiments.unibrain import RUNS, Material, start_from
from unibrain_bids.evaluation.experiments.unibrain_baselines import (
    extraction_and_registration,
    graph_probabilities,
    logistic_probabilities,
    nearest_neighbours,
    optimised_affine,
    similarities,
    transformer_probabilities,
)
from unibrain_bids.evaluation.experiments.unibrain_networks import compared
from unibrain_bids.evaluation.published import area_under_curve
from unibrain_bids.inference import resource
from unibrain_bids.model.atlas import Atlas
from unibrain_bids.model.presets import UNIBRAIN_8MM
from unibrain_bids.model.published import PublishedUniBrain
from unibrain_bids.model.soft_template import SoftTemplate
from unibrain_bids.training import objectives
from unibrain_bids.training.recipes.cohort import Cohort, KnownCohort


def test_gradient_norms_tell_modules_apart() -> None:
    model = nn.ModuleDict({name: nn.Linear(1, 1, bias=False) for name in ("a", "b")})
    x = torch.ones(1, 1)
    terms = {"first": 3 * model["a"](x).sum(), "both": (4 * model["a"](x) + 5 * model["b"](x)).sum()}
    assert gradient_norms(terms, model, ("a", "b")) == {"first": [3.0, 0.0], "both": [4.0, 5.0]}


def test_distances_of_weights_are_relative_to_the_modules_norm() -> None:
    weights = {"a.weight": torch.tensor([3.0, 0.0]), "a.bias": torch.tensor([4.0]), "ab.weight": torch.ones(1)}
    other = {**weights, "a.bias": torch.tensor([5.0])}
    assert weight_distances(weights, {"other": other}, ("a", "ab")) == [
        {"module": "a", "other": "0.2"},
        {"module": "ab", "other": "0"},
    ]


def test_frozen_modules_keep_what_was_drawn() -> None:
    model = nn.ModuleDict({name: nn.Linear(1, 1) for name in ("a", "b")})
    drawn = model["b"].weight.clone()
    start_from(model, {name: torch.full_like(t, 7.0) for name, t in model.state_dict().items()}, ("b",))
    assert model["a"].weight.item() == 7 and torch.equal(model["b"].weight, drawn)


def test_descent_finds_a_moved_template() -> None:
    with np.load(resource("population/atlas.npz")) as arrays:
        template = SoftTemplate.from_atlas(Atlas.from_arrays(arrays), UNIBRAIN_8MM.shape, UNIBRAIN_8MM.spacing)
    model = PublishedUniBrain(UNIBRAIN_8MM, template)
    moved = torch.eye(4)[None].clone()
    moved[:, 1, 3], moved[:, 0, 0] = 9.0, 1.06
    brain = model.align(template.image, moved)
    found = optimised_affine(model, brain)
    before, after = (
        float(objectives.correlation(model.align(brain, torch.linalg.inv(matrix)), template.image))
        for matrix in (torch.eye(4)[None], found)
    )
    assert after > 0.98 > before
    torch.testing.assert_close(found, moved, atol=1.5, rtol=0.03)


def test_classifiers_find_a_measure_that_differs() -> None:
    generator = torch.Generator().manual_seed(0)
    description = torch.randn(1, 20, 5, generator=generator) + 0.3 * torch.randn(60, 20, 5, generator=generator)
    classes = torch.arange(60) % 2
    description[classes == 1, :10, 3] += 2.0  # in half the regions: seen by their mean, and by what looks like what
    for classify in (graph_probabilities, transformer_probabilities, logistic_probabilities):
        probability = classify(description[:40], classes[:40], description[40:])
        assert area_under_curve(classes[40:].double().numpy(), probability) > 0.9, classify.__name__


def test_without_a_learned_segmentation_tissues_are_propagated() -> None:
    with np.load(resource("population/atlas.npz")) as arrays:
        template = SoftTemplate.from_atlas(Atlas.from_arrays(arrays), UNIBRAIN_8MM.shape, UNIBRAIN_8MM.spacing)
    image = template.image / template.image.max()
    people = torch.tensor([0.9, 1.0, 0.8, 0.95]).reshape(4, 1, 1, 1, 1) * image
    given = Cohort(people, (people > 0.1).float(), torch.arange(4) % 2)
    tissues, regions = (
        torch.cat([1 - soft.sum(1, keepdim=True), soft], 1).argmax(1).repeat(4, 1, 1, 1)
        for soft in (template.tissues[:, 1:], template.regions)
    )
    known = KnownCohort(given, tissues, regions, torch.eye(4).repeat(4, 1, 1))
    # Not trained: its affine is the identity, which is right here, and its segmentation knows nothing.
    model = PublishedUniBrain(UNIBRAIN_8MM, template)
    figures = extraction_and_registration(model, Material(known, known, template, template))
    assert min(figures["tissue_dice"]) > 0.95 and len(figures["probability"]) == 4


def test_similarities_see_no_difference_that_all_regions_share() -> None:
    description = torch.randn(1, 20, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(similarities(description + 3.0), similarities(description), atol=1e-5, rtol=0)
    assert not torch.allclose(similarities(description * torch.arange(5)), similarities(description), atol=0.1)


def test_neighbours_are_joined_both_ways() -> None:
    edges = nearest_neighbours(torch.randn(2, 30, 6, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(edges, edges.transpose(1, 2)) and set(edges.unique().tolist()) == {0.0, 1.0}
    assert (edges.sum(2) >= 11).all() and (edges.diagonal(dim1=1, dim2=2) == 1).all()


@pytest.mark.parametrize(("shift", "significant"), [(0.0, False), (0.2, True)])
def test_networks_of_two_groups_are_compared_with_chance(shift: float, significant: bool) -> None:
    generator = np.random.default_rng(1)
    networks = generator.uniform(0.3, 0.5, size=(24, 10, 10))
    classes = np.arange(24) % 2
    networks[classes == 1] += shift
    assert (float(compared(networks, classes)["p"]) < 0.05) == significant


def test_weights_are_compared_on_the_heads_that_all_saw(tmp_path: Path) -> None:
    tissues = (f"tissue_dice_{name}" for name in ("GM", "WM", "CSF"))
    measures = ("mask_dice", "mask_hd95", "tissue_dice", *tissues)
    seen = {"a": {"muse-01": 0.5, "muse-02": 0.7, "mean": 0.6}, "b": {"muse-02": 0.9, "muse-03": 0.1, "mean": 0.5}}
    for folder, heads in seen.items():
        write_rows(
            tmp_path / folder / "muse_heads.tsv", [{"head": h, **dict.fromkeys(measures, v)} for h, v in heads.items()]
        )
        write_rows(
            tmp_path / folder / "muse_registration.tsv",
            [
                {"method": method, "head": head, "warped_dice": dice, "ncc": 0.3, "mutual_information": 0.2}
                for head in heads
                for method, dice in ((OURS, 0.8), (CLOSED_FORM, 0.4))
            ],
        )
    rows = unibrain_real.compared({name: tmp_path / name for name in ("a", "b")})
    assert [(row["heads"], row["mask Dice"], row["warped Dice"]) for row in rows] == [
        ("1", "0.7", "0.4"),
        ("1", "0.9", "0.4"),
    ]
    (tmp_path / "b" / "muse_heads.tsv").write_text("head\tmask_dice\nmuse-09\t0.5\n")
    with pytest.raises(ValueError, match="no head"):
        unibrain_real.compared({name: tmp_path / name for name in ("a", "b")})


def test_tables_name_what_was_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    names = ("mask_dice", "mutual_information", "correlation", "tissue_dice", "propagated_dice", "parcel_dice")
    people = {name: generator.uniform(0.4, 0.5, 12).tolist() for name in names}
    people["tissue_dice"] = [value + 0.2 for value in people["propagated_dice"]]
    people["grey_white_dice"], people["propagated_grey_white_dice"] = [0.3] * 12, [0.4] * 12
    people |= {"classes": [0.0, 1.0] * 6, "probability": [0.2, 0.9] * 6}
    (tmp_path / "joint.json").write_text(json.dumps({"steps": 1, "people": people}))
    monkeypatch.setattr(sys, "argv", ["tables", "--runs", str(tmp_path), "--out", str(tmp_path / "docs")])
    unibrain_tables.main()
    page = (tmp_path / "docs" / "unibrain.md").read_text()
    (row,) = read_rows(tmp_path / "docs" / "unibrain-main.tsv")
    assert row["ACC"] == "1.000" and row["AUC"] == "1.000 (1.000 to 1.000)"
    assert "its own affine: 0.200 (0.200 to 0.200); grey and white matter alone: -0.100 (-0.100 to -0.100)" in page
    others = [run.label for name, run in RUNS.items() if run.table in ("main", "baselines") and name != "joint"]
    assert f"Not run: {'; '.join(others)}." in page
    assert not (tmp_path / "docs" / "unibrain-ablations.tsv").exists() and "Not run.\n" in page
