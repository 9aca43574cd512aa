"""The end of a scan's workflow: compress everything, describe it, and let it appear at once."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from nipype.interfaces.base import BaseInterfaceInputSpec, SimpleInterface, TraitedSpec, traits

from unibrain_bids.bids.atomic import write_json
from unibrain_bids.bids.derivatives import DerivativePath, catalogue
from unibrain_bids.bids.inputs import ScanRecord
from unibrain_bids.bids.publish import Fingerprint, publish, staging
from unibrain_bids.bids.sidecars import make_sidecars
from unibrain_bids.errors import OutputError
from unibrain_bids.imaging.compression import gzip_writer

_Files = traits.Dict(traits.Str, traits.Str, usedefault=True)  # empty where the task was not asked for


class _WriteInput(BaseInterfaceInputSpec):
    record = traits.Instance(ScanRecord, mandatory=True, desc="the scan")
    fingerprint = traits.Instance(Fingerprint, mandatory=True, desc="what its results depend on")
    output_dir = traits.Directory(mandatory=True, desc="root of the derivative dataset")
    selection = traits.Dict(mandatory=True, desc="options of `bids.derivatives.catalogue`")
    native = _Files(desc="files on the scan's grid, by role")
    templates = _Files(desc="files on the templates' grids and transforms, by role")
    regions = _Files(desc="tables of regions, by role")
    networks = _Files(desc="classical networks, by role")
    predictions = _Files(desc="predictions of heads, by role")
    sidecars = traits.Dict(traits.Str, traits.Any, usedefault=True, desc="role -> further content of the sidecar")
    num_threads = traits.Int(1, usedefault=True, nohash=True, desc="files compressed at the same time")


class _WriteOutput(TraitedSpec):
    published = traits.List(traits.Str, desc="paths within the output folder")


class WriteDerivatives(SimpleInterface):
    """Publish all derivatives of one scan, with their sidecars, whole or not at all."""

    input_spec = _WriteInput
    output_spec = _WriteOutput
    always_run = True

    def _run_interface(self, runtime: Any) -> Any:
        given = self.inputs
        files = {**given.native, **given.templates, **given.regions, **given.networks, **given.predictions}
        outputs = catalogue(self.inputs.record, **self.inputs.selection)
        output_dir = Path(self.inputs.output_dir)
        with staging(output_dir, self.inputs.record.key) as folder:
            staged = stage(files, outputs, folder, more=given.sidecars, num_threads=self.inputs.num_threads)
            publish(staged, output_dir=output_dir, record=self.inputs.record, fingerprint=self.inputs.fingerprint)
        self._results["published"] = sorted(str(place) for place in staged.values())
        return runtime


def stage(
    files: Mapping[str, str],
    outputs: Mapping[str, DerivativePath],
    folder: Path,
    *,
    more: Mapping[str, Mapping[str, Any]] | None = None,
    num_threads: int = 1,
) -> dict[Path, Path]:
    """Put the derivatives and their sidecars into `folder`, under their final names.

    Parameters
    ----------
    files
        Where each derivative was computed to, by role; images uncompressed.
    outputs
        The scan's catalogue.
    folder
        The staging folder.
    more
        Role to what its sidecar says beyond the catalogue's texts.
    num_threads
        Files to compress at the same time.

    Returns
    -------
    dict
        Staged file to path within the output folder, as `bids.publish.publish` takes it.
    """
    sidecars = make_sidecars(outputs)
    staged = {}
    for role, content in sidecars.items():
        sidecar = outputs[role].sidecar
        if sidecar is not None:
            write_json(folder / sidecar.name, {**content, **(more or {}).get(role, {})})
            staged[folder / sidecar.name] = sidecar
    with ThreadPoolExecutor(num_threads) as pool:
        targets = [folder / output.name for output in outputs.values()]
        list(pool.map(_put, (Path(files[role]) for role in outputs), targets))
    return staged | {folder / output.name: output.relative for output in outputs.values()}


def _put(source: Path, target: Path) -> None:
    """Copy a file; compress it if the target's name asks for it."""
    compress = gzip_writer if target.suffix == ".gz" else nullcontext
    try:
        with source.open("rb") as stream, target.open("wb") as sink, compress(sink) as packed:
            shutil.copyfileobj(stream, packed, 1 << 20)
    except OSError as error:
        raise OutputError(
            f"{target}: cannot be written ({error.strerror}).", "Check the folder's permissions and free space."
        ) from error
