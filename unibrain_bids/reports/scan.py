"""The sections of a report about one scan."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from unibrain_bids.errors import ResourceError
from unibrain_bids.imaging.quality import MEASURES
from unibrain_bids.labels import LabelTable
from unibrain_bids.reports.cohort import load_cohort
from unibrain_bids.reports.figures import (
    Canvas,
    label_figure,
    legend,
    make_canvas,
    mask_figure,
    normalisation_figures,
    registration,
    spaces_of,
)
from unibrain_bids.reports.files import Derivative, ScanFiles, read_json, read_rows
from unibrain_bids.reports.networks import centroids, connectome_figure, matrix_figure, read_matrix
from unibrain_bids.reports.page import Block, Details, Facts, Flag, Flags, Row, Section, Table, Text
from unibrain_bids.reports.slices import Volume, load_volume
from unibrain_bids.reports.viewer import Overlay, viewer_block, volumes_of

__all__ = ["Surroundings", "flags_of", "scan_sections", "viewer_data"]

_PREDICTION = (
    "Research use only: this is no diagnosis. The probabilities come from a classifier that was trained on other "
    "people; what it was trained and measured on stands on its card."
)
_REGIONS = "Regions of the atlas {}; thickness is volume over area, and white matter has the intensity 110."
_OTHER_MEASURES = {
    "intracranial_volume": {
        "LongName": "Intracranial volume",
        "Units": "mm³",
        "Description": "Volume within the skull, as the model estimates it.",
    }
}
_SEGMENTATIONS = {"tissue": "tissues", "aseg": "structures"}


@dataclass(frozen=True)
class Surroundings:
    """Where a scan stands.

    Attributes
    ----------
    output_dir
        Root of the derivative dataset.
    bids_dir
        Root of the raw dataset, or None where it is not at hand.
    templates
        Label of a template to its image.
    viewer_spacing
        Voxel size (mm) of the volumes in the interactive viewer; None for no viewer.
    """

    output_dir: Path
    bids_dir: Path | None
    templates: Mapping[str, Path]
    viewer_spacing: float | None = None

    def labels(self, name: str, kind: str) -> LabelTable:
        """Return the table of labels of an atlas or segmentation: the package's if it has one, else the dataset's."""
        try:
            return LabelTable.load(name)
        except ResourceError:
            return LabelTable.read(self.output_dir / f"{kind}-{name}_dseg.tsv", name=name)


def scan_sections(files: ScanFiles, around: Surroundings, *, prefix: str = "") -> list[Section]:
    """Return the sections about one scan, as far as there are derivatives for them.

    Parameters
    ----------
    files
        The derivatives of the scan.
    around
        Dataset and templates.
    prefix
        Beginning of the sections' anchors, which must be unique in a page of several scans.
    """
    canvas = make_canvas(files)
    parts: dict[str, list[Block]] = {
        "Viewer": [viewer_block(files.key, spacing=around.viewer_spacing)] if canvas and around.viewer_spacing else [],
        "Brain mask": [mask_figure(canvas)] if canvas and files.find("mask", desc="brain") else [],
        "Intensities": list(normalisation_figures(canvas, _raw(files, around))) if canvas else [],
        "Registration": list(_registrations(files, around)),
        "Tissues and structures": list(_segmentations(files, around, canvas)),
        "Regions": list(_regions(files, around, canvas)),
        "Networks": list(_networks(files, around)),
        "Prediction": list(_predictions(files)),
        "Quality": list(_quality(files, around)),
    }
    return [
        Section(title, blocks, anchor=f"{prefix}{title.lower().replace(' ', '-')}")
        for title, blocks in parts.items()
        if blocks
    ]


def viewer_data(files: ScanFiles, around: Surroundings) -> dict[str, Any]:
    """Return the volumes of a scan for its viewer."""
    canvas = make_canvas(files)
    if canvas is None or around.viewer_spacing is None:
        return {}
    overlays = [Overlay("brain mask", Volume(canvas.brain, canvas.head.spacing, canvas.head.affine))]
    for derivative in files.every("dseg"):
        own = files.own(derivative)
        if set(own) in ({"seg"}, {"atlas"}):
            ((kind, name),) = own.items()
            title = _SEGMENTATIONS.get(name, f"regions of {name}")
            overlays.append(Overlay(title, load_volume(derivative.path), around.labels(name, kind)))
    return volumes_of(files.key, canvas, overlays, spacing=around.viewer_spacing)


def flags_of(files: ScanFiles) -> list[str]:
    """Return the flags of a scan: what in its quality measures deserves a look."""
    flags = read_json(files.find(files.suffix, ".json", desc="qc")).get("flags")
    return [str(flag) for flag in flags] if isinstance(flags, list) else []


def _raw(files: ScanFiles, around: Surroundings) -> Path | None:
    """Return the raw scan, if it is at hand."""
    if around.bids_dir is None:
        return None
    folder = Path(
        f"sub-{files.entities['sub']}", *([f"ses-{files.entities['ses']}"] if "ses" in files.entities else [])
    )
    stem = around.bids_dir / folder / "anat" / f"{files.key}_{files.suffix}"
    return next((path for ending in (".nii.gz", ".nii") if (path := Path(f"{stem}{ending}")).is_file()), None)


def _registrations(files: ScanFiles, around: Surroundings) -> Iterator[Block]:
    for space in spaces_of(files):
        if space not in around.templates:
            yield Text(f"The image of the template {space} is not at hand: no comparison is shown.")
        elif flicker := registration(files, space, around.templates[space]):
            yield flicker


def _segmentations(files: ScanFiles, around: Surroundings, canvas: Canvas | None) -> Iterator[Block]:
    for name, what in _SEGMENTATIONS.items():
        path = files.find("dseg", seg=name)
        if canvas and path:
            table = around.labels(name, "seg")
            yield from (label_figure(canvas, path, table, what=what), legend(table))


def _regions(files: ScanFiles, around: Surroundings, canvas: Canvas | None) -> Iterator[Block]:
    for derivative in files.every("dseg"):
        own = files.own(derivative)
        if canvas and set(own) == {"atlas"}:
            table = around.labels(own["atlas"], "atlas")
            what = f"regions of the atlas {own['atlas']}"
            yield from (label_figure(canvas, derivative.path, table, what=what), legend(table))
    for derivative in files.every("morph", ".tsv"):
        yield _volumes(files, derivative, around)


def _volumes(files: ScanFiles, derivative: Derivative, around: Surroundings) -> Table:
    atlas = files.own(derivative).get("atlas", "")
    cohort = load_cohort(around.output_dir / f"group_atlas-{atlas}_desc-volume_morph.tsv")
    rows = [
        [
            row["name"],
            _number(row["volume"]),
            _number(row.get("thickness", "n/a")),
            _number(row["intensity_mean"]),
            *([cohort.spread(row["name"], _number(row["volume"]))] if cohort else []),
        ]
        for row in read_rows(derivative.path)
    ]
    columns = ["Region", "Volume (mm³)", "Thickness (mm)", "Mean intensity"]
    if cohort:
        columns.append("Volume among all scans")
    return Table(columns, rows, _REGIONS.format(atlas), sortable=True)


def _networks(files: ScanFiles, around: Surroundings) -> Iterator[Block]:
    for derivative in files.every("relmat", ".tsv"):
        own = files.own(derivative)
        atlas, measure = own.get("atlas", ""), own.get("meas", "")
        names, matrix = read_matrix(derivative.path)
        figures = [matrix_figure(names, matrix, around.labels(atlas, "atlas"), measure=measure)]
        regions = files.find("morph", ".tsv", atlas=atlas)
        places = centroids(regions, names) if regions else np.full((1, 3), np.nan)
        if np.isfinite(places).all(axis=1).sum() > 1:
            figures.append(connectome_figure(matrix, places, measure=measure))
        yield Row(figures)


def _predictions(files: ScanFiles) -> Iterator[Block]:
    for derivative in files.every("predictions", ".tsv"):
        rows = read_rows(derivative.path)
        if not rows:
            continue
        head = files.own(derivative).get("desc", "")
        yield Text(_PREDICTION)
        yield Table(
            list(rows[0]), [list(map(_readable, row.values())) for row in rows], f"Prediction by the head {head}."
        )
        card = read_json(derivative.path.with_suffix(".json"))
        facts = [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in card.items()]
        yield Details(f"Card of the head {head}", [Facts(facts)])


def _quality(files: ScanFiles, around: Surroundings) -> Iterator[Block]:
    measures = read_json(files.find(files.suffix, ".json", desc="qc"))
    flags = flags_of(files)
    yield Flags([Flag(text) for text in flags] or [Flag("no quality measure is beyond its threshold.", "ok")])
    cohort = load_cohort(around.output_dir / f"group_{files.suffix}.tsv")
    rows = {}
    for name, value in measures.items():
        if isinstance(value, bool) or not (value is None or isinstance(value, (int, float))):
            continue
        described = _described(name)
        unit = described.get("Units", "").replace("1", "")
        spread = [cohort.spread(name, value)] if cohort else []
        rows[name] = [_named(name, described), value, unit, *spread, described.get("Description", "")]
    columns = ["Measure", "Value", "Unit", *(["Among all scans"] if cohort else []), "Meaning"]
    first = [row for name, row in rows.items() if not name.startswith("summary_")]
    yield Table(columns, first, "Quality measures; n/a where one cannot be computed from this image.")
    rest = [row for name, row in rows.items() if name.startswith("summary_")]
    if rest:
        yield Details("Intensities of the tissues", [Table(columns, rest, "Statistics of the intensities.")])


def _described(name: str) -> Mapping[str, str]:
    if name.startswith("model_"):
        return {"LongName": "The model's own", "Description": "How far the model agrees with itself (docs/quality.md)."}
    return MEASURES.get(name) or _OTHER_MEASURES.get(name, {})


def _named(name: str, described: Mapping[str, str]) -> Markup:
    return Markup("{} <code>{}</code>").format(described.get("LongName", ""), name)


def _number(cell: str) -> float | None:
    value = math.nan if cell == "n/a" else float(cell)
    return value if math.isfinite(value) else None


def _readable(cell: str | None) -> Any:
    """Return a cell of a table as a number, if it is one."""
    try:
        return float(cell or "")
    except ValueError:
        return cell
