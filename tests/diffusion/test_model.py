"""The model itself: a value made of rows and parameters, that answers without an estimator."""

import gc
import weakref
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from skdiffsmooth import SmoothedScoreDiffusion
from skdiffsmooth._diffusion.comparison import settings_for
from skdiffsmooth._diffusion.fitting import make_model
from skdiffsmooth._diffusion.geometry import make_geometry, scales_in
from skdiffsmooth._diffusion.settings import parse_parameters
from skdiffsmooth._diffusion.training_data import TrainingData
from skdiffsmooth._utils.shards import ONE_PROCESS
from skdiffsmooth.kernels import GaussianKernel
from skdiffsmooth.kernels._choice import SameEverywhere

COARSE = {"n_nodes": 16, "n_levels": 6, "n_steps": 6}
RNG = np.random.RandomState(0)
X, QUERIES = RNG.normal(size=(30, 3)), RNG.normal(size=(7, 3))
WEIGHTS = RNG.dirichlet(np.ones(30))


def parsed(**params):
    params = SmoothedScoreDiffusion(**(COARSE | params)).get_params(deep=False)
    return parse_parameters(params, SameEverywhere(GaussianKernel()), 3)


def made(points=X, weights=WEIGHTS, **params):
    """Return a model and the resources to call it with."""
    settings = parsed(**params)
    data = TrainingData(points, weights, ONE_PROCESS, len(points), is_weighted=True)
    chosen, _, _ = settings_for(data, settings)
    geometry = make_geometry(chosen.metric, data, settings)
    bandwidth, sigma = scales_in(geometry, settings, chosen.scales)
    model, _ = make_model(geometry, settings, bandwidth, sigma, chosen.background)
    return model, settings.resources


def kde(queries, points, weights, bandwidth):
    """The Gaussian KDE by two loops' worth of broadcasting."""
    squares = ((queries[:, None] - points) ** 2).sum(2) / (2 * bandwidth**2)
    constant = queries.shape[1] * np.log(np.sqrt(2 * np.pi) * bandwidth)
    return logsumexp(np.log(weights) - squares, axis=1) - constant


def test_nothing_in_it_can_be_replaced():
    model, _ = made(bandwidth=0.4, sigma=0.3)
    for field in fields(model):
        with pytest.raises(FrozenInstanceError):
            setattr(model, field.name, None)


def test_it_holds_no_tensors():
    model, resources = made(bandwidth=0.4, sigma=0.3)
    model.log_density(QUERIES, resources)
    seen, stack = set(), [model]
    while stack:
        value = stack.pop()
        assert not isinstance(value, torch.Tensor)
        if id(value) not in seen:
            seen.add(id(value))
            stack += list(getattr(value, "__dict__", {}).values())


def test_later_queries_are_as_the_first():
    """Score fields and node tables are kept for later calls, as long as the model lives."""
    model, resources = made(bandwidth=0.4, sigma=0.3)
    fresh = [replace(model, source=replace(model.source)) for _ in range(3)]
    first, _ = model.log_density(QUERIES, resources)
    for _ in range(2):
        np.testing.assert_array_equal(model.log_density(QUERIES, resources)[0], first)
        model.draw(5, np.random.RandomState(0), resources)
        model.log_density(QUERIES[:2], resources)
        model.leave_one_out_log_density(resources)
    draws = [m.draw(5, np.random.RandomState(0), resources) for m in (model, fresh[0])]
    np.testing.assert_array_equal(*draws)
    single = resources._replace(backend=replace(resources.backend, dtype=torch.float32))
    found = [m.log_density(QUERIES, single)[0] for m in (model, fresh[1])]
    np.testing.assert_array_equal(*found)
    np.testing.assert_array_equal(model.log_density(QUERIES, resources)[0], first)
    schedule = weakref.ref(model.source.schedule(resources))
    assert schedule() is model.source.schedule(resources)
    del model
    gc.collect()
    assert schedule() is None


def test_without_smoothing_it_is_the_kde():
    model, resources = made(bandwidth=0.4, sigma=0.0)
    found, _ = model.log_density(QUERIES, resources)
    np.testing.assert_allclose(found, kde(QUERIES, X, WEIGHTS, 0.4), rtol=1e-10)  # rounding


def test_excluded_points_of_the_kde():
    model, resources = made(bandwidth=0.4, sigma=0.0)
    expected = [
        kde(X[[i]], np.delete(X, i, 0), np.delete(WEIGHTS, i) / (1 - WEIGHTS[i]), 0.4)[0]
        for i in range(len(X))
    ]
    found = model.leave_one_out_log_density(resources)
    np.testing.assert_allclose(found, expected, rtol=1e-9)  # rounding of the renormalised weights


def test_the_background_is_a_kde_of_four_bandwidths_and_a_tail():
    model, resources = made(bandwidth=0.4, sigma=0.3, background=0.1)
    flow, background, tail = model.parts(QUERIES, resources).T
    np.testing.assert_allclose(background, kde(QUERIES, X, WEIGHTS, 1.6), rtol=1e-10)
    expected = model.tail.student.log_density(*model.embedding.split(QUERIES))
    np.testing.assert_allclose(tail, expected, rtol=1e-10)
    mixture, _ = model.log_density(QUERIES, resources)
    # The kernel density estimate keeps 0.019 at least.
    weight = min(0.1 * model.tail.weight, 0.1 - 0.019)
    expected = 0.9 * np.exp(flow) + (0.1 - weight) * np.exp(background) + weight * np.exp(tail)
    np.testing.assert_allclose(np.exp(mixture), expected)


@pytest.mark.parametrize("params", [{"bandwidth": 0.4, "sigma": 0.3}, {}])
def test_the_estimator_answers_from_it(params):
    model, resources = made(**params)
    estimator = SmoothedScoreDiffusion(**COARSE, **params).fit(X, sample_weight=WEIGHTS)
    # The estimator sorts the rows, which moves sums by rounding.
    found, _ = model.log_density(QUERIES, resources)
    np.testing.assert_allclose(estimator.score_samples(QUERIES), found, rtol=1e-6)
    score = model.score_at(QUERIES, 0.5, resources)
    np.testing.assert_allclose(estimator.grad_log_density(QUERIES, 0.25), score, rtol=1e-6)


def test_a_fit_that_fails_draws_nothing_from_a_generator():
    generator = np.random.RandomState(0)
    with pytest.raises(ValueError, match="sigma"):
        SmoothedScoreDiffusion(0.4, -1.0, random_state=generator).fit(X)
    assert generator.randint(2**31) == np.random.RandomState(0).randint(2**31)
