"""Label maps to one packed array file: everything that training reads.

    python -m unibrain_bids.training.packing LABELMAPS_DIR packed/heads.npz --regions REGIONS_DIR

The cortical regions come from `training.deformable` (`--regions`), or, for comparison, from an affine (`--aparc`).

The file holds, per head, the label map cropped to the head at 1 mm (uint8: low six bits are the row of the label
table, bit 6 the intracranial space, bit 7 the brain mask), its cortical regions (uint8, FreeSurfer numbers less
1000), its affine and the affine to the population frame, and the table itself. It needs only numpy to read, so that
a machine with an accelerator can train from it.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray
from scipy import ndimage

from unibrain_bids.model.anatomy import solid_mask
from unibrain_bids.model.frame import LEFT, RIGHT, STRUCTURES
from unibrain_bids.training.parcels import LabelledTemplate, propagate

BRAIN_BIT = 0x80
INTRACRANIAL_BIT = 0x40
ROW_MASK = 0x3F
CSF_LABEL = 24
# Inside the head's brain without being one of the structures: fifth ventricle, optic chiasm, vessels.
BRAIN_EXTRAS = (72, 85, 30, 62)


@dataclass(frozen=True)
class LabelRows:
    """The label table as arrays, one entry a row.

    Attributes
    ----------
    index
        Label number in the maps.
    target
        FreeSurfer number that a segmentation should output; 0 where it is not a structure.
    intensity_class
        Labels of one class share one Gaussian in the any-contrast generator.
    t1
        (rows, 4): mean, its sd, sd, its sd, on a 0..255 scale.
    """

    index: NDArray[np.int64]
    target: NDArray[np.int64]
    intensity_class: NDArray[np.int64]
    t1: NDArray[np.float32]


def read_label_rows(path: Path) -> LabelRows:
    """Read the tab-separated label table that lies beside the label maps."""
    with open(path, newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    column = {key: np.array([int(row[key]) for row in rows]) for key in ("index", "target", "intensity_class")}
    t1 = np.array([[float(row[key]) for key in ("t1_mean", "t1_mean_sd", "t1_sd", "t1_sd_sd")] for row in rows])
    return LabelRows(**column, t1=t1.astype(np.float32))


def structure_centroids(targets: NDArray[np.int64], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centroids of the structures in world mm, (len(STRUCTURES), 3)."""
    voxels = np.array(ndimage.center_of_mass(targets > 0, targets, STRUCTURES))
    return voxels @ affine[:3, :3].T + affine[:3, 3]


def least_squares_affine(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Affine (4, 4) that maps the source points (N, 3) nearest to the target points (N, 3)."""
    design = np.c_[source, np.ones(len(source))]
    solution, *_ = np.linalg.lstsq(design, target, rcond=None)
    matrix = np.eye(4)
    matrix[:3] = solution.T
    return matrix


def rigid_alignment(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Source points rotated and shifted (Kabsch) onto the target points, (N, 3)."""
    a, b = source - source.mean(0), target - target.mean(0)
    u, _, vt = np.linalg.svd(a.T @ b)
    correction = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    return a @ (u @ correction @ vt) + target.mean(0)


def mirror(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Structure centroids of the mirrored head: x negated, left and right exchanged."""
    swap = dict(zip(LEFT + RIGHT, RIGHT + LEFT, strict=True))
    order = [STRUCTURES.index(swap.get(number, number)) for number in STRUCTURES]
    return points[order] * [-1, 1, 1]


def mean_centroids(centroids: list[NDArray[np.float64]], rounds: int = 5) -> NDArray[np.float64]:
    """Symmetric mean of the heads' centroids at their mean size and mean pose (generalised Procrustes, no scaling)."""
    centred = [points - points.mean(0) for points in centroids]
    everyone = centred + [mirror(points) for points in centred]
    mean = np.mean(everyone, axis=0)
    for _ in range(rounds):
        mean = np.mean([rigid_alignment(points, mean) for points in everyone], axis=0)
    return mean


@dataclass(frozen=True)
class PackedHead:
    """One label map, cropped to the head.

    Attributes
    ----------
    labels, regions
        (X, Y, Z) uint8, see the module's docstring.
    affine
        Voxel to world mm.
    centroids
        (structures, 3) world mm.
    """

    labels: NDArray[np.uint8]
    regions: NDArray[np.uint8]
    affine: NDArray[np.float64]
    centroids: NDArray[np.float64]


def read_canonical(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels (X, Y, Z) of a volume in RAS order, and its affine."""
    import nibabel as nib

    image = nib.as_closest_canonical(nib.Nifti1Image.from_filename(path))
    return np.asarray(image.dataobj).astype(np.int64), image.affine


def pack_head(path: Path, rows: LabelRows, source: LabelledTemplate | Path) -> PackedHead:
    """Read, crop and pack one label map; `source` of its regions is a template, or the folder with them."""
    labels, original_affine = read_canonical(path)
    lookup = np.zeros(int(rows.index.max()) + 1, dtype=np.int64)
    lookup[rows.index] = np.arange(len(rows.index))
    row = lookup[labels]
    box = tuple(slice(max(s.start - 3, 0), s.stop + 3) for s in ndimage.find_objects((labels > 0).astype(int))[0])
    row, labels = row[box], labels[box]
    affine = original_affine.copy()
    affine[:3, 3] = original_affine[:3, :3] @ [s.start for s in box] + original_affine[:3, 3]
    targets = rows.target[row]
    anatomy = (targets > 0) | np.isin(labels, BRAIN_EXTRAS)
    spacing = voxel_sizes(affine)
    brain = solid_mask(anatomy, spacing)
    intracranial = solid_mask(brain | (labels == CSF_LABEL), spacing)
    packed = row.astype(np.uint8) | (brain * np.uint8(BRAIN_BIT)) | (intracranial * np.uint8(INTRACRANIAL_BIT))
    centroids = structure_centroids(targets, affine)
    if isinstance(source, Path):
        regions = read_canonical(source / path.name.replace("_dseg", "_regions"))[0][box].astype(np.uint8)
    else:
        regions = propagate(source, least_squares_affine(source.centroids, centroids), targets, affine)
    return PackedHead(packed, regions, affine, centroids)


def pack(label_maps: list[Path], table: Path, source: LabelledTemplate | Path, output: Path) -> None:
    """Pack the label maps into one compressed file; `source` of the regions as in `pack_head`."""
    rows = read_label_rows(table)
    heads = []
    for path in label_maps:
        heads.append(pack_head(path, rows, source))
        print(f"packed {path.name} {heads[-1].labels.shape}", flush=True)
    mean = mean_centroids([head.centroids for head in heads])
    arrays: dict[str, NDArray] = {
        "index": rows.index, "target": rows.target, "intensity_class": rows.intensity_class, "t1": rows.t1,
        "names": np.array([path.name.split("_")[0] for path in label_maps]),
    }  # fmt: skip
    fits = [least_squares_affine(head.centroids, mean) for head in heads]
    shift = _centre_of_brains(heads, fits)
    arrays["centroids"] = mean - shift
    for i, (head, fit) in enumerate(zip(heads, fits, strict=True)):
        fit[:3, 3] -= shift
        arrays |= {f"labels_{i}": head.labels, f"regions_{i}": head.regions}
        arrays |= {f"affine_{i}": head.affine, f"frame_from_head_{i}": fit}
    output.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(output, allow_pickle=False, **arrays)


def _centre_of_brains(heads: list[PackedHead], fits: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Centre of the mean bounding box of the brains after alignment, with x = 0 kept as the plane of symmetry."""
    boxes = []
    for head, fit in zip(heads, fits, strict=True):
        voxels = np.argwhere((head.labels & BRAIN_BIT) > 0)[::50]
        world_from_voxel = fit @ head.affine
        points = voxels @ world_from_voxel[:3, :3].T + world_from_voxel[:3, 3]
        boxes.append([points.min(0), points.max(0)])
    low, high = np.mean(boxes, axis=0)
    print("mean brain box in the frame, mm:", low.round(1), high.round(1))
    return (low + high) / 2 * [0, 1, 1]


def main() -> None:
    """Command line of the packer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("label_maps", type=Path, help="folder with *_dseg.nii.gz and labels.tsv")
    parser.add_argument("output", type=Path)
    regions = parser.add_mutually_exclusive_group(required=True)
    regions.add_argument("--regions", type=Path, help="folder made by training.deformable")
    regions.add_argument("--aparc", type=Path, help="aparc+aseg labels of a template, to be brought by an affine alone")
    args = parser.parse_args()
    source = args.regions or LabelledTemplate.from_labels(*read_canonical(args.aparc))
    pack(sorted(args.label_maps.glob("*_dseg.nii.gz")), args.label_maps / "labels.tsv", source, args.output)


if __name__ == "__main__":
    main()
