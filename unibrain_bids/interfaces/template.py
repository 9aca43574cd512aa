"""The template: its grid, and where it lies in the model's population frame.

`python -m unibrain_bids.interfaces.template` processes the templates with the shipped weights and stores in
`resources/templates` where they lie in the frame, and their structures and parcels as the model sees them; to be run
once after new weights.
"""

from __future__ import annotations

import importlib.util
import json
import logging
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray

from unibrain_bids.bids.atomic import write_json
from unibrain_bids.errors import ResourceError, ScanError
from unibrain_bids.imaging.images import MNI_CODE, save_image
from unibrain_bids.inference import AnyModel, Model, Prediction, load_model, predict, resource
from unibrain_bids.model.refine import AlignedBrain, align_brain

logger = logging.getLogger(__name__)

# The T1 that comes with nilearn: 1 mm, stripped.
_NILEARN = {"MNI152NLin2009aSym": "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"}


@dataclass(frozen=True)
class Template:
    """A template, registered to the population frame.

    Attributes
    ----------
    name
        Its BIDS label.
    shape, affine
        Its grid: (X, Y, Z), and voxel to RAS mm (4, 4).
    frame_from_template
        (4, 4) template world to population frame, RAS mm.
    brain
        Its structures, intensities and tissues there.
    """

    name: str
    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    frame_from_template: NDArray[np.float64]
    brain: AlignedBrain


@lru_cache(maxsize=4)
def load_template(name: str, device: str = "auto", weights: Path | None = None) -> Template:
    """Return a template registered by the shipped model, or by one with other weights.

    `resources/templates/<name>.json` holds the result for the weights that it names; with other weights the template is
    registered here, once per process.

    Raises
    ------
    ResourceError
        There is no such template, or nilearn lacks its file.
    """
    model = registering_model(device, weights)
    path = _stored(name)
    stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if stored.get("weights_sha256") != model.sha256:
        return register_template(name, template_path(name), model)
    image = Nifti1Image.from_filename(template_path(name))
    structures = Nifti1Image.from_filename(_stored_labels(name, "seg-aseg"))
    matrix = np.array(stored["frame_from_template"])
    return _template(name, image.get_fdata(dtype=np.float32), np.asarray(structures.dataobj), image.affine, matrix)


def registering_model(device: str = "auto", weights: Path | None = None) -> AnyModel:
    """Return the model that finds where templates lie in the frame: the unified one, whichever sees the scans.

    All models are taught the same frame, and only the unified one knows the structures that templates are compared by.
    """
    model = load_model(device, weights)
    return model if isinstance(model, Model) else load_model(device)


def register_template(name: str, path: Path, model: AnyModel) -> Template:
    """Return a template, a T1-weighted head or brain, as the model finds it.

    Raises
    ------
    ResourceError
        The image cannot be read, or no brain is found in it.
    """
    logger.info("%s is registered with these weights for the first time", name)
    try:
        found = predict(path, model=model)
    except ScanError as error:
        raise ResourceError(f"Template {name}: {error.message}", error.remedy) from error
    return as_template(name, found)


def as_template(name: str, found: Prediction) -> Template:
    """Return a scan, as the model found it, as a template that others are registered to."""
    return _template(name, found.brain, found.structures, found.scan.affine, found.frame_from_scan)


def save_template(template: Template, path: Path) -> None:
    """Write a registered template to a file (.npz) that `read_template` reads."""
    np.savez_compressed(
        path,
        name=template.name,
        shape=template.shape,
        affine=template.affine,
        frame_from_template=template.frame_from_template,
        channels=template.brain.channels.numpy().astype(np.uint8),
        image=template.brain.image.numpy(),
        tissues=template.brain.tissues.numpy(),
    )


def read_template(path: Path) -> Template:
    """Read what `save_template` has written."""
    with np.load(path) as stored:
        x, y, z = stored["shape"].tolist()
        channels = torch.from_numpy(stored["channels"].astype(np.int64))
        brain = AlignedBrain(channels, torch.from_numpy(stored["image"]), torch.from_numpy(stored["tissues"]))
        return Template(str(stored["name"]), (x, y, z), stored["affine"], stored["frame_from_template"], brain)


def _template(
    name: str,
    image: NDArray[np.floating],
    structures: NDArray[np.integer],
    affine: NDArray[np.floating],
    frame_from_template: NDArray[np.float64],
) -> Template:
    x, y, z = image.shape
    brain = align_brain(image, structures, affine, frame_from_template)
    return Template(name, (x, y, z), np.asarray(affine, dtype=np.float64), frame_from_template, brain)


def store_registration(name: str) -> list[Path]:
    """Process a template with the shipped weights and write the results where `load_template` looks for them."""
    model = load_model("cpu")
    prediction = predict(template_path(name), model=model)
    path = _stored(name)
    write_json(path, {"weights_sha256": model.sha256, "frame_from_template": prediction.frame_from_scan.tolist()})
    parcels = prediction.parcellations["DK"]
    labels: dict[str, NDArray[np.integer]] = {"seg-aseg": prediction.structures, "atlas-DK": parcels}
    written = [path]
    for entity, data in labels.items():
        written.append(_stored_labels(name, entity))
        save_image(written[-1], data, affine=prediction.scan.affine, code=MNI_CODE, dtype=np.int16)
    return written


def template_path(name: str) -> Path:
    """Return the image of a template.

    Raises
    ------
    ResourceError
        There is no such template, or nilearn lacks its file.
    """
    package = importlib.util.find_spec("nilearn")  # located, not imported: that would take a second
    if name not in _NILEARN or package is None or not package.submodule_search_locations:
        raise ResourceError(f"There is no template {name}.", f"Use {', '.join(_NILEARN)}, with nilearn installed.")
    path = Path(package.submodule_search_locations[0]) / _NILEARN[name]
    if not path.is_file():
        raise ResourceError(f"{path}: nilearn's template is missing.", "Reinstall nilearn.")
    return path


def _stored(name: str) -> Path:
    return resource("labels").parent / "templates" / f"{name}.json"


def _stored_labels(name: str, entity: str) -> Path:
    return _stored(name).with_name(f"tpl-{name}_res-1_{entity}_dseg.nii.gz")


if __name__ == "__main__":
    for template in _NILEARN:
        print(*store_registration(template), sep="\n")
