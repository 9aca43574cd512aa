"""UniBrain as published (arXiv 2502.18523): six networks in a row, each seeing what the one before it made.

Where this departs from the paper or from its code, on purpose:

- The template's labels are soft and warped trilinearly. The code samples them with nearest neighbours, which lets no
  gradient of the classification into registration and extraction.
- A region is described by means and spreads over its soft mask of the brain's intensity, the tissues and the place in
  the template. The code flattens the masked 96^3 volume of each region, 226 million weights in the first layer alone,
  which learn every voxel apart; moments keep what the region looks like and where it lies, on any grid.
- The channels of the regions are fixed, so that a vanished region shifts no other, and edges are dropped as the paper
  says (the code keeps that share instead).
- Embeddings of regions are centred over the regions before they get unit length (`RegionMLP`).
- The M stages of the registration are one network applied M times; each of its steps is bounded (`registration`).
- Convolutions of the U-Nets are followed by instance normalisation; the ten of them make three levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from unibrain_bids.model import frame
from unibrain_bids.model.blocks import ConvBlock
from unibrain_bids.model.classifier import GraphClassifier
from unibrain_bids.model.presets import UniBrainPreset
from unibrain_bids.model.registration import RecursiveStage, carry_through
from unibrain_bids.model.soft_template import TISSUES, SoftTemplate
from unibrain_bids.model.spatial import transform_points, warp

# The mask is sigmoid(10 * logit): nearly binary, and still differentiable.
SHARPNESS = 10.0
# Coordinates are features of a region as well; one unit is about the radius of a brain.
_RADIUS_MM = 80.0
_PERTURBATION = 0.01
_EPSILON = 1e-6
_SMALLEST_SPREAD = 1e-3


@dataclass(frozen=True)
class PublishedOutputs:
    """Everything that one forward pass gives, on the preset's grid; matrices are in mm.

    Attributes
    ----------
    mask_logits
        (batch, 1, X, Y, Z).
    extracted
        E, mask times image.
    stages
        `grid_from_template` (batch, 4, 4) after each stage; the image is sampled once, with the last.
    template_from_grid
        (batch, 4, 4), inverse of the last stage. U, the regions on the head, follow from it by `parcellate`.
    aligned
        W, the extracted brain on the template.
    tissue_logits
        R (batch, 4, X, Y, Z): none, GM, WM, CSF.
    propagated
        The template's tissues (batch, 4, X, Y, Z), warped to the head: what the segmentation learns from.
    description
        (batch, 84, 17), what the region MLP sees.
    embedding, network
        H (batch, 84, F), and C = H H^T without its negatives.
    class_logits
        (batch, classes), or None without a classifier.
    """

    mask_logits: Tensor
    extracted: Tensor
    stages: list[Tensor]
    template_from_grid: Tensor
    aligned: Tensor
    tissue_logits: Tensor
    propagated: Tensor
    description: Tensor
    embedding: Tensor
    network: Tensor
    class_logits: Tensor | None


class UNet(nn.Module):
    """U-Net of pairs of convolutions: down to the middle pair and up again.

    Parameters
    ----------
    inputs, outputs
        Channels in, and channels of the closing 1x1x1 convolution.
    widths
        Channels of the 3x3x3 convolutions, an odd number of pairs.
    """

    def __init__(self, inputs: int, widths: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        pairs = list(zip(widths[::2], widths[1::2], strict=True))
        depth = len(pairs) // 2
        before = [inputs, *(last for _, last in pairs)]
        skips = [0] * (depth + 1) + [pairs[depth - 1 - i][1] for i in range(depth)]
        blocks = [ConvBlock(b + s, last, middle=a) for (a, last), b, s in zip(pairs, before[:-1], skips, strict=True)]
        self.down, self.up = nn.ModuleList(blocks[: depth + 1]), nn.ModuleList(blocks[depth + 1 :])
        self.head = nn.Conv3d(widths[-1], outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, outputs, X, Y, Z) of volumes whose sizes can be halved at every level."""
        skips = []
        for level, block in enumerate(self.down):
            x = block(functional.max_pool3d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for block in self.up:
            x = functional.interpolate(x, scale_factor=2.0, mode="trilinear", align_corners=False)
            x = block(torch.cat([x, skips.pop()], dim=1))
        return self.head(x)


class RegionLinear(nn.Module):
    """A linear layer of its own for every region: (batch, R, inputs) to (batch, R, outputs)."""

    def __init__(self, regions: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.1 * torch.randn(regions, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(regions, outputs))

    def forward(self, description: Tensor) -> Tensor:
        """Apply each region's layer to its description."""
        return torch.einsum("bri,rio->bro", description, self.weight) + self.bias


class RegionMLP(nn.Module):
    """Three layers: descriptions (batch, R, inputs) to H (batch, R, width) of unit length.

    Each measure is standardised over the scan's regions first, and H is centred over them before it gets unit length:
    edges are correlations. Without that the embeddings stay alike, all edges near 1, and classes are learnt late.

    With a number of `regions`, each has weights of its own in the first layer, as in the paper: there it sees flattened
    masked volumes, and regions have no voxel in common. Else the three layers are the same for every region.
    """

    def __init__(self, inputs: int, width: int, regions: int = 0) -> None:
        super().__init__()
        first: list[nn.Module] = [RegionLinear(regions, inputs, width)] if regions else [nn.Linear(inputs, width)]
        self.normalise = nn.Identity() if regions else nn.LayerNorm(inputs)
        self.mlp = nn.Sequential(*first, nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, description: Tensor) -> Tensor:
        """Embed every region."""
        spread = description.std(dim=-2, keepdim=True) + _SMALLEST_SPREAD
        standardised = (description - description.mean(dim=-2, keepdim=True)) / spread
        embedding = self.mlp(self.normalise(standardised))
        return functional.normalize(embedding - embedding.mean(dim=-2, keepdim=True), dim=-1)


def region_moments(regions: Tensor, features: Tensor) -> Tensor:
    """Mean and standard deviation of features (batch, F, X, Y, Z) over soft regions (batch, R, X, Y, Z), log volume.

    Returns
    -------
    Tensor
        (batch, R, 2 F + 1).
    """
    weight, values = regions.flatten(2), features.flatten(2).transpose(1, 2)
    volume = weight.sum(2, keepdim=True)
    mean, square = (weight @ powers / (volume + _EPSILON) for powers in (values, values.square()))
    spread = (square - mean.square()).clamp(min=_EPSILON).sqrt()
    return torch.cat([mean, spread, torch.log1p(volume)], dim=2)


class PublishedUniBrain(nn.Module):
    """Extraction, registration, segmentation, parcellation, region network and classifier.

    Parameters
    ----------
    preset
        Sizes and grid.
    template
        On the preset's grid; kept as buffers, not stored with the weights.
    classes
        Number of classes; 0 for no classifier.

    Attributes
    ----------
    class_reaches
        Whether the classification's gradient goes on into regions, tissues and brain, and so into the registration.
    propagates
        Whether the template's regions are warped to the head (without: they are laid on it as they are).
    """

    image: Tensor
    tissues: Tensor
    regions: Tensor
    points: Tensor
    voxel_from_grid: Tensor

    def __init__(self, preset: UniBrainPreset, template: SoftTemplate, *, classes: int = 2) -> None:
        super().__init__()
        self.preset = preset
        self.extraction = UNet(1, preset.extraction, 1)
        self.registration = RecursiveStage(preset.registration, preset.shape, preset.registration_hidden)
        self.segmentation = UNet(1, preset.segmentation, TISSUES)
        # Tissues, coordinates, and the brain's intensity.
        own = template.regions.shape[1] if preset.own_regions else 0
        self.network = RegionMLP(2 * (TISSUES + 4) + 1, preset.region_features, own)
        self.classifier: GraphClassifier | None = None
        if classes:
            noise = {"feature_noise": _PERTURBATION, "dropped_edges": _PERTURBATION}
            self.classifier = GraphClassifier(preset.region_features, preset.graph_features, classes, **noise)
            for layer in (*self.network.modules(), *self.classifier.modules()):
                carry_through(layer)
        self.class_reaches = self.propagates = True
        buffers = {
            "image": template.image,
            "tissues": template.tissues[:, 1:],
            "regions": template.regions,
            "points": frame.points(preset.shape, preset.spacing),
            "voxel_from_grid": torch.linalg.inv(torch.from_numpy(frame.affine(preset.spacing, preset.shape)).float()),
        }
        for name, tensor in buffers.items():
            self.register_buffer(name, tensor, persistent=False)

    def register(self, extracted: Tensor) -> list[Tensor]:
        """`grid_from_template` (batch, 4, 4) after each stage, of extracted brains (batch, 1, X, Y, Z)."""
        stages: list[Tensor] = []
        aligned = extracted
        for _ in range(self.preset.stages):
            if stages:
                aligned = self.align(extracted, stages[-1])
            with self._half_precision():
                step = self.registration(aligned, self.image.expand_as(aligned))
            stages.append(stages[-1] @ step if stages else step)
        return stages

    def align(self, extracted: Tensor, grid_from_template: Tensor) -> Tensor:
        """The brain on the template's grid."""
        return warp(extracted, grid_from_template, self.points, self.voxel_from_grid)

    def propagate(self, template_from_grid: Tensor) -> Tensor:
        """The template's tissues (batch, 4, X, Y, Z) on the head."""
        labels = self.tissues.expand(len(template_from_grid), -1, -1, -1, -1)
        warped = warp(labels, template_from_grid, self.points, self.voxel_from_grid)
        return torch.cat([1 - warped.sum(1, keepdim=True), warped], dim=1)

    def parcellate(self, template_from_grid: Tensor, stride: int = 1) -> Tensor:
        """The template's regions (batch, 84, X, Y, Z) on the head, at every `stride`-th voxel."""
        labels = self.regions.expand(len(template_from_grid), -1, -1, -1, -1)
        if not self.propagates:
            return _thinned(labels, stride)
        points = self.points[::stride, ::stride, ::stride]
        return warp(labels, template_from_grid, points, self.voxel_from_grid)

    def describe(self, extracted: Tensor, tissues: Tensor, template_from_grid: Tensor) -> Tensor:
        """What is known of each region (batch, 84, 17): means and spreads over it, and its volume."""
        stride = self.preset.region_stride
        regions = self.parcellate(template_from_grid, stride)
        places = transform_points(template_from_grid, self.points).permute(0, 4, 1, 2, 3) / _RADIUS_MM
        seen = _thinned(torch.cat([tissues, places, extracted], dim=1), stride)
        if not self.class_reaches:
            regions, seen = regions.detach(), seen.detach()
        return region_moments(regions, seen)

    def forward(self, image: Tensor) -> PublishedOutputs:
        """Every output of heads (batch, 1, X, Y, Z), 0..1."""
        with self._half_precision():
            mask_logits, tissue_logits = self.extraction(image), self.segmentation(image).float()
        mask_logits = SHARPNESS * mask_logits.float()
        extracted = torch.sigmoid(mask_logits) * image
        stages = self.register(extracted)
        template_from_grid = torch.linalg.inv(stages[-1])
        description = self.describe(extracted, torch.softmax(tissue_logits, dim=1), template_from_grid)
        embedding = self.network(description)
        network = torch.relu(embedding @ embedding.transpose(1, 2))
        return PublishedOutputs(
            mask_logits=mask_logits,
            extracted=extracted,
            stages=stages,
            template_from_grid=template_from_grid,
            aligned=self.align(extracted, stages[-1]),
            tissue_logits=tissue_logits,
            propagated=self.propagate(template_from_grid),
            description=description,
            embedding=embedding,
            network=network,
            class_logits=self.classifier(embedding, network) if self.classifier is not None else None,
        )

    def _half_precision(self) -> torch.autocast:
        """bfloat16 for the convolutions; geometry stays in float32."""
        return torch.autocast(self.points.device.type, torch.bfloat16)


def _thinned(volume: Tensor, stride: int) -> Tensor:
    return volume[:, :, ::stride, ::stride, ::stride]
