"""A small derivative dataset, written without the model: spheres in place of a head."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Image

from unibrain_bids.imaging.itk import write_itk_affine
from unibrain_bids.labels import LabelTable

HOSTILE = "<script>alert('x')</script>\"'><img src=http://evil.example/x onerror=alert(1)>"
SHAPE, SPACING = (40, 44, 36), 5.0
SPACE = "MNI152NLin2009aSym"


@dataclass(frozen=True)
class Dataset:
    """Roots of a raw and a derivative dataset, the templates, and the text that nothing may trust."""

    raw: Path
    out: Path
    templates: dict[str, Path]
    hostile: str = HOSTILE


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Two participants: sub-01 with one scan, sub-02 with two sessions, a flag, a failure, and hostile texts."""
    folder = tmp_path_factory.mktemp("reports")
    raw, out = folder / "raw", folder / "out"
    for key, parent in {
        "sub-01": "sub-01",
        "sub-02_ses-a": "sub-02/ses-a",
        "sub-02_ses-b": "sub-02/ses-b",
    }.items():
        write_scan(raw, out, key, parent, flags=[HOSTILE] if key == "sub-02_ses-a" else [])
    description = {"Name": f"Test {HOSTILE}", "BIDSVersion": "1.11.1", "DatasetType": "derivative"}
    (out / "dataset_description.json").write_text(json.dumps(description))
    (out / "logs" / "run1").mkdir(parents=True)
    scans = {"Done": ["sub-01", "sub-02_ses-a", "sub-02_ses-b"], "Failed": {"sub-02_ses-c": f"broken {HOSTILE}"}}
    run = {"Start": "2026-01-01T00:00:00", "CommandLine": ["unibrain-bids", HOSTILE], "Scans": scans}
    (out / "logs" / "run1" / "run.json").write_text(json.dumps(run))
    (out / "logs" / "CITATION.md").write_text(
        f"# Methods\n\nDone with *care*. {HOSTILE}\n\n# References\n\n1. Someone (2020). doi:10.1000/xyz\n"
    )
    template = out / "sub-01" / "anat" / f"sub-01_space-{SPACE}_res-1_desc-brain_T1w.nii.gz"
    return Dataset(raw, out, {SPACE: template})


def write_scan(raw: Path, out: Path, key: str, parent: str, *, flags: list[str]) -> None:
    """Write one scan and its derivatives."""
    radius = SPACING * np.linalg.norm(np.indices(SHAPE).T - (np.array(SHAPE) - 1) / 2, axis=-1).T
    tissues = np.select([radius < 40, radius < 60, radius < 66], [2, 1, 3], 0).astype(np.uint8)
    head = (np.select([tissues == 2, tissues == 1, tissues == 3, radius < 80], [110, 80, 30, 60], 0) + radius / 10) * 4
    left = np.indices(SHAPE)[0] < SHAPE[0] // 2
    aseg = np.select([(tissues == 2) & left, tissues == 2, (tissues == 1) & left, tissues == 1], [2, 41, 3, 42], 0)
    table = LabelTable.load("DK")
    parcels = np.where(tissues == 1, np.array(table.indices)[np.arange(radius.size).reshape(SHAPE) % len(table)], 0)
    gain = np.linspace(0.8, 1.25, SHAPE[0])[:, None, None]
    anat, space = out / parent / "anat", f"space-{SPACE}_"
    save(raw / parent / "anat" / f"{key}_T1w.nii.gz", head / gain)
    for name, data in {
        "desc-preproc_T1w": head, "desc-brain_T1w": head * (tissues > 0), "desc-brain_mask": tissues > 0,
        "seg-tissue_dseg": tissues, "seg-aseg_dseg": aseg, "atlas-DK_dseg": parcels,
        f"{space}res-1_desc-brain_T1w": head * (tissues > 0), f"{space}res-1_desc-brain_mask": tissues > 0,
    }.items():  # fmt: skip
        save(anat / f"{key}_{name}.nii.gz", data)
    write_itk_affine(anat / f"{key}_from-T1w_to-{SPACE}_mode-image_xfm.txt", np.eye(4))
    quality = {"snr_total": 12.5, "cjv": 0.4, "cnr": None, "icvs_gm": 0.5, "icvs_wm": 0.4, "icvs_csf": 0.1}
    (anat / f"{key}_desc-qc_T1w.json").write_text(json.dumps(quality | {"intracranial_volume": 1.4e6, "flags": flags}))
    rng = np.random.default_rng(0)
    rows = ["name\tvolume\tintensity_mean\tmni_x\tmni_y\tmni_z"]
    rows += ["\t".join([n, "100", "75", *map(str, rng.uniform(-50, 50, 3))]) for n in table.names]
    (anat / f"{key}_atlas-DK_morph.tsv").write_text("\n".join(rows) + "\n")
    matrix = rng.random((len(table), len(table)))
    lines = ["\t".join(table.names), *("\t".join(map(str, row)) for row in (matrix + matrix.T) / 2)]
    (anat / f"{key}_atlas-DK_meas-kls_relmat.tsv").write_text("\n".join(lines) + "\n")
    (anat / f"{key}_desc-dx_predictions.tsv").write_text(f"predicted_class\tprob_a\n{HOSTILE}\t0.7\n")
    (anat / f"{key}_desc-dx_predictions.json").write_text(json.dumps({"Description": HOSTILE}))


def save(path: Path, data: np.ndarray) -> None:
    """Write a volume centred on the origin."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([SPACING] * 3 + [1.0])
    affine[:3, 3] = -SPACING * (np.array(SHAPE) - 1) / 2
    Nifti1Image(data.astype(np.int16), affine).to_filename(path)
