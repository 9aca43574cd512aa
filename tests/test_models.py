"""Several models behind one `load_model` and one `predict`: which file belongs to which, and what each one knows."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from unibrain_bids import demo
from unibrain_bids.errors import ResourceError, ScanError
from unibrain_bids.imaging.scan import Scan, load_scan
from unibrain_bids.inference import Prediction, load_model, predict, shipped_weights, weights_digest
from unibrain_bids.inference.loading import MODULES
from unibrain_bids.inference.models import KINDS, kind_of
from unibrain_bids.inference.npp import NppModel
from unibrain_bids.model.npp import NPP
from unibrain_bids.model.presets import NPP_SMALL
from unibrain_bids.model.weights import save_weights
from unibrain_bids.workflows.processing import MODELS


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of an NPP that has learnt nothing: its field is nearly the same everywhere."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "any-name.safetensors"
    save_weights(path, {"npp": NPP(NPP_SMALL).state_dict()}, {"preset": NPP_SMALL.name})
    return path


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Scan:
    head = demo.DemoScan("01", "1", 101)
    span = replace(demo.SPAN, shape=(54, 66, 63), spacing=4.0)
    root = demo.write_dataset(tmp_path_factory.mktemp("demo"), (head,), span)
    return load_scan(root / head.path)


@pytest.fixture(scope="module")
def prediction(untrained: Path, scan: Scan) -> Prediction:
    return predict(scan, model=load_model("cpu", untrained))


def test_the_same_models_are_known_everywhere() -> None:
    assert set(MODELS) == set(KINDS) == set(MODULES)


def test_a_file_tells_whose_weights_it_holds(untrained: Path) -> None:
    assert kind_of(untrained) == "npp" and kind_of(shipped_weights()) == "unified"
    model = load_model("cpu", untrained)
    assert isinstance(model, NppModel) and model.sha256 == weights_digest(untrained, model="npp")
    assert model.metadata == {"preset": "npp-small"} and not model.network.training


def test_weights_of_another_model_are_refused(untrained: Path, tmp_path: Path) -> None:
    missing = r"any-name\.safetensors: holds no aligner, first_look, refiner, unibrain.*unified"
    with pytest.raises(ResourceError, match=missing):
        weights_digest(untrained)
    with pytest.raises(ResourceError, match="holds no npp"):
        load_model("cpu", shipped_weights(), name="npp")
    save_weights(tmp_path / "other.safetensors", {"other": {"a": torch.ones(1)}}, {})
    with pytest.raises(ResourceError, match="no model's weights"):
        load_model("cpu", tmp_path / "other.safetensors")
    with pytest.raises(ResourceError, match=r"no model 'nnp'.*unified, npp"):
        load_model("cpu", name="nnp")


def test_npp_says_nothing_of_what_it_does_not_know(prediction: Prediction) -> None:
    assert not prediction.structures.any() and not prediction.tissues.any()
    assert not (prediction.tissue_probabilities or prediction.parcellations or prediction.networks)
    assert math.isnan(prediction.intracranial_volume)


def test_npp_gives_images_on_the_scans_own_grid(prediction: Prediction, scan: Scan) -> None:
    assert prediction.mask.shape == scan.data.shape and 0 < prediction.mask.sum() < prediction.mask.size
    np.testing.assert_allclose(prediction.preproc, prediction.gain * scan.data, rtol=1e-5)
    assert np.log(prediction.gain[prediction.mask > 0]).mean() == pytest.approx(0, abs=1e-3)
    assert not prediction.brain[prediction.mask == 0].any() and prediction.brain.max() > 0


def test_no_head_no_brain(untrained: Path, scan: Scan) -> None:
    model = load_model("cpu", untrained)
    speck = Scan(scan.path, scan.data[:10, :10, :10], scan.affine, scan.header)
    with pytest.raises(ScanError, match="No brain"):
        predict(speck, model=model)
