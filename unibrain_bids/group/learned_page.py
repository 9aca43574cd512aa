"""The sections of the group page on heads: how good a new one is, and what heads say of the participants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from unibrain_bids.classification.card import RESEARCH_USE
from unibrain_bids.classification.head import Head
from unibrain_bids.classification.training import Trained
from unibrain_bids.classification.validation import HEAD, Validation
from unibrain_bids.reports.page import Block, Facts, Flag, Flags, Html, Section, Table, Text

__all__ = ["learned_section", "predicted_section"]

_ALPHA = 0.05
_LEAKING = 1.5  # times chance
_MODELS = {
    HEAD: "head, as the inner folds chose it",
    "ridge": "ridge regression on all features",
    "graph": "graph network",
    "covariates": "covariates and intracranial volume alone (baseline)",
}


def learned_section(trained: Trained) -> Section:
    """Return what the validation of a new head has shown."""
    card = trained.head.card
    counts = [(name.lower(), value) for name, value in card["Training"].items() if isinstance(value, int)]
    blocks: list[Block] = [
        Flags([Flag(RESEARCH_USE, "info"), *_warnings(trained)]),
        Facts([("kind", card["Kind"]), *counts, *card["Training"]["Target"].items()]),
        Text(card["Procedure"]),
        *(_validation_section(validation) for validation in trained.validations),
        Text(card["Permutations"]),
    ]
    return Section(f"Head: {card['Target']}", blocks, anchor=f"head-{card['Label']}")


def predicted_section(head: Head, rows: Sequence[Mapping[str, Any]]) -> Section:
    """Return what a head says of the participants."""
    refused = sum(row["in_distribution"] == "refused" for row in rows)
    flagged = sum(row["in_distribution"] == "flagged" for row in rows)
    flags = [Flag(RESEARCH_USE, "info")]
    if refused or flagged:
        text = f"{flagged} participant(s) are unlike the training data, {refused} so much that nothing is predicted."
        flags.append(Flag(text))
    columns = list(rows[0])
    table = Table(
        columns, [[row[name] for name in columns] for row in rows], f"phenotype/{head.label}.tsv", sortable=True
    )
    return Section(f"Predictions: {head.label}", [Flags(flags), table], anchor=f"predictions-{head.label}")


def _warnings(trained: Trained) -> list[Flag]:
    """Return what speaks against the head."""
    flags = []
    last = trained.validations[-1]
    figure = "r" if last.classes is None else "auc"
    head, baseline = last.figures[HEAD][figure], last.figures["covariates"][figure]
    if last.refitted.p >= _ALPHA:
        flags.append(
            Flag(f"The permutation test finds no sign that the images tell the target (p = {last.refitted.p:.3f}).")
        )
    if not head > baseline:
        flags.append(Flag(f"The head ({figure} {head:.3f}) is no better than the covariates alone ({baseline:.3f})."))
    leak = trained.head.card["SiteFromFeatures"]
    if leak and leak["balanced_accuracy"] > _LEAKING * leak["chance"]:
        flags.append(
            Flag(
                f"The features give the site away (balanced accuracy {leak['balanced_accuracy']:.2f}, chance "
                f"{leak['chance']:.2f}): where sites differ in the target, trust the figures with sites held out alone."
            )
        )
    return flags


def _validation_section(validation: Validation) -> Section:
    names = [name for name in validation.figures[HEAD] if not name.endswith("_interval")]
    rows = []
    for model, figures in validation.figures.items():
        cells = [_with_interval(figures, name) for name in names]
        rows.append([_MODELS.get(model, model), *cells])
    tests = [
        [
            "ridge, fitted again",
            validation.refitted.statistic,
            float(validation.refitted.null.mean()),
            validation.refitted.p,
        ],
        ["head's held-out scores", validation.fixed.statistic, float(validation.fixed.null.mean()), validation.fixed.p],
    ]
    statistic = "r" if validation.classes is None else "AUC"
    chosen = ", ".join(f"{name} in {count} fold(s)" for name, count in validation.choices.items())
    blocks: list[Block] = [
        Table(["model", *(name.replace("_", " ") for name in names)], rows, f"Held out: {validation.scheme}"),
        Text(f"The inner folds chose {chosen}."),
        Table(["permutation test", statistic, f"mean {statistic} under exchange", "p"], tests,
              f"Permutation tests, {len(validation.fixed.null)} exchanges"),
    ]  # fmt: skip
    if validation.classes:
        blocks.append(Html(_reliability_plot(validation)))
    if validation.by_site:
        columns = ["site", *next(iter(validation.by_site.values()))]
        sites = [[site, *figures.values()] for site, figures in validation.by_site.items()]
        blocks.append(Table(columns, sites, "The head at each site", sortable=True))
    return Section(validation.scheme[0].upper() + validation.scheme[1:], blocks)


def _with_interval(figures: Mapping[str, Any], name: str) -> Any:
    interval = figures.get(f"{name}_interval")
    return f"{figures[name]:.3f} ({interval[0]:.3f} to {interval[1]:.3f})" if interval else figures[name]


def _reliability_plot(validation: Validation) -> Markup:
    """Return predicted against observed frequency as SVG; the area of a dot is its number of participants."""
    size = 300
    parts = [Markup('<line class="axis" x1="0" y1="{0}" x2="{0}" y2="0"/>').format(size)]
    most = max(bin_["participants"] for bin_ in validation.reliability)
    for bin_ in validation.reliability:
        radius = 3 + 7 * np.sqrt(bin_["participants"] / most)
        parts.append(
            Markup(
                '<circle cx="{:.1f}" cy="{:.1f}" r="{:.1f}"><title>predicted {:.2f}, observed {:.2f}</title></circle>'
            ).format(
                size * bin_["predicted"], size * (1 - bin_["observed"]), radius, bin_["predicted"], bin_["observed"]
            )
        )
    label = str((validation.classes or ("", ""))[1])
    frame = Markup(
        '<figure class="plot reliability"><svg viewBox="-45 -12 {0} {1}" role="img" aria-label="Reliability">'
        '<rect class="box" width="300" height="300"/>{2}'
        '<text x="150" y="328" text-anchor="middle">predicted probability of {3}</text>'
        '<text x="-150" y="-14" transform="rotate(-90)" text-anchor="middle">observed part</text>'
        '<text x="0" y="314">0</text><text x="292" y="314">1</text><text x="-12" y="10">1</text></svg>'
        "<figcaption>Calibration: the nearer to the diagonal, the truer the probabilities.</figcaption></figure>"
    )
    return frame.format(size + 60, size + 50, Markup("").join(parts), label)
