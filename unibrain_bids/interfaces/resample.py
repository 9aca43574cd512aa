"""From the scan's grid to the template's, as a Nipype interface."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Image
from nipype.interfaces.base import BaseInterfaceInputSpec, SimpleInterface, TraitedSpec, traits

from unibrain_bids.bids.atomic import write_json
from unibrain_bids.imaging.images import MNI_CODE, save_image
from unibrain_bids.imaging.itk import write_itk_affine
from unibrain_bids.imaging.quality import quality_flags
from unibrain_bids.imaging.resample import resample
from unibrain_bids.interfaces.template import Template, load_template, register_to
from unibrain_bids.model.refine import Refinement

_INTENSITIES = ("preproc", "brain")


class _ResampleInput(BaseInterfaceInputSpec):
    files = traits.Dict(traits.Str, traits.Str, mandatory=True, desc="images on the scan's grid, by role")
    roles = traits.List(traits.Str, mandatory=True, desc="those to resample")
    frame_from_scan = traits.List(traits.List(traits.Float), mandatory=True, desc="4x4, RAS mm")
    template = traits.Str(mandatory=True, desc="name of the template")
    device = traits.Str("auto", usedefault=True, desc="where the template is registered, if it has to be")
    num_threads = traits.Int(1, usedefault=True, nohash=True, desc="images resampled at the same time")


class _ResampleOutput(TraitedSpec):
    files = traits.Dict(traits.Str, traits.Str, desc="images on the template's grid and ITK affines, by role")


class ResampleToTemplate(SimpleInterface):
    """Write both directions of the affine, and images on the template's grid: each is sampled once."""

    input_spec = _ResampleInput
    output_spec = _ResampleOutput

    def _run_interface(self, runtime: Any) -> Any:
        folder = Path(runtime.cwd)
        template = load_template(self.inputs.template, self.inputs.device)
        template_from_scan, agreement = register_files(
            self.inputs.files["brain"], self.inputs.files["structures"], template, np.array(self.inputs.frame_from_scan)
        )
        # A file named from-A_to-B resamples images of A onto B's grid: it maps points of B to A.
        transforms = {
            "scan_to_template": np.linalg.inv(template_from_scan),
            "template_to_scan": template_from_scan,
        }
        for role, matrix in transforms.items():
            write_itk_affine(folder / f"{role}.txt", matrix)
        targets = {f"template_{role}": folder / f"template_{role}.nii" for role in self.inputs.roles}

        def sample(role: str) -> None:
            resample_file(role, self.inputs.files[role], targets[f"template_{role}"], template, template_from_scan)

        with ThreadPoolExecutor(self.inputs.num_threads) as pool:
            list(pool.map(sample, self.inputs.roles))
        written = {role: folder / f"{role}.txt" for role in transforms} | targets
        if "quality" in self.inputs.files:
            written["quality"] = folder / "quality.json"
            quality = json.loads(Path(self.inputs.files["quality"]).read_text(encoding="utf-8"))
            write_json(written["quality"], with_agreement(quality, agreement))
        self._results["files"] = {role: str(path) for role, path in written.items()}
        return runtime


def register_files(
    brain: str, structures: str, template: Template, frame_from_scan: np.ndarray
) -> tuple[np.ndarray, Refinement]:
    """Return `template_from_scan` of a scan whose brain and structures lie in files; see `template.register_to`."""
    image, labels = Nifti1Image.from_filename(brain), Nifti1Image.from_filename(structures)
    return register_to(
        template, image.get_fdata(dtype=np.float32), np.asarray(labels.dataobj), image.affine, frame_from_scan
    )


def with_agreement(quality: Mapping[str, Any], agreement: Refinement) -> dict[str, Any]:
    """Return the quality measures of a scan with how well it fits the template, flagged where it does not."""
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
