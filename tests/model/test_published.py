"""UniBrain as published: its sizes, its geometry, and that every loss reaches what it should."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from unibrain_bids.model import frame
from unibrain_bids.model.atlas import Atlas
from unibrain_bids.model.parcellation import joined_regions
from unibrain_bids.model.presets import UNIBRAIN, UNIBRAIN_8MM, UNIBRAIN_SMALL, UNIBRAIN_TINY
from unibrain_bids.model.published import PublishedUniBrain, RegionMLP, UNet
from unibrain_bids.model.soft_template import SoftTemplate, tissue_of_channel, tissue_probabilities
from unibrain_bids.training.recipes.published import loss_terms

MODULES = ("extraction", "registration", "segmentation", "network", "classifier")


def make(atlas: Atlas, **changes: object) -> PublishedUniBrain:
    """A tiny model; zero-initialised layers are moved off zero, so that gradients pass."""
    preset = replace(UNIBRAIN_8MM, **changes)
    torch.manual_seed(0)
    model = PublishedUniBrain(preset, SoftTemplate.from_atlas(atlas, preset.shape, preset.spacing))
    with torch.no_grad():
        for parameter in model.registration.mlp[-1].parameters():
            parameter += 0.002 * torch.randn_like(parameter)
    return model


def head(model: PublishedUniBrain) -> Tensor:
    noise = torch.rand(1, 1, *model.preset.shape, generator=torch.Generator().manual_seed(1))
    return (0.8 * model.image + 0.2 * noise).clamp(0, 1)


def reached(model: PublishedUniBrain, loss: Tensor) -> dict[str, float]:
    """Norm of the gradient of a loss in every module."""
    model.zero_grad()
    loss.backward(retain_graph=True)
    return {
        name: sum(float(p.grad.norm()) for p in model.get_submodule(name).parameters() if p.grad is not None)
        for name in MODULES
    }


def test_parameter_counts_as_docs_training_says() -> None:
    nowhere = SoftTemplate(*(torch.zeros(1, channels, 1, 1, 1) for channels in (1, 4, 84)))
    counts = {}
    for preset in (UNIBRAIN, UNIBRAIN_SMALL, UNIBRAIN_8MM, UNIBRAIN_TINY):
        with torch.device("meta"):
            model = PublishedUniBrain(preset, nowhere)
        counts[preset.name] = [sum(p.numel() for p in model.get_submodule(name).parameters()) for name in MODULES]
    assert counts["unibrain"] == [526_529, 6_487_004, 33_630_084, 518_656, 49_666]
    assert counts["unibrain-small"] == [33_137, 218_048, 131_964, 105_088, 8_450]
    assert counts["unibrain-8mm"] == [33_137, 189_376, 131_964, 105_088, 8_450]
    assert counts["unibrain-tiny"] == [33_137, 189_376, 131_964, 9_506, 8_450]


def test_ten_convolutions_of_the_published_widths() -> None:
    network = UNet(1, UNIBRAIN.extraction, 1)
    wide = [module.out_channels for module in network.modules() if isinstance(module, torch.nn.Conv3d)]
    assert tuple(wide) == (*UNIBRAIN.extraction, 1)
    assert network(torch.zeros(2, 1, 8, 12, 8)).shape == (2, 1, 8, 12, 8)


def test_soft_template_on_another_grid_keeps_volumes(atlas: Atlas) -> None:
    coarse = SoftTemplate.from_atlas(atlas, (40, 48, 40), 4.0, likeliest=False)
    volumes = tissue_probabilities(atlas.structures), joined_regions(atlas.structures, atlas.regions)
    for fine, found in zip(volumes, (coarse.tissues, coarse.regions), strict=True):
        torch.testing.assert_close(found.sum((0, 2, 3, 4)) * 64, fine.sum((0, 2, 3, 4)) * 8, rtol=0.05, atol=100.0)
    assert torch.allclose(coarse.tissues.sum(1), torch.ones(1), atol=1e-5)
    assert tissue_of_channel()[[1 + frame.STRUCTURES.index(n) for n in (2, 3, 4)]].tolist() == [2, 1, 3]


def test_a_template_has_one_label_at_a_place(atlas: Atlas) -> None:
    template = SoftTemplate.from_atlas(atlas, (40, 48, 40), 4.0)
    assert torch.allclose(template.tissues.sum(1), torch.ones(1), atol=1e-5)
    assert (template.tissues[0, 1:].amax(0) > 0.9).float().mean() > 0.1
    grey = template.tissues[0, 1]
    torch.testing.assert_close(template.regions[0].sum(0), grey, atol=1e-4, rtol=0)


def test_stages_compose_and_one_sampling_gives_the_aligned_brain(atlas: Atlas) -> None:
    model = make(atlas, stages=3).eval()
    with torch.no_grad():
        outputs = model(head(model))
        again = model.align(outputs.extracted, outputs.stages[-1])
    assert len(outputs.stages) == 3
    torch.testing.assert_close(again, outputs.aligned)
    identity = outputs.stages[-1] @ outputs.template_from_grid
    torch.testing.assert_close(identity, torch.eye(4)[None], atol=1e-4, rtol=0)
    assert not torch.allclose(outputs.stages[0], outputs.stages[-1], atol=1e-3)


def test_labels_follow_the_affine(atlas: Atlas) -> None:
    """A shift of the template by two voxels shifts tissues and regions by two voxels."""
    model = make(atlas)
    shifted = torch.eye(4)[None].clone()
    shifted[:, 0, 3] = 2 * model.preset.spacing
    for labels in (model.propagate, model.parcellate):
        still, moved = labels(torch.eye(4)[None]), labels(shifted)
        torch.testing.assert_close(moved[:, :, :-2], still[:, :, 2:], atol=1e-4, rtol=0)


@pytest.mark.parametrize("joint", [True, False])
def test_classification_reaches_every_module_unless_it_is_stopped(atlas: Atlas, joint: bool) -> None:
    model = make(atlas)
    model.class_reaches = joint
    mask = (model.image > 0.2).float()
    terms = loss_terms(model(head(model)), mask, torch.tensor([1]), model.image)
    norms = reached(model, terms["classification"])
    assert norms["network"] > 0 and norms["classifier"] > 0
    for name in ("extraction", "registration", "segmentation"):
        assert (norms[name] > 0) == joint, (name, norms)


def test_the_other_losses_reach_what_they_should(atlas: Atlas) -> None:
    model = make(atlas)
    mask, classes = (model.image > 0.2).float(), torch.tensor([1])
    terms = loss_terms(model(head(model)), mask, classes, model.image)
    found = {name: {m for m, norm in reached(model, term).items() if norm > 0} for name, term in terms.items()}
    assert found["mask"] == {"extraction"}
    assert found["similarity"] == {"extraction", "registration"}
    assert found["tissues"] == {"segmentation"}


def test_regions_are_never_renumbered(atlas: Atlas) -> None:
    """A head on which most regions vanish has as many regions as any other."""
    model = make(atlas)
    far = torch.eye(4)[None].clone()
    far[:, 2, 3] = 100.0
    assert model.parcellate(far).shape[1] == model.parcellate(torch.eye(4)[None]).shape[1] == 84


def test_the_registration_sees_the_head_before_it_has_learnt(atlas: Atlas) -> None:
    """Moving the head changes what the last layer is given by much of its norm, not by a thousandth."""
    model = make(atlas)
    moved = torch.eye(4)[None].clone()
    moved[:, 0, 3] = 2 * model.preset.spacing
    stage = model.registration
    with torch.no_grad():
        still, other = (
            stage.mlp[:-1](stage.convolutions(torch.cat([brain, model.image], dim=1)).flatten(1))
            for brain in (model.image, model.align(model.image, moved))
        )
    assert float((still - other).norm() / still.norm()) > 0.1


@pytest.mark.parametrize("own", [True, False])
def test_edges_are_correlations_of_embeddings(own: bool) -> None:
    """What all regions' embeddings share changes no edge; so some pairs are negative before those are removed."""
    torch.manual_seed(0)
    network = RegionMLP(5, 8, regions=30 if own else 0)
    description = torch.rand(2, 30, 5)
    with torch.no_grad():
        embedding = network(description)
        network.mlp[-1].bias += 7.0
        torch.testing.assert_close(network(description), embedding, atol=1e-4, rtol=0)
    torch.testing.assert_close(embedding.norm(dim=-1), torch.ones(2, 30))
    products = embedding @ embedding.transpose(1, 2)
    assert 0.2 < (products < 0).float().mean() < 0.8


def test_regions_have_first_weights_of_their_own() -> None:
    """Only one region's embedding, but for the centre of all, follows from its weights."""
    torch.manual_seed(0)
    network = RegionMLP(5, 8, regions=30)
    before = network.mlp(torch.ones(1, 30, 5))
    with torch.no_grad():
        network.mlp[0].weight[3] += 1.0
    changed = (network.mlp(torch.ones(1, 30, 5)) - before).abs().amax((0, 2)) > 0
    assert changed.nonzero().flatten().tolist() == [3]
