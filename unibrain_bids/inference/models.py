"""Which models there are, and one way to load and to run them all.

A model is a module of this room that gives a `Prediction` with what it knows; everything else in it stays empty. What
the app writes of each stands in `workflows.processing.MODELS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unibrain_bids.errors import ResourceError
from unibrain_bids.imaging.scan import Scan
from unibrain_bids.inference import loading, npp, published, unified
from unibrain_bids.inference.prediction import Prediction

AnyModel = loading.Model | npp.NppModel | published.PublishedModel


@dataclass(frozen=True)
class Kind:
    """How a model is loaded (device, weights) and run (scan, model, smoothness and its own options)."""

    load: Callable[[str, Path | None], Any]
    predict: Callable[..., Prediction]


KINDS: dict[str, Kind] = {
    "unified": Kind(loading.load_model, unified.predict),
    "npp": Kind(npp.load_npp, npp.predict_npp),
    "unibrain": Kind(published.load_published, published.predict_published),
}


def load_model(device: str = "auto", weights: Path | None = None, *, name: str | None = None) -> AnyModel:
    """A model on a device, loaded once per process.

    Parameters
    ----------
    device
        auto, cpu, cuda or cuda:i.
    weights
        A file of weights; those that come with the package when None.
    name
        One of `KINDS`; when None the one whose weights the file holds, or the unified model without a file.

    Raises
    ------
    ResourceError
        There is no such model, or the file holds no weights of it.
    DeviceError
        There is no such device.
    """
    name = name or (kind_of(weights) if weights else loading.UNIFIED_MODEL)
    if name not in KINDS:
        raise ResourceError(f"There is no model {name!r}.", f"Choose from: {', '.join(KINDS)}.")
    model: AnyModel = KINDS[name].load(device, weights)
    return model


def kind_of(weights: Path) -> str:
    """The name of the model whose weights a file holds.

    Raises
    ------
    ResourceError
        The file cannot be read, or holds no model's weights.
    """
    held = loading.modules_in(weights)
    for name, modules in loading.MODULES.items():
        if modules <= held:
            return name
    raise ResourceError(f"{weights}: holds no model's weights.", "docs/training.md says how they are made.")


def predict(
    scan: Scan | Path | str, *, model: AnyModel | None = None, smoothness: float = 0.1, **options: Any
) -> Prediction:
    """Process one T1-weighted head.

    Parameters
    ----------
    scan
        A loaded scan or the path of a NIfTI file: any orientation, spacing and field of view.
    model
        From `load_model`; the unified model with the shipped weights on the best device when None.
    smoothness
        NPP's lambda: larger gives a smoother intensity correction (trained for 0.001 to 10).
    options
        Of the model alone: `mirror` of the unified model (`unified.predict`).

    Raises
    ------
    ScanError
        If the file cannot be read or no brain is found in it.
    """
    model = model or load_model()
    return KINDS[model.kind].predict(scan, model=model, smoothness=smoothness, **options)
