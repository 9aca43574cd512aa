"""Simulated labelled heads: label maps kept out of training, through the training's own simulator.

The truth is exact: mask, structures, bias field and the clean, normalised brain. Heads have T1-like contrast and are
scanned with 1 mm voxels; some are defaced or stripped, as the simulator draws them. Thick slices are among the
conditions of `evaluation.robustness`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray

from unibrain_bids.errors import ResourceError
from unibrain_bids.evaluation.heads import TISSUES, HeadRecord, LabelledHead
from unibrain_bids.labels import LabelTable
from unibrain_bids.model import frame
from unibrain_bids.training.packing import pack, read_canonical
from unibrain_bids.training.parcels import LabelledTemplate
from unibrain_bids.training.simulation.geometry import PoseRange
from unibrain_bids.training.simulation.material import Material, load_material
from unibrain_bids.training.simulation.simulator import SimulatedHead, SimulationRange, simulate

LABEL_MAPS = ("head-13", "head-14", "head-15", "head-16")
SPAN = SimulationRange((176, 224, 208), 1.0, PoseRange(12.0, 8.0, 0.06, 0.03), t1_fraction=1.0, large_voxels=False)

# The simulator may crop a head so that a part of the brain is lost: no truth to compare with, so draw again.
_LARGEST_LOSS = 0.005
_REDRAW = 1000
_INTENSITY_SCALE = 1000.0


def simulated_heads(data: Path, folder: Path, *, count: int = 8, span: SimulationRange = SPAN) -> list[HeadRecord]:
    """List simulated heads; head i is simulated with seed i from label map 13 + i mod 4 when it is loaded.

    Parameters
    ----------
    data
        Folder that holds `labelmaps/` and `atlas/`.
    folder
        Where the packed label maps and the simulated scans are written.
    count
        How many heads.
    span
        What the simulator draws, and on which grid.

    Raises
    ------
    ResourceError
        If a label map is missing.
    """
    label_maps = [data / "labelmaps" / f"{name}_dseg.nii.gz" for name in LABEL_MAPS]
    aparc = data / "atlas" / "tpl-MNI152NLin6Asym_res-1_atlas-DK_dseg.nii.gz"
    for path in (*label_maps, aparc):
        if not path.is_file():
            raise ResourceError(
                f"{path}: no such file.", "Point --data to the folder that holds labelmaps/ and atlas/."
            )
    packed = folder / "labelmaps.npz"
    template = LabelledTemplate.from_labels(*read_canonical(aparc))
    pack(label_maps, data / "labelmaps" / "labels.tsv", template, packed)
    return [
        HeadRecord(name, partial(load_simulated_head, packed, folder, name=name, seed=seed, span=span))
        for seed in range(count)
        for name in [f"simulated-{LABEL_MAPS[seed % len(LABEL_MAPS)].removeprefix('head-')}-{seed}"]
    ]


def load_simulated_head(packed: Path, folder: Path, *, name: str, seed: int, span: SimulationRange) -> LabelledHead:
    """Simulate one head, write its scan to `<folder>/<name>_T1w.nii.gz` and return it with its truth."""
    material = load_material(packed)
    simulated = _whole_brain(material, span, seed)
    affine = frame.affine(span.spacing, span.shape)
    image = _volume(simulated.image) * np.float32(_INTENSITY_SCALE)
    path = folder / f"{name}_T1w.nii.gz"
    nib.Nifti1Image(image, affine).to_filename(path)
    number_of_channel = np.array([0, *frame.STRUCTURES], dtype=np.int16)
    structures = number_of_channel[simulated.structures[0].numpy()]
    solid = _volume(simulated.brain) > 0
    return LabelledHead(
        name=name,
        path=path,
        image=image,
        affine=affine,
        masks={"solid": solid, "brain": structures > 0, "icv": _volume(simulated.intracranial) > 0},
        structures=structures,
        tissues=_tissues(structures, solid),
        bias=np.exp(-_volume(simulated.log_gain)),
        clean=_volume(simulated.normalised),
    )


def _whole_brain(material: Material, span: SimulationRange, seed: int) -> SimulatedHead:
    while True:
        simulated = simulate(material, span, seed, head=seed % len(LABEL_MAPS))
        brain = simulated.brain > 0
        if float((simulated.image[brain] == 0).float().mean()) <= _LARGEST_LOSS:
            return simulated
        seed += _REDRAW


def _volume(tensor: torch.Tensor) -> NDArray[np.float32]:
    return tensor[0, 0].float().cpu().numpy()


def _tissues(structures: NDArray[np.int16], solid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Tissue of each structure; what else lies inside the mask is CSF of the sulci."""
    lookup = np.zeros(max(frame.STRUCTURES) + 1, dtype=np.uint8)
    for label in LabelTable.load("aseg"):
        lookup[label.index] = TISSUES[label.tissue]
    tissues = lookup[structures]
    return np.where(solid & (structures == 0), np.uint8(TISSUES["CSF"]), tissues)
