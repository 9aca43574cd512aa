"""Small real datasets: NIfTI files of a few voxels, raw and derived."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from unibrain_bids.bids.atomic import write_json, write_text, write_tsv
from unibrain_bids.bids.dataset import write_dataset_files
from unibrain_bids.bids.derivatives import DerivativePath, catalogue, figure_path, report_path
from unibrain_bids.bids.inputs import ScanRecord
from unibrain_bids.bids.sidecars import make_sidecars
from unibrain_bids.bids.templates import Space

TEMPLATE = "MNI152NLin2009aSym"
DESCRIPTION = {"Name": "Tiny", "BIDSVersion": "1.10.0", "License": "CC0"}


def save_image(path: Path, dtype: str = "int16") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(np.arange(64, dtype=dtype).reshape(4, 4, 4), np.eye(4))
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)


@pytest.fixture(scope="session")
def make_raw() -> Callable[..., Path]:
    """Write a raw dataset; images are named by their paths."""

    def make(root: Path, images: Iterable[str]) -> Path:
        for image in images:
            save_image(root / image)
            write_json(root / (image.removesuffix(".gz").removesuffix(".nii") + ".json"), {"EchoTime": 0.003})
        (root / "dataset_description.json").write_text(json.dumps(DESCRIPTION))
        (root / "README").write_text("A dataset of a few voxels for tests.\n")
        return root

    return make


def write_derivative(out: Path, derivative: DerivativePath) -> None:
    path = out / derivative.relative
    if derivative.extension == ".nii.gz":
        save_image(path, "float32" if derivative.suffix in ("T1w", "probseg") else "int16")
    elif derivative.kind == "network":
        write_tsv(path, [{"a": 1.0, "b": 0.5}, {"a": 0.5, "b": 1.0}])
    elif derivative.extension == ".tsv":
        write_tsv(path, [{"index": 1001, "name": "ctx-lh-bankssts", "volume": 2.5}])
    elif derivative.extension == ".json":
        write_json(path, {"snr": 12.5})
    else:
        write_text(path, "#Insight Transform File V1.0\n")


@pytest.fixture(scope="session")
def make_derivatives() -> Callable[..., Path]:
    """Write the whole derivative dataset of some scans, with every file of the catalogue."""

    def make(out: Path, raw: Path, records: Iterable[ScanRecord]) -> Path:
        write_dataset_files(out, raw, heads={"mdd": "Classifier of major depressive disorder."})
        for record in records:
            outputs = catalogue(record, spaces=[Space(TEMPLATE)], heads=["mdd"])
            sidecars = make_sidecars(outputs)
            for role, derivative in outputs.items():
                write_derivative(out, derivative)
                if derivative.sidecar:
                    write_json(out / derivative.sidecar, sidecars[role])
            write_text(out / figure_path(record, desc="mask"), "<svg/>")
            write_text(out / report_path(record.subject), "<html/>")
            write_json(out / "logs" / "complete" / f"{record.key}.json", {"done": True})
        return out

    return make
