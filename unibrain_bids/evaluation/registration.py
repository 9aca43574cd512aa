"""How well a registration brings a labelled head onto a template whose labels are known independently of our model.

The template truth is MNI152NLin6Asym with FreeSurfer's aparc+aseg (`<data>/atlas`). It is warped to: scan labels are
sampled by nearest neighbour, intensities trilinearly, on the template's 1 mm grid.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from unibrain_bids.errors import ResourceError
from unibrain_bids.evaluation import metrics
from unibrain_bids.evaluation.heads import IGNORED, LabelledHead
from unibrain_bids.imaging.resample import resample, resample_at
from unibrain_bids.labels import LabelTable

if TYPE_CHECKING:
    from unibrain_bids.inference import Prediction
    from unibrain_bids.interfaces.registration import Registration

# FreeSurfer's aparc+aseg against the structures of the app: the choroid plexus belongs to its lateral ventricle, as in
# the training labels; corpus callosum, optic chiasm and hypointensities lack a counterpart in one truth or another.
_MERGED = {31: 4, 63: 43}
_IGNORED = (77, 80, 85, 251, 252, 253, 254, 255)


@dataclass(frozen=True)
class TemplateTruth:
    """A template on its own grid (X, Y, Z).

    Attributes
    ----------
    name
        TemplateFlow name.
    path
        The whole-head T1w, which our model registers as it would any scan.
    brain
        Stripped T1w, float32, 0 outside the brain.
    structures
        int16 FreeSurfer numbers as in `LabelledHead.structures`.
    affine
        Voxel to world (RAS mm), 4 x 4.
    """

    name: str
    path: Path
    brain: NDArray[np.float32]
    structures: NDArray[np.int16]
    affine: NDArray[np.float64]


@dataclass(frozen=True)
class AffineScores:
    """Agreement of a warped scan with the template; see `score_affine`."""

    dice: Mapping[int, float]
    ncc: float
    mutual_information: float

    @property
    def mean_dice(self) -> float:
        """Mean over the structures."""
        return metrics.mean_of_known(self.dice.values())


@dataclass(frozen=True)
class PeerAffine:
    """What another tool found for one head: `template_from_scan` (RAS mm) and its CPU seconds."""

    template_from_scan: NDArray[np.float64]
    cpu_seconds: float


@dataclass(frozen=True)
class Peer:
    """Another tool's affines by head name, as `benchmarks/peers.py` writes them."""

    name: str
    heads: Mapping[str, PeerAffine]

    @classmethod
    def read(cls, path: Path) -> Peer:
        """Read the JSON of `benchmarks/peers.py`.

        Raises
        ------
        ResourceError
            If the file is missing or is no such JSON.
        """
        try:
            content = json.loads(path.read_text())
            heads = {
                name: PeerAffine(np.array(entry["template_from_scan"], dtype=np.float64), float(entry["cpu_seconds"]))
                for name, entry in content["heads"].items()
            }
            return cls(f"{content['name']} {content['version']}", heads)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ResourceError(
                f"{path}: cannot be read as a peer's affines ({error!r}).", "Make it with benchmarks/peers.py."
            ) from error


def load_template_truth(data: Path) -> TemplateTruth:
    """Load MNI152NLin6Asym from `<data>/atlas`.

    Raises
    ------
    ResourceError
        If a file is missing.
    """
    stem = data / "atlas" / "tpl-MNI152NLin6Asym_res-1"
    head, brain, labels = (Path(f"{stem}_{suffix}.nii.gz") for suffix in ("T1w", "desc-brain_T1w", "atlas-DK_dseg"))
    for path in (head, brain, labels):
        if not path.is_file():
            raise ResourceError(f"{path}: no such file.", "Point --data to the folder that holds atlas/.")
    image = nib.Nifti1Image.from_filename(brain)
    parcels = np.asarray(nib.Nifti1Image.from_filename(labels).dataobj).astype(np.int16)
    return TemplateTruth(
        name="MNI152NLin6Asym",
        path=head,
        brain=np.asarray(image.dataobj, dtype=np.float32),
        structures=structures_of_parcels(parcels),
        affine=np.asarray(image.affine, dtype=np.float64),
    )


def structures_of_parcels(parcels: NDArray[np.int16]) -> NDArray[np.int16]:
    """Turn FreeSurfer's aparc+aseg into the app's structures: regions 1000.. become cortex 3, 2000.. cortex 42."""
    table = np.zeros(int(parcels.max()) + 1, dtype=np.int16)
    known = [index for index in LabelTable.load("aseg").indices if index < table.size]
    table[known] = known
    for index, structure in _MERGED.items():
        table[index : index + 1] = structure
    table[[index for index in _IGNORED if index < table.size]] = IGNORED
    table[1000:2000], table[2000:3000] = 3, 42
    return table[parcels]


def warp_to_template(
    image: NDArray, affine: NDArray[np.float64], template: TemplateTruth, matrix: NDArray[np.float64], *, order: int
) -> NDArray:
    """Sample a scan's image on the template's grid; `matrix` is `template_from_scan`, `order` as in `resample`."""
    shape, target = template.structures.shape, template.affine
    return resample(image, affine, shape=shape, target_affine=target, target_from_source=matrix, order=order)


def score_affine(head: LabelledHead, template: TemplateTruth, template_from_scan: NDArray[np.float64]) -> AffineScores:
    """Score an affine by the head's true labels.

    Dice is between the head's warped true structures and the template's; NCC and mutual information (64 bins, nats)
    are between the warped head, stripped by its true solid mask, and the stripped template, inside the template's
    brain.
    """

    def warp(image: NDArray, order: int) -> NDArray:
        return warp_to_template(image, head.affine, template, template_from_scan, order=order)

    return _score(head, template, warp)


def score_deformation(head: LabelledHead, template: TemplateTruth, registration: Registration) -> AffineScores:
    """Score a registration with its deformation, as `score_affine` does an affine."""
    voxels = np.moveaxis(np.indices(template.structures.shape), 0, -1).reshape(-1, 3)
    places = registration.scan_places(apply_affine(template.affine, voxels)).T.reshape(3, *template.structures.shape)

    def warp(image: NDArray, order: int) -> NDArray:
        return resample_at(image, head.affine, places, order=order)

    return _score(head, template, warp)


def _score(head: LabelledHead, template: TemplateTruth, warp: Callable[[NDArray, int], NDArray]) -> AffineScores:
    return score_warped(template, warp(head.structures, 0), warp(np.where(head.masks["solid"], head.image, 0), 1))


def score_warped(template: TemplateTruth, structures: NDArray[np.integer], brain: NDArray[np.floating]) -> AffineScores:
    """Score true structures and a stripped brain that lie on the template's grid already."""
    inside = template.brain > 0
    return AffineScores(
        dice=metrics.dice_per_label(template.structures, structures, LabelTable.load("aseg").indices, ignored=IGNORED),
        ncc=metrics.normalised_cross_correlation(brain[inside], template.brain[inside]),
        mutual_information=metrics.mutual_information(brain[inside], template.brain[inside]),
    )


def register(template: Prediction, scan: Prediction, *, nonlinear: bool = False) -> Registration:
    """Register a scan as the app does: closed form of both, refined, and deformed if asked for."""
    from unibrain_bids.interfaces.registration import register as register_as_app
    from unibrain_bids.interfaces.template import as_template

    return register_as_app(
        as_template("template", template), scan.brain, scan.structures, scan.scan.affine, scan.frame_from_scan,
        nonlinear=nonlinear,
    )  # fmt: skip
