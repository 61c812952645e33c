"""Tests of the monotone maps of single columns, and of which columns get one."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skdiffsmooth._coordinates.columns import ColumnSpace
from skdiffsmooth._coordinates.warp import ColumnWarp
from skdiffsmooth._utils.column_precision import column_precision

# Relative: some roundings of positions of size one.
ROUNDING = 1e-12

WARP = ColumnWarp(
    np.array([0, 2]), np.array([1.0, -3.0]), np.array([0.5, 20.0]), np.array([1e-2, 1e-5])
)


def fitted(X, weights=None):
    """Return the maps of a table's columns, or None."""
    weights = np.full(len(X), 1 / len(X)) if weights is None else weights / weights.sum()
    units = column_precision(X, weights).unit
    space = ColumnSpace.of(X, weights, units).warped(X, weights, units)
    return None if space is None else space.warp


def skewed(n=120, seed=0):
    """Return a log-normal, a normal and a Cauchy column."""
    rng = np.random.RandomState(seed)
    columns = [np.exp(1.5 * rng.normal(size=n)), rng.normal(size=n), rng.standard_cauchy(n)]
    return np.column_stack(columns)


def test_the_inverse_is_exact_at_any_distance():
    z = np.geomspace(1e-12, 1e6, 60)
    z = np.concatenate([-z[::-1], [0.0], z])
    Z = np.repeat(z[:, None], 3, axis=1)
    X = WARP.unmapped(Z)
    assert np.all(np.isfinite(X))
    assert np.all(np.diff(X, axis=0) > 0)
    # Near the center a position is rounded to 1e-16 of the center, and z to that over the width.
    assert_allclose(WARP.mapped(X), Z, rtol=ROUNDING, atol=1e-14)
    assert_array_equal(X[:, 1], Z[:, 1])


def test_slopes_are_derivatives_and_bounded_from_below():
    rng = np.random.RandomState(0)
    X = rng.standard_cauchy((200, 3)) * [1, 1, 100]
    h = 1e-5 * (1 + np.abs(X))
    for column in range(3):
        step = h * (np.arange(3) == column)
        slopes = (WARP.mapped(X + step) - WARP.mapped(X - step))[:, column] / (2 * h[:, column])
        # Second-order differences with relative steps of 1e-5.
        assert_allclose(WARP.slopes(X)[:, column], slopes, rtol=1e-6)
        gradient = (WARP.log_slopes(X + step) - WARP.log_slopes(X - step)) / (2 * h[:, column])
        expected = WARP.log_slope_gradient(X)[:, column]
        assert_allclose(gradient, expected, rtol=1e-5, atol=1e-8)
    assert np.all(WARP.log_slopes(X) > WARP.least_log_slope)
    assert WARP.log_slopes(np.full((1, 3), 1e15))[0] == pytest.approx(WARP.least_log_slope)


def test_skewed_and_heavy_tailed_columns_are_mapped_and_others_not():
    assert_array_equal(fitted(skewed()).columns, [0, 2])
    rng = np.random.RandomState(1)
    assert fitted(rng.normal(size=(300, 20))) is None
    assert fitted(rng.uniform(size=(300, 20))) is None
    assert "0: arcsinh(u)" in repr(fitted(skewed()))


@pytest.mark.parametrize("column", [0, 2])
def test_discrete_columns_and_those_in_relations_are_not_mapped(column):
    X = skewed()
    other = 2 - column
    coarse, spike, copied = X.copy(), X.copy(), np.column_stack([X, X[:, column]])
    coarse[:, column] = np.round(X[:, column])
    spike[: len(X) // 5, column] = np.median(X[:, column])
    total = np.column_stack([X, X[:, column] + X[:, 1]])
    for table in (coarse, spike, copied, total):
        assert_array_equal(fitted(table).columns, [other])


def test_fine_rounding_is_not_seen_as_structure():
    """Incomes in whole units are mapped nearly as before rounding, by a map that is wide in units."""
    X = np.exp(4 + 1.5 * np.random.RandomState(0).normal(size=(300, 1)))
    exact, rounded = fitted(X), fitted(np.round(X))
    assert exact.widths[0] < 4 < rounded.widths[0]
    assert np.corrcoef(exact.mapped(X)[:, 0], rounded.mapped(X)[:, 0])[0, 1] > 0.99


def test_few_rows_have_no_maps():
    assert fitted(skewed(20)) is None
    assert fitted(np.exp(3 * np.random.RandomState(0).normal(size=(30, 40)))) is None


def test_maps_move_with_the_columns():
    X = skewed()
    mapped = fitted(X).mapped(X)
    powers = 2.0 ** np.array([900, -7, -900])
    assert_array_equal(fitted(X * powers).mapped(X * powers)[:, [0, 2]], mapped[:, [0, 2]])
    turned = fitted(X[:, ::-1]).mapped(X[:, ::-1])
    assert_array_equal(turned[:, ::-1], mapped)
    shifted = fitted(X + 1e3).mapped(X + 1e3)
    # Positions near 1000 are rounded to 1e-13, and widths are above 0.01.
    assert_allclose(shifted[:, [0, 2]], mapped[:, [0, 2]], atol=1e-10)
    mirrored = fitted(-X).mapped(-X)
    assert_allclose(mirrored[:, 0], -mapped[:, 0], atol=ROUNDING)
    order = np.random.RandomState(0).permutation(len(X))
    assert_allclose(fitted(X[order]).mapped(X), mapped, rtol=ROUNDING)


def test_a_row_of_weight_k_is_k_rows():
    X = skewed(60)
    copies = np.arange(60) % 3 + 1
    weighted = fitted(X, copies.astype(float))
    repeated = np.repeat(X, copies, axis=0)
    assert_array_equal(weighted.columns, fitted(repeated).columns)
    assert_allclose(weighted.mapped(X), fitted(repeated).mapped(X), rtol=ROUNDING)


def test_maps_are_linear_from_where_the_rows_are_likeliest():
    rng = np.random.RandomState(0)
    X = np.column_stack([np.exp(rng.normal(size=500)), rng.normal(size=500) ** 2])
    warp = fitted(X)
    # The slopes of the two terms are equal at this share of the largest distance from the center.
    share = 1 / (warp.linear * np.abs((X - warp.centers) / warp.widths).max(axis=0))
    assert_allclose(share[0], 0.5)
    assert share[1] < 0.3
