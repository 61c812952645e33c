"""Tests of the sums over grids that pages of the gallery share."""

import math

import numpy as np
import pytest
from grids import regular_grid, renyi_divergence
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats


def rows(n, d, seed=0):
    return np.random.RandomState(seed).normal(size=(n, d))


def test_cells_of_a_box():
    grid = regular_grid([0, 0], [1, 2], 2)
    assert grid.points.tolist() == [[0.25, 0.5], [0.25, 1.5], [0.75, 0.5], [0.75, 1.5]]
    assert grid.volume == 0.5


def normal_divergence(m, s, t, order):
    """Of N(m, s^2) from N(0, t^2): van Erven & Harremoes, eq. 10; Gil et al. 2013."""
    if order == 1:
        return math.log(t / s) + (s**2 + m**2) / (2 * t**2) - 0.5
    v = order * t**2 + (1 - order) * s**2
    return order * m**2 / (2 * v) + math.log(v / (s ** (2 - 2 * order) * t ** (2 * order))) / (
        2 * (1 - order)
    )


ORDERS = (0.3, 0.5, 1.0, 1.5, 2.0)


@pytest.mark.parametrize("order", ORDERS)
def test_divergences_on_a_grid(order):
    grid = regular_grid(-15, 15, 3000)
    p, q = (stats.norm(m, s).logpdf(grid.points[:, 0]) for m, s in ((0.7, 0.9), (0, 1.2)))
    result = renyi_divergence(p, q, order, volume=grid.volume)
    # The rule of midpoints is exact for what is analytic and decays.
    assert result.value == pytest.approx(normal_divergence(0.7, 0.9, 1.2, order), rel=1e-9)
    assert result.standard_error == 0


def test_divergences_in_the_plane_add_up():
    grid = regular_grid([-9, -12], [11, 12], 200)
    p = stats.norm(1, 1).logpdf(grid.points[:, 0]) + stats.norm(0, 1.2).logpdf(grid.points[:, 1])
    q = stats.norm(0, 1).logpdf(grid.points[:, 0]) + stats.norm(0, 1).logpdf(grid.points[:, 1])
    expected = normal_divergence(1, 1, 1, 2.0) + normal_divergence(0, 1.2, 1, 2.0)
    result = renyi_divergence(p, q, 2.0, volume=grid.volume)
    assert result.value == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("order", ORDERS)
def test_divergences_from_draws(order):
    """500 estimates of 400 draws: mean and standard deviation as reported, within some standard errors.

    The bias of the logarithm is below a tenth of a standard error here; 4.5 of 500 are 0.2 of one.
    """
    rng = np.random.RandomState(0)
    p, q = stats.norm(0.7, 0.9), stats.norm(0, 1.2)
    result = []
    for _ in range(500):
        x = p.rvs(400, random_state=rng)
        result.append(renyi_divergence(p.logpdf(x), q.logpdf(x), order))
    values, errors = np.array([(one.value, one.standard_error) for one in result]).T
    expected = normal_divergence(0.7, 0.9, 1.2, order)
    assert values.mean() == pytest.approx(expected, abs=0.3 * values.std())
    assert errors.mean() == pytest.approx(values.std(), rel=0.2)
    z = np.abs(values - expected) / errors
    assert np.mean(z < 2) > 0.9


def test_errors_of_a_mean_of_log_ratios():
    p, q = rows(2, 50)
    result = renyi_divergence(p, q)
    assert result.value == pytest.approx(np.mean(p - q))
    assert result.standard_error == pytest.approx(np.std(p - q, ddof=1) / math.sqrt(50))
    assert result.effective_sample_size == pytest.approx(50)


@given(
    log_p=st.lists(st.floats(-3, 3), min_size=5, max_size=5),
    log_q=st.lists(st.floats(-3, 3), min_size=5, max_size=5),
)
@settings(max_examples=50, deadline=None)
def test_properties_of_divergences(log_p, log_q):
    """On five cells: zero of itself, not negative, growing with the order, skew symmetric."""
    p, q = (np.array(z) - np.log(np.sum(np.exp(z))) for z in (log_p, log_q))
    values = [renyi_divergence(p, q, order, volume=1.0).value for order in ORDERS]
    assert all(value >= -1e-12 for value in values)
    assert np.all(np.diff(values) >= -1e-12)
    for order in ORDERS:
        assert renyi_divergence(p, p, order, volume=1.0).value == pytest.approx(0, abs=1e-12)
    # a / (1 - a) D_{1-a}(q||p) = D_a(p||q)
    other = renyi_divergence(q, p, 0.7, volume=1.0).value
    assert values[0] == pytest.approx(0.3 / 0.7 * other, abs=1e-12)
    # The limit at one.
    near = renyi_divergence(p, q, 1 + 1e-6, volume=1.0).value
    assert near == pytest.approx(values[2], abs=1e-4)


def test_where_densities_are_zero():
    none = -np.inf
    half = math.log(0.5)
    p, q = np.array([half, half, none]), np.array([none, half, half])
    assert renyi_divergence(p, q, 1.0, volume=1.0).value == math.inf
    assert renyi_divergence(p, q, 2.0, volume=1.0).value == math.inf
    # (1/2)^a (1/2)^(1-a) in the one cell that they share
    assert renyi_divergence(p, q, 0.5, volume=1.0).value == pytest.approx(math.log(2) / 0.5)
    first, second = np.array([0.0, none]), np.array([none, 0.0])
    assert renyi_divergence(first, second, 0.5, volume=1.0).value == math.inf
    # Where p is zero q does not matter.
    result = renyi_divergence(first, np.array([half, half]), 2.0, volume=1.0)
    assert result.value == pytest.approx(math.log(2))


def test_mass_on_the_grid_is_checked():
    grid = regular_grid(-1, 1, 100)
    p = stats.norm.logpdf(grid.points[:, 0])
    with pytest.warns(UserWarning, match=r"p has mass 0\.6827"):
        renyi_divergence(p, p, volume=grid.volume)
    wide = regular_grid(-9, 9, 500)
    p = stats.norm.logpdf(wide.points[:, 0])
    with pytest.warns(UserWarning, match="q has 2"):
        renyi_divergence(p, p + math.log(2), volume=wide.volume)
