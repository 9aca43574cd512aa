"""The workflow of the reports: one node per participant, after all their scans."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from nipype import Node, Workflow

from unibrain_bids.interfaces.report import ParticipantReport
from unibrain_bids.workflows.names import ROOT
from unibrain_bids.workflows.processing import Processing

REPORT_GB = 1.5


def init_reports_wf(processing: Processing, participants: Iterable[str], *, work_dir: Path) -> Workflow:
    """Build the workflow that writes the reports of `participants` (labels without `sub-`).

    It stands apart from the scans' own workflows, so that a scan that fails keeps no report from being made, and a
    report that fails loses no derivatives.
    """
    reports_wf = Workflow(name=ROOT, base_dir=str(work_dir))
    for participant in participants:
        workflow = Workflow(name=f"{report_name(participant)}_wf")
        interface = ParticipantReport(
            participant=participant, output_dir=str(processing.output_dir), bids_dir=str(processing.bids_dir)
        )
        workflow.add_nodes([Node(interface, name="report", mem_gb=REPORT_GB)])
        reports_wf.add_nodes([workflow])
    return reports_wf


def report_name(participant: str) -> str:
    """Return the name of a participant among Nipype's names, which allow no "+"."""
    return f"sub-{participant}".replace("+", "_")
