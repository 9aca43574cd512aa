"""One scan through the model: `predict("sub-01_T1w.nii.gz")`.

Example
-------
>>> from unibrain_bids.inference import predict            # doctest: +SKIP
>>> result = predict("sub-01_T1w.nii.gz")                  # doctest: +SKIP
>>> result.mask.shape == result.scan.data.shape            # doctest: +SKIP
True
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from unibrain_bids.errors import DeviceError, ResourceError, ScanError
from unibrain_bids.imaging.affines import is_plausible_affine
from unibrain_bids.imaging.scan import Scan, load_scan
from unibrain_bids.labels import LabelTable
from unibrain_bids.model import frame
from unibrain_bids.model.aligner import Aligner
from unibrain_bids.model.anatomy import connected_winners
from unibrain_bids.model.atlas import Atlas
from unibrain_bids.model.confidence import mask_certainty, movement, outside_view, structure_certainty, tilt
from unibrain_bids.model.evidence import weigh_by_intensity
from unibrain_bids.model.first_look import FirstLook
from unibrain_bids.model.gain import refine_log_gain
from unibrain_bids.model.intensity import scale_to_unit
from unibrain_bids.model.locate import Volume, find_head, largest_component, pull_averaged
from unibrain_bids.model.native import NativeGrid, extended_log_gain, inside
from unibrain_bids.model.parcellation import region_numbers
from unibrain_bids.model.presets import UNIFIED
from unibrain_bids.model.unibrain import Dense, Outputs, UniBrain
from unibrain_bids.model.weights import load_weights

WHITE_MATTER_INTENSITY = 110.0
# Where the closed form on the segmented structures would still move the brain by more than this, the head is realigned
# and looked at once more; where the bias field is stronger than this (standard deviation of its logarithm), up to twice
# more without it. On weaker fields a look at the corrected head did more harm than good.
_SETTLED_MM = 2.0
_SHADED = 0.2
_ATTEMPTS = 3
_SMALLEST_BRAIN_MM3 = 200_000
# See `find_brain`.
_OPENING_VOXELS = 2
_REACH_MM = 6.0
_TISSUES = {"GM": 1, "WM": 2, "CSF": 3}


@dataclass(frozen=True)
class Model:
    """Networks, atlas and provenance, ready on a device.

    Attributes
    ----------
    first_look, aligner, unibrain
        The networks, in evaluation mode: 8 mm, 4 mm and 2 mm.
    device
        Where they are.
    sha256
        Of the weights file.
    metadata
        Of the weights file (training data, revision, licence).
    """

    first_look: FirstLook
    aligner: Aligner
    unibrain: UniBrain
    device: torch.device
    sha256: str
    metadata: dict[str, str]


@dataclass(frozen=True)
class Network:
    """A region network: FreeSurfer numbers and names of the regions (R,), matrix (R, R), NaN where unknown."""

    index: tuple[int, ...]
    names: tuple[str, ...]
    matrix: NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """Everything about one scan; volumes lie on the scan's own grid, shape (X, Y, Z).

    Attributes
    ----------
    scan
        What was read.
    mask
        uint8, brain with closed sulci.
    preproc
        float32, the head with the bias field removed, on the input's intensity scale.
    brain
        float32, T(x): stripped and normalised, white matter at 110.
    gain
        float32, smooth correction: preproc = gain * input.
    structures
        int16, FreeSurfer numbers.
    tissues
        uint8, 1 GM, 2 WM, 3 CSF within the mask.
    tissue_probabilities
        "GM", "WM", "CSF" to float32, 0..1.
    parcellations
        Atlas name to int32 labels.
    frame_from_scan
        (4, 4) scan world mm to population frame mm (RAS).
    networks
        Name to region network.
    quality
        The model's own measures.
    intracranial_volume
        mm3.
    """

    scan: Scan
    mask: NDArray[np.uint8]
    preproc: NDArray[np.float32]
    brain: NDArray[np.float32]
    gain: NDArray[np.float32]
    structures: NDArray[np.int16]
    tissues: NDArray[np.uint8]
    tissue_probabilities: dict[str, NDArray[np.float32]]
    parcellations: dict[str, NDArray[np.int32]]
    frame_from_scan: NDArray[np.float64]
    intracranial_volume: float
    networks: dict[str, Network] = field(default_factory=dict)
    quality: dict[str, float] = field(default_factory=dict)


def resolve_device(name: str = "auto") -> torch.device:
    """The torch device of `auto`, `cpu`, `cuda` or `cuda:i`.

    Raises
    ------
    DeviceError
        If the name is unknown or the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"Unknown device {name!r}.", "Use auto, cpu, cuda or cuda:<number>.") from error
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"Unsupported device {name!r}.", "Use auto, cpu, cuda or cuda:<number>.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"There is no device {name!r} on this machine.", "Use --device cpu, or start with a GPU.")
    return device


@lru_cache(maxsize=2)
def load_model(device: str = "auto", weights: Path | None = None) -> Model:
    """The shipped model (or other weights), loaded once per process and device."""
    resolved = resolve_device(device)
    with np.load(resource("population/atlas.npz")) as arrays:
        atlas = Atlas.from_arrays(arrays)
    first, second = FirstLook(UNIFIED.first_look_widths), Aligner(UNIFIED.aligner_widths, atlas)
    unibrain = UniBrain(UNIFIED, atlas)
    path = weights or resource("weights/unified.safetensors")
    networks = {"first_look": first, "aligner": second, "unibrain": unibrain}
    metadata = load_weights(path, networks)
    for network in networks.values():
        network.eval().requires_grad_(False).to(resolved)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Model(first, second, unibrain, resolved, digest, metadata)


def resource(name: str) -> Path:
    """Path of a file under `unibrain_bids/resources`.

    Raises
    ------
    ResourceError
        If the installation lacks it.
    """
    with as_file(files("unibrain_bids") / "resources" / name) as path:
        if not path.exists():
            raise ResourceError(f"The file {path} is missing from the installation.", "Reinstall unibrain-bids.")
        return path


@torch.inference_mode()
def predict(
    scan: Scan | Path | str, *, model: Model | None = None, smoothness: float = 0.1, mirror: bool = True
) -> Prediction:
    """Process one T1-weighted head.

    Parameters
    ----------
    scan
        A loaded scan or the path of a NIfTI file: any orientation, spacing and field of view.
    model
        From `load_model`; the shipped weights on the best device when None.
    smoothness
        NPP's lambda: larger gives a smoother intensity correction (trained for 0.001 to 10).
    mirror
        Average masks and structures over the head and its mirror image.

    Raises
    ------
    ScanError
        If the file cannot be read or no brain is found in it.
    """
    model = model or load_model()
    scan = scan if isinstance(scan, Scan) else load_scan(Path(scan))
    data = torch.from_numpy(np.ascontiguousarray(scan.data))[None, None].to(model.device)
    volume = Volume(data, np.asarray(scan.affine, dtype=np.float64))
    located = find_head(model.first_look, model.aligner, volume)
    if located is None:
        raise _no_brain(scan)
    frame_from_scan = _checked(scan, located.frame_from_world)
    lam = torch.full((1,), smoothness, device=model.device)
    correction = torch.zeros(())
    for attempt in range(_ATTEMPTS):
        image = pull_averaged(volume, np.linalg.inv(frame_from_scan), model.unibrain.points, frame.SPACING)
        outputs = model.unibrain(scale_to_unit(image * correction.exp()), lam, mirror=mirror)
        found = find_brain(outputs.dense)
        fitted = model.unibrain.fit(found.structures)[0]
        proposed = outputs.dense.multiplier.log_gain()
        log_gain = refine_log_gain(image, found.structures, found.brain, proposed, smoothness=smoothness)
        shaded = float(log_gain[found.brain > 0.5].std()) > _SHADED
        unsettled = movement(fitted) >= _SETTLED_MM
        if attempt == _ATTEMPTS - 1 or not (shaded or (unsettled and attempt == 0)):
            break
        if unsettled:
            frame_from_scan = _checked(scan, as_float64(fitted) @ frame_from_scan)
        # The field is smooth: that the head has moved a little under it since does no harm.
        correction = log_gain if shaded else torch.zeros(())
    quality = {
        "model_atlas_agreement": located.agreement,
        "model_realignment_mm": movement(fitted),
        "model_mask_certainty": mask_certainty(found.brain),
        "model_structure_certainty": structure_certainty(found.structures, found.brain),
        "model_tilt_deg": tilt(frame_from_scan),
        "model_outside_view": outside_view(model.unibrain, as_float64(fitted) @ frame_from_scan, volume),
    }
    return _assemble(scan, outputs, found, log_gain, frame_from_scan, fitted, quality)


@dataclass(frozen=True)
class Found:
    """Masks (1, 1, X, Y, Z) and structures (1, 1 + structures, X, Y, Z) on the model grid, as probabilities."""

    brain: torch.Tensor
    intracranial: torch.Tensor
    structures: torch.Tensor


def find_brain(dense: Dense) -> Found:
    """Probabilities within reach of the main body of the structures.

    What the network takes for brain in the neck or in the orbits hangs on by thin bridges if at all: the main body is
    the largest part of the segmented structures after an opening, and a mask voxel lies within 6 mm of it.
    """
    masks = torch.sigmoid(dense.mask_logits.float())
    structures = torch.softmax(dense.structure_logits.float(), dim=1)
    segmented = ((structures[0, 0] < 0.5) & (masks[0, 0] > 0.5)).cpu().numpy()
    body = largest_component(ndimage.binary_opening(segmented, iterations=_OPENING_VOXELS))
    if not body.any():
        body = segmented
    near = ndimage.distance_transform_edt(~body) * frame.SPACING <= _REACH_MM
    region = torch.from_numpy(near).to(masks.device)
    return Found(brain=masks[:, :1] * region, intracranial=masks[:, 1:], structures=structures * region)


def _assemble(
    scan: Scan,
    outputs: Outputs,
    found: Found,
    log_gain_in_frame: torch.Tensor,
    frame_from_scan: NDArray[np.float64],
    fitted: torch.Tensor,
    quality: dict[str, float],
) -> Prediction:
    """Bring the model's outputs to the scan's grid."""
    x, y, z = scan.data.shape
    native = NativeGrid((x, y, z), np.linalg.inv(frame.affine()) @ frame_from_scan @ scan.affine)
    mask = largest_component(native.volume(found.brain) > 0.5)
    if mask.sum() * abs(np.linalg.det(scan.affine[:3, :3])) < _SMALLEST_BRAIN_MM3:
        raise _no_brain(scan)
    log_gain = extended_log_gain(log_gain_in_frame, native)
    gain = np.exp(log_gain - log_gain[mask].mean())
    preproc = scan.data * gain
    structures, tissues, shares = _segment(native, found.structures, mask, preproc)
    white = np.median(preproc[tissues == _TISSUES["WM"]])
    brain = preproc * mask * np.float32(WHITE_MATTER_INTENSITY / max(white, 1e-6))
    voxel = frame.SPACING**3 / abs(np.linalg.det(frame_from_scan[:3, :3]))
    return Prediction(
        scan=scan,
        mask=mask.astype(np.uint8),
        preproc=preproc.astype(np.float32),
        brain=brain.astype(np.float32),
        gain=gain,
        structures=structures,
        tissues=tissues,
        tissue_probabilities=shares,
        parcellations={"DK": _parcellate(native, outputs, structures)},
        frame_from_scan=as_float64(fitted) @ frame_from_scan,
        intracranial_volume=float((found.intracranial > 0.5).sum()) * voxel,
        networks={"innerproduct": named_network(outputs.network[0].cpu().numpy())},
        quality=quality,
    )


def _segment(
    native: NativeGrid, probability: torch.Tensor, mask: NDArray[np.bool_], preproc: NDArray[np.float32]
) -> tuple[NDArray[np.int16], NDArray[np.uint8], dict[str, NDArray[np.float32]]]:
    """Structures, tissues and tissue probabilities within the mask; what is no structure there is CSF."""
    numbers = torch.tensor([0, *frame.STRUCTURES])
    tissue_of = {row.index: row.mapping for row in LabelTable.load("aseg").rows}
    mapping = torch.tensor([tissue_of.get(number, _TISSUES["CSF"]) for number in numbers.tolist()])
    intensity = torch.from_numpy(preproc[mask]).to(probability.device)
    values = torch.cat([native.read(probability, voxels) for _, voxels in inside(mask)], dim=1)
    values = weigh_by_intensity(values, intensity)
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


def named_network(matrix: NDArray[np.float32]) -> Network:
    """Sort the model's network (84, 84), in the order of `region_numbers`, as the label table of DK is sorted."""
    table = LabelTable.load("DK")
    order = [region_numbers().index(row.index) for row in table]
    return Network(table.indices, table.names, matrix[np.ix_(order, order)])


def as_float64(matrix: torch.Tensor) -> NDArray[np.float64]:
    """A matrix as a numpy array in double precision."""
    result: NDArray[np.float64] = matrix.double().cpu().numpy()
    return result


def _checked(scan: Scan, frame_from_scan: NDArray[np.floating]) -> NDArray[np.float64]:
    """Refuse a fit that no head can have."""
    if is_plausible_affine(frame_from_scan, rotation=180.0):
        return frame_from_scan.astype(np.float64)
    raise _no_brain(scan)


def _no_brain(scan: Scan) -> ScanError:
    return ScanError(
        f"No brain was found in {scan.path}.", "Check that it is a head, with a correct orientation in its header."
    )
