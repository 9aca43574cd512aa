"""The group level: one pass over the participants' derivatives, then tables and a page."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unibrain_bids.bids.atomic import write_text
from unibrain_bids.bids.derivatives import DEFAULT_ATLAS
from unibrain_bids.classification.card import HeadFile
from unibrain_bids.classification.head import load_head
from unibrain_bids.errors import DatasetError, UsageError
from unibrain_bids.group.comparison import Comparison, Question, ask
from unibrain_bids.group.derivatives import find_tables
from unibrain_bids.group.gather import Gathered, gather
from unibrain_bids.group.learned_page import learned_section, predicted_section
from unibrain_bids.group.learning import learn, one_maker
from unibrain_bids.group.options import GroupOptions
from unibrain_bids.group.outliers import outlying_measures
from unibrain_bids.group.page import compared_section, group_page
from unibrain_bids.group.participants import Participants, read_participants, recorded_sex
from unibrain_bids.group.predictions import predict_all, sex_mismatches, write_phenotype
from unibrain_bids.group.statistics import Means
from unibrain_bids.group.tables import label_of, scan_rows, write_comparison, write_networks, write_scans, write_volumes
from unibrain_bids.reports.files import read_json
from unibrain_bids.reports.page import Section

__all__ = ["GroupResult", "run_group"]

logger = logging.getLogger(__name__)

PAGE = "group_T1w.html"


@dataclass(frozen=True)
class GroupResult:
    """What the group level has done: scans that count, and what was left out, with reasons."""

    scans: int
    excluded: dict[str, str]


def run_group(
    bids_dir: Path, output_dir: Path, *, options: GroupOptions, participants: Sequence[str] = ()
) -> GroupResult:
    """Summarise, compare and predict, as `options` say.

    Parameters
    ----------
    bids_dir
        The raw dataset, of which only participants.tsv is read.
    output_dir
        The derivative dataset.
    options
        What to do.
    participants
        Labels without `sub-`; empty for all.

    Raises
    ------
    DatasetError
        There are no derivatives, or participants.tsv is damaged.
    UsageError
        A column does not exist, or cannot be compared or learned.
    """
    table = read_participants(bids_dir)
    scans = find_tables(output_dir, participants=participants)
    members = list(dict.fromkeys(scan.participant for scan in scans))
    question = ask(table, options, members) if options.compare else None
    learns = bool(options.classify or options.regress)
    gathered = gather(scans, question=question, keep=bool(learns or options.heads))
    if not gathered.scans:
        raise DatasetError(f"{output_dir}: no scan's quality measures can be read.", "Run the participant level again.")
    remarks: dict[str, str] = {}
    sections: list[Section] = []
    if learns:
        label = label_of(str(options.classify or options.regress))
        sections.append(learned_section(learn(output_dir, gathered, table, options, label=label)))
    for file in options.heads:
        section, doubts = _predict(output_dir, gathered, file, table)
        sections.append(section)
        remarks |= doubts
    rows = scan_rows(gathered, outlying_measures(gathered.quality), remarks)
    write_scans(output_dir, rows)
    write_volumes(output_dir, gathered)
    by_class = _networks_by_class(gathered, question)
    write_networks(output_dir, gathered.means, by_class)
    if question and gathered.regions:
        gathered.excluded |= question.excluded
        sections.insert(0, _compare(output_dir, question, gathered.regions, gathered.edges))
    name = read_json(bids_dir / "dataset_description.json").get("Name") or bids_dir.name
    page = group_page(
        gathered, rows, name=str(name), root=output_dir, question=question, by_class=by_class, sections=sections
    )
    write_text(output_dir / PAGE, page)
    return GroupResult(len(rows), gathered.excluded)


def _predict(
    output_dir: Path, gathered: Gathered, file: HeadFile, table: Participants
) -> tuple[Section, dict[str, str]]:
    """Write a head's predictions; return their section, and the scans whose predicted sex is not the recorded one."""
    if file.sees_model:
        remedy = "Give it at participant level (--classifier)."
        raise UsageError(f"{file.path}: sees the model's own outputs, which no table holds.", remedy)
    maker = one_maker(gathered)
    file.check(weights=maker.weights, version=maker.release, atlas=DEFAULT_ATLAS)
    head = load_head(file)
    outcomes = predict_all(head, gathered.features)
    section = predicted_section(head, write_phenotype(output_dir, head, gathered.features, outcomes))
    predicts_sex = set(head.classes or ()) == {"F", "M"}
    return section, sex_mismatches(head, outcomes, recorded_sex(table)) if predicts_sex else {}


def _networks_by_class(gathered: Gathered, question: Question | None) -> dict[str, dict[str, Means]]:
    if question is None or question.classes is None:
        return {}
    return {
        label: {measure: comparison.by_class[k] for measure, comparison in gathered.edges.items()}
        for k, label in enumerate(question.classes)
    }


def _compare(
    output_dir: Path, question: Question, regions: Comparison, by_network: Mapping[str, Comparison]
) -> Section:
    edges = {measure: comparison.effects() for measure, comparison in by_network.items()}
    classes = regions.by_class if question.classes else ()
    return compared_section(question, *write_comparison(output_dir, question, regions.effects(), edges, classes))
