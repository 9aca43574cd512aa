"""The same digits with any number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from unibrain_bids.model.network import describe
from unibrain_bids.model.registration import centroids
from unibrain_bids.model.steady import Pointwise, voxel_sums

SHAPE = (40, 48, 40)


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def by_threads(function: Callable[[], Tensor]) -> list[Tensor]:
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        with torch.inference_mode():
            results.append(function())
    return results


def check_equal(function: Callable[[], Tensor]) -> None:
    first, *others = by_threads(function)
    assert all(torch.equal(first, other) for other in others)


def test_pointwise_is_the_convolution_of_one_voxel() -> None:
    layer, x = Pointwise(16, 5), torch.randn(2, 16, *SHAPE)
    plain = torch.nn.Conv3d(16, 5, 1)
    plain.load_state_dict(layer.state_dict())
    torch.testing.assert_close(layer(x), plain(x))


def test_pointwise_with_any_number_of_threads() -> None:
    layer, x = Pointwise(16, 33), torch.randn(1, 16, *SHAPE)
    check_equal(lambda: layer(x))


def test_sums_are_those_of_a_product_and_can_be_trained() -> None:
    weight, values = torch.rand(2, 7, 20_000, requires_grad=True), torch.rand(1, 20_000, 3)
    trained = voxel_sums(weight, values)
    trained.sum().backward()
    assert weight.grad is not None
    with torch.inference_mode():
        exact = voxel_sums(weight, values)
    assert exact.dtype == torch.float64
    torch.testing.assert_close(trained.double(), exact, rtol=1e-5, atol=0)


def test_regions_and_centres_with_any_number_of_threads() -> None:
    regions, features = torch.rand(1, 9, *SHAPE), 100 + torch.randn(1, 6, *SHAPE)
    points = torch.randn(*SHAPE, 3)
    check_equal(lambda: describe(regions, features, features[:, :1]))
    check_equal(lambda: centroids(regions, points)[0])
