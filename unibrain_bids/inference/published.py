"""One scan through UniBrain as published: mask, affine, tissues, regions and network.

The paper's images are conformed, and near the template to begin with. Here the first two looks of the unified model put
the head there; from then on everything is the published model's own. It knows no bias field: the preprocessed image is
the scan. Structures and regions are the template's, warped to the scan at the scan's own resolution.
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
from torch import Tensor

from unibrain_bids.imaging.affines import is_plausible_affine
from unibrain_bids.imaging.scan import Scan, load_scan
from unibrain_bids.inference.loading import Model, open_weights, population_atlas
from unibrain_bids.inference.loading import load_model as load_unified
from unibrain_bids.inference.native import WHITE_MATTER_INTENSITY, as_float64, no_brain
from unibrain_bids.inference.prediction import Prediction, named_network
from unibrain_bids.labels import LabelTable
from unibrain_bids.model import frame
from unibrain_bids.model.atlas import Atlas
from unibrain_bids.model.confidence import tilt
from unibrain_bids.model.intensity import scale_to_unit
from unibrain_bids.model.locate import Volume, find_head, largest_component, pull_averaged
from unibrain_bids.model.native import NativeGrid, inside
from unibrain_bids.model.parcellation import CORTICAL_REGIONS, region_numbers
from unibrain_bids.model.presets import UNIBRAIN, UNIBRAIN_8MM, UNIBRAIN_SMALL, UNIBRAIN_TINY
from unibrain_bids.model.published import PublishedUniBrain
from unibrain_bids.model.soft_template import SoftTemplate

_PRESETS = {preset.name: preset for preset in (UNIBRAIN, UNIBRAIN_SMALL, UNIBRAIN_8MM, UNIBRAIN_TINY)}
_SMALLEST_BRAIN_MM3 = 200_000
_TISSUES = {row.abbreviation: row.index for row in LabelTable.load("tissue")}


@dataclass(frozen=True)
class PublishedModel:
    """UniBrain as published, ready on a device; attributes as those of `loading.Model`.

    Attributes
    ----------
    network
        The model, in evaluation mode.
    atlas
        The labelled template, as fine as it is.
    locator
        The unified model, whose first two looks find the head.
    """

    kind: ClassVar[str] = "unibrain"
    network: PublishedUniBrain
    atlas: Atlas
    locator: Model
    device: torch.device
    sha256: str
    metadata: dict[str, str]


@lru_cache(maxsize=2)
def load_published(device: str = "auto", weights: Path | None = None) -> PublishedModel:
    """The shipped weights (or others for it), loaded once per process and device."""
    opened, atlas = open_weights(PublishedModel.kind, device, weights), population_atlas()
    preset = _PRESETS[opened.metadata["preset"]]
    network = PublishedUniBrain(preset, SoftTemplate.from_atlas(atlas, preset.shape, preset.spacing), classes=0)
    opened.fill({"published": network})
    locator, device_atlas = load_unified(device), atlas.to(opened.device)
    return PublishedModel(network, device_atlas, locator, opened.device, opened.sha256, opened.metadata)


@torch.inference_mode()
def predict_published(scan: Scan | Path | str, *, model: PublishedModel, smoothness: float = 0.1) -> Prediction:
    """Process one T1-weighted head; `smoothness` has no effect.

    Parameters and errors are those of `inference.predict`.
    """
    scan = scan if isinstance(scan, Scan) else load_scan(Path(scan))
    network, preset = model.network, model.network.preset
    data = torch.from_numpy(np.ascontiguousarray(scan.data))[None, None].to(model.device)
    volume = Volume(data, np.asarray(scan.affine, dtype=np.float64))
    located = find_head(model.locator.first_look, model.locator.aligner, volume)
    if located is None:
        raise no_brain(scan)
    frame_from_world = np.asarray(located.frame_from_world, dtype=np.float64)
    image = pull_averaged(volume, np.linalg.inv(frame_from_world), network.points, preset.spacing)
    outputs = network(scale_to_unit(image))
    x, y, z = scan.data.shape
    grid_from_scan = np.linalg.inv(frame.affine(preset.spacing, preset.shape)) @ frame_from_world @ scan.affine
    native = NativeGrid((x, y, z), grid_from_scan, preset.shape)
    mask = largest_component(native.volume(torch.sigmoid(outputs.mask_logits)) > 0.5)
    template_from_scan = as_float64(outputs.template_from_grid[0]) @ frame_from_world
    size = mask.sum() * abs(np.linalg.det(scan.affine[:3, :3]))
    if size < _SMALLEST_BRAIN_MM3 or not is_plausible_affine(template_from_scan, rotation=180.0):
        raise no_brain(scan)
    structures, parcels = _propagate(model.atlas, template_from_scan, scan, mask)
    tissues, shares = _segment(native, torch.softmax(outputs.tissue_logits, dim=1), mask)
    white = np.median(scan.data[tissues == _TISSUES["WM"]]) if (tissues == _TISSUES["WM"]).any() else 1.0
    return Prediction(
        scan=scan,
        mask=mask.astype(np.uint8),
        preproc=scan.data.astype(np.float32),
        brain=(scan.data * mask * (WHITE_MATTER_INTENSITY / max(white, 1e-6))).astype(np.float32),
        gain=np.ones(mask.shape, dtype=np.float32),
        structures=structures,
        tissues=tissues,
        tissue_probabilities=shares,
        parcellations={"DK": parcels},
        frame_from_scan=template_from_scan,
        intracranial_volume=math.nan,
        networks={"innerproduct": named_network(outputs.network[0].cpu().numpy())},
        quality={"model_atlas_agreement": located.agreement, "model_tilt_deg": tilt(template_from_scan)},
    )


def _segment(
    native: NativeGrid, probability: Tensor, mask: NDArray[np.bool_]
) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.float32]]]:
    """Tissues within the mask, and their probabilities; what is none of them there is CSF."""
    values = torch.cat([native.read(probability, voxels) for _, voxels in inside(mask)], dim=1).cpu().numpy()
    values[_TISSUES["CSF"]] = 1 - values[_TISSUES["GM"]] - values[_TISSUES["WM"]]
    tissues = np.zeros(mask.shape, dtype=np.uint8)
    tissues[mask] = 1 + values[1:].argmax(0)
    shares = {name: np.zeros(mask.shape, dtype=np.float32) for name in _TISSUES}
    for name, channel in _TISSUES.items():
        shares[name][mask] = values[channel]
    return tissues, shares


def _propagate(
    atlas: Atlas, template_from_scan: NDArray[np.float64], scan: Scan, mask: NDArray[np.bool_]
) -> tuple[NDArray[np.int16], NDArray[np.int32]]:
    """The template's structures and regions at the voxels of the mask."""
    x, y, z = scan.data.shape
    native = NativeGrid((x, y, z), np.linalg.inv(frame.affine()) @ template_from_scan @ scan.affine)
    numbers, regions = np.array([0, *frame.STRUCTURES]), np.array(region_numbers())
    structures, parcels = np.zeros(mask.shape, dtype=np.int16), np.zeros(mask.shape, dtype=np.int32)
    for piece, voxels in inside(mask):
        found = numbers[native.read(atlas.structures, voxels).argmax(0).cpu().numpy()]
        cortical = native.read(atlas.regions, voxels).argmax(0).cpu().numpy()
        structures.flat[piece] = found
        own = np.where(np.isin(found, regions[2 * CORTICAL_REGIONS :]), found, 0)
        for side, cortex in enumerate((3, 42)):
            own = np.where(found == cortex, regions[cortical + side * CORTICAL_REGIONS], own)
        parcels.flat[piece] = own
    return structures, parcels
