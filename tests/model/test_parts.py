"""Backbone, lambda, multiplier field, segmentation, parcels, region network and classifier, each against its rule."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import nn

from unibrain_bids.labels import LabelTable
from unibrain_bids.model import frame
from unibrain_bids.model.atlas import Atlas
from unibrain_bids.model.backbone import Backbone
from unibrain_bids.model.classifier import GraphClassifier, keep_edges, normalise_adjacency
from unibrain_bids.model.multiplier import Multiplier, MultiplierHead
from unibrain_bids.model.network import RegionNetwork, describe
from unibrain_bids.model.parcellation import Parcellation, region_numbers
from unibrain_bids.model.segmentation import SegmentationHead, group_prior, log_prior
from unibrain_bids.model.spatial import transform_points

LAMBDAS = torch.tensor([0.001, 0.1, 10.0])


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    torch.manual_seed(0)


def perturb(module: nn.Module, size: float = 0.3) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += size * torch.randn_like(parameter)


class TestHypernetwork:
    def gain(self, backbone: Backbone, head: MultiplierHead) -> torch.Tensor:
        image = torch.rand(1, 2, 16, 16, 16, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            features = backbone(image.expand(len(LAMBDAS), -1, -1, -1, -1), LAMBDAS)
            return head(features.half).log_gain()

    def test_every_lambda_is_alike_at_the_start_and_not_after_training(self) -> None:
        backbone = Backbone(2, (4, 8, 8), transformer_blocks=1, hypernetwork=(8, 16))
        head = MultiplierHead(8)
        start = self.gain(backbone, head)
        assert start.std() > 1e-3
        torch.testing.assert_close(start, start[:1].expand_as(start))
        assert backbone.hypernetwork is not None
        perturb(backbone.hypernetwork)
        moved = self.gain(backbone, head)
        assert (moved[0] - moved[1]).abs().max() > 1e-3
        assert (moved[1] - moved[2]).abs().max() > 1e-3

    def test_levels_of_the_backbone(self) -> None:
        features = Backbone(1, (4, 8, 16))(torch.rand(2, 1, 8, 12, 16))
        assert features.full.shape == (2, 4, 8, 12, 16)
        assert features.half.shape == (2, 8, 4, 6, 8)
        assert features.bottleneck.shape == (2, 16, 2, 3, 4)


class TestMultiplier:
    def up_sampled(self, half: np.ndarray) -> np.ndarray:
        """Trilinear by factor two: voxel i of the full grid lies at (i + 1/2) / 2 - 1/2 of the half grid."""
        axes = [(np.arange(2 * n) + 0.5) / 2 - 0.5 for n in half.shape]
        return map_coordinates(half, np.stack(np.meshgrid(*axes, indexing="ij")), order=1, mode="nearest")

    def test_half_grid_is_up_sampled_trilinearly(self) -> None:
        gain, strip = torch.randn(2, 1, 1, 5, 4, 6, dtype=torch.float64)
        field = Multiplier(log_gain_half=gain, strip_half=strip)
        np.testing.assert_allclose(field.log_gain()[0, 0], self.up_sampled(gain[0, 0].numpy()), atol=1e-12)
        half = torch.exp(gain) / (1 + torch.exp(-strip))
        np.testing.assert_allclose(field.chi()[0, 0], self.up_sampled(half[0, 0].numpy()), atol=1e-12)

    def test_gain_is_bounded_and_chi_is_the_gain_where_nothing_is_stripped(self) -> None:
        head = MultiplierHead(3)
        perturb(head, 50.0)
        field = head(torch.randn(1, 3, 4, 4, 4))
        assert field.log_gain_half.abs().max() <= 3
        open_field = Multiplier(field.log_gain_half, torch.full_like(field.strip_half, 50.0))
        closed = Multiplier(field.log_gain_half, torch.full_like(field.strip_half, -50.0))
        half = torch.exp(field.log_gain_half[0, 0].double())
        np.testing.assert_allclose(open_field.chi()[0, 0].detach(), self.up_sampled(half.detach().numpy()), rtol=1e-4)
        assert closed.chi().max() < 1e-6


class TestSegmentation:
    def test_training_begins_at_the_atlas(self, atlas: Atlas) -> None:
        prior = log_prior(atlas.structures)
        logits = SegmentationHead(4)(torch.randn(1, 4, *frame.SHAPE), prior)
        sure = atlas.structures.amax(1) > 0.6
        assert sure.float().mean() > 0.5
        assert torch.equal(logits.argmax(1)[sure], atlas.structures.argmax(1)[sure])

    def test_unseen_structures_stay_possible(self) -> None:
        one_hot = torch.zeros(1, 32, 1, 1, 1)
        one_hot[0, 3] = 1
        prior = log_prior(one_hot)
        assert torch.isfinite(prior).all()
        torch.testing.assert_close(prior.exp().sum(1), torch.ones(1, 1, 1, 1))

    def test_grouped_prior_is_the_atlas_without_background(self, atlas: Atlas) -> None:
        torch.testing.assert_close(group_prior(atlas.structures).sum(1), atlas.structures[:, 1:].sum(1))


class TestParcellation:
    SHAPE = (10, 12, 9)

    def parcels(self, atlas: Atlas, structures: torch.Tensor) -> torch.Tensor:
        parcellation = Parcellation(4)
        perturb(parcellation)
        points = frame.points(self.SHAPE, 15.0)
        matrix = torch.eye(4)[None].clone()
        matrix[0, :3, 3] = torch.tensor([3.0, -4.0, 5.0])
        with torch.no_grad():
            return parcellation(torch.randn(1, 4, *self.SHAPE), structures, atlas.regions, matrix, points)

    def test_numbers_are_those_of_the_label_table(self) -> None:
        assert len(region_numbers()) == 84
        assert set(region_numbers()) == set(LabelTable.load("DK").indices)

    def test_no_region_leaves_its_hemisphere(self, atlas: Atlas) -> None:
        side = {row.index: row.hemisphere for row in LabelTable.load("DK")}
        cortex = {"left": 3, "right": 42}
        for hemisphere, number in cortex.items():
            structures = torch.zeros(1, 32, *self.SHAPE)
            structures[:, frame.STRUCTURES.index(number) + 1] = 1
            regions = self.parcels(atlas, structures)[0].flatten(1).sum(1)
            for region, total in zip(region_numbers(), regions.tolist(), strict=True):
                assert total == 0 or (region > 1000 and side[region] == hemisphere)
            assert regions.sum() == pytest.approx(np.prod(self.SHAPE), rel=1e-5)

    def test_probabilities_sum_to_the_grey_matter(self, atlas: Atlas) -> None:
        structures = torch.softmax(torch.randn(1, 32, *self.SHAPE), dim=1)
        regions = self.parcels(atlas, structures)
        own = [number for number in region_numbers() if number < 1000]
        channels = [frame.STRUCTURES.index(number) + 1 for number in (3, 42, *own)]
        assert (regions >= 0).all()
        torch.testing.assert_close(regions.sum(1), structures[:, channels].sum(1))
        for number in own:
            channel = frame.STRUCTURES.index(number) + 1
            torch.testing.assert_close(regions[:, region_numbers().index(number)], structures[:, channel])

    def test_atlas_is_read_at_frame_from_grid(self, atlas: Atlas) -> None:
        """A grid point takes the region that the atlas has at the frame point it is mapped to."""
        parcellation = Parcellation(4)
        matrix = torch.tensor([[0.9, 0.1, 0, 6], [-0.1, 1.1, 0, -8], [0, 0.05, 1, 10], [0, 0, 0, 1]])
        points = frame.points((30, 36, 30), 5.0)
        with torch.no_grad():
            logits = parcellation.region_logits(
                torch.zeros(1, 4, *points.shape[:3]), atlas.regions, matrix[None], points
            )
        inverse = np.linalg.inv(frame.affine())
        voxels = transform_points(matrix[None], points)[0].double().numpy() @ inverse[:3, :3].T + inverse[:3, 3]
        channel = 11
        expected = map_coordinates(
            atlas.regions[0, channel].numpy(), np.moveaxis(voxels, -1, 0), order=1, mode="grid-constant"
        )
        np.testing.assert_allclose(logits[0, channel].exp(), expected + 1e-3, atol=1e-4)


class TestRegionNetwork:
    def make(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        regions = torch.rand(2, 5, 4, 3, 6) ** 4
        regions[:, 2] = 0  # a region that was not found
        return regions, torch.randn(2, 3, 4, 3, 6), torch.rand(2, 1, 4, 3, 6)

    def test_description_against_brute_force(self) -> None:
        regions, features, normalised = self.make()
        described = describe(regions, features, normalised).numpy()
        values = np.concatenate([features, normalised], axis=1)
        for batch in range(2):
            for region in (0, 1, 3, 4):
                weight = regions[batch, region].numpy()
                for feature in range(4):
                    value = values[batch, feature]
                    mean = np.average(value, weights=weight)
                    spread = np.sqrt(np.average((value - mean) ** 2, weights=weight))
                    found = described[batch, region, [feature, 4 + feature]]
                    np.testing.assert_allclose(found, [mean, spread], atol=2e-3)
                np.testing.assert_allclose(described[batch, region, 8], np.log(1 + weight.sum()), rtol=1e-5)
        assert np.isfinite(described).all()
        np.testing.assert_allclose(described[:, 2, [0, 1, 2, 3, 8]], 0, atol=1e-6)

    def test_network_is_a_similarity(self) -> None:
        with torch.no_grad():
            embedding, network = RegionNetwork(3, 8)(*self.make())
        np.testing.assert_allclose(embedding.norm(dim=-1), 1, rtol=1e-5)
        torch.testing.assert_close(network, network.transpose(1, 2))
        assert network.min() >= 0 and network.max() <= 1 + 1e-5
        np.testing.assert_allclose(network.diagonal(dim1=1, dim2=2), 1, rtol=1e-5)
        assert network.std() > 1e-3
        expected = torch.clamp(torch.einsum("brf,bsf->brs", embedding, embedding), min=0)
        torch.testing.assert_close(network, expected)


class TestClassifier:
    def network(self) -> torch.Tensor:
        half = torch.rand(2, 84, 84)
        network = (half + half.transpose(1, 2)) / 2
        network.diagonal(dim1=1, dim2=2).fill_(1)
        return network

    def test_edges_kept_in_training(self) -> None:
        mask = keep_edges(self.network(), 0.05)
        torch.testing.assert_close(mask, mask.transpose(1, 2))
        assert set(mask.unique().tolist()) == {0.0, 1.0}
        assert (mask.diagonal(dim1=1, dim2=2) == 1).all()
        rows, columns = torch.triu_indices(84, 84, offset=1)
        # 2 x 3486 edges: four standard deviations of the kept part are about 1 %.
        assert float(mask[:, rows, columns].mean()) == pytest.approx(0.95, abs=0.011)
        assert not torch.equal(mask[0], mask[1])

    def test_normalised_adjacency(self) -> None:
        network = self.network()
        adjacency = normalise_adjacency(network)
        degree = network.sum(-1)
        expected = network / torch.sqrt(degree[:, :, None] * degree[:, None, :])
        torch.testing.assert_close(adjacency, expected)
        largest = torch.linalg.eigvalsh(adjacency)[:, -1]
        torch.testing.assert_close(largest, torch.ones(2), msg="an averaging operator")

    def test_perturbed_in_training_only(self) -> None:
        classifier = GraphClassifier(8, 16, 3)
        embedding, network = torch.randn(2, 84, 8), self.network()
        with torch.no_grad():
            first, second = classifier(embedding, network), classifier(embedding, network)
            assert first.shape == (2, 3)
            assert not torch.equal(first, second)
            classifier.eval()
            settled = classifier(embedding, network)
            assert torch.equal(settled, classifier(embedding, network))
            changed = classifier(embedding, torch.eye(84).expand(2, 84, 84))
        assert (settled - changed).abs().max() > 1e-4, "the edges matter"

    def test_order_of_regions_does_not_matter(self) -> None:
        classifier = GraphClassifier(8, 16, 3).eval()
        embedding, network = torch.randn(2, 84, 8), self.network()
        order = torch.randperm(84)
        with torch.no_grad():
            shuffled = classifier(embedding[:, order], network[:, order][:, :, order])
            torch.testing.assert_close(shuffled, classifier(embedding, network))
