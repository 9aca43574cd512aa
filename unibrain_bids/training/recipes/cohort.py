"""Cohorts as UniBrain has them: heads, brain masks and a class for each person, and nothing else.

The simulated ones have two groups. Persons of the second have wider ventricles: the simulator's deformation enlarges
what lies around their centre, by a factor that is drawn from overlapping distributions. No real head is given a class.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from unibrain_bids.model import frame
from unibrain_bids.model.parcellation import CORTICAL_REGIONS, region_numbers
from unibrain_bids.model.presets import UniBrainPreset
from unibrain_bids.model.soft_template import TISSUES, tissue_of_channel
from unibrain_bids.training.recipes.basis import REGION_CHANNEL
from unibrain_bids.training.simulation.geometry import PoseRange
from unibrain_bids.training.simulation.material import Material
from unibrain_bids.training.simulation.simulator import SimulatedHead, SimulationRange, simulate

GROUPS = ("as they are", "wider ventricles")
# Mean and standard deviation of the relative enlargement around the ventricles in each group.
_BULGE = ((0.0, 0.1), (0.3, 0.1))
# Coarser grids are filled with averages of a finer one: partial volume as scanners have it.
_COARSE_MM = 4.0
_POSE = PoseRange(rotation=6.0, translation=5.0, scale=0.06, shear=0.02)


@dataclass(frozen=True)
class Cohort:
    """What the published recipe learns from.

    Attributes
    ----------
    images
        (persons, 1, X, Y, Z) heads, 0..1.
    masks
        (persons, 1, X, Y, Z) brain, 0/1.
    classes
        (persons,) int64.
    """

    images: Tensor
    masks: Tensor
    classes: Tensor


@dataclass(frozen=True)
class KnownCohort:
    """A cohort with the simulator's truth, against which results are measured.

    Attributes
    ----------
    given
        What may be learnt from.
    tissues
        (persons, X, Y, Z) int64: 0 none, 1 GM, 2 WM, 3 CSF, the commonest of each voxel.
    regions
        (persons, X, Y, Z) int64: 1 + channel of the region, 0 elsewhere.
    template_from_grid
        (persons, 4, 4) mm, the best affine.
    """

    given: Cohort
    tissues: Tensor
    regions: Tensor
    template_from_grid: Tensor


def simulated_cohort(material: Material, preset: UniBrainPreset, persons: int, *, first_seed: int) -> KnownCohort:
    """Simulate persons, the same number of each group from every label map.

    Parameters
    ----------
    material
        Label maps.
    preset
        Whose grid the heads lie on.
    persons
        How many.
    first_seed
        Person i is simulated from the seed `first_seed` + i.
    """
    finer = 2 if preset.spacing > _COARSE_MM else 1
    x, y, z = (n * finer for n in preset.shape)
    span = SimulationRange((x, y, z), preset.spacing / finer, _POSE, t1_fraction=1.0, bias=0.3, missing_parts=False)
    found = []
    for person in range(persons):
        head, group = person % len(material.heads), person // len(material.heads) % len(GROUPS)
        mean, spread = _BULGE[group]
        drawn = torch.randn((), generator=torch.Generator().manual_seed(first_seed + person))
        scan = simulate(material, span, first_seed + person, head, bulge=mean + spread * float(drawn))
        found.append((group, *_on_grid(scan, finer)))
    groups, images, masks, tissues, regions, affines = zip(*found, strict=True)
    classes = torch.tensor(groups, device=material.t1.device)
    given = Cohort(torch.cat(images), torch.cat(masks), classes)
    return KnownCohort(given, torch.cat(tissues), torch.cat(regions), torch.cat(affines))


def _on_grid(scan: SimulatedHead, finer: int) -> tuple[Tensor, ...]:
    """Image, mask, tissues, regions and affine of a scan on a coarser grid."""
    tissue = tissue_of_channel().to(scan.structures.device)[scan.structures]
    return (
        functional.avg_pool3d(scan.image, finer),
        (functional.avg_pool3d(scan.brain, finer) >= 0.5).float(),
        _commonest(tissue, TISSUES, finer),
        _commonest(_region_truth(scan), len(region_numbers()) + 1, finer),
        scan.frame_from_grid,
    )


def _region_truth(scan: SimulatedHead) -> Tensor:
    """1 + channel of the region of every voxel (1, X, Y, Z), 0 where there is none."""
    cortical = REGION_CHANNEL.to(scan.regions.device)[scan.regions]
    numbers = torch.tensor([0, *frame.STRUCTURES], device=scan.structures.device)[scan.structures]
    regions = torch.zeros_like(numbers)
    for channel, number in enumerate(region_numbers()[2 * CORTICAL_REGIONS :]):
        regions[numbers == number] = 2 * CORTICAL_REGIONS + channel + 1
    for side, cortex in enumerate((3, 42)):
        inside = (numbers == cortex) & (cortical >= 0)
        regions[inside] = cortical[inside] + CORTICAL_REGIONS * side + 1
    return regions


def _commonest(labels: Tensor, count: int, finer: int) -> Tensor:
    """Commonest label (1, X, Y, Z) of blocks of voxels."""
    if finer == 1:
        return labels
    shares = [functional.avg_pool3d((labels == label).float()[:, None], finer) for label in range(count)]
    return torch.cat(shares, dim=1).argmax(1)
