"""One T1-weighted head through unibrain-bids, as a brainlife.io app; needs nothing but Python and the app.

Reads `config.json` in the current folder (config.json.example), and writes there:

| folder | datatype | files |
|---|---|---|
| `t1w` | neuro/anat/t1w | t1.nii.gz: the head, bias-corrected |
| `brain` | neuro/anat/t1w, tag `skull_stripped` | t1.nii.gz: the brain alone, normalised |
| `mask` | neuro/mask | mask.nii.gz |
| `aseg`, `parc` | neuro/parcellation/volume | parc.nii.gz, label.json, key.txt: structures, cortical regions |
| `derivatives` | raw | everything, as a BIDS-Derivatives dataset |

and `product.json`: what brainlife shows and keeps of the scan.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

CONFIG, PRODUCT = Path("config.json"), Path("product.json")
RAW, DERIVATIVES = Path("bids"), Path("derivatives")
IMAGES = {
    "desc-preproc_T1w": Path("t1w/t1.nii.gz"),
    "desc-brain_T1w": Path("brain/t1.nii.gz"),
    "desc-brain_mask": Path("mask/mask.nii.gz"),
    "seg-aseg_dseg": Path("aseg/parc.nii.gz"),
    "atlas-DK_dseg": Path("parc/parc.nii.gz"),
}
TABLES = {"seg-aseg_dseg.tsv": Path("aseg"), "atlas-DK_dseg.tsv": Path("parc")}


def main() -> int:
    """Run the app; return its exit code."""
    config = json.loads(CONFIG.read_text())
    stem = write_dataset(config)
    options = ["--skip-bids-validation", "--smoothness", str(config.get("smoothness", 0.1))]
    options += ["--nprocs", str(config["nprocs"])] if config.get("nprocs") else []
    command = ["unibrain-bids", str(RAW), str(DERIVATIVES), "participant", *options]
    code = subprocess.run(command, check=False).returncode
    if code != 0:
        messages = [{"type": "error", "msg": f"unibrain-bids ended with exit code {code}; its log tells why."}]
        PRODUCT.write_text(json.dumps({"brainlife": messages}))
        return code
    folder = DERIVATIVES / stem.parent
    for name, target in IMAGES.items():
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(folder / f"{stem.name}_{name}.nii.gz", target)
    for name, target in TABLES.items():
        write_labels(DERIVATIVES / name, target)
    PRODUCT.write_text(json.dumps(product(json.loads((folder / f"{stem.name}_desc-qc_T1w.json").read_text()))))
    return 0


def write_dataset(config: dict[str, Any]) -> Path:
    """Make a raw BIDS dataset of the one scan; return the stem of its derivatives, within the dataset."""
    meta = next((entry.get("meta", {}) for entry in config.get("_inputs", [])), {})
    subject, session = (re.sub("[^0-9a-zA-Z]", "", str(meta.get(key, ""))) for key in ("subject", "session"))
    entities = [f"sub-{subject or '01'}", *([f"ses-{session}"] if session else [])]
    stem = Path(*entities, "anat", "_".join(entities))
    scan = RAW / f"{stem}_T1w.nii.gz"
    scan.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(config["t1"], scan)
    description = {"Name": "brainlife.io", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    (RAW / "dataset_description.json").write_text(json.dumps(description))
    return stem


def write_labels(table: Path, folder: Path) -> None:
    """Write a table of labels as brainlife has them."""
    with table.open(newline="") as stream:
        rows = [(int(row["index"]), row["name"], row["color"]) for row in csv.DictReader(stream, delimiter="\t")]
    labels = [
        {"name": name, "label": str(index), "voxel_value": index, **_channels(color)} for index, name, color in rows
    ]
    (folder / "label.json").write_text(json.dumps(labels, indent=1))
    (folder / "key.txt").write_text("".join(f"{index} -> {index} == {name}\n" for index, name, _ in rows))


def _channels(color: str) -> dict[str, int]:
    """Return the channels of #RRGGBB."""
    return dict(zip("rgb", bytes.fromhex(color.removeprefix("#")), strict=True))


def product(quality: dict[str, Any]) -> dict[str, Any]:
    """Return what brainlife shows and keeps: the numbers among the quality measures."""
    numbers = {key: value for key, value in quality.items() if isinstance(value, (int, float))}
    message = "Research use only. Quality measures: see the details of this data object."
    return {"brainlife": [{"type": "info", "msg": message}], "quality": numbers, "tags": ["unibrain-bids"]}


if __name__ == "__main__":
    sys.exit(main())
