"""Every way in which a file can be bad, each with a real bad file, and every way in which it can be odd but good."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import from_matvec
from numpy.testing import assert_allclose

from unibrain_bids.errors import ExitCode, ScanError
from unibrain_bids.imaging.scan import load_scan

SHAPE = (32, 36, 40)
AFFINE = from_matvec(np.diag([-3.0, 3.0, 3.0]), [46, -50, -60])


def voxels(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 1000, size=shape).astype(np.int16)


def image(data: np.ndarray | None = None, affine: np.ndarray | None = AFFINE) -> nib.Nifti1Image:
    built = nib.Nifti1Image(voxels() if data is None else data, affine)
    built.header.set_xyzt_units("mm", "sec")
    if affine is not None:
        built.set_qform(affine, code=1)
        built.set_sform(affine, code=1)
    return built


def write_patched(path: Path, **fields: object) -> None:
    """Write the image with header fields that nibabel would mend on saving."""
    content = image().to_bytes()
    header = image().header.from_fileobj(BytesIO(content))
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(gzip.compress(header.binaryblock + content[348:]))


def missing(path: Path) -> None:
    pass


def folder(path: Path) -> None:
    path.mkdir()


def annex_link(path: Path) -> None:
    path.symlink_to("../.git/annex/objects/Xx/Yy/SHA256E-s1234--abc.nii.gz/SHA256E-s1234--abc.nii.gz")


def annex_pointer(path: Path) -> None:
    path.write_text("/annex/objects/SHA256E-s1234--abc.nii.gz\n")


def zero_bytes(path: Path) -> None:
    path.touch()


def truncated_gzip(path: Path) -> None:
    image().to_filename(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def damaged_gzip(path: Path) -> None:
    image().to_filename(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def truncated_voxels(path: Path) -> None:
    path.write_bytes(gzip.compress(image().to_bytes()[:-5000]))


def header_alone(path: Path) -> None:
    path.write_bytes(gzip.compress(image().to_bytes()[:200]))


def text_file(path: Path) -> None:
    path.write_text("this is not an image")


def gzipped_text(path: Path) -> None:
    path.write_bytes(gzip.compress(b"this is not an image " * 100))


def wrong_magic(path: Path) -> None:
    write_patched(path, magic=b"xyz")


def unknown_dtype(path: Path) -> None:
    write_patched(path, datatype=999)


def two_dimensions(path: Path) -> None:
    image(voxels((64, 64))).to_filename(path)


def one_slice(path: Path) -> None:
    image(voxels((64, 64, 1))).to_filename(path)


def time_series(path: Path) -> None:
    image(voxels((*SHAPE, 5))).to_filename(path)


def no_voxels(path: Path) -> None:
    image(np.zeros((32, 0, 40), np.int16)).to_filename(path)


def constant(path: Path) -> None:
    image(np.full(SHAPE, 7, np.int16)).to_filename(path)


def all_nan(path: Path) -> None:
    image(np.full(SHAPE, np.nan, np.float32)).to_filename(path)


def constant_and_nan(path: Path) -> None:
    data = np.full(SHAPE, 7, np.float32)
    data[:5] = np.nan
    image(data).to_filename(path)


def complex_values(path: Path) -> None:
    image(voxels().astype(np.complex64)).to_filename(path)


def rgb(path: Path) -> None:
    image(np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])).to_filename(path)


def singular(path: Path) -> None:
    flat = AFFINE.copy()
    flat[:3, 2] = flat[:3, 1]
    write_patched(path, srow_x=flat[0], srow_y=flat[1], srow_z=flat[2])


def zero_sform(path: Path) -> None:
    write_patched(path, srow_x=0, srow_y=0, srow_z=0)


def no_orientation(path: Path) -> None:
    write_patched(path, sform_code=0, qform_code=0)


def tiny_voxels(path: Path) -> None:
    image(affine=np.diag([0.003, 0.003, 0.003, 1])).to_filename(path)


def huge_voxels(path: Path) -> None:
    image(affine=np.diag([3, 3, 30, 1])).to_filename(path)


def small_field_of_view(path: Path) -> None:
    image(voxels((10, 36, 40))).to_filename(path)


def large_field_of_view(path: Path) -> None:
    image(voxels((16, 16, 80)), np.diag([5, 5, 9, 1])).to_filename(path)


@pytest.mark.parametrize(
    ("make", "fault", "remedy"),
    [
        (missing, "no such file", "path"),
        (folder, "is a folder", r"\.nii"),
        (annex_link, "leads nowhere", "datalad get"),
        (annex_pointer, "git-annex pointer", "datalad get"),
        (zero_bytes, "0 bytes", "again"),
        (truncated_gzip, "truncated or damaged", "again"),
        (damaged_gzip, "truncated or damaged", "again"),
        (truncated_voxels, "shorter than its header", "again"),
        (header_alone, "header is damaged", "Convert"),
        (text_file, "not a NIfTI image", "dcm2niix"),
        (gzipped_text, "not a NIfTI image", "dcm2niix"),
        (wrong_magic, "header is damaged", "Convert"),
        (unknown_dtype, "data code 999", "Convert"),
        (two_dimensions, "2D image", "3D"),
        (one_slice, "2D image", "3D"),
        (time_series, "5 volumes", "extract or average"),
        (no_voxels, "is empty", "again"),
        (constant, "all voxels have the value 7", "conversion"),
        (constant_and_nan, "all voxels have the value 7", "conversion"),
        (all_nan, "100% of the voxels are NaN or Inf", "Export"),
        (complex_values, "complex", "magnitude"),
        (rgb, "RGB", "magnitude"),
        (singular, "singular", "fslorient"),
        (zero_sform, "singular", "fslorient"),
        (no_orientation, "left and right", "dcm2niix"),
        (tiny_voxels, r"0\.003 x 0\.003 x 0\.003 mm", "unit"),
        (huge_voxels, "3 x 3 x 30 mm", "pixdim"),
        (small_field_of_view, "field of view of 30 x 108 x 120 mm", "whole head"),
        (large_field_of_view, "field of view of 80 x 80 x 720 mm", "whole head"),
    ],
)
def test_bad_files_are_refused(make: Callable[[Path], None], fault: str, remedy: str, tmp_path: Path) -> None:
    path = tmp_path / "sub-01_T1w.nii.gz"
    make(path)
    with pytest.raises(ScanError, match=fault) as caught:
        load_scan(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    assert caught.match(remedy)
    assert caught.value.remedy and caught.value.exit_code == ExitCode.SCANS_FAILED


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "float32", "float64", "int64"])
@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
def test_data_types_and_byte_orders(dtype: str, byte_order: str, name: str, tmp_path: Path) -> None:
    data = (voxels() % 100).astype(dtype)
    header = nib.Nifti1Header(endianness=byte_order)
    header.set_data_dtype(dtype)
    nib.Nifti1Image(data, AFFINE, header).to_filename(tmp_path / name)
    scan = load_scan(tmp_path / name)
    assert scan.data.dtype == np.float32 and scan.data.flags.aligned and scan.data.dtype.isnative
    np.testing.assert_array_equal(scan.data, data)
    assert_allclose(scan.affine, AFFINE)
    assert scan.affine.dtype == np.float64


def test_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    built = image()
    built.header.set_slope_inter(0.25, -3)
    built.to_filename(tmp_path / "x.nii.gz")
    assert_allclose(load_scan(tmp_path / "x.nii.gz").data, voxels() * 0.25 - 3, rtol=1e-6)


def test_nifti_2(tmp_path: Path) -> None:
    nib.Nifti2Image(voxels(), AFFINE).to_filename(tmp_path / "x.nii.gz")
    np.testing.assert_array_equal(load_scan(tmp_path / "x.nii.gz").data, voxels())


def test_plain_content_under_a_gz_name_and_the_reverse(tmp_path: Path) -> None:
    content = image().to_bytes()
    (tmp_path / "plain.nii.gz").write_bytes(content)
    (tmp_path / "packed.nii").write_bytes(gzip.compress(content))
    for name in ("plain.nii.gz", "packed.nii"):
        np.testing.assert_array_equal(load_scan(tmp_path / name).data, voxels())


@pytest.mark.parametrize("shape", [(*SHAPE, 1), (*SHAPE, 1, 1)])
def test_single_volumes_in_more_dimensions_are_squeezed(shape: tuple[int, ...], tmp_path: Path) -> None:
    image(voxels(shape)).to_filename(tmp_path / "x.nii.gz")
    scan = load_scan(tmp_path / "x.nii.gz")
    np.testing.assert_array_equal(scan.data, voxels(shape).reshape(SHAPE))


def test_some_nan_become_zero_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = voxels().astype(np.float32) + 1
    data[3, 4, 5], data[6, 7, 8], data[9, 10, 11] = np.nan, np.inf, -np.inf
    image(data).to_filename(tmp_path / "x.nii.gz")
    with caplog.at_level(logging.WARNING):
        scan = load_scan(tmp_path / "x.nii.gz")
    assert scan.data[3, 4, 5] == scan.data[6, 7, 8] == scan.data[9, 10, 11] == 0
    assert np.count_nonzero(scan.data == 0) == 3
    assert "3 voxels" in caplog.text and "x.nii.gz" in caplog.text and "3 voxels" in scan.warnings[0]


@pytest.mark.parametrize(("unit", "factor"), [("meter", 0.001), ("micron", 1000.0)])
def test_other_units_are_converted(unit: str, factor: float, tmp_path: Path) -> None:
    built = image(affine=np.diag([factor, factor, factor, 1]) @ AFFINE)
    built.header.set_xyzt_units(unit)
    built.to_filename(tmp_path / "x.nii.gz")
    scan = load_scan(tmp_path / "x.nii.gz")
    assert_allclose(scan.affine, AFFINE, rtol=1e-5)
    assert unit in scan.warnings[0]


@pytest.mark.parametrize("unit", ["meter", "micron"])
def test_a_unit_that_cannot_be_true_is_not_believed(unit: str, tmp_path: Path) -> None:
    built = image()
    built.header.set_xyzt_units(unit)
    built.to_filename(tmp_path / "x.nii.gz")
    scan = load_scan(tmp_path / "x.nii.gz")
    assert_allclose(scan.affine, AFFINE)
    assert "taken as mm" in scan.warnings[0]


def test_sform_wins_over_a_qform_that_disagrees(tmp_path: Path) -> None:
    write_patched(tmp_path / "x.nii.gz", qoffset_x=AFFINE[0, 3] + 25)
    scan = load_scan(tmp_path / "x.nii.gz")
    assert_allclose(scan.affine, AFFINE)
    assert "25.0 mm" in scan.warnings[0]


def test_qform_alone_is_used(tmp_path: Path) -> None:
    write_patched(tmp_path / "x.nii.gz", sform_code=0, srow_x=0)
    scan = load_scan(tmp_path / "x.nii.gz")
    assert_allclose(scan.affine, AFFINE, atol=1e-5)
    assert scan.warnings == ()


def test_a_damaged_quaternion_does_not_matter_beside_an_sform(tmp_path: Path) -> None:
    write_patched(tmp_path / "x.nii.gz", quatern_b=5.0)
    assert_allclose(load_scan(tmp_path / "x.nii.gz").affine, AFFINE)


def test_unoriented_scans_can_be_allowed(tmp_path: Path) -> None:
    path = tmp_path / "x.nii.gz"
    no_orientation(path)
    scan = load_scan(path, allow_unoriented=True)
    assert_allclose(scan.affine, nib.load(path).affine)
    assert "guessed" in scan.warnings[0]
