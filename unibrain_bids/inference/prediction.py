"""What is known about one scan after it went through the model."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from unibrain_bids.imaging.scan import Scan
from unibrain_bids.labels import LabelTable
from unibrain_bids.model.description import Description
from unibrain_bids.model.parcellation import region_numbers


@dataclass(frozen=True)
class Network:
    """A region network: FreeSurfer numbers and names of the regions (R,), matrix (R, R), NaN where unknown."""

    index: tuple[int, ...]
    names: tuple[str, ...]
    matrix: NDArray[np.float32]


@dataclass(frozen=True)
class DescriptionArrays:
    """`model.description.Description` of one head: regions (84, F + 1), whole (3,), network (84, 84)."""

    regions: NDArray[np.float32]
    whole: NDArray[np.float32]
    network: NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """Everything about one scan; volumes lie on the scan's own grid, shape (X, Y, Z).

    Attributes
    ----------
    scan
        What was read.
    mask
        uint8, brain with closed sulci.
    preproc
        float32, the head with the bias field removed, on the input's intensity scale.
    brain
        float32, T(x): stripped and normalised, white matter at 110.
    gain
        float32, smooth correction: preproc = gain * input.
    structures
        int16, FreeSurfer numbers.
    tissues
        uint8, 1 GM, 2 WM, 3 CSF within the mask.
    tissue_probabilities
        "GM", "WM", "CSF" to float32, 0..1.
    parcellations
        Atlas name to int32 labels.
    frame_from_scan
        (4, 4) scan world mm to population frame mm (RAS).
    networks
        Name to region network.
    quality
        The model's own measures.
    intracranial_volume
        mm3.
    description
        What a head trained together with the model sees.
    """

    scan: Scan
    mask: NDArray[np.uint8]
    preproc: NDArray[np.float32]
    brain: NDArray[np.float32]
    gain: NDArray[np.float32]
    structures: NDArray[np.int16]
    tissues: NDArray[np.uint8]
    tissue_probabilities: dict[str, NDArray[np.float32]]
    parcellations: dict[str, NDArray[np.int32]]
    frame_from_scan: NDArray[np.float64]
    intracranial_volume: float
    networks: dict[str, Network] = field(default_factory=dict)
    quality: dict[str, float] = field(default_factory=dict)
    description: DescriptionArrays | None = None


def as_arrays(description: Description) -> DescriptionArrays:
    """The description of the first head of a batch as arrays."""
    parts = (description.regions, description.whole, description.network)
    return DescriptionArrays(*(part[0].cpu().numpy() for part in parts))


def named_network(matrix: NDArray[np.float32]) -> Network:
    """Sort the model's network (84, 84), in the order of `region_numbers`, as the label table of DK is sorted."""
    table = LabelTable.load("DK")
    order = [region_numbers().index(row.index) for row in table]
    return Network(table.indices, table.names, matrix[np.ix_(order, order)])
