"""A user's cohort: which scans, which masks and segmentations there are of them, and all of it on the model grid."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nibabel.nifti1 import Nifti1Image
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from numpy.typing import NDArray

from unibrain_bids import __version__
from unibrain_bids.bids.inputs import ScanRecord, find_scans
from unibrain_bids.classification.features import Features
from unibrain_bids.errors import DatasetError, ScanError
from unibrain_bids.imaging.scan import load_scan
from unibrain_bids.inference.loading import Model
from unibrain_bids.inference.prediction import as_arrays
from unibrain_bids.inference.seen import Look
from unibrain_bids.inference.unified import as_volume, look
from unibrain_bids.model import frame
from unibrain_bids.model.description import describe_head
from unibrain_bids.model.locate import Volume, pull_averaged
from unibrain_bids.model.spatial import sample, transform_points
from unibrain_bids.training.augmentation import Sample

_SAME_MM = 0.05
# A mask that shares less with the brain that the model finds (Dice) belongs to another scan, or world.
_SMALLEST_OVERLAP = 0.7
_UNKNOWN = 255
# Of FreeSurfer's aseg numbers, besides the structures: CSF, vessels and chiasm are none, choroid plexus is ventricle.
_FURTHER = {0: 0, 24: 0, 30: 0, 62: 0, 72: 0, 85: 0, 31: 4, 63: 43}


@dataclass(frozen=True)
class CohortScan:
    """A scan with the files that tell its truth, or None."""

    record: ScanRecord
    mask: Path | None = None
    segmentation: Path | None = None

    @property
    def participant(self) -> str:
        """Identifier in participants.tsv, such as "sub-01"."""
        return f"sub-{self.record.subject}"


@dataclass(frozen=True)
class PreparedScan:
    """A scan on the model grid, what heads see of it through the model, and a digest of what it was made from."""

    scan: CohortScan
    sample: Sample
    features: Features
    digest: str

    @property
    def participant(self) -> str:
        """Identifier in participants.tsv."""
        return self.scan.participant


def find_cohort(
    bids_dir: Path,
    derivatives: Sequence[Path] = (),
    *,
    participants: Sequence[str] = (),
    filters: Mapping[str, Any] | None = None,
) -> list[CohortScan]:
    """Return the T1w scans of a raw dataset, with masks and segmentations from derivative datasets.

    Parameters
    ----------
    bids_dir
        The raw dataset.
    derivatives
        Derivative datasets, the first that has a file wins: `desc-brain_mask` and `seg-aseg_dseg` or `desc-aseg_dseg`
        (FreeSurfer's numbers), without `space-` or in `space-T1w`.
    participants, filters
        See `bids.inputs.find_scans`.

    Raises
    ------
    DatasetError
        A folder is no dataset, or a mask or segmentation lies on another grid than its scan.
    NoScansError
        There is no T1w scan.
    """
    for root in derivatives:
        if not root.is_dir():
            raise DatasetError(f"{root}: there is no such folder.", "Give the root of a derivative dataset.")
    records = find_scans(bids_dir, participant_labels=participants, filters=dict(filters or {}))
    return [
        CohortScan(record, _beside(record, derivatives, _is_mask), _beside(record, derivatives, _is_segmentation))
        for record in records
    ]


def prepare(
    scans: Sequence[CohortScan], model: Model, folder: Path, *, progress: Callable[[str], None] = lambda _: None
) -> tuple[dict[str, PreparedScan], dict[str, str]]:
    """Bring scans to the model grid, or read what was prepared from unchanged files with these weights and version.

    Parameters
    ----------
    scans
        The cohort.
    model
        Finds the heads.
    folder
        Where one file for each scan is kept.
    progress
        Called with a line for each scan that had to be prepared.

    Returns
    -------
    prepared, failed
        By the scan's key; why the others cannot be used.
    """
    folder.mkdir(parents=True, exist_ok=True)
    prepared, failed = {}, {}
    for number, scan in enumerate(scans, 1):
        key, path = scan.record.key, folder / f"{scan.record.key}.npz"
        try:
            sources = {**_digests(scan), "weights": model.sha256, "version": __version__}
            if _sources_of(path) != sources:
                arrays = _arrays(scan, model)
                aside = path.with_suffix(".part")
                with aside.open("wb") as stream:
                    np.savez_compressed(stream, allow_pickle=False, sources=json.dumps(sources), **arrays)
                os.replace(aside, path)
                progress(f"prepared {key} ({number} of {len(scans)})")
        except ScanError as error:
            failed[key] = str(error)
            progress(f"{key} is left out: {error}")
            continue
        prepared[key] = _read(scan, path)
    return prepared, failed


def _is_mask(name: ScanRecord) -> bool:
    return name.suffix == "mask" and ("desc", "brain") in name.entities


def _is_segmentation(name: ScanRecord) -> bool:
    return name.suffix == "dseg" and bool({("seg", "aseg"), ("desc", "aseg")} & set(name.entities))


def _beside(record: ScanRecord, roots: Sequence[Path], wanted: Callable[[ScanRecord], bool]) -> Path | None:
    """Return the file in the scan's own space that says most of what the scan's name says."""
    own = {pair for pair in record.entities if pair[0] not in ("desc", "seg")}
    folders = [f"sub-{record.subject}/anat"]
    folders += [f"sub-{record.subject}/ses-{record.session}/anat"] if record.session else []
    for root in roots:
        found = []
        for path in (path for folder in folders for path in sorted((root / folder).glob("*.nii*"))):
            name = ScanRecord.from_path(path, dataset=root)
            rest = set(name.entities) - {("desc", "brain"), ("desc", "aseg"), ("seg", "aseg"), ("space", "T1w")}
            if wanted(name) and rest <= own:
                found.append((len(rest), path))
        if found:
            path = max(found)[1]
            _check_grid(path, record.path)
            return path
    return None


def _check_grid(path: Path, scan: Path) -> None:
    """See to it that two images have the same voxels, in whatever order these are stored."""
    (shape, affine), (goal, target) = (_upright_grid(one) for one in (path, scan))
    if shape != goal or not np.allclose(affine, target, atol=_SAME_MM):
        raise DatasetError(
            f"{path}: lies on another grid than {scan} ({shape} and {goal} voxels, along the axes).",
            "Resample it to the scan's grid (nearest neighbour), or leave that derivative dataset out.",
        )


def _upright_grid(path: Path) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Shape and affine of an image once its axes run from left to right, to anterior and to superior."""
    try:
        image = Nifti1Image.from_filename(path)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: cannot be read ({error}).", "Get the file's content, or remove it.") from error
    orientation = io_orientation(image.affine)
    shape = image.shape[:3]
    turned = apply_orientation(np.empty(shape, dtype=bool), orientation).shape
    return turned, image.affine @ inv_ornt_aff(orientation, shape)


def _digests(scan: CohortScan) -> dict[str, str]:
    files = {"scan": scan.record.path, "mask": scan.mask, "segmentation": scan.segmentation}
    try:
        return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items() if path}
    except OSError as error:
        raise ScanError(f"{error.filename}: cannot be read ({error.strerror}).", "Get the file's content.") from error


def _sources_of(path: Path) -> dict[str, str] | None:
    if not path.is_file():
        return None
    with np.load(path) as stored:
        sources: dict[str, str] = json.loads(str(stored["sources"]))
    return sources


@torch.inference_mode()
def _arrays(scan: CohortScan, model: Model) -> dict[str, NDArray[Any]]:
    """What is kept of a scan."""
    loaded = load_scan(scan.record.path)
    seen = look(loaded, as_volume(loaded, model.device), model)
    description = as_arrays(describe_head(seen.outputs, frame.voxel_volume(seen.frame_from_scan)))
    arrays: dict[str, NDArray[Any]] = {
        "image": seen.scaled[0, 0].half().cpu().numpy(),
        "voxel": np.array(frame.voxel_volume(seen.frame_from_scan)),
        "regions": description.regions,
        "whole": description.whole,
        "network": description.network,
    }
    if scan.mask:
        arrays["mask"] = _mask(scan.mask, seen, model)
    if scan.segmentation:
        arrays["structures"] = _structures(scan.segmentation, seen, model)
    return arrays


def _mask(path: Path, seen: Look, model: Model) -> NDArray[np.uint8]:
    volume = _load(path, model.device)
    volume = Volume((volume.data > 0).float(), volume.affine)
    mask = pull_averaged(volume, np.linalg.inv(seen.frame_from_scan), model.unibrain.points, frame.SPACING)
    ours, theirs = seen.found.brain > 0.5, mask > 0.5
    overlap = 2 * float((ours & theirs).sum()) / max(float(ours.sum() + theirs.sum()), 1.0)
    if overlap < _SMALLEST_OVERLAP:
        raise ScanError(
            f"{path}: shares little with the brain that is seen in its scan (Dice {overlap:.2f}).",
            "Check that it is a brain mask of this scan.",
        )
    return (255 * mask[0, 0]).round().byte().cpu().numpy()


def _structures(path: Path, seen: Look, model: Model) -> NDArray[np.uint8]:
    volume = _load(path, model.device)
    matrix = torch.from_numpy(np.linalg.inv(volume.affine) @ np.linalg.inv(seen.frame_from_scan)).float()
    places = transform_points(matrix[None].to(model.device), model.unibrain.points)
    numbers = sample(volume.data, places, mode="nearest")[0, 0].round().long().cpu().numpy()
    channels = np.full(numbers.shape, _UNKNOWN, dtype=np.uint8)
    known = {number: channel for channel, number in enumerate(frame.STRUCTURES, 1)}
    known |= {number: known.get(structure, 0) for number, structure in _FURTHER.items()}
    for number, channel in known.items():
        channels[numbers == number] = channel
    for first, cortex in ((1000, 3), (2000, 42)):
        channels[(numbers > first) & (numbers < first + 100)] = known[cortex]
    if len(set(np.unique(channels)) - {0, _UNKNOWN}) < len(frame.STRUCTURES) // 2:
        raise ScanError(f"{path}: hardly holds any of FreeSurfer's numbers.", "Expected those of aseg (2 to 60).")
    return channels


def _load(path: Path, device: torch.device) -> Volume:
    image = Nifti1Image.from_filename(path)
    data = torch.from_numpy(image.get_fdata(dtype=np.float32))
    return Volume(data.reshape(1, 1, *data.shape[:3]).to(device), image.affine)


def _read(scan: CohortScan, path: Path) -> PreparedScan:
    with np.load(path) as stored:
        arrays = dict(stored)
    mask, structures = arrays.get("mask"), arrays.get("structures")
    known = None
    if structures is not None:
        known = torch.from_numpy(structures.astype(np.int64))[None]
        known[known == _UNKNOWN] = -1
    given = Sample(
        image=torch.from_numpy(arrays["image"]).float()[None, None],
        voxel=float(arrays["voxel"]),
        mask=None if mask is None else torch.from_numpy(mask)[None, None].float() / 255,
        structures=known,
    )
    features = Features(arrays["regions"], arrays["whole"], arrays["network"])
    return PreparedScan(scan, given, features, hashlib.sha256(str(arrays["sources"]).encode()).hexdigest())
