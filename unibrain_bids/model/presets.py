"""Sizes of the model's variants, as plain data.

What several presets have means the same in each:

name
    As given to the command line.
shape, spacing
    The grid that the model works on, and its voxels in mm.
widths
    Channels of the backbone, finest level first.
transformer_blocks
    Blocks at the bottleneck (NPP: 3).
hypernetwork
    Hidden widths of the lambda network (NPP: 512, 2048).
stages
    Affine stages M (UniBrain: 5).
graph_features
    Width of the two graph convolutions (UniBrain: 128).
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Preset:
    """Sizes of this program's own model: one stage is at the bottleneck, the others are recursive.

    Attributes
    ----------
    first_look_widths
        Channels of the first look at 8 mm, finest level first (four levels).
    aligner_widths
        Channels of the aligner at 4 mm, finest level first (four levels).
    stage_widths
        Channels of a recursive stage's convolutions.
    region_features
        Width of the region embeddings.
    refiner_widths
        Channels of the refiner at 2 mm and at 1 mm.
    """

    name: str
    first_look_widths: tuple[int, ...]
    aligner_widths: tuple[int, ...]
    widths: tuple[int, ...]
    transformer_blocks: int
    hypernetwork: tuple[int, int]
    stages: int
    stage_widths: tuple[int, ...]
    region_features: int
    graph_features: int
    refiner_widths: tuple[int, int]


UNIFIED = Preset(
    name="unified",
    first_look_widths=(16, 32, 64, 128),
    aligner_widths=(16, 32, 64, 96),
    widths=(16, 32, 64, 96, 128),
    transformer_blocks=3,
    hypernetwork=(64, 256),
    stages=3,
    stage_widths=(16, 32, 64, 32),
    region_features=6,
    graph_features=128,
    refiner_widths=(48, 16),
)


@dataclass(frozen=True)
class NppPreset:
    """Sizes of NPP alone (`model.npp`), whose grid is that of the conformed head."""

    name: str
    shape: tuple[int, int, int]
    spacing: float
    widths: tuple[int, ...]
    transformer_blocks: int
    hypernetwork: tuple[int, int]


NPP = NppPreset(
    name="npp",
    shape=(256, 256, 256),
    spacing=1.0,
    widths=(16, 32, 64, 128, 256, 512),
    transformer_blocks=3,
    hypernetwork=(512, 2048),
)

# The same field of view and the same parts, at a size that a CPU can train.
NPP_SMALL = NppPreset(
    name="npp-small",
    shape=(64, 64, 64),
    spacing=4.0,
    widths=(16, 32, 48, 64, 96),
    transformer_blocks=3,
    hypernetwork=(64, 128),
)


@dataclass(frozen=True)
class UniBrainPreset:
    """Sizes of UniBrain as published (arXiv 2502.18523), whose networks share nothing.

    Attributes
    ----------
    extraction, segmentation
        Channels of the ten convolutions of a U-Net with three levels.
    registration
        Channels of the convolutions of a stage, the first with stride 1, the others with stride 2.
    registration_hidden
        Width of the layer before the twelve parameters.
    region_features
        Width of the three layers of the region MLP.
    region_stride
        Regions are described at every so many-th voxel along each axis.
    own_regions
        Whether each region has weights of its own in the region MLP's first layer (`published.RegionMLP`).
    """

    name: str
    shape: tuple[int, int, int]
    spacing: float
    extraction: tuple[int, ...]
    registration: tuple[int, ...]
    registration_hidden: int
    stages: int
    segmentation: tuple[int, ...]
    region_features: int
    graph_features: int
    region_stride: int = 1
    own_regions: bool = True


UNIBRAIN = UniBrainPreset(
    name="unibrain",
    shape=(96, 96, 96),
    spacing=2.7,
    extraction=(16, 32, 32, 64, 64, 64, 32, 32, 32, 16),
    registration=(16, 32, 64, 128, 256, 512),
    registration_hidden=128,
    stages=5,
    segmentation=(128, 256, 256, 512, 512, 512, 256, 256, 256, 128),
    region_features=256,
    graph_features=128,
)

# For a processor: the population frame's box at 4 mm, networks of a fourth to a sixteenth of the width.
UNIBRAIN_SMALL = UniBrainPreset(
    name="unibrain-small",
    shape=(40, 48, 40),
    spacing=4.0,
    extraction=(4, 8, 8, 16, 16, 16, 8, 8, 8, 4),
    registration=(4, 8, 16, 32, 64, 64),
    registration_hidden=64,
    stages=5,
    segmentation=(8, 16, 16, 32, 32, 32, 16, 16, 16, 8),
    region_features=64,
    graph_features=64,
    region_stride=2,
)

# The experiments' size: dozens of runs in an hour on one slow thread.
UNIBRAIN_8MM = replace(UNIBRAIN_SMALL, name="unibrain-8mm", shape=(20, 24, 20), spacing=8.0)

# That of the shipped weights, which are older than the regions' own layers.
UNIBRAIN_TINY = replace(UNIBRAIN_8MM, name="unibrain-tiny", own_regions=False)
