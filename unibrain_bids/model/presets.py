"""Sizes of the model's variants, as plain data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """Sizes of one variant.

    Attributes
    ----------
    name
        As given to the command line.
    first_look_widths
        Channels of the first look at 8 mm, finest level first (four levels).
    aligner_widths
        Channels of the aligner at 4 mm, finest level first (four levels).
    widths
        Channels of the backbone, finest level first (five levels).
    transformer_blocks
        Blocks at the bottleneck (NPP: 3).
    hypernetwork
        Hidden widths of the lambda network (NPP: 512, 2048).
    stages
        Affine stages M: one from the bottleneck and M - 1 recursive ones (UniBrain: 5).
    stage_widths
        Channels of a recursive stage's convolutions.
    region_features
        Width of the region embeddings.
    graph_features
        Width of the two graph convolutions (UniBrain: 128).
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


UNIFIED = Preset(
    name="unified",
    first_look_widths=(16, 32, 64, 128),
    aligner_widths=(16, 32, 64, 96),
    widths=(16, 32, 64, 96, 128),
    transformer_blocks=3,
    hypernetwork=(64, 256),
    stages=3,
    stage_widths=(16, 32, 64, 32),
    region_features=64,
    graph_features=128,
)
