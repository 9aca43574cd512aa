"""Weights come back as they went out, and a file that does not fit says so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from unibrain_bids.errors import ResourceError
from unibrain_bids.model.first_look import FirstLook
from unibrain_bids.model.weights import load_weights, save_weights

WIDTHS = (4, 8)


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Path, FirstLook]:
    torch.manual_seed(0)
    network, path = FirstLook(WIDTHS), tmp_path / "weights.safetensors"
    save_weights(path, {"first": network.state_dict(), "other": {"x": torch.zeros(2)}}, {"licence": "Apache-2.0"})
    return path, network


def test_round_trip_keeps_the_function_and_the_card(stored: tuple[Path, FirstLook]) -> None:
    path, network = stored
    torch.manual_seed(1)
    fresh = FirstLook(WIDTHS)
    assert load_weights(path, {"first": fresh}) == {"licence": "Apache-2.0"}
    for name, tensor in fresh.state_dict().items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, network.state_dict()[name].half().float(), rtol=0, atol=0)
    image = torch.rand(1, 1, 16, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(fresh(image), network(image), rtol=1e-2, atol=1.0)


@pytest.mark.parametrize("damage", ["missing", "truncated", "garbage", "empty"])
def test_damaged_file_is_named(stored: tuple[Path, FirstLook], damage: str) -> None:
    path, network = stored
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"truncated": content[:-100], "garbage": b"not weights" * 99, "empty": b""}[damage])
    with pytest.raises(ResourceError, match="Reinstall") as raised:
        load_weights(path, {"first": network})
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("module", ["first", "second"])
def test_weights_of_other_sizes_are_refused_in_one_line(stored: tuple[Path, FirstLook], module: str) -> None:
    widths = (8, 16) if module == "first" else WIDTHS
    with pytest.raises(ResourceError) as raised:
        load_weights(stored[0], {module: FirstLook(widths)})
    message = str(raised.value)
    assert str(stored[0]) in message and repr(module) in message and "\n" not in message
    assert raised.value.remedy
