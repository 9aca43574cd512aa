"""The recipes of docs/transforms.md give what other tools expect."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

DOCUMENT = Path(__file__).parents[2] / "docs" / "transforms.md"


def image(shape: tuple[int, int, int], zooms: tuple[float, float, float], mirrored: bool) -> nib.Nifti1Image:
    affine = np.diag([-zooms[0] if mirrored else zooms[0], *zooms[1:], 1.0])
    affine[:3, 3] = (70, -80, -60)
    return nib.Nifti1Image(np.zeros(shape, np.uint8), affine)


@pytest.mark.parametrize("mirrored", [True, False])
def test_flirts_matrix_is_that_of_nitransforms(mirrored: bool) -> None:
    fsl = pytest.importorskip("nitransforms.io.fsl")
    recipe = re.search(r"    def scaled_voxels.*?\n\n", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert recipe is not None
    names: dict[str, object] = {"np": np}
    exec(recipe.group().replace("\n    ", "\n").removeprefix("    "), names)  # the document's own lines
    scaled_voxels = names["scaled_voxels"]
    scan, template = image((20, 24, 18), (1.2, 1.0, 2.0), mirrored), image((30, 28, 26), (1.0, 1.5, 1.0), False)
    template_from_scan = np.array([[0.9, 0.1, 0, 5], [-0.1, 1.1, 0.05, -3], [0, 0.02, 1, 8], [0, 0, 0, 1]])
    flirt = np.linalg.inv(scaled_voxels(template)) @ template_from_scan @ scaled_voxels(scan)  # type: ignore[operator]
    scan_from_template = np.linalg.inv(template_from_scan)
    expected = fsl.FSLLinearTransform.from_ras(scan_from_template, moving=scan, reference=template)["parameters"]
    np.testing.assert_allclose(flirt, expected, atol=1e-5)
