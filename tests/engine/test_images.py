"""Which images of points are used at a noise scale, and where products are used instead."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from skdiffsmooth._engine import periodic
from skdiffsmooth._engine.moments import Nodes
from skdiffsmooth._engine.periodic import PeriodicPosterior, make_posterior
from skdiffsmooth._engine.posterior import Posterior
from skdiffsmooth._engine.torus import TorusPosterior
from skdiffsmooth._utils.backend import Backend

BACKEND = Backend.from_params("cpu", "float64")
PERIODS = np.array([0.0, 2.0])


def posterior_of(n=5, periods=PERIODS, **more):
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, size=(n, len(periods)))
    weights = rng.dirichlet(np.ones(n))
    return (
        PeriodicPosterior(points, weights, periods, BACKEND, memory_limit=64, **more),
        points,
        weights,
    )


@pytest.mark.parametrize("scale", [0.01, 0.2, 0.7, 1.9])
@pytest.mark.parametrize("max_norm", [0.0, 0.3, 50.0])
def test_images_left_out_are_negligible(scale, max_norm):
    """Their kernels are below 1e-10 of that of the nearest image, at all queries of a period."""
    own, points, _ = posterior_of()
    images = own._at(scale**2, max_norm)
    v = scale**2
    positions = images.posterior._points.positions.numpy()[: len(images.posterior)]
    used = np.sort(positions[:, 1])
    # Nodes move wrapped queries by at most half a period.
    most = 1.0 + min(max_norm, 1.0)
    for x in np.linspace(-most, most, 41):
        for point in points[:, 1]:
            every = point + 2.0 * np.arange(-9, 10)
            exponents = -((x - every) ** 2) / (2 * v)
            matters = every[exponents > exponents.max() - math.log(1e10)]
            for image in matters:
                assert np.abs(used - image).min() < 1e-9
    # And not many more: a margin in eighths of the period, and half a period for what is wrapped.
    reach = 2 * math.sqrt(0.25 + 2 * v / 4 * math.log(1e10)) + min(max_norm, 1.0)
    assert used.max() <= 1 + reach + 2 / 8
    assert used.min() >= -1 - reach - 2 / 8
    # Images of a point are those at its indices.
    for i, point in enumerate(points):
        of_point = positions[images.of_point[i].numpy()]
        assert_allclose(of_point[:, 0], point[0])
        turns = (of_point[:, 1] - point[1]) / 2
        assert_allclose(turns, np.round(turns), atol=1e-12)
        assert len(np.unique(np.round(turns))) == (np.abs(positions[:, 0] - point[0]) < 1e-12).sum()


def test_products_are_used_where_images_are_many(monkeypatch):
    own, _, _ = posterior_of()
    v = 0.3**2
    margin = math.ceil(8 * math.sqrt(0.25 + 2 * v / 4 * math.log(1e10)))
    n_images = 1 + 2 * margin / 8
    assert not isinstance(own._at(v), TorusPosterior)
    # Of each point, times the number of coordinates.
    for factor, by_products in ((1.0, False), (0.999, True)):
        monkeypatch.setattr(periodic, "_IMAGES_A_PRODUCT", factor * n_images / 2)
        assert isinstance(own._at(v), TorusPosterior) == by_products
    monkeypatch.setattr(periodic, "_IMAGES_A_PRODUCT", 64)
    for factor, by_products in ((1.0, False), (0.999, True)):
        monkeypatch.setattr(periodic, "_MOST_IMAGES", factor * n_images * 5)
        assert isinstance(own._at(v), TorusPosterior) == by_products
    # Nodes widen the range by their length, up to half a period.
    monkeypatch.setattr(periodic, "_MOST_IMAGES", 2**22)
    for norm, wider in ((0.5, 2), (1.0, 4), (30.0, 4)):
        monkeypatch.setattr(periodic, "_IMAGES_A_PRODUCT", (n_images + 2 * wider / 8) / 2)
        assert not isinstance(own._at(v, norm), TorusPosterior)
        monkeypatch.setattr(periodic, "_IMAGES_A_PRODUCT", (n_images + 2 * wider / 8) / 2 - 1e-9)
        assert isinstance(own._at(v, norm), TorusPosterior)


def test_where_all_coordinates_are_uniform_products_are_used():
    own, *_ = posterior_of(periods=np.array([2.0, 0.7]))
    assert isinstance(own._at(2.1**2), TorusPosterior)
    assert not isinstance(own._at(1.99**2), TorusPosterior)
    assert not isinstance(own._at(0.1**2), TorusPosterior)
    with_line, *_ = posterior_of()
    uniform = with_line._at(2.1**2)
    assert uniform.kept.tolist() == [0]
    assert uniform.log_volume == pytest.approx(math.log(2))
    assert uniform.trace_weight == 1.0


def test_four_sets_of_images_are_kept():
    own, *_ = posterior_of()
    scales = (0.05, 0.3, 0.5, 0.7)
    sets = [own._at(s**2) for s in scales]
    assert len({id(each) for each in sets}) == 4
    assert all(own._at(s**2) is each for s, each in zip(scales, sets, strict=True))
    assert len(own._sets) == 4
    # The one that was used last longest ago is dropped.
    own._at(scales[0] ** 2)
    own._at(1.2**2)
    assert len(own._sets) == 4
    assert own._at(scales[0] ** 2) is sets[0]
    assert own._at(scales[2] ** 2) is sets[2]
    assert own._at(scales[1] ** 2) is not sets[1]


@pytest.mark.parametrize("scale", [0.2, 2.5])
@pytest.mark.parametrize("exclude", [None, [4, 0, 0]])
def test_images_and_products_agree(scale, exclude):
    trace_weights = np.array([0.5, 3.0])
    own, points, weights = posterior_of(trace_weights=trace_weights)
    other = TorusPosterior(
        points, weights, PERIODS, BACKEND, memory_limit=64, trace_weights=trace_weights
    )
    x = torch.tensor([[0.1, 0.4], [0.5, 7.3], [-0.5, -12.0]]).double()
    offsets = np.array([[0.3, 5.1], [-0.2, -3.4]])  # of mean zero
    nodes = Nodes.from_arrays(offsets, np.array([0.4, 0.6]), BACKEND)
    index = None if exclude is None else torch.tensor(exclude)
    assert not isinstance(own._at(scale**2, nodes.max_norm), TorusPosterior)
    found, expected = (
        each.moments(x, scale**2, nodes, trace=True, exclude=index) for each in (own, other)
    )
    assert_allclose(found.mean, expected.mean, atol=1e-8)
    assert_allclose(found.trace, expected.trace, rtol=1e-8)
    assert_allclose(found.log_density, expected.log_density, atol=1e-8)
    found, expected = (each.log_density(x, scale**2, exclude=index) for each in (own, other))
    assert_allclose(found, expected, atol=1e-8)


def test_posteriors_with_and_without_periods():
    points, weights = np.zeros((3, 2)), np.full(3, 1 / 3)
    plain = make_posterior(points, weights, None, BACKEND, memory_limit=8.0, radius=2.5)
    assert type(plain) is Posterior
    assert plain._points.radius == 2.5
    assert plain.memory_limit == 8.0
    own = make_posterior(points, weights, PERIODS, BACKEND, memory_limit=8.0)
    assert type(own) is PeriodicPosterior
    assert len(own) == 3
    assert own.memory_limit == 8.0
