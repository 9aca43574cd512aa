"""The page of the group level: one HTML file that needs nothing but itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from unibrain_bids.bids.derivatives import DEFAULT_ATLAS, report_path
from unibrain_bids.group.comparison import Question
from unibrain_bids.group.gather import Gathered
from unibrain_bids.group.statistics import Means
from unibrain_bids.group.tables import method_of
from unibrain_bids.labels import LabelTable
from unibrain_bids.reports.page import Facts, Flag, Flags, Html, Section, Table, Text, link, render_page

__all__ = ["compared_section", "group_page"]

_SHOWN_EDGES = 100
_SIGNIFICANT = 0.05
_MEASURES_PLOT = Markup(
    '<div class="plot" data-plot="measures"><form><label>Up <select></select></label>'
    "<label>Across <select></select></label>{keys}</form>"
    '<svg viewBox="0 0 800 380" role="group" tabindex="0" aria-label="Measures of all scans, one dot each"></svg>'
    "<output>Point at a dot to see its scan, or go there with the arrow keys; a click or Enter opens the participant's "
    "report, if there is one.</output></div>"
)
_NETWORK_PLOT = Markup(
    '<div class="plot" data-plot="networks"><form><label>Network <select></select></label></form>'
    '<canvas tabindex="0" aria-label="Mean network, a matrix of regions"></canvas>'
    "<output>Point at an edge to see its regions, or go there with the arrow keys.</output></div>"
)


def group_page(
    gathered: Gathered,
    rows: Sequence[Mapping[str, Any]],
    *,
    name: str,
    root: Path,
    question: Question | None = None,
    by_class: Mapping[str, Mapping[str, Means]] | None = None,
    sections: Sequence[Section] = (),
) -> str:
    """Return the page as HTML.

    Parameters
    ----------
    gathered
        What the pass over the scans has left.
    rows
        Those of group_T1w.tsv.
    name
        Of the raw dataset.
    root
        The derivative dataset; reports of participants that lie there are linked.
    question, by_class
        The comparison, if there was one, and the mean networks of its classes.
    sections
        Further sections: comparison, predictions.
    """
    means = {"all participants": gathered.means, **(by_class or {})}
    data = {"group-measures": _measures(gathered, rows, root, question), "group-networks": _networks(means)}
    return render_page(
        f"Group: {name}",
        [_overview(gathered, rows), _quality(rows, root, question), *sections, _network_section(), _left_out(gathered)],
        subtitle=f"{len(rows)} scan(s) of {len({row['participant_id'] for row in rows})} participant(s)",
        scripts=[_resource("group.js")],
        styles=[_resource("group.css")],
        data=data,
    )


def compared_section(
    question: Question, regions: Sequence[Mapping[str, Any]], edges: Sequence[Mapping[str, Any]]
) -> Section:
    """Return the section of a comparison: all regions, and the edges with the smallest p."""
    regions, edges = (
        sorted(rows, key=lambda row: (not math.isfinite(row["p"]), row["p"])) for rows in (regions, edges)
    )
    strongest = edges[:_SHOWN_EDGES]
    found = {
        what: sum(row["q"] < _SIGNIFICANT for row in rows) for what, rows in (("regions", regions), ("edges", edges))
    }
    counts = ", ".join(
        f"{label}: {sum(value == k for value in question.values.values())}"
        for k, label in enumerate(question.classes or ())
    )
    facts = [
        ("Participants", len(question.values)),
        *([("Of each class", counts)] if counts else []),
        ("Left out", len(question.excluded)),
        ("Measures of regions with q < .05", f"{found['regions']} of {len(regions)}"),
        ("Edges with q < .05", f"{found['edges']} of {len(edges)}"),
    ]
    keys = ["effect", "low", "high", "t", "p", "q"]
    shown = {"effect": "g" if question.classes else "partial r", "low": "95 % from", "high": "to"}
    heads = [shown.get(key, key) for key in keys]
    return Section(
        f"Comparison by {question.column}",
        [
            Text(f"{method_of(question)} q controls the false discovery rate. An association in a sample is neither a "
                 "cause nor a diagnosis."),
            Facts(facts),
            Table(["region", "measure", *heads], [[row["region"], row["measure"], *(row[key] for key in keys)]
                  for row in regions], "All measures of all regions", sortable=True),
            Table(["region", "other region", "network", *heads],
                  [[row["region"], row["other"], row["measure"], *(row[key] for key in keys)] for row in strongest],
                  f"The {len(strongest)} edges with the smallest p, of {len(edges)}", sortable=True),
        ],
        anchor="comparison",
    )  # fmt: skip


def _overview(gathered: Gathered, rows: Sequence[Mapping[str, Any]]) -> Section:
    outlying = sum(row["outlier"] is not None for row in rows)
    flags = []
    if len(gathered.makers) > 1:
        flags.append(Flag("These derivatives were made with different weights or versions: do not compare them."))
    if gathered.excluded:
        flags.append(
            Flag(f"{len(gathered.excluded)} scan(s) or participant(s) left out, wholly or in part: see below.")
        )
    facts = [
        ("Scans", len(rows)),
        ("Participants", len({row["participant_id"] for row in rows})),
        ("Scans with outlying measures", outlying),
        ("Made with", "; ".join(str(maker or "unknown weights") for maker in gathered.makers)),
    ]
    return Section("Overview", [Facts(facts), *([Flags(flags)] if flags else [])])


def _quality(rows: Sequence[Mapping[str, Any]], root: Path, question: Question | None) -> Section:
    keys = Markup("").join(
        Markup('<span class="key g{}">{}</span>').format(k, label)
        for k, label in enumerate((question.classes if question else None) or ())
    )
    columns = list(rows[0])
    cells = [[_linked(row, root) if key == "scan" else row[key] for key in columns] for row in rows]
    text = (
        "An outlying scan lies more than 3.5 robust standard deviations from the median of all scans in a measure "
        "(marked red in the plot). Look at it before using it; being unlike the others is no fault by itself."
    )
    table = Table(columns, cells, "Quality measures of all scans (group_T1w.tsv)", sortable=True)
    return Section("Scans", [Text(text), Html(_MEASURES_PLOT.format(keys=keys)), table], anchor="scans")


def _network_section() -> Section:
    text = "Means over participants, each counted once. The darker an edge, the more alike are its two regions."
    return Section("Mean networks", [Text(text), Html(_NETWORK_PLOT)], anchor="networks")


def _left_out(gathered: Gathered) -> Section:
    if not gathered.excluded:
        return Section("Left out", [Text("Nothing was left out.")])
    return Section(
        "Left out",
        [Table(["scan or participant", "reason"], list(gathered.excluded.items()), "What was left out, and why")],
    )


def _linked(row: Mapping[str, Any], root: Path) -> Any:
    report = report_path(row["participant_id"].removeprefix("sub-"))
    return link(report.as_posix(), row["scan"]) if (root / report).is_file() else row["scan"]


def _measures(
    gathered: Gathered, rows: Sequence[Mapping[str, Any]], root: Path, question: Question | None
) -> dict[str, Any]:
    """Return what the plot of measures shows."""
    quality = [key for key in rows[0] if key not in ("scan", "participant_id", "session_id", "outlier", "remark")]
    regions = [f"{name} volume" for name in LabelTable.load(DEFAULT_ATLAS).names]
    values = {key: [_rounded(row[key]) for row in rows] for key in quality}
    values |= {key: [_rounded(volumes[k]) for volumes in gathered.volumes] for k, key in enumerate(regions)}
    classes = list((question.classes if question else None) or ())
    reports = [report_path(row["participant_id"].removeprefix("sub-")) for row in rows]
    return {
        "scans": [row["scan"] for row in rows],
        "reports": [path.as_posix() if (root / path).is_file() else "" for path in reports],
        "outlier": [(row["outlier"] or "").split() for row in rows],
        "column": question.column if question and classes else "",
        "classes": classes or [""],
        "member": [question.values.get(row["participant_id"]) for row in rows] if question and classes else [],
        "groups": [["quality", quality], ["volume (mm\u00b3)", regions]],
        "values": values,
    }


def _networks(groups: Mapping[str, Mapping[str, Means]]) -> dict[str, Any]:
    edges = {
        f"{measure}, {group}": [_rounded(value) for value in means.known_mean.tolist()]
        for group, of_group in groups.items()
        for measure, means in of_group.items()
    }
    return {"names": list(LabelTable.load(DEFAULT_ATLAS).names), "edges": edges}


def _rounded(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None


def _resource(name: str) -> str:
    return (files("unibrain_bids") / "resources" / "reports" / name).read_text(encoding="utf-8")
