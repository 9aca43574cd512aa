"""Fine-tuning on a small simulated cohort: what is learnt, what is written, and what is said of bad input."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from nibabel import Nifti1Image, save

from unibrain_bids import __version__
from unibrain_bids.classification.card import RESEARCH_USE, find_head
from unibrain_bids.classification.cohort import Cohort, Scaler
from unibrain_bids.classification.features import Features
from unibrain_bids.classification.graph import GraphModel, RegionGraph
from unibrain_bids.classification.head import load_head
from unibrain_bids.errors import ExitCode, ResourceError
from unibrain_bids.inference import loading
from unibrain_bids.inference.loading import load_model, population_atlas, weights_digest
from unibrain_bids.model.description import Description, describe_head
from unibrain_bids.model.presets import UNIFIED
from unibrain_bids.model.refiner import Refiner
from unibrain_bids.model.unibrain import UniBrain
from unibrain_bids.model.weights import save_weights
from unibrain_bids.training.augmentation import Sample
from unibrain_bids.training.cli import main
from unibrain_bids.training.cohort import find_cohort
from unibrain_bids.training.finetuning import FinetuneOptions, finetune
from unibrain_bids.training.recipes import Heads, UnifiedRecipe
from unibrain_bids.training.recipes.finetune import FinetuneRecipe, JointModel
from unibrain_bids.training.simulation.geometry import draw_geometry
from unibrain_bids.training.simulation.material import Material
from unibrain_bids.training.simulation.simulator import ALIGNED, SimulatedHead, simulate

SPAN = replace(ALIGNED, t1_fraction=1.0, missing_parts=False, bias=0.1)
TINY = replace(
    UNIFIED, first_look_widths=(4, 4, 4, 4), aligner_widths=(4, 4, 4, 4), widths=(2, 2, 2, 2, 8), transformer_blocks=1,
    hypernetwork=(4, 4), stages=2, stage_widths=(2, 2), region_features=4, refiner_widths=(4, 2),
)  # fmt: skip
REGIONS = 84


def anatomies(count: int, *, enlarged: bool) -> list[int]:
    """Seeds of persons with, or without, enlarged ventricles."""

    def bulge(seed: int) -> float:
        generator = torch.Generator().manual_seed(seed)
        torch.randint(1, (), generator=generator)
        return draw_geometry(SPAN.pose, generator, "cpu").bulge

    found = (seed for seed in range(1000) if (bulge(seed) > 0.25 if enlarged else bulge(seed) < -0.02))
    return [next(found) for _ in range(count)]


def head_of(phantom: Material, anatomy: int) -> SimulatedHead:
    with torch.inference_mode():
        return simulate(phantom, SPAN, 1000 + anatomy, anatomy=anatomy)


@pytest.fixture
def tiny_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights of a model of the same parts, with few channels; the loader expects these sizes."""
    monkeypatch.setattr(loading, "UNIFIED", TINY)
    torch.manual_seed(0)
    modules = {
        "first_look": loading.FirstLook(TINY.first_look_widths),
        "aligner": loading.Aligner(TINY.aligner_widths, population_atlas()),
        "unibrain": UniBrain(TINY, population_atlas()),
        "refiner": Refiner(TINY.widths[0], *TINY.refiner_widths),
    }
    path = tmp_path / "tiny.safetensors"
    save_weights(path, {name: module.state_dict() for name, module in modules.items()}, {"licence": "Apache-2.0"})
    return path


def random_head(features: int, seed: int = 0) -> GraphModel:
    torch.manual_seed(seed)
    size = REGIONS * (features - 1) + 1
    rng = np.random.default_rng(seed)
    scaler = Scaler(rng.normal(size=size), rng.uniform(0.5, 2, size=size))
    scaler.sd[3] = np.inf
    return GraphModel(scaler, RegionGraph(REGIONS, features).eval(), mean=2.0, sd=3.0)


class TestJointModel:
    def test_its_scores_are_those_of_the_head_that_is_kept(self) -> None:
        head, rng = random_head(features=6), np.random.default_rng(1)
        regions, whole, network = (
            rng.normal(size=(2, REGIONS, 5)),
            rng.normal(size=(2, 1)),
            rng.random((2, REGIONS, REGIONS)),
        )
        network = network + network.transpose(0, 2, 1) + np.eye(REGIONS)
        arrays = [part.astype(np.float32) for part in (regions, whole, network)]
        cohort = Cohort(*arrays, target=np.zeros(2), participants=np.array(["a", "b"]), covariates=np.zeros((2, 0)))
        joint = JointModel(torch.nn.Identity(), head).eval()
        with torch.no_grad():
            found = joint.score(Description(*map(torch.from_numpy, arrays))) * head.sd + head.mean
        np.testing.assert_allclose(found.numpy(), head.scores(cohort), rtol=1e-4)
        assert all(torch.isfinite(tensor).all() for tensor in joint.state_dict().values())


def recipe_of(phantom: Material, anatomy: int) -> FinetuneRecipe:
    head = head_of(phantom, anatomy)
    known = head.structures.clone()
    known[:, :, :, :10] = -1
    samples = {"scan": Sample(head.image, 7.0, head.brain, known)}
    torch.manual_seed(0)
    joint = JointModel(UniBrain(TINY, population_atlas()), random_head(TINY.region_features + 1 + 3))
    joint.graph.train()
    scaler = {"feature_mean": torch.zeros(1), "feature_sd": torch.ones(1)}
    size = REGIONS * (TINY.region_features + 1) + 3
    for name, value in scaler.items():
        setattr(joint, name, value.expand(size).clone())
    return FinetuneRecipe(
        joint, UnifiedRecipe(Heads(phantom, phantom), population_atlas()), samples, training=["scan"],
        validation=["scan"], targets={"scan": 1.0}, classes=True, device=torch.device("cpu"),
    )  # fmt: skip


@pytest.mark.slow
def test_target_reaches_every_part_and_a_seed_says_all(phantom: Material) -> None:
    """The loss of the target alone moves backbone, affine and segmentation; the global generator plays no part."""
    recipe = recipe_of(phantom, 11)
    model = recipe.model.train()
    loss, terms = recipe.loss(model, seed=4)
    assert set(terms) == {"target", "mask", "dice", "cross_entropy"} and all(map(math.isfinite, terms.values()))
    torch.rand(5)
    again, _ = recipe.loss(model, seed=4)
    assert torch.equal(loss, again)
    recipe.samples = {"scan": replace(recipe.samples["scan"], mask=None, structures=None)}
    recipe.loss(model, seed=4)[0].backward()
    reached = {
        name.split(".")[1]
        for name, parameter in model.named_parameters()
        if name.startswith("unibrain.") and parameter.grad is not None and parameter.grad.abs().sum() > 0
    }
    assert {"backbone", "registration", "segmentation"} <= reached
    assert model.graph.embedding.grad.abs().sum() > 0


@pytest.mark.slow
def test_enlarged_ventricles_are_seen_by_the_shipped_model(phantom: Material) -> None:
    model, ventricles = load_model("cpu"), []
    for enlarged in (True, False):
        head = head_of(phantom, anatomies(2, enlarged=enlarged)[1])
        with torch.inference_mode():
            outputs = model.unibrain(head.image, torch.full((1,), 0.1))
        ventricles.append(float(describe_head(outputs, 8.0).whole[0, 1]))
    assert ventricles[0] > ventricles[1] + 0.2


def write_cohort(root: Path, participants: int, columns: dict[str, list[str]]) -> Path:
    """A dataset of tiny images that nothing looks at, and its table."""
    names = [f"sub-{k + 1:02d}" for k in range(participants)]
    for name in names:
        path = root / name / "anat" / f"{name}_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        save(Nifti1Image(np.full((3, 3, 3), int(name[-2:]), np.int16), np.eye(4)), path)
    (root / "dataset_description.json").write_text(json.dumps({"Name": "Tiny", "BIDSVersion": "1.10.0"}))
    header = ["participant_id", *columns]
    rows = zip(names, *columns.values(), strict=True)
    (root / "participants.tsv").write_text("".join("\t".join(row) + "\n" for row in (header, *rows)))
    return root


def prepared_before(raw: Path, folder: Path, weights: Path, heads: list[SimulatedHead], shift: list[float]) -> None:
    """What `cohort.prepare` keeps of each scan, with simulated images and features that differ by `shift`."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for k, scan in enumerate(find_cohort(raw)):
        digest = hashlib.sha256(scan.record.path.read_bytes()).hexdigest()
        regions = rng.normal(size=(REGIONS, TINY.region_features + 1)).astype(np.float32)
        regions[:20, -1] += shift[k]
        head = heads[k % len(heads)]
        np.savez(
            folder / f"{scan.record.key}.npz",
            sources=json.dumps({"scan": digest, "weights": weights_digest(weights), "version": __version__}),
            image=head.image[0, 0].half().numpy(), voxel=np.array(7.0), mask=(255 * head.brain[0, 0]).byte().numpy(),
            regions=regions, whole=rng.normal(size=3).astype(np.float32),
            network=np.eye(REGIONS, dtype=np.float32) + 0.1,
        )  # fmt: skip


def features_of(path: Path) -> Features:
    with np.load(path) as stored:
        return Features(stored["regions"], stored["whole"], stored["network"])


class TestCohortToHead:
    def test_head_only(self, phantom: Material, tiny_weights: Path, tmp_path: Path) -> None:
        group = ["case", "control"] * 10
        raw = write_cohort(tmp_path / "raw", 20, {"diagnosis": group})
        run = tmp_path / "run"
        blank = [head_of(phantom, 11)]
        prepared_before(raw, run / "cohort", tiny_weights, blank, [2.0 if g == "control" else 0.0 for g in group])
        options = FinetuneOptions(raw, run, target="diagnosis", head_only=True, weights=tiny_weights, folds=2)
        assert finetune(replace(options, permutations=19, device="cpu"), progress=lambda line: None)
        file = find_head(run / "head.safetensors")
        assert file.sees_model and file.card["Use"] == RESEARCH_USE
        assert file.card["Model"]["Weights"] == weights_digest(tiny_weights)
        figures = file.card["Validation"][0]["Figures"]
        assert figures["head"]["auc"] > 0.9 > figures["covariates"]["auc"]
        assert file.card["Training"] == {
            "Scans": 20, "Participants": 20, "Sites": None, "Target": {"case": 10, "control": 10},
        }  # fmt: skip
        head = load_head(file)
        said = [head.apply(features_of(run / "cohort" / f"sub-{k:02d}.npz")).value for k in (1, 2)]
        assert said[0] < 0.5 < said[1]
        rows = (run / "predictions.tsv").read_text().splitlines()
        assert len(rows) == 21 and rows[0].startswith("participant_id\ttarget\thead")
        with pytest.raises(ResourceError, match="--weights FILE"):
            file.check(weights="0" * 64, atlas="DK")

    @pytest.mark.slow
    def test_joint_stops_when_time_is_up_and_goes_on(
        self, phantom: Material, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Two folds and the final training, of one step each; weights and head that belong together come out."""
        raw = write_cohort(tmp_path / "raw", 6, {"age": ["20", "31", "42", "53", "64", "75"]})
        run = tmp_path / "run"
        prepared_before(raw, run / "cohort", tiny_weights, [head_of(phantom, seed) for seed in (11, 9)], [0.0] * 6)
        words = ["finetune", "--bids", str(raw), "--target", "age", "--out", str(run), "--weights", str(tiny_weights)]
        words += ["--folds", "2", "--steps", "1", "--permutations", "5", "--device", "cpu"]
        assert main([*words, "--minutes", "0"]) == 0
        assert "run the same command again" in capsys.readouterr().out
        assert not (run / "head.safetensors").exists()
        assert main(words) == 0
        weights = run / "weights.safetensors"
        file = find_head(run / "head.safetensors")
        assert file.card["Model"]["Weights"] == weights_digest(weights) != weights_digest(tiny_weights)
        assert file.card["Kind"] == "joint" and len(list((run / "trainings").iterdir())) == 3
        assert load_model("cpu", weights).metadata["intended_use"] == RESEARCH_USE
        assert load_head(file).classes is None


class TestBadInput:
    def said(self, raw: Path, *words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
        code = main(["finetune", "--bids", str(raw), "--out", str(raw.parent / "run"), "--device", "cpu", *words])
        return code, capsys.readouterr().err

    @pytest.mark.parametrize(
        ("column", "words", "message"),
        [
            (["a", "b", "a", "b", "a", "b"], ["--target", "sex"], "--target sex: .*has no such column.*group"),
            (["a"] * 6, ["--target", "group"], "values a \\(6\\).*Two classes"),
            (["a", "b", "a", "b", "a", "b"], ["--target", "group"], "Only 3 participant.*5 folds .*need 5"),
            (["a", "b", "c"] * 2, ["--target", "group"], "--classes"),
            (["a", "b"] * 3, [], "nothing to learn.*--derivatives"),
            (["a", "b"] * 3, ["--head-only"], "no head without a target"),
            (["a", "b"] * 3, ["--target", "group", "--folds", "1"], "--folds 1: expected at least 2"),
        ],
    )
    def test_columns_and_options(
        self, column: list[str], words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        raw = write_cohort(tmp_path / "raw", 6, {"group": column})
        code, said = self.said(raw, *words, capsys=capsys)
        assert code == ExitCode.USAGE
        assert re.search(message, said), said
        assert not (tmp_path / "run").exists()

    def test_no_t1w(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        raw = write_cohort(tmp_path / "raw", 1, {"group": ["a"]})
        (raw / "sub-01" / "anat" / "sub-01_T1w.nii.gz").unlink()
        code, said = self.said(raw, "--target", "group", capsys=capsys)
        assert code == ExitCode.NO_SCANS and "_T1w.nii" in said
