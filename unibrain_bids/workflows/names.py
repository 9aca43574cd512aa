"""How workflows and nodes are called, so that what Nipype says of a node can be told of a scan."""

from __future__ import annotations

from unibrain_bids.bids.inputs import ScanRecord

ROOT = "unibrain_wf"
SHARED = "shared"  # what is computed once for all scans
REGISTER_NODE = "register_templates"
RESAMPLE_NODE = "resample"
LAST_NODE = "write_derivatives"
_SUFFIX = "_wf"


def scan_name(record: ScanRecord) -> str:
    """Return the name of a scan among Nipype's names, which allow no "+"."""
    return record.key.replace("+", "_")


def workflow_name(record: ScanRecord) -> str:
    """Return the name of the workflow of a scan."""
    return scan_name(record) + _SUFFIX


def split_name(fullname: str) -> tuple[str, str]:
    """Split a node's full name, such as `unibrain_wf.sub-01_wf.predict`, into scan and step."""
    *_, workflow, node = fullname.split(".")
    return workflow.removesuffix(_SUFFIX), node
