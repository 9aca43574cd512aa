"""The head simulator: a label map becomes a scan with its exact truth (after SynthSeg's generator)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from unibrain_bids.model import aligner, frame
from unibrain_bids.model.intensity import unit_divisor
from unibrain_bids.model.places import fit_places
from unibrain_bids.model.spatial import SUBVOXEL
from unibrain_bids.training.simulation import appearance, geometry
from unibrain_bids.training.simulation.material import Head, Material, is_brain, is_intracranial, row_of

# White matter of the normalised brain stands here on the 0..1 scale (FreeSurfer's 110 of 255).
WHITE_MATTER_LEVEL = 110 / 255
_WHITE_MATTER, _LATERAL_VENTRICLES, _CORTEX = (2, 41), (4, 43), 3


@dataclass(frozen=True)
class SimulationRange:
    """What is drawn, and on which grid.

    Attributes
    ----------
    shape, spacing
        The scan's grid, centred on the origin; spacing in mm.
    pose
        How far the head stands from the population frame.
    t1_fraction
        Part of the scans drawn from the T1 priors; the rest has any contrast.
    bias
        Largest standard deviation of the logarithm of the bias field.
    missing_parts
        Whether some scans are stripped, defaced or cropped.
    large_voxels
        Whether some scans have thick slices or larger voxels than the grid's.
    lesions
        Part of the scans that have lesions of the white matter (`appearance.add_lesions`).
    """

    shape: tuple[int, int, int]
    spacing: float
    pose: geometry.PoseRange
    t1_fraction: float = 0.75
    bias: float = 0.5
    missing_parts: bool = True
    large_voxels: bool = True
    lesions: float = 0.0


# T1-like heads first: other contrasts join when these are learnt (docs/training-log.md).
FIRST_LOOK = SimulationRange((32, 32, 32), 8.0, geometry.PoseRange(15.0, 30.0, 0.15, 0.02), t1_fraction=1.0)
SECOND_LOOK = SimulationRange(
    aligner.SHAPE, aligner.SPACING, geometry.PoseRange(12.0, 9.0, 0.12, 0.03), t1_fraction=1.0, bias=0.3
)
ALIGNED = SimulationRange(
    frame.SHAPE, frame.SPACING, geometry.PoseRange(4.0, 3.5, 0.06, 0.02), t1_fraction=0.85, bias=0.4
)


@dataclass(frozen=True)
class SimulatedHead:
    """A scan and its truth; volumes are (1, 1, X, Y, Z) unless said otherwise.

    Attributes
    ----------
    image
        The scan on the 0..1 scale.
    structures
        (1, X, Y, Z) int64, output channel at each voxel's centre (0: no structure).
    parts
        (1, 4, X, Y, Z) uint8, the same at four places within each voxel (`spatial.SUBVOXEL`): its partial volumes.
    regions
        (1, X, Y, Z) int64, cortical region 1..35 whichever the side, 0 outside the cortex.
    brain, intracranial
        Masks, float 0/1, at the centres.
    brain_share, intracranial_share
        Part of the four places that lie inside, 0..1.
    normalised
        The stripped, bias-free brain, white matter at `WHITE_MATTER_LEVEL` (T1-like scans).
    log_gain
        Logarithm of the exact multiplier without the stripping: normalised = brain * exp(log_gain) * image.
    frame_from_grid
        (1, 4, 4): grid mm to population frame mm, the affine that fits the deformed brain best.
    t1_like
        Whether the contrast was drawn from the T1 priors.
    subject
        Index of the head in the material, plus their number when it was mirrored.
    """

    image: torch.Tensor
    structures: torch.Tensor
    parts: torch.Tensor
    regions: torch.Tensor
    brain: torch.Tensor
    intracranial: torch.Tensor
    brain_share: torch.Tensor
    intracranial_share: torch.Tensor
    normalised: torch.Tensor
    log_gain: torch.Tensor
    frame_from_grid: torch.Tensor
    t1_like: bool
    subject: int


def simulate(
    material: Material,
    span: SimulationRange,
    seed: int,
    head: int | None = None,
    *,
    anatomy: int | None = None,
    bulge: float | None = None,
) -> SimulatedHead:
    """Simulate one scan; the same seed gives the same scan on the same kind of device.

    Parameters
    ----------
    material
        Label maps, on the device that shall simulate.
    span
        What is drawn and on which grid.
    seed
        Of every random decision.
    head
        Which label map; drawn when None.
    anatomy
        Seed of the person (label map, deformation, side): the same person is then scanned under any `seed`.
    bulge
        Relative enlargement around the ventricles, instead of a drawn one: what two groups may differ in.
    """
    device = material.t1.device
    generator = torch.Generator().manual_seed(seed)
    device_generator = torch.Generator(device).manual_seed(seed)
    person = _draw_person(material, span, generator, head=head, anatomy=anatomy, bulge=bulge)
    tissues = appearance.draw_tissues(material, generator, span.t1_fraction)
    labels = _labels_within(person, span.spacing)
    clean = _clean_image(person, labels, material, tissues, span, generator, device_generator)

    brain = is_brain(person.labels).float()[None, None]
    log_bias = appearance.draw_log_bias(span.shape, generator, device, span.bias)
    image = appearance.add_noise(clean * torch.exp(log_bias), generator, device_generator)
    if span.missing_parts:
        image = appearance.remove_parts(image, brain, person.frame_points, generator)
    # The brightest voxels, which set the scale, are fat or vessels whose brightness no label knows.
    divisor = unit_divisor(image) * (0.95 + 0.6 * float(torch.rand((), generator=generator)) ** 2)
    image = (image / divisor).clamp(0, 1)

    channels = material.channel[row_of(person.labels)]
    level = _white_matter_level(clean, channels) if tissues.t1_like else 1.6 * float(clean[brain > 0].mean())
    log_gain = torch.log(torch.tensor(WHITE_MATTER_LEVEL * divisor / max(level, 1e-3), device=device)) - log_bias
    parts = material.channel[row_of(labels)]
    if person.shape.flip:
        mirrored = torch.tensor(frame.flip_permutation(), device=device)
        channels, parts = mirrored[channels], mirrored[parts]
    return SimulatedHead(
        image=image,
        structures=channels[None],
        parts=parts.byte()[None],
        regions=person.regions.long()[None],
        brain=brain,
        intracranial=is_intracranial(person.labels).float()[None, None],
        brain_share=is_brain(labels).float().mean(0)[None, None],
        intracranial_share=is_intracranial(labels).float().mean(0)[None, None],
        normalised=brain * torch.exp(log_gain) * image,
        log_gain=log_gain,
        frame_from_grid=best_affine(brain, person.places, person.grid_points)[None],
        t1_like=tissues.t1_like,
        subject=person.subject + len(material.heads) * int(person.shape.flip),
    )


def best_affine(brain: torch.Tensor, places: torch.Tensor, grid_points: torch.Tensor) -> torch.Tensor:
    """Least-squares affine (4, 4) from grid mm to the anatomy's places in the frame, over the brain's voxels.

    The pose alone would not do as truth: a smooth deformation shifts, turns and stretches the brain as well.
    """
    every = (slice(None, None, 3),) * 3
    if not brain[0, 0][every].any():
        return torch.eye(4, device=brain.device)
    fitted = fit_places(brain[0, 0][every], places[every].permute(3, 0, 1, 2), grid_points[every])
    return fitted.float()


@dataclass(frozen=True)
class _Person:
    """Who lies in the scanner, and how.

    Attributes
    ----------
    subject, head
        Which label map: its index, and the map itself.
    shape
        Pose, deformation and side.
    grid_points, frame_points, places
        (X, Y, Z, 3) of each voxel in mm: in the grid, in the frame, and in the frame before the deformation.
    labels, regions
        (X, Y, Z) uint8 there, as in `Head`.
    """

    subject: int
    head: Head
    shape: geometry.Geometry
    grid_points: torch.Tensor
    frame_points: torch.Tensor
    places: torch.Tensor
    labels: torch.Tensor
    regions: torch.Tensor


def _draw_person(
    material: Material,
    span: SimulationRange,
    generator: torch.Generator,
    *,
    head: int | None,
    anatomy: int | None,
    bulge: float | None,
) -> _Person:
    """Draw label map and geometry, and look up what lies at each voxel; the options are those of `simulate`."""
    device = material.t1.device
    drawn = int(torch.randint(len(material.heads), (), generator=generator))
    subject = drawn if head is None else head
    shape = geometry.draw_geometry(span.pose, generator, device)
    if anatomy is not None:
        own = torch.Generator().manual_seed(anatomy)
        subject = int(torch.randint(len(material.heads), (), generator=own))
        shape = replace(geometry.draw_geometry(span.pose, own, device), frame_from_grid=shape.frame_from_grid)
    if bulge is not None:
        shape = replace(shape, bulge=bulge)
    grid_points = frame.points(span.shape, span.spacing, device)
    frame_points = grid_points @ shape.frame_from_grid[:3, :3].T + shape.frame_from_grid[:3, 3]
    places = frame_points + geometry.displacement(shape, frame_points, _ventricle_centre(material))
    source = material.heads[subject]
    labels, regions = geometry.look_up(source, shape, places, source.labels, source.regions)
    return _Person(subject, source, shape, grid_points, frame_points, places, labels, regions)


def _labels_within(person: _Person, spacing: float) -> torch.Tensor:
    """Packed labels at four places within each voxel, (4, X, Y, Z) uint8."""
    linear, places = person.shape.frame_from_grid[:3, :3], person.places
    steps = [linear @ (spacing * torch.tensor(offset, device=places.device)) for offset in SUBVOXEL]
    return torch.cat(
        [geometry.look_up(person.head, person.shape, places + s, person.head.labels)[0][None] for s in steps]
    )


def _clean_image(
    person: _Person,
    labels: torch.Tensor,
    material: Material,
    tissues: appearance.Tissues,
    span: SimulationRange,
    generator: torch.Generator,
    device_generator: torch.Generator,
) -> torch.Tensor:
    """The image (1, 1, X, Y, Z) without bias field and noise of the scanner: tissues, their texture, resolution."""
    clean = torch.stack([tissues.mean[row_of(part)] for part in labels]).mean(0)[None, None]
    # Nothing is drawn where no lesions are asked for: seeds mean the same scans there as ever.
    if span.lesions and float(torch.rand((), generator=generator)) < span.lesions:
        clean = _with_lesions(clean, material.index[row_of(labels)], material, tissues, span.spacing, generator)
    spread = tissues.sd[row_of(person.labels)][None, None]
    clean = clean + spread * appearance.texture(clean, generator, device_generator)
    clean = appearance.change_contrast(clean, generator)
    return appearance.lower_resolution(clean, span.spacing, generator, large_voxels=span.large_voxels)


def _with_lesions(
    clean: torch.Tensor,
    numbers: torch.Tensor,
    material: Material,
    tissues: appearance.Tissues,
    spacing: float,
    generator: torch.Generator,
) -> torch.Tensor:
    """`appearance.add_lesions`, from the label numbers (4, X, Y, Z) at four places within each voxel."""
    white, ventricles = (
        torch.isin(numbers, torch.tensor(sides, device=numbers.device)).float().mean(0)[None, None]
        for sides in (_WHITE_MATTER, _LATERAL_VENTRICLES)
    )
    level = {number: float(tissues.mean[material.index == number].mean()) for number in (_WHITE_MATTER[0], _CORTEX)}
    levels = level[_WHITE_MATTER[0]], level[_CORTEX]
    return appearance.add_lesions(clean, white, ventricles, levels, spacing, generator)


def _white_matter_level(clean: torch.Tensor, channels: torch.Tensor) -> float:
    """Median intensity of the cerebral white matter."""
    white = (channels == frame.STRUCTURES.index(2) + 1) | (channels == frame.STRUCTURES.index(41) + 1)
    values = clean[0, 0][white]
    return float(values[:: max(values.numel() // 20000, 1)].median()) if values.numel() else 1.0


def _ventricle_centre(material: Material) -> torch.Tensor:
    sides = [frame.STRUCTURES.index(4), frame.STRUCTURES.index(43)]
    return material.centroids[sides].mean(0)
