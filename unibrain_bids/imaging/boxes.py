"""The part of a volume that matters: most of a scan is air."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["bounding_box"]


def bounding_box(mask: NDArray[np.bool_], *, margin: int = 4) -> tuple[slice, ...]:
    """Return slices around a mask with a margin in voxels where the volume has it; all of it for an empty mask."""
    found = ndimage.find_objects(mask.astype(np.uint8))
    if not found:
        return (slice(None),) * mask.ndim
    return tuple(slice(max(s.start - margin, 0), s.stop + margin) for s in found[0])
