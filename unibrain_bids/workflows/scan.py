"""The workflow of one scan; wiring only."""

from __future__ import annotations

from typing import Any

from nipype import Node, Workflow

from unibrain_bids.bids.derivatives import catalogue
from unibrain_bids.bids.inputs import ScanRecord
from unibrain_bids.bids.publish import Fingerprint
from unibrain_bids.interfaces.classify import ClassifyScan
from unibrain_bids.interfaces.predict import UniBrainPredict
from unibrain_bids.interfaces.resample import ResampleToTemplates
from unibrain_bids.interfaces.tables import RegionTables, SimilarityNetwork
from unibrain_bids.interfaces.write import WriteDerivatives
from unibrain_bids.workflows.names import LAST_NODE, RESAMPLE_NODE, workflow_name
from unibrain_bids.workflows.processing import Processing

# What MultiProc reserves in memory: bounds for a head of 256^3 voxels.
PREDICT_GB = 4.0
OTHER_GB = 1.0


def init_scan_wf(processing: Processing, record: ScanRecord, *, fingerprint: Fingerprint) -> Workflow:
    """Build the workflow that turns one raw head into its derivatives.

    ::

        predict -+-> resample ----+-> write_derivatives
                 +-> regions -----+
                 +-> similarity --+
                 +-> classify ----+    (from the regions, too)

    Parameters
    ----------
    processing
        What is done; nodes whose results were not asked for are left out.
    record
        The scan.
    fingerprint
        What its results depend on.
    """
    workflow = Workflow(name=workflow_name(record))
    wanted = catalogue(record, **processing.selection)
    kinds = {output.kind for output in wanted.values()}
    predict = _predict_node(processing, record)
    write = _write_node(processing, record, fingerprint)
    workflow.connect(predict, "files", write, "native")
    if "scan_to_template" in kinds:
        roles = dict.fromkeys(output.native_role for output in wanted.values() if output.in_template)
        resample = _resample_node(processing, list(roles))
        workflow.connect([(predict, resample, [("files", "files"), ("frame_from_scan", "frame_from_scan")])])
        workflow.connect(resample, "files", write, "templates")
    if "regions" in kinds:
        regions = _table_node(RegionTables(), "regions", processing)
        workflow.connect([(predict, regions, [("files", "files"), ("mni_from_scan", "mni_from_scan")])])
        workflow.connect(regions, "files", write, "regions")
    if "network" in kinds:
        similarity = _table_node(SimilarityNetwork(), "similarity", processing)
        workflow.connect([(predict, similarity, [("files", "files")])])
        workflow.connect(similarity, "files", write, "networks")
    if "prediction" in kinds:
        classify = Node(ClassifyScan(heads=list(processing.heads)), name="classify", mem_gb=OTHER_GB)
        workflow.connect([(predict, classify, [("files", "files")]), (regions, classify, [("files", "regions")])])
        workflow.connect([(classify, write, [("files", "predictions"), ("sidecars", "sidecars")])])
    return workflow


def _table_node(interface: Any, name: str, processing: Processing) -> Node:
    interface.inputs.tables = list(processing.tables)
    return Node(interface, name=name, mem_gb=OTHER_GB)


def _predict_node(processing: Processing, record: ScanRecord) -> Node:
    interface = UniBrainPredict(
        in_file=str(record.path),
        parcellate=bool({"parcellate", "network"} & set(processing.tasks)),
        atlases=list(processing.atlas_sources),
        smoothness=processing.smoothness,
        device=processing.device,
        weights=str(processing.weights or ""),
        random_seed=processing.random_seed,
        use_gpu=processing.device.startswith("cuda"),
        num_threads=processing.omp_nthreads,
    )
    return Node(interface, name="predict", n_procs=processing.omp_nthreads, mem_gb=PREDICT_GB)


def _resample_node(processing: Processing, roles: list[str]) -> Node:
    interface = ResampleToTemplates(
        spaces=list(processing.spaces),
        device=processing.device,
        weights=str(processing.weights or ""),
        roles=roles,
        nonlinear=processing.nonlinear,
        num_threads=processing.omp_nthreads,
    )
    return Node(interface, name=RESAMPLE_NODE, n_procs=processing.omp_nthreads, mem_gb=OTHER_GB)


def _write_node(processing: Processing, record: ScanRecord, fingerprint: Fingerprint) -> Node:
    interface = WriteDerivatives(
        record=record,
        fingerprint=fingerprint,
        output_dir=str(processing.output_dir),
        selection=processing.selection,
        num_threads=processing.omp_nthreads,
    )
    return Node(interface, name=LAST_NODE, n_procs=processing.omp_nthreads, mem_gb=OTHER_GB)
