"""NPP alone: its size, its field on the half grid, its way into the template's space."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from unibrain_bids.model import presets
from unibrain_bids.model.npp import NPP
from unibrain_bids.model.presets import NppPreset

TINY = replace(presets.NPP_SMALL, shape=(32, 32, 32), spacing=8.0, widths=(4, 8, 8, 8), hypernetwork=(8, 16))


@pytest.fixture(scope="module")
def tiny() -> NPP:
    torch.manual_seed(0)
    return NPP(TINY).eval()


@pytest.mark.parametrize(("preset", "count"), [(presets.NPP, 33_409_726), (presets.NPP_SMALL, 1_733_054)])
def test_parameter_counts_are_those_that_the_docs_state(preset: NppPreset, count: int) -> None:
    assert sum(parameter.numel() for parameter in NPP(preset).parameters()) == count


def test_the_field_is_predicted_on_the_half_grid(tiny: NPP) -> None:
    image = torch.rand(2, 1, *TINY.shape)
    with torch.no_grad():
        outputs = tiny(image, torch.tensor([0.1, 1.0]))
    assert outputs.multiplier.chi_half().shape == (2, 1, 16, 16, 16)
    chi = outputs.multiplier.chi()
    assert chi.shape == image.shape and (chi > 0).all()
    torch.testing.assert_close(outputs.normalised, chi * image)


def test_it_starts_at_the_identity_for_every_lambda(tiny: NPP) -> None:
    image = torch.rand(2, 1, *TINY.shape)
    image[1] = image[0]
    with torch.no_grad():
        outputs = tiny(image, torch.tensor([0.001, 10.0]))
    torch.testing.assert_close(outputs.grid_from_frame, torch.eye(4).expand(2, 4, 4))
    torch.testing.assert_close(outputs.normalised[0], outputs.normalised[1])


def test_lambda_modulates_the_decoder() -> None:
    torch.manual_seed(1)
    model = NPP(TINY).eval()
    assert model.backbone.hypernetwork is not None
    torch.nn.init.normal_(model.backbone.hypernetwork.mlp[-1].weight, std=0.1)
    image = torch.rand(1, 1, *TINY.shape)
    with torch.no_grad():
        smooth, rough = (model(image, torch.tensor([value])).normalised for value in (10.0, 0.001))
    assert (smooth - rough).abs().max() > 1e-3


def test_the_affine_pulls_in_mm(tiny: NPP) -> None:
    """A template point 16 mm to the right of a grid's point takes its value: two voxels of 8 mm."""
    volume, shift = torch.rand(1, 1, *TINY.shape), torch.eye(4)[None].clone()
    torch.testing.assert_close(tiny.to_template(volume, shift), volume)
    shift[:, 0, 3] = 16.0
    torch.testing.assert_close(tiny.to_template(volume, shift)[:, :, :-2], volume[:, :, 2:])


def test_the_reconstruction_reaches_every_part(tiny: NPP) -> None:
    """One loss in the template's space teaches field, affine and lambda: NPP is trained end to end."""
    torch.manual_seed(2)
    model = NPP(TINY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    outputs = model(torch.rand(1, 1, *TINY.shape), torch.tensor([0.1]))
    model.to_template(outputs.normalised, outputs.grid_from_frame).square().mean().backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not without
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert {name.split(".")[0] for name in moved} == {"backbone", "multiplier", "stage"}
