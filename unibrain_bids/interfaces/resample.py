"""From the scan's grid to those of templates, as Nipype interfaces."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nibabel.affines import apply_affine, from_matvec
from nibabel.nifti1 import Nifti1Image
from nipype.interfaces.base import BaseInterfaceInputSpec, SimpleInterface, TraitedSpec, traits
from numpy.typing import NDArray

from unibrain_bids.bids.atomic import write_json
from unibrain_bids.bids.templates import Space
from unibrain_bids.imaging.images import MNI_CODE, save_image
from unibrain_bids.imaging.itk import write_itk_affine, write_itk_displacements
from unibrain_bids.imaging.quality import quality_flags
from unibrain_bids.imaging.resample import resample, resample_at, smooth_towards
from unibrain_bids.interfaces.atlases import HOME
from unibrain_bids.interfaces.registration import Registration, register_files
from unibrain_bids.interfaces.template import (
    Template,
    load_template,
    read_template,
    register_template,
    registering_model,
    save_template,
)
from unibrain_bids.model.refine import Refinement

_INTENSITIES = ("preproc", "brain")
# Between the displacements in files; those of the frame lie as far apart.
_DISPLACEMENT_MM = 4.0


class _RegisterInput(BaseInterfaceInputSpec):
    spaces = traits.List(traits.Instance(Space), mandatory=True, desc="templates that come as files")
    device = traits.Str("auto", usedefault=True, desc="auto, cpu, cuda or cuda:N")
    weights = traits.Str("", usedefault=True, desc="weights other than the shipped ones")
    use_gpu = traits.Bool(False, usedefault=True, nohash=True, desc="tells MultiProc to reserve the GPU")
    num_threads = traits.Int(1, usedefault=True, nohash=True, desc="CPU threads")


class _RegisterOutput(TraitedSpec):
    files = traits.Dict(traits.Str, traits.Str, desc="label -> file that `template.read_template` reads")


class RegisterTemplates(SimpleInterface):
    """Run the model on templates that do not come with the package."""

    input_spec = _RegisterInput
    output_spec = _RegisterOutput

    def _run_interface(self, runtime: Any) -> Any:
        torch.set_num_threads(self.inputs.num_threads)
        model = registering_model(self.inputs.device, Path(self.inputs.weights) if self.inputs.weights else None)
        files = {space.label: Path(runtime.cwd) / f"{space.label}.npz" for space in self.inputs.spaces}
        for space in self.inputs.spaces:
            save_template(register_template(space.label, space.image, model), files[space.label])
        self._results["files"] = {label: str(path) for label, path in files.items()}
        return runtime


class _ResampleInput(BaseInterfaceInputSpec):
    files = traits.Dict(traits.Str, traits.Str, mandatory=True, desc="images on the scan's grid, by role")
    roles = traits.List(traits.Str, mandatory=True, desc="those to resample")
    frame_from_scan = traits.List(traits.List(traits.Float), mandatory=True, desc="4x4, RAS mm")
    spaces = traits.List(traits.Instance(Space), mandatory=True, desc="the templates")
    nonlinear = traits.Bool(False, usedefault=True, desc="deform as well, and write the displacements")
    registered = traits.Dict(traits.Str, traits.Str, usedefault=True, desc="label -> result of `RegisterTemplates`")
    device = traits.Str("auto", usedefault=True, desc="where the package's template is registered, if it has to be")
    weights = traits.Str("", usedefault=True, desc="weights other than the shipped ones")
    num_threads = traits.Int(1, usedefault=True, nohash=True, desc="images resampled at the same time")


class _ResampleOutput(TraitedSpec):
    files = traits.Dict(traits.Str, traits.Str, desc="images on the templates' grids and ITK transforms, by role")


class ResampleToTemplates(SimpleInterface):
    """Write both directions of the transforms to each template, and images on its grid: each is sampled once."""

    input_spec = _ResampleInput
    output_spec = _ResampleOutput

    def _run_interface(self, runtime: Any) -> Any:
        given = self.inputs
        torch.set_num_threads(given.num_threads)
        written: dict[str, Path] = {}
        weights = Path(given.weights) if given.weights else None
        for number, space in enumerate(given.spaces):
            path = given.registered.get(space.label)
            template = read_template(Path(path)) if path else load_template(space.label, given.device, weights)
            registration = self._registration(template, packaged=path is None)
            found = self._write(Path(runtime.cwd) / space.label, template, registration)
            written |= {space.role(role): path for role, path in found.items()}
            if number == 0 and "quality" in given.files:
                written["quality"] = Path(runtime.cwd) / "quality.json"
                quality = json.loads(Path(given.files["quality"]).read_text(encoding="utf-8"))
                write_json(written["quality"], with_agreement(quality, registration.agreement))
        self._results["files"] = {role: str(path) for role, path in written.items()}
        return runtime

    def _registration(self, template: Template, *, packaged: bool) -> Registration:
        """Read the registration to the package's template where the regions needed it already, or register."""
        given = self.inputs
        if packaged and template.name == HOME and "registration" in given.files:
            known = Registration.read(Path(given.files["registration"]))
            return known if given.nonlinear else replace(known, deformation=None)
        return register_files(
            given.files["brain"], given.files["structures"], template, np.array(given.frame_from_scan),
            nonlinear=given.nonlinear,
        )  # fmt: skip

    def _write(self, folder: Path, template: Template, registration: Registration) -> dict[str, Path]:
        """Write what there is for one template; returns the files by native role."""
        folder.mkdir(exist_ok=True)
        written = write_transforms(folder, template, registration)
        targets = {role: folder / f"{role}.nii" for role in self.inputs.roles}
        places = None if registration.deformation is None else scan_places(template, registration)

        def sample(role: str) -> None:
            matrix = registration.template_from_scan
            resample_file(role, self.inputs.files[role], targets[role], template, matrix, places)

        with ThreadPoolExecutor(self.inputs.num_threads) as pool:
            list(pool.map(sample, self.inputs.roles))
        return written | targets


def write_transforms(folder: Path, template: Template, registration: Registration) -> dict[str, Path]:
    """Write the affine in both directions, and the displacements where the template is deformed; by native role.

    A file named from-A_to-B resamples images of A onto B's grid: it maps points of B to A.
    """
    affines = {
        "scan_to_template": np.linalg.inv(registration.template_from_scan),
        "template_to_scan": registration.template_from_scan,
    }
    written = {role: folder / f"{role}.txt" for role in affines}
    for role, matrix in affines.items():
        write_itk_affine(written[role], matrix)
    if registration.deformation is None:
        return written
    affine, points = displacement_grid(template)
    scan_from_template = np.linalg.inv(registration.template_from_scan)
    flat = points.reshape(-1, 3)
    moved = {
        "scan_to_template_warp": apply_affine(registration.template_from_scan, registration.scan_places(flat)),
        "template_to_scan_warp": registration.template_places(apply_affine(scan_from_template, flat)),
    }
    for role, places in moved.items():
        written[role] = folder / f"{role}.nii"
        write_itk_displacements(written[role], (places - flat).reshape(points.shape), affine)
    return written


def displacement_grid(template: Template) -> tuple[np.ndarray, np.ndarray]:
    """Return a grid over the template every 4 mm: voxel to RAS mm (4, 4), and its points (x, y, z, 3)."""
    spacing = np.linalg.norm(template.affine[:3, :3], axis=0)
    steps = _DISPLACEMENT_MM / spacing
    shape = np.ceil((np.array(template.shape) - 1) / steps).astype(int) + 1
    affine = template.affine @ np.diag([*steps, 1.0])
    return affine, apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))


def scan_places(template: Template, registration: Registration) -> NDArray[np.float32]:
    """Return where in the scan (RAS mm) each voxel of the template lies, (3, X, Y, Z)."""
    places = np.empty((3, *template.shape), dtype=np.float32)
    plane = np.moveaxis(np.indices((1, *template.shape[1:])), 0, -1).reshape(-1, 3)
    for x in range(template.shape[0]):
        points = apply_affine(template.affine @ from_matvec(np.eye(3), [x, 0, 0]), plane)
        places[:, x] = registration.scan_places(points).T.reshape(3, *template.shape[1:])
    return places


def with_agreement(quality: Mapping[str, Any], agreement: Refinement | None) -> dict[str, Any]:
    """Return the quality measures of a scan with how well it fits the template, flagged where it does not."""
    if agreement is None:
        return dict(quality)
    measures = {"registration_overlap": agreement.overlap, "registration_correlation": agreement.correlation}
    return {**quality, **measures, "flags": [*quality.get("flags", []), *quality_flags(measures)]}


def resample_file(
    role: str,
    source: str,
    target: Path,
    template: Template,
    template_from_scan: np.ndarray,
    places: NDArray[np.float32] | None = None,
) -> None:
    """Sample one image on the template's grid: intensities linearly, labels by nearest, the mask by its surface.

    Parameters
    ----------
    role
        What the image is ("preproc", "mask", ...).
    source, target
        Files to read and to write.
    template
        Where to.
    template_from_scan
        (4, 4) RAS mm.
    places
        (3, X, Y, Z) where in the scan, RAS mm, each voxel of the template lies; by the affine when None.
    """
    image = Nifti1Image.from_filename(source)
    labels = role not in (*_INTENSITIES, "mask")
    data = np.asarray(image.dataobj) if labels else image.get_fdata(dtype=np.float32)
    order, smooth = (0, False) if labels else (1, role in _INTENSITIES)
    if places is None:
        result = resample(
            data, image.affine, shape=template.shape, target_affine=template.affine,
            target_from_source=template_from_scan, order=order, antialias=smooth,
        )  # fmt: skip
    else:
        if smooth:
            data = smooth_towards(data, template_from_scan @ image.affine, template.affine)
        result = resample_at(data, image.affine, places, order=order)
    if role == "mask":
        result = (result >= 0.5).astype(np.uint8)
    dtype: Any = np.int16 if role in _INTENSITIES else result.dtype
    save_image(target, result, affine=template.affine, code=MNI_CODE, dtype=dtype)
