"""`sub-<label>.html`: the report of a participant, made from the derivatives on disk alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unibrain_bids.bids.atomic import write_text
from unibrain_bids.bids.derivatives import report_path
from unibrain_bids.reports.files import ScanFiles, find_scans, read_json
from unibrain_bids.reports.history import History, completion, flattened, read_history
from unibrain_bids.reports.methods import methods_blocks
from unibrain_bids.reports.page import (
    Block,
    Details,
    Facts,
    Flag,
    Flags,
    Section,
    Table,
    Text,
    render_page,
    resource_text,
)
from unibrain_bids.reports.scan import Surroundings, flags_of, scan_sections, viewer_data
from unibrain_bids.reports.viewer import library

__all__ = ["participant_page", "write_report"]

# Voxels of the viewer's volumes: coarser where one page holds several scans.
_FINE_MM, _COARSE_MM = 1.5, 2.5


def write_report(
    output_dir: Path, participant: str, *, bids_dir: Path | None = None, templates: Mapping[str, Path] | None = None
) -> Path:
    """Write the report of a participant (label without `sub-`) beside its folder; returns the path.

    Parameters
    ----------
    output_dir
        Root of the derivative dataset.
    participant
        Label without `sub-`.
    bids_dir
        Root of the raw dataset, to show the scans as they were; without it they are left out.
    templates
        Label of a template to its image (stripped), to compare with.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    path = output_dir / report_path(participant)
    several = len(find_scans(output_dir, participant)) > 1
    spacing = _COARSE_MM if several else _FINE_MM
    around = Surroundings(output_dir, bids_dir, templates or {}, viewer_spacing=spacing)
    write_text(path, participant_page(around, participant))
    return path


def participant_page(around: Surroundings, participant: str) -> str:
    """Return the report of a participant as HTML."""
    scans = find_scans(around.output_dir, participant)
    history = read_history(around.output_dir, participant)
    dataset = read_json(around.output_dir / "dataset_description.json").get("Name")
    sections = [
        Section("Summary", list(_summary(scans, history))),
        *_scans(scans, around),
        Section("Methods", methods_blocks(around.output_dir / "logs" / "CITATION.md")),
        Section("About", list(_about(scans, history, around.output_dir))),
    ]
    volumes = {name: content for files in scans for name, content in viewer_data(files, around).items()}
    return render_page(
        f"sub-{participant}",
        sections,
        subtitle=str(dataset or around.output_dir.name),
        styles=[resource_text("participant.css")],
        scripts=[resource_text("viewer.js")] if volumes else [],
        data=library() | volumes if volumes else {},
        unpacks_scripts=bool(volumes),
    )


def _summary(scans: list[ScanFiles], history: History) -> Iterator[Block]:
    flags = [Flag(f"{scan}: {reason}", "error") for scan, reason in history.failed.items()]
    flags += [Flag(f"{files.key}: {flag}") for files in scans for flag in flags_of(files)]
    yield Flags(flags or [Flag("all scans were processed, and none is flagged.", "ok")])
    if not scans:
        yield Text("There are no derivatives of this participant.")
        return
    yield Table(
        ["Scan", "Intracranial volume (ml)", "Grey matter (%)", "White matter (%)", "CSF (%)", "Flags"],
        [list(_row(files)) for files in scans],
        "The scans of this participant; percentages of the three tissues together.",
    )


def _row(files: ScanFiles) -> Iterator[Any]:
    measures = read_json(files.find(files.suffix, ".json", desc="qc"))
    volume = measures.get("intracranial_volume")
    yield f"{files.key}_{files.suffix}"
    yield volume / 1000 if isinstance(volume, (int, float)) else None
    for tissue in ("gm", "wm", "csf"):
        share = measures.get(f"icvs_{tissue}")
        yield 100 * share if isinstance(share, (int, float)) else None
    yield len(flags_of(files))


def _scans(scans: list[ScanFiles], around: Surroundings) -> Iterator[Section]:
    """Yield the sections of the only scan, or one section for each scan."""
    if len(scans) == 1:
        yield from scan_sections(scans[0], around)
        return
    for files in scans:
        yield Section(files.key, scan_sections(files, around, prefix=f"{files.key}-"), anchor=files.key)


def _about(scans: list[ScanFiles], history: History, output_dir: Path) -> Iterator[Block]:
    for files in scans:
        done = completion(output_dir, files.key)
        marks = done.get("fingerprint")
        run = history.made_by.get(files.key, {})
        facts = [("Scan", done.get("scan", files.key)), ("Version", done.get("version", "n/a"))]
        facts += [(f"SHA-256 of the {name}", mark) for name, mark in marks.items()] if isinstance(marks, dict) else []
        facts += [(name, run[name]) for name in ("Start", "End", "Device") if isinstance(run.get(name), str)]
        yield Facts(facts)
        if run:
            content = {name: value for name, value in run.items() if name not in ("Scans", "Inputs", "Seconds")}
            yield Details(
                f"The run that made {files.key}",
                [Table(["Name", "Value"], list(flattened(content)), "Settings, software and machine of the run.")],
            )
    yield Text("This page was made from the derivatives on disk; unibrain-bids --reports-only makes it again.")
