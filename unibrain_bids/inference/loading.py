"""The unified model on a device; which model a file of weights belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from unibrain_bids.errors import DeviceError, ResourceError
from unibrain_bids.model.aligner import Aligner
from unibrain_bids.model.atlas import Atlas
from unibrain_bids.model.first_look import FirstLook
from unibrain_bids.model.presets import UNIFIED
from unibrain_bids.model.refiner import Refiner
from unibrain_bids.model.unibrain import UniBrain
from unibrain_bids.model.weights import load_weights, weights_metadata

UNIFIED_MODEL = "unified"
# What files of weights hold, by the name of the model.
MODULES: dict[str, frozenset[str]] = {
    UNIFIED_MODEL: frozenset(("first_look", "aligner", "unibrain", "refiner")),
    "npp": frozenset(("npp",)),
    "unibrain": frozenset(("published",)),
}


@dataclass(frozen=True)
class Model:
    """The unified model: networks, atlas and provenance, ready on a device.

    Attributes
    ----------
    first_look, aligner, unibrain, refiner
        The networks, in evaluation mode: 8 mm, 4 mm, 2 mm and 1 mm.
    device
        Where they are.
    sha256
        Of the weights file.
    metadata
        Of the weights file (training data, revision, licence).
    """

    kind: ClassVar[str] = UNIFIED_MODEL
    first_look: FirstLook
    aligner: Aligner
    unibrain: UniBrain
    refiner: Refiner
    device: torch.device
    sha256: str
    metadata: dict[str, str]


def resolve_device(name: str = "auto") -> torch.device:
    """The torch device of `auto`, `cpu`, `cuda` or `cuda:i`.

    Raises
    ------
    DeviceError
        If the name is unknown or the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"Unknown device {name!r}.", "Use auto, cpu, cuda or cuda:<number>.") from error
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"Unsupported device {name!r}.", "Use auto, cpu, cuda or cuda:<number>.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"There is no device {name!r} on this machine.", "Use --device cpu, or start with a GPU.")
    return device


@lru_cache(maxsize=2)
def load_model(device: str = "auto", weights: Path | None = None) -> Model:
    """The shipped unified model (or other weights for it), loaded once per process and device."""
    opened, atlas = open_weights(UNIFIED_MODEL, device, weights), population_atlas()
    first, second = FirstLook(UNIFIED.first_look_widths), Aligner(UNIFIED.aligner_widths, atlas)
    unibrain, refiner = UniBrain(UNIFIED, atlas), Refiner(UNIFIED.widths[0], *UNIFIED.refiner_widths)
    opened.fill({"first_look": first, "aligner": second, "unibrain": unibrain, "refiner": refiner})
    return Model(first, second, unibrain, refiner, opened.device, opened.sha256, opened.metadata)


@dataclass(frozen=True)
class Weights:
    """A file that holds a model's weights, and the device that they are for."""

    path: Path
    device: torch.device
    sha256: str
    metadata: dict[str, str]

    def fill(self, networks: Mapping[str, nn.Module]) -> None:
        """Make the networks, under their names in the file, ready for use on the device: evaluation, no gradients.

        Raises
        ------
        ResourceError
            They have other sizes than the file's.
        """
        load_weights(self.path, networks)
        for network in networks.values():
            network.eval().requires_grad_(False).to(self.device)


def open_weights(model: str, device: str = "auto", path: Path | None = None) -> Weights:
    """The shipped weights of a model, by its name, or those of a file, for a device.

    Raises
    ------
    DeviceError
        There is no such device.
    ResourceError
        The file cannot be read, or holds no weights of the model.
    """
    path = path or shipped_weights(model)
    return Weights(path, resolve_device(device), weights_digest(path, model=model), weights_metadata(path))


def population_atlas() -> Atlas:
    """The soft atlas of the population frame, on the CPU."""
    with np.load(resource("population/atlas.npz")) as arrays:
        return Atlas.from_arrays(arrays)


def shipped_weights(model: str = UNIFIED_MODEL) -> Path:
    """The file of weights that comes with the package, by the name of the model."""
    return resource(f"weights/{model}.safetensors")


def weights_digest(weights: Path | None = None, *, model: str = UNIFIED_MODEL) -> str:
    """SHA-256 of the shipped weights of a model, or of others for it.

    Raises
    ------
    ResourceError
        The file cannot be read, or holds no weights of the model.
    """
    path = weights or shipped_weights(model)
    if missing := MODULES[model] - modules_in(path):
        remedy = f"Give weights for --model {model}; docs/training.md says how they are made."
        raise ResourceError(f"{path}: holds no {', '.join(sorted(missing))}.", remedy)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def modules_in(path: Path) -> frozenset[str]:
    """Names of the networks whose weights a file holds.

    Raises
    ------
    ResourceError
        The file cannot be read.
    """
    try:
        with safe_open(path, framework="numpy") as opened:
            return frozenset(name.partition(".")[0] for name in opened.keys())  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError) as error:
        raise ResourceError(f"{path}: cannot be read as weights ({error}).", "Give a .safetensors file.") from error


def resource(name: str) -> Path:
    """Path of a file under `unibrain_bids/resources`.

    Raises
    ------
    ResourceError
        If the installation lacks it.
    """
    with as_file(files("unibrain_bids") / "resources" / name) as path:
        if not path.exists():
            raise ResourceError(f"The file {path} is missing from the installation.", "Reinstall unibrain-bids.")
        return path
