"""Predictions as rows of a table, and what its columns mean."""

from __future__ import annotations

import re
from typing import Any

from unibrain_bids.classification.card import RESEARCH_USE
from unibrain_bids.classification.head import Head, Outcome

__all__ = ["column_texts", "prediction_row"]


def prediction_row(head: Head, outcome: Outcome) -> dict[str, Any]:
    """Return the row of one scan or participant; None where the head refuses."""
    values: dict[str, Any]
    if head.classes is None:
        values = {_number_column(head): outcome.value}
    else:
        first, second = (_probability_column(name) for name in head.classes)
        value = outcome.value
        values = {"predicted_class": outcome.predicted, first: None if value is None else 1 - value, second: value}
    return {**values, "in_distribution": outcome.verdict, "distance": outcome.distance}


def column_texts(head: Head) -> dict[str, dict[str, Any]]:
    """Return the description of each column of `prediction_row`."""
    target = head.card["Target"]
    texts: dict[str, dict[str, Any]] = {}
    if head.classes is None:
        texts[_number_column(head)] = {"Description": f"Predicted {target}. {RESEARCH_USE}"}
    else:
        levels = {name: f"{target} is {name}" for name in head.classes}
        text = f"Class of {target} that the head chooses, with a threshold from its training data. {RESEARCH_USE}"
        texts["predicted_class"] = {"Description": text, "Levels": levels}
        for name in head.classes:
            text = f"Probability that {target} is {name}, given the classes' shares in training. {RESEARCH_USE}"
            texts[_probability_column(name)] = {"Description": text}
    return texts | {
        "in_distribution": {
            "Description": "Whether the scan is like those that the head was trained on.",
            "Levels": {
                "inside": "As 99 % of the training scans.",
                "flagged": "Farther away: do not rely on the prediction.",
                "refused": "More than twice as far: nothing is predicted.",
            },
        },
        "distance": {
            "Description": f"Distance from the training scans; the limit is {head.novelty.limit:.4g}.",
        },
    }


def _probability_column(name: str) -> str:
    return "prob_" + re.sub("[^0-9a-zA-Z]", "_", name)


def _number_column(head: Head) -> str:
    return "predicted_" + re.sub("[^0-9a-zA-Z]", "_", str(head.card["Target"]))
