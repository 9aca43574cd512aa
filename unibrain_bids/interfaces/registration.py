"""Where a scan lies in a template: the affine, and on top of it, where asked for, a deformation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.affines import apply_affine, from_matvec
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray

from unibrain_bids.imaging.boxes import bounding_box
from unibrain_bids.interfaces.template import Template
from unibrain_bids.model.deform import Deformation, deform
from unibrain_bids.model.refine import Refinement, align_brain, refine_twice

# Around the structures, so that the affine may move them.
_MARGIN_VOXELS = 12


@dataclass(frozen=True)
class Registration:
    """What relates a scan to a template.

    Attributes
    ----------
    template_from_scan
        (4, 4) affine, RAS mm.
    frame_from_template
        (4, 4) from the template to the population frame, in which the deformation stands.
    agreement
        Of both brains after the affine; None where the model knows no structures.
    deformation
        From the template to the scan that the affine has brought there; None for the affine alone.
    """

    template_from_scan: NDArray[np.float64]
    frame_from_template: NDArray[np.float64]
    agreement: Refinement | None = None
    deformation: Deformation | None = None

    @property
    def frame_from_scan(self) -> NDArray[np.float64]:
        """Affine (4, 4) from the scan to the population frame by way of the template, RAS mm."""
        return self.frame_from_template @ self.template_from_scan

    def frame_places(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Points (N, 3) of the scan, RAS mm, to the places in the frame where the template has the same."""
        moved: NDArray[np.float64] = apply_affine(self.frame_from_scan, points)
        return moved if self.deformation is None else self.deformation.fixed_from_moving(moved)

    def template_places(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Points (N, 3) of the scan, RAS mm, to the same places in the template."""
        placed: NDArray[np.float64] = apply_affine(np.linalg.inv(self.frame_from_template), self.frame_places(points))
        return placed

    def scan_places(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Points (N, 3) of the template, RAS mm, to the same places in the scan."""
        moved: NDArray[np.float64] = apply_affine(self.frame_from_template, points)
        if self.deformation is not None:
            moved = self.deformation.moving_from_fixed(moved)
        placed: NDArray[np.float64] = apply_affine(np.linalg.inv(self.frame_from_scan), moved)
        return placed

    def save(self, path: Path) -> None:
        """Write what `Registration.read` reads (.npz)."""
        arrays: dict[str, Any] = {
            "template_from_scan": self.template_from_scan,
            "frame_from_template": self.frame_from_template,
        }
        if self.agreement is not None:
            arrays["moving_from_fixed"] = self.agreement.moving_from_fixed
            arrays["agreement"] = np.array([self.agreement.overlap, self.agreement.correlation])
        if self.deformation is not None:
            arrays |= {"forward": self.deformation.forward, "inverse": self.deformation.inverse}
        np.savez(path, **arrays)

    @classmethod
    def read(cls, path: Path) -> Registration:
        """Read what `save` has written."""
        with np.load(path) as stored:
            agreement = deformation = None
            if "agreement" in stored:
                agreement = Refinement(stored["moving_from_fixed"], *stored["agreement"].tolist())
            if "forward" in stored:
                deformation = Deformation(stored["forward"], stored["inverse"])
            return cls(stored["template_from_scan"], stored["frame_from_template"], agreement, deformation)


def register(
    template: Template,
    brain: NDArray[np.floating],
    structures: NDArray[np.integer],
    affine: NDArray[np.floating],
    frame_from_scan: NDArray[np.floating],
    *,
    nonlinear: bool,
) -> Registration:
    """Register a scan to a template.

    Where the model knows no structures its affine is taken as it is, and nothing is deformed.

    Parameters
    ----------
    template
        Where to.
    brain, structures
        The scan's stripped, normalised image and its FreeSurfer numbers, (X, Y, Z).
    affine
        Their voxel to world, RAS mm.
    frame_from_scan
        Scan world to population frame, RAS mm, by the closed form.
    nonlinear
        Whether to fit a deformation.
    """
    if not structures.any():
        return Registration(np.linalg.inv(template.frame_from_template) @ frame_from_scan, template.frame_from_template)
    box = bounding_box(structures > 0, margin=_MARGIN_VOXELS)
    corner = from_matvec(np.eye(3), [piece.start for piece in box])
    brain, structures, affine = brain[box], structures[box], affine @ corner
    found = refine_twice(template.brain, brain, structures, affine, frame_from_scan)
    matrix = found.worlds(template.frame_from_template, frame_from_scan)
    result = Registration(matrix, template.frame_from_template, found)
    if not nonlinear:
        return result
    moving = align_brain(brain, structures, affine, result.frame_from_scan)
    return replace(result, deformation=deform(template.brain, moving))


def register_files(
    brain: str, structures: str, template: Template, frame_from_scan: NDArray[np.floating], *, nonlinear: bool
) -> Registration:
    """Register a scan whose stripped brain and structures lie in image files; see `register`."""
    labels = Nifti1Image.from_filename(structures)
    image = Nifti1Image.from_filename(brain).get_fdata(dtype=np.float32)
    affine = np.asarray(labels.affine, dtype=np.float64)
    return register(template, image, np.asarray(labels.dataobj), affine, frame_from_scan, nonlinear=nonlinear)
