"""The choice of a kernel along a manifold: which one, what is refused, and where it warns."""

import math
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from skdiffsmooth._coordinates.hull import AffineHull
from skdiffsmooth._coordinates.metric import candidate_metrics
from skdiffsmooth._utils.shards import ONE_PROCESS
from skdiffsmooth.kernels import _along_manifold
from skdiffsmooth.kernels._along_manifold import AlongManifold, _along_subspace, _usable_reach
from skdiffsmooth.kernels._gated import GatedShape
from skdiffsmooth.kernels._pushed import ManifoldShape
from skdiffsmooth.kernels._shapes import LinearShape
from skdiffsmooth.manifolds import (
    AffineSubspace,
    Circle,
    LocalPolynomialManifold,
    PointCloud,
    estimate_reach,
)

X = np.random.default_rng(0).normal(size=(40, 3)) * [4.0, 2.0, 1.0]
WEIGHTS = np.random.default_rng(1).dirichlet(np.ones(40))
HULL = AffineHull.of(X)
CIRCLE = Circle([0.0, 0.0, 0.0], 1.0, np.eye(3)[:, :2])


def choice(manifold="local", n_components="auto", n_cells="auto", push="translated"):
    return AlongManifold(manifold, n_components, n_cells, push)


def reduce(own, X=X, weights=WEIGHTS, metric="euclidean", shards=ONE_PROCESS):
    return own.reduce(X, weights, AffineHull.of(X), metric, shards)


# ------------------------------------------------------------------------- principal components


@pytest.mark.parametrize("n_components", [1, 2, 3])
def test_the_span_of_principal_components(n_components):
    kernel, hull, learned = reduce(choice("pca", n_components))
    manifold = learned["manifold_"]
    center = WEIGHTS @ X
    axes = np.linalg.eigh(np.cov(X.T, bias=True, aweights=WEIGHTS))[1][:, ::-1][:, :n_components]
    np.testing.assert_allclose(manifold.basis @ manifold.basis.T, axes @ axes.T, atol=1e-10)
    across = center - manifold.origin
    np.testing.assert_allclose(across, axes @ (axes.T @ across), atol=1e-10)
    in_hull = hull.basis.T @ axes
    np.testing.assert_allclose(kernel.factor @ kernel.factor.T, in_hull @ in_hull.T, atol=1e-10)
    assert kernel.rank == n_components


def test_components_keep_a_share_of_the_variance():
    def kept(n_components, variances):
        rows = np.diag(np.sqrt(variances))
        return reduce(choice("pca", n_components), np.vstack([rows, -rows]), np.full(6, 1 / 6))[
            0
        ].rank

    shares = 0.5, 0.89, 0.91, 0.95, 0.97, 0.999
    assert [kept(share, [90.0, 6.0, 4.0]) for share in shares] == [1, 1, 2, 2, 3, 3]
    # "auto" keeps 95 %.
    assert kept("auto", [94.9, 3.1, 2.0]) == 2
    assert kept("auto", [95.1, 2.9, 2.0]) == 1


@pytest.mark.parametrize(
    ("n_components", "error", "message"),
    [
        (4, ValueError, r"n_components=4 exceeds .* = 3; expected an integer from 1 to 3"),
        (0, ValueError, "n_components=0"),
        (1.0, ValueError, r"n_components=1\.0 .* share of the variance; or pass an integer"),
        (1.5, ValueError, r"n_components=1\.5"),
        ("all", ValueError, r"n_components='all' .* or a share of the variance"),
        (None, TypeError, "n_components=None"),
    ],
)
def test_bad_numbers_of_principal_components(n_components, error, message):
    with pytest.raises(error, match=message):
        reduce(choice("pca", n_components))


@pytest.mark.parametrize("metric", ["whitened", "local", 0.5, "warped scaled"])
def test_metrics_that_change_variances_are_refused_by_pca(metric, monkeypatch):
    monkeypatch.setattr(
        _along_manifold, "is_warped", lambda metric: str(metric).startswith("warped")
    )
    with pytest.raises(ValueError, match="changes the variances by which manifold='pca' chooses"):
        reduce(choice("pca"), metric=metric)
    reduce(choice("local"), metric=metric)
    with pytest.raises(ValueError, match="cannot be combined with a given manifold"):
        reduce(choice(CIRCLE), metric=metric)


def test_other_metrics():
    for metric in ("scaled", "euclidean", np.eye(3)):
        reduce(choice("pca"), metric=metric)
        reduce(choice("local"), metric=metric)
    for metric in ("scaled", np.eye(3)):
        with pytest.raises(ValueError, match="cannot be combined with a given manifold"):
            reduce(choice(CIRCLE), metric=metric)


def test_metrics_that_are_compared():
    assert choice("pca").candidate_metrics(3) == ("euclidean",)
    assert choice("local").candidate_metrics(3) == candidate_metrics(3)
    assert choice(CIRCLE).candidate_metrics(3) == ()
    assert choice("pca").check_base("base") is None


# --------------------------------------------------------------------------------- subspaces


@pytest.mark.parametrize("k", [1, 2, 3])
def test_offsets_along_a_subspace_have_the_covariance_of_the_projection(k):
    """In the plane of the data; directions across it have no effect."""
    basis = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    hull = AffineHull(np.zeros(3), np.eye(3)[:, :2])
    shape = _along_subspace(AffineSubspace.from_basis(np.zeros(3), basis[:, :k]), hull)
    in_hull = basis[:2, :k]
    np.testing.assert_allclose(shape.factor @ shape.factor.T, in_hull @ in_hull.T, atol=1e-12)
    assert shape.rank == min(k, 2)
    # The upper block is symmetric and positive.
    block = shape.factor[: shape.rank]
    np.testing.assert_allclose(block, block.T, atol=1e-12)
    assert (np.linalg.eigvalsh(block) > 0).all()


def test_a_subspace_across_the_data_has_no_directions():
    hull = AffineHull(np.zeros(3), np.eye(3)[:, :2])
    for slant, rank in ((0.0, 0), (1e-9, 0), (1e-7, 1)):
        direction = np.array([[slant], [0.0], [1.0]])
        shape = _along_subspace(AffineSubspace.from_basis(np.zeros(3), direction), hull)
        assert shape.rank == rank
    # d times the rounding of a variance: a slant of 2.58e-8 has 6.7e-16 in three features.
    for slant, rank in ((2.55e-8, 0), (2.61e-8, 1)):
        direction = np.array([[slant], [0.0], [1.0]])
        assert _along_subspace(AffineSubspace.from_basis(np.zeros(3), direction), hull).rank == rank


# ------------------------------------------------------------------------------ known manifolds


def test_a_curved_manifold_has_its_reach_and_a_hull_that_contains_it():
    X = np.column_stack([np.linspace(-1, 1, 9), np.zeros(9), np.zeros(9)])
    kernel, hull, learned = reduce(choice(CIRCLE, push="level-set"), X, np.full(9, 1 / 9))
    assert isinstance(kernel, ManifoldShape)
    assert (kernel.push, kernel.reach) == ("level-set", 1.0)
    assert hull.dimension == 2
    assert learned == {"manifold_": CIRCLE}
    kernel, hull, learned = reduce(choice(AffineSubspace([[0.0, 0.0, 1.0]], [0.0])))
    assert isinstance(kernel, LinearShape)
    assert hull.dimension == 3


def test_a_manifold_is_differentiated_in_the_coordinates_of_the_hull(monkeypatch):
    calls = []

    def differentiable(manifold, x):
        calls.append(x)
        return manifold

    monkeypatch.setattr(_along_manifold, "differentiable", differentiable)
    reduce(choice(CIRCLE))
    np.testing.assert_allclose(calls, [HULL.split(X)[0]])


@pytest.mark.parametrize(
    ("manifold", "error", "message"),
    [
        ("lokal", ValueError, r"manifold='lokal' .* Or pass an object of skdiffsmooth\.manifolds"),
        (Circle, TypeError, "manifold"),
        (3, TypeError, "manifold=3 has type int"),
        (Circle([0.0, 0.0], 1.0), ValueError, r"lies in R\^2 but X has 3 features"),
    ],
)
def test_bad_manifolds(manifold, error, message):
    with pytest.raises(error, match=message):
        reduce(choice(manifold))


def test_bad_pushes():
    with pytest.raises(ValueError, match="push='up' is not known"):
        reduce(choice(push="up"))


def test_a_manifold_that_returns_arrays_is_refused():
    manifold = SimpleNamespace(
        n_features=3,
        dimension=1,
        reach=None,
        project=lambda X: np.asarray(X) * [1.0, 0.0, 0.0],
        distance=lambda X: np.linalg.norm(np.asarray(X)[:, 1:], axis=1),
        tangent=lambda X: np.tile(np.eye(3)[:, :1], (len(X), 1, 1)),
    )
    with pytest.raises(
        TypeError, match=r"does not return a tensor from project\(X\) if X is a ten"
    ):
        reduce(choice(manifold))


def test_a_local_polynomial_manifold_is_fitted_once():
    given = LocalPolynomialManifold(n_components=2)
    found = choice(given)._given_manifold(X, WEIGHTS)
    assert found is not given
    assert found.n_components_ == 2
    assert not hasattr(given, "n_components_")
    assert choice(found)._given_manifold(X, WEIGHTS) is found
    assert choice("pca")._given_manifold(X, WEIGHTS) is None


def test_a_reach_is_estimated_where_a_density_needs_it():
    known = SimpleNamespace(reach=0.3, projection_factors=None)
    assert _usable_reach(known, known, X) == 0.3
    without = SimpleNamespace(reach=None)
    assert _usable_reach(without, without, X) is None
    angle = np.linspace(0, 6, 2500)
    rows = np.column_stack([np.cos(angle), np.sin(angle)]) * 2
    circle = Circle([0.0, 0.0], 2.0)
    unknown = SimpleNamespace(
        n_features=2,
        dimension=1,
        reach=None,
        project=circle.project,
        tangent=circle.tangent,
        projection_factors=circle.projection_factors,
    )
    # Half of the estimate from at most a thousand rows, here every third.
    assert _usable_reach(unknown, unknown, rows) == 0.5 * estimate_reach(unknown, rows[::3])
    for n in (1000, 999, 3):
        assert _usable_reach(unknown, unknown, rows[:n]) == 0.5 * estimate_reach(unknown, rows[:n])
    assert _usable_reach(unknown, unknown, rows[:2]) == math.inf


# -------------------------------------------------------------------------------- learned tangents


def test_learned_tangents():
    kernel, hull, learned = reduce(choice("local", 2, 3))
    assert isinstance(kernel, GatedShape)
    assert hull.dimension == 3
    assert learned["n_components_"] == 2
    assert len(learned["cells_"]) == 3
    assert kernel.cells is learned["cells_"]
    kernel, _, learned = reduce(choice("local", 3))
    assert isinstance(kernel, LinearShape)
    np.testing.assert_array_equal(kernel.factor, np.eye(3))
    assert len(reduce(choice("local", 1, 40))[2]["cells_"]) == 40


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"n_cells": 41}, ValueError, "n_cells=41 exceeds the number of distinct rows, 40"),
        ({"n_cells": 0}, ValueError, "n_cells=0"),
        ({"n_components": 0.9}, TypeError, r"n_components=0\.9 is a share of the variance, which"),
        ({"n_components": 4}, ValueError, "n_components=4 is too large; expected at most 3"),
        ({"n_components": 0}, ValueError, "n_components=0"),
        ({"n_components": "most"}, ValueError, "n_components='most' .*Or pass an integer"),
    ],
)
def test_bad_parameters_of_learned_tangents(params, error, message):
    with pytest.raises(error, match=message):
        reduce(choice("local", **params))


def test_tangents_are_not_learned_from_parts_of_the_rows():
    with pytest.raises(ValueError, match="manifold='local' cannot be learned with shards='distri"):
        reduce(choice("local", 1), shards=SimpleNamespace(alone=False))


def test_the_dimension_of_few_rows_is_not_estimated(monkeypatch):
    estimates = []

    def estimate(value, points, largest):
        estimates.append((value, len(points), largest))
        return 1

    monkeypatch.setattr(_along_manifold, "check_n_components", estimate)
    assert choice()._tangent_dimension(X[:9], 3) == 3
    assert choice()._tangent_dimension(X, 0) == 0
    assert choice("local", 2)._tangent_dimension(X, 0) == 0
    assert not estimates
    assert choice()._tangent_dimension(X[:10], 3) == 1
    assert choice("local", 2)._tangent_dimension(X[:5], 3) == 1
    assert estimates == [("auto", 10, 3), (2, 5, 3)]

    def fail(*args):
        raise ValueError("no estimate.")

    monkeypatch.setattr(_along_manifold, "check_n_components", fail)
    with pytest.warns(
        UserWarning, match=r"no estimate\. The score is smoothed in all 3 directions"
    ):
        assert choice()._tangent_dimension(X, 3) == 3


# ----------------------------------------------------------------------------- scales and reach

ON_CIRCLE = np.array([[2.0, 0.0], [0.0, 2.0], [-2.0, 0.0], [0.0, -2.0]])


def check(scales, bandwidth=0.1, coordinates=ON_CIRCLE, push="translated", kernel=None):
    """Check scales on a circle of radius two, where offsets have faded out at a distance of two."""
    circle = Circle([0.0, 0.0], 2.0)
    kernel = ManifoldShape(circle, push, 2.0) if kernel is None else kernel
    own = choice(circle, push=push)
    own.check_scales(kernel, coordinates, bandwidth, np.array(scales, dtype=float))


def test_the_reach_is_at_least_half_the_bandwidth():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check([0.1], bandwidth=4.0)
        check([0.0], bandwidth=4.1)
        check([0.1], bandwidth=9.0, kernel=LinearShape(np.eye(2)))
        cloud = PointCloud(ON_CIRCLE, 1)
        check([0.1], bandwidth=9.0, kernel=ManifoldShape(cloud, "translated", None))
    with pytest.raises(ValueError, match=r"has the reach 2, too small for the bandwidth 4\.01: wi"):
        check([0.0, 0.1], bandwidth=4.01)


@pytest.mark.parametrize(("push", "widest"), [("translated", 1.2), ("level-set", 0.6)])
def test_wide_scales_are_warned_of(push, widest):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check([0.05, widest], push=push)
    with pytest.warns(UserWarning, match=rf"reach 2 for push='{push}'.* Lower sigma to {widest}\."):
        check([widest + 0.01, 0.1], push=push)


def test_rows_far_from_the_manifold_are_warned_of():
    """More than half of the rows farther than half the distance of fading."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check([0.1], coordinates=ON_CIRCLE * [[1.5], [1.5], [1.5], [1.5]])
        check([0.1], coordinates=ON_CIRCLE * [[1.6], [1.6], [1.0], [1.0]])
    with pytest.warns(UserWarning, match=r"^3 of 4 distinct rows are farther .* than 1, where"):
        check([0.1], coordinates=ON_CIRCLE * [[1.6], [1.6], [0.4], [1.0]])
