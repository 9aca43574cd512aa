"""The workflow of a run: one independent workflow per scan, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nipype import Workflow

from unibrain_bids.bids.inputs import ScanRecord
from unibrain_bids.bids.publish import Fingerprint
from unibrain_bids.workflows.names import ROOT
from unibrain_bids.workflows.processing import Processing
from unibrain_bids.workflows.scan import init_scan_wf


def init_participant_wf(processing: Processing, scans: Mapping[ScanRecord, Fingerprint], *, work_dir: Path) -> Workflow:
    """Build the workflow that processes `scans`; intermediate files go to a folder below `work_dir`.

    Parameters
    ----------
    processing
        What is done with each scan.
    scans
        The scans, with what their results depend on.
    work_dir
        Folder for intermediate files.
    """
    participant_wf = Workflow(name=ROOT, base_dir=str(work_dir))
    for record, fingerprint in scans.items():
        participant_wf.add_nodes([init_scan_wf(processing, record, fingerprint=fingerprint)])
    return participant_wf
