"""The features of a scan that heads see, made from its derivatives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Features", "features_of"]

_VOLUME, _INTENSITY = 0, 1  # columns of `bids.tables.read_regions`


@dataclass(frozen=True)
class Features:
    """Features of one scan: regions (R, F), whole brain (G,), network (R, R)."""

    regions: NDArray[np.float32]
    whole: NDArray[np.float32]
    network: NDArray[np.float32]


def features_of(regions: NDArray[np.floating], network: NDArray[np.floating], quality: Mapping[str, float]) -> Features:
    """Make features of a scan's tables.

    Parameters
    ----------
    regions
        (R, M): volume (mm3), mean intensity and further measures; NaN where unknown.
    network
        (R, R) learned network; unknown edges become 0.
    quality
        With the intracranial volume (mm3).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        volumes = np.log(regions[:, _VOLUME])
        whole = np.log([quality.get("intracranial_volume", np.nan)])
    edges = np.where(np.isfinite(network), np.maximum(network, 0), 0)
    np.fill_diagonal(edges, 1)
    return Features(
        np.stack([volumes, regions[:, _INTENSITY]], axis=1).astype(np.float32),
        whole.astype(np.float32),
        edges.astype(np.float32),
    )
