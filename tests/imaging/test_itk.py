"""ITK affine files: exact round trip, and other tools read in them what was meant."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from nibabel.affines import from_matvec
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation

from unibrain_bids.errors import OutputError, ResourceError
from unibrain_bids.imaging.affines import AffineParts, compose
from unibrain_bids.imaging.images import save_image
from unibrain_bids.imaging.itk import read_itk_affine, write_itk_affine
from unibrain_bids.imaging.resample import resample
from unibrain_bids.imaging.scan import load_scan

HERE = Path(__file__).parent
PEERS = Path(os.environ.get("UNIBRAIN_PEERS_PYTHON", HERE.parents[1] / ".venv-peers/bin/python"))

SCAN_FROM_TEMPLATE = compose(
    AffineParts(
        np.array([7.0, -4.0, 11.0]), np.array([12.0, -9.0, 17.0]), np.array([1.1, 0.93, 1.05]), np.full(3, 0.04)
    )
)


def test_round_trip_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "from-T1w_to-MNI_xfm.txt"
    write_itk_affine(path, SCAN_FROM_TEMPLATE)
    np.testing.assert_array_equal(read_itk_affine(path), SCAN_FROM_TEMPLATE)
    assert [child.name for child in tmp_path.iterdir()] == [path.name]


def test_the_file_holds_lps(tmp_path: Path) -> None:
    path = tmp_path / "xfm.txt"
    write_itk_affine(path, from_matvec(np.eye(3), [1.0, 2.0, 3.0]))
    assert "Parameters: 1.0 0.0 0.0 0.0 1.0 0.0 0.0 0.0 1.0 -1.0 -2.0 3.0\n" in path.read_text()


def test_nitransforms_reads_the_same_matrix(tmp_path: Path) -> None:
    linear = pytest.importorskip("nitransforms.linear")
    path = tmp_path / "xfm.txt"
    write_itk_affine(path, SCAN_FROM_TEMPLATE)
    assert_allclose(linear.load(path, fmt="itk").matrix, SCAN_FROM_TEMPLATE, atol=1e-12)


def test_a_centre_of_rotation_is_honoured_as_nitransforms_does(tmp_path: Path) -> None:
    linear = pytest.importorskip("nitransforms.linear")
    path = tmp_path / "centred.txt"
    numbers = " ".join(map(str, [*Rotation.from_euler("z", 90, degrees=True).as_matrix().ravel(), 1.0, 2.0, 3.0]))
    path.write_text(
        "#Insight Transform File V1.0\n#Transform 0\nTransform: MatrixOffsetTransformBase_double_3_3\n"
        f"Parameters: {numbers}\nFixedParameters: 10 20 30\n"
    )
    matrix = read_itk_affine(path)
    # LPS: the centre (10, 20, 30) only takes the translation
    assert_allclose(matrix @ [-10, -20, 30, 1], [-11, -22, 33, 1], atol=1e-12)
    # nitransforms translates in the centred frame as well, so both agree on the whole matrix
    assert_allclose(linear.load(path, fmt="itk").matrix, matrix, atol=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "Transform: Euler3DTransform_double_3_3\nParameters: 0 0 0 1 2 3\nFixedParameters: 0 0 0\n",
        "Transform: AffineTransform_double_3_3\nParameters: a b c\n",
        "Parameters: 1 0 0 0 1 0 0 0 1 0 0 0\n" * 2,
    ],
)
def test_other_files_are_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.txt"
    path.write_text(text)
    with pytest.raises(ResourceError, match=r"odd\.txt"):
        read_itk_affine(path)


def test_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"none\.txt"):
        read_itk_affine(tmp_path / "none.txt")


def test_a_file_in_the_way_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file, not a folder")
    with pytest.raises(OutputError, match=r"xfm\.txt"):
        write_itk_affine(tmp_path / "out" / "xfm.txt", np.eye(4))


@pytest.mark.peers
@pytest.mark.skipif(not PEERS.exists(), reason="needs the environment of peers (.venv-peers)")
@pytest.mark.parametrize("tool", ["SimpleITK", "ants"])
def test_other_tools_resample_to_the_same_image(tool: str, phantom, tmp_path: Path) -> None:
    # an oblique LAS-like scan, moved to an RAS template grid
    turned = Rotation.from_euler("xyz", [8, -15, 20], degrees=True).as_matrix() @ np.diag([-2.0, 2.2, 2.5])
    scan_shape, template_shape = (64, 60, 54), (56, 62, 58)
    scan_affine = from_matvec(turned, -turned @ ((np.array(scan_shape) - 1) / 2))
    template_affine = from_matvec(np.diag([2.3, 2.1, 2.4]), [-64, -66, -69])
    save_image(tmp_path / "scan.nii.gz", phantom.intensity(scan_shape, scan_affine), affine=scan_affine)
    save_image(tmp_path / "template.nii.gz", np.zeros(template_shape, np.float32), affine=template_affine)
    write_itk_affine(tmp_path / "xfm.txt", SCAN_FROM_TEMPLATE)
    files = [str(tmp_path / name) for name in ("scan.nii.gz", "template.nii.gz", "xfm.txt", "moved.nii.gz")]
    command = [str(PEERS), str(HERE / "peer_resample.py"), tool, *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if "ModuleNotFoundError" in done.stderr:
        pytest.skip(f"{tool} is not installed in {PEERS}")
    assert done.returncode == 0, done.stderr
    ours = resample(
        load_scan(tmp_path / "scan.nii.gz").data,
        scan_affine,
        shape=template_shape,
        target_affine=template_affine,
        target_from_source=np.linalg.inv(SCAN_FROM_TEMPLATE),
    )
    theirs = load_scan(tmp_path / "moved.nii.gz").data
    assert theirs.max() > 150  # the phantom's top ball is in view
    assert np.abs(theirs - ours).max() < 0.5
