"""The workflow of a run: one workflow per scan, side by side, and before them what they share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nipype import Node, Workflow

from unibrain_bids.bids.inputs import ScanRecord
from unibrain_bids.bids.publish import Fingerprint
from unibrain_bids.interfaces.resample import RegisterTemplates
from unibrain_bids.workflows.names import REGISTER_NODE, RESAMPLE_NODE, ROOT, SHARED
from unibrain_bids.workflows.processing import Processing
from unibrain_bids.workflows.scan import PREDICT_GB, init_scan_wf


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
    shared = _init_shared_wf(processing)
    for record, fingerprint in scans.items():
        scan_wf = init_scan_wf(processing, record, fingerprint=fingerprint)
        participant_wf.add_nodes([scan_wf])
        if shared is not None:
            place = f"{RESAMPLE_NODE}.registered"
            participant_wf.connect(shared, f"{REGISTER_NODE}.files", scan_wf, place)
    return participant_wf


def _init_shared_wf(processing: Processing) -> Workflow | None:
    """Build the workflow that registers the templates that come as files, once for all scans; None without such."""
    foreign = [space for space in processing.spaces if space.image is not None]
    if not foreign or "register" not in processing.tasks:
        return None
    threads = processing.omp_nthreads
    register = Node(
        RegisterTemplates(
            spaces=foreign,
            device=processing.device,
            weights=str(processing.weights or ""),
            use_gpu=processing.device.startswith("cuda"),
            num_threads=threads,
        ),
        name=REGISTER_NODE,
        n_procs=threads,
        mem_gb=PREDICT_GB,
    )
    shared = Workflow(name=SHARED)
    shared.add_nodes([register])
    return shared
