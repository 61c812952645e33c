"""Tests of the score network: as a field, as it is trained, and as an estimator.

Slow twins: automatic differentiation for divergences, a network of zeros (a Gaussian) and known laws for
densities, one long training for many short ones.
"""

import copy
import pickle
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.datasets import make_moons
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from skdiffsmooth import NeuralScoreDiffusion, SmoothedScoreDiffusion
from skdiffsmooth._neural.network import AveragedScore, NetworkShape, ScoreNetwork
from skdiffsmooth._neural.training import stream
from skdiffsmooth.compose import sample
from skdiffsmooth.model_selection import (
    denoising_score,
    hyvarinen_score,
    make_denoising_scorer,
)
from skdiffsmooth.solvers import SOLVERS, Adaptive, Euler

# Short trainings warn that they are: those tests look at other things.
short = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
pytestmark = short

# Small, for most laws hold for any weights.
SMALL = {"hidden_layer_sizes": (16, 12), "batch_size": 32, "n_levels": 4, "n_steps": 8}
SMALL |= {"n_frequencies": 2, "dtype": "float64"}
FEW = SMALL | {"max_iter": 3}
# Exact to some 1e-5 nats a row: what is compared is not the solver.
FINE = {"solver": Adaptive(1e-5), "n_steps": 16, "n_levels": 16}
# Rounding of a few hundred steps and of sums over a layer.
ROUNDING = 1e-9


def table(n=40, d=3, seed=0):
    """Correlated rows with skewed columns of different widths."""
    rng = np.random.RandomState(seed)
    X = rng.gamma(2.0, size=(n, d)) @ (np.eye(d) + 0.4 * rng.normal(size=(d, d)))
    return X * np.geomspace(3.0, 0.5, d)


def field(r=3, m=None, seed=0, n_frequencies=2, hidden=(7, 5)):
    """A network of random weights, the last layer's too."""
    rng = np.random.default_rng(seed)
    shape = NetworkShape(rng.uniform(0.3, 2.0, r), 0.05, 6.0, hidden, n_frequencies)
    parameters = torch.from_numpy(rng.normal(size=len(shape.initial(rng))) / 2)
    directions = torch.eye(r, dtype=torch.float64)
    if m is not None:
        directions = torch.from_numpy(2.0 * rng.integers(2, size=(m, 1, r)) - 1)
    return ScoreNetwork(shape, shape.layers(parameters), directions)


def queries(n=6, r=3, seed=1):
    return torch.from_numpy(np.random.RandomState(seed).normal(size=(n, r)))


def jacobians(network, x, v):
    return torch.stack(
        [torch.autograd.functional.jacobian(lambda q: network(q[None], v)[0], row) for row in x]
    )


@pytest.fixture(scope="module")
def moons():
    """A model of 1000 rows on two moons, trained for some three seconds."""
    X, _ = make_moons(1000, noise=0.1, random_state=0)
    return NeuralScoreDiffusion(learning_rate_init=1e-2, n_iter_no_change=50).fit(X), X


def moons_log_density(X, noise=0.1):
    """The law of make_moons: two half circles, blurred."""
    angle = (np.arange(4000) + 0.5) * np.pi / 4000
    first = np.column_stack([np.cos(angle), np.sin(angle)])
    centers = np.concatenate([first, [1.0, 0.5] - first])
    squares = ((X[:, None] - centers) ** 2).sum(2)
    return np.log(np.exp(-squares / (2 * noise**2)).mean(1) / (2 * np.pi * noise**2))


# ------------------------------------------------------------------------------------- the field


@pytest.mark.parametrize("v", [0.01, 1.0, 20.0])
@pytest.mark.parametrize(("n_frequencies", "hidden"), [(0, (7,)), (2, (7, 5)), (1, (5, 4, 6))])
def test_divergence_is_the_trace_of_the_jacobian(v, n_frequencies, hidden):
    network, x = field(n_frequencies=n_frequencies, hidden=hidden), queries()
    score, divergence = network.with_divergence(x, v)
    # The same sums in another order: scores are of size 1 / v.
    assert_allclose(score, network(x, v), rtol=ROUNDING)
    exact = jacobians(network, x, v).diagonal(dim1=1, dim2=2).sum(1)
    assert_allclose(divergence, exact, rtol=ROUNDING)


def test_a_probe_gives_its_quadratic_form_of_the_jacobian():
    network, x, v = field(m=6), queries(), 0.3
    _, divergence = network.with_divergence(x, v)
    probes = network.directions[:, 0]
    jacobian = jacobians(network, x, v)
    # Signs have squares of one: the diagonal is exact, and with it all that is linear.
    expected = torch.einsum("ni,nij,nj->n", probes, jacobian, probes)
    linear = torch.diag_embed(
        (-1 / (torch.from_numpy(network.shape.scales) ** 2 + v)).expand(len(x), -1)
    )
    off = torch.einsum("ni,nij,nj->n", probes, linear, probes) - linear.sum((1, 2))
    assert_allclose(off, 0, atol=1e-12)
    assert_allclose(divergence, expected, rtol=ROUNDING)


def test_zero_output_is_the_score_of_a_gaussian():
    network, x, v = field(), queries(), 0.7
    (last, bias) = network.layers[-1]
    network = replace(
        network, layers=[*network.layers[:-1], (torch.zeros_like(last), torch.zeros_like(bias))]
    )
    variances = torch.from_numpy(network.shape.scales) ** 2 + v
    score, divergence = network.with_divergence(x, v)
    assert_allclose(score, -x / variances, rtol=ROUNDING)
    assert_allclose(divergence, -(1 / variances).sum().expand(len(x)), rtol=ROUNDING)


@pytest.mark.parametrize("m", [None, 6], ids=["exact", "probes"])
def test_average_over_nodes_is_a_loop_over_them(m):
    network, x, v = field(m=m), queries(), 0.2
    rng = np.random.RandomState(2)
    offsets, weights = torch.from_numpy(rng.normal(size=(4, 3))), torch.tensor([0.1, 0.2, 0.3, 0.4])
    weights = weights.double()
    averaged = AveragedScore(network, offsets, weights)
    score, divergence = averaged.with_divergence(x, v)
    looped = [network.with_divergence(x + offset, v) for offset in offsets]
    expected = sum(w * s for w, (s, _) in zip(weights, looped, strict=True))
    assert_allclose(score, expected, rtol=ROUNDING)
    assert_allclose(averaged(x, v), expected, rtol=ROUNDING)
    expected = sum(w * d for w, (_, d) in zip(weights, looped, strict=True))
    assert_allclose(divergence, expected, rtol=ROUNDING)
    some = torch.tensor([4, 1])
    assert_allclose(averaged.rows(some).with_divergence(x[some], v)[1], divergence[some])


# ------------------------------------------------------------------------------- the zero network


def changed(fitted, *, source=None, n_steps=None, **changes):
    """Return a fitted estimator whose model has other values for some of its fields."""
    twin, model = copy.copy(fitted), fitted.model_
    if n_steps is not None:
        changes["steps_of_levels"] = model.levels.equal_steps(n_steps)
    twin.model_ = replace(model, source=replace(model.source, **(source or {})), **changes)
    return twin


def untrained(X, **params):
    """A model whose network is the zero that training starts from."""
    model = NeuralScoreDiffusion(**{**SMALL, "max_iter": 1, **params}).fit(X)
    model.coefs_[-1][:], model.intercepts_[-1][:] = 0.0, 0.0
    return model


@pytest.mark.parametrize(
    ("metric", "sigma"), [("euclidean", 0.7), ("scaled", 0.0), ("whitened", 0.7), (0.5, 0.0)]
)
def test_it_starts_from_the_gaussian_of_the_data(metric, sigma):
    # Offsets of mean zero change nothing of a linear score, so that sigma has no say.
    X, weights = table(), np.arange(1.0, 41.0)
    model = NeuralScoreDiffusion(
        0.3, sigma, metric=metric, max_iter=1, n_nodes=4, **(SMALL | FINE)
    ).fit(X, sample_weight=weights)
    model.coefs_[-1][:], model.intercepts_[-1][:] = 0.0, 0.0
    A = model.coordinates_.to_metric(np.eye(3)) - model.coordinates_.to_metric(np.zeros((1, 3)))
    noise = np.linalg.inv(A @ A.T) * 0.3**2
    law = multivariate_normal(
        np.average(X, axis=0, weights=weights), np.cov(X.T, aweights=weights, ddof=0) + noise
    )
    Q = X[:4] + 0.1
    # Adaptive steps keep each row within 1e-5 nats, estimated.
    assert_allclose(model.score_samples(Q), law.logpdf(Q), atol=1e-4)
    gradient = -(Q - law.mean) @ np.linalg.inv(law.cov)
    assert_allclose(model.grad_log_density(Q), gradient, rtol=1e-8, atol=1e-8)
    if metric == "euclidean":
        trace = -np.trace(np.linalg.inv(law.cov))
        assert_allclose(model.laplacian_log_density(Q), np.full(4, trace), rtol=1e-8)
    # Looked at with fixed steps, which sampling needs no more of.
    model.set_params(solver="heun")
    # 4000 draws: means and covariances are off by 1 / sqrt(4000) = 1.6 % of a deviation; 6 of those.
    whitened = np.linalg.solve(
        np.linalg.cholesky(law.cov), (model.sample(4000, random_state=0) - law.mean).T
    )
    assert_allclose(whitened.mean(1), 0, atol=0.1)
    assert_allclose(np.cov(whitened), np.eye(3), atol=0.14)


@pytest.mark.parametrize("d", [1, 3])
@pytest.mark.parametrize("copies", [1, 5])
def test_a_single_distinct_row_gives_a_gaussian(d, copies):
    row = table(1, d)
    model = NeuralScoreDiffusion(0.4, **FEW).fit(np.repeat(row, copies, axis=0))
    assert model.n_iter_ == 0
    Q = row + table(20, d, seed=1)
    expected = multivariate_normal(row[0], 0.4**2 * np.eye(d)).logpdf(Q)
    assert_allclose(model.score_samples(Q), expected, rtol=1e-10)
    assert model.sample(5, random_state=0).shape == (5, d)
    assert model.partial_fit(row).n_iter_ == 0


def test_a_constant_column_is_an_independent_gaussian():
    X = table(d=2)
    plain = NeuralScoreDiffusion(0.2, metric="euclidean", **FEW).fit(X)
    model = NeuralScoreDiffusion(0.2, metric="euclidean", **FEW).fit(np.insert(X, 1, 5.0, axis=1))
    Q = X[:7] + 0.05
    height = 5 + 0.3 * np.arange(7.0)
    expected = plain.score_samples(Q) + multivariate_normal(5, 0.2**2).logpdf(height)
    # Principal axes of other columns round differently, and twelve steps carry that on.
    found = model.score_samples(np.column_stack([Q[:, 0], height, Q[:, 1]]))
    assert_allclose(found, expected, rtol=1e-7)
    laplacian = model.laplacian_log_density(np.column_stack([Q[:, 0], height, Q[:, 1]]))
    assert_allclose(laplacian, plain.laplacian_log_density(Q) - 1 / 0.2**2, rtol=1e-7)
    gap = model.sample(500, random_state=0)[:, 1] - 5
    # A standard deviation of 500 draws is off by 3 %; 5 of those.
    assert_allclose(gap.std(), 0.2, rtol=0.16)


# --------------------------------------------------------------------------------------- learning


def test_a_gaussian_stays_one():
    X = np.random.RandomState(0).normal(size=(400, 2)) @ [[2.0, 0.0], [1.0, 0.3]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = NeuralScoreDiffusion(
            0.1, hidden_layer_sizes=(32,), n_iter_no_change=20, metric="euclidean"
        ).fit(X)
    law = multivariate_normal(X.mean(0), np.cov(X.T) + 0.01 * np.eye(2))
    Q = law.rvs(500, random_state=np.random.RandomState(1))
    truth = -(Q - law.mean) @ np.linalg.inv(law.cov)
    gap = model.grad_log_density(Q) - truth
    # Relative Fisher distance: 400 rows cannot tell 5 % of a score from none.
    assert (gap**2).sum(1).mean() / (truth**2).sum(1).mean() < 0.05
    assert abs(model.score(Q) - law.logpdf(Q).mean()) < 0.05


def test_moons_are_learned_and_normalised(moons):
    model, _ = moons
    Q, _ = make_moons(400, noise=0.1, random_state=1)
    truth = moons_log_density(Q).mean()
    gaussian = multivariate_normal(Q.mean(0), np.cov(Q.T)).logpdf(Q).mean()
    # Measured: 0.1 nats below the truth. The Gaussian is a whole nat below.
    assert truth - 0.2 < model.score(Q) < truth + 0.05
    assert gaussian < truth - 0.8
    axes = [np.linspace(-2.2, 3.2, 55), np.linspace(-1.7, 2.2, 40)]
    grid = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
    cell = np.prod([axis[1] - axis[0] for axis in axes])
    # Steps of the grid are the noise of 0.1, where sums over it are exact to 1e-8 for Gaussians of that
    # width; the solver errs by 0.005 nats a row.
    assert_allclose(np.exp(model.score_samples(grid)).sum() * cell, 1, atol=0.01)


def test_samples_follow_the_density_that_is_scored(moons):
    model = copy.deepcopy(moons[0])
    model.n_steps_, n = 32, 2000
    drawn = model.sample(n, random_state=0)
    # Shares of cells of a coarse grid against the integral of the density there, by a chi-squared
    # statistic. Its mean is the number of cells and its deviation sqrt(2 * that); 5 deviations.
    axes = [np.linspace(-1.6, 2.6, 64), np.linspace(-1.2, 1.7, 46)]
    middles = [(axis[1:] + axis[:-1]) / 2 for axis in axes]
    grid = np.stack(np.meshgrid(*middles, indexing="ij"), axis=-1).reshape(-1, 2)
    cell = np.prod([axis[1] - axis[0] for axis in axes])
    density = np.exp(model.score_samples(grid)).reshape(63, 45) * cell
    expected = n * density.reshape(9, 7, 3, 15).sum((1, 3)).ravel()
    counts, *_ = np.histogram2d(*drawn.T, bins=[axes[0][::7], axes[1][::15]])
    kept = expected > 5
    statistic = np.sum((counts.ravel() - expected)[kept] ** 2 / expected[kept])
    assert statistic < kept.sum() + 5 * np.sqrt(2 * kept.sum())


def test_early_stopping_stops_and_keeps_the_best():
    X = table(60, 2)
    model = NeuralScoreDiffusion(
        hidden_layer_sizes=(64, 64), max_iter=300, n_iter_no_change=5, learning_rate_init=1e-2
    ).fit(X)
    scores = np.array(model.validation_scores_)
    assert model.n_iter_ == len(scores) == len(model.loss_curve_) < 300
    # No improvement by tol in the last five iterations, nor in any five before.
    assert scores[-5:].max() <= scores[:-5].max() + model.tol
    assert model.best_validation_score_ == max(scores.max(), model.best_validation_score_)
    # What is kept is what has that score: trained that far and no further it is the same.
    best = int(scores.argmax()) + 1
    again = clone(model).set_params(max_iter=best, early_stopping=True).fit(X)
    assert_array_equal(again.coefs_[0], model.coefs_[0])


def test_without_early_stopping_the_last_weights_are_kept():
    model = NeuralScoreDiffusion(early_stopping=False, **FEW).fit(table())
    assert model.validation_scores_ == []
    assert model.best_validation_score_ is None
    flat = np.concatenate(
        [p.ravel() for pair in zip(model.coefs_, model.intercepts_, strict=True) for p in pair]
    )
    assert_array_equal(flat, model.training_.average)


def test_a_loss_that_falls_when_time_is_up_is_a_warning():
    with pytest.warns(ConvergenceWarning, match=r"still falling after max_iter=2 ") as caught:
        NeuralScoreDiffusion(**(SMALL | {"max_iter": 2})).fit(table())
    assert caught[0].filename == __file__


def test_training_that_lowers_nothing_is_a_warning():
    X = np.random.RandomState(0).normal(size=(60, 3))
    model = NeuralScoreDiffusion(
        learning_rate_init=0.3, ema_decay=0.0, n_iter_no_change=4, max_iter=100, **SMALL
    )
    with pytest.warns(ConvergenceWarning, match="did not lower the held-out loss") as caught:
        model.fit(X)
    assert caught[0].filename == __file__
    # What is returned is the Gaussian that it started from.
    assert_array_equal(model.coefs_[-1], 0)


@pytest.mark.parametrize("early_stopping", [True, False])
def test_diverging_training_is_not_reported_as_falling(early_stopping):
    model = NeuralScoreDiffusion(
        **(SMALL | {"learning_rate_init": 1e3, "max_iter": 10, "early_stopping": early_stopping})
    )
    with pytest.warns(
        ConvergenceWarning, match=r"did not lower the .*Lower learning_rate_init"
    ) as caught:
        model.fit(table())
    assert len(caught) == 1
    if early_stopping:
        assert np.isfinite(model.score_samples(table())).all()


def test_a_network_out_of_the_numbers_is_an_error():
    X = table()
    model = NeuralScoreDiffusion(**FEW).fit(X)
    model.coefs_[-1] = np.full_like(model.coefs_[-1], 1e30)
    for ask in (lambda: model.score_samples(X), lambda: model.sample(3, random_state=0)):
        with pytest.raises(ValueError, match=r"are NaN.*smaller learning_rate_init"):
            ask()


def test_a_loss_that_is_no_number_is_an_error_and_leaves_the_model():
    X = table()
    model = NeuralScoreDiffusion(**FEW).fit(X)
    before = pickle.dumps(vars(model))
    model.set_params(learning_rate_init=1e300)
    with pytest.raises(ValueError, match=r"learning_rate_init=1e\+300"):
        model.fit(X)
    model.set_params(learning_rate_init=3e-3)
    assert pickle.dumps(vars(model)) == before


def test_a_fit_meanwhile_is_replaced_as_a_whole(monkeypatch):
    from skdiffsmooth._neural import estimator as _estimator

    def train(*args):
        monkeypatch.undo()
        model.fit(table(d=2))
        return original(*args)

    X, original = table(), _estimator.train
    model = NeuralScoreDiffusion(**FEW).fit(X)
    expected = copy.deepcopy(model).partial_fit(X).score_samples(X)
    monkeypatch.setattr(_estimator, "train", train)
    assert_array_equal(model.partial_fit(X).score_samples(X), expected)


def test_the_random_state_seeds_samples_without_one_of_their_own():
    model = NeuralScoreDiffusion(random_state=0, **FEW).fit(table())
    assert_array_equal(model.sample(3), model.sample(3))
    model.set_params(random_state=None)
    assert not np.array_equal(model.sample(3), model.sample(3))


def test_an_interrupted_training_leaves_a_fitted_model(monkeypatch):
    from skdiffsmooth._neural import training as _training

    calls = []

    def noised(*args):
        calls.append(None)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return original(*args)

    original = _training._noised
    monkeypatch.setattr(_training, "_noised", noised)
    with pytest.warns(UserWarning, match="interrupted after 4 iterations"):
        model = NeuralScoreDiffusion(**(SMALL | {"max_iter": 50})).fit(table())
    monkeypatch.undo()
    assert model.n_iter_ == len(model.loss_curve_) == 4
    assert np.isfinite(model.score(table()))
    alone = NeuralScoreDiffusion(**(SMALL | {"max_iter": 4})).fit(table())
    assert_array_equal(alone.coefs_[0], model.coefs_[0])


# --------------------------------------------------------------------------------------- going on


def assert_same_training(one, other):
    for name in ("coefs_", "intercepts_"):
        for a, b in zip(getattr(one, name), getattr(other, name), strict=True):
            assert_array_equal(a, b)
    assert one.loss_curve_ == other.loss_curve_
    assert one.n_iter_ == other.n_iter_


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_going_on_is_never_having_stopped(dtype):
    X, weights = table(), np.arange(1.0, 41.0)
    params = SMALL | {"early_stopping": False, "dtype": dtype}
    whole = NeuralScoreDiffusion(max_iter=6, **params).fit(X, sample_weight=weights)
    warm = NeuralScoreDiffusion(max_iter=3, warm_start=True, **params)
    warm.fit(X, sample_weight=weights).fit(X, sample_weight=weights)
    assert_same_training(warm, whole)
    partial = NeuralScoreDiffusion(max_iter=3, **params).fit(X, sample_weight=weights)
    for _ in range(3):
        partial.partial_fit(X, sample_weight=weights)
    assert_same_training(partial, whole)
    alone = NeuralScoreDiffusion(**params)
    for _ in range(6):
        alone.partial_fit(X, sample_weight=weights)
    assert_same_training(alone, whole)
    thawed = pickle.loads(pickle.dumps(warm))
    assert_same_training(thawed.partial_fit(X), warm.partial_fit(X))


def test_a_warm_start_keeps_the_best_of_both():
    params = SMALL | {"max_iter": 8, "learning_rate_init": 1e-2}
    whole = NeuralScoreDiffusion(**(params | {"max_iter": 16})).fit(table())
    warm = NeuralScoreDiffusion(warm_start=True, **params).fit(table()).fit(table())
    assert_same_training(warm, whole)
    assert warm.validation_scores_ == whole.validation_scores_
    assert warm.best_validation_score_ == whole.best_validation_score_


def test_without_warm_start_fit_begins_anew():
    model = NeuralScoreDiffusion(**FEW).fit(table())
    once = copy.deepcopy(model)
    assert_same_training(model.partial_fit(table()).fit(table()), once)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bandwidth", 0.2),
        ("hidden_layer_sizes", (16,)),
        ("n_frequencies", 1),
        ("metric", "euclidean"),
        ("terminal_scale", 3.0),
    ],
)
def test_a_network_made_for_other_parameters_does_not_go_on(name, value):
    model = NeuralScoreDiffusion(**FEW).fit(table()).set_params(**{name: value})
    with pytest.raises(ValueError, match=rf"{name}=.* training began with .* warm_start=False"):
        model.partial_fit(table())


def test_going_on_needs_rows_of_the_same_space():
    X = table() * [1, 0, 1]
    model = NeuralScoreDiffusion(**FEW).fit(X)
    with pytest.raises(ValueError, match=r"X leaves the affine hull"):
        model.partial_fit(table())
    with pytest.raises(ValueError, match=r"X has 2 features, but .* 3 features"):
        model.partial_fit(table(d=2))
    assert model.partial_fit(2 * X).n_iter_ == 4


# -------------------------------------------------------------------------------- seeds, weights


def test_a_seed_determines_everything_and_no_global_state_moves():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    models = [NeuralScoreDiffusion(random_state=s, **FEW).fit(table()) for s in (3, 3, 4, None)]
    assert_same_training(models[0], models[1])
    assert len({float(model.coefs_[0][0, 0]) for model in models}) == 3
    generator = NeuralScoreDiffusion(random_state=np.random.RandomState(0), **FEW)
    assert generator.fit(table()).seed_ != generator.fit(table()).seed_
    models[0].sample(3)
    assert_array_equal(torch.get_rng_state(), before[0])
    assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


def test_streams_are_distinct():
    purposes = ("weights", "split", "held out", "probes", "noise")
    drawn = {stream(seed, p, k).uniform() for seed in (0, 1) for p in purposes for k in (0, 1)}
    assert len(drawn) == 20


def test_a_row_of_weight_k_is_k_equal_rows():
    X = table()
    counts = np.random.RandomState(0).randint(0, 4, size=len(X))
    weighted = NeuralScoreDiffusion(**FEW).fit(X, sample_weight=counts)
    repeated = NeuralScoreDiffusion(**FEW).fit(np.repeat(X, counts, axis=0)[::-1])
    assert_allclose(weighted.score_samples(X), repeated.score_samples(X), rtol=ROUNDING)
    scaled = NeuralScoreDiffusion(**FEW).fit(X, sample_weight=1e300 * counts)
    assert_allclose(weighted.score_samples(X), scaled.score_samples(X), rtol=ROUNDING)


def test_weights_have_a_say():
    rng = np.random.RandomState(0)
    X = np.concatenate([rng.normal(size=(100, 1)) - 4, rng.normal(size=(100, 1)) + 4])
    weights = np.repeat([1.0, 9.0], 100)
    model = NeuralScoreDiffusion(
        hidden_layer_sizes=(32,), max_iter=60, early_stopping=False, n_iter_no_change=60
    ).fit(X, sample_weight=weights)
    # 1000 draws: a share of 0.9 has a standard deviation of 0.01; the rest is what was learned.
    assert_allclose((model.sample(1000, random_state=0) > 0).mean(), 0.9, atol=0.06)


# ---------------------------------------------------------------------------------------- probes


def in_many_dimensions(d=12, n_probes=16, seed=0):
    rng = np.random.RandomState(0)
    X = rng.gamma(2.0, size=(80, d))
    params = SMALL | {"max_iter": 30, "learning_rate_init": 1e-2, "early_stopping": False}
    return X, NeuralScoreDiffusion(
        max_exact_dimension=0, n_probes=n_probes, random_state=seed, **params
    ).fit(X)


def test_probes_standard_error_is_calibrated():
    X, model = in_many_dimensions()
    # So many steps that the solver has no part in the error.
    model = changed(model, n_steps=32)
    exact = changed(model, source={"probes": None})
    truth = exact.score_samples(X[:4])
    ratios = []
    for seed in range(40):
        probes = 2.0 * np.random.RandomState(seed).randint(2, size=(16, 12)) - 1
        probed = changed(model, source={"probes": probes})
        found, error = probed.score_samples(X[:4], return_error=True)
        ratios.append((found - truth) / error)
    ratios = np.array(ratios)
    # Student's t with 15 degrees of freedom has a variance of 15 / 13. 40 draws of it, whose rows share
    # their probes: the mean square is off by some 25 %, the mean by 0.17; three of those.
    assert_allclose(np.mean(ratios**2), 15 / 13, rtol=0.8)
    assert abs(ratios.mean()) < 0.55


def test_probes_are_exact_where_they_are_all_signs():
    # Over all sign vectors the mean of p p^T is the identity: Hutchinson's estimate is the trace.
    X, model = in_many_dimensions(d=3)
    exact = changed(model, source={"probes": None})
    signs = np.array(np.meshgrid(*[[-1.0, 1.0]] * 3)).reshape(3, -1).T
    model = changed(model, source={"probes": signs})
    assert_allclose(model.score_samples(X), exact.score_samples(X), rtol=1e-9)


def test_the_number_of_dimensions_decides_on_probes():
    X = table(60, 4)
    exact = NeuralScoreDiffusion(max_exact_dimension=4, **FEW).fit(X)
    probed = NeuralScoreDiffusion(max_exact_dimension=3, n_probes=5, **FEW).fit(X)
    assert exact.probes_ is None
    assert probed.probes_.shape == (5, 4)
    assert_same_training(exact, probed)
    assert_array_equal(probed.sample(5, random_state=0), exact.sample(5, random_state=0))
    # The hull counts, not the columns.
    flat = NeuralScoreDiffusion(max_exact_dimension=3, **FEW).fit(X * [1, 1, 1, 0])
    assert flat.probes_ is None


# --------------------------------------------------------------------------------------- smoothing


def test_sigma_zero_is_the_plain_network():
    X = table()
    model = NeuralScoreDiffusion(**FEW).fit(X)
    smoothed = NeuralScoreDiffusion(sigma=1e-9, n_nodes=4, **FEW).fit(X)
    assert_same_training(model, smoothed)
    assert_allclose(smoothed.score_samples(X), model.score_samples(X), rtol=1e-6)
    assert_allclose(smoothed.sample(5, random_state=0), model.sample(5, random_state=0), rtol=1e-6)
    assert_allclose(smoothed.grad_log_density(X), model.grad_log_density(X), rtol=1e-6)


def test_smoothing_averages_the_score_over_the_nodes():
    X = table(80, 2)
    params = FEW | {"max_iter": 40, "early_stopping": False, "metric": "euclidean"}
    plain = NeuralScoreDiffusion(0.1, **params).fit(X)
    model = NeuralScoreDiffusion(0.1, 0.8, n_nodes=4096, **params).fit(X)
    offsets = 0.8 * np.random.RandomState(0).normal(size=(4000, 2))
    found = model.grad_log_density(X[:3], t=0.25)
    for row, expected in zip(X[:3], found, strict=True):
        scores = plain.grad_log_density(row + offsets, t=0.25)
        # A mean of 4000 draws; five of its deviations.
        assert np.all(np.abs(scores.mean(0) - expected) < 5 * scores.std(0) / np.sqrt(4000) + 1e-9)
    assert np.abs(found - plain.grad_log_density(X[:3], t=0.25)).max() > 0.01


def test_a_smoothed_network_is_a_density(moons):
    model, X = moons
    rule = replace(model.model_.source.rule, n_nodes=4)
    smoothed = changed(model, n_steps=32, source={"sigma": 0.3, "rule": rule})
    axes = [np.linspace(-2.2, 3.2, 55), np.linspace(-1.7, 2.2, 40)]
    grid = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
    cell = np.prod([axis[1] - axis[0] for axis in axes])
    # As for the plain network, on a grid whose steps of 0.1 the density, of width 0.1, just bears.
    assert_allclose(np.exp(smoothed.score_samples(grid)).sum() * cell, 1, atol=0.02)
    assert smoothed.score(X[::5]) < model.score(X[::5])


def test_training_on_takes_over_what_only_queries_depend_on():
    X = table()
    model = NeuralScoreDiffusion(**FEW).fit(X)
    model.set_params(sigma=0.3, n_nodes=4, n_levels=3, n_steps=6).partial_fit(X)
    assert (model.sigma_, model.n_nodes_, model.n_steps_) == (0.3, 4, 6)
    assert model.noise_levels_.n_levels == 3
    plain = copy.deepcopy(model).set_params(sigma=0.0).partial_fit(X)
    assert not np.array_equal(plain.score_samples(X), model.score_samples(X))


# ------------------------------------------------------------------------------- as an estimator


def test_fitted_attributes_are_numpy_and_a_copy_answers_alike():
    X = table()
    model = NeuralScoreDiffusion(**FEW).fit(X)
    for name, value in vars(model).items():
        parts = value if isinstance(value, list) else [value]
        parts = [q for p in parts for q in (vars(p).values() if hasattr(p, "__dict__") else [p])]
        assert not any(isinstance(part, torch.Tensor) for part in parts), name
    twin = pickle.loads(pickle.dumps(model))
    assert_array_equal(twin.score_samples(X), model.score_samples(X))
    assert_array_equal(twin.sample(4, random_state=1), model.sample(4, random_state=1))
    assert not [name for name in vars(clone(model)) if name.endswith("_")]


def test_queries_change_nothing():
    X = table()
    model = NeuralScoreDiffusion(random_state=np.random.RandomState(0), **FEW).fit(X)
    before = pickle.dumps(vars(model))
    model.score_samples(X), model.sample(3, random_state=0), model.grad_log_density(X)
    assert pickle.dumps(vars(model)) == before


@pytest.mark.parametrize("params", [{}, {"max_exact_dimension": 0, "n_probes": 4}, {"sigma": 0.3}])
def test_neither_the_batch_nor_the_memory_changes_an_answer(params):
    X = table()
    model = NeuralScoreDiffusion(n_nodes=4, metric="euclidean", **params, **FEW).fit(X)
    expected = model.score_samples(X), model.grad_log_density(X), model.laplacian_log_density(X)
    drawn = model.sample(20, random_state=0)
    one = np.concatenate([model.score_samples(row[None]) for row in X])
    assert_allclose(one, expected[0], rtol=ROUNDING)
    model.set_params(memory_limit=0.03)
    found = model.score_samples(X), model.grad_log_density(X), model.laplacian_log_density(X)
    for a, b in zip(found, expected, strict=True):
        assert_allclose(a, b, rtol=ROUNDING, atol=ROUNDING)
    assert_allclose(model.sample(20, random_state=0), drawn, rtol=ROUNDING)


@pytest.mark.parametrize("solver", ["euler", "heun", "adaptive", "euler-maruyama"])
def test_every_solver_follows_it(solver):
    X = table()
    model = NeuralScoreDiffusion(**(FEW | {"n_steps": 16})).fit(X)
    X = X[:8]
    chosen = Adaptive(1e-4) if solver == "adaptive" else SOLVERS[solver]()
    model = changed(model, solver=chosen)
    small = copy.deepcopy(model).set_params(memory_limit=0.03)
    drawn = model.sample(30, random_state=0)
    assert_allclose(small.sample(30, random_state=0), drawn, rtol=ROUNDING)
    if solver.startswith("euler"):
        with pytest.raises(ValueError, match=r"solver=Euler.*\(\) cannot compute"):
            model.score_samples(X)
        return
    log_density, error = model.score_samples(X, return_error=True)
    truth = changed(model, solver=Adaptive(1e-5)).score_samples(X)
    # Sixteen steps over two decades of noise are coarse: the estimates are right to a factor of three.
    assert np.all(np.abs(log_density - truth) < 3 * error + 1e-4)


def test_error_of_the_solver_falls_with_its_steps():
    X = table()
    model = NeuralScoreDiffusion(**(FEW | {"n_steps": 64, "n_levels": 8})).fit(X)
    coarse = model.score_samples(X, return_error=True)[1]
    model = changed(model, n_steps=128)
    assert model.score_samples(X, return_error=True)[1].mean() < coarse.mean() / 3


def test_units_are_those_of_the_columns():
    X, factors = table(), np.array([2.0**10, 2.0**-7, 0.25])
    model = NeuralScoreDiffusion(**FEW).fit(X)
    scaled = NeuralScoreDiffusion(**FEW).fit(X * factors)
    # Powers of two are exact: the network sees the same numbers.
    assert_same_training(model, scaled)
    shift = np.log(factors).sum()
    assert_allclose(
        scaled.score_samples(X * factors), model.score_samples(X) - shift, rtol=ROUNDING
    )
    drawn = model.sample(6, random_state=0)
    assert_allclose(scaled.sample(6, random_state=0), drawn * factors, rtol=ROUNDING)
    gradient = model.grad_log_density(X) / factors
    assert_allclose(scaled.grad_log_density(X * factors), gradient, rtol=ROUNDING)


def test_divergence_and_gradient_are_those_of_the_columns():
    X, step = table(), 1e-5
    model = NeuralScoreDiffusion(0.2, metric="euclidean", **FEW).fit(X)
    slopes = 0.0
    for j, shift in enumerate(step * np.eye(3)):
        up, down = model.grad_log_density(X + shift), model.grad_log_density(X - shift)
        slopes = slopes + (up - down)[:, j] / (2 * step)
    # Central differences: rounding gives 1e-10.
    assert_allclose(model.laplacian_log_density(X), slopes, rtol=1e-5, atol=1e-6)


def test_score_matching_scorers_prefer_a_trained_network():
    X, _ = make_moons(300, noise=0.1, random_state=0)
    Q, _ = make_moons(100, noise=0.1, random_state=1)
    params = {"hidden_layer_sizes": (64,), "n_frequencies": 2, "metric": "euclidean"}
    long = NeuralScoreDiffusion(max_iter=60, **params).fit(X)
    none = untrained(X, metric="euclidean")
    for scorer in (hyvarinen_score, denoising_score, make_denoising_scorer(n_pairs=2)):
        assert scorer(long, Q) > scorer(none, Q)
    with pytest.raises(
        ValueError, match="metric='scaled' gives each direction its own noise scale"
    ):
        denoising_score(NeuralScoreDiffusion(**FEW).fit(X), Q)
    with pytest.raises(ValueError, match="metric='scaled' has no Laplacian"):
        NeuralScoreDiffusion(**FEW).fit(X).laplacian_log_density(Q)


@pytest.mark.parametrize(("bandwidth", "expected"), [(0.1, 5 * 2.0), (6.0, 2 * 6.0)])
def test_automatic_terminal_scale(bandwidth, expected):
    """The larger of five times the data's widest standard deviation (here 2) and 2 bandwidth."""
    X = np.array([[2.0, 1.0], [2.0, -1.0], [-2.0, 1.0], [-2.0, -1.0]]) + 100
    model = NeuralScoreDiffusion(bandwidth, metric="euclidean", **FEW).fit(X)
    assert model.noise_levels_.terminal_scale == pytest.approx(expected)


def test_the_field_is_evaluated_within_its_range():
    X = table()
    model = NeuralScoreDiffusion(0.1, **FEW).fit(X)
    top = model.noise_levels_.terminal_scale**2
    model.grad_log_density(X, t=0.1**2), model.grad_log_density(X, t=top)
    for t in (0.5 * 0.1**2, 2 * top):
        with pytest.raises(ValueError, match=r"t=.* outside the noise variances .* trained for"):
            model.grad_log_density(X, t=t)


def test_names_frames_and_packages_around_it():
    frame = pd.DataFrame(table(), columns=["a", "b", "c"])
    model = NeuralScoreDiffusion(**FEW).fit(frame)
    assert list(model.feature_names_in_) == ["a", "b", "c"]
    with pytest.raises(ValueError, match="feature names should match"):
        model.partial_fit(frame[["b", "a", "c"]])
    model.partial_fit(frame)
    assert sample(model, 3, random_state=0, output="pandas").shape == (3, 3)


def test_it_needs_a_fit():
    for method in ("score_samples", "score", "grad_log_density", "laplacian_log_density"):
        with pytest.raises(NotFittedError):
            getattr(NeuralScoreDiffusion(), method)(table())
    with pytest.raises(NotFittedError):
        NeuralScoreDiffusion().sample()


NAN = float("nan")
BAD = {
    "bandwidth": ([None, True, "auto", [0.1]], [0.0, -1.0, NAN]),
    "sigma": ([None, True, "auto", [0.1]], [-1.0, NAN]),
    "hidden_layer_sizes": ([None, 8, "88", b"x", {8}, (8.0,)], [(), (0,), (8, -1)]),
    "n_frequencies": ([None, 1.0, True], [-1]),
    "metric": ([None, {}], ["auto", "none such", 2.0, -0.1]),
    "max_iter": ([None, 1.0, True], [0, -1]),
    "batch_size": ([None, 1.0, "auto"], [0, -1]),
    "learning_rate_init": ([None, "0.1"], [0.0, -1.0, NAN]),
    "ema_decay": ([None, "0.1"], [-0.1, 1.0, NAN]),
    "early_stopping": ([None, 1, "yes"], []),
    "validation_fraction": ([None, "0.1"], [0.0, 1.0, -0.1, NAN]),
    "n_iter_no_change": ([None, 1.0], [0, -1]),
    "tol": ([None, "0.1"], [-1.0, NAN]),
    "warm_start": ([None, 1, "yes"], []),
    "n_nodes": ([None, 4.0, "auto"], [0, 1, 7]),
    "n_levels": ([None, 4.0], [0]),
    "n_steps": ([None, 4.0], [0]),
    "solver": ([None, 1, Euler], ["rk4"]),
    "terminal_scale": ([None, True], [0.0, 0.01, NAN, "wide"]),
    "max_exact_dimension": ([None, 4.0], [-1]),
    "n_probes": ([None, 4.0], [0, 1]),
    "device": ([None, 0], ["none such"]),
    "dtype": ([None, np.float64], ["float16"]),
    "random_state": ([True, 0.5, "0"], [-1, 2**32]),
    "memory_limit": ([None, "1"], [0, -1, NAN]),
    "verbose": ([None, "1", 0.5], [-1]),
}


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        pytest.param(name, value, error, id=f"{name}-{value!r:.30}")
        for name, (mistyped, outside) in BAD.items()
        for values, error in ((mistyped, TypeError), (outside, ValueError))
        for value in values
    ],
)
def test_fit_refuses_a_bad_parameter(name, value, error):
    model = NeuralScoreDiffusion(**FEW).set_params(**{name: value})
    with pytest.raises(error, match=name) as caught:
        model.fit(table())
    assert caught.type is error
    assert not [attribute for attribute in vars(model) if attribute.endswith("_")]


def test_every_parameter_has_its_bad_values():
    assert BAD.keys() == NeuralScoreDiffusion().get_params().keys()


def test_it_is_the_learned_counterpart_of_the_smoothed_score():
    # On one point both are the same Gaussian, at any scale of smoothing.
    row = table(1)
    Q = row + 0.1 * table(5, seed=1)
    network = NeuralScoreDiffusion(0.3, 0.5, metric="euclidean", **FEW).fit(row)
    smoothed = SmoothedScoreDiffusion(0.3, 0.5).fit(row)
    assert_allclose(network.score_samples(Q), smoothed.score_samples(Q), rtol=ROUNDING)
    assert_allclose(network.grad_log_density(Q), smoothed.grad_log_density(Q), rtol=ROUNDING)
