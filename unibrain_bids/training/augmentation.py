"""A cohort's scan as another scanner, another day might have shown it; never mirrored: left is left."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unibrain_bids.model import frame
from unibrain_bids.model.intensity import scale_to_unit
from unibrain_bids.model.spatial import sample, transform_points
from unibrain_bids.training.simulation.appearance import add_noise, change_contrast, draw_log_bias
from unibrain_bids.training.simulation.geometry import PoseRange, draw_pose

_POSE = PoseRange(rotation=4.0, translation=3.0, scale=0.04, shear=0.01)
_BIAS = 0.15


@dataclass(frozen=True)
class Sample:
    """One scan on the model grid, with what is known of it.

    Attributes
    ----------
    image
        (1, 1, X, Y, Z), 0..1.
    voxel
        Volume of a voxel of the grid in the scan, mm3.
    mask
        (1, 1, X, Y, Z) share of brain in each voxel, or None.
    structures
        (1, X, Y, Z) int64 output channels, -1 where nothing is known, or None.
    """

    image: Tensor
    voxel: float
    mask: Tensor | None
    structures: Tensor | None

    def to(self, device: torch.device) -> Sample:
        """A copy on the device."""
        mask, structures = (None if x is None else x.to(device) for x in (self.mask, self.structures))
        return Sample(self.image.to(device), self.voxel, mask, structures)


def augment(given: Sample, seed: int) -> Sample:
    """Move, stretch, shade and blur the contrast of a scan; the same seed gives the same on the same kind of device."""
    device = given.image.device
    generator, device_generator = torch.Generator().manual_seed(seed), torch.Generator(device).manual_seed(seed)
    source_from_grid = draw_pose(_POSE, generator).to(device)
    voxel_from_grid = torch.linalg.inv(torch.from_numpy(frame.affine()).float()).to(device) @ source_from_grid
    places = transform_points(voxel_from_grid[None], frame.points(device=device))
    image = change_contrast(sample(given.image, places), generator)
    image = image * torch.exp(draw_log_bias(frame.SHAPE, generator, device, _BIAS))
    image = scale_to_unit(add_noise(image, generator, device_generator))
    structures = given.structures
    if structures is not None:
        # Channels are shifted by one, so that the zeros beyond the grid mean "unknown".
        moved = sample((structures + 1)[None].float(), places, mode="nearest")
        structures = moved[0].round().long() - 1
    return replace(
        given,
        image=image,
        # A voxel of the new grid covers more or less of the person.
        voxel=given.voxel * float(torch.linalg.det(source_from_grid[:3, :3])),
        mask=None if given.mask is None else sample(given.mask, places),
        structures=structures,
    )
