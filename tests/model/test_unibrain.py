"""The unified model as a whole: what the mirror image says, and how several answers become one."""

from __future__ import annotations

import pytest
import torch

from unibrain_bids.model import frame
from unibrain_bids.model.atlas import Atlas
from unibrain_bids.model.presets import UNIFIED
from unibrain_bids.model.unibrain import UniBrain, averaged

LAMBDA = torch.full((1,), 0.1)


@pytest.fixture(scope="module")
def model(atlas: Atlas) -> UniBrain:
    """A model that was never trained, every parameter moved so that all of them count."""
    torch.manual_seed(0)
    model = UniBrain(UNIFIED, atlas).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model


@torch.inference_mode()
def test_the_mirror_image_is_seen_as_the_head_mirrored(model: UniBrain) -> None:
    """Averaged over both, a head and its mirror image get the same answer, left and right exchanged."""
    image = torch.rand(1, 1, *frame.SHAPE)
    answer, of_mirror = (model.mirrored_mean(x, LAMBDA) for x in (image, image.flip(2)))
    torch.testing.assert_close(of_mirror.mask_logits.flip(2), answer.mask_logits)
    swapped = of_mirror.structure_logits.flip(2)[:, frame.flip_permutation()]
    torch.testing.assert_close(swapped, answer.structure_logits)
    alone = model.dense(image, LAMBDA)
    assert not torch.allclose(alone.structure_logits, answer.structure_logits, atol=1e-2)
    torch.testing.assert_close(answer.features.full, alone.features.full)


@torch.inference_mode()
def test_answers_are_averaged_where_they_are_of_one_head(model: UniBrain) -> None:
    first, second = (model.dense(torch.rand(1, 1, *frame.SHAPE), LAMBDA) for _ in range(2))
    both = averaged(first, second)
    torch.testing.assert_close(both.mask_logits, (first.mask_logits + second.mask_logits) / 2)
    torch.testing.assert_close(both.structure_logits, (first.structure_logits + second.structure_logits) / 2)
    assert both.multiplier is first.multiplier and both.places is first.places
