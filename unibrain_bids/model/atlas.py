"""The soft atlas of the population frame, as tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Atlas:
    """What the model knows of the mean head; volumes lie on the frame's grid.

    Attributes
    ----------
    structures
        (1, 1 + structures, X, Y, Z) probabilities, background first.
    regions
        (1, 34, X, Y, Z) probabilities of the cortical regions, given cortex.
    template
        (1, 1, X, Y, Z) T1-like mean brain, 0..1.
    centroids
        (structures, 3) mm.
    """

    structures: Tensor
    regions: Tensor
    template: Tensor
    centroids: Tensor

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray]) -> Atlas:
        """From the arrays of `resources/population/atlas.npz` (probabilities as uint8, 255 = 1)."""
        structures, regions, template = (
            torch.from_numpy(arrays[name]).float() / 255 for name in ("structures", "regions", "template")
        )
        return cls(
            structures=structures[None],
            regions=regions[None],
            template=template[None, None],
            centroids=torch.from_numpy(arrays["centroids"]).float(),
        )

    def to(self, device: torch.device | str) -> Atlas:
        """A copy on the device."""
        return Atlas(*(t.to(device) for t in (self.structures, self.regions, self.template, self.centroids)))
