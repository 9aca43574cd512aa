"""Heads without labels: mask and tissues are ours and kept for other tools; nothing is compared with itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from unibrain_bids.errors import ResourceError
from unibrain_bids.evaluation import tables
from unibrain_bids.evaluation.evaluate import OURS, Evaluator
from unibrain_bids.evaluation.heads import LabelledHead
from unibrain_bids.evaluation.measures import read_uniformity, uniformity
from unibrain_bids.evaluation.registration import TemplateTruth
from unibrain_bids.evaluation.unlabelled import unlabelled_heads
from unibrain_bids.inference import Prediction


@pytest.fixture
def data(head: LabelledHead, tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "ds000011" / "sub-01" / "anat"
    folder.mkdir(parents=True)
    shutil.copy(head.path, folder / "sub-01_T1w.nii.gz")
    return tmp_path / "data"


def test_what_was_found_once_is_kept_for_other_tools(
    data: Path, head: LabelledHead, exact: Prediction, tmp_path: Path
) -> None:
    (missing,) = unlabelled_heads(data, tmp_path / "kept")
    with pytest.raises(ResourceError, match=r"sub-01_mask\.nii\.gz.*--heads unlabelled"):
        missing.load()
    found = unlabelled_heads(data, tmp_path / "kept", lambda path: exact)[0].load()
    again = missing.load()
    for loaded in (found, again):
        assert loaded.name == "sub-01" and not loaded.labelled
        np.testing.assert_array_equal(loaded.masks["solid"], head.masks["solid"])
        np.testing.assert_array_equal(loaded.tissues, head.tissues)
    with pytest.raises(ResourceError, match="ds000011"):
        unlabelled_heads(tmp_path / "kept", tmp_path)


def test_only_what_needs_no_labels_is_measured(
    data: Path,
    head: LabelledHead,
    exact: Prediction,
    template: TemplateTruth,
    template_prediction: Prediction,
    tmp_path: Path,
) -> None:
    after_n4 = tmp_path / "n4.json"
    after_n4.write_text(json.dumps({"heads": {"sub-01": uniformity(head, head.clean, "n4")}}))
    evaluator = Evaluator(
        lambda path: exact, template, template_prediction, (), lambda line: None, read_uniformity(after_n4)
    )
    evaluation = evaluator.run("unlabelled", unlabelled_heads(data, tmp_path / "kept", lambda path: exact))
    assert not evaluation.failures
    (scores,) = evaluation.scores
    values = scores.measures.values
    assert values["wm_cv_output"] == pytest.approx(values["wm_cv_n4"], rel=1e-4) and "mask_dice" not in values
    assert values["gm_cv_output"] < values["gm_cv_input"]
    (ours,) = (found.scores for found in scores.registrations if found.method == OURS)
    assert np.isnan(ours.mean_dice) and ours.ncc > 0.9
    document = tables.markdown([evaluation], {})
    assert "Nobody has labelled" in document and "### Structures" not in document and "mask Dice" not in document
    written = {path.name for path in tables.write_tsv(evaluation, tmp_path / "out")}
    assert written == {"unlabelled_heads.tsv", "unlabelled_registration.tsv"}


def test_no_such_measures_name_the_file_and_the_remedy(tmp_path: Path) -> None:
    for content in ("", "[]", '{"heads": {"a": 3}}'):
        (tmp_path / "n4.json").write_text(content)
        with pytest.raises(ResourceError, match=r"n4\.json.*benchmarks/n4\.py"):
            read_uniformity(tmp_path / "n4.json")
