"""Slices: the sides, the sizes and the colours are right, whatever the orientation in the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Image
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

from unibrain_bids.labels import LabelTable
from unibrain_bids.reports.figures import colors_of
from unibrain_bids.reports.slices import choose_cuts, contour, diverging, grey, load_volume, overlay


@pytest.fixture(params=["RAS", "LPI", "ASR"])
def marked(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A box with a bright left, a brighter front and the brightest top; voxels of 1, 2 and 3 mm."""
    data = np.zeros((60, 30, 20), np.int16)
    data[6:54, 4:26, 3:17] = 1
    data[6:16, 4:26, 3:17] = 2
    data[6:54, 20:26, 3:17] = 3
    data[6:54, 4:26, 13:17] = 4
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(request.param))
    image = Nifti1Image(apply_orientation(data, turn), affine @ inv_ornt_aff(turn, data.shape))
    image.to_filename(tmp_path / "box.nii.gz")
    return tmp_path / "box.nii.gz"


def test_left_is_left_and_up_is_up(marked: Path) -> None:
    volume = load_volume(marked)
    cuts = choose_cuts(volume, per_axis=3)
    axial, coronal, sagittal = (cuts[i].plane(volume.data, smooth=False) for i in (1, 4, 7))
    middle = axial.shape[0] // 2
    assert axial[middle, axial.shape[1] // 4] == 2 and axial[middle, -axial.shape[1] // 4] == 1
    assert axial[axial.shape[0] // 4, axial.shape[1] // 2] == 3
    assert coronal[coronal.shape[0] // 4, coronal.shape[1] // 2] == 4
    assert sagittal[sagittal.shape[0] // 2, -sagittal.shape[1] // 4] == 3


def test_pixels_are_square(marked: Path) -> None:
    volume = load_volume(marked)
    for cut in choose_cuts(volume, per_axis=1):
        shown = cut.plane(volume.data > 0, smooth=False) > 0
        height, width = (int(shown.any(axis=axis).sum()) for axis in (1, 0))
        across, up = (extent for axis, extent in enumerate((48, 44, 42)) if axis != cut.axis)
        assert width / height == pytest.approx(across / up, rel=0.1)


def test_an_empty_mask_cannot_be_cut(marked: Path) -> None:
    volume = load_volume(marked)
    volume.data[:] = 0
    with pytest.raises(ValueError, match="empty"):
        choose_cuts(volume)


def test_contours_stay_within_the_region() -> None:
    inside = np.zeros((20, 20), np.float32)
    inside[5:15, 5:15] = 1
    picture = contour(np.zeros((20, 20, 3), np.uint8), inside, (255, 0, 0))
    drawn = picture[..., 0] > 0
    assert drawn[5, 5] and drawn[6, 10] and not drawn[10, 10] and not drawn[inside == 0].any()


def test_colours() -> None:
    plane = np.array([[-1.0, 0.0, 1.0, 2.0]], np.float32)
    assert grey(plane, top=1.0)[0, :, 0].tolist() == [0, 0, 255, 255]
    blue, dark, orange, beyond = diverging(plane, reach=1.0)[0].astype(int)
    assert blue[2] > blue[0] and orange[0] > orange[2] and dark.sum() == 0 and (beyond == orange).all()
    black = np.zeros((1, 3, 3), np.uint8)
    labels = np.array([[0, 7, 9]], np.float32)
    assert overlay(black, labels, {7: (200, 100, 0)}, alpha=0.5)[0].tolist() == [[0, 0, 0], [100, 50, 0], [0, 0, 0]]
    assert colors_of(LabelTable.load("aseg"))[2] == (0xF5, 0xF5, 0xF5)
