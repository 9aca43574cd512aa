"""What the model at 2 mm has seen of a scan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from unibrain_bids.inference.found import Found
from unibrain_bids.model.unibrain import Outputs


@dataclass(frozen=True)
class Look:
    """A head as the model saw it last.

    Attributes
    ----------
    image
        (1, 1, X, Y, Z) the scan on the model grid, in its own intensities.
    scaled
        (1, 1, X, Y, Z) what went in of it, 0..1.
    frame_from_scan
        (4, 4) float64, mm: where that grid stood.
    agreement
        Of the second look with the atlas (`model.locate.Located`).
    outputs
        What came out, at last of the stripped head as well.
    found
        The brain in it.
    fitted
        (4, 4) what the closed form on the found structures would add to `frame_from_scan`.
    log_gain
        (1, 1, X, Y, Z) logarithm of the intensity correction.
    """

    image: Tensor
    scaled: Tensor
    frame_from_scan: NDArray[np.float64]
    agreement: float
    outputs: Outputs
    found: Found
    fitted: Tensor
    log_gain: Tensor
