"""Warnings point at the line of the user, however deep in the package they are raised."""

import warnings

import numpy as np
import pytest

from skdiffsmooth import ManifoldAdaptedDiffusion, SmoothedScoreDiffusion
from skdiffsmooth._utils.warnings import warn_user
from skdiffsmooth.manifolds import Circle
from skdiffsmooth.solvers import Adaptive


def ring(n=12):
    angle = 2 * np.pi * np.arange(n) / n
    return np.column_stack([np.cos(angle), np.sin(angle)])


def loose():
    solver = Adaptive(1e-12, max_halvings=0)
    return SmoothedScoreDiffusion(0.1, 0.2, n_nodes=4, n_levels=2, n_steps=2, solver=solver)


def wide():
    circle = Circle([0.0, 0.0], 1.0)
    return ManifoldAdaptedDiffusion(0.1, 2.0, manifold=circle, n_nodes=4, n_levels=2, n_steps=2)


@pytest.mark.parametrize(
    "call",
    [
        lambda: warn_user("here"),
        lambda: wide().fit(ring()),
        lambda: loose().fit(ring()).score_samples(ring()),
        lambda: loose().fit(ring()).score(ring()),
        lambda: loose().fit(ring()).sample(3, random_state=0),
        lambda: loose().fit(ring()).leave_one_out_log_density(),
    ],
    ids=["direct", "fit", "score_samples", "score", "sample", "leave-one-out"],
)
def test_a_warning_points_at_this_file(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    assert caught
    assert {warning.filename for warning in caught} == {__file__}


def test_the_category_is_passed_on():
    with pytest.warns(RuntimeWarning, match="so it goes"):
        warn_user("so it goes", RuntimeWarning)
