"""From the scan's grid to those of templates, as Nipype interfaces."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nibabel.nifti1 import Nifti1Image
from nipype.interfaces.base import BaseInterfaceInputSpec, SimpleInterface, TraitedSpec, traits

from unibrain_bids.bids.atomic import write_json
from unibrain_bids.bids.templates import Space
from unibrain_bids.imaging.boxes import bounding_box
from unibrain_bids.imaging.images import MNI_CODE, save_image
from unibrain_bids.imaging.itk import write_itk_affine
from unibrain_bids.imaging.quality import quality_flags
from unibrain_bids.imaging.resample import resample
from unibrain_bids.interfaces.template import (
    Template,
    load_template,
    read_template,
    register_template,
    register_to,
    registering_model,
    save_template,
)
from unibrain_bids.model.refine import Refinement

# Around the structures, so that the affine may move them.
_MARGIN_VOXELS = 12
_INTENSITIES = ("preproc", "brain")


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
    registered = traits.Dict(traits.Str, traits.Str, usedefault=True, desc="label -> result of `RegisterTemplates`")
    device = traits.Str("auto", usedefault=True, desc="where the package's template is registered, if it has to be")
    weights = traits.Str("", usedefault=True, desc="weights other than the shipped ones")
    num_threads = traits.Int(1, usedefault=True, nohash=True, desc="images resampled at the same time")


class _ResampleOutput(TraitedSpec):
    files = traits.Dict(traits.Str, traits.Str, desc="images on the templates' grids and ITK affines, by role")


class ResampleToTemplates(SimpleInterface):
    """Write both directions of the affine to each template, and images on its grid: each is sampled once."""

    input_spec = _ResampleInput
    output_spec = _ResampleOutput

    def _run_interface(self, runtime: Any) -> Any:
        given = self.inputs
        written: dict[str, Path] = {}
        frame_from_scan = np.array(given.frame_from_scan)
        weights = Path(given.weights) if given.weights else None
        for number, space in enumerate(given.spaces):
            path = given.registered.get(space.label)
            template = read_template(Path(path)) if path else load_template(space.label, given.device, weights)
            template_from_scan, agreement = register_files(
                given.files["brain"], given.files["structures"], template, frame_from_scan
            )
            found = self._write(Path(runtime.cwd) / space.label, template, template_from_scan)
            written |= {space.role(role): path for role, path in found.items()}
            if number == 0 and "quality" in given.files:
                written["quality"] = Path(runtime.cwd) / "quality.json"
                quality = json.loads(Path(given.files["quality"]).read_text(encoding="utf-8"))
                write_json(written["quality"], with_agreement(quality, agreement))
        self._results["files"] = {role: str(path) for role, path in written.items()}
        return runtime

    def _write(self, folder: Path, template: Template, template_from_scan: np.ndarray) -> dict[str, Path]:
        """Write what there is for one template; returns the files by native role."""
        folder.mkdir(exist_ok=True)
        # A file named from-A_to-B resamples images of A onto B's grid: it maps points of B to A.
        transforms = {
            "scan_to_template": np.linalg.inv(template_from_scan),
            "template_to_scan": template_from_scan,
        }
        for role, matrix in transforms.items():
            write_itk_affine(folder / f"{role}.txt", matrix)
        targets = {role: folder / f"{role}.nii" for role in self.inputs.roles}

        def sample(role: str) -> None:
            resample_file(role, self.inputs.files[role], targets[role], template, template_from_scan)

        with ThreadPoolExecutor(self.inputs.num_threads) as pool:
            list(pool.map(sample, self.inputs.roles))
        return {role: folder / f"{role}.txt" for role in transforms} | targets


def register_files(
    brain: str, structures: str, template: Template, frame_from_scan: np.ndarray
) -> tuple[np.ndarray, Refinement | None]:
    """Return `template_from_scan` of a scan whose brain and structures lie in files; see `template.register_to`.

    Where the model knows no structures its affine is taken as it is, and there is no agreement to tell of.
    """
    labels = np.asarray(Nifti1Image.from_filename(structures).dataobj)
    if not labels.any():
        return np.linalg.inv(template.frame_from_template) @ frame_from_scan, None
    box = bounding_box(labels > 0, margin=_MARGIN_VOXELS)
    image = Nifti1Image.from_filename(brain).slicer[box]
    return register_to(template, image.get_fdata(dtype=np.float32), labels[box], image.affine, frame_from_scan)


def with_agreement(quality: Mapping[str, Any], agreement: Refinement | None) -> dict[str, Any]:
    """Return the quality measures of a scan with how well it fits the template, flagged where it does not."""
    if agreement is None:
        return dict(quality)
    measures = {"registration_overlap": agreement.overlap, "registration_correlation": agreement.correlation}
    return {**quality, **measures, "flags": [*quality.get("flags", []), *quality_flags(measures)]}


def resample_file(role: str, source: str, target: Path, template: Template, template_from_scan: np.ndarray) -> None:
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
    """
    image = Nifti1Image.from_filename(source)
    grid: Mapping[str, Any] = {
        "shape": template.shape,
        "target_affine": template.affine,
        "target_from_source": template_from_scan,
    }
    if role in _INTENSITIES:
        data = resample(image.get_fdata(dtype=np.float32), image.affine, antialias=True, **grid)
        dtype: Any = np.int16
    elif role == "mask":
        data = resample(image.get_fdata(dtype=np.float32), image.affine, **grid) >= 0.5
        dtype = np.uint8
    else:
        data = resample(np.asarray(image.dataobj), image.affine, order=0, **grid)
        dtype = data.dtype
    save_image(target, data, affine=template.affine, code=MNI_CODE, dtype=dtype)
