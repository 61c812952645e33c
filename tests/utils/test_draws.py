"""Draws of points by their weights, compared with one loop over the draws."""

import numpy as np
import oracles
from numpy.testing import assert_array_equal

from skdiffsmooth._utils.draws import draw_given, draw_points


def test_draw_points_agrees_with_one_loop_over_draws():
    rng = np.random.RandomState(0)
    points, weights = rng.normal(size=(30, 2)), rng.dirichlet(np.ones(30))
    uniform = np.random.RandomState(5).uniform(size=50)
    found = draw_points(np.random.RandomState(5), points, weights, 50)
    for u, point in zip(uniform, found, strict=True):
        assert_array_equal(point, points[np.searchsorted(np.cumsum(weights), u)])


def test_draw_given_agrees_with_one_loop_over_rows():
    rng = np.random.RandomState(0)
    points, log_weights = rng.normal(size=(30, 2)), np.log(rng.dirichlet(np.ones(30)))
    values = np.repeat(rng.normal(size=(7, 2)), [1, 5, 2, 9, 1, 1, 3], axis=0)
    values = values[rng.permutation(len(values))]
    for memory_limit in (1024, 0.003):  # in one tile, and three rows of weights at a time
        uniform = np.random.RandomState(5).uniform(size=len(values))
        found = draw_given(
            np.random.RandomState(5), points, log_weights, values, memory_limit=memory_limit
        )
        for u, value, index in zip(uniform, values, found, strict=True):
            weights = oracles.posterior(points, log_weights, value, 1.0).weights
            assert index == np.searchsorted(np.cumsum(weights), u)
