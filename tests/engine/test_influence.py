"""Tests of effective sample sizes and variances of the score, from the influence of each row.

The expected values come from loops, and from refits with the weight of one row changed a little: the
derivative of the score in the logarithm of a row's weight is what is squared and summed.
"""

import numpy as np
import oracles
import pytest
import torch
from scipy import stats

from skdiffsmooth import ManifoldAdaptedDiffusion, SmoothedScoreDiffusion
from skdiffsmooth._diffusion import settings
from skdiffsmooth._engine.posterior import Posterior
from skdiffsmooth._utils.backend import Backend
from skdiffsmooth.bases import ManifoldParzen
from skdiffsmooth.kernels import AnisotropicGaussianKernel, TemperatureKernel, UniformBallKernel
from skdiffsmooth.manifolds import Circle

ROWS = 9
QUERIES = np.array([[0.9, 0.5], [-0.2, 0.1], [0.5, -1.4]])


def ring(n, seed=0):
    rng = np.random.RandomState(seed)
    angle = rng.uniform(0, 2 * np.pi, n)
    return (1 + 0.05 * rng.normal(size=(n, 1))) * np.column_stack([np.cos(angle), np.sin(angle)])


def looped(points, log_weights, positions, v, node_weights):
    """Return weights and derivatives at positions (B, M, r), a softmax at a time."""
    weights = np.zeros((len(positions), len(points)))
    derivatives = np.zeros((*weights.shape, points.shape[1]))
    for b, own in enumerate(positions):
        for y, weight in zip(own, node_weights, strict=True):
            posterior = oracles.posterior(points, log_weights, y, v)
            weights[b] += weight * posterior.weights
            derivatives[b] += weight * posterior.weights[:, None] * (points - posterior.mean)
    return weights, derivatives


# Fewer points than are padded to groups, and more; ordinary noise, and some far below the distances.
@pytest.mark.parametrize("n", [1, 5, 70])
@pytest.mark.parametrize("v", [10.0, 0.1, 1e-4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_engine_against_loops(n, v, dtype):
    rng = np.random.RandomState(n)
    points, positions = rng.normal(size=(n, 3)), rng.normal(size=(4, 6, 3))
    log_weights = np.log(rng.dirichlet(np.ones(n)))
    node_weights = rng.dirichlet(np.ones(6))
    cast = [torch.from_numpy(a).to(dtype) for a in (points, log_weights, positions, node_weights)]
    found = Posterior(*cast[:2], memory_limit=16.0).influence(cast[2], v, cast[3])
    rounded = [tensor.double().numpy() for tensor in cast]
    expected = looped(rounded[0], rounded[1], rounded[2], v, rounded[3])
    # Exponents of |y|^2 / v are rounded in double precision, and results to the requested precision.
    tolerance = 1e-15 * 40 / v + 4 * torch.finfo(dtype).eps
    for result, reference in zip(found, expected, strict=True):
        assert result.dtype == dtype
        np.testing.assert_allclose(result.numpy(), reference, rtol=0, atol=tolerance * 5)


# Neither scores nor energies at a noise scale depend on the steps, which refits would take long for.
FEW_STEPS = {"n_levels": 4, "n_steps": 4}


def models():
    smoothed = {"metric": "euclidean", **FEW_STEPS}
    yield "points", SmoothedScoreDiffusion(0.3, 0.0, **smoothed)
    yield "gaussian", SmoothedScoreDiffusion(0.2, 0.4, **smoothed)
    yield "coarse nodes", SmoothedScoreDiffusion(0.3, 0.4, n_nodes=4, **smoothed)
    for kernel in (UniformBallKernel(), AnisotropicGaussianKernel([1.0, 0.3]), TemperatureKernel()):
        yield type(kernel).__name__, SmoothedScoreDiffusion(0.2, 0.4, kernel=kernel, **smoothed)
    yield (
        "subspace",
        ManifoldAdaptedDiffusion(0.2, 0.4, manifold="pca", n_components=2, **FEW_STEPS),
    )


def change_by_weights(model, X, queries, times, step=1e-4):
    """Return derivatives of scores and energies in the logarithms of the rows' weights, by refits.

    Both have a first axis of times and a second one of rows.
    """
    scores, energies = [], []
    for i in range(len(X)):
        pair = []
        for sign in (1, -1):
            weights = np.ones(len(X))
            weights[i] = np.exp(sign * step)
            fitted = model.fit(X, sample_weight=weights)
            score = np.array([fitted.grad_log_density(queries, t) for t in times])
            pair.append((score, np.array([fitted.energy(queries, t) for t in times])))
        (score, energy), (score_below, energy_below) = pair
        scores.append((score - score_below) / (2 * step))
        energies.append((energy - energy_below) / (2 * step))
    return np.stack(scores, axis=1), np.stack(energies, axis=1)


@pytest.mark.parametrize(("name", "model"), list(models()))
def test_against_refits_with_changed_weights(name, model):
    X, times = ring(ROWS), [None, 0.02, 1.0]
    changes = change_by_weights(model, X, QUERIES, times)
    model.fit(X)
    for t, by_score, by_energy in zip(times, *changes, strict=True):
        # Differences are right to step^2 times a third derivative, about 1e-8 relative.
        np.testing.assert_allclose(
            model.score_variance(QUERIES, t), np.square(by_score).sum(0), rtol=1e-5, atol=1e-9
        )
        if name == "TemperatureKernel":
            continue  # Its energy is multiplied by the temperature, its weights are not.
        weights = 1 / ROWS - by_energy
        np.testing.assert_allclose(
            model.effective_sample_size(QUERIES, t), 1 / np.square(weights).sum(0), rtol=1e-5
        )


def test_learned_tangents_blend_the_cells():
    model = ManifoldAdaptedDiffusion(0.1, 0.4, n_components=1, n_cells=5).fit(ring(60))
    t = model.bandwidth_**2
    backend = Backend.from_params("cpu", "float64")
    log_weights = torch.from_numpy(np.log(model.weights_))
    points = torch.from_numpy(model.hierarchy_.points)
    x = torch.from_numpy(model.hull_.split(model.coordinates_.to_metric(QUERIES))[0])
    expected = np.zeros(QUERIES.shape)
    for i in range(len(points)):
        pair = []
        for step in (1e-4, -1e-4):
            moved = log_weights.clone()
            moved[i] += step
            moved -= moved.logsumexp(0)
            posterior = Posterior(points, moved, memory_limit=16.0)
            field = model.kernel_.field(0, posterior, backend, None)
            pair.append(field(x, t).numpy() @ model.hull_.basis.T)
        change = model.coordinates_.gradient_from_metric((pair[0] - pair[1]) / 2e-4)
        expected += np.square(change)
    np.testing.assert_allclose(model.score_variance(QUERIES), expected, rtol=1e-5, atol=1e-9)


def test_effective_sample_size_goes_from_one_to_all():
    X = ring(50)
    weights = np.random.RandomState(0).uniform(0.5, 2, size=50)
    model = SmoothedScoreDiffusion(1e-4, 0.0).fit(X, sample_weight=weights)
    np.testing.assert_allclose(model.effective_sample_size(X), 1, rtol=1e-9)
    np.testing.assert_allclose(model.score_variance(X), 0, atol=1e-9)
    everything = weights.sum() ** 2 / np.square(weights).sum()
    np.testing.assert_allclose(model.effective_sample_size(X, t=1e12), everything, rtol=1e-9)


def test_smoothing_raises_the_sample_size_and_lowers_the_variance():
    X = ring(200)
    sharp, smooth = (SmoothedScoreDiffusion(0.05, sigma).fit(X) for sigma in (0.0, 0.2))
    queries = ring(40, seed=1)
    assert (smooth.effective_sample_size(queries) > sharp.effective_sample_size(queries)).all()
    steadier = smooth.score_variance(queries).sum(1) / sharp.score_variance(queries).sum(1)
    assert np.median(steadier) < 0.2


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_results_scale_with_units(scale):
    X = ring(30)
    model = SmoothedScoreDiffusion(0.2, 0.3, metric="euclidean").fit(X)
    other = SmoothedScoreDiffusion(0.2 * scale, 0.3 * scale, metric="euclidean").fit(scale * X)
    variance = other.score_variance(scale * QUERIES)
    np.testing.assert_allclose(scale**2 * variance, model.score_variance(QUERIES), rtol=1e-8)
    np.testing.assert_allclose(
        other.effective_sample_size(scale * QUERIES),
        model.effective_sample_size(QUERIES),
        rtol=1e-8,
    )


def test_metric_is_a_change_of_coordinates():
    X = ring(40) @ np.array([[2.0, 1.0], [0.0, 0.5]])
    matrix = np.array([[3.0, 0.5], [0.5, 1.0]])
    model = SmoothedScoreDiffusion(0.3, 0.4, metric=matrix).fit(X)
    to_metric = model.coordinates_.to_metric
    within = SmoothedScoreDiffusion(0.3, 0.4, metric="euclidean").fit(to_metric(X))
    # Scores go back by the transposed map; their covariance there is known by its diagonal only, so
    # each component is compared along a column's own direction by a rotation of the coordinates.
    columns = to_metric(np.eye(2)) - to_metric(np.zeros((1, 2)))
    for j, column in enumerate(columns):
        across = np.array([-column[1], column[0]])
        turn = np.array([column, across]).T / np.linalg.norm(column)
        turned = SmoothedScoreDiffusion(0.3, 0.4, metric="euclidean", n_nodes=1024)
        turned.fit(to_metric(X) @ turn)
        along = turned.score_variance(to_metric(QUERIES) @ turn)[:, 0]
        fine = SmoothedScoreDiffusion(0.3, 0.4, metric=matrix, n_nodes=1024).fit(X)
        # Nodes do not turn with the coordinates: 1024 of them are right to a per cent.
        np.testing.assert_allclose(
            fine.score_variance(QUERIES)[:, j], column @ column * along, rtol=0.02
        )
    np.testing.assert_allclose(
        model.effective_sample_size(QUERIES), within.effective_sample_size(to_metric(QUERIES))
    )


def test_no_variance_in_directions_without_extent():
    flat = np.column_stack([ring(20), np.ones(20)])
    model = SmoothedScoreDiffusion(0.2, 0.3, metric="euclidean").fit(flat)
    variance = model.score_variance(np.column_stack([QUERIES, np.full(3, 1.5)]))
    plain = SmoothedScoreDiffusion(0.2, 0.3, metric="euclidean").fit(ring(20))
    # Rotated coordinates of the plane have nodes of their own.
    assert np.abs(variance[:, 2]).max() < 1e-20
    np.testing.assert_allclose(
        variance[:, :2].sum(1), plain.score_variance(QUERIES).sum(1), rtol=0.1
    )


@pytest.mark.parametrize("n_features", [1, 3])
def test_a_single_row_has_sample_size_one(n_features):
    """Its hull has dimension zero."""
    row = np.full((1, n_features), 2.0)
    model = SmoothedScoreDiffusion(0.1, 0.3, n_levels=4, n_steps=4).fit(row)
    np.testing.assert_array_equal(model.effective_sample_size(row + [[0.0], [1.0]]), 1)
    np.testing.assert_array_equal(model.score_variance(row), 0)


def test_results_do_not_depend_on_memory_limit_or_workers():
    X, queries = ring(300), ring(50, seed=1)
    model = SmoothedScoreDiffusion(0.1, 0.2).fit(X)
    whole = model.score_variance(queries), model.effective_sample_size(queries)
    model.set_params(memory_limit=0.2, n_jobs=2)
    parts = model.score_variance(queries), model.effective_sample_size(queries)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_merged_points_do_not_change_the_influence(monkeypatch):
    X = ring(300)
    models = [SmoothedScoreDiffusion(0.1, 0.2).fit(X)]
    monkeypatch.setattr(settings, "_LARGEST_EXACT", 0)
    models.append(SmoothedScoreDiffusion(0.1, 0.2, tol=5.0).fit(X))
    assert models[1].hierarchy_.tolerance > 0
    sizes = [model.effective_sample_size(QUERIES, t=4.0) for model in models]
    np.testing.assert_allclose(*sizes, rtol=1e-12)


def redrawn_scores(n_draws, n_rows, query, sigma, t):
    """Return scores of fresh data sets, and the variance that each estimates."""
    scores, estimates, plug_in = [], [], []
    for seed in range(n_draws):
        X = ring(n_rows, seed=1000 + seed)
        model = SmoothedScoreDiffusion(
            0.1, sigma, metric="euclidean", n_nodes=32, n_levels=1, n_steps=1
        ).fit(X)
        scores.append(model.grad_log_density(query, t)[0])
        estimates.append(model.score_variance(query, t)[0].sum())
        mean = query[0] + t * scores[-1]
        x = torch.from_numpy(model.hull_.split(query)[0])
        weights = (
            model.model_.source.schedule(model._resources())
            .at_scale(t**0.5)
            .influence(x, t)
            .weights[0]
            .numpy()
        )
        plug_in.append((weights**2 @ np.square(model.points_ - mean)).sum() / t**2)
    return np.array(scores), np.array(estimates), np.array(plug_in)


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.0, 0.3])
def test_variance_is_that_over_data_sets(sigma):
    n = 250 if sigma else 120
    query = np.array([[0.8, 0.3]])
    scores, estimates, plug_in = redrawn_scores(n, 400, query, sigma, 0.1)
    truth = scores.var(axis=0, ddof=1).sum()
    # The relative error of a variance of n normal draws is sqrt(2 / n) at most (one component has all
    # of it): 3.9 of these are a false alarm of 1e-4. The delta method itself is right to first order,
    # 5 % here, where dozens of rows are relevant to a single node.
    allowed = stats.norm.isf(5e-5) * np.sqrt(2 / n) + 0.05
    assert abs(estimates.mean() / truth - 1) < allowed
    if sigma:
        # Squared weights times squared distances from the common mean are no such thing.
        assert plug_in.mean() / truth - 1 > allowed


@pytest.mark.parametrize("method", ["effective_sample_size", "score_variance"])
def test_bad_input(method):
    X = ring(60)
    with pytest.raises(ValueError, match="base="):
        getattr(SmoothedScoreDiffusion(0.1, 0.2, base=ManifoldParzen()).fit(X), method)(X)
    model = SmoothedScoreDiffusion(0.1, 0.2).fit(X)
    with pytest.raises(ValueError, match="t=-1"):
        getattr(model, method)(X, t=-1.0)
    with pytest.raises(ValueError, match="3 features"):
        getattr(model, method)(np.ones((2, 3)))


def test_known_manifold():
    X = ring(ROWS)
    model = ManifoldAdaptedDiffusion(
        0.1, 0.3, manifold=Circle([0.0, 0.0], 1.0), n_nodes=16, **FEW_STEPS
    )
    step, derivatives = 1e-4, []
    for i in range(ROWS):
        pair = []
        for sign in (1, -1):
            weights = np.ones(ROWS)
            weights[i] = np.exp(sign * step)
            pair.append(model.fit(X, sample_weight=weights).grad_log_density(QUERIES))
        derivatives.append((pair[0] - pair[1]) / (2 * step))
    model.fit(X)
    expected = np.square(derivatives).sum(0)
    np.testing.assert_allclose(model.score_variance(QUERIES), expected, rtol=1e-5, atol=1e-9)
