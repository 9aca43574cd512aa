"""The unified model: one forward pass from a roughly aligned head to every output."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from unibrain_bids.model import frame
from unibrain_bids.model.atlas import Atlas
from unibrain_bids.model.backbone import Backbone, Features
from unibrain_bids.model.classifier import GraphClassifier
from unibrain_bids.model.morphometry import MorphometricNetwork
from unibrain_bids.model.multiplier import Multiplier, MultiplierHead
from unibrain_bids.model.parcellation import Parcellation
from unibrain_bids.model.places import PlaceHead, fit_places
from unibrain_bids.model.presets import Preset
from unibrain_bids.model.registration import Registration, centroids, closed_form_affine
from unibrain_bids.model.segmentation import SegmentationHead, group_prior, log_prior
from unibrain_bids.model.spatial import warp
from unibrain_bids.model.steady import Pointwise

# Structures of fewer voxels (of 8 mm3) don't enter the closed-form fit.
_SMALLEST_STRUCTURE = 20


@dataclass(frozen=True)
class Dense:
    """The per-voxel outputs, on the model grid (batch, channels, X, Y, Z)."""

    features: Features
    multiplier: Multiplier
    mask_logits: Tensor
    """Two channels: brain (sulci closed), intracranial space."""
    structure_logits: Tensor
    """Background, then `frame.STRUCTURES`."""
    places: Tensor
    """Guessed frame coordinates in mm of the bottleneck's tokens (batch, 3, X/16, Y/16, Z/16)."""


def averaged(dense: Dense, *others: Dense) -> Dense:
    """The first answer, with masks and structures (their logits) averaged over all of them."""
    answers = (dense, *others)
    return replace(
        dense,
        mask_logits=torch.stack([answer.mask_logits for answer in answers]).mean(0),
        structure_logits=torch.stack([answer.structure_logits for answer in answers]).mean(0),
    )


@dataclass(frozen=True)
class Outputs:
    """Everything that one forward pass gives; matrices are in mm.

    Attributes
    ----------
    dense
        Per-voxel outputs.
    normalised
        T(x) = chi * x, the stripped and normalised brain (NPP eq. 1).
    stages
        `grid_from_frame` (batch, 4, 4) after each affine stage.
    frame_from_grid
        (batch, 4, 4), inverse of the last stage.
    fitted
        (batch, 4, 4) `frame_from_grid` by the closed form on the segmented structures.
    regions
        (batch, 84, X, Y, Z) region probabilities.
    embedding, network
        H (batch, 84, F) and C (batch, 84, 84).
    class_logits
        (batch, classes), or None without a classifier.
    """

    dense: Dense
    normalised: Tensor
    stages: list[Tensor]
    frame_from_grid: Tensor
    fitted: Tensor
    regions: Tensor
    embedding: Tensor
    network: Tensor
    class_logits: Tensor | None


class UniBrain(nn.Module):
    """Backbone and heads.

    Parameters
    ----------
    preset
        Sizes.
    atlas
        Soft atlas of the population frame; kept as buffers, not stored with the weights.
    classes
        Classes of the diagnosis head; 0 for none (no head is shipped).
    """

    prior_groups: Tensor
    prior: Tensor
    region_atlas: Tensor
    template: Tensor
    target: Tensor
    points: Tensor

    def __init__(self, preset: Preset, atlas: Atlas, *, classes: int = 0) -> None:
        super().__init__()
        width_full, width_half = preset.widths[0], preset.widths[1]
        groups = len(frame.prior_groups())
        self.backbone = Backbone(
            1 + groups, preset.widths,
            transformer_blocks=preset.transformer_blocks, hypernetwork=preset.hypernetwork,
        )  # fmt: skip
        self.multiplier = MultiplierHead(width_half)
        self.extraction = Pointwise(width_full, 2)
        self.segmentation = SegmentationHead(width_full)
        self.places = PlaceHead(preset.widths[-1])
        self.registration = Registration(preset.widths[-1], preset.stages, preset.stage_widths)
        self.parcellation = Parcellation(width_full)
        self.network = MorphometricNetwork(preset.region_features)
        self.classifier = GraphClassifier(preset.region_features, preset.graph_features, classes) if classes else None
        buffers = {
            "prior_groups": group_prior(atlas.structures), "prior": log_prior(atlas.structures),
            "region_atlas": atlas.regions, "template": atlas.template, "target": atlas.centroids,
            "points": frame.points(),
        }  # fmt: skip
        for name, tensor in buffers.items():
            self.register_buffer(name, tensor, persistent=False)

    def dense(self, image: Tensor, smoothness: Tensor) -> Dense:
        """Backbone and per-voxel heads of heads (batch, 1, X, Y, Z) at lambda (batch,)."""
        groups = self.prior_groups.expand(len(image), -1, -1, -1, -1)
        features = self.backbone(torch.cat([image, groups.to(image)], dim=1), smoothness)
        return Dense(
            features=features,
            multiplier=self.multiplier(features.half),
            mask_logits=self.extraction(features.full),
            structure_logits=self.segmentation(features.full, self.prior),
            places=self.places(features.bottleneck),
        )

    def register(self, dense: Dense, image: Tensor) -> list[Tensor]:
        """`grid_from_frame` after each stage, from the bottleneck and the extracted brain."""
        extracted = torch.sigmoid(dense.mask_logits[:, :1].float()) * image
        return self.registration(dense.features.bottleneck, extracted, self.template)

    def align(self, image: Tensor, grid_from_frame: Tensor) -> Tensor:
        """Resample (batch, 1, X, Y, Z) into the frame: UniBrain's W."""
        return warp(image, grid_from_frame, self.points, self.parcellation.voxel_from_frame)

    def fit(self, probability: Tensor) -> Tensor:
        """Closed-form `frame_from_grid` from structure probabilities."""
        centre, volume = centroids(probability, self.points)
        return closed_form_affine(centre, volume, self.target, smallest=_SMALLEST_STRUCTURE)

    def fit_to_places(self, dense: Dense) -> Tensor:
        """`frame_from_grid` (batch, 4, 4) fitted to the places that the brain's tokens guess."""
        mask = functional.avg_pool3d(torch.sigmoid(dense.mask_logits[:, :1].float()), PlaceHead.FACTOR)[:, 0]
        fits = [fit_places(w, p, self.places.points) for w, p in zip(mask, dense.places, strict=True)]
        return torch.stack(fits).float()

    def mirrored(self, image: Tensor, smoothness: Tensor) -> Dense:
        """`dense` of the mirror image, with masks and structures mirrored back (features and fields are not)."""
        mirror = self.dense(image.flip(2), smoothness)
        return replace(
            mirror,
            mask_logits=mirror.mask_logits.flip(2),
            structure_logits=mirror.structure_logits.flip(2)[:, frame.flip_permutation()],
        )

    def mirrored_mean(self, image: Tensor, smoothness: Tensor) -> Dense:
        """`dense`, with masks and structures averaged over the head and its mirror image."""
        return averaged(self.dense(image, smoothness), self.mirrored(image, smoothness))

    def forward(self, image: Tensor, smoothness: Tensor, *, mirror: bool = False) -> Outputs:
        """Every output of heads (batch, 1, X, Y, Z), 0..1, on the model grid, at lambda (batch,).

        `mirror` looks at the mirrored head as well (twice the time, steadier labels).
        """
        return self.complete(self.mirrored_mean(image, smoothness) if mirror else self.dense(image, smoothness), image)

    def complete(self, dense: Dense, image: Tensor) -> Outputs:
        """What follows from the per-voxel outputs of heads (batch, 1, X, Y, Z)."""
        stages = self.register(dense, image)
        frame_from_grid = torch.linalg.inv(stages[-1])
        probability = torch.softmax(dense.structure_logits.float(), dim=1)
        features = dense.features.full.float()
        regions = self.parcellation(features, probability, self.region_atlas, frame_from_grid, self.points)
        normalised = dense.multiplier.chi() * image
        embedding, network = self.network(regions, normalised, self.points)
        return Outputs(
            dense=dense,
            normalised=normalised,
            stages=stages,
            frame_from_grid=frame_from_grid,
            fitted=self.fit(probability),
            regions=regions,
            embedding=embedding,
            network=network,
            class_logits=self.classifier(embedding, network) if self.classifier is not None else None,
        )
