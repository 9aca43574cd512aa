"""Running sums give what the whole table gives."""

import numpy as np
import pytest
from scipy import stats

from unibrain_bids.group.outliers import outlying_measures
from unibrain_bids.group.statistics import (
    Means,
    Regression,
    adjusted,
    benjamini_hochberg,
    correlated,
    welch,
)


@pytest.fixture
def data():
    generator = np.random.default_rng(0)
    group = np.arange(60) % 3 == 0
    values = 5000 + 100 * generator.normal(size=(60, 7)) + 80 * group[:, None]
    values[3, 2] = np.nan
    return group, generator.normal(size=60), values


def sums(group, values):
    both = (Means(values.shape[1]), Means(values.shape[1]))
    for member, row in zip(group, values, strict=True):
        both[int(member)].add(row)
    return both


def test_welch_is_scipys(data):
    group, _, values = data
    effects = welch(*sums(group, values))
    expected = stats.ttest_ind(values[group], values[~group], equal_var=False, nan_policy="omit")
    np.testing.assert_allclose(effects.t, expected.statistic)
    np.testing.assert_allclose(effects.p, expected.pvalue)
    np.testing.assert_allclose(effects.df, expected.df)


def test_hedges_g_of_known_shift(data):
    group, _, values = data
    g = welch(*sums(group, values)).size[0]
    a, b = values[~group, 0], values[group, 0]
    pooled = np.sqrt((39 * a.var(ddof=1) + 19 * b.var(ddof=1)) / 58)
    assert g == pytest.approx((b.mean() - a.mean()) / pooled * (1 - 3 / (4 * 58 - 1)))


def test_regression_is_least_squares_on_the_table(data):
    group, age, values = data
    regression = Regression(values.shape[1], 3)
    for member, years, row in zip(group, age, values, strict=True):
        regression.add([1, member, years], row)
    t, df = regression.test(1)
    for k in range(values.shape[1]):
        known = np.isfinite(values[:, k])
        design = np.stack([np.ones(60), group, age], axis=1)[known]
        beta, residual, *_ = np.linalg.lstsq(design, values[known, k], rcond=None)
        error = np.sqrt(residual[0] / (known.sum() - 3) * np.linalg.inv(design.T @ design)[1, 1])
        assert t[k] == pytest.approx(beta[1] / error)
        assert df[k] == known.sum() - 3


def test_correlation_without_covariates_is_pearsons(data):
    _, age, values = data
    regression = Regression(values.shape[1], 2)
    for years, row in zip(age, values, strict=True):
        regression.add([1, years], row)
    effects = correlated(regression)
    expected = stats.pearsonr(age, values[:, 0])
    assert effects.size[0] == pytest.approx(expected.statistic)
    assert effects.p[0] == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval()
    assert effects.low[0] < effects.size[0] < effects.high[0]
    assert effects.low[0] == pytest.approx(interval.low, abs=0.01)


def test_collinear_covariate_gives_no_effect_instead_of_a_wrong_one(data):
    group, _, values = data
    regression = Regression(values.shape[1], 3)
    for member, row in zip(group, values, strict=True):
        regression.add([1, member, 2 * member], row)
    assert np.isnan(adjusted(regression, *sums(group, values)).size).all()


def test_constant_outcome_has_no_effect(data):
    group, _, values = data
    values[:, 0] = 1.0
    assert np.isnan(welch(*sums(group, values)).p[0])


def test_false_discovery_rate_leaves_unknown_ones_out():
    q = benjamini_hochberg(np.array([0.01, np.nan, 0.02, 0.5]))
    np.testing.assert_allclose(q, [0.03, np.nan, 0.03, 0.5])


def test_outliers_are_named_and_a_small_cohort_has_none():
    quality = [{"snr": 10 + k / 10, "fber": float("nan"), "flat": 1.0} for k in range(30)]
    quality[4]["snr"] = 30.0
    found = outlying_measures(quality)
    assert found[4] == ["snr"]
    assert sum(map(len, found)) == 1
    assert outlying_measures(quality[:9]) == [[]] * 9
