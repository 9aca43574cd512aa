"""Weights in and out: safetensors, half precision on disk, with the card's facts as metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unibrain_bids.errors import ResourceError


def save_weights(path: Path, modules: Mapping[str, Mapping[str, Tensor]], metadata: Mapping[str, str]) -> None:
    """Write the state of several modules into one file, floating point tensors as float16."""
    tensors = {}
    for prefix, state in modules.items():
        for name, tensor in state.items():
            stored = tensor.half() if tensor.is_floating_point() else tensor
            tensors[f"{prefix}.{name}"] = stored.contiguous().cpu()
    save_file(tensors, path, metadata=dict(metadata))
    path.chmod(0o644)  # safetensors makes files that only their owner can read


def load_weights(path: Path, modules: Mapping[str, nn.Module]) -> dict[str, str]:
    """Fill the modules from the file; returns its metadata.

    Raises
    ------
    ResourceError
        If the file is missing, damaged, or made for other module sizes.
    """
    try:
        stored = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ResourceError(f"Cannot read the weights {path}: {error}.", "Reinstall the package.") from error
    for prefix, module in modules.items():
        state = {n.removeprefix(f"{prefix}."): t.float() for n, t in stored.items() if n.startswith(f"{prefix}.")}
        try:
            module.load_state_dict(state)
        except RuntimeError as error:
            remedy = "Use weights made for this version of the package."
            raise ResourceError(f"The weights {path} do not fit the module {prefix!r}.", remedy) from error
    return weights_metadata(path)


def weights_metadata(path: Path) -> dict[str, str]:
    """What a file of weights says of itself.

    Raises
    ------
    ResourceError
        If the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            return opened.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise ResourceError(f"Cannot read the weights {path}: {error}.", "Reinstall the package.") from error


def average_of(checkpoint: Path) -> dict[str, Tensor]:
    """The averaged weights of a training checkpoint."""
    return torch.load(checkpoint, map_location="cpu", weights_only=True)["average"]
