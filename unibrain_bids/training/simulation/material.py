"""The packed label maps in memory, on the device that simulates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from unibrain_bids.model.frame import LEFT, RIGHT, STRUCTURES
from unibrain_bids.training.packing import BRAIN_BIT, INTRACRANIAL_BIT, ROW_MASK

# Mirrored pairs among the labels that are not structures of their own (vessels, hypointensities, choroid plexus).
_FURTHER_PAIRS = {30: 62, 25: 57, 136: 163, 137: 164}
MIRRORED = dict(zip(LEFT + RIGHT, RIGHT + LEFT, strict=True)) | _FURTHER_PAIRS
MIRRORED |= {right: left for left, right in _FURTHER_PAIRS.items()}


@dataclass(frozen=True)
class Head:
    """One label map.

    Attributes
    ----------
    name
        Which head.
    labels
        (X, Y, Z) uint8, packed (see `training.packing`).
    regions
        (X, Y, Z) uint8, cortical region 1..35, 0 outside the cortex.
    voxel_from_frame
        (4, 4) float32: population frame mm to voxel index of `labels`.
    """

    name: str
    labels: torch.Tensor
    regions: torch.Tensor
    voxel_from_frame: torch.Tensor


@dataclass(frozen=True)
class Material:
    """All heads and the per-row tables, on one device.

    Attributes
    ----------
    heads
        The label maps.
    target
        (rows,) int64: FreeSurfer number that a segmentation should output (0 where it is no structure).
    channel
        (rows,) int64: output channel of the row.
    tied_class
        (rows,) int64: intensity class, with left and right sharing one.
    t1
        (rows, 4) float32: mean, its sd, sd, its sd, on a 0..255 scale.
    index
        (rows,) int64: label number of each row.
    centroids
        (structures, 3) float32: mean centroids in frame mm.
    """

    heads: tuple[Head, ...]
    target: torch.Tensor
    channel: torch.Tensor
    tied_class: torch.Tensor
    t1: torch.Tensor
    index: torch.Tensor
    centroids: torch.Tensor

    def subset(self, names: tuple[str, ...]) -> Material:
        """The same tables with only the named heads."""
        heads = tuple(head for head in self.heads if head.name in names)
        return replace(self, heads=heads)

    def to(self, device: torch.device | str) -> Material:
        """A copy on the device."""
        heads = tuple(
            Head(h.name, h.labels.to(device), h.regions.to(device), h.voxel_from_frame.to(device)) for h in self.heads
        )
        names = ("target", "channel", "tied_class", "t1", "index", "centroids")
        return Material(heads, **{name: getattr(self, name).to(device) for name in names})


def load_material(path: Path) -> Material:
    """Read the packed file that `training.packing` writes."""
    with np.load(path) as packed:
        index, target, classes = packed["index"], packed["target"], packed["intensity_class"]
        channel_of = {0: 0} | {number: i + 1 for i, number in enumerate(STRUCTURES)}
        class_of = dict(zip(index.tolist(), classes.tolist(), strict=True))
        tied = [min(class_of[n], class_of[MIRRORED.get(n, n)]) for n in index.tolist()]
        heads = []
        for i, name in enumerate(packed["names"].tolist()):
            voxel_from_frame = np.linalg.inv(packed[f"frame_from_head_{i}"] @ packed[f"affine_{i}"])
            labels, regions = (np.ascontiguousarray(packed[f"{kind}_{i}"]) for kind in ("labels", "regions"))
            volumes = torch.from_numpy(labels), torch.from_numpy(regions)
            heads.append(Head(name, *volumes, torch.from_numpy(voxel_from_frame).float()))
        return Material(
            heads=tuple(heads),
            target=torch.from_numpy(target),
            channel=torch.tensor([channel_of[int(t)] for t in target]),
            tied_class=torch.tensor(tied),
            t1=torch.from_numpy(packed["t1"]).float(),
            index=torch.from_numpy(index),
            centroids=torch.from_numpy(packed["centroids"]).float(),
        )


def is_brain(labels: torch.Tensor) -> torch.Tensor:
    """Brain mask (sulci closed) of packed labels."""
    return (labels & BRAIN_BIT) > 0


def is_intracranial(labels: torch.Tensor) -> torch.Tensor:
    """Intracranial space of packed labels."""
    return (labels & INTRACRANIAL_BIT) > 0


def row_of(labels: torch.Tensor) -> torch.Tensor:
    """Row of the label table of packed labels, int64."""
    return (labels & ROW_MASK).long()
