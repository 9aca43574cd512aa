"""UniBrain as published, through the one `load_model` and `predict`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from unibrain_bids import demo
from unibrain_bids.imaging.scan import load_scan
from unibrain_bids.inference import load_model, predict
from unibrain_bids.inference.loading import population_atlas
from unibrain_bids.labels import LabelTable
from unibrain_bids.model.presets import UNIBRAIN_TINY
from unibrain_bids.model.published import PublishedUniBrain
from unibrain_bids.model.soft_template import SoftTemplate
from unibrain_bids.model.weights import save_weights


@pytest.mark.slow
def test_what_it_knows_stands_on_the_scans_own_grid(tmp_path: Path) -> None:
    """Weights that take everything for brain and leave the head where the first two looks have put it."""
    template = SoftTemplate.from_atlas(population_atlas(), UNIBRAIN_TINY.shape, UNIBRAIN_TINY.spacing)
    network = PublishedUniBrain(UNIBRAIN_TINY, template, classes=0)
    with torch.no_grad():
        network.extraction.head.weight.zero_()
        network.extraction.head.bias.fill_(1.0)
    weights = tmp_path / "mine.safetensors"
    save_weights(weights, {"published": network.state_dict()}, {"preset": UNIBRAIN_TINY.name})
    span = replace(demo.SPAN, shape=(54, 66, 63), spacing=4.0)
    head = demo.DemoScan("01", "1", 101)
    scan = load_scan(demo.write_dataset(tmp_path, (head,), span) / head.path)

    found = predict(scan, model=load_model("cpu", weights))
    parcels = found.parcellations["DK"]
    assert found.mask.shape == parcels.shape == found.tissues.shape == scan.data.shape
    assert set(np.unique(parcels)) - {0} == set(LabelTable.load("DK").indices), "every region of the template"
    assert set(np.unique(found.structures)) > {0, 2, 3, 41, 42}
    total = sum(found.tissue_probabilities.values())
    np.testing.assert_allclose(total[found.mask > 0], 1, atol=1e-4)
    assert not found.tissues[found.mask == 0].any() and found.tissues[found.mask > 0].all()
    assert found.networks["innerproduct"].matrix.shape == (84, 84)
    # The template's brain lies where the scan is bright: labels went the right way through the affine.
    white = np.isin(found.structures, (2, 41))
    grey = np.isin(found.structures, (3, 42))
    assert np.median(scan.data[white]) > np.median(scan.data[grey])
