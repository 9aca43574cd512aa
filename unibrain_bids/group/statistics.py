"""Comparisons from running sums: memory does not grow with the number of participants.

NaN in an outcome leaves that participant out of that outcome alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

__all__ = ["Effects", "Means", "Regression", "adjusted", "benjamini_hochberg", "correlated", "robust_z", "welch"]

_SMALLEST_GROUP = 2


@dataclass(frozen=True)
class Effects:
    """One effect per outcome, arrays (M,); NaN where it cannot be estimated.

    Attributes
    ----------
    size
        Hedges' g of two classes (second minus first), or the partial correlation with a number.
    low, high
        95 % confidence interval of the size.
    t, df, p
        Test of no effect, two-sided.
    q
        p after Benjamini and Hochberg's control of the false discovery rate over all M.
    """

    size: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    t: NDArray[np.float64]
    df: NDArray[np.float64]
    p: NDArray[np.float64]
    q: NDArray[np.float64]


class Means:
    """Number, mean and variance of M outcomes (Welford's recurrence).

    Parameters
    ----------
    outcomes
        M.
    """

    def __init__(self, outcomes: int) -> None:
        self.count = np.zeros(outcomes)
        self.mean = np.zeros(outcomes)
        self._squares = np.zeros(outcomes)

    def add(self, values: ArrayLike) -> None:
        """Take in one participant's outcomes (M,)."""
        values = np.asarray(values, dtype=np.float64)
        known = np.isfinite(values)
        self.count += known
        change = np.where(known, values - self.mean, 0.0)
        self.mean += change / np.maximum(self.count, 1)
        self._squares += change * np.where(known, values - self.mean, 0.0)

    @property
    def known_mean(self) -> NDArray[np.float64]:
        """The means, NaN where nothing is known."""
        return np.where(self.count > 0, self.mean, np.nan)

    @property
    def sd(self) -> NDArray[np.float64]:
        """Sample standard deviations, NaN below two participants."""
        return np.sqrt(np.where(self.count > 1, self._squares / np.maximum(self.count - 1, 1), np.nan))


class Regression:
    """Least squares of M outcomes on P predictors, from sums of products.

    Parameters
    ----------
    outcomes, predictors
        M and P. Predictors should be scaled to about unit size, and the first one be a constant 1.
    """

    def __init__(self, outcomes: int, predictors: int) -> None:
        self._products = np.zeros((outcomes, predictors, predictors))
        self._moments = np.zeros((outcomes, predictors))
        self._squares = np.zeros(outcomes)
        self._origin: NDArray[np.float64] | None = None

    def add(self, predictors: ArrayLike, values: ArrayLike) -> None:
        """Take in one participant's predictors (P,) and outcomes (M,)."""
        x, y = np.asarray(predictors, dtype=np.float64), np.asarray(values, dtype=np.float64)
        if self._origin is None:  # sums of squares around a far origin would lose digits
            self._origin = np.where(np.isfinite(y), y, 0.0)
        known = np.isfinite(y).astype(np.float64)
        y = np.where(known > 0, y - self._origin, 0.0)
        self._products += known[:, None, None] * np.outer(x, x)
        self._moments += y[:, None] * x
        self._squares += y**2

    def test(self, which: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return t (M,) of the coefficient of predictor `which`, and its degrees of freedom (M,)."""
        count, n_predictors = self._products[:, 0, 0], self._products.shape[1]
        inverse = np.linalg.pinv(self._products, hermitian=True)
        full = np.linalg.matrix_rank(self._products, hermitian=True) == n_predictors
        coefficients = np.einsum("mpq,mq->mp", inverse, self._moments)
        residual = self._squares - np.einsum("mp,mp->m", coefficients, self._moments)
        df = count - n_predictors
        usable = full & (df > 0) & (residual > 1e-10 * np.maximum(self._squares, 1e-300))
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.sqrt(residual / df * inverse[:, which, which])
            return np.where(usable, coefficients[:, which] / error, np.nan), np.where(usable, df, np.nan)


def welch(first: Means, second: Means) -> Effects:
    """Compare two classes without assuming equal variances; g is scaled by the pooled standard deviation."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t, p = stats.ttest_ind_from_stats(
            second.mean, second.sd, second.count, first.mean, first.sd, first.count, equal_var=False
        )
        parts = [one.sd**2 / one.count for one in (first, second)]
        df = (parts[0] + parts[1]) ** 2 / (parts[0] ** 2 / (first.count - 1) + parts[1] ** 2 / (second.count - 1))
        within = first.count + second.count - 2
        pooled = np.sqrt(((first.count - 1) * first.sd**2 + (second.count - 1) * second.sd**2) / within)
        size = (second.mean - first.mean) / pooled
    return _effects_of_classes(size, t, df, p, first.count, second.count)


def adjusted(regression: Regression, first: Means, second: Means) -> Effects:
    """Compare two classes, held against each other as predictor 1 (0 first, 1 second), with the others held fixed."""
    t, df = regression.test(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        size = t * np.sqrt(1 / first.count + 1 / second.count)
    return _effects_of_classes(size, t, df, _two_sided(t, df), first.count, second.count)


def correlated(regression: Regression) -> Effects:
    """Effects of a number, predictor 1, as partial correlations with Fisher's interval."""
    t, df = regression.test(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        size = t / np.sqrt(t**2 + df)
        reach = stats.norm.ppf(0.975) / np.sqrt(df - 1)
        low, high = np.tanh(np.arctanh(size) - reach), np.tanh(np.arctanh(size) + reach)
    p = _two_sided(t, df)
    return Effects(size, low, high, t, df, p, benjamini_hochberg(p))


def benjamini_hochberg(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return adjusted p values (M,); NaN stays NaN and does not count."""
    q = np.full_like(p, np.nan)
    known = np.isfinite(p)
    if known.any():
        q[known] = stats.false_discovery_control(p[known])
    return q


def robust_z(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far values (N, M) lie from their column's median, in robust standard deviations (1.4826 MAD).

    NaN where the value is unknown, 0 in a column whose MAD is 0.
    """
    distance = values - np.nanmedian(values, axis=0)
    spread = 1.4826 * np.nanmedian(np.abs(distance), axis=0)
    return np.where(spread > 0, distance / np.where(spread > 0, spread, 1.0), 0.0 * distance)


def _effects_of_classes(
    size: NDArray[np.float64],
    t: NDArray[np.float64],
    df: NDArray[np.float64],
    p: NDArray[np.float64],
    first: NDArray[np.float64],
    second: NDArray[np.float64],
) -> Effects:
    """Return Hedges' g (small-sample correction of `size`) with its normal interval."""
    usable = (first >= _SMALLEST_GROUP) & (second >= _SMALLEST_GROUP) & np.isfinite(t)
    with np.errstate(divide="ignore", invalid="ignore"):
        g = size * (1 - 3 / (4 * (first + second - 2) - 1))
        error = np.sqrt((first + second) / (first * second) + g**2 / (2 * (first + second)))
    reach = stats.norm.ppf(0.975) * error
    g, low, high, t, df, p = (np.where(usable, values, np.nan) for values in (g, g - reach, g + reach, t, df, p))
    return Effects(g, low, high, t, df, p, benjamini_hochberg(p))


def _two_sided(t: NDArray[np.float64], df: NDArray[np.float64]) -> NDArray[np.float64]:
    return 2 * stats.t.sf(np.abs(t), df)
