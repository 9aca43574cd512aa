"""The model's outputs on the scan's own grid."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from unibrain_bids.errors import ScanError
from unibrain_bids.imaging.scan import Scan
from unibrain_bids.inference.prediction import Prediction, as_arrays, named_network
from unibrain_bids.inference.refined import refine
from unibrain_bids.inference.seen import Look
from unibrain_bids.labels import LabelTable
from unibrain_bids.model import frame
from unibrain_bids.model.anatomy import connected_winners, solid_mask
from unibrain_bids.model.description import describe_head
from unibrain_bids.model.locate import Volume, fill_holes, largest_component
from unibrain_bids.model.native import NativeGrid, extended_log_gain, inside
from unibrain_bids.model.neighbours import heed_neighbours_within
from unibrain_bids.model.parcellation import region_numbers
from unibrain_bids.model.refiner import Refiner
from unibrain_bids.model.unibrain import Outputs

WHITE_MATTER_INTENSITY = 110.0
_SMALLEST_BRAIN_MM3 = 200_000
# Probability of the network's mask at 2 mm above which a voxel may be in the mask. With .2 masks are .001 Dice better,
# but cut more of the brain off (docs/training-log.md).
_LIKELY = 0.1
# Dice between the network's mask and that made of the structures from which on the structures are trusted.
_TRUSTED = 0.9
_TISSUES = {"GM": 1, "WM": 2, "CSF": 3}


def assemble(scan: Scan, volume: Volume, seen: Look, refiner: Refiner, quality: dict[str, float]) -> Prediction:
    """Bring what the model has seen of a scan (whose data `volume` holds) to the scan's grid, refined."""
    x, y, z = scan.data.shape
    native = NativeGrid((x, y, z), np.linalg.inv(frame.affine()) @ seen.frame_from_scan @ scan.affine)
    log_gain = extended_log_gain(seen.log_gain, native)
    corrected = scan.data * np.exp(log_gain)
    refined = refine(refiner, seen, volume, native, corrected)
    possible = np.zeros(scan.data.shape, dtype=bool)
    possible[refined.possible] = (refined.brain > _LIKELY).cpu().numpy()
    # No mask within it has a hole that reaches out of it.
    possible = fill_holes(possible) if possible.any() else possible
    likely = possible[refined.possible]
    probability, outside = refined.judge(likely)
    mask = brain_mask(possible, refined.brain[likely].cpu().numpy(), ~outside.cpu().numpy(), volume.spacing())
    if mask.sum() * abs(np.linalg.det(scan.affine[:3, :3])) < _SMALLEST_BRAIN_MM3:
        raise no_brain(scan)
    scale = np.exp(-log_gain[mask].mean())
    gain, preproc = np.exp(log_gain) * scale, corrected * scale
    probability = heed_neighbours_within(probability, possible, refined.couplings(corrected, volume.spacing()))
    structures, tissues, shares = _segment(probability[:, mask[possible]], mask)
    white = np.median(preproc[tissues == _TISSUES["WM"]])
    brain = preproc * mask * np.float32(WHITE_MATTER_INTENSITY / max(white, 1e-6))
    voxel = frame.voxel_volume(seen.frame_from_scan)
    return Prediction(
        scan=scan,
        mask=mask.astype(np.uint8),
        preproc=preproc.astype(np.float32),
        brain=brain.astype(np.float32),
        gain=gain,
        structures=structures,
        tissues=tissues,
        tissue_probabilities=shares,
        parcellations={"DK": _parcellate(native, seen.outputs, structures)},
        frame_from_scan=as_float64(seen.fitted) @ seen.frame_from_scan,
        intracranial_volume=float((seen.found.intracranial > 0.5).sum()) * voxel,
        networks={"innerproduct": named_network(seen.outputs.network[0].cpu().numpy())},
        quality=quality,
        description=as_arrays(describe_head(seen.outputs, voxel)),
    )


def brain_mask(
    possible: NDArray[np.bool_],
    brain: NDArray[np.float32],
    inside: NDArray[np.bool_],
    spacing: NDArray[np.floating],
) -> NDArray[np.bool_]:
    """The brain's mask: what its definition makes of the refined structures, where the network sees some brain at all.

    The network's own mask is one of 2 mm; it stands where the structures are so unlike it that they cannot be trusted.

    Parameters
    ----------
    possible
        (X, Y, Z) voxels that may be brain.
    brain
        (n,) probabilities of these voxels in the network's mask.
    inside
        (n,) whether the refined structures take them for brain.
    spacing
        Voxel sizes in mm.
    """
    own, segmented = np.zeros_like(possible), np.zeros_like(possible)
    own[possible], segmented[possible] = brain > 0.5, inside
    own = largest_component(own)
    closed = largest_component(solid_mask(largest_component(segmented), spacing) & possible)
    return closed if 2 * (closed & own).sum() > _TRUSTED * (closed.sum() + own.sum()) else own


def _segment(
    values: torch.Tensor, mask: NDArray[np.bool_]
) -> tuple[NDArray[np.int16], NDArray[np.uint8], dict[str, NDArray[np.float32]]]:
    """Structures, tissues and tissue probabilities within the mask; what is no structure there is CSF.

    `values` are the mask's probabilities (1 + structures, N).
    """
    numbers = torch.tensor([0, *frame.STRUCTURES])
    tissue_of = {row.index: row.mapping for row in LabelTable.load("aseg").rows}
    mapping = torch.tensor([tissue_of.get(number, _TISSUES["CSF"]) for number in numbers.tolist()])
    winner = torch.from_numpy(connected_winners(values, mask))
    structures, tissues = np.zeros(mask.shape, dtype=np.int16), np.zeros(mask.shape, dtype=np.uint8)
    structures[mask], tissues[mask] = numbers[winner].numpy(), mapping[winner].numpy()
    shares = {name: np.zeros(mask.shape, dtype=np.float32) for name in _TISSUES}
    for name, tissue in _TISSUES.items():
        shares[name][mask] = values[(mapping == tissue).to(values.device)].sum(0).cpu().numpy()
    return structures, tissues, shares


def _parcellate(native: NativeGrid, outputs: Outputs, structures: NDArray[np.int16]) -> NDArray[np.int32]:
    """Region of every grey matter voxel: the likeliest cortical region of its side, or the structure itself."""
    numbers = np.array(region_numbers())
    parcels = np.where(np.isin(structures, numbers[68:]), structures, 0).astype(np.int32)
    for side, cortex in enumerate((3, 42)):
        channels = slice(34 * side, 34 * (side + 1))
        for piece, voxels in inside(structures == cortex):
            winner = native.read(outputs.regions[:, channels], voxels).argmax(0).cpu().numpy()
            parcels.flat[piece] = numbers[channels][winner]
    return parcels


def as_float64(matrix: torch.Tensor) -> NDArray[np.float64]:
    """A matrix as a numpy array in double precision."""
    result: NDArray[np.float64] = matrix.double().cpu().numpy()
    return result


def no_brain(scan: Scan) -> ScanError:
    return ScanError(
        f"No brain was found in {scan.path}.", "Check that it is a head, with a correct orientation in its header."
    )
