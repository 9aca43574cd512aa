"""Cortical regions for label maps that have none, from one labelled template.

The template's structures are brought onto the head's by a least-squares affine between structure centroids; every
voxel of the head's cortex then takes the region of the nearest template cortex voxel of the same hemisphere. So every
cortex voxel has a region and none crosses the midline. Boundaries follow the template's position, not yet the
subject's sulci: `training.deformable` does that, and this is the baseline beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import center_of_mass
from scipy.spatial import cKDTree

from unibrain_bids.model.frame import STRUCTURES

CORTEX = {3: 1000, 42: 2000}
UNKNOWN = (1000, 2000, 1004, 2004)


@dataclass(frozen=True)
class LabelledTemplate:
    """A template with FreeSurfer's aparc+aseg labels.

    Attributes
    ----------
    centroids
        (structures, 3) world mm.
    cortex
        For each hemisphere's cortex label: points (N, 3) world mm and their regions 1..35 (N,).
    """

    centroids: NDArray[np.float64]
    cortex: dict[int, tuple[NDArray[np.float64], NDArray[np.uint8]]]

    @classmethod
    def from_labels(cls, labels: NDArray[np.int64], affine: NDArray[np.float64]) -> LabelledTemplate:
        """Read the structures and cortical regions off an aparc+aseg volume."""
        structures = labels.copy()
        cortex = {}
        for label, base in CORTEX.items():
            region = (labels >= base) & (labels < base + 36)
            structures[region] = label
            voxels = np.argwhere(region & ~np.isin(labels, UNKNOWN))
            points = voxels @ affine[:3, :3].T + affine[:3, 3]
            cortex[label] = (points, (labels[tuple(voxels.T)] - base).astype(np.uint8))
        voxels = np.array(center_of_mass(structures > 0, structures, STRUCTURES))
        return cls(voxels @ affine[:3, :3].T + affine[:3, 3], cortex)


def propagate(
    template: LabelledTemplate,
    head_from_template: NDArray[np.float64],
    targets: NDArray[np.int64],
    affine: NDArray[np.float64],
) -> NDArray[np.uint8]:
    """Regions 1..35 of the head's cortex voxels, 0 elsewhere.

    Parameters
    ----------
    template
        The labelled template.
    head_from_template
        (4, 4) template world mm to head world mm.
    targets, affine
        The head's structure labels (X, Y, Z) and their affine.
    """
    regions = np.zeros(targets.shape, dtype=np.uint8)
    for label, (points, names) in template.cortex.items():
        tree = cKDTree(points @ head_from_template[:3, :3].T + head_from_template[:3, 3])
        voxels = np.argwhere(targets == label)
        nearest = tree.query(voxels @ affine[:3, :3].T + affine[:3, 3])[1]
        regions[tuple(voxels.T)] = names[nearest]
    return regions
