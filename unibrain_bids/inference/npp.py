"""One scan through NPP alone: mask, field, normalised brain and affine.

As in the paper, the head is conformed to a cube along the world's axes by its header alone. The cube is first centred
on the field of view, then on the brain that was found: real fields of view stand anywhere around the brain, and the
network's affine moves by 20 mm at most.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from unibrain_bids.imaging.affines import is_plausible_affine
from unibrain_bids.imaging.scan import Scan, load_scan
from unibrain_bids.inference.loading import open_weights
from unibrain_bids.inference.native import as_float64, no_brain
from unibrain_bids.inference.prediction import Prediction
from unibrain_bids.model import frame
from unibrain_bids.model.confidence import tilt
from unibrain_bids.model.intensity import unit_divisor
from unibrain_bids.model.locate import Volume, coarse, largest_component, pull_averaged
from unibrain_bids.model.native import NativeGrid, extended_log_gain
from unibrain_bids.model.npp import MASK_THRESHOLD, NPP, NppOutputs
from unibrain_bids.model.presets import NPP as PUBLISHED
from unibrain_bids.model.presets import NPP_SMALL

_PRESETS = {preset.name: preset for preset in (PUBLISHED, NPP_SMALL)}
_PASSES = 3
_SMALLEST_BRAIN_MM3 = 200_000
# Centre of the frame's mean brain mask, mm: there the brain lies in the scans that the network was trained on.
_BRAIN_CENTRE = np.array([0.0, -6.2, 6.6])
# The field says nothing of the bias outside the brain: it goes on smoothly from so far inside it.
_SMOOTH_MM, _FAR_MM = 8.0, 40.0


@dataclass(frozen=True)
class NppModel:
    """NPP alone, ready on a device; attributes as those of `loading.Model`."""

    kind: ClassVar[str] = "npp"
    network: NPP
    device: torch.device
    sha256: str
    metadata: dict[str, str]


@lru_cache(maxsize=2)
def load_npp(device: str = "auto", weights: Path | None = None) -> NppModel:
    """The shipped NPP (or other weights for it), loaded once per process and device."""
    opened = open_weights(NppModel.kind, device, weights)
    network = NPP(_PRESETS[opened.metadata["preset"]])
    opened.fill({"npp": network})
    return NppModel(network, opened.device, opened.sha256, opened.metadata)


@torch.inference_mode()
def predict_npp(scan: Scan | Path | str, *, model: NppModel, smoothness: float = 0.1) -> Prediction:
    """Mask, field, normalised brain and affine of one T1-weighted head; structures and tissues stay 0.

    Parameters and errors are those of `inference.predict`.
    """
    scan = scan if isinstance(scan, Scan) else load_scan(Path(scan))
    seen = _look(model, scan, smoothness)
    x, y, z = scan.data.shape
    preset, multiplier = model.network.preset, seen.outputs.multiplier
    grid_from_scan = np.linalg.inv(frame.affine(preset.spacing, preset.shape)) @ seen.grid_from_world @ scan.affine
    native = NativeGrid((x, y, z), grid_from_scan, preset.shape)
    chi = native.volume(multiplier.chi())
    mask = largest_component(chi > MASK_THRESHOLD)
    frame_from_scan = as_float64(torch.linalg.inv(seen.outputs.grid_from_frame)[0]) @ seen.grid_from_world
    volume = mask.sum() * abs(np.linalg.det(scan.affine[:3, :3]))
    if volume < _SMALLEST_BRAIN_MM3 or not is_plausible_affine(frame_from_scan, rotation=180.0):
        raise no_brain(scan)
    log_gain = extended_log_gain(_extended(multiplier.chi(), preset.spacing), native)
    gain = np.exp(log_gain - log_gain[mask].mean())
    return Prediction(
        scan=scan,
        mask=mask.astype(np.uint8),
        preproc=(scan.data * gain).astype(np.float32),
        # The network was taught on a scale of 0 to 1 with white matter at 110 / 255.
        brain=(255 / seen.divisor * chi * scan.data * mask).astype(np.float32),
        gain=gain,
        structures=np.zeros(mask.shape, dtype=np.int16),
        tissues=np.zeros(mask.shape, dtype=np.uint8),
        tissue_probabilities={},
        parcellations={},
        frame_from_scan=frame_from_scan,
        intracranial_volume=math.nan,
        quality={"model_tilt_deg": tilt(frame_from_scan)},
    )


@dataclass(frozen=True)
class _Seen:
    """The last look: outputs, `grid_from_world` (4, 4) in mm, and what intensities were divided by."""

    outputs: NppOutputs
    grid_from_world: NDArray[np.float64]
    divisor: float


def _look(model: NppModel, scan: Scan, smoothness: float) -> _Seen:
    """Look up to three times, each time with the brain nearer to the middle of the cube."""
    preset = model.network.preset
    data = torch.from_numpy(np.ascontiguousarray(scan.data))[None, None].to(model.device)
    whole = Volume(data, np.asarray(scan.affine, dtype=np.float64))
    volume = coarse(whole, preset.spacing / 2)
    points = frame.points(preset.shape, preset.spacing, model.device)
    lam = torch.full((1,), smoothness, device=model.device)
    world_from_grid = np.eye(4)
    world_from_grid[:3, 3] = whole.corners().mean(0)
    for attempt in range(_PASSES):
        image = pull_averaged(volume, world_from_grid, points, preset.spacing)
        divisor = unit_divisor(image)
        outputs = model.network((image / divisor).clamp(0, 1), lam)
        mask = largest_component((outputs.multiplier.chi() > MASK_THRESHOLD)[0, 0].cpu().numpy())
        if not mask.any():
            raise no_brain(scan)
        shift = points.cpu().numpy()[mask].mean(0) - _BRAIN_CENTRE
        if attempt == _PASSES - 1 or np.linalg.norm(shift) < preset.spacing:
            break
        world_from_grid[:3, 3] += shift
    return _Seen(outputs, np.linalg.inv(world_from_grid).astype(np.float64), divisor)


def _extended(chi: Tensor, spacing: float) -> Tensor:
    """Logarithm of chi (1, 1, X, Y, Z) inside the brain, continued smoothly beyond its border."""
    inside = ndimage.binary_erosion(largest_component((chi > MASK_THRESHOLD)[0, 0].cpu().numpy()))
    values = np.where(inside, np.log(chi[0, 0].cpu().numpy().clip(min=1e-3)), 0.0)
    weight, total = np.full(inside.shape, 1e-12), np.zeros(inside.shape)
    for share, reach in ((1.0, _SMOOTH_MM), (1e-3, _FAR_MM)):
        weight += share * ndimage.gaussian_filter(inside.astype(float), reach / spacing)
        total += share * ndimage.gaussian_filter(values, reach / spacing)
    return torch.from_numpy((total / weight).astype(np.float32))[None, None].to(chi.device)
