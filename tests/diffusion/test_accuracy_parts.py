"""Search for enough steps, warnings of accuracy, distributed rows, and calls of a fitted estimator."""

import math
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from likelihood_problems import geometry_of, parsed
from sklearn.exceptions import ConvergenceWarning

from skdiffsmooth import SmoothedScoreDiffusion
from skdiffsmooth._diffusion import accuracy
from skdiffsmooth._diffusion.fitting import make_model
from skdiffsmooth._diffusion.sharded import check_same_parameters, check_suits_shards
from skdiffsmooth.bases import ManifoldParzen
from skdiffsmooth.solvers import Heun

X = np.random.default_rng(0).normal(size=(12, 2)) * [1.0, 3.0]
COARSE = {"n_nodes": 8, "n_levels": 3, "n_steps": 3, "metric": "euclidean", "background": 0.0}


def fitted(**params):
    return SmoothedScoreDiffusion(**({"bandwidth": 0.4, "sigma": 0.3} | COARSE | params)).fit(X)


def test_levels_and_steps_are_refined_until_the_error_is_small(monkeypatch):
    """By the order of the solver, with a margin of a fifth; by a quarter at least, to at most 16."""
    errors, requested = [], []

    def made(geometry, settings, bandwidth, sigma, *, refinement):
        requested.append(refinement)
        return SimpleNamespace(model=SimpleNamespace(solver=Heun()))

    monkeypatch.setattr(accuracy, "make_model", made)
    monkeypatch.setattr(accuracy, "_solver_error", lambda model, resources: errors.pop(0))
    settings = parsed(tol=0.1, n_nodes=8)
    geometry = geometry_of(X, settings=settings)
    largest = accuracy.PART_OF_STEPS * 0.1

    def search(*values, own=settings):
        errors[:] = [value * largest for value in values]
        requested.clear()
        return accuracy._enough_refinement(geometry, own, 0.4, 0.3)

    assert search(1.0) == (1.0, largest)
    factor, error = search(9.0, 0.5)
    assert (factor, error) == (pytest.approx(1.2 * 3), pytest.approx(largest / 2))
    assert requested == [1.0, pytest.approx(3.6)]
    # An error just above gives a quarter more.
    assert search(1.01, 1.0)[0] == pytest.approx(1.25)
    assert search(100.0, 100.0, 7.0) == (16.0, pytest.approx(7 * largest))
    assert requested == [1.0, pytest.approx(12.0), 16.0]
    refinement, error = search(math.nan)
    assert refinement == 1.0
    assert math.isnan(error)
    # Steps that were given are kept.
    assert search(50.0, own=parsed(tol=0.1, n_nodes=8, n_steps=4))[0] == 1.0


def test_errors_of_the_solver_are_root_mean_squares(monkeypatch):
    settings = parsed(**COARSE)
    model, _ = make_model(geometry_of(X, settings=settings), settings, 0.4, 0.3)
    rows = []

    def errors(self, queries, resources):
        rows.append(queries)
        return np.array([3.0, 4.0])

    monkeypatch.setattr(type(model), "solver_errors", errors)
    found = accuracy._solver_error(model, settings.resources)
    assert found == pytest.approx(math.sqrt(12.5))
    # At training rows with noise of the bandwidth.
    nearest = np.linalg.norm(rows[0][:, None] - model.data.hierarchy.points, axis=2).min(axis=1)
    assert 0 < nearest.max() < 4 * 0.4
    settings = parsed(**(COARSE | {"solver": "euler-maruyama"}))
    model, _ = make_model(geometry_of(X, settings=settings), settings, 0.4, 0.3)
    assert math.isnan(accuracy._solver_error(model, settings.resources))


def test_a_wide_kernel_is_warned_of_above_the_default_accuracy(monkeypatch):
    settings = parsed(**COARSE)
    own = make_model(geometry_of(X, settings=settings), settings, 0.4, 0.8)
    own.attributes["node_error_"] = 0.03
    for solver_error, is_warned in ((0.0399, False), (0.0401, True), (0.4, True)):
        monkeypatch.setattr(accuracy, "_solver_error", lambda model, resources, e=solver_error: e)
        monkeypatch.setattr(accuracy, "DEFAULT_TOL", 0.05)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            accuracy._warn_of_small_bandwidth(own, settings.resources)
        assert bool(caught) == is_warned
        assert own.attributes["error_"] == pytest.approx(math.hypot(0.03, solver_error))
    message = str(caught[0].message)
    assert caught[0].category is ConvergenceWarning
    for part in (
        "sigma is 2 times the bandwidth",
        "0.03 from 8 nodes",
        "0.4 from 3 steps",
        "tol=0.05",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({}, 9.0, None),
        ({"tol": 0.1}, 0.1, None),
        ({"tol": 0.1, "n_nodes": "auto"}, 0.11, "Pass a larger tol"),
        ({"tol": 0.1, "n_nodes": 8}, 0.11, "Leave n_nodes=8 at 'auto', or pass a larger tol"),
        ({"tol": 0.1, "n_steps": 3}, 0.11, "Leave n_nodes=8 and n_steps=3 at 'auto', or pass"),
        ({"tol": 0.1}, math.nan, "tol=0.1 cannot be checked"),
    ],
)
def test_warnings_of_accuracy(params, error, message):
    settings = parsed(**({"n_nodes": 8} | params))
    model = SimpleNamespace(
        data=SimpleNamespace(smoothing=SimpleNamespace(n_nodes=8)),
        levels=SimpleNamespace(n_levels=5),
        n_steps=7,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        accuracy._warn_of_accuracy(settings, model, error, 0.06, 0.09)
    assert len(caught) == (message is not None)
    if message is not None:
        text = str(caught[0].message)
        assert message in text
        assert caught[0].category is ConvergenceWarning
        if not math.isnan(error):
            assert "error of 0.11 nats, 0.06 from 8 nodes in 5 levels and 0.09 from 7 steps" in text


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({}, None),
        ({"n_jobs": 1}, None),
        ({"solver": "heun"}, None),
        ({"bandwidth": "auto"}, "bandwidth='auto' with sigma=0.3 cannot be resolved"),
        ({"sigma": "1.5x"}, "bandwidth=0.4 with sigma='1.5x' cannot be resolved"),
        ({"n_jobs": 2}, "n_jobs=2 cannot be combined with shards='distributed'"),
        ({"n_jobs": -1}, "n_jobs=-1 cannot be combined"),
        ({"solver": "adaptive"}, "solver='adaptive' cannot be combined"),
    ],
)
def test_parameters_that_do_not_suit_distributed_rows(changed, message):
    params = {
        "shards": "distributed",
        "bandwidth": 0.4,
        "sigma": 0.3,
        "n_jobs": None,
        "solver": "auto",
    }
    if message is None:
        check_suits_shards(params | changed)
    else:
        with pytest.raises(ValueError, match=message):
            check_suits_shards(params | changed)


def test_parameters_are_compared_between_processes():
    calls = []
    alone = SimpleNamespace(alone=True)
    check_same_parameters(alone, {"sigma": 1}, "X", 3)
    several = SimpleNamespace(alone=False, check_same=lambda name, *values: calls.append(values))
    for params in (
        {"sigma": 1, "bandwidth": 0.5},
        {"sigma": 1.0, "bandwidth": 0.5},
        {
            "sigma": 1,
            "bandwidth": 0.5,
            "n_jobs": 3,
            "device": "cpu",
            "random_state": 4,
            "verbose": 1,
        },
        {"sigma": 2, "bandwidth": 0.5},
    ):
        check_same_parameters(several, params, "X", "rows", 7)
    assert [values[:2] for values in calls] == [("rows", 7)] * 4
    digests = [values[2] for values in calls]
    assert digests[0] == digests[1] == digests[2] != digests[3]


def test_trajectories_need_rows_or_a_number():
    model = fitted()
    for arguments, word in (({}, "neither"), ({"X": X, "n_samples": 3}, "both")):
        with pytest.raises(ValueError, match=f"or n_samples, to draw; got {word}"):
            model.trajectories(**arguments)
    scales, rows = model.trajectories(X[:2])
    assert rows.shape == (len(scales), 2, 2)
    assert rows[0] == pytest.approx(X[:2])
    scales, rows = model.trajectories(n_samples=3, random_state=0)
    assert rows.shape == (len(scales), 3, 2)
    assert rows[-1] == pytest.approx(model.sample(3, random_state=0))
    stochastic = fitted(solver="euler-maruyama")
    with pytest.raises(ValueError, match="is stochastic and cannot follow rows X up"):
        stochastic.trajectories(X[:2])
    assert stochastic.trajectories(n_samples=3, random_state=0)[1].shape[1] == 3


def test_more_rows_keep_the_scales():
    first = fitted()
    more = fitted().partial_fit(X[:3] + 1.0)
    assert len(more.points_) == 15
    assert (more.bandwidth_, more.sigma_, more.metric_) == (
        first.bandwidth_,
        first.sigma_,
        "euclidean",
    )
    new = SmoothedScoreDiffusion(0.4, 0.3, **COARSE).partial_fit(X)
    assert new.score_samples(X[:2]) == pytest.approx(first.score_samples(X[:2]))
    sharded = fitted().set_params(shards="distributed")
    with pytest.raises(
        ValueError, match="partial_fit cannot be combined with shards='distributed'"
    ):
        sharded.partial_fit(X)
    with pytest.raises(ValueError, match=r"torch.distributed is not initialised"):
        sharded.score_samples(X[:2])


def test_work_for_a_row():
    """Points times nodes times coordinates with two more; zero before fit, components with a base."""
    assert SmoothedScoreDiffusion()._sums_per_row() == 0.0
    model = fitted()
    assert model._sums_per_row() == 12 * model.model_.data.smoothing.n_nodes * 4
    assert model._can_reweight
    based = fitted(base=ManifoldParzen(n_components=1, n_neighbors=3))
    assert based._sums_per_row() == 12 * 2 * based.model_.data.smoothing.n_nodes * 4
    assert not based._can_reweight
    with pytest.raises(
        ValueError, match="effective_sample_size and score_variance need the weights"
    ):
        based.effective_sample_size(X[:2])
    assert model.effective_sample_size(X[:2]).shape == (2,)
    weights = np.append(np.zeros(6), np.full(6, 1 / 6))
    changed = model._reweighted(weights)
    half = SmoothedScoreDiffusion(0.4, 0.3, **COARSE).fit(model.points_[6:])
    assert changed.score_samples(X[:3]) == pytest.approx(half.score_samples(X[:3]), rel=0.05)
    assert len(changed.model_.data.points) == 6
    assert len(model.model_.data.points) == 12
