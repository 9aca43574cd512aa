"""Region table, KLS network and quality measures against brute force and against cases with a known answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from nibabel.affines import apply_affine, from_matvec
from numpy.testing import assert_allclose
from scipy.stats import gaussian_kde

from unibrain_bids.imaging.quality import MEASURES, quality_measures
from unibrain_bids.imaging.regions import COLUMNS, region_table
from unibrain_bids.imaging.similarity import kls_network, local_features, mind_network

MNI = from_matvec([[1.1, 0, 0], [0, 0.9, 0.1], [0, 0, 1.0]], [3, 4, 5])
AFFINE = from_matvec([[-1.0, 0.1, 0], [0.2, 1.2, 0], [0, 0, 2.0]], [10, -20, 30])
INDICES = (1001, 2001, 7, 2035, 42)
NAMES = ("a", "b", "c", "d", "e")
ICV = 1.5e6


@pytest.fixture(scope="module")
def regions() -> tuple[np.ndarray, np.ndarray]:
    """Return labels (one region of the list absent, one present that is not on it) and intensities."""
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1001, 2001, 7, 2035, 99], size=(21, 22, 23), p=[0.3, 0.2, 0.2, 0.2, 0.05, 0.05])
    offsets = {0: 0, 1001: 50, 2001: 55, 7: 90, 2035: 200, 99: 1}
    intensity = np.vectorize(offsets.get)(labels) + rng.normal(size=labels.shape) * (5 + labels % 10)
    return labels.astype(np.int32), intensity.astype(np.float32)


def measure(labels: np.ndarray, intensity: np.ndarray, **changes: Any) -> pd.DataFrame:
    """Return the region table of INDICES; without `changes`, all tissue is grey and the scan lies in MNI."""
    zeros = np.zeros(labels.shape)
    given = {
        "indices": INDICES, "names": NAMES, "tissues": {"GM": zeros + 1, "WM": zeros, "CSF": zeros},
        "mni_from_scan": np.eye(4), "intracranial_volume": ICV,
        "thickness": np.full(5, np.nan),
    }  # fmt: skip
    return region_table(labels, intensity, AFFINE, **given | changes)


def test_region_table_against_masks(regions: tuple[np.ndarray, np.ndarray]) -> None:
    labels, intensity = regions
    grey = np.random.default_rng(1).random(labels.shape)
    tissues = {"GM": grey, "WM": 0.7 * (1 - grey), "CSF": 0.3 * (1 - grey)}
    table = measure(labels, intensity, tissues=tissues, mni_from_scan=MNI)
    assert list(table.columns) == list(COLUMNS)
    assert list(table["index"]) == list(INDICES) and list(table["name"]) == list(NAMES)
    for _, row in table[table["index"] != 42].iterrows():
        mask = labels == row["index"]
        values = intensity[mask].astype(np.float64)
        assert row["n_voxels"] == mask.sum()
        assert_allclose(row["volume"], mask.sum() * abs(np.linalg.det(AFFINE)))
        assert_allclose(row["intensity_mean"], values.mean())
        assert_allclose(row["intensity_sd"], values.std())
        assert_allclose(row["intensity_median"], np.median(values))
        centroid = apply_affine(AFFINE, np.argwhere(mask).mean(axis=0))
        assert_allclose(row[["centroid_x", "centroid_y", "centroid_z"]].astype(float), centroid)
        assert_allclose(row[["mni_x", "mni_y", "mni_z"]].astype(float), apply_affine(MNI, centroid))
        assert_allclose(row["gm_fraction"], grey[mask].mean())
        assert_allclose(row["gm_fraction"] + row["wm_fraction"] + row["csf_fraction"], 1)
        assert_allclose(row["volume_fraction"] * ICV, row["volume"])


def test_missing_regions_keep_their_row(regions: tuple[np.ndarray, np.ndarray]) -> None:
    table = measure(*regions)
    row = table.iloc[INDICES.index(42)]
    assert row["n_voxels"] == 0 and row["volume"] == 0
    assert row[["intensity_mean", "intensity_sd", "intensity_median", "centroid_x"]].isna().all()
    assert "42\te\t0\t0.0\t0.0\tn/a\tn/a" in table.to_csv(sep="\t", na_rep="n/a", index=False)


def test_region_table_of_an_empty_segmentation() -> None:
    empty = np.zeros((3, 3, 3), np.int16)
    table = measure(empty, empty, indices=(5,), names=("x",), thickness=np.array([np.nan]))
    assert table["n_voxels"].tolist() == [0] and table["centroid_z"].isna().all()


@pytest.mark.parametrize("labels", [np.zeros((3, 3, 3)), np.full((3, 3, 3), -1)])
def test_labels_must_be_non_negative_integers(labels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="non-negative integers"):
        measure(labels, labels, indices=(1,), names=("x",))


def test_a_region_listed_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        kls_network(np.zeros((3, 3, 3)), np.zeros((3, 3, 3), int), (1, 1))


def brute_force_kls(first: np.ndarray, second: np.ndarray, grid: np.ndarray) -> float:
    """Return exp(-J) of scipy's kernel density estimates, with the divergence as a plain sum over a fine grid."""
    p, q = (np.maximum(gaussian_kde(values)(grid) * (grid[1] - grid[0]), 1e-12) for values in (first, second))
    return float(np.exp(-np.sum((p - q) * np.log(p / q))))


def test_kls_against_brute_force(regions: tuple[np.ndarray, np.ndarray]) -> None:
    labels, intensity = regions
    network = kls_network(intensity, labels, INDICES)
    grid = np.linspace(intensity.min() - 30, intensity.max() + 30, 1500)
    for i, first in enumerate(INDICES[:4]):
        for j, second in enumerate(INDICES[:4]):
            expected = brute_force_kls(intensity[labels == first], intensity[labels == second], grid)
            assert_allclose(network[i, j], expected, atol=0.01)
    assert 0.2 < network[0, 1] < 0.99  # a pair for which the comparison says something


def test_kls_is_a_similarity(regions: tuple[np.ndarray, np.ndarray]) -> None:
    labels, intensity = regions
    network = kls_network(intensity, labels, INDICES)
    known = network[:4, :4]
    np.testing.assert_array_equal(known, known.T)
    np.testing.assert_array_equal(np.diag(known), 1.0)
    assert known.min() >= 0 and known.max() <= 1
    assert np.isnan(network[4]).all() and np.isnan(network[:, 4]).all()
    assert_allclose(kls_network(intensity * 7 - 3000, labels, INDICES), network, atol=1e-3)


def test_small_regions_have_no_similarity(regions: tuple[np.ndarray, np.ndarray]) -> None:
    labels, intensity = regions
    smallest = int((labels == 2035).sum())
    network = kls_network(intensity, labels, INDICES, min_voxels=smallest + 1)
    assert np.isnan(network[3]).all() and np.isnan(network[:, 3]).all() and np.isfinite(network[:3, :3]).all()
    assert np.isfinite(kls_network(intensity, labels, INDICES, min_voxels=smallest)[3, :3]).all()


def test_kls_survives_constant_regions() -> None:
    labels = np.repeat([1, 2, 3], 200).reshape(10, 10, 6)
    intensity = np.repeat([5.0, 5.0, 9.0], 200).reshape(10, 10, 6)
    assert_allclose(kls_network(intensity, labels, (1, 2, 3)), [[1, 1, 0], [1, 1, 0], [0, 0, 1]], atol=1e-6)
    assert_allclose(kls_network(np.ones_like(intensity), labels, (1, 2, 3)), 1.0)


def test_kls_of_nothing() -> None:
    assert np.isnan(kls_network(np.ones((3, 3, 3)), np.zeros((3, 3, 3), int), (1, 2))).all()


class TestMind:
    """Samples of known normal distributions, one region each."""

    def volume(self, *means: float, size: int = 2000, features: int = 2) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(0)
        labels = np.repeat(np.arange(1, len(means) + 1), size).reshape(-1, 10, 10)
        values = rng.normal(size=(features, labels.size))
        values[0] += np.repeat(means, size)
        return values.reshape(features, *labels.shape), labels

    def test_divergence_of_normal_distributions(self) -> None:
        features, labels = self.volume(0.0, 1.5, 3.0)
        network = mind_network(features, labels, (1, 2, 3), samples=2000)
        # KL of two normal distributions of unit variance: half the squared distance of their means
        for i, j, distance in ((0, 1, 1.5), (1, 2, 1.5), (0, 2, 3.0)):
            assert_allclose(1 / network[i, j] - 1, distance**2, rtol=0.2)

    def test_equal_distributions_are_alike_whatever_their_size_and_units(self) -> None:
        features, labels = self.volume(0.0, 0.0, 5.0)
        labels[:15] = 0  # the first region has 500 voxels left, the others 2000
        network = mind_network(features, labels, (1, 2, 3))
        assert network[0, 1] > 0.7 > 0.2 > network[0, 2]
        np.testing.assert_array_equal(network, network.T)
        rescaled = features * np.array([70.0, 0.01])[:, None, None, None] + 3
        assert_allclose(mind_network(rescaled, labels, (1, 2, 3)), network, atol=1e-6)

    def test_missing_regions_shift_nobody(self) -> None:
        features, labels = self.volume(0.0, 1.0)
        labels[0, 0, :5] = 7  # five voxels: too few
        network = mind_network(features, labels, (1, 9, 7, 2))
        assert np.isnan(network[1:3]).all() and np.isnan(network[:, 1:3]).all()
        assert_allclose(network[np.ix_([0, 3], [0, 3])], mind_network(features, labels, (1, 2)))
        assert np.isnan(mind_network(features, 0 * labels, (1, 2))).all()

    def test_identical_voxels_do_not_break_it(self) -> None:
        labels = np.repeat([1, 2], 200).reshape(10, 10, 4)
        assert_allclose(mind_network(np.ones((3, 10, 10, 4)), labels, (1, 2)), 1.0, atol=0.05)

    def test_local_features_have_the_image_first(self) -> None:
        x = np.indices((9, 9, 9))[0].astype(np.float32)
        features = local_features(5 * x, np.full((9, 9, 9), 0.25))
        assert_allclose(features[0], 5 * x)
        assert_allclose(features[:, 4, 4, 4], [20, 20, 5, 0.25], rtol=1e-3)


@pytest.fixture(scope="module")
def head() -> dict[str, np.ndarray]:
    """Return a head of three shells (WM, GM, CSF) and a scalp in noisy air."""
    rng = np.random.default_rng(0)
    radius = np.linalg.norm(np.indices((64, 64, 64)) - 31.5, axis=0)
    tissues = np.select([radius < 12, radius < 16, radius < 18], [2, 1, 3], 0).astype(np.uint8)
    means = np.select(
        [tissues == 2, tissues == 1, tissues == 3, (radius >= 20) & (radius < 24)], [110.0, 80, 30, 90], 0
    )
    image = means + rng.normal(size=radius.shape) * np.select([tissues == 2, tissues == 1], [4.0, 6.0], 2.0)
    return {"image": image.astype(np.float32), "mask": (radius < 18).astype(np.uint8), "tissues": tissues}


def test_quality_measures_of_a_known_head(head: dict[str, np.ndarray]) -> None:
    gain = np.broadcast_to(np.linspace(0.8, 1.25, 64), (64, 64, 64))
    measures = quality_measures(**head, gain=gain)
    assert list(measures) == list(MEASURES)
    white = head["image"][head["tissues"] == 2].astype(np.float64)
    assert_allclose(measures["snr_wm"], np.median(white) / white.std(ddof=1), rtol=1e-9)
    assert_allclose(measures["snr_wm"], 110 / 4, rtol=0.05)
    assert_allclose(measures["snr_gm"], 80 / 6, rtol=0.05)
    assert_allclose(measures["snr_csf"], 30 / 2, rtol=0.05)
    assert_allclose(measures["snr_total"], np.mean([110 / 4, 80 / 6, 15]), rtol=0.05)
    assert_allclose(measures["cnr"], 30 / np.sqrt(4**2 + 6**2 + 2**2), rtol=0.05)
    assert_allclose(measures["cjv"], 10 / 30, rtol=0.05)
    assert_allclose(measures["fber"], np.median(head["image"][head["mask"] > 0] ** 2) / (2 * 0.6745) ** 2, rtol=0.3)
    assert_allclose(measures["wm2max"], 110 / np.percentile(head["image"], 99.95), rtol=0.01)
    bias = 1 / gain[head["mask"] > 0]
    assert_allclose(measures["inu_range"], np.subtract(*np.percentile(bias, [95, 5])) / np.median(bias))
    assert_allclose(measures["icvs_gm"], (head["tissues"] == 1).sum() / (head["tissues"] > 0).sum())
    assert_allclose(sum(measures[f"icvs_{tissue}"] for tissue in ("gm", "wm", "csf")), 1)
    assert all(isinstance(value, float) for value in measures.values())


def test_entropy_focus_is_between_one_voxel_and_a_uniform_image(head: dict[str, np.ndarray]) -> None:
    def efc(image: np.ndarray) -> float:
        return quality_measures(image, head["mask"], head["tissues"])["efc"]

    point = np.zeros((64, 64, 64))
    point[5, 5, 5] = 3.0
    assert_allclose(efc(point), 0.0, atol=1e-12)
    assert_allclose(efc(np.full((64, 64, 64), 8.0)), 1.0)
    assert 0.1 < efc(head["image"]) < 0.9


def test_noise_worsens_what_it_should(head: dict[str, np.ndarray]) -> None:
    noisy = head | {"image": head["image"] + np.random.default_rng(1).normal(size=(64, 64, 64)) * 8}
    before, after = quality_measures(**head), quality_measures(**noisy)
    assert all(after[name] < before[name] for name in ("snr_gm", "snr_wm", "snr_total", "cnr", "fber"))
    assert all(after[name] > before[name] for name in ("cjv", "efc"))


def test_what_cannot_be_measured_is_nan(head: dict[str, np.ndarray]) -> None:
    stripped = head | {"image": head["image"] * head["mask"]}
    assert np.isnan(quality_measures(**stripped)["fber"])
    assert np.isnan(quality_measures(**head)["inu_range"])
    nothing = {name: np.zeros((8, 8, 8)) for name in ("image", "mask", "tissues")}
    assert np.isnan(list(quality_measures(**nothing, gain=np.ones((8, 8, 8))).values())).all()
