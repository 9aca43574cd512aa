"""NPP's experiments on the packaged phantom: what each rival answers, and the rows of each table."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from unibrain_bids.demo import phantom_material
from unibrain_bids.evaluation.experiments import npp_page, npp_tables
from unibrain_bids.evaluation.experiments.npp_rivals import REDUCED, RIVALS, Answer, RivalWithAffine, train_rival
from unibrain_bids.evaluation.experiments.results import as_markdown, read_rows, write_rows
from unibrain_bids.inference.npp import NppModel
from unibrain_bids.model.npp import NPP
from unibrain_bids.model.presets import NPP_SMALL
from unibrain_bids.training.recipes.basis import Heads


@pytest.fixture(scope="module")
def heads() -> Heads:
    phantom = phantom_material()
    return Heads(phantom, phantom)


@pytest.fixture(scope="module")
def untrained() -> NppModel:
    torch.manual_seed(0)
    return NppModel(NPP(NPP_SMALL).eval().requires_grad_(False), torch.device("cpu"), "", {})


def test_rows_come_back_from_their_file(tmp_path: Path) -> None:
    rows = [{"method": "a", "SSIM": 0.123456}, {"method": "b", "SSIM": math.nan}]
    write_rows(tmp_path / "folder" / "rows.tsv", rows)
    assert read_rows(tmp_path / "folder" / "rows.tsv") == [
        {"method": "a", "SSIM": "0.1235"},
        {"method": "b", "SSIM": "nan"},
    ]
    assert as_markdown(rows).splitlines() == ["| method | SSIM |", "| --- | --- |", "| a | 0.1235 |", "| b | nan |"]


@pytest.mark.parametrize(("rival", "answers"), list(zip(RIVALS, (1, 1, 2, 1), strict=True)))
def test_every_rival_answers_in_the_templates_space(rival: str, answers: int) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        answer: Answer = RIVALS[rival](REDUCED)(torch.rand(1, 1, *REDUCED.shape), torch.tensor([1.0]))
    assert [volume.shape for volume in answer.aligned] == answers * [(1, 1, *REDUCED.shape)]
    assert (answer.penalty > 0) == (rival == "NPP"), "only a field is asked to be smooth"


def test_both_orders_agree_only_without_a_movement() -> None:
    torch.manual_seed(0)
    model = RIVALS["UMIRGPIT-like"](REDUCED).eval()
    assert isinstance(model, RivalWithAffine)
    image = torch.rand(1, 1, *REDUCED.shape)
    with torch.no_grad():
        first, second = model(image, torch.ones(1)).aligned
        torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-3)
        model.stage.mlp[-1].bias[3] = 0.5
        first, second = model(image, torch.ones(1)).aligned
    assert (first - second).abs().max() > 0.01


@pytest.mark.slow
def test_rivals_are_trained_once_for_the_page(heads: Heads, tmp_path: Path) -> None:
    rows = npp_tables.rival_rows(heads, tmp_path / "runs", steps=1)
    assert [row["method"] for row in rows] == list(RIVALS)
    assert all(0 < float(row["SSIM, brain"]) < 1 for row in rows)
    checkpoint = tmp_path / "runs" / "npp-rivals-1" / "NPP" / "checkpoint.pt"
    before = checkpoint.stat().st_mtime_ns
    again = train_rival(heads, "NPP", checkpoint.parent, steps=1)
    assert checkpoint.stat().st_mtime_ns == before and again["ssim_brain"] == rows[-1]["SSIM, brain"]
    write_rows(tmp_path / "npp-rivals.tsv", rows)
    npp_page.write_page(tmp_path, heads, tmp_path / "runs", steps=1)
    page = (tmp_path / "npp.md").read_text(encoding="utf-8")
    assert "Rivals" in page and "Lambda" not in page and as_markdown(rows) in page
    assert (tmp_path / npp_page.FIGURE).stat().st_size > 5000


def test_lambda_rows_have_every_lambda(heads: Heads, untrained: NppModel) -> None:
    rows = npp_tables.lambda_rows(heads, untrained, scans=1)
    assert [row["lambda"] for row in rows] == list(npp_tables.LAMBDAS)
    # Before training lambda makes no difference, whatever the head.
    assert len({row["SSIM, brain"] for row in rows}) == 1 and 0 < float(rows[0]["SSIM, brain"]) < 1


def test_intensity_rows_compare_with_the_scan_itself(heads: Heads, untrained: NppModel) -> None:
    rows = npp_tables.intensity_rows(heads, {"npp": untrained}, scans=1, spacing=4.0)
    none, npp = rows
    assert (none["method"], npp["method"]) == ("none", "npp")
    assert math.isnan(float(none["mask Dice"])) and 0 < float(npp["mask Dice"]) < 1
    figures = [float(row[name]) for row in rows for name in ("field SSIM", "brain SSIM", "brain PSNR (dB)")]
    assert np.isfinite(figures).all()


def test_processor_time_is_measured(heads: Heads, untrained: NppModel) -> None:
    scan = npp_tables.simulated_scan(heads, 0, 4.0)[1]
    rows = npp_tables.time_rows([(NPP_SMALL, 32)], scan, {"npp": untrained})
    assert [row["what"] for row in rows] == ["network of npp-small", "predict, --model npp"]
    assert rows[0]["parameters (M)"] == "1.73" and all(float(row["s"]) > 0 for row in rows)
