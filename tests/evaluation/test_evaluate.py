from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from unibrain_bids.errors import ExitCode, ResourceError
from unibrain_bids.evaluation import tables
from unibrain_bids.evaluation.cli import main
from unibrain_bids.evaluation.evaluate import CLOSED_FORM, OURS, Evaluator
from unibrain_bids.evaluation.heads import IGNORED, HeadRecord, LabelledHead
from unibrain_bids.evaluation.measures import measure
from unibrain_bids.evaluation.registration import (
    Peer,
    TemplateTruth,
    score_affine,
    structures_of_parcels,
)
from unibrain_bids.inference import Prediction

PERFECT = (
    "mask_dice",
    "structure_dice",
    "structure_dice_merged",
    "tissue_dice",
    "bias_ssim",
    "bias_ssim_stretched",
    "bias_correlation",
    "reconstruction_ssim",
)


def test_the_truth_scores_perfectly(head: LabelledHead, exact: Prediction) -> None:
    found = measure(head, exact)
    assert {key: found.values[key] for key in PERFECT} == pytest.approx(dict.fromkeys(PERFECT, 1.0))
    assert found.values["mask_hd95"] == found.values["mask_distance"] == 0
    assert found.values["cjv_output"] < found.values["cjv_input"]
    assert found.values["bias_ssim_flat"] < 1
    assert set(found.structures.values()) == {1.0}


def test_a_shifted_answer_scores_worse_everywhere(head: LabelledHead, exact: Prediction) -> None:
    moved = {name: np.roll(getattr(exact, name), 1, axis=1) for name in ("mask", "structures", "tissues", "brain")}
    found = measure(head, dataclasses.replace(exact, gain=np.ones_like(exact.gain), **moved)).values
    assert found["structure_dice"] == pytest.approx(2 / 3), "two of three voxels of every block overlap"
    assert all(found[key] < 0.999 for key in PERFECT if not np.isnan(found[key]))
    assert found["bias_ssim"] == pytest.approx(found["bias_ssim_flat"])
    assert found["mask_hd95"] > 0


def test_swapped_sides_count_only_where_sides_are_apart(head: LabelledHead, exact: Prediction) -> None:
    from unibrain_bids.labels import LabelTable

    table = LabelTable.load("aseg")
    lookup = np.zeros(max(table.indices) + 1, np.int16)
    for index in table.indices:
        lookup[index] = table.flipped(index)
    swapped = dataclasses.replace(exact, structures=lookup[head.structures])
    found = measure(head, swapped)
    assert found.values["structure_dice_merged"] == 1
    assert found.values["structure_dice"] == pytest.approx(3 / 31), "the three midline structures stay right"


def test_labels_without_counterpart_do_not_count(head: LabelledHead, exact: Prediction) -> None:
    unknown = dataclasses.replace(head, structures=np.where(head.structures == 16, IGNORED, head.structures))
    found = measure(unknown, exact)
    assert np.isnan(found.structures[16])
    assert found.values["structure_dice"] == found.values["structure_dice_merged"] == 1


def test_prediction_on_another_grid_is_refused(head: LabelledHead, exact: Prediction) -> None:
    smaller = dataclasses.replace(exact, mask=np.zeros((3, 3, 3), np.uint8))
    with pytest.raises(ValueError, match="differ"):
        measure(head, smaller)


def test_affine_is_scored_in_its_own_direction(
    head: LabelledHead, template: TemplateTruth, template_from_head: np.ndarray
) -> None:
    right = score_affine(head, template, template_from_head)
    wrong = score_affine(head, template, np.linalg.inv(template_from_head))
    assert right.mean_dice == pytest.approx(1)
    assert wrong.mean_dice < 0.5
    assert right.ncc > wrong.ncc
    assert right.mutual_information > wrong.mutual_information


def test_parcels_become_structures() -> None:
    parcels = np.array([[[0, 2, 1000, 1035, 2003, 31, 63, 24, 251, 85, 53]]], np.int16)
    assert structures_of_parcels(parcels).ravel().tolist() == [0, 2, 3, 3, 42, 4, 43, 0, IGNORED, IGNORED, 53]


def test_failing_heads_do_not_stop_the_rest(
    head: LabelledHead, exact: Prediction, template: TemplateTruth, template_prediction: Prediction
) -> None:
    def unreadable() -> LabelledHead:
        raise OSError("truncated file")

    lines: list[str] = []
    broken = dataclasses.replace(head, name="broken", structures=head.structures[:5])
    evaluator = Evaluator(lambda path: exact, template, template_prediction, report=lines.append)
    records = [HeadRecord("lost", unreadable), HeadRecord("broken", lambda: broken), HeadRecord("tiny", lambda: head)]
    evaluation = evaluator.run("tiny", records)
    assert [scores.name for scores in evaluation.scores] == ["tiny"], evaluation.failures
    assert [failure.name for failure in evaluation.failures] == ["lost", "broken"]
    assert "truncated file" in evaluation.failures[0].reason
    assert len(lines) == 3 and "truncated file" in lines[0]
    assert "truncated file" in tables.markdown([evaluation], {})


def test_tables_hold_what_was_measured(
    head: LabelledHead, exact: Prediction, template: TemplateTruth, template_prediction: Prediction, tmp_path: Path
) -> None:
    peer_file = tmp_path / "peer.json"
    entry = {"template_from_scan": np.eye(4).tolist(), "seconds": 2.0, "cpu_seconds": 1.5}
    peer_file.write_text(json.dumps({"name": "Unmoved", "version": "1", "heads": {"tiny": entry}}))
    peer = Peer.read(peer_file)
    evaluator = Evaluator(lambda path: exact, template, template_prediction, [peer], lambda line: None)
    evaluation = evaluator.run("tiny", [HeadRecord("tiny", lambda: head)])
    files = {path.name: path for path in tables.write_tsv(evaluation, tmp_path / "out")}
    assert set(files) == {"tiny_heads.tsv", "tiny_registration.tsv", "tiny_structures.tsv"}

    heads = read_tsv(files["tiny_heads.tsv"])
    assert [row["head"] for row in heads] == ["tiny", "mean"]
    assert float(heads[1]["mask_dice"]) == 1 and evaluation.scores[0].measures.values["seconds"] > 0
    registrations = {(row["method"], row["head"]): row for row in read_tsv(files["tiny_registration.tsv"])}
    assert float(registrations[CLOSED_FORM, "mean"]["warped_dice"]) == 1
    assert registrations[CLOSED_FORM, "tiny"]["cpu_seconds"] == "n/a"
    assert float(registrations[OURS, "tiny"]["cpu_seconds"]) > 0
    assert float(registrations["Unmoved 1", "tiny"]["warped_dice"]) < 1
    assert float(registrations["Unmoved 1", "tiny"]["cpu_seconds"]) == 1.5
    assert len(read_tsv(files["tiny_structures.tsv"])) == 31

    document = tables.markdown([evaluation], {"Command": "`unibrain-evaluate`"})
    assert "* Command: `unibrain-evaluate`" in document
    assert "Unmoved 1 (1 heads)" in document
    assert "Left-Hippocampus | 1.000" in document
    assert "bias SSIM" in document and "bias SSIM" in tables.summary(evaluation)


def test_unreadable_peer_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "peer.json"
    path.write_text("[]")
    with pytest.raises(ResourceError, match=r"peer\.json"):
        Peer.read(path)


def test_command_line_explains_missing_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path)]) == ExitCode.RESOURCE
    assert str(tmp_path) in capsys.readouterr().err


def read_tsv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))
