"""The report of a participant as a Nipype interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import BaseInterfaceInputSpec, SimpleInterface, TraitedSpec, traits

from unibrain_bids.bids.templates import image_of
from unibrain_bids.errors import ResourceError
from unibrain_bids.interfaces.template import template_path
from unibrain_bids.reports.files import find_scans, read_json
from unibrain_bids.reports.participant import write_report


class _ReportInput(BaseInterfaceInputSpec):
    participant = traits.Str(mandatory=True, desc="label without sub-")
    output_dir = traits.Directory(mandatory=True, desc="root of the derivative dataset")
    bids_dir = traits.Directory(mandatory=True, desc="root of the raw dataset")


class _ReportOutput(TraitedSpec):
    report = traits.File(desc="the HTML file")


class ParticipantReport(SimpleInterface):
    """Write `sub-<label>.html` from the derivatives that are there."""

    input_spec = _ReportInput
    output_spec = _ReportOutput
    always_run = True

    def _run_interface(self, runtime: Any) -> Any:
        output_dir, participant = Path(self.inputs.output_dir), self.inputs.participant
        templates = known_templates(output_dir, participant)
        report = write_report(output_dir, participant, bids_dir=Path(self.inputs.bids_dir), templates=templates)
        self._results["report"] = str(report)
        return runtime


def known_templates(output_dir: Path, participant: str) -> dict[str, Path]:
    """Return the images of those templates, among the ones a participant was brought to, that are on this machine."""
    described = [
        (files.own(sidecar).get("space"), read_json(sidecar.path).get("SpatialReference"))
        for files in find_scans(output_dir, participant)
        for sidecar in files.every(files.suffix, ".json")
    ]
    found = {space: _image(space, reference) for space, reference in described if space}
    return {space: path for space, path in found.items() if path is not None}


def _image(space: str, reference: str | None) -> Path | None:
    if reference:
        return image_of(reference)
    try:
        return template_path(space)
    except ResourceError:
        return None
