"""Cortical regions for label maps that have none, by deformable registration of their labels to a labelled template.

    python -m unibrain_bids.training.deformable LABELMAPS_DIR REGIONS_DIR --aparc TEMPLATE_APARC_ASEG.nii.gz

No intensity is looked at. Head and template are each described by distances from two surfaces (white matter and pial)
and by their deep structures; ANTs' SyN brings these together at 2.5 mm after the least-squares affine between structure
centroids. Every cortex voxel then takes the regions voted for by the nearest template cortex voxels of its own
hemisphere that face the same way: the direction keeps the two banks of a sulcus apart. Regions are saved as
`<head>_regions.nii.gz` (1..35, FreeSurfer's numbers less 1000 or 2000), which the packer takes.

ANTsPy is needed, in any environment; torch is not.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from unibrain_bids.labels import LabelTable

SPACING = 2.5
MARGIN_MM = 8.0
# FreeSurfer numbers: cortex of each hemisphere and the base of its regions; regions that are no cortex.
CORTEX = {3: 1000, 42: 2000}
UNKNOWN = (1000, 2000, 1004, 2004)
_CEREBELLUM_AND_STEM = (7, 8, 15, 16, 46, 47)
_CLIP_MM = 6.0
# Levels of the channel that tells deep structures apart; neighbours get levels that differ.
_DEEP_LEVELS = {
    (4, 5, 14, 43, 44): -1.0, (10, 49): 0.4, (28, 60): 0.8, (11, 50, 26, 58): 0.6, (12, 51): 0.9, (13, 52): 0.5,
    (17, 53): 1.0, (18, 54): 0.6, _CEREBELLUM_AND_STEM: -0.6,
}  # fmt: skip
_ITERATIONS = (70, 50, 20)
# One unit of direction counts as much as this distance, in mm.
_DIRECTION_MM = 4.0
_VOTERS = 7
_SMOOTHING_ROUNDS = 4


@dataclass(frozen=True)
class Labelled:
    """A brain given by its labels: structures (X, Y, Z) with FreeSurfer numbers, voxel-to-RAS-mm affine."""

    structures: NDArray[np.int64]
    affine: NDArray[np.float64]

    def centroids(self) -> NDArray[np.float64]:
        """Centres of the structures of the table "aseg", (structures, 3) in mm."""
        voxels = ndimage.center_of_mass(self.structures > 0, self.structures, LabelTable.load("aseg").indices)
        return np.array(voxels) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def cropped(self) -> Labelled:
        """The part of the volume that holds labels, with a margin."""
        margin = np.ceil(2 * MARGIN_MM / np.linalg.norm(self.affine[:3, :3], axis=0)).astype(int)
        box = ndimage.find_objects((self.structures > 0).astype(np.uint8))[0]
        start = np.maximum([s.start for s in box] - margin, 0)
        inside = tuple(slice(a, s.stop + m) for a, s, m in zip(start, box, margin, strict=True))
        affine = self.affine.copy()
        affine[:3, 3] = self.affine[:3, :3] @ start + self.affine[:3, 3]
        return Labelled(self.structures[inside], affine)

    def world(self, voxels: NDArray[np.integer]) -> NDArray[np.float64]:
        """Positions in mm of voxels (N, 3)."""
        return voxels @ self.affine[:3, :3].T + self.affine[:3, 3]


@dataclass(frozen=True)
class Grid:
    """The grid of the registration: RAS, isotropic, in the template's world."""

    origin: NDArray[np.float64]
    shape: tuple[int, ...]

    @classmethod
    def around(cls, template: Labelled) -> Grid:
        """Enclose the template's structures with a margin."""
        points = template.world(np.argwhere(template.structures > 0)[::20])
        low, high = points.min(0) - MARGIN_MM, points.max(0) + MARGIN_MM
        return cls(low, tuple(np.ceil((high - low) / SPACING).astype(int).tolist()))

    def points(self) -> NDArray[np.float64]:
        """Positions (voxels, 3) in mm, in C order."""
        return np.indices(self.shape).reshape(3, -1).T * SPACING + self.origin

    def read(self, volume: NDArray[np.floating], points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Trilinear values (N,) of a volume on this grid at points (N, 3) in mm."""
        values: NDArray[np.float64] = ndimage.map_coordinates(
            volume, (points - self.origin).T / SPACING, order=1, mode="nearest"
        )
        return values


@dataclass(frozen=True)
class Description:
    """What is registered, on the registration's grid: distances from two surfaces in mm, levels of deep structures."""

    white: NDArray[np.float32]
    pial: NDArray[np.float32]
    deep: NDArray[np.float32]

    @property
    def direction(self) -> NDArray[np.float64]:
        """Unit normals (3, X, Y, Z) of the level sets of the distance from white matter."""
        normals = np.stack(np.gradient(ndimage.gaussian_filter(self.white.astype(np.float64), 0.7)))
        return normals / np.maximum(np.linalg.norm(normals, axis=0), 1e-6)


def describe(brain: Labelled, grid: Grid, brain_from_grid: NDArray[np.float64]) -> Description:
    """Describe a brain on the grid; `brain_from_grid` (4, 4) maps the grid's world to the brain's, in mm."""
    brain = brain.cropped()
    labels = brain.structures
    spacing = np.linalg.norm(brain.affine[:3, :3], axis=0)
    cerebrum = (labels > 0) & ~np.isin(labels, _CEREBELLUM_AND_STEM)
    deep = np.zeros(labels.shape, dtype=np.float32)
    for numbers, level in _DEEP_LEVELS.items():
        deep[np.isin(labels, numbers)] = level
    matrix = np.linalg.inv(brain.affine) @ brain_from_grid
    voxels = (grid.points() @ matrix[:3, :3].T + matrix[:3, 3]).T

    def read(volume: NDArray[Any], outside: float) -> NDArray[np.float32]:
        values = ndimage.map_coordinates(volume, voxels, order=1, mode="constant", cval=outside)
        return values.reshape(grid.shape).astype(np.float32)

    return Description(
        white=read(_signed_distance(cerebrum & ~np.isin(labels, list(CORTEX)), spacing), _CLIP_MM),
        pial=read(_signed_distance(cerebrum, spacing), _CLIP_MM),
        deep=read(ndimage.gaussian_filter(deep, 1.0 / spacing), 0.0),
    )


def _signed_distance(mask: NDArray[np.bool_], spacing: NDArray[np.float64]) -> NDArray[np.float32]:
    """Distance in mm from a mask's surface, negative inside, clipped and smoothed by a millimetre."""
    distance = ndimage.distance_transform_edt(~mask, spacing) - ndimage.distance_transform_edt(mask, spacing)
    clipped = np.clip(distance, -_CLIP_MM, _CLIP_MM).astype(np.float32)
    smooth: NDArray[np.float32] = ndimage.gaussian_filter(clipped, 1.0 / spacing)
    return smooth


def displacement(head: Description, template: Description, grid: Grid) -> NDArray[np.float64]:
    """Displacement (3, X, Y, Z) in RAS mm that leads from a point of the aligned head to its place in the template."""
    import ants

    def image(array: NDArray[np.float32]) -> Any:
        return ants.from_numpy(
            np.ascontiguousarray(array), origin=(-grid.origin[0], -grid.origin[1], grid.origin[2]),
            spacing=(SPACING,) * 3, direction=np.diag([-1.0, -1.0, 1.0]),
        )  # fmt: skip

    # A millimetre of distance and a step of a fifth between deep structures weigh alike.
    extras = [
        ("MeanSquares", image(head.pial), image(template.pial), 0.7, 0),
        ("MeanSquares", image(5 * head.deep), image(5 * template.deep), 1.0, 0),
    ]
    found = ants.registration(
        image(head.white), image(template.white), type_of_transform="SyNOnly", initial_transform="Identity",
        syn_metric="meansquares", reg_iterations=_ITERATIONS, multivariate_extras=extras, flow_sigma=2.5, total_sigma=0,
        grad_step=0.25,
    )  # fmt: skip
    field = ants.image_read(found["fwdtransforms"][0]).numpy()
    for path in {*found["fwdtransforms"], *found["invtransforms"]}:
        Path(path).unlink(missing_ok=True)
    return np.moveaxis(field, -1, 0).astype(np.float64) * np.array([-1, -1, 1])[:, None, None, None]


class DeformableTemplate:
    """A template with FreeSurfer's aparc+aseg labels, ready to be registered to heads."""

    def __init__(self, labels: NDArray[np.int64], affine: NDArray[np.float64]) -> None:
        """Take an aparc+aseg volume (X, Y, Z) and its voxel-to-RAS-mm affine."""
        structures = labels.copy()
        for label, base in CORTEX.items():
            structures[(labels >= base) & (labels < base + 36)] = label
        structures[~np.isin(structures, LabelTable.load("aseg").indices)] = 0
        # The corpus callosum is white matter of both sides; the side of its voxels doesn't matter here.
        structures[(labels >= 251) & (labels <= 255)] = 2
        self.brain = Labelled(structures, affine)
        self.centroids = self.brain.centroids()
        self.grid = Grid.around(self.brain)
        self.description = describe(self.brain, self.grid, np.eye(4))
        self._cortex = {}
        direction = self.description.direction
        for label, base in CORTEX.items():
            voxels = np.argwhere((structures == label) & ~np.isin(labels, UNKNOWN))
            points = self.brain.world(voxels)
            regions = (labels[tuple(voxels.T)] - base).astype(np.uint8)
            self._cortex[label] = (cKDTree(self._place(points, points, direction)), regions)

    def _place(
        self, points: NDArray[np.float64], at: NDArray[np.float64], direction: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Points and the directions read `at` their places of origin: (N, 6)."""
        facing = np.stack([self.grid.read(axis, at) for axis in direction], axis=1)
        return np.c_[points, _DIRECTION_MM * facing]

    def propagate(self, head: Labelled) -> NDArray[np.uint8]:
        """Regions 1..35 of every cortex voxel of a head, (X, Y, Z), 0 elsewhere."""
        head_from_template = _least_squares(self.centroids, head.centroids())
        described = describe(head, self.grid, head_from_template)
        field = displacement(described, self.description, self.grid)
        direction, template_from_head = described.direction, np.linalg.inv(head_from_template)
        regions = np.zeros(head.structures.shape, dtype=np.uint8)
        for label, (tree, names) in self._cortex.items():
            voxels = np.argwhere(head.structures == label)
            aligned = head.world(voxels) @ template_from_head[:3, :3].T + template_from_head[:3, 3]
            moved = aligned + np.stack([self.grid.read(axis, aligned) for axis in field], axis=1)
            voters = names[tree.query(self._place(moved, aligned, direction), k=_VOTERS)[1]]
            regions[tuple(voxels.T)] = _majority(voters)
            regions[tuple(voxels.T)] = _smoothed(regions, voxels)
        return regions


def _least_squares(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Affine (4, 4) that maps the points (N, 3) nearest to the target points; points that are NaN are left out."""
    known = np.isfinite(source).all(1) & np.isfinite(target).all(1)
    design = np.c_[source[known], np.ones(known.sum())]
    matrix = np.eye(4)
    matrix[:3] = np.linalg.lstsq(design, target[known], rcond=None)[0].T
    return matrix


def _majority(votes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The commonest value of each row (N, K); the smallest one where several are."""
    counts = np.zeros((len(votes), 36), dtype=np.uint8)
    for column in votes.T:
        counts[np.arange(len(votes)), column] += 1
    return counts.argmax(1).astype(np.uint8)


def _smoothed(regions: NDArray[np.uint8], voxels: NDArray[np.intp]) -> NDArray[np.uint8]:
    """Regions (N,) of one hemisphere's cortex voxels (N, 3) after rounds of majority votes among neighbours."""
    tree = cKDTree(voxels)
    neighbours = tree.query(voxels, k=19, distance_upper_bound=2.3)[1]
    values = np.append(regions[tuple(voxels.T)], np.uint8(0))
    for _ in range(_SMOOTHING_ROUNDS):
        votes = values[neighbours]
        counts = np.zeros((len(votes), 36), dtype=np.uint8)
        for column in votes.T:
            counts[np.arange(len(votes)), column] += 1
        counts[:, 0] = 0  # no neighbour
        values[:-1] = counts.argmax(1)
    return values[:-1]


def propagate_all(label_maps: Sequence[Path], targets: dict[int, int], aparc: Path, output: Path) -> None:
    """Write `<head>_regions.nii.gz` for each label map; `targets` maps their labels to structures."""
    import nibabel as nib

    image = nib.Nifti1Image.from_filename(aparc)
    template = DeformableTemplate(np.asarray(image.dataobj).astype(np.int64), image.affine)
    lookup = np.zeros(max(targets) + 1, dtype=np.int64)
    lookup[list(targets)] = list(targets.values())
    output.mkdir(parents=True, exist_ok=True)
    for path in label_maps:
        target = output / f"{path.name.split('_')[0]}_regions.nii.gz"
        if target.exists():
            continue
        image = nib.Nifti1Image.from_filename(path)
        head = Labelled(lookup[np.asarray(image.dataobj).astype(np.int64)], image.affine)
        regions = template.propagate(head)
        nib.Nifti1Image(regions, image.affine).to_filename(target)
        print(f"{target.name}: {np.unique(regions[regions > 0]).size} regions", flush=True)


def main() -> None:
    """Command line."""
    import csv

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("label_maps", type=Path, help="folder with *_dseg.nii.gz and labels.tsv")
    parser.add_argument("output", type=Path, help="folder for the regions; heads that are there are left alone")
    parser.add_argument("--aparc", type=Path, required=True, help="aparc+aseg labels of a template")
    args = parser.parse_args()
    with open(args.label_maps / "labels.tsv", newline="") as stream:
        targets = {int(row["index"]): int(row["target"]) for row in csv.DictReader(stream, delimiter="\t")}
    propagate_all(sorted(args.label_maps.glob("*_dseg.nii.gz")), targets, args.aparc, args.output)


if __name__ == "__main__":
    main()
