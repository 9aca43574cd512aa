"""The model as a Nipype interface: one head in, everything that the model says of it out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nipype.interfaces.base import BaseInterfaceInputSpec, File, SimpleInterface, TraitedSpec, traits

from unibrain_bids.bids.atomic import write_json
from unibrain_bids.bids.derivatives import DEFAULT_ATLAS
from unibrain_bids.imaging.images import save_image
from unibrain_bids.imaging.quality import quality_measures
from unibrain_bids.inference import Network, Prediction, load_model, predict
from unibrain_bids.interfaces.tables import write_network
from unibrain_bids.labels import LabelTable


class _PredictInput(BaseInterfaceInputSpec):
    in_file = File(mandatory=True, desc="raw head")
    smoothness = traits.Float(0.1, usedefault=True, desc="lambda of the multiplier field")
    random_seed = traits.Int(0, usedefault=True)
    device = traits.Str("auto", usedefault=True, desc="auto, cpu, cuda or cuda:N")
    use_gpu = traits.Bool(False, usedefault=True, nohash=True, desc="tells MultiProc to reserve the GPU")
    num_threads = traits.Int(1, usedefault=True, nohash=True, desc="CPU threads")


class _PredictOutput(TraitedSpec):
    files = traits.Dict(traits.Str, traits.Str, desc="role in `bids.derivatives.catalogue` -> file on the scan's grid")
    frame_from_scan = traits.List(traits.List(traits.Float), desc="4x4, scan to population frame, RAS mm")


class UniBrainPredict(SimpleInterface):
    """Run `inference.predict` on one scan; images are written uncompressed, in the type that will be published."""

    input_spec = _PredictInput
    output_spec = _PredictOutput

    def _run_interface(self, runtime: Any) -> Any:
        torch.set_num_threads(self.inputs.num_threads)
        torch.manual_seed(self.inputs.random_seed)
        model = load_model(self.inputs.device)
        prediction = predict(self.inputs.in_file, model=model, smoothness=self.inputs.smoothness)
        self._results["files"] = save_prediction(prediction, Path(runtime.cwd))
        self._results["frame_from_scan"] = prediction.frame_from_scan.tolist()
        return runtime


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
        **{f"parcels_{name}": (data, np.int16) for name, data in prediction.parcellations.items()},
    }
    files = {role: folder / f"{role}.nii" for role in images}
    for role, (data, dtype) in images.items():
        save_image(files[role], data, affine=scan.affine, like=scan.header, dtype=dtype)
    labels = LabelTable.load(DEFAULT_ATLAS)
    for measure, network in prediction.networks.items():
        role = f"network_{DEFAULT_ATLAS}_{measure}"
        files[role] = write_network(folder / f"{role}.tsv", labels.names, in_order_of(labels, network))
    files["quality"] = folder / "quality.json"
    write_json(files["quality"], quality_report(prediction))
    return {role: str(path) for role, path in files.items()}


def in_order_of(labels: LabelTable, network: Network) -> np.ndarray:
    """Return the network's matrix (R, R) with the regions in the order of the table."""
    order = [network.index.index(number) for number in labels.indices]
    return network.matrix[np.ix_(order, order)]


def quality_report(prediction: Prediction) -> dict[str, float | None]:
    """Return the quality measures of a scan: those of the image, and the model's own; None where there is none."""
    image, mask, tissues = prediction.scan.data, prediction.mask, prediction.tissues
    measures = {
        **quality_measures(image, mask, tissues, gain=prediction.gain),
        **prediction.quality,
        "intracranial_volume": prediction.intracranial_volume,
    }
    return {name: float(value) if math.isfinite(value) else None for name, value in measures.items()}
