"""Heads: written, read again, applied, and refused where they do not belong."""

import json
import pickletools
from dataclasses import replace

import numpy as np
import pytest

from unibrain_bids.bids.derivatives import DEFAULT_ATLAS
from unibrain_bids.classification.card import RESEARCH_USE, find_head
from unibrain_bids.classification.features import features_of
from unibrain_bids.classification.graph import Graph
from unibrain_bids.classification.head import load_head
from unibrain_bids.classification.linear import Ridge
from unibrain_bids.classification.novelty import Novelty
from unibrain_bids.classification.tables import column_texts, prediction_row
from unibrain_bids.errors import ResourceError

from .conftest import WEIGHTS


@pytest.mark.parametrize("candidate", [Ridge("ridge"), Graph()], ids=lambda one: one.name)
def test_read_again_it_says_the_same(candidate, train, cohort, scan, tmp_path):
    made = train(candidate).head
    path = tmp_path / "x.safetensors"
    path.write_bytes(made.to_bytes())
    again = load_head(find_head(path))
    for row in (0, 1):
        assert again.apply(scan(row)) == made.apply(scan(row))


def test_card_travels_with_the_file_and_says_what_it_must(head_file):
    card = head_file.card
    assert card["Use"] == RESEARCH_USE
    assert card["Model"]["Weights"] == WEIGHTS
    assert card["Training"]["Target"] == {"control": 30, "case": 30}
    (validation,) = card["Validation"]
    assert set(validation["Figures"]) == {"head", "ridge", "covariates"}
    assert validation["PermutationTests"]["Refitted"]["Permutations"] == 19
    assert len(validation["Reliability"]) == 5
    json.dumps(card, allow_nan=False)


def test_file_holds_no_code(head_file):
    with pytest.raises(ValueError):
        list(pickletools.genops(head_file.path.read_bytes()))


def test_head_of_other_weights_or_atlas_is_refused(head_file):
    head_file.check(weights=WEIGHTS, atlas=DEFAULT_ATLAS)
    with pytest.raises(ResourceError, match=r"case.safetensors.*weights 000000000000, not ffff"):
        head_file.check(weights="f" * 64, atlas=DEFAULT_ATLAS)
    with pytest.raises(ResourceError, match="not unknown"):
        head_file.check(weights=None, atlas=DEFAULT_ATLAS)
    with pytest.raises(ResourceError, match=r"version .*, not 99.0"):
        head_file.check(weights=WEIGHTS, atlas=DEFAULT_ATLAS, version="99.0.1")
    with pytest.raises(ResourceError, match="atlas DK, not AAL"):
        head_file.check(weights=WEIGHTS, atlas="AAL")


def test_what_is_no_head_is_refused(tmp_path, head_file):
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(head_file.path.read_bytes()[:40])
    for path in (damaged, tmp_path / "missing.safetensors"):
        with pytest.raises(ResourceError, match=path.name):
            find_head(path)


def test_head_of_another_format_is_refused(trained, tmp_path):
    path = tmp_path / "old.safetensors"
    path.write_bytes(replace(trained.head, card=trained.head.card | {"Format": 0}).to_bytes())
    with pytest.raises(ResourceError, match="format 1"):
        find_head(path)


def test_unlike_scans_are_flagged_then_refused(head_file, scan):
    head = load_head(head_file)
    verdicts = [head.apply(scan(0, moved)).verdict for moved in (0, 5, 30)]
    assert verdicts == ["inside", "flagged", "refused"]
    assert head.apply(scan(0, 30)).value is None
    unknown = scan(0)
    unknown.regions[:] = np.nan
    assert prediction_row(head, head.apply(unknown))["predicted_class"] in ("control", "case")


def test_one_in_a_hundred_is_flagged(simulated_cohort):
    known = simulated_cohort(0.0, seed=1, participants=200, regions=10)
    new = simulated_cohort(0.0, seed=2, participants=400, regions=10)
    novelty = Novelty.fit(known)
    flagged = np.mean([novelty.verdict(distance) != "inside" for distance in novelty.distance(new.flat)])
    assert flagged < 0.04


def test_row_and_its_description_have_the_same_columns(head_file, scan):
    head = load_head(head_file)
    row = prediction_row(head, head.apply(scan(1)))
    assert list(row) == list(column_texts(head))
    assert row["prob_control"] + row["prob_case"] == pytest.approx(1)
    assert all(RESEARCH_USE in text["Description"] for name, text in column_texts(head).items() if "pr" in name)


def test_chosen_class_follows_the_threshold(head_file, scan):
    head = load_head(head_file)
    score = np.log(head.apply(scan(0)).value / (1 - head.apply(scan(0)).value))
    assert replace(head, threshold=score - 0.1).apply(scan(0)).predicted == "case"
    assert replace(head, threshold=score + 0.1).apply(scan(0)).predicted == "control"


def test_features_of_a_scan_with_gaps():
    regions = np.array([[1000.0, 70.0, 5.0], [np.nan, np.nan, np.nan]])
    network = np.array([[1.0, np.nan], [np.nan, np.nan]])
    features = features_of(regions, network, {})
    assert features.regions[0] == pytest.approx([np.log(1000), 70])
    assert np.isnan(features.regions[1]).all()
    assert np.isnan(features.whole).all()
    np.testing.assert_array_equal(features.network, np.eye(2))
