"""Atlases in a subject, by way of the package's template and the population frame."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from nibabel.affines import apply_affine, from_matvec
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray

from unibrain_bids.bids.atlases import AtlasSource, load_atlas_image
from unibrain_bids.imaging.atlases import CORTEX, REACH_MM, PreparedAtlas, prepare_atlas, project_atlas
from unibrain_bids.imaging.boxes import bounding_box
from unibrain_bids.imaging.resample import resample
from unibrain_bids.inference import Prediction, resource
from unibrain_bids.interfaces.registration import Registration
from unibrain_bids.interfaces.template import load_template

# The template whose structures and place in the frame come with the package.
HOME = "MNI152NLin2009aSym"
# FreeSurfer numbers cortical regions from here on.
_CORTICAL = 1000


def parcellate(
    prediction: Prediction,
    sources: Sequence[AtlasSource],
    registration: Registration,
    *,
    device: str = "auto",
    weights: Path | None = None,
) -> dict[str, NDArray[np.int32]]:
    """Return the regions (X, Y, Z) of each atlas on the scan's grid, by name.

    Parameters
    ----------
    prediction
        The scan.
    sources
        The atlases.
    registration
        Of the scan to `HOME`, the template of the package.
    device, weights
        Of the model that finds where other templates lie.

    Raises
    ------
    ResourceError
        The template in whose space an atlas lies is not known.
    """
    found = {}
    for source in sources:
        space_from_frame = np.linalg.inv(frame_from_space(source.space, device, weights))
        found[source.name] = _projected(_prepared(source, device, weights), prediction, registration, space_from_frame)
    return found


def follow_cortex(parcels: NDArray[np.int32], prediction: Prediction, registration: Registration) -> NDArray[np.int32]:
    """Return the regions of the default atlas, those of the cortex as the deformed template has them.

    The model's own regions follow no sulcus: they stay where the template knows none, and outside of the cortex.
    `registration` is that of the scan to `HOME`.
    """
    home_from_frame = np.linalg.inv(registration.frame_from_template)
    cortex = _projected(_home_cortex(), prediction, registration, home_from_frame)
    followed: NDArray[np.int32] = np.where(np.isin(prediction.structures, CORTEX) & (cortex > 0), cortex, parcels)
    return followed


def _projected(
    atlas: PreparedAtlas,
    prediction: Prediction,
    registration: Registration,
    space_from_frame: NDArray[np.floating],
) -> NDArray[np.int32]:
    def atlas_from_scan(points: NDArray[np.floating]) -> NDArray[np.float64]:
        places: NDArray[np.float64] = apply_affine(space_from_frame, registration.frame_places(points))
        return places

    return project_atlas(atlas, prediction.structures, prediction.scan.affine, atlas_from_scan=atlas_from_scan)


@lru_cache(maxsize=1)
def _home_cortex() -> PreparedAtlas:
    """The cortical regions that the model found in the package's template, which come with the package."""
    labels, structures = (
        Nifti1Image.from_filename(resource(f"templates/tpl-{HOME}_res-1_{kind}_dseg.nii.gz"))
        for kind in ("atlas-DK", "seg-aseg")
    )
    regions = np.asarray(labels.dataobj)
    regions = np.where(regions >= _CORTICAL, regions, 0)
    box = bounding_box(regions > 0, margin=int(REACH_MM) + 1)
    corner = from_matvec(np.eye(3), [piece.start for piece in box])
    return prepare_atlas(regions[box], labels.affine @ corner, np.asarray(structures.dataobj)[box])


def frame_from_space(space: str, device: str = "auto", weights: Path | None = None) -> NDArray[np.float64]:
    """Return the affine (4, 4) from a template's world to the population frame, RAS mm.

    `resources/templates/spaces.json` holds where other templates lie in that of the package, and how that was found;
    all others are registered by the model (`interfaces.template`).
    """
    known = json.loads(resource("templates/spaces.json").read_text(encoding="utf-8"))
    if space not in known:
        return load_template(space, device, weights).frame_from_template
    return load_template(HOME, device, weights).frame_from_template @ np.array(known[space]["home_from_space"])


@lru_cache(maxsize=8)
def _prepared(source: AtlasSource, device: str, weights: Path | None) -> PreparedAtlas:
    """Read an atlas, and tell its cortical regions by the structures of the package's template."""
    labels, affine = load_atlas_image(source)
    home = Nifti1Image.from_filename(resource(f"templates/tpl-{HOME}_res-1_seg-aseg_dseg.nii.gz"))
    frame_from_home = frame_from_space(HOME, device, weights)
    space_from_home = np.linalg.inv(frame_from_space(source.space, device, weights)) @ frame_from_home
    structures = resample(
        np.asarray(home.dataobj), home.affine, shape=labels.shape, target_affine=affine,
        target_from_source=space_from_home, order=0,
    )  # fmt: skip
    return prepare_atlas(labels, affine, structures)
