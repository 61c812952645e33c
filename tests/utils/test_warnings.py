"""Tests that warnings point at the user's line, wherever the package raises them."""

import linecache
import warnings
from pathlib import Path

import numpy as np
import pytest

import skdiffsmooth
from skdiffsmooth import ManifoldAdaptedDiffusion, SmoothedScoreDiffusion
from skdiffsmooth._utils.support import warn_of_far_values
from skdiffsmooth._utils.warnings import warn_user
from skdiffsmooth.compose import TransformedDensity
from skdiffsmooth.manifolds import Circle
from skdiffsmooth.model_selection import SmoothedScoreDiffusionCV
from skdiffsmooth.solvers import Adaptive

FEW = {"n_nodes": 4, "n_levels": 2, "n_steps": 2}
CIRCLE = ManifoldAdaptedDiffusion(0.1, 0.9, manifold=Circle([0.0, 0.0], 1.0), **FEW)


def ring(n=30):
    angle = np.linspace(0, 6, n)
    return np.column_stack([np.cos(angle), np.sin(angle)])


def rounded():
    return np.round(2 * ring(), 0)


@pytest.mark.parametrize(
    ("estimator", "X", "message"),
    [
        (CIRCLE, ring(), "large compared with the manifold's reach"),
        (TransformedDensity(CIRCLE), ring(), "large compared with the manifold's reach"),
        (SmoothedScoreDiffusionCV(n_refinements=0), rounded(), "are not continuous"),
    ],
    ids=["fit", "fit within a fit", "search"],
)
def test_warnings_of_fits_point_at_the_call(estimator, X, message):
    with pytest.warns(UserWarning, match=message) as caught:
        estimator.fit(X)  # this line
    (warning,) = (w for w in caught if message in str(w.message))
    assert "this line" in linecache.getline(warning.filename, warning.lineno)


def test_warnings_of_queries_point_at_the_call():
    solver = Adaptive(1e-14, max_halvings=2)
    model = SmoothedScoreDiffusion(1e-3, 0.5, solver=solver, **FEW).fit(ring())
    with pytest.warns(UserWarning, match="tol") as caught:
        model.score_samples(ring(3))  # this line
    assert "this line" in linecache.getline(caught[0].filename, caught[0].lineno)


def test_a_folder_of_the_user_may_have_a_longer_name():
    package = Path(skdiffsmooth.__file__).parent
    script = f"{package}-scripts/script.py"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exec(compile("warn_user('here')", script, "exec"), {"warn_user": warn_user})
    assert caught[0].filename == script


def test_one_given_value_of_two_that_is_far_from_all_rows():
    centers = np.arange(5.0)[:, None]
    with pytest.warns(
        UserWarning, match=r"1 of 2 conditions .* by up to 30 bandwidths \(condition 1\)"
    ):
        warn_of_far_values(np.array([0.3, 30.0]), centers)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_far_values(np.array([0.3, 7.9]), centers)
