"""A small simulated BIDS dataset to try the app on: `python -m unibrain_bids.demo DIR` writes DIR/bids.

Two participants, one of them with two sessions, all simulated from the head phantom that comes with the package (an
average over label maps; no person's head).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from unibrain_bids.imaging.images import SCANNER_CODE, save_image
from unibrain_bids.inference import resource
from unibrain_bids.model import frame
from unibrain_bids.training.simulation.geometry import PoseRange
from unibrain_bids.training.simulation.material import Material, load_material
from unibrain_bids.training.simulation.simulator import SimulationRange, simulate

# The phantom's head with some air around it, at 1.5 mm.
SPAN = SimulationRange(
    (144, 176, 168), 1.5, PoseRange(rotation=8, translation=6, scale=0.05, shear=0.0), t1_fraction=1.0, bias=0.3,
    missing_parts=False, large_voxels=False,
)  # fmt: skip


@dataclass(frozen=True)
class DemoScan:
    """One scan of the demo: participant, session, and the seed of everything random about it."""

    participant: str
    session: str
    seed: int

    @property
    def path(self) -> Path:
        """Place within the dataset."""
        stem = f"sub-{self.participant}_ses-{self.session}_T1w.nii.gz"
        return Path(f"sub-{self.participant}") / f"ses-{self.session}" / "anat" / stem


SCANS = (DemoScan("01", "1", 101), DemoScan("01", "2", 102), DemoScan("02", "1", 203))


def phantom_material() -> Material:
    """The packaged head phantom, ready for the simulator."""
    return load_material(resource("population/phantom.npz"))


def simulate_scan(material: Material, scan: DemoScan, span: SimulationRange = SPAN) -> np.ndarray:
    """Intensities (X, Y, Z) int16 of one scan."""
    with torch.inference_mode():
        head = simulate(material, span, scan.seed, head=0)
    return (1000 * head.image[0, 0]).round().numpy().astype(np.int16)


def write_dataset(folder: Path, scans: tuple[DemoScan, ...] = SCANS, span: SimulationRange = SPAN) -> Path:
    """Simulate the scans into `folder/bids`, a valid BIDS dataset; returns its path."""
    root = folder / "bids"
    root.mkdir(parents=True, exist_ok=True)
    description = {
        "Name": "Simulated heads for the unibrain-bids demo", "BIDSVersion": "1.10.0", "DatasetType": "raw",
        "License": "CC0", "Authors": ["unibrain-bids developers"],
    }  # fmt: skip
    (root / "dataset_description.json").write_text(json.dumps(description, indent=2) + "\n")
    (root / "README").write_text("Heads simulated from a population phantom. No person was scanned.\n")
    participants = sorted({scan.participant for scan in scans})
    rows = "".join(f"sub-{participant}\n" for participant in participants)
    (root / "participants.tsv").write_text("participant_id\n" + rows)
    material = phantom_material()
    for scan in scans:
        path = root / scan.path
        path.parent.mkdir(parents=True, exist_ok=True)
        affine = frame.affine(span.spacing, span.shape)
        save_image(path, simulate_scan(material, scan, span), affine=affine, code=SCANNER_CODE)
        print(f"simulated {path}", flush=True)
    return root


def main() -> None:
    """Write the demo dataset."""
    parser = argparse.ArgumentParser(prog="python -m unibrain_bids.demo", description=__doc__)
    parser.add_argument("folder", type=Path)
    write_dataset(parser.parse_args().folder)


if __name__ == "__main__":
    main()
