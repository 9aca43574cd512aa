"""The tables of the group level, at the root of the derivative dataset."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain_bids import __version__
from unibrain_bids.bids.atomic import write_json, write_tsv
from unibrain_bids.bids.derivatives import DEFAULT_ATLAS
from unibrain_bids.bids.tables import REGION_MEASURES
from unibrain_bids.bids.texts import texts
from unibrain_bids.group.comparison import Question
from unibrain_bids.group.derivatives import NETWORKS
from unibrain_bids.group.gather import Gathered
from unibrain_bids.group.statistics import Effects, Means
from unibrain_bids.imaging.quality import MEASURES
from unibrain_bids.labels import LabelTable

__all__ = [
    "label_of", "method_of", "scan_rows", "write_comparison", "write_networks", "write_scans", "write_volumes",
]  # fmt: skip

_OTHER_MEASURES = {
    "model_realignment_mm": ("How far the model's second fit would still move the brain.", "mm"),
    "model_mask_certainty": ("Certainty of the brain mask at its border, 0 to 1.", "1"),
    "registration_overlap": ("Overlap (soft Dice at 4 mm) of the structures with the template's, 0 to 1.", "1"),
    "registration_correlation": ("Correlation of the intensities with the template's, within the structures.", "1"),
    "intracranial_volume": ("Volume within the skull, as the model estimates it.", "mm^3"),
}
_OUTLIER = (
    "Measures that lie more than 3.5 robust standard deviations (1.4826 times the median absolute deviation) from the "
    "median of all scans; from ten scans on."
)
_EFFECT_COLUMNS = {
    "effect": "Size of the effect.",
    "low": "Lower end of its 95 % confidence interval.",
    "high": "Upper end of its 95 % confidence interval.",
    "t": "Test statistic.",
    "df": "Degrees of freedom.",
    "p": "Two-sided p value.",
    "q": "p value adjusted by Benjamini and Hochberg's control of the false discovery rate: over all rows of the table "
    "of regions, over all edges of one network.",
}


def label_of(text: str) -> str:
    """Return `text` as a BIDS label: letters and digits alone."""
    return re.sub("[^0-9a-zA-Z]", "", text) or "x"


def scan_rows(
    gathered: Gathered, outliers: Sequence[Sequence[str]], remarks: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return the rows of group_T1w.tsv: one per scan.

    Parameters
    ----------
    gathered
        The scans.
    outliers
        Outlying measures of each scan.
    remarks
        Scan to a remark, such as a mismatch with participants.tsv.
    """
    measures = list(dict.fromkeys(name for quality in gathered.quality for name in quality))
    return [
        {
            "scan": scan.record.key,
            "participant_id": scan.participant,
            "session_id": f"ses-{scan.record.session}" if scan.record.session else None,
            **{name: quality.get(name, math.nan) for name in measures},
            "outlier": " ".join(outlying) or None,
            "remark": remarks.get(scan.record.key),
        }
        for scan, quality, outlying in zip(gathered.scans, gathered.quality, outliers, strict=True)
    ]


def write_scans(output_dir: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write group_T1w.tsv and its dictionary."""
    described: dict[str, Any] = {
        "scan": {"Description": "Name of the scan, without suffix."},
        "participant_id": {"Description": "Participant."},
        "session_id": {"Description": "Session."},
        **MEASURES,
        **{name: {"Description": text, "Units": unit} for name, (text, unit) in _OTHER_MEASURES.items()},
        "outlier": {"Description": _OUTLIER},
        "remark": {"Description": "What else deserves a look."},
    }
    write_tsv(output_dir / "group_T1w.tsv", rows)
    write_json(output_dir / "group_T1w.json", {name: described[name] for name in rows[0] if name in described})


def write_volumes(output_dir: Path, gathered: Gathered) -> None:
    """Write the volumes of all regions of all scans as one wide table."""
    names = LabelTable.load(DEFAULT_ATLAS).names
    rows = [
        {"scan": scan.record.key, "participant_id": scan.participant, **dict(zip(names, row.tolist(), strict=True))}
        for scan, row in zip(gathered.scans, gathered.volumes, strict=True)
    ]
    path = output_dir / f"group_atlas-{DEFAULT_ATLAS}_desc-volume_morph.tsv"
    write_tsv(path, rows)
    text = "Volume (mm^3) of each region (columns) in each scan; n/a where a region was not found."
    write_json(path.with_suffix(".json"), {"Description": text, "Units": "mm^3"})


def write_networks(output_dir: Path, means: Mapping[str, Means], by_class: Mapping[str, Mapping[str, Means]]) -> None:
    """Write mean networks over all participants and, in `by_class` (class to measure to means), over each class."""
    for group, of_group in {"": means, **by_class}.items():
        for measure, edges in of_group.items():
            names = LabelTable.load(DEFAULT_ATLAS).names
            matrix = _square(edges.known_mean, len(names))
            desc = f"mean{label_of(group)}" if group else "mean"
            path = output_dir / f"group_atlas-{DEFAULT_ATLAS}_meas-{measure}_desc-{desc}_relmat.tsv"
            write_tsv(path, [dict(zip(names, row, strict=True)) for row in matrix.tolist()])
            whom = f"the participants of class {group}" if group else "all participants"
            of_measure = texts("measures")[measure]
            content = {
                **of_measure,
                "Description": f"Mean over {whom}, who count once each. {of_measure['Description']}",
                "NumberOfParticipants": int(edges.count.max(initial=0)),
                "Directed": False,
                "Weighted": True,
                "Software": "unibrain-bids",
                "SoftwareVersion": __version__,
            }
            write_json(path.with_suffix(".json"), content)


def write_comparison(
    output_dir: Path, question: Question, regions: Effects, edges: Mapping[str, Effects], classes: Sequence[Means]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Write the comparison of regions and of edges; returns the rows of both tables.

    Parameters
    ----------
    output_dir
        The derivative dataset.
    question
        What was compared.
    regions
        Effects in the order (R, `REGION_MEASURES`).
    edges
        Effects of each network, in the order of `gather.upper`.
    classes
        Means of the regions' measures in the two classes; empty if a number was compared.
    """
    names = LabelTable.load(DEFAULT_ATLAS).names
    labelled = list(zip(question.classes or (), classes, strict=True))
    columns = {f"mean_{label}": means.known_mean for label, means in labelled}
    columns |= {f"sd_{label}": means.sd for label, means in labelled} | _columns(regions)
    outcomes = [(name, measure) for name in names for measure in REGION_MEASURES]
    region_rows = [
        {"region": name, "measure": measure, **{key: float(column[k]) for key, column in columns.items()}}
        for k, (name, measure) in enumerate(outcomes)
    ]
    pairs = [(names[i], names[j]) for i, j in zip(*np.triu_indices(len(names), k=1), strict=True)]
    edge_rows = []
    for measure in NETWORKS:
        columns = _columns(edges[measure])
        for k, (name, other) in enumerate(pairs):
            effects = {key: float(column[k]) for key, column in columns.items()}
            edge_rows.append({"region": name, "other": other, "measure": measure, **effects})
    for kind, rows in (("regions", region_rows), ("edges", edge_rows)):
        path = output_dir / f"group_atlas-{DEFAULT_ATLAS}_desc-{label_of(question.column)}_{kind}.tsv"
        write_tsv(path, rows)
        write_json(path.with_suffix(".json"), _described(question))
    return region_rows, edge_rows


def method_of(question: Question) -> str:
    """Return in a sentence what was compared, and how."""
    adjustment = f", adjusted for {', '.join(question.adjusted_for)}" if question.adjusted_for else ""
    if question.classes is None:
        return f"Partial correlation with {question.column}{adjustment} (least squares)."
    first, second = question.classes
    test = "least squares" if question.adjusted_for else "Welch's t test"
    return f"{question.column}: {second} minus {first}, as Hedges' g{adjustment} ({test})."


def _described(question: Question) -> dict[str, Any]:
    named = {label: sum(value == k for value in question.values.values())
             for k, label in enumerate(question.classes or ())}  # fmt: skip
    return {
        "Description": f"{method_of(question)} Each participant counts once, with the mean of its scans.",
        "NumberOfParticipants": len(question.values),
        **({"NumberByClass": named} if named else {}),
        "Covariates": question.adjusted_for,
        "Excluded": question.excluded,
        **{name: {"Description": text} for name, text in _EFFECT_COLUMNS.items()},
    }


def _columns(effects: Effects) -> dict[str, NDArray[np.float64]]:
    return {
        "effect": effects.size,
        "low": effects.low,
        "high": effects.high,
        "t": effects.t,
        "df": effects.df,
        "p": effects.p,
        "q": effects.q,
    }


def _square(edges: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Return the network (size, size) of an upper triangle; its diagonal is 1 in both measures."""
    matrix = np.eye(size)
    above = np.triu_indices(size, k=1)
    matrix[above] = edges
    matrix.T[above] = edges
    return matrix
