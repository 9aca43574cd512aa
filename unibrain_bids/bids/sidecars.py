"""What the JSON file beside each derivative says, and the lookup tables of labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from unibrain_bids import __version__
from unibrain_bids.bids.derivatives import DEFAULT_ATLAS, DerivativePath
from unibrain_bids.bids.templates import Space
from unibrain_bids.bids.texts import texts
from unibrain_bids.errors import UsageError
from unibrain_bids.labels import LabelTable

__all__ = ["label_rows", "make_sidecar", "make_sidecars"]


def make_sidecars(outputs: Mapping[str, DerivativePath]) -> dict[str, dict[str, Any]]:
    """Return the content of the sidecars of a scan's catalogue, by role (see `make_sidecar`)."""
    return {role: make_sidecar(output, outputs) for role, output in outputs.items() if output.sidecar is not None}


def make_sidecar(output: DerivativePath, outputs: Mapping[str, DerivativePath]) -> dict[str, Any]:
    """Return the content of the JSON file beside `output`.

    Parameters
    ----------
    output
        The derivative.
    outputs
        The scan's catalogue. Sources that are not in it (since their task was not asked for) are left out.

    Raises
    ------
    UsageError
        The template is none that BIDS names, and its space has no `reference`.
    """
    own = dict(output.entities)
    placeholders = _placeholders(output)
    content = {
        key: value.format(**placeholders) if isinstance(value, str) else value
        for key, value in texts("derivatives")[output.kind]["sidecar"].items()
    }
    content["Sources"] = list(_sources(output, outputs))
    if output.extension == ".nii.gz":
        content |= {key: value for key, value in _grid(output.space).items() if key not in content}
    if output.kind == "network":
        content |= _network(own["atlas"], own["meas"])
    return content | _columns(output.kind)


def _columns(kind: str) -> dict[str, Any]:
    """Return the descriptions of a table's columns."""
    from unibrain_bids.imaging import graphs, regions

    return {"regions": regions.COLUMNS, "graph": graphs.COLUMNS}.get(kind, {})


def label_rows(table: LabelTable) -> list[dict[str, str | int | None]]:
    """Return a table of labels as the rows of a BIDS lookup table (`_dseg.tsv`); None is an n/a.

    `mapping` goes to BIDS' standard integers (1 GM, 2 WM, 3 CSF).
    """
    return [
        {
            "index": row.index,
            "name": row.name,
            "abbreviation": row.abbreviation,
            "color": row.color,
            "mapping": row.mapping,
        }
        for row in table.rows
    ]


def _placeholders(output: DerivativePath) -> dict[str, str]:
    """Return what stands for the {words} in the texts of `derivatives.json`."""
    own = dict(output.entities)
    ends = {own.get("from"), own.get("to")} - {output.source.suffix, None}
    return {
        "tissue": own.get("label", ""),
        "atlas": own.get("atlas", ""),
        "head": own.get("desc", ""),
        "template": next((end for end in ends if end), ""),
    }


def _sources(output: DerivativePath, outputs: Mapping[str, DerivativePath]) -> Iterator[str]:
    """Yield the BIDS URIs of the direct inputs; the raw scan where none of the others was written."""
    if output.space and output.in_template:
        transforms = ("scan_to_template_warp", "scan_to_template")
        roles = (output.native_role, *map(output.space.role, transforms))
        direct = [outputs[role] for role in roles if role in outputs]
    else:
        own = dict(output.entities)
        shared = {"atlas": own.get("atlas", DEFAULT_ATLAS), "meas": own.get("meas")}
        wanted = texts("derivatives")[output.kind]["sources"]
        direct = [
            path
            for path in outputs.values()
            if path.kind in wanted
            and path.space == output.space
            and all(dict(path.entities).get(key, value) == value for key, value in shared.items() if value)
        ]
    yield from (path.uri for path in direct)
    if not direct:
        yield f"bids:raw:{output.source.relative_path}"


def _grid(space: Space | None) -> dict[str, str]:
    """Return the fields on the grid of an image: the scan's own, or that of a template."""
    if space is None:
        return {"SpatialReference": "orig"}
    if space.reference is None and space.label not in texts("terms")["standard_spaces"]:
        raise UsageError(f"Template {space.label}: BIDS does not name it.", "Give the URI of its image.")
    reference = {"SpatialReference": space.reference} if space.reference else {}
    return {"Resolution": space.grid, **reference}


def _network(atlas: str, measure: str) -> dict[str, Any]:
    """Return the fields of a network that depend on its measure (draft BEP017)."""
    nodes = f"bids::atlas-{atlas}_dseg.tsv"
    return {
        **texts("measures")[measure],
        "Software": "unibrain-bids",
        "SoftwareVersion": __version__,
        "NodeFiles": [nodes],
        "Axes": [nodes, nodes],
    }
