"""Atlases of a template's space in a subject, by way of the population frame."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray

from unibrain_bids.bids.atlases import AtlasSource, load_atlas_image
from unibrain_bids.imaging.atlases import PreparedAtlas, prepare_atlas, project_atlas
from unibrain_bids.imaging.resample import resample
from unibrain_bids.inference import Prediction, resource
from unibrain_bids.interfaces.template import load_template

# The template whose structures and place in the frame come with the package.
HOME = "MNI152NLin2009aSym"


def parcellate(
    prediction: Prediction, sources: Sequence[AtlasSource], *, device: str = "auto", weights: Path | None = None
) -> dict[str, NDArray[np.int32]]:
    """Return the regions (X, Y, Z) of each atlas on the scan's grid, by name.

    Raises
    ------
    ResourceError
        The template in whose space an atlas lies is not known.
    """
    return {
        source.name: project_atlas(
            _prepared(source, device, weights),
            prediction.structures,
            prediction.scan.affine,
            atlas_from_scan=np.linalg.inv(frame_from_space(source.space, device, weights)) @ prediction.frame_from_scan,
        )
        for source in sources
    }


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
