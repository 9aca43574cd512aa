"""Tables and classical networks of a parcellation, as Nipype interfaces."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Image
from nipype.interfaces.base import BaseInterfaceInputSpec, SimpleInterface, TraitedSpec, traits

from unibrain_bids.bids.atomic import write_tsv
from unibrain_bids.imaging.boxes import bounding_box
from unibrain_bids.imaging.graphs import node_measures
from unibrain_bids.imaging.regions import region_table
from unibrain_bids.imaging.similarity import kls_network, local_features, mind_network
from unibrain_bids.imaging.thickness import mean_thickness
from unibrain_bids.labels import LabelTable

_TISSUES = ("GM", "WM", "CSF")
# What is measured of a region looks at most so far beyond it (gradients, the surface under the cortex).
_MARGIN_VOXELS = 8


class _RegionsInput(BaseInterfaceInputSpec):
    files = traits.Dict(traits.Str, traits.Str, mandatory=True, desc="files on the scan's grid, by role")
    tables = traits.List(traits.Instance(LabelTable), mandatory=True, desc="the regions of each parcellation")


class _TablesInput(_RegionsInput):
    mni_from_scan = traits.List(traits.List(traits.Float), mandatory=True, desc="4x4, RAS mm")


class _FilesOutput(TraitedSpec):
    files = traits.Dict(traits.Str, traits.Str, desc="role in `bids.derivatives.catalogue` -> file")


class RegionTables(SimpleInterface):
    """Write one table of region measures per atlas, over the normalised intensities."""

    input_spec = _TablesInput
    output_spec = _FilesOutput

    def _run_interface(self, runtime: Any) -> Any:
        files = self.inputs.files
        quality = json.loads(Path(files["quality"]).read_text(encoding="utf-8"))
        # JSON has no NaN: null where the model does not know the intracranial volume.
        intracranial_volume = math.nan if (known := quality["intracranial_volume"]) is None else known
        tables = {}
        for labels in self.inputs.tables:
            parcels, box = load_parcels(files[f"parcels_{labels.name}"])
            brain = Nifti1Image.from_filename(files["brain"]).slicer[box]
            structures = np.asarray(Nifti1Image.from_filename(files["structures"]).slicer[box].dataobj)
            table = region_table(
                parcels, brain.get_fdata(dtype=np.float32), brain.affine, indices=labels.indices, names=labels.names,
                tissues={name: load_part(files[f"probability_{name}"], box) for name in _TISSUES},
                thickness=mean_thickness(parcels, structures, brain.affine, indices=labels.indices),
                mni_from_scan=self.inputs.mni_from_scan, intracranial_volume=intracranial_volume,
            )  # fmt: skip
            path = Path(runtime.cwd) / f"regions_{labels.name}.tsv"
            write_tsv(path, table.to_dict("records"))
            tables[f"regions_{labels.name}"] = str(path)
        self._results["files"] = tables
        return runtime


class SimilarityNetwork(SimpleInterface):
    """Write the networks of each atlas that need no training, KLS and MIND, and the graph measures of all networks."""

    input_spec = _RegionsInput
    output_spec = _FilesOutput

    def _run_interface(self, runtime: Any) -> Any:
        networks = {}
        for table in self.inputs.tables:
            parcels, box = load_parcels(self.inputs.files[f"parcels_{table.name}"])
            intensity = load_part(self.inputs.files["brain"], box)
            grey = load_part(self.inputs.files["probability_GM"], box)
            found = {
                "kls": kls_network(intensity, parcels, table.indices),
                "mind": mind_network(local_features(intensity, grey), parcels, table.indices),
            }
            for measure, matrix in found.items():
                role = f"network_{table.name}_{measure}"
                networks[role] = str(write_network(Path(runtime.cwd) / f"{role}.tsv", table.names, matrix))
            learned = self.inputs.files.get(f"network_{table.name}_innerproduct")
            if learned:
                found["innerproduct"] = np.genfromtxt(learned, delimiter="\t", skip_header=1)
            for measure, matrix in found.items():
                role = f"graph_{table.name}_{measure}"
                networks[role] = str(Path(runtime.cwd) / f"{role}.tsv")
                rows = node_measures(matrix, indices=table.indices, names=table.names)
                write_tsv(Path(networks[role]), rows)
        self._results["files"] = networks
        return runtime


def load_parcels(path: str) -> tuple[np.ndarray, tuple[slice, ...]]:
    """Return the part of a label image (X, Y, Z) that carries labels, with a margin, and where it lies."""
    labels = np.asarray(Nifti1Image.from_filename(path).dataobj)
    box = bounding_box(labels > 0, margin=_MARGIN_VOXELS)
    return np.ascontiguousarray(labels[box]), box


def load_part(path: str, box: tuple[slice, ...]) -> np.ndarray:
    """Return a part of an image as float32."""
    return np.ascontiguousarray(Nifti1Image.from_filename(path).slicer[box].get_fdata(dtype=np.float32))


def write_network(path: Path, names: Sequence[str], matrix: np.ndarray) -> Path:
    """Write a network (K, K) as a table whose header names the regions; returns `path`."""
    write_tsv(path, [dict(zip(names, row, strict=True)) for row in matrix.tolist()])
    return path
