"""Tables and classical networks of a parcellation, as Nipype interfaces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Image
from nipype.interfaces.base import BaseInterfaceInputSpec, SimpleInterface, TraitedSpec, traits

from unibrain_bids.bids.atomic import write_tsv
from unibrain_bids.imaging.regions import region_table
from unibrain_bids.imaging.similarity import kls_network
from unibrain_bids.labels import LabelTable


class _RegionsInput(BaseInterfaceInputSpec):
    files = traits.Dict(traits.Str, traits.Str, mandatory=True, desc="files on the scan's grid, by role")
    atlases = traits.List(traits.Str, mandatory=True, desc="parcellations to measure")


class _FilesOutput(TraitedSpec):
    files = traits.Dict(traits.Str, traits.Str, desc="role in `bids.derivatives.catalogue` -> file")


class RegionTables(SimpleInterface):
    """Write one table of region measures per atlas, over the normalised intensities."""

    input_spec = _RegionsInput
    output_spec = _FilesOutput

    def _run_interface(self, runtime: Any) -> Any:
        brain = Nifti1Image.from_filename(self.inputs.files["brain"])
        intensity = brain.get_fdata(dtype=np.float32)
        tables = {}
        for atlas in self.inputs.atlases:
            labels = LabelTable.load(atlas)
            parcels = load_labels(self.inputs.files[f"parcels_{atlas}"])
            table = region_table(parcels, intensity, brain.affine, indices=labels.indices, names=labels.names)
            path = Path(runtime.cwd) / f"regions_{atlas}.tsv"
            write_tsv(path, table.to_dict("records"))
            tables[f"regions_{atlas}"] = str(path)
        self._results["files"] = tables
        return runtime


class SimilarityNetwork(SimpleInterface):
    """Write the classical network of each atlas: similarity of the regions' intensity distributions (KLS)."""

    input_spec = _RegionsInput
    output_spec = _FilesOutput

    def _run_interface(self, runtime: Any) -> Any:
        intensity = Nifti1Image.from_filename(self.inputs.files["brain"]).get_fdata(dtype=np.float32)
        networks = {}
        for atlas in self.inputs.atlases:
            labels = LabelTable.load(atlas)
            matrix = kls_network(intensity, load_labels(self.inputs.files[f"parcels_{atlas}"]), labels.indices)
            role = f"network_{atlas}_kls"
            networks[role] = str(write_network(Path(runtime.cwd) / f"{role}.tsv", labels.names, matrix))
        self._results["files"] = networks
        return runtime


def load_labels(path: str | Path) -> np.ndarray:
    """Return the integers (X, Y, Z) of a label image."""
    return np.asarray(Nifti1Image.from_filename(path).dataobj)


def write_network(path: Path, names: Sequence[str], matrix: np.ndarray) -> Path:
    """Write a network (K, K) as a table whose header names the regions; returns `path`."""
    write_tsv(path, [dict(zip(names, row, strict=True)) for row in matrix.tolist()])
    return path
