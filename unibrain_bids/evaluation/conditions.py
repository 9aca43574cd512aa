"""What can be wrong with a scan: a labelled head, spoilt in one way, with its truth on the new grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from unibrain_bids.evaluation.heads import LabelledHead

Condition = Callable[[LabelledHead], LabelledHead]
_SEED = 0


def turned(head: LabelledHead, *, degrees: tuple[float, float, float]) -> LabelledHead:
    """The head turned about the world's x, y and z axes: voxels stay, the affine changes."""
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    return replace(head, affine=turn @ head.affine)


def shifted(head: LabelledHead, *, millimetres: float) -> LabelledHead:
    """The head far from the centre of a larger field of view, along the second axis."""
    return _padded(head, axis=1, before=round(2 * millimetres / head.spacing[1]))


def cropped(head: LabelledHead, *, above: float = 0.0, below: float = 0.0) -> LabelledHead:
    """The field of view ends so many mm below the brain's top, or above its lowest point, along the upward axis."""
    axis, upward = _upward_axis(head.affine)
    inside = np.flatnonzero(head.masks["solid"].any(axis=tuple(a for a in range(3) if a != axis)))
    cuts = [below, above] if upward else [above, below]
    steps = [round(cut / head.spacing[axis]) for cut in cuts]
    start = inside[0] + steps[0] if steps[0] else 0
    stop = inside[-1] + 1 - steps[1] if steps[1] else head.image.shape[axis]
    return _cut(head, axis, slice(start, stop))


def thick_slices(head: LabelledHead, *, millimetres: float) -> LabelledHead:
    """Slices this thick along the upward axis: means of the scan, middle slices of the truth."""
    axis, _ = _upward_axis(head.affine)
    count = max(round(millimetres / head.spacing[axis]), 1)
    whole = head.image.shape[axis] // count * count
    head = _cut(head, axis, slice(0, whole))
    shape = list(head.image.shape)
    shape[axis : axis + 1] = [whole // count, count]
    image = head.image.reshape(shape).mean(axis + 1)
    affine = head.affine.copy()
    affine[:3, 3] += (count - 1) / 2 * affine[:3, axis]
    affine[:3, axis] *= count
    middle = _slice(axis, slice(count // 2, whole, count))
    return replace(_truth_at(head, middle), image=image.astype(np.float32), affine=affine)


def noisy(head: LabelledHead, *, share: float) -> LabelledHead:
    """Rician noise, its standard deviation a share of the brain's mean intensity."""
    random = np.random.default_rng(_SEED)
    sigma = share * head.image[head.masks["solid"]].mean()
    real, imaginary = random.normal(scale=sigma, size=(2, *head.image.shape)).astype(np.float32)
    return replace(head, image=np.hypot(head.image + real, imaginary))


def shaded(head: LabelledHead, *, strength: float) -> LabelledHead:
    """A strong smooth bias field, log standard deviation `strength`."""
    random = np.random.default_rng(_SEED)
    coarse = ndimage.zoom(random.normal(size=(4, 4, 4)), 4, order=3)
    field = ndimage.zoom(coarse, np.array(head.image.shape) / np.array(coarse.shape), order=1)
    field = strength * field / field[head.masks["solid"]].std()
    return replace(head, image=(head.image * np.exp(field - field.mean())).astype(np.float32))


def moved(head: LabelledHead, *, millimetres: float) -> LabelledHead:
    """Ringing of a head that moved along the second axis during a third of the phase encoding."""
    axis = 1
    lines = np.fft.fftfreq(head.image.shape[axis])
    late = (np.abs(lines) > 0.08) & (np.abs(lines) < 0.24)
    phase = np.where(late, np.exp(-2j * np.pi * lines * millimetres / head.spacing[axis]), 1.0)
    spectrum = np.fft.fft(head.image, axis=axis) * phase.reshape(1, -1, 1)
    return replace(head, image=np.abs(np.fft.ifft(spectrum, axis=axis)).astype(np.float32))


def inverted(head: LabelledHead) -> LabelledHead:
    """Dark becomes bright within the head; the air stays dark."""
    bright = float(np.percentile(head.image[head.masks["solid"]], 99.5))
    return replace(head, image=np.where(_head(head), np.clip(1.1 * bright - head.image, 0, None), head.image))


def t2_like(head: LabelledHead) -> LabelledHead:
    """Intensities of a T2-weighted scan: fluid brightest, white matter darkest, fat and bone as they are."""
    inside = ndimage.binary_dilation(head.masks["icv"], iterations=max(round(2 / head.spacing.min()), 1))
    bright = float(np.percentile(head.image[head.masks["solid"]], 99.5))
    share = np.clip(head.image / bright, 0, 1)
    return replace(head, image=np.where(inside, bright * (1.05 - share) ** 1.5, 0.6 * head.image).astype(np.float32))


def defaced(head: LabelledHead) -> LabelledHead:
    """Zeros in front of and below a plane that spares the brain by 6 mm."""
    world = _world(head)
    normal = np.array([0.0, 0.8, -0.6])
    depth = world @ normal
    beyond = depth > depth[head.masks["solid"]].max() - 8
    near = ndimage.distance_transform_edt(~head.masks["solid"], sampling=head.spacing) < 6
    return replace(head, image=np.where(beyond & ~near, 0, head.image).astype(np.float32))


def stripped(head: LabelledHead) -> LabelledHead:
    """Only the brain and 2 mm around it."""
    near = ndimage.distance_transform_edt(~head.masks["solid"], sampling=head.spacing) < 2
    return replace(head, image=np.where(near, head.image, 0).astype(np.float32))


def stored_otherwise(head: LabelledHead) -> LabelledHead:
    """The same head in the same world, its axes permuted and two of them flipped in the file."""
    order = (2, 0, 1)
    move = np.zeros((4, 4))
    move[list(order), range(3)], move[3, 3] = 1, 1
    permuted = _mapped(head, lambda array: array.transpose(order))
    head = replace(permuted, affine=head.affine @ move)
    for axis in (0, 1):
        last = head.image.shape[axis] - 1
        mirror = np.eye(4)
        mirror[axis, axis], mirror[axis, 3] = -1, last
        head = replace(_mapped(head, partial(np.flip, axis=axis)), affine=head.affine @ mirror)
    return head


def smaller(head: LabelledHead, *, scale: float) -> LabelledHead:
    """A head of a child's size: the voxels shrink."""
    return replace(head, affine=np.diag([scale, scale, scale, 1.0]) @ head.affine)


CONDITIONS: Mapping[str, Condition] = {
    "as it is": lambda head: head,
    "rotated 45 deg about x": partial(turned, degrees=(45.0, 0.0, 0.0)),
    "rotated 45 deg about y": partial(turned, degrees=(0.0, 45.0, 0.0)),
    "rotated 30, 20, -30 deg": partial(turned, degrees=(30.0, 20.0, -30.0)),
    "shifted 80 mm": partial(shifted, millimetres=80.0),
    "crown cropped 15 mm": partial(cropped, above=15.0),
    "neck and 10 mm cropped": partial(cropped, below=10.0),
    "6 mm slices": partial(thick_slices, millimetres=6.0),
    "noise 12 %": partial(noisy, share=0.12),
    "bias sd 0.3": partial(shaded, strength=0.3),
    "motion ringing 4 mm": partial(moved, millimetres=4.0),
    "contrast inverted": inverted,
    "T2-like": t2_like,
    "defaced": defaced,
    "stripped": stripped,
    "stored otherwise": stored_otherwise,
    "child's size": partial(smaller, scale=0.85),
}


def _mapped(head: LabelledHead, change: Callable[[NDArray], NDArray]) -> LabelledHead:
    """Scan and truth through the same change of the array."""
    truth = _truth_at(head, change)
    return replace(truth, image=np.ascontiguousarray(change(head.image)))


def _truth_at(head: LabelledHead, change: Callable[[NDArray], NDArray]) -> LabelledHead:
    masks = {name: np.ascontiguousarray(change(mask)) for name, mask in head.masks.items()}
    structures, tissues = (np.ascontiguousarray(change(array)) for array in (head.structures, head.tissues))
    return replace(head, masks=masks, structures=structures, tissues=tissues, bias=None, clean=None)


def _slice(axis: int, part: slice) -> Callable[[NDArray], NDArray]:
    return lambda array: array[(slice(None),) * axis + (part,)]


def _cut(head: LabelledHead, axis: int, part: slice) -> LabelledHead:
    affine = head.affine.copy()
    affine[:3, 3] += (part.start or 0) * affine[:3, axis]
    return replace(_mapped(head, _slice(axis, part)), affine=affine)


def _padded(head: LabelledHead, *, axis: int, before: int) -> LabelledHead:
    width = [(0, 0)] * 3
    width[axis] = (before, 0)
    affine = head.affine.copy()
    affine[:3, 3] -= before * affine[:3, axis]
    return replace(_mapped(head, lambda array: np.pad(array, width)), affine=affine)


def _upward_axis(affine: NDArray[np.float64]) -> tuple[int, bool]:
    """The array axis nearest to the world's upward one, and whether it points up."""
    axis = int(np.abs(affine[2, :3]).argmax())
    return axis, bool(affine[2, axis] > 0)


def _head(head: LabelledHead) -> NDArray[np.bool_]:
    """Voxels of the head: everything that isn't dark, holes filled, and the brain."""
    bright = head.image > 0.1 * float(np.percentile(head.image[head.masks["solid"]], 95))
    return np.asarray(ndimage.binary_fill_holes(bright | head.masks["solid"]))


def _world(head: LabelledHead) -> NDArray[np.float64]:
    voxels = np.moveaxis(np.indices(head.image.shape), 0, -1)
    world: NDArray[np.float64] = voxels @ head.affine[:3, :3].T + head.affine[:3, 3]
    return world
