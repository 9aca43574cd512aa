"""What inference does beside the networks: devices, resources, the order of a network, one connected mask."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from unibrain_bids.errors import DeviceError, ResourceError
from unibrain_bids.inference import named_network, resolve_device, resource
from unibrain_bids.inference.found import Found, strip
from unibrain_bids.labels import LabelTable
from unibrain_bids.model.confidence import mask_certainty, movement, structure_certainty, tilt
from unibrain_bids.model.intensity import scale_to_unit
from unibrain_bids.model.locate import fill_holes, largest_component
from unibrain_bids.model.parcellation import region_numbers


def test_networks_are_sorted_as_the_label_table() -> None:
    """An edge stays between its two regions."""
    numbers = np.array(region_numbers(), dtype=np.float32)
    network = named_network(1000 * numbers[:, None] + numbers[None, :])
    table = LabelTable.load("DK")
    assert network.index == table.indices and network.names == table.names
    expected = np.array(table.indices, dtype=np.float32)
    np.testing.assert_array_equal(network.matrix, 1000 * expected[:, None] + expected[None, :])


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta", "cuda:x"])
def test_devices_that_are_not_there_are_refused(name: str) -> None:
    with pytest.raises(DeviceError, match=name):
        resolve_device(name)


def test_processor_is_always_there() -> None:
    assert resolve_device("cpu").type == "cpu"
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_missing_resource_names_the_file() -> None:
    with pytest.raises(ResourceError, match=r"no-such-atlas\.npz.*[Rr]einstall"):
        resource("population/no-such-atlas.npz")


def test_largest_component_is_kept_and_filled() -> None:
    mask = np.zeros((12, 12, 12), dtype=bool)
    mask[1:8, 1:8, 1:8] = True
    expected = mask.copy()
    mask[3:5, 3:5, 3:5] = False  # a hole
    mask[10, 10, 9:12] = True  # a speck
    np.testing.assert_array_equal(largest_component(mask), expected)
    assert not largest_component(np.zeros((3, 3, 3), dtype=bool)).any()


def test_certainty_looks_at_the_undecided_shell() -> None:
    sure = torch.tensor([0.0, 1.0, 0.99, 0.01])
    assert mask_certainty(sure) == 1.0
    assert mask_certainty(torch.cat([sure, torch.full((3,), 0.5)])) == 0.0
    assert mask_certainty(torch.cat([sure, torch.tensor([0.9, 0.1])])) == pytest.approx(0.8)


def test_movement_and_tilt_tell_how_far_a_head_stands_off() -> None:
    quarter = torch.eye(4)
    quarter[:2, :2] = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    assert tilt(quarter.double().numpy()) == pytest.approx(90)
    assert tilt((1.2 * torch.eye(4)).double().numpy()) == pytest.approx(0, abs=1e-5)
    shift = torch.eye(4)
    shift[:3, 3] = torch.tensor([3.0, 0.0, 4.0])
    assert movement(shift) == pytest.approx(5) and movement(torch.eye(4)) == 0


def test_a_head_is_stripped_a_voxel_beyond_what_was_found() -> None:
    brain, image = torch.zeros(1, 1, 9, 9, 9), torch.rand(1, 1, 9, 9, 9) + 1
    brain[..., 3:6, 3:6, 3:6], brain[..., 0, 0, 0] = 0.9, 0.4
    near = torch.zeros_like(image)
    near[..., 2:7, 2:7, 2:7] = 1
    torch.testing.assert_close(strip(image, Found(brain, brain, brain)), scale_to_unit(near * image))


def test_structures_are_judged_within_the_brain() -> None:
    structures = torch.tensor([[0.9, 0.5], [0.1, 0.5]])[None, :, :, None, None]
    brain = torch.tensor([0.2, 0.9])[None, None, :, None, None]
    assert structure_certainty(structures, brain) == pytest.approx(0.5)
    assert structure_certainty(structures, 0 * brain) == 0


def test_card_and_template_belong_to_the_shipped_weights() -> None:
    digest = hashlib.sha256(resource("weights/unified.safetensors").read_bytes()).hexdigest()
    assert digest in resource("weights/unified.md").read_text(encoding="utf-8")
    template = json.loads(resource("templates/MNI152NLin2009aSym.json").read_text(encoding="utf-8"))
    assert template["weights_sha256"] == digest


@given(arrays(bool, (5, 6, 7)))
def test_fill_holes_is_scipys(mask: np.ndarray) -> None:
    assume(mask.any())
    np.testing.assert_array_equal(fill_holes(mask), ndimage.binary_fill_holes(mask))
