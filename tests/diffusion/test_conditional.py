"""Distributions of some columns given others: the KDE's in closed form, those of diffusions by weights.

Slow twins have a loop for every sum. Statistical tests compare with a distribution function, at a
level that correct code fails once in a thousand seeds; seeds are fixed.
"""

import pickle
import warnings
from types import SimpleNamespace

import joblib
import numpy as np
import oracles
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import cumulative_trapezoid, trapezoid
from scipy.stats import chisquare, kstest, norm, qmc
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture

from skdiffsmooth import (
    CoarseScoreDiffusion,
    KDESampler,
    ManifoldAdaptedDiffusion,
    SmoothedScoreDiffusion,
)
from skdiffsmooth._diffusion.conditional import (
    Conditional,
    draw_given_columns,
    together,
)
from skdiffsmooth._diffusion.joint_density import JointDensity
from skdiffsmooth._diffusion.weighted_draws import interpolated
from skdiffsmooth._engine.moments import Nodes
from skdiffsmooth._engine.posterior import Posterior
from skdiffsmooth.manifolds import Sphere

# Coarse, for what holds at any resolution.
COARSE = {"n_nodes": 16, "n_levels": 6, "n_steps": 6}
FAILS_ONCE_IN = 1e-3
# Errors of log p(b): of the quadrature with one free column, and three standard errors with two.
QUADRATURE, MONTE_CARLO = 0.01, 0.03


def table(n=40, d=3, seed=0):
    rng = np.random.RandomState(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d))


def twin_of_the_kde(kde, x, given):
    """log sum_i W_i(b) prod_j N(a_j; x_ij, h_j), a loop for every sum and product."""
    d = len(x)
    h = np.broadcast_to(kde.bandwidth_, d)
    free = [j for j in range(d) if j not in given]
    fit, density = 0.0, 0.0
    for point, weight in zip(kde.points_, kde.weights_, strict=True):
        share = weight
        for j in given:
            share *= norm.pdf(x[j], point[j], h[j])
        fit += share
        for j in free:
            share *= norm.pdf(x[j], point[j], h[j])
        density += share
    return np.log(density / fit)


# -------------------------------------------------------------------------------------- the KDE


@pytest.mark.parametrize("bandwidth", [0.5, [0.9, 0.4, 0.6]])
@pytest.mark.parametrize("given", [[1], [2, 0]])
def test_the_kde_has_its_exact_conditional_density(bandwidth, given):
    X = table()
    kde = KDESampler(bandwidth).fit(X, sample_weight=np.random.RandomState(1).uniform(size=len(X)))
    Q = table(8, seed=2)
    expected = [twin_of_the_kde(kde, x, given) for x in Q]
    # Rounding of exponents of at most some hundreds.
    assert_allclose(kde.score_samples(Q, given=given), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "kde",
    [KDESampler([0.3, 0.2, 0.4]), SmoothedScoreDiffusion(0.3, 0.0)],
    ids=["kde", "no-smoothing"],
)
def test_draws_of_the_kde_follow_its_conditional(kde):
    kde.fit(table())
    given = {0: 0.5, 2: -0.3}
    draws = kde.sample(3000, random_state=0, given=given)
    grid = np.linspace(-12, 12, 4001)
    rows = np.column_stack([np.full_like(grid, 0.5), grid, np.full_like(grid, -0.3)])
    cumulated = cumulative_trapezoid(np.exp(kde.score_samples(rows, given=[0, 2])), grid, initial=0)
    assert cumulated[-1] == pytest.approx(1, abs=QUADRATURE)
    test = kstest(draws[:, 1], lambda x: np.interp(x, grid, cumulated / cumulated[-1]))
    assert test.pvalue > FAILS_ONCE_IN


@pytest.mark.parametrize("bandwidths", [1.0, 1e2, 1e8])
def test_weights_of_given_values_are_accurate_at_any_distance(bandwidths):
    X = np.array([[0.0, 0.0], [1e-8, 5.0]])
    b = bandwidths
    # The squared distances differ by 2e-8 b; as numbers of size b^2 = 1e16 they would be equal.
    weight = 1 / (1 + np.exp(-1e-8 * b + 0.5e-16))
    expected = np.logaddexp(np.log1p(-weight) - 12.5, np.log(weight)) + norm.logpdf(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = KDESampler(1.0).fit(X).score_samples([[b, 5.0]], given=[0])
    assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("kernel", ["tophat", "epanechnikov", "exponential", "linear", "cosine"])
def test_radial_kernels_have_marginals_and_conditionals(kernel):
    kde = KDESampler([1.5, 2.0, 1.2], kernel).fit(table(20, seed=3))
    grid = np.linspace(-45, 45, 3001) if kernel == "exponential" else np.linspace(-12, 12, 2401)
    rows = np.tile([0.2, 0.0, -0.3], (len(grid), 1))
    rows[:, 1] = grid
    joint = np.exp(kde.score_samples(rows))
    # The grid's error is largest at the edges of the tophat kernel.
    assert_allclose(
        kde.score_samples(rows[:1], columns=[0, 2]), np.log(trapezoid(joint, grid)), atol=2e-3
    )
    density = np.exp(kde.score_samples(rows, columns=[1], given=[0]))
    assert trapezoid(density, grid) == pytest.approx(1, abs=2e-3)
    for given, of_grid in ({0: 0.2}, density), ({0: 0.2, 2: -0.3}, joint):
        draws = kde.sample(1000, random_state=0, given=given)[:, 1]
        cumulated = cumulative_trapezoid(of_grid, grid, initial=0)
        cumulated /= cumulated[-1]
        assert kstest(draws, lambda x, c=cumulated: np.interp(x, grid, c)).pvalue > FAILS_ONCE_IN


def test_a_compact_kernel_has_no_conditional_where_it_is_zero():
    kde = KDESampler(1.0, "tophat").fit(table())
    message = "density zero under the compact kernel"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the value is far from all rows
        with pytest.raises(ValueError, match=message):
            kde.sample(given={0: 90.0})
        with pytest.raises(ValueError, match=message):
            kde.score_samples([[90.0, 0.0, 0.0]], given=[0])


def test_given_values_far_from_the_data_find_the_nearest_rows():
    X = np.array([[0.0, 0.0], [1.0, 5.0]])
    kde = KDESampler(0.01).fit(X)
    with pytest.warns(UserWarning, match=r"by up to 1e\+08 bandwidths"):
        assert_allclose(kde.sample(20, random_state=0, given={0: 1e6})[:, 1], 5.0, atol=0.06)
    with pytest.warns(UserWarning, match="No row supports them"):
        assert np.isfinite(kde.score_samples([[1e6, 5.0]], given=[0])).all()


# ------------------------------------------------------------------------------ smoothed scores


def conditional_grid(model, given, values, low=-9, high=9, n=361):
    """Densities of the one free column on a grid, its other columns held."""
    d = model.n_features_in_
    (free,) = np.setdiff1d(np.arange(d), given)
    grid = np.linspace(low, high, n)
    rows = np.empty((n, d))
    rows[:, given] = values
    rows[:, free] = grid
    return grid, np.exp(model.score_samples(rows, given=given))


@pytest.mark.parametrize("given", [[1], [2, 0]])
def test_without_smoothing_it_is_the_kde(given):
    X = table()
    model = SmoothedScoreDiffusion(0.4, 0.0).fit(X)
    kde = KDESampler(0.4).fit(X)
    Q = table(20, seed=1)
    expected = kde.score_samples(Q, given=given)
    tolerance = QUADRATURE if len(given) == 2 else MONTE_CARLO
    assert_allclose(model.score_samples(Q, given=given), expected, atol=tolerance)


@pytest.mark.parametrize("metric", ["euclidean", 0.5, 1.0])
@pytest.mark.parametrize("background", [0.0, 0.2])
def test_without_smoothing_it_is_exact_in_any_metric_and_with_a_background(metric, background):
    X = table()
    model = SmoothedScoreDiffusion(0.4, 0.0, metric=metric, background=background).fit(X)
    for given, values in (([0, 2], [0.5, -0.3]), ([1, 0], [2.0, -4.0])):
        grid, density = conditional_grid(model, given, values, -30, 30, 6001)
        rows = np.empty((len(grid), 3))
        rows[:, given] = values
        rows[:, np.setdiff1d(range(3), given)[0]] = grid
        joint = np.exp(model.score_samples(rows))
        assert_allclose(density, joint / trapezoid(joint, grid), rtol=QUADRATURE, atol=1e-9)


def test_draws_follow_the_density_in_a_metric_with_a_background():
    X = table()
    model = SmoothedScoreDiffusion(0.4, 0.5, metric=0.5, background=0.3, **COARSE).fit(X)
    grid, density = conditional_grid(model, [0, 2], [0.8, -0.4], -12, 12, 721)
    cumulated = cumulative_trapezoid(density, grid, initial=0)
    assert cumulated[-1] == pytest.approx(1, abs=0.02)  # six steps of the solver
    draws = model.sample(1000, random_state=0, given={0: 0.8, 2: -0.4})
    test = kstest(draws[:, 1], lambda x: np.interp(x, grid, cumulated / cumulated[-1]))
    assert test.pvalue > FAILS_ONCE_IN


@pytest.mark.parametrize(("terminal", "rank"), [("empirical", 3), ("gaussian", 2)])
def test_the_density_integrates_to_one(terminal, rank):
    X = table(60)
    X[:, 2] = X[:, :2] @ [0.5, -1.0] if rank == 2 else X[:, 2]
    model = SmoothedScoreDiffusion(0.2, 0.4, terminal=terminal).fit(X)
    assert model.hull_.dimension == rank
    for value in (0.0, 1.0):
        grid, density = conditional_grid(model, [0, 2], [value, -value / 2])
        assert trapezoid(density, grid) == pytest.approx(1, abs=QUADRATURE)


@pytest.mark.parametrize("terminal", ["empirical", "gaussian"])
def test_draws_follow_the_density(terminal):
    X = table(60)
    model = SmoothedScoreDiffusion(0.2, 0.4, terminal=terminal).fit(X)
    grid, density = conditional_grid(model, [0, 2], [0.8, -0.4])
    cumulated = cumulative_trapezoid(density, grid, initial=0)
    draws = model.sample(1000, random_state=0, given={0: 0.8, 2: -0.4})
    # The solver moves the distribution function by less than a thousandth; 1000 draws see 0.06.
    test = kstest(draws[:, 1], lambda x: np.interp(x, grid, cumulated / cumulated[-1]))
    assert test.pvalue > FAILS_ONCE_IN


def test_a_gaussian_has_its_exact_conditional():
    # Quasi-random rows, for the data to be as Gaussian as so few can be.
    covariance = np.array([[1.0, 0.7, -0.3], [0.7, 1.0, 0.2], [-0.3, 0.2, 0.8]])
    X = qmc.MultivariateNormalQMC(np.zeros(3), covariance, seed=0).random(1024)
    h = 0.3
    model = SmoothedScoreDiffusion(h, 0.6, n_levels=12, n_steps=12).fit(X)
    noised = np.cov(X.T) + h**2 * np.eye(3)
    given = np.array([0, 2])
    slope = noised[1, given] @ np.linalg.inv(noised[np.ix_(given, given)])
    variance = noised[1, 1] - slope @ noised[given, 1]
    for values in ([0.0, 0.0], [1.5, 0.5]):
        grid, density = conditional_grid(model, given, values, -6, 6, 121)
        mean = trapezoid(density * grid, grid)
        spread = trapezoid(density * (grid - mean) ** 2, grid)
        # What 1024 quasi-random rows under so much noise are away from a Gaussian.
        assert mean == pytest.approx(slope @ values, abs=0.04)
        assert spread == pytest.approx(variance, rel=0.06)


def test_independent_blocks_do_not_know_of_each_other():
    a, b = np.random.RandomState(0).normal(size=(2, 9))
    X = np.array([[x, y] for x in a for y in b])
    model = SmoothedScoreDiffusion(0.2, 0.4, **COARSE).fit(X)
    grid = np.linspace(-3, 3, 11)
    found = [
        model.score_samples(np.column_stack([grid, np.full(11, value)]), given=[1])
        for value in (-1.0, 0.0, 1.5)
    ]
    # log p_v(a, b) is a sum, and so are its averages: up to the quadrature this is exact.
    assert_allclose(found[1:], [found[0]] * 2, atol=QUADRATURE)


@pytest.mark.parametrize(
    "model",
    [KDESampler(0.3), SmoothedScoreDiffusion(0.3, 0.5, **COARSE)],
    ids=["kde", "smoothed"],
)
class TestOfBoth:
    def test_moved_and_turned_data_have_the_moved_and_turned_law(self, model):
        X, Q = table(), table(3, seed=1)
        given = [1]
        expected = model.fit(X).score_samples(Q, given=given)
        turn = np.array([[0.6, 0.0, -0.8], [0.0, 1.0, 0.0], [0.8, 0.0, 0.6]])  # of the free columns
        move = np.array([3.0, -1.0, 7.0])
        found = model.fit(X @ turn + move).score_samples(Q @ turn + move, given=given)
        tolerance = 1e-9 if isinstance(model, KDESampler) else 2 * MONTE_CARLO
        assert_allclose(found, expected, atol=tolerance)

    def test_given_columns_come_back_as_given(self, model):
        values = np.linspace(-1, 1, 7)
        rows = model.fit(table()).sample(7, random_state=0, given={2: values, 0: 0.25})
        assert rows.shape == (7, 3)
        assert_array_equal(rows[:, 2], values)
        assert_array_equal(rows[:, 0], 0.25)
        again = model.sample(7, random_state=0, given={0: 0.25, 2: values})
        assert_array_equal(rows, again)

    def test_each_row_has_values_of_its_own(self, model):
        X = np.column_stack([np.repeat([0.0, 50.0], 20), table(40, 1)[:, 0]])
        X[20:, 1] += 100
        rows = model.fit(X).sample(200, random_state=0, given={0: np.tile([0.0, 50.0], 100)})
        assert np.all(rows[::2, 1] < 50)
        assert np.all(rows[1::2, 1] > 50)

    def test_names_stand_for_columns(self, model):
        X = pd.DataFrame(table(), columns=["a", "b", "c"])
        model.fit(X)
        assert_array_equal(
            model.score_samples(X[:3], given=["c", "a"]),
            model.score_samples(X[:3], given=[0, 2]),
        )
        assert_array_equal(
            model.sample(3, random_state=0, given={"b": 0.5}),
            model.sample(3, random_state=0, given={1: 0.5}),
        )

    def test_nothing_given_is_the_joint_law(self, model):
        X = table()
        model.fit(X)
        assert_array_equal(model.score_samples(X, given=[]), model.score_samples(X))
        assert_array_equal(model.sample(3, 0, given={}), model.sample(3, 0))

    def test_seeds_pickles_and_weights(self, model):
        X = table()
        model.fit(X, sample_weight=1 + np.arange(len(X)) % 2)
        draws = model.sample(5, random_state=3, given={0: 0.1})
        assert_array_equal(
            pickle.loads(pickle.dumps(model)).sample(5, random_state=3, given={0: 0.1}), draws
        )
        assert not np.array_equal(model.sample(5, random_state=4, given={0: 0.1}), draws)
        model.fit(np.repeat(X, 1 + np.arange(len(X)) % 2, axis=0))
        assert_array_equal(model.sample(5, random_state=3, given={0: 0.1}), draws)

    @pytest.mark.parametrize(
        ("given", "error", "message"),
        [
            ("a", TypeError, "collection"),
            (1, TypeError, "collection"),
            ([0.5], TypeError, "index or a name"),
            ([True], TypeError, "index or a name"),
            ([3], ValueError, "out of range"),
            ([-1], ValueError, "out of range"),
            ([0, 0], ValueError, "twice"),
            ([0, 1, 2], ValueError, "all 3 columns"),
            (["a"], ValueError, "no column names"),
        ],
    )
    def test_columns_that_do_not_fit(self, model, given, error, message):
        model.fit(table())
        with pytest.raises(error, match=message):
            model.score_samples(table(), given=given)

    @pytest.mark.parametrize(
        ("given", "error", "message"),
        [
            ([0], TypeError, "mapping"),
            ({0: np.nan}, ValueError, "NaN or infinite"),
            ({0: "high"}, ValueError, "not numeric"),
            ({0: "1"}, ValueError, "holds strings"),
            ({0: [1.0, "2", 3.0]}, ValueError, "holds strings"),
            ({0: 1.0, 1: 1.0, 2: 1.0}, ValueError, "all 3 columns"),
            ({0: [1.0, 2.0]}, ValueError, r"shape \(2,\)"),
            ({5: 1.0}, ValueError, "out of range"),
        ],
    )
    def test_values_that_do_not_fit(self, model, given, error, message):
        model.fit(table())
        with pytest.raises(error, match=message):
            model.sample(3, given=given)

    def test_unknown_names(self, model):
        X = pd.DataFrame(table(), columns=["a", "b", "c"])
        with pytest.raises(ValueError, match="expected one of 'a', 'b', 'c'"):
            model.fit(X).sample(given={"z": 1.0})

    def test_a_model_must_be_fitted(self, model):
        fresh = type(model)()
        with pytest.raises(NotFittedError):
            fresh.sample(given={0: 1.0})
        with pytest.raises(NotFittedError):
            fresh.score_samples(table(), given=[0])


def test_what_has_no_joint_density_says_so():
    X = table()
    stochastic = SmoothedScoreDiffusion(0.3, 0.5, solver="euler-maruyama", **COARSE).fit(X)
    with pytest.raises(ValueError, match="solver='heun'"):
        stochastic.sample(given={0: 0.0})
    with pytest.raises(ValueError, match="stochastic"):
        stochastic.score_samples(X, given=[0])
    coarse = CoarseScoreDiffusion(manifold=Sphere([0.0, 0.0, 0.0], 1.0), switch_scale=0.3).fit(X)
    with pytest.raises(ValueError, match=r"CoarseScoreDiffusion\(bandwidth="):
        coarse.sample(given={0: 0.0})
    with pytest.raises(ValueError, match="bandwidth > 0"):
        coarse.score_samples(X, columns=[0])


@pytest.mark.parametrize(
    "model",
    [
        SmoothedScoreDiffusion(0.3, 0.5, kernel="temperature", **COARSE),
        ManifoldAdaptedDiffusion(0.3, 0.5, n_components=1, **COARSE),
        SmoothedScoreDiffusion(0.3, 0.5, base=GaussianMixture(2, random_state=0), **COARSE),
        SmoothedScoreDiffusion(0.3, 0.5, solver="adaptive", **COARSE),
        CoarseScoreDiffusion(
            manifold=Sphere([0.0, 0.0, 0.0], 1.0), switch_scale=0.3, bandwidth=0.2
        ),
    ],
    ids=["temperature", "tangents", "base", "adaptive", "coarse"],
)
def test_every_joint_density_has_its_conditional(model):
    X = table()
    model.fit(X / np.linalg.norm(X, axis=1, keepdims=True))
    grid, density = conditional_grid(model, [0, 2], [0.3, -0.4], -4, 4, 321)
    rows = np.column_stack([np.full_like(grid, 0.3), grid, np.full_like(grid, -0.4)])
    joint = np.exp(model.score_samples(rows))
    assert_allclose(density, joint / trapezoid(joint, grid), rtol=2 * QUADRATURE, atol=1e-6)


# ------------------------------------------------------------------- the joint density's own


def twelve_points():
    """Twelve points of a circle, on which the former conditional flow lost one of two modes."""
    angles = 2 * np.pi * (np.arange(12) + 0.3) / 12
    return np.column_stack([np.cos(angles), np.sin(angles)])


@pytest.mark.parametrize("value", [-0.1, 0.9])
def test_on_a_sparse_circle_it_is_that_of_the_joint_density(value):
    model = SmoothedScoreDiffusion(0.1, 0.3).fit(twelve_points())
    grid = np.linspace(-3, 3, 601)
    rows = np.column_stack([np.full_like(grid, value), grid])
    joint = np.exp(model.score_samples(rows))
    marginal = trapezoid(joint, grid)
    found = np.exp(model.score_samples(rows, given=[0]))
    assert trapezoid(abs(found - joint / marginal), grid) / 2 < 0.01
    log_density, error = model.score_samples([[value, np.nan]], columns=[0], return_error=True)
    assert abs(log_density[0] - np.log(marginal)) <= error[0] <= QUADRATURE
    draws = model.sample(2000, random_state=0, given={0: value})[:, 1]
    cumulated = cumulative_trapezoid(joint / marginal, grid, initial=0)
    counts, _ = np.histogram(np.interp(draws, grid, cumulated), 20, (0, 1))
    assert chisquare(counts).pvalue > FAILS_ONCE_IN


def test_two_free_columns_against_a_grid():
    X = np.column_stack([twelve_points(), np.linspace(-0.5, 0.5, 12)])
    model = SmoothedScoreDiffusion(0.2, 0.3, **COARSE).fit(X)
    axis = np.linspace(-2.2, 2.2, 67)
    rows = np.stack(np.meshgrid([0.4], axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    joint = np.exp(model.score_samples(rows)).reshape(67, 67)
    # The trapezoidal rule is exact here to four digits: the grid is a third of a bandwidth wide.
    marginal = joint.sum() * (axis[1] - axis[0]) ** 2
    log_density, error = model.score_samples(rows[:1], columns=[0], return_error=True)
    assert error[0] < 0.012
    assert log_density[0] == pytest.approx(np.log(marginal), abs=MONTE_CARLO)
    draws = model.sample(600, random_state=0, given={0: 0.4})
    assert len(np.unique(draws, axis=0)) > 595
    for column, density in (1, joint.sum(axis=1)), (2, joint.sum(axis=0)):
        cumulated = np.cumsum(density) / density.sum()
        middle = axis + (axis[1] - axis[0]) / 2
        counts, _ = np.histogram(np.interp(draws[:, column], middle, cumulated), 12, (0, 1))
        assert chisquare(counts).pvalue > FAILS_ONCE_IN


def test_marginals_integrate_to_one_and_multiply():
    model = SmoothedScoreDiffusion(0.4, 0.5, **COARSE).fit(table(d=2))
    grid = np.linspace(-9, 9, 145)
    rows = np.column_stack([grid, np.full_like(grid, np.nan)])
    density = np.exp(model.score_samples(rows, columns=[0]))
    assert trapezoid(density, grid) == pytest.approx(1, abs=QUADRATURE)
    Q = table(5, 2, seed=1)
    total = model.score_samples(Q, columns=[0]) + model.score_samples(Q, given=[0])
    assert_allclose(total, model.score_samples(Q), atol=1e-9)


def test_columns_that_are_integrated_out_may_be_missing_and_others_not():
    X = pd.DataFrame(table(), columns=["a", "b", "c"])
    Q = X[:4].assign(b=[np.nan, np.inf, 1e300, 0.0])
    for model in KDESampler(0.3).fit(X), SmoothedScoreDiffusion(0.3, 0.2, **COARSE).fit(X):
        expected = model.score_samples(X[:4], columns=["c"], given=["a"])
        assert_array_equal(model.score_samples(Q, columns=["c"], given=["a"]), expected)
        with pytest.raises(ValueError, match=r"NaN|infinity"):
            model.score_samples(Q, columns=["b"])
        for columns, given, message in (
            ([], None, "empty"),
            (["a"], ["a"], "share column"),
            (["z"], None, "not known"),
            (["a", 0], None, "twice"),
        ):
            with pytest.raises(ValueError, match=message):
                model.score_samples(X, columns=columns, given=given)


def test_labels_that_are_integers_are_not_taken_for_indices():
    X = pd.DataFrame(table(d=2), columns=[1, 0])
    kde = KDESampler(0.3).fit(X)
    assert_array_equal(kde.sample(3, random_state=0, given={0: 0.5})[:, 1], 0.5)
    years = X.set_axis([2020, 2021], axis=1)
    kde.fit(years)
    assert_array_equal(kde.sample(3, random_state=0, given={2021: 0.5})[:, 1], 0.5)
    with pytest.raises(ValueError, match="expected one of 2020, 2021"):
        kde.sample(3, given={0: 0.5})
    assert_array_equal(kde.fit(years.to_numpy()).sample(3, 0, given={0: 0.5})[:, 0], 0.5)


def test_a_row_does_not_depend_on_the_others_or_on_how_they_are_cut():
    X, Q = table(), table(6, seed=1)
    model = SmoothedScoreDiffusion(0.3, 0.5, **COARSE).fit(X)
    expected = model.score_samples(Q, given=[0, 1])
    assert_allclose(model.score_samples(Q[2:3], given=[0, 1]), expected[2:3], atol=1e-9)
    values = {0: Q[:, 0], 1: Q[:, 1]}
    draws = model.sample(6, random_state=0, given=values)
    model.set_params(memory_limit=1)
    assert_allclose(model.score_samples(Q, given=[0, 1]), expected, atol=1e-9)
    assert_allclose(model.sample(6, random_state=0, given=values), draws, atol=1e-9)


def test_rows_that_a_relation_determines_are_drawn_on_it():
    X = table(60)
    X[:, 2] = 3 - X[:, 0]
    model = SmoothedScoreDiffusion(0.2, 0.4, **COARSE).fit(X)
    frame_of = model._joint_density(model._resources())
    # The residual of a relation may be as narrow as rounding.
    frame_of.scales[:, 2] = 1e-12
    conditional = Conditional(frame_of, np.array([0, 2]), 1024)
    (kernels, *_) = conditional._kernels(np.array([[0.5, 2.5]]))
    assert np.abs(kernels.given).max() < 100
    row = frame_of.origin + kernels.at(kernels.given, np.zeros((1, 1))) @ frame_of.axes
    assert_allclose(row[0, [0, 2]], [0.5, 2.5], atol=1e-13)


def test_columns_that_determine_the_others_have_their_exact_density():
    X, Q = table(60), table(6, seed=1)
    X[:, 2], Q[:, 2] = 3 - 2 * X[:, 0] + X[:, 1], np.nan
    # Without smoothing no flow has an error.
    model = SmoothedScoreDiffusion(0.3, 0.0, metric="scaled").fit(X)
    _, error = model.score_samples(Q, columns=[0, 1], return_error=True)
    assert_array_equal(error, 0)
    # Wide enough for all but 1e-4 of the mass; the rule is exact to less for so wide kernels.
    axes = [np.linspace(column.min() - 3, column.max() + 3, 41) for column in X.T]
    grid = np.full((41, 41, 3), np.nan)
    grid[..., :2] = np.stack(np.meshgrid(*axes[:2], indexing="ij"), axis=-1)
    values = np.exp(model.score_samples(grid.reshape(-1, 3), columns=[0, 1])).reshape(41, 41)
    assert trapezoid(trapezoid(values, axes[1]), axes[0]) == pytest.approx(1, abs=1e-3)
    given = model.score_samples(X[:6], columns=[0], given=[1])
    total = given + model.score_samples(X[:6], columns=[1])
    expected = model.score_samples(X[:6], columns=[0, 1])
    assert_allclose(total, expected, atol=0.05)  # of two integrals over two columns


def test_smoothing_along_components_is_the_same_everywhere_and_serves():
    X, Q = table(), table(1, seed=1)
    whole = SmoothedScoreDiffusion(0.3, 0.5, **COARSE).fit(X)
    components = ManifoldAdaptedDiffusion(0.3, 0.5, manifold="pca", n_components=3, **COARSE).fit(X)
    assert_allclose(
        components.score_samples(Q, given=[0]), whole.score_samples(Q, given=[0]), atol=1e-8
    )


def test_workers_and_precision_change_nothing():
    X, Q = table(), table(4, seed=1)
    model = SmoothedScoreDiffusion(0.3, 0.5, **COARSE).fit(X)
    expected = model.score_samples(Q, given=[0, 1])
    draws = model.sample(9, random_state=0, given={0: 0.3, 1: 0.2})
    model.set_params(n_jobs=2)
    with joblib.parallel_config("threading"):
        assert_allclose(model.score_samples(Q, given=[0, 1]), expected, atol=1e-9)
        found = model.sample(9, random_state=0, given={0: 0.3, 1: 0.2})
        assert_allclose(found, draws, atol=1e-9)
    model.set_params(n_jobs=None, dtype="float32")
    # Rounding of exponents in single precision, 6e-8 of some hundreds, over six steps.
    assert_allclose(model.score_samples(Q, given=[0, 1]), expected, atol=1e-2)


# --------------------------------------------------------------- traces over some coordinates


@pytest.mark.parametrize("n_points", [7, 130])
@pytest.mark.parametrize("v", [4.0, 0.05, 1e-3, 1e-11])
def test_traces_weigh_coordinates_by_trace_weights(n_points, v):
    rng = np.random.RandomState(0)
    points, queries, offsets = (rng.normal(size=(n, 3)) for n in (n_points, 5, 4))
    offsets -= offsets.mean(0)
    if v < 1e-6:  # near some points, where differences of coordinates are taken
        queries, offsets = points[:5] + 1e-6, 1e-6 * offsets
    log_weights = np.full(n_points, -np.log(n_points))
    trace_weights = np.array([1.0, 0.0, 2.5])
    posterior = Posterior(
        torch.tensor(points),
        torch.tensor(log_weights),
        memory_limit=16.0,
        trace_weights=torch.tensor(trace_weights),
    )
    max_norm = float(np.linalg.norm(offsets, axis=1).max())
    nodes = Nodes(torch.tensor(offsets), torch.full((4,), 0.25, dtype=torch.float64), max_norm)
    found = posterior.moments(torch.tensor(queries), v, nodes, trace=True)
    for query, trace in zip(queries, found.trace, strict=True):
        expected = 0.0
        for offset in offsets:
            seen = oracles.posterior(points, log_weights, query + offset, v)
            expected += seen.weights @ ((points - seen.mean) ** 2 @ trace_weights) / 4
        # Rounding of second moments, of size one.
        assert float(trace) == pytest.approx(float(expected), abs=1e-9)


def test_reported_errors_of_two_free_columns_are_the_true_ones():
    # A kernel density estimate, whose marginals are exact, with proposals that are wider than it. With
    # half as many scramblings, and draws that end as soon as their error is small, the ratio was 1.36.
    rng = np.random.RandomState(0)
    t = rng.uniform(0, 2 * np.pi, 150)
    X = np.column_stack([np.cos(t), np.sin(t), 0.3 * np.cos(2 * t)]) + 0.05 * rng.normal(
        size=(150, 3)
    )
    h, first = 0.15, np.array([0])
    kde = KDESampler(h).fit(X)
    joint = JointDensity(
        kde.score_samples,
        kde.score_samples,
        np.zeros(3),
        np.eye(3),
        0.0,
        X,
        np.full(150, 1 / 150),
        np.array([[0.16], [0.2], [0.29]]) * np.ones(3),
    )
    conditional = Conditional(joint, first, 1024.0)
    values = np.linspace(-1, 1, 24)[:, None]
    exact = KDESampler(h).fit(X[:, :1]).score_samples(values)
    ratios = []
    for seed in range(6):
        base = conditional._base(4096, seed)
        rounds = conditional._pool(values, base, 64)
        (pool,) = together(joint, [rounds])
        ratios.append((pool.log_marginal - exact) / pool.error)
    assert np.sqrt(np.mean(np.square(ratios))) < 1.25


def test_draws_of_a_condition_are_uniform_in_the_radius():
    """Moving only draws that repeat others fails: they are where proposals are rarer than draws."""
    rows = 2.0 * np.random.RandomState(0).normal(size=(200, 3))
    joint = JointDensity.of_draws(lambda X: norm.logpdf(X).sum(axis=1), rows)
    given = np.full((32, 1), 0.1)
    drawn = np.concatenate(
        [
            draw_given_columns(joint, np.array([0]), given, np.random.RandomState(seed), 64.0)
            for seed in range(150)
        ]
    )
    outside = np.exp(-np.sum(drawn[:, 1:] ** 2, axis=1) / 2)
    assert chisquare(np.bincount((8 * outside).astype(int), minlength=8)).pvalue > FAILS_ONCE_IN


def test_errors_that_were_asked_for_are_no_reason_to_warn():
    """Sums that end at an error of 0.5 nats did not end because draws ran out."""
    X = np.random.default_rng(0).normal(size=(40, 6))
    model = SmoothedScoreDiffusion(0.3, 1.0, **COARSE).fit(X)
    joint = model._joint_density(model._resources())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        integral = Conditional(joint, np.array([0, 1]), 1024, 0.5).log_marginal(1.5 * X[:, :2])
        ((_, error),) = together(joint, [integral])
    assert 0.25 < error.max() < 0.5


@pytest.mark.parametrize("ends", [(1.0, 3.0), (2.0, 0.5), (1.0, 1.0), (0.0, 2.0)])
def test_draws_between_two_nodes_have_a_linear_density(ends):
    """The distribution function of a + (b - a) x on [0, 1], at the draws, is the uniform number."""
    a, b = ends
    with np.errstate(divide="ignore"):
        log_target = np.log([[a, b]])
    position = np.array([[0.0, 1.0]])
    pool = SimpleNamespace(log_ratio=np.zeros((1, 2)), position=position, log_target=log_target)
    pool.coordinates = np.array([[[0.0], [1.0]]])
    uniform = np.column_stack([np.full(9, 0.5), np.linspace(0.05, 0.95, 9)])
    x = interpolated(pool, np.zeros(9, dtype=np.intp), uniform)[:, 0]
    assert_allclose((a * x + (b - a) * x**2 / 2) / ((a + b) / 2), uniform[:, 1], rtol=1e-12)
