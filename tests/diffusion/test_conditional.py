"""Laws of some columns given the others: the KDE's in closed form, the smoothed score's by its flow.

Slow twins have a loop for every sum. Statistical tests compare with a distribution function, at a
level that correct code fails once in a thousand seeds; seeds are fixed.
"""

import pickle

import joblib
import numpy as np
import oracles
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import cumulative_trapezoid, trapezoid
from scipy.stats import kstest, norm, qmc
from sklearn.exceptions import NotFittedError

from skdiffsmooth import KDESampler, ManifoldAdaptedDiffusion, SmoothedScoreDiffusion
from skdiffsmooth._engine.moments import Nodes
from skdiffsmooth._engine.posterior import Posterior

# Coarse, for what holds at any resolution.
COARSE = {"n_nodes": 16, "n_levels": 6, "n_steps": 6}
FAILS_ONCE_IN = 1e-3


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
    assert cumulated[-1] == pytest.approx(1, abs=1e-6)  # of the grid
    test = kstest(draws[:, 1], lambda x: np.interp(x, grid, cumulated))
    assert test.pvalue > FAILS_ONCE_IN


def test_given_values_far_from_the_data_find_the_nearest_rows():
    X = np.array([[0.0, 0.0], [1.0, 5.0]])
    kde = KDESampler(0.01).fit(X)
    assert_allclose(kde.sample(20, random_state=0, given={0: 1e6})[:, 1], 5.0, atol=0.06)
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
    assert_allclose(model.score_samples(Q, given=given), expected, atol=1e-9)


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
        assert_allclose(
            density, joint / trapezoid(joint, grid), rtol=1e-6, atol=1e-9
        )  # of the grid


def test_draws_follow_the_density_in_a_metric_with_a_background():
    X = table()
    model = SmoothedScoreDiffusion(0.4, 0.5, metric=0.5, background=0.3, **COARSE).fit(X)
    grid, density = conditional_grid(model, [0, 2], [0.8, -0.4], -12, 12, 721)
    cumulated = cumulative_trapezoid(density, grid, initial=0)
    assert cumulated[-1] == pytest.approx(1, abs=0.02)  # six steps of the solver
    draws = model.sample(1000, random_state=0, given={0: 0.8, 2: -0.4})
    test = kstest(draws[:, 1], lambda x: np.interp(x, grid, cumulated / cumulated[-1]))
    assert test.pvalue > FAILS_ONCE_IN


@pytest.mark.parametrize("rank", [3, 2])
@pytest.mark.parametrize("terminal", ["empirical", "gaussian"])
def test_the_density_integrates_to_one(terminal, rank):
    X = table(60)
    X[:, 2] = X[:, :2] @ [0.5, -1.0] if rank == 2 else X[:, 2]
    model = SmoothedScoreDiffusion(0.2, 0.4, terminal=terminal).fit(X)
    assert model.hull_.dimension == rank
    for value in (0.0, 1.0):
        grid, density = conditional_grid(model, [0, 2], [value, -value / 2])
        # The solver's error, as on the page on accuracy.
        assert trapezoid(density, grid) == pytest.approx(1, abs=3e-3)


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
    model = SmoothedScoreDiffusion(h, 0.6).fit(X)
    noised = np.cov(X.T) + h**2 * np.eye(3)
    given = np.array([0, 2])
    slope = noised[1, given] @ np.linalg.inv(noised[np.ix_(given, given)])
    variance = noised[1, 1] - slope @ noised[given, 1]
    for values in ([0.0, 0.0], [1.0, -0.5], [1.5, 0.5]):
        grid, density = conditional_grid(model, given, values, -6, 6, 241)
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
    # log p_v(a, b) is a sum, and so are its averages: this is exact.
    assert_allclose(found[1:], [found[0]] * 2, atol=1e-9)


@pytest.mark.parametrize(
    "model",
    [KDESampler(0.3), SmoothedScoreDiffusion(0.3, 0.5, **COARSE)],
    ids=["kde", "smoothed"],
)
class TestOfBoth:
    def test_moved_and_turned_data_have_the_moved_and_turned_law(self, model):
        X, Q = table(), table(10, seed=1)
        given = [1]
        expected = model.fit(X).score_samples(Q, given=given)
        turn = np.array([[0.6, 0.0, -0.8], [0.0, 1.0, 0.0], [0.8, 0.0, 0.6]])  # of the free columns
        move = np.array([3.0, -1.0, 7.0])
        found = model.fit(X @ turn + move).score_samples(Q @ turn + move, given=given)
        assert_allclose(found, expected, atol=1e-9)

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
            model.score_samples(X, given=["c", "a"]), model.score_samples(X, given=[0, 2])
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
            ({0: np.nan}, ValueError, "NaN or infinity"),
            ({0: "high"}, ValueError, "not numeric"),
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


def test_what_has_no_conditional_says_so():
    X = table()
    with pytest.raises(ValueError, match="kernel='gaussian'"):
        KDESampler(1.0, "tophat").fit(X).sample(given={0: 0.0})
    with pytest.raises(ValueError, match="kernel='gaussian'"):
        KDESampler(1.0, "cosine").fit(X).score_samples(X, given=[0])
    for model in (
        SmoothedScoreDiffusion(0.3, 0.5, kernel="temperature", **COARSE),
        ManifoldAdaptedDiffusion(0.3, 0.5, n_components=1, **COARSE),
    ):
        with pytest.raises(ValueError, match="same for all queries"):
            model.fit(X).sample(given={0: 0.0})
    stochastic = SmoothedScoreDiffusion(0.3, 0.5, solver="euler-maruyama", **COARSE).fit(X)
    assert np.isfinite(stochastic.sample(3, given={0: 0.0})).all()
    with pytest.raises(ValueError, match="stochastic"):
        stochastic.score_samples(X, given=[0])
    adaptive = SmoothedScoreDiffusion(0.3, 0.5, solver="adaptive", **COARSE).fit(X)
    with pytest.raises(ValueError, match="given cannot be combined with solver=Adaptive"):
        adaptive.sample(given={0: 0.0})
    with pytest.raises(ValueError, match="return_error=True cannot be combined with given"):
        stochastic.score_samples(X, given=[0], return_error=True)


def test_smoothing_along_components_is_the_same_everywhere_and_serves():
    X, Q = table(), table(5, seed=1)
    whole = SmoothedScoreDiffusion(0.3, 0.5, **COARSE).fit(X)
    components = ManifoldAdaptedDiffusion(0.3, 0.5, manifold="pca", n_components=3, **COARSE).fit(X)
    assert_allclose(
        components.score_samples(Q, given=[0]), whole.score_samples(Q, given=[0]), atol=1e-8
    )


def test_workers_precision_and_memory_change_nothing():
    X, Q = table(), table(9, seed=1)
    model = SmoothedScoreDiffusion(0.3, 0.5, **COARSE).fit(X)
    expected = model.score_samples(Q, given=[1])
    draws = model.sample(9, random_state=0, given={1: 0.2})
    small = model.set_params(memory_limit=0.2)
    assert_allclose(small.score_samples(Q, given=[1]), expected, atol=1e-9)
    model.set_params(memory_limit=1024, n_jobs=2)
    with joblib.parallel_config("threading"):
        assert_allclose(model.score_samples(Q, given=[1]), expected, atol=1e-9)
        assert_allclose(model.sample(9, random_state=0, given={1: 0.2}), draws, atol=1e-9)
    model.set_params(n_jobs=None, dtype="float32")
    # Rounding of exponents in single precision, 6e-8 of some hundreds, over six steps.
    assert_allclose(model.score_samples(Q, given=[1]), expected, atol=1e-2)


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
