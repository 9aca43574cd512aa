"""`unibrain-train finetune`: from a BIDS cohort to a validated head and, if trained jointly, weights."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from unibrain_bids import __version__
from unibrain_bids.bids.atomic import write_bytes, write_json, write_tsv
from unibrain_bids.bids.derivatives import DEFAULT_ATLAS
from unibrain_bids.bids.filters import load_filters
from unibrain_bids.classification.card import FROM_MODEL, RESEARCH_USE, release
from unibrain_bids.classification.cohort import Cohort
from unibrain_bids.classification.features import Features
from unibrain_bids.classification.novelty import Novelty
from unibrain_bids.classification.splits import check_size
from unibrain_bids.classification.training import Trained, train_head
from unibrain_bids.classification.validation import HEAD
from unibrain_bids.errors import DatasetError, NoScansError, UsageError
from unibrain_bids.group.learning import cohort_of
from unibrain_bids.group.options import GroupOptions
from unibrain_bids.group.participants import Participants, read_participants
from unibrain_bids.group.tables import label_of
from unibrain_bids.inference.loading import Model, load_model, population_atlas, resource, weights_digest
from unibrain_bids.model.weights import save_weights
from unibrain_bids.training.cohort import CohortScan, PreparedScan, find_cohort, prepare
from unibrain_bids.training.joint import Budget, Fitted, Joint, TimeUp
from unibrain_bids.training.recipes.basis import Heads
from unibrain_bids.training.recipes.unified import UnifiedRecipe

_OPTION = "--target"
# Without a target, this part of the participants is for validation.
_VALIDATION_FOLDS = 5


@dataclass(frozen=True)
class FinetuneOptions:
    """What `unibrain-train finetune` was asked for.

    Attributes
    ----------
    bids_dir, derivatives
        The raw dataset, and datasets with masks and segmentations.
    out
        Folder of the run.
    target
        Column of participants.tsv, or None: masks and segmentations alone.
    classes, site
        As `--classes` and `--site-column` of the group level.
    head_only
        Leave the model as it is.
    participants, filter_file
        Which scans.
    weights
        Where to start; None for the shipped ones.
    data
        Label maps (`training.packing`) of simulated heads; None for the packaged phantom.
    folds, permutations, seed
        Of cross-validation.
    steps, learning_rate, batch, evaluate_every
        Of each joint training.
    minutes
        Time budget of this call.
    """

    bids_dir: Path
    out: Path
    derivatives: tuple[Path, ...] = ()
    target: str | None = None
    classes: tuple[str, str] | None = None
    site: str | None = None
    head_only: bool = False
    participants: tuple[str, ...] = ()
    filter_file: Path | None = None
    weights: Path | None = None
    data: Path | None = None
    folds: int = 5
    permutations: int = 1000
    seed: int = 0
    steps: int = 200
    learning_rate: float = 1e-4
    batch: int = 2
    evaluate_every: int = 20
    minutes: float = 60.0
    device: str = "auto"


def finetune(options: FinetuneOptions, *, progress: Callable[[str], None] = print) -> bool:
    """Fine-tune and validate; what was done before in the folder is not done again.

    Returns
    -------
    bool
        Whether all is done; if not, the time budget was spent, and the same call goes on.

    Raises
    ------
    UnibrainError
        Dataset, files, columns or sizes are not what they should be.
    """
    deadline = time.monotonic() + 60 * options.minutes
    filters = load_filters(options.filter_file) if options.filter_file else None
    found = find_cohort(options.bids_dir, options.derivatives, participants=options.participants, filters=filters)
    table = read_participants(options.bids_dir)
    group = _group_options(options, table)
    if group is not None:
        check_size(_cohort(found, None, table, group)[0], options.folds)
    elif not any(scan.mask or scan.segmentation for scan in found):
        remedy = "Give --target COLUMN, or --derivatives DIR with brain masks or segmentations."
        raise UsageError(f"{options.bids_dir}: there is nothing to learn.", remedy)
    model = load_model(options.device, options.weights)
    progress(_summary(found))
    prepared, failed = prepare(found, model, options.out / "cohort", progress=progress)
    if not prepared:
        raise NoScansError(f"{options.bids_dir}: no scan can be used ({next(iter(failed.values()))})")
    scans = [scan for scan in found if scan.record.key in prepared]
    budget = Budget(
        options.steps, options.learning_rate, options.batch, min(options.evaluate_every, options.steps), deadline,
    )  # fmt: skip
    try:
        if group is None:
            _without_target(options, _joint(options, model, prepared, budget), scans, failed)
        else:
            cohort, excluded = _cohort(scans, prepared, table, group)
            joint = None if options.head_only else _joint(options, model, prepared, budget)
            _with_target(options, model, joint, cohort, failed | excluded, progress)
    except TimeUp:
        progress("The time is up: run the same command again to go on.")
        return False
    return True


def _group_options(options: FinetuneOptions, table: Participants) -> GroupOptions | None:
    if options.target is None:
        if options.head_only:
            raise UsageError("--head-only: there is no head without a target.", "Give --target COLUMN.")
        return None
    table.column(options.target, option=_OPTION)
    numeric = options.classes is None and table.is_numeric(options.target)
    classify, regress = (None, options.target) if numeric else (options.target, None)
    return GroupOptions(classify=classify, regress=regress, classes=options.classes, site=options.site)


def _cohort(
    scans: Sequence[CohortScan], prepared: Mapping[str, PreparedScan] | None, table: Participants, group: GroupOptions
) -> tuple[Cohort, dict[str, str]]:
    """The scans with their targets; features are empty before the scans are prepared."""
    nothing = Features(np.zeros((1, 1), np.float32), np.zeros(1, np.float32), np.ones((1, 1), np.float32))
    features = [nothing if prepared is None else prepared[scan.record.key].features for scan in scans]
    cohort, excluded = cohort_of(list(zip(scans, features, strict=True)), table, group, option=_OPTION)
    members = set(cohort.participants.tolist())
    names = [scan.record.key for scan in scans if scan.participant in members]
    # The baseline sees covariates and the size of the head alone.
    covariates = np.delete(cohort.covariates, np.s_[cohort.covariates.shape[1] - cohort.whole.shape[1] + 1 :], axis=1)
    return replace(cohort, scans=np.array(names), covariates=covariates), excluded


def _joint(options: FinetuneOptions, model: Model, prepared: Mapping[str, PreparedScan], budget: Budget) -> Joint:
    heads = Heads.load(options.data or resource("population/phantom.npz"), model.device, keep_all=True)
    recipe = UnifiedRecipe(heads, population_atlas().to(model.device))
    return Joint(model, prepared, recipe, options.out / "trainings", budget)


def _with_target(
    options: FinetuneOptions,
    model: Model,
    joint: Joint | None,
    cohort: Cohort,
    excluded: dict[str, str],
    progress: Callable[[str], None],
) -> None:
    more: dict[str, Any] = {} if joint is None else {"candidates": [joint], "repeats": 1}
    trained = train_head(
        cohort,
        label=label_of(str(options.target)),
        target=str(options.target),
        weights=model.sha256,
        version=release(__version__),
        atlas=DEFAULT_ATLAS,
        excluded=excluded,
        features=FROM_MODEL,
        folds=options.folds,
        permutations=options.permutations,
        seed=options.seed,
        progress=progress,
        **more,
    )
    head = trained.head
    if isinstance(head.model, Fitted):
        fitted = head.model
        figures = trained.validations[0].figures[HEAD]
        _save(options, model, fitted, cohort, excluded, {"held_out": figures})
        made_by = {**head.card["Model"], "Weights": weights_digest(options.out / "weights.safetensors")}
        card = head.card | {"Model": made_by, "Setting": fitted.facts, "Procedure": _procedure(options)}
        assert fitted.head is not None
        head = replace(head, model=fitted.head, novelty=Novelty.fit(fitted.described(cohort)), card=card)
    write_bytes(options.out / "head.safetensors", head.to_bytes())
    write_json(options.out / "head.json", head.card)
    _write_predictions(options.out / "predictions.tsv", cohort, trained)
    for validation in trained.validations:
        progress(f"{validation.scheme}:")
        for name, figures in validation.figures.items():
            progress(f"  {name}: {_shown(figures)}")
        progress(f"  permutations: refitted p = {validation.refitted.p:.3g}, fixed p = {validation.fixed.p:.3g}")


def _without_target(
    options: FinetuneOptions, joint: Joint, scans: Sequence[CohortScan], excluded: dict[str, str]
) -> None:
    names = [scan.record.key for scan in scans if scan.mask or scan.segmentation]
    who = np.array([joint.scans[name].participant for name in names])
    if len(set(who)) < _VALIDATION_FOLDS:
        raise DatasetError(
            f"{options.bids_dir}: masks or segmentations of only {len(set(who))} participants.",
            f"At least {_VALIDATION_FOLDS} are needed: a part of them is held out.",
        )
    features = [joint.scans[name].features for name in names]
    cohort = Cohort(
        regions=np.stack([one.regions for one in features]),
        whole=np.stack([one.whole for one in features]),
        networks=np.stack([one.network for one in features]),
        target=np.zeros(len(names)),
        participants=who,
        covariates=np.zeros((len(names), 0)),
        scans=np.array(names),
    )
    held_out = np.isin(who, sorted(set(who))[::_VALIDATION_FOLDS])
    run = joint.train(cohort.take(~held_out), cohort.take(held_out), options.seed, targets=False)
    fitted = joint.load(run)
    _save(options, joint.model, fitted, cohort, excluded, {"validation": fitted.facts})


def _save(
    options: FinetuneOptions,
    model: Model,
    fitted: Fitted,
    cohort: Cohort,
    excluded: Mapping[str, str],
    figures: Mapping[str, Any],
) -> None:
    """Write the weights with their card, as metadata and as JSON beside them."""
    card = {
        "name": "unified, fine-tuned",
        "base": model.sha256,
        "training_data": f"{model.metadata.get('training_data', '')}; then {len(cohort)} scans of "
        f"{len(set(cohort.participants))} participants of {options.bids_dir.name}",
        "columns": options.target or "none",
        "excluded": str(len(excluded)),
        "licence": f"{model.metadata.get('licence', '')}; that of the cohort's data applies besides",
        "intended_use": RESEARCH_USE,
        "date": date.today().isoformat(),
        "training": json.dumps(fitted.facts),
        **{name: json.dumps(value) for name, value in figures.items()},
    }
    modules = {
        "first_look": model.first_look, "aligner": model.aligner, "unibrain": fitted.joint.unibrain,
        "refiner": model.refiner,
    }  # fmt: skip
    path = options.out / "weights.safetensors"
    save_weights(path, {name: module.state_dict() for name, module in modules.items()}, card)
    write_json(path.with_suffix(".json"), card)


def _write_predictions(path: Path, cohort: Cohort, trained: Trained) -> None:
    """One row for each participant: the target, and the held-out score of each model."""
    validation = trained.validations[0]
    who = np.unique(cohort.participants).tolist()
    write_tsv(
        path,
        [
            {"participant_id": name, "target": float(validation.target[k])}
            | {model: float(result.scores[k]) for model, result in validation.results.items()}
            for k, name in enumerate(who)
        ],
    )


def _procedure(options: FinetuneOptions) -> str:
    return (
        f"In each of {options.folds} training sets a graph head was trained on the unchanged model; then model and "
        f"head together, {options.steps} steps of {options.batch} samples, every second one a simulated head. A third "
        "of the training set chose when to stop, and the threshold. The head that is kept was trained in the same way "
        "on all participants; the figures are those of held-out participants."
    )


def _summary(scans: Sequence[CohortScan]) -> str:
    masks, segmentations = (sum(bool(getattr(scan, name)) for scan in scans) for name in ("mask", "segmentation"))
    who = len({scan.participant for scan in scans})
    return f"{len(scans)} scans of {who} participants, {masks} with a mask, {segmentations} with a segmentation"


def _shown(figures: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in figures.items() if isinstance(value, float))
