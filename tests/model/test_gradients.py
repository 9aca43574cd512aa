"""End to end means end to end: the diagnosis reaches the registration and the backbone through soft regions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from unibrain_bids.model.atlas import Atlas
from unibrain_bids.model.presets import UNIFIED
from unibrain_bids.model.unibrain import UniBrain

# All parts of the shipped model, with few channels.
SMALL = replace(UNIFIED, widths=(4, 4, 8, 8, 16), transformer_blocks=1, hypernetwork=(8, 8), stage_widths=(4, 4))


@pytest.fixture
def unibrain(atlas: Atlas) -> UniBrain:
    """With a classifier; zero-initialised layers are moved off zero, so that gradients pass."""
    torch.manual_seed(0)
    model = UniBrain(SMALL, atlas, classes=2).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    return model


def gradients(model: UniBrain, loss: Tensor) -> dict[str, Tensor]:
    """Gradient of every parameter; zeros where the loss does not reach."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for n, p, g in zip(names, parameters, found, strict=True)}


@pytest.mark.slow
def test_classification_loss_reaches_registration_and_backbone(unibrain: UniBrain) -> None:
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(1, 1, *unibrain.template.shape[2:], generator=generator) * (unibrain.template + 0.1)
    outputs = unibrain(image, torch.tensor([0.1]))
    assert outputs.class_logits is not None
    loss = functional.cross_entropy(outputs.class_logits, torch.tensor([1]))
    through = gradients(unibrain, loss)

    needed = ("registration.first.", "registration.recursive.0.", "registration.recursive.1.", "backbone.encoder.",
              "backbone.transformer.", "backbone.decoder.", "backbone.hypernetwork.", "multiplier.", "extraction.",
              "segmentation.", "parcellation.", "network.", "classifier.")  # fmt: skip
    for part in needed:
        reached = {name: g for name, g in through.items() if name.startswith(part)}
        assert reached, f"there is no {part}"
        for name, gradient in reached.items():
            assert torch.isfinite(gradient).all(), name
            # Keys' biases cancel in the softmax of an attention; the intracranial mask feeds no diagnosis.
            if not name.endswith(("in_proj_bias", "extraction.bias", "extraction.weight")):
                assert gradient.abs().max() > 0, name
    assert through["extraction.weight"][0].abs().max() > 0, "the brain mask is what the registration sees"

    # Cut the regions off: no other way leads from the diagnosis to the registration.
    outputs.regions.register_hook(torch.zeros_like)
    cut = gradients(unibrain, loss)
    assert not any(g.any() for name, g in cut.items() if name.startswith(("registration.", "segmentation.")))
    first = "backbone.encoder.0.convs.0.weight"
    change = (through[first] - cut[first]).norm() / through[first].norm()
    assert change > 1e-3, "the regions' part of the backbone's gradient"
