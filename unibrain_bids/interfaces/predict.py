"""The model as a Nipype interface: one head in, everything that the model says of it out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nipype.interfaces.base import BaseInterfaceInputSpec, File, SimpleInterface, TraitedSpec, traits

from unibrain_bids.bids.atlases import AtlasSource
from unibrain_bids.bids.atomic import write_json
from unibrain_bids.bids.derivatives import DEFAULT_ATLAS
from unibrain_bids.imaging.images import save_image
from unibrain_bids.imaging.memory import reused_memory
from unibrain_bids.imaging.quality import quality_flags, quality_measures
from unibrain_bids.inference import Model, Network, Prediction, load_model, predict
from unibrain_bids.interfaces.atlases import HOME, follow_cortex, parcellate
from unibrain_bids.interfaces.registration import Registration, register
from unibrain_bids.interfaces.tables import write_network
from unibrain_bids.interfaces.template import load_template
from unibrain_bids.labels import LabelTable


class _PredictInput(BaseInterfaceInputSpec):
    in_file = File(mandatory=True, desc="raw head")
    smoothness = traits.Float(0.1, usedefault=True, desc="lambda of the multiplier field")
    random_seed = traits.Int(0, usedefault=True)
    parcellate = traits.Bool(True, usedefault=True, desc="whether the scan is registered and parcellated")
    atlases = traits.List(traits.Instance(AtlasSource), desc="parcellations beyond the network's own")
    device = traits.Str("auto", usedefault=True, desc="auto, cpu, cuda or cuda:N")
    weights = traits.Str("", usedefault=True, desc="weights other than the shipped ones")
    use_gpu = traits.Bool(False, usedefault=True, nohash=True, desc="tells MultiProc to reserve the GPU")
    num_threads = traits.Int(1, usedefault=True, nohash=True, desc="CPU threads")


class _PredictOutput(TraitedSpec):
    files = traits.Dict(traits.Str, traits.Str, desc="role in `bids.derivatives.catalogue` -> file on the scan's grid")
    frame_from_scan = traits.List(traits.List(traits.Float), desc="4x4, scan to population frame, RAS mm")
    mni_from_scan = traits.List(traits.List(traits.Float), desc="4x4 affine to MNI152NLin2009aSym, RAS mm, if any")


class UniBrainPredict(SimpleInterface):
    """Run `inference.predict` on one scan; images are written uncompressed, in the type that will be published."""

    input_spec = _PredictInput
    output_spec = _PredictOutput

    def _run_interface(self, runtime: Any) -> Any:
        torch.set_num_threads(self.inputs.num_threads)
        torch.manual_seed(self.inputs.random_seed)
        with reused_memory():
            self._predict(Path(runtime.cwd))
        return runtime

    def _predict(self, folder: Path) -> None:
        where = {"device": self.inputs.device, "weights": Path(self.inputs.weights) if self.inputs.weights else None}
        model = load_model(**where)
        prediction = predict(self.inputs.in_file, model=model, smoothness=self.inputs.smoothness)
        files = {}
        if self.inputs.parcellate:
            prediction, registration = follow_subject(
                prediction, self.inputs.atlases or (), cortex=isinstance(model, Model), **where
            )
            self._results["mni_from_scan"] = registration.template_from_scan.tolist()
            files["registration"] = str(folder / "registration.npz")
            registration.save(Path(files["registration"]))
        self._results["files"] = save_prediction(prediction, folder) | files
        self._results["frame_from_scan"] = prediction.frame_from_scan.tolist()


def follow_subject(
    prediction: Prediction,
    atlases: Sequence[AtlasSource] = (),
    *,
    cortex: bool = True,
    device: str = "auto",
    weights: Path | None = None,
) -> tuple[Prediction, Registration]:
    """Deform the package's template to a scan, and give the scan the regions of the atlases.

    Parameters
    ----------
    prediction
        The scan, as the model sees it.
    atlases
        In addition to the default one.
    cortex
        Whether the default atlas' regions of the cortex are the deformed template's, or stay the model's.
    device, weights
        Of the model that finds where templates lie.

    Returns
    -------
    tuple
        The prediction with its regions, and the registration to `HOME`.
    """
    registration = register(
        load_template(HOME, device, weights), prediction.brain, prediction.structures, prediction.scan.affine,
        prediction.frame_from_scan, nonlinear=True,
    )  # fmt: skip
    own = prediction.parcellations
    if cortex:
        own = own | {DEFAULT_ATLAS: follow_cortex(own[DEFAULT_ATLAS], prediction, registration)}
    others = parcellate(prediction, atlases, registration, device=device, weights=weights)
    return replace(prediction, parcellations=own | others), registration


def save_prediction(prediction: Prediction, folder: Path) -> dict[str, str]:
    """Write a prediction to `folder`: images (.nii), learned networks (.tsv), quality measures (.json), by role."""
    scan = prediction.scan
    images: dict[str, tuple[np.ndarray, Any]] = {
        "mask": (prediction.mask, np.uint8),
        "preproc": (prediction.preproc, np.int16),
        "brain": (prediction.brain, np.int16),
        "structures": (prediction.structures, np.int16),
        "tissues": (prediction.tissues, np.uint8),
        **{f"probability_{name}": (data, np.uint8) for name, data in prediction.tissue_probabilities.items()},
        **{f"parcels_{name}": (data, smallest_type(data)) for name, data in prediction.parcellations.items()},
    }
    files = {role: folder / f"{role}.nii" for role in images}
    for role, (data, dtype) in images.items():
        save_image(files[role], data, affine=scan.affine, like=scan.header, dtype=dtype)
    labels = LabelTable.load(DEFAULT_ATLAS)
    for measure, network in prediction.networks.items():
        role = f"network_{DEFAULT_ATLAS}_{measure}"
        files[role] = write_network(folder / f"{role}.tsv", labels.names, in_order_of(labels, network))
    if prediction.description is not None:
        files["description"] = folder / "description.npz"
        np.savez(files["description"], **asdict(prediction.description))
    files["quality"] = folder / "quality.json"
    write_json(files["quality"], quality_report(prediction))
    return {role: str(path) for role, path in files.items()}


def smallest_type(labels: np.ndarray) -> Any:
    """Return int16 where it holds all labels, else int32."""
    return np.int16 if labels.max(initial=0) <= np.iinfo(np.int16).max else np.int32


def in_order_of(labels: LabelTable, network: Network) -> np.ndarray:
    """Return the network's matrix (R, R) with the regions in the order of the table."""
    order = [network.index.index(number) for number in labels.indices]
    return network.matrix[np.ix_(order, order)]


def quality_report(prediction: Prediction) -> dict[str, Any]:
    """Return the quality measures of a scan, None where there is none, and as `flags` what deserves a look.

    The measures are those of the image after bias correction, as MRIQC takes it, and the model's own.
    """
    own: dict[str, Any] = dict(prediction.quality)
    flags = own.pop("flags", [])
    measures = {
        **quality_measures(prediction.preproc, prediction.mask, prediction.tissues, gain=prediction.gain),
        **own,
        "intracranial_volume": prediction.intracranial_volume,
    }
    flags = [*flags, *quality_flags(measures)]
    return {name: float(value) if math.isfinite(value) else None for name, value in measures.items()} | {"flags": flags}
