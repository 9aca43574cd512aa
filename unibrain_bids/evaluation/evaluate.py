"""Run the app's own inference on labelled heads and measure it, one head after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unibrain_bids.evaluation.heads import HeadRecord, LabelledHead
from unibrain_bids.evaluation.measures import HeadMeasures, measure
from unibrain_bids.evaluation.registration import (
    AffineScores,
    Peer,
    TemplateTruth,
    register,
    score_affine,
    score_deformation,
)

if TYPE_CHECKING:
    from unibrain_bids.inference import Prediction

Predictor = Callable[[Path], "Prediction"]
"""Reads one scan and returns what the app says about it."""

OURS, CLOSED_FORM, DEFORMED = "unibrain_bids", "unibrain_bids, closed form alone", "unibrain_bids, deformed"


@dataclass(frozen=True)
class Registration:
    """One method's registration of one head: its name, its scores and what it cost (NaN: not measured apart)."""

    method: str
    scores: AffineScores
    cpu_seconds: float = float("nan")


@dataclass(frozen=True)
class HeadScores:
    """Everything measured on one head."""

    name: str
    measures: HeadMeasures
    registrations: tuple[Registration, ...]


@dataclass(frozen=True)
class Failure:
    """A head that could not be loaded, predicted or measured, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Evaluation:
    """The heads of one source: those measured and those that failed."""

    source: str
    scores: tuple[HeadScores, ...] = ()
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True)
class Evaluator:
    """What a head is evaluated with.

    Attributes
    ----------
    predict
        The inference under test.
    template
        Template whose labels are known.
    template_prediction
        What the model says about the template itself.
    peers
        Other tools' affines, scored on the heads that they have registered.
    report
        Takes progress lines.
    corrected
        What N4 makes of heads, by name: measures of `uniformity` (benchmarks/n4.py).
    """

    predict: Predictor
    template: TemplateTruth
    template_prediction: Prediction
    peers: Sequence[Peer] = ()
    report: Callable[[str], None] = field(default=print)
    corrected: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def run(self, source: str, records: Iterable[HeadRecord]) -> Evaluation:
        """Evaluate every head of a source; a head that fails is reported and the rest goes on."""
        scores: list[HeadScores] = []
        failures: list[Failure] = []
        for record in records:
            try:
                scores.append(self.evaluate(record.load()))
                self.report(_progress_line(scores[-1]))
            except Exception as error:  # whatever is wrong with one head must not cost the others
                failures.append(Failure(record.name, f"{type(error).__name__}: {error}"))
                self.report(f"{record.name}: FAILED, {failures[-1].reason}")
        return Evaluation(source, tuple(scores), tuple(failures))

    def evaluate(self, head: LabelledHead) -> HeadScores:
        """Predict and measure one head."""
        start = time.perf_counter()
        prediction = self.predict(head.path)
        seconds = time.perf_counter() - start
        measured = measure(head, prediction)
        others = self.corrected.get(head.name, {})
        measured = HeadMeasures({**measured.values, **others, "seconds": seconds}, measured.structures)
        return HeadScores(
            head.name, measured, (*self._own_registrations(head, prediction), *self._peer_registrations(head))
        )

    def _own_registrations(self, head: LabelledHead, prediction: Prediction) -> list[Registration]:
        closed_form = np.linalg.inv(self.template_prediction.frame_from_scan) @ prediction.frame_from_scan
        start = time.process_time()
        refined = register(self.template_prediction, prediction)
        middle = time.process_time()
        deformed = register(self.template_prediction, prediction, nonlinear=True)
        end = time.process_time()
        return [
            Registration(OURS, score_affine(head, self.template, refined.template_from_scan), middle - start),
            Registration(CLOSED_FORM, score_affine(head, self.template, closed_form)),
            Registration(DEFORMED, score_deformation(head, self.template, deformed), end - middle),
        ]

    def _peer_registrations(self, head: LabelledHead) -> list[Registration]:
        return [
            Registration(peer.name, score_affine(head, self.template, found.template_from_scan), found.cpu_seconds)
            for peer in self.peers
            if (found := peer.heads.get(head.name)) is not None
        ]


def _progress_line(scores: HeadScores) -> str:
    values, affine = scores.measures.values, scores.registrations[0].scores
    if not scores.measures.structures:
        return f"{scores.name}: WM CV {values['wm_cv_output']:.3f}, affine NCC {affine.ncc:.3f}"
    return (
        f"{scores.name}: mask Dice {values['mask_dice']:.3f}, structures {values['structure_dice']:.3f}, "
        f"tissues {values['tissue_dice']:.3f}, affine {affine.mean_dice:.3f}, {values['seconds']:.1f} s"
    )
