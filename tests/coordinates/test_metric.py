"""Tests of the metric and the background: models in other coordinates, and mixtures with a wide KDE."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.linalg import fractional_matrix_power
from scipy.stats import multivariate_t

from skdiffsmooth import KDESampler, ManifoldAdaptedDiffusion, SmoothedScoreDiffusion
from skdiffsmooth._coordinates.local_covariance import local_covariance
from skdiffsmooth._coordinates.metric import candidate_metrics, fit_metric
from skdiffsmooth._diffusion.background import background_weight, mixed
from skdiffsmooth._utils.rows import merge_duplicates
from skdiffsmooth.kernels import AnisotropicGaussianKernel
from skdiffsmooth.manifolds import Circle

# Relative: a position is rounded to 1e-16 of its size, and log-densities differ by that over the
# bandwidth, times the 64 field evaluations of a flow.
ROUNDING = 1e-9


def correlated(n=40, d=3, seed=0):
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(d, d)) + np.diag(np.linspace(3, 0.3, d))
    return rng.standard_t(5, size=(n, d)) @ mix + 10


def factor_of(metric, X):
    """The oracle: the matrix A of z = A x, from scipy's matrix powers."""
    if isinstance(metric, np.ndarray):
        return fractional_matrix_power(metric, 0.5)
    if metric == "euclidean":
        return np.eye(X.shape[1])
    power = {"scaled": 0.0, "whitened": 1.0}.get(metric, metric)
    scales = X.std(axis=0)
    correlations = np.corrcoef(X.T)
    return fractional_matrix_power(correlations, -power / 2) / scales


MATRIX = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 3.0]])
METRICS = ["euclidean", "scaled", 0.3, "whitened", MATRIX]
SMALL = {"n_nodes": 8, "n_levels": 4, "n_steps": 4}


@pytest.mark.parametrize(
    "metric", METRICS, ids=["euclidean", "scaled", "0.3", "whitened", "matrix"]
)
def test_a_metric_is_the_euclidean_model_of_transformed_rows(metric):
    X = correlated()
    A = factor_of(metric, X)
    queries = correlated(10, seed=1)
    # Rows that are whitened before have no axes to lay nodes along, so there a KDE is compared.
    sigma = 0.0 if isinstance(metric, str) and metric == "whitened" else 0.5
    here = SmoothedScoreDiffusion(0.3, sigma, metric=metric, background=0.1, **SMALL).fit(X)
    there = SmoothedScoreDiffusion(0.3, sigma, background=0.1, **SMALL).fit(X @ A.T)
    volume = np.linalg.slogdet(A)[1]
    expected = there.score_samples(queries @ A.T) + volume
    assert_allclose(here.score_samples(queries), expected, rtol=ROUNDING)
    # Rows are in another order, so their log-densities are compared sorted.
    leave_one_out = np.sort(there.leave_one_out_log_density()) + volume
    assert_allclose(np.sort(here.leave_one_out_log_density()), leave_one_out, rtol=ROUNDING)
    gradient = there.grad_log_density(queries @ A.T) @ A
    assert_allclose(here.grad_log_density(queries), gradient, rtol=ROUNDING, atol=ROUNDING)
    assert_allclose(here.energy(queries), there.energy(queries @ A.T) - volume, rtol=ROUNDING)


@pytest.mark.parametrize(
    "metric", METRICS, ids=["euclidean", "scaled", "0.3", "whitened", "matrix"]
)
def test_samples_are_in_the_users_units(metric):
    # One distinct row of training data: its noise is N(x, bandwidth^2 (A^T A)^-1), exactly.
    X = correlated()
    A = factor_of(metric, X)
    model = SmoothedScoreDiffusion(0.3, 0.0, metric=metric).fit(X)
    drawn = model.sample(4000, random_state=0)
    covariance = np.cov(X.T, bias=True) + 0.09 * np.linalg.inv(A.T @ A)
    # Eight standard errors of a variance of 4000 draws with the data's kurtosis, about 5.
    scales = np.sqrt(np.diag(covariance))
    error = np.abs(np.cov(drawn.T) - covariance) / np.outer(scales, scales)
    assert error.max() < 8 * np.sqrt(5 / 4000)
    assert np.abs((drawn.mean(axis=0) - X.mean(axis=0)) / scales).max() < 8 / np.sqrt(4000)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.floats(-6, 6), min_size=3, max_size=3),
    st.sampled_from(["scaled", 0.4, "whitened"]),
)
def test_results_do_not_depend_on_units_of_columns(exponents, metric):
    units = 10.0 ** np.array(exponents)
    X, queries = correlated(20), correlated(5, seed=1)
    model = SmoothedScoreDiffusion(0.3, 0.4, metric=metric, **SMALL)
    plain = model.fit(X).score_samples(queries)
    changed = model.fit(X * units).score_samples(queries * units)
    # The condition number of the correlations, about 1e2, multiplies the rounding.
    assert_allclose(changed + np.log(units).sum(), plain, rtol=1e-7)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_whitened_is_the_same_for_every_linear_map(seed):
    mix = np.random.default_rng(seed).normal(size=(3, 3)) + 2 * np.eye(3)
    if np.linalg.cond(mix) > 1e4:
        return
    X, queries = correlated(20), correlated(5, seed=1)
    # Nodes lie along principal axes, which a linear map changes: a KDE has none.
    model = SmoothedScoreDiffusion(0.4, 0.0, metric="whitened")
    plain = model.fit(X).score_samples(queries)
    changed = model.fit(X @ mix.T).score_samples(queries @ mix.T)
    assert_allclose(changed + np.linalg.slogdet(mix)[1], plain, rtol=1e-6)


def test_local_kernels_are_as_wide_as_labels_with_and_without_a_relation():
    rng = np.random.RandomState(0)
    labels = np.eye(3)[rng.randint(3, size=150)]
    X = np.column_stack([rng.normal(size=150) + labels @ [0, 3, 6], labels])
    widths = []
    # The last indicator is a relation, and says nothing new.
    for d in (3, 4):
        points, weights = merge_duplicates(X[:, :d], np.ones(150))
        metric = fit_metric("local", points, weights)
        steps = metric.steps_from_metric(np.eye(metric.basis.shape[1]) @ metric.basis.T)
        std = np.linalg.norm(steps, axis=0)
        widths.append(std[1:3] / std[0])
    # A quarter of the step between two labels is far more than that of the rows in one label.
    assert np.all(widths[1] > 0.5 * widths[0])
    assert np.all(widths[0] > 0.1)


def test_the_local_covariance_is_that_of_all_pairs():
    """Expectation maximisation, one pair of rows after another."""
    rows, weights = correlated(12), np.random.default_rng(1).dirichlet(np.ones(12))
    rows = rows - weights @ rows
    rows = np.linalg.solve(np.linalg.cholesky((rows.T * weights) @ rows), rows.T).T
    covariance = (4 / (12 * 5)) ** (2 / 7) * np.eye(3)
    for _ in range(25):
        updated = 1e-4 * np.eye(3)
        for i, x in enumerate(rows):
            steps = x - np.delete(rows, i, axis=0)
            squares = np.einsum("ij,ij->i", steps, np.linalg.solve(covariance, steps.T).T)
            shares = np.delete(weights, i) * np.exp(-squares / 2)
            updated += weights[i] * (steps.T * shares) @ steps / shares.sum()
        covariance = updated
    assert_allclose(local_covariance(rows, weights, rows), covariance, rtol=1e-7, atol=1e-9)


def test_the_density_in_a_metric_has_mass_one():
    X = correlated(30, d=2)
    model = SmoothedScoreDiffusion(0.35, 0.5, metric="whitened", background=0.05).fit(X)
    lower, upper = X.min(axis=0), X.max(axis=0)
    # A grid of 80 x 80 over twice the range: cells below half a bandwidth in the metric.
    axes = [
        np.linspace(a - 0.5 * (b - a), b + 0.5 * (b - a), 80)
        for a, b in zip(lower, upper, strict=True)
    ]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    cell = np.prod([axis[1] - axis[0] for axis in axes])
    assert abs(cell * np.exp(model.score_samples(grid)).sum() - 1) < 1e-2


def test_weights_count_in_the_metric_as_equal_rows_do():
    X = correlated(15)
    weights = np.arange(15) % 3
    by_weight = SmoothedScoreDiffusion(0.3, 0.4, metric=0.5, **SMALL).fit(X, sample_weight=weights)
    by_rows = SmoothedScoreDiffusion(0.3, 0.4, metric=0.5, **SMALL).fit(
        np.repeat(X, weights, axis=0)
    )
    assert_allclose(by_weight.score_samples(X), by_rows.score_samples(X), rtol=ROUNDING)


def test_a_background_is_a_mixture_with_a_wide_kde_and_a_t_distribution():
    X, queries = correlated(), correlated(10, seed=1)
    model = SmoothedScoreDiffusion(0.3, 0.5, background=0.2, **SMALL).fit(X)
    alone = SmoothedScoreDiffusion(0.3, 0.5, **SMALL).fit(X).score_samples(queries)
    wide = KDESampler(4 * 0.3).fit(X).score_samples(queries)
    tail, hull = model.model_.tail, model.hull_
    student, axes = tail.student, hull.basis
    heavy = multivariate_t(
        hull.center + axes @ student.center,
        axes @ student.factor @ student.factor.T @ axes.T,
        df=student.degrees,
    ).pdf(queries)
    # A kernel density estimate keeps 0.019 of the background at least.
    weight = min(0.2 * tail.weight, 0.2 - 0.019)
    expected = np.log(0.8 * np.exp(alone) + (0.2 - weight) * np.exp(wide) + weight * heavy)
    assert_allclose(model.score_samples(queries), expected, rtol=ROUNDING)


def test_samples_with_a_background_are_of_the_mixture():
    # Two far rows in the plane: what lies more than 5 bandwidths from both is the background's alone.
    # Half of it is a kernel density estimate, of which exp(-5^2 / (2 * 4^2)) = 0.458 do; the other is
    # a t distribution of scales in the hundreds, of which nearly all does.
    # (Two rows span a line: the flow runs in one dimension, the residual has the other.)
    X = np.array([[0.0, 0.0], [1000.0, 0.0]])
    model = SmoothedScoreDiffusion(1.0, 0.5, background=0.3, **SMALL).fit(X)
    half = replace(model.model_, tail=replace(model.model_.tail, weight=0.5))
    drawn = half.draw(4000, np.random.RandomState(0), model._resources())
    distance = np.minimum(*(np.linalg.norm(drawn - x, axis=1) for x in X))
    expected = 0.15 * (1 + np.exp(-25 / 32)) + 0.7 * np.exp(-25 / 2)
    # Five standard errors: correct code fails one seed in a million.
    assert abs((distance > 5).mean() - expected) < 5 * np.sqrt(expected / 4000)


def test_the_weight_of_a_background_is_the_best_one():
    rng = np.random.default_rng(0)
    flow, wide = rng.normal(-3, 2, size=50), rng.normal(-3.5, 1, size=50)
    heavy = rng.normal(-4, 0.5, size=50)
    parts, weights = np.column_stack([flow, wide, heavy]), rng.dirichlet(np.ones(50))
    best = background_weight(parts, 0.4, weights)
    grid = np.linspace(0.02, 0.9, 2000)
    values = []
    for b in grid:
        t = np.clip(0.4 * b, 0.05 * b, max(0.05 * b, b - 0.019))
        log_weights = np.log([1 - b, b - t, t])
        values.append(weights @ np.logaddexp.reduce(parts + log_weights, axis=1))
    assert abs(best - grid[np.argmax(values)]) < 2e-3
    # Rows in parts, with tails of their own.
    many, tails = np.tile(parts, (200, 1)), np.linspace(0, 1, 10_000)
    best = background_weight(many, tails, np.full(10_000, 1e-4))
    of_rows = [mixed(many, b, tails).mean() for b in (best, 0.998 * best, 1.002 * best)]
    assert of_rows[0] > max(of_rows[1:])
    # Where no background is needed, it costs 0.02 nats.
    parts = np.column_stack([flow, flow - 100, flow - 100])
    least = background_weight(parts, 0.4, weights)
    assert 0.02 <= least < 0.021
    assert weights @ (flow - mixed(parts, least, 0.4)) < 0.0215


def test_given_scales_give_the_plain_model():
    X = correlated()
    model = SmoothedScoreDiffusion(0.5, 0.0).fit(X)
    assert (model.metric_, model.background_) == ("euclidean", 0.0)
    assert_allclose(model.score_samples(X), KDESampler(0.5).fit(X).score_samples(X), rtol=ROUNDING)


@pytest.mark.slow
def test_defaults_beat_the_kde_of_every_metric():
    # Heavy tails, correlated columns of different units: what defaults are made for.
    X, test = correlated(200, seed=3), correlated(400, seed=4)
    X, test = np.vstack([X, test])[::3], np.vstack([X, test])[1::3]
    best = max(
        SmoothedScoreDiffusion("loo", 0.0, metric=metric, background=0.0).fit(X).score(test)
        for metric in candidate_metrics(X.shape[1])
    )
    assert SmoothedScoreDiffusion().fit(X).score(test) > best


def test_shapes_with_units_and_known_manifolds_stay_in_the_users_coordinates():
    X = correlated(30)
    shaped = SmoothedScoreDiffusion(kernel=AnisotropicGaussianKernel("data")).fit(X)
    assert shaped.metric_ == "euclidean"
    angle = np.linspace(0, 6, 20)
    ring = np.column_stack([np.cos(angle), np.sin(angle)])
    circle = Circle([0.0, 0.0], 1.0)
    model = ManifoldAdaptedDiffusion(manifold=circle).fit(ring)
    assert (model.metric_, model.background_) == ("euclidean", 0.0)
    with pytest.raises(ValueError, match="metric='scaled' cannot be combined"):
        ManifoldAdaptedDiffusion(manifold=circle, metric="scaled").fit(ring)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"metric": "cosine"}, ValueError, "metric='cosine' is not known"),
        ({"metric": None}, TypeError, "metric=None has type NoneType"),
        ({"metric": 1.5}, ValueError, "expected a finite number >= 0 and <= 1"),
        ({"metric": -0.5}, ValueError, "metric=-0.5 is out of range"),
        ({"metric": np.eye(2)}, ValueError, r"metric has shape \(2, 2\); expected \(3, 3\)"),
        ({"metric": np.diag([1, 1, 0])}, ValueError, "positive definite"),
        ({"metric": np.triu(np.ones((3, 3)))}, ValueError, "not symmetric"),
        ({"metric": np.full((3, 3), np.nan)}, ValueError, "NaN or infinite"),
        ({"metric": "scaled", "base": "parzen"}, ValueError, "takes neither metric='scaled'"),
        ({"background": 0.1, "base": "parzen"}, ValueError, "nor background=0.1"),
        ({"background": 1.0}, ValueError, "background=1.0 is out of range"),
        ({"background": -0.1}, ValueError, "background=-0.1 is out of range"),
        ({"background": "wide"}, ValueError, "background='wide' is not known"),
        ({"background": None}, TypeError, "background=None has type NoneType"),
    ],
)
def test_invalid_parameters_are_named(params, error, message):
    with pytest.raises(error, match=message):
        SmoothedScoreDiffusion(0.3, 0.4, **params).fit(correlated())


@pytest.mark.parametrize("metric", [0.5, "whitened", "local"])
def test_of_few_rows_alike_in_all_directions_all_metrics_are_the_same(metric):
    """The corners of a simplex: its covariance is a multiple of the identity in its hull.

    So a power scales the hull as a whole, and must not scale it against the direction that it leaves
    open. Without smoothing, for nodes turn with the axes.
    """
    X = np.eye(9)
    Q = X[:5] + 0.3 * np.random.RandomState(0).normal(size=(5, 9))
    expected = SmoothedScoreDiffusion(sigma=0.0, metric="scaled").fit(X).score_samples(Q)
    found = SmoothedScoreDiffusion(sigma=0.0, metric=metric).fit(X).score_samples(Q)
    # Leave-one-out bandwidths are found to 1e-6.
    assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("seed", [7, 8])
def test_of_few_rows_rounding_does_not_decide_between_metrics(seed):
    """Far from all training rows the background alone counts, so that candidates are equal."""
    rng = np.random.RandomState(seed)
    X = rng.normal(size=(11, 856))
    units = 2.0 ** rng.randint(-30, 31, 856)
    plain = SmoothedScoreDiffusion(n_nodes=8, n_levels=3, n_steps=3).fit(X)
    scaled = SmoothedScoreDiffusion(n_nodes=8, n_levels=3, n_steps=3).fit(X[::-1] * units)
    assert scaled.settings_["metric"] == plain.settings_["metric"]
    Q = X[:3] + 0.1
    found = scaled.score_samples(Q * units) + np.log(units).sum()
    assert_allclose(found, plain.score_samples(Q), rtol=1e-9)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("seed", [0, 3, 4, 41])
def test_weights_over_300_decades(seed):
    """Rows of negligible weight leave directions that are as thin as rounding."""
    rng = np.random.RandomState(seed)
    X = rng.normal(size=(rng.randint(2, 40), rng.randint(1, 6)))
    weights = 10 ** rng.uniform(-150, 150, len(X))
    model = SmoothedScoreDiffusion(n_nodes=8, n_levels=3, n_steps=3).fit(X, sample_weight=weights)
    assert np.all(np.isfinite(model.score_samples(X[:3] + 0.1)))
