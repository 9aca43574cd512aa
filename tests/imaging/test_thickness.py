"""Thickness on shells of known thickness; a closed sulcus does no harm."""

from __future__ import annotations

import numpy as np
import pytest

from unibrain_bids.imaging.thickness import mean_thickness


def sphere(thickness: float, spacing: tuple[float, float, float], *, radius: float = 20.0) -> np.ndarray:
    """Return structures: white matter in a shell of cortex."""
    size = [int(2 * (radius + thickness + 5) / step) for step in spacing]
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(size, spacing, strict=True)]
    distance = np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij", sparse=True)))
    return np.select([distance < radius, distance < radius + thickness], [2, 3], 0)


@pytest.mark.parametrize("thickness", [2.0, 3.0, 4.5])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 1.0, 1.3)])
def test_volume_over_area_of_a_sphere(thickness: float, spacing: tuple[float, float, float]) -> None:
    structures = sphere(thickness, spacing)
    labels = np.where(structures == 3, 1001, 0)
    (found,) = mean_thickness(labels, structures, np.diag([*spacing, 1]), indices=(1001,))
    outer, inner = 20.0 + thickness, 20.0
    assert found == pytest.approx((outer**3 - inner**3) / (3 * inner**2), rel=0.05)


@pytest.mark.parametrize("gap", [0, 2])
def test_touching_banks_of_a_sulcus_change_nothing(gap: int) -> None:
    """Two sheets of 3 mm face each other, with or without fluid between them."""
    structures = np.full((40, 40, 20 + gap), 2, np.int16)
    structures[:, :, 7 : 13 + gap] = 3
    structures[:, :, 10 : 10 + gap] = 0
    labels = np.where(structures == 3, 1001, 0)
    (found,) = mean_thickness(labels, structures, np.eye(4), indices=(1001,))
    assert found == pytest.approx(3.0, rel=0.02)


def test_what_is_no_cortex_has_no_thickness() -> None:
    structures = sphere(3.0, (1.0, 1.0, 1.0))
    structures[structures == 2] = 10
    labels = np.where(structures > 0, structures, 0)
    found = mean_thickness(labels, structures, np.eye(4), indices=(10, 3, 77))
    assert np.isnan(found[[0, 2]]).all() and np.isfinite(found[1])
    assert np.isnan(mean_thickness(0 * labels, 0 * structures, np.eye(4), indices=(1,))).all()
