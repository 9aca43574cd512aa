"""One scan through the unified model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from unibrain_bids.imaging.affines import is_plausible_affine
from unibrain_bids.imaging.scan import Scan, load_scan
from unibrain_bids.inference.found import Found, find_brain, see_stripped, strip
from unibrain_bids.inference.loading import Model, load_model
from unibrain_bids.inference.native import as_float64, assemble, no_brain
from unibrain_bids.inference.prediction import Prediction
from unibrain_bids.inference.seen import Look
from unibrain_bids.model import frame
from unibrain_bids.model.confidence import mask_certainty, movement, outside_view, structure_certainty, tilt
from unibrain_bids.model.gain import refine_log_gain
from unibrain_bids.model.intensity import scale_to_unit
from unibrain_bids.model.locate import Volume, find_head, pull_averaged
from unibrain_bids.model.unibrain import Dense

# Where the closed form on the segmented structures would still move the brain by more than this, the head is realigned
# and looked at once more; where the bias field is stronger than this (standard deviation of its logarithm), up to twice
# more without it. On weaker fields a look at the corrected head did more harm than good.
_SETTLED_MM = 2.0
_SHADED = 0.2
_ATTEMPTS = 3


@torch.inference_mode()
def predict(
    scan: Scan | Path | str, *, model: Model | None = None, smoothness: float = 0.1, mirror: bool = True
) -> Prediction:
    """Process one T1-weighted head.

    Parameters
    ----------
    scan
        A loaded scan or the path of a NIfTI file: any orientation, spacing and field of view.
    model
        From `load_model`; the shipped weights on the best device when None.
    smoothness
        NPP's lambda: larger gives a smoother intensity correction (trained for 0.001 to 10).
    mirror
        Average masks and structures over the head and its mirror image as well.

    Raises
    ------
    ScanError
        If the file cannot be read or no brain is found in it.
    """
    model = model or load_model()
    scan = scan if isinstance(scan, Scan) else load_scan(Path(scan))
    volume = as_volume(scan, model.device)
    seen = look(scan, volume, model, smoothness=smoothness, mirror=mirror)
    quality = {
        "model_atlas_agreement": seen.agreement,
        "model_realignment_mm": movement(seen.fitted),
        "model_mask_certainty": mask_certainty(seen.found.brain),
        "model_structure_certainty": structure_certainty(seen.found.structures, seen.found.brain),
        "model_tilt_deg": tilt(seen.frame_from_scan),
        "model_outside_view": outside_view(model.unibrain, as_float64(seen.fitted) @ seen.frame_from_scan, volume),
    }
    return assemble(scan, volume, seen, model.refiner, quality)


@torch.inference_mode()
def look(scan: Scan, volume: Volume, model: Model, *, smoothness: float = 0.1, mirror: bool = True) -> Look:
    """Find the head of a scan (whose data `volume` holds), and see it on the model grid; see `predict`.

    Once the head has settled, it is seen stripped by what was found in it as well.
    """
    located = find_head(model.first_look, model.aligner, volume)
    if located is None:
        raise no_brain(scan)
    lam = torch.full((1,), smoothness, device=model.device)
    glance = _settle(scan, volume, model, located.frame_from_world, smoothness)
    stripped = strip(glance.image * glance.correction.exp(), glance.found)
    dense = see_stripped(model.unibrain, stripped, glance.scaled, glance.dense, lam, mirror=mirror)
    found = find_brain(dense)
    return Look(
        image=glance.image,
        scaled=glance.scaled,
        frame_from_scan=glance.frame_from_scan,
        agreement=located.agreement,
        outputs=model.unibrain.complete(dense, stripped),
        found=found,
        fitted=model.unibrain.fit(found.structures)[0],
        log_gain=_log_gain(glance.image, found, dense, smoothness),
    )


@dataclass(frozen=True)
class _Glance:
    """The whole head, seen once: as in `Look`, with the logarithm of what its intensities were corrected by before."""

    image: torch.Tensor
    scaled: torch.Tensor
    correction: torch.Tensor
    frame_from_scan: NDArray[np.float64]
    dense: Dense
    found: Found


def _settle(
    scan: Scan, volume: Volume, model: Model, frame_from_scan: NDArray[np.floating], smoothness: float
) -> _Glance:
    """See the whole head, again where it stands off or is shaded (`_ATTEMPTS`)."""
    frame_from_scan = _checked(scan, frame_from_scan)
    lam = torch.full((1,), smoothness, device=model.device)
    correction = torch.zeros(())
    for attempt in range(_ATTEMPTS):
        image = pull_averaged(volume, np.linalg.inv(frame_from_scan), model.unibrain.points, frame.SPACING)
        scaled = scale_to_unit(image * correction.exp())
        dense = model.unibrain.dense(scaled, lam)
        found = find_brain(dense)
        glance = _Glance(image, scaled, correction, frame_from_scan, dense, found)
        if attempt == _ATTEMPTS - 1:
            break
        fitted = model.unibrain.fit(found.structures)[0]
        log_gain = _log_gain(image, found, dense, smoothness)
        shaded = float(log_gain[found.brain > 0.5].std()) > _SHADED
        unsettled = movement(fitted) >= _SETTLED_MM
        if not (shaded or (unsettled and attempt == 0)):
            break
        if unsettled:
            frame_from_scan = _checked(scan, as_float64(fitted) @ frame_from_scan)
        # The field is smooth: that the head has moved a little under it since does no harm.
        correction = log_gain if shaded else torch.zeros(())
    return glance


def _log_gain(image: torch.Tensor, found: Found, dense: Dense, smoothness: float) -> torch.Tensor:
    proposed = dense.multiplier.log_gain()
    return refine_log_gain(image, found.structures, found.brain, proposed, smoothness=smoothness)


def as_volume(scan: Scan, device: torch.device) -> Volume:
    """A scan as tensors on a device."""
    data = torch.from_numpy(np.ascontiguousarray(scan.data))[None, None].to(device)
    return Volume(data, np.asarray(scan.affine, dtype=np.float64))


def _checked(scan: Scan, frame_from_scan: NDArray[np.floating]) -> NDArray[np.float64]:
    """Refuse a fit that no head can have."""
    if is_plausible_affine(frame_from_scan, rotation=180.0):
        return frame_from_scan.astype(np.float64)
    raise no_brain(scan)
