"""Written images: the same bytes for the same input, whole or not at all, readable by nibabel."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import from_matvec
from numpy.testing import assert_allclose

from unibrain_bids.errors import OutputError
from unibrain_bids.imaging.files import atomic_write
from unibrain_bids.imaging.images import MNI_CODE, save_image

AFFINE = from_matvec(np.diag([-1.0, 2.0, 3.0]), [10, 20, 30])
RNG = np.random.default_rng(0)


def read(path: Path) -> nib.Nifti1Image:
    loaded = nib.load(path)
    assert isinstance(loaded, nib.Nifti1Image)
    return loaded


@pytest.mark.parametrize(
    ("dtype", "on_disk"),
    [
        ("bool", "uint8"),
        ("uint8", "uint8"),
        ("int16", "int16"),
        ("int32", "int32"),
        ("int64", "int32"),
        ("float16", "float32"),
        ("float32", "float32"),
        ("float64", "float32"),
    ],
)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_values_and_types(dtype: str, on_disk: str, suffix: str, tmp_path: Path) -> None:
    data = (RNG.random((5, 6, 7)) * 100).astype(dtype)
    path = tmp_path / f"x{suffix}"
    save_image(path, data, affine=AFFINE, description="what it is")
    loaded = read(path)
    assert loaded.get_data_dtype() == on_disk
    np.testing.assert_array_equal(np.asarray(loaded.dataobj), data.astype(on_disk))
    assert_allclose(loaded.affine, AFFINE)
    assert loaded.header.get_xyzt_units()[0] == "mm"
    assert bytes(loaded.header["descrip"]).rstrip(b"\0") == b"what it is"
    assert [child.name for child in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("dtype", ["int16", "uint8", "uint16"])
def test_scaled_integers_keep_zero_and_precision(dtype: str, tmp_path: Path) -> None:
    data = np.where(RNG.random((20, 20, 20)) < 0.5, 0, RNG.random((20, 20, 20)) * 123.4).astype(np.float32)
    data = data if dtype != "int16" else data - 2 * data * (RNG.random(data.shape) < 0.3)
    save_image(tmp_path / "x.nii.gz", data, affine=AFFINE, dtype=dtype)
    loaded = read(tmp_path / "x.nii.gz")
    values = loaded.get_fdata()
    assert loaded.get_data_dtype() == dtype
    assert np.all(values[data == 0] == 0)
    assert np.abs(values - data).max() <= 0.51 * np.abs(data).max() / np.iinfo(dtype).max


def test_scaling_an_image_of_zeros(tmp_path: Path) -> None:
    save_image(tmp_path / "x.nii", np.zeros((4, 4, 4)), affine=AFFINE, dtype="int16")
    assert not read(tmp_path / "x.nii").get_fdata().any()


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (np.array([[[np.nan, 1.0]]]), "int16"),
        (np.array([[[-1.0, 1.0]]]), "uint8"),
        (np.array([[[70000]]]), "int16"),
        (np.array([[[2**40]]]), None),
    ],
)
def test_values_that_do_not_fit_are_refused(data: np.ndarray, dtype: str | None, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"do not fit|cannot be stored"):
        save_image(tmp_path / "x.nii.gz", data, affine=AFFINE, dtype=dtype)
    assert not list(tmp_path.iterdir())


def test_codes_of_the_scan_are_kept(tmp_path: Path) -> None:
    header = nib.Nifti1Header()
    header["sform_code"], header["qform_code"] = 2, 1
    save_image(tmp_path / "x.nii", np.ones((3, 3, 3)), affine=AFFINE, like=header)
    assert (read(tmp_path / "x.nii").header["sform_code"], read(tmp_path / "x.nii").header["qform_code"]) == (2, 1)
    header["qform_code"] = 0
    save_image(tmp_path / "y.nii", np.ones((3, 3, 3)), affine=AFFINE, like=header)
    assert (read(tmp_path / "y.nii").header["sform_code"], read(tmp_path / "y.nii").header["qform_code"]) == (2, 2)


@pytest.mark.parametrize(("code", "expected"), [(None, 1), (MNI_CODE, 4)])
def test_codes_without_a_scan(code: int | None, expected: int, tmp_path: Path) -> None:
    save_image(tmp_path / "x.nii", np.ones((3, 3, 3)), affine=AFFINE, code=code)
    header = read(tmp_path / "x.nii").header
    assert header["sform_code"] == header["qform_code"] == expected
    assert_allclose(header.get_qform(), AFFINE, atol=1e-6)


def test_a_sheared_affine_has_no_qform(tmp_path: Path) -> None:
    sheared = AFFINE.copy()
    sheared[0, 1] = 0.3
    save_image(tmp_path / "x.nii", np.ones((30, 30, 30)), affine=sheared)
    assert_allclose(read(tmp_path / "x.nii").affine, sheared)
    assert read(tmp_path / "x.nii").header["qform_code"] == 0


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_same_input_same_bytes(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = RNG.random((30, 30, 30)).astype(np.float32)
    first, second = tmp_path / f"first{suffix}", tmp_path / "elsewhere" / f"second{suffix}"
    save_image(first, data, affine=AFFINE, dtype="int16", description="d")
    monkeypatch.setattr(time, "time", lambda: 2e9)
    # the memory layout of the array is no part of the image
    save_image(second, np.asfortranarray(data), affine=AFFINE, dtype="int16", description="d")
    assert first.read_bytes() == second.read_bytes()


def test_gzip_header_names_neither_file_nor_time(tmp_path: Path) -> None:
    save_image(tmp_path / "x.nii.gz", np.ones((3, 3, 3)), affine=AFFINE)
    content = (tmp_path / "x.nii.gz").read_bytes()
    assert content[3] == 0 and content[4:8] == bytes(4)
    assert len(gzip.decompress(content)) == 352 + 27 * 4


def test_the_standard_library_takes_over_where_isal_is_missing(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['isal'] = None\n"
        "import numpy as np\n"
        "from unibrain_bids.imaging import compression, images, scan\n"
        "assert 'gzip' in compression._Writer.__module__ and 'igzip' not in compression._Writer.__module__\n"
        "data = np.arange(40**3, dtype=np.float32).reshape(40, 40, 40)\n"
        "images.save_image(sys.argv[1], data, affine=np.diag([2., 2, 2, 1]))\n"
        "assert (scan.load_scan(sys.argv[1]).data == data).all()\n"
        "broken = open(sys.argv[1], 'rb').read()[:-100]; open(sys.argv[1], 'wb').write(broken)\n"
        "try: scan.load_scan(sys.argv[1])\n"
        "except scan.ScanError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "x.nii.gz")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "truncated or damaged" in done.stdout


@pytest.mark.parametrize("name", ["x.img", "x.gz", "x"])
def test_other_suffixes_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.nii"):
        save_image(tmp_path / name, np.ones((3, 3, 3)), affine=AFFINE)


@pytest.mark.parametrize("affine", [np.zeros((4, 4)), np.full((4, 4), np.nan), np.eye(3)])
def test_bad_affines_are_refused(affine: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="affine"):
        save_image(tmp_path / "x.nii", np.ones((3, 3, 3)), affine=affine)


def test_failure_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as stream:
        stream.write(b"half of the new")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [child.name for child in tmp_path.iterdir()] == ["x.txt"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_said_so(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"x\.txt.*No space left.*free space"),
        atomic_write(tmp_path / "x.txt"),
        open("/dev/full", "wb", buffering=0) as full,
    ):
        full.write(b"x")
    assert not list(tmp_path.iterdir())


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        save_image(tmp_path / "x.nii", np.ones((3, 3, 3)), affine=AFFINE)
    finally:
        os.umask(old)
    assert (tmp_path / "x.nii").stat().st_mode & 0o777 == 0o640
