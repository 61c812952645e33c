"""A kernel that the user passes, and scales that grow with the noise."""

from types import SimpleNamespace

import numpy as np
import pytest

from skdiffsmooth._coordinates.metric import candidate_metrics
from skdiffsmooth.kernels import (
    GaussianKernel,
    OffsetsKernel,
    ProportionalScale,
    SamplerKernel,
    TemperatureKernel,
    is_isotropic,
    works_over_base,
)
from skdiffsmooth.kernels._base import check_features, depends_on_query
from skdiffsmooth.kernels._choice import SameEverywhere


def test_a_scale_is_proportional_to_the_noise():
    scale = ProportionalScale(3)
    assert [scale(0.5), scale(2.0)] == [1.5, 6.0]
    assert type(scale.ratio) is float
    assert repr(ProportionalScale(0.25)) == "ProportionalScale(0.25)"
    with pytest.raises(ValueError, match="ratio=0"):
        ProportionalScale(0)


def test_attributes_of_kernels_have_defaults():
    plain = SimpleNamespace()
    assert not is_isotropic(plain)
    assert works_over_base(plain)
    assert not depends_on_query(plain)
    kernels = GaussianKernel(), OffsetsKernel([[1.0], [-1.0]]), SamplerKernel(len)
    kernels = (*kernels, TemperatureKernel())
    assert [is_isotropic(kernel) for kernel in kernels] == [True, False, False, True]
    assert [works_over_base(kernel) for kernel in kernels] == [True, True, True, False]
    assert not any(depends_on_query(kernel) for kernel in kernels)


def test_metrics_that_are_compared():
    def compared(rank, **attributes):
        return SameEverywhere(SimpleNamespace(**attributes)).candidate_metrics(rank)

    assert len(candidate_metrics(3)) > 1
    assert compared(3, is_isotropic=True) == candidate_metrics(3)
    assert compared(1, is_isotropic=True) == candidate_metrics(1)
    assert compared(3) == ("euclidean",)
    assert compared(3, depends_on_query=True, is_isotropic=True) == ()


def test_a_kernel_is_reduced_to_the_hull():
    kernel = SimpleNamespace(reduce=lambda hull, points, weights: (hull, points, weights))
    found = SameEverywhere(kernel).reduce("points", "weights", "hull", "metric", None)
    assert found == (("hull", "points", "weights"), "hull", {})


def test_a_base_is_refused_by_kernels_of_posterior_weights():
    SameEverywhere(GaussianKernel()).check_base("base")
    with pytest.raises(
        ValueError, match=r"kernel=TemperatureKernel\(\) smooths .* combined with base='gmm'; use"
    ):
        SameEverywhere(TemperatureKernel()).check_base("gmm")


def test_offsets_have_a_column_for_each_feature():
    hull = SimpleNamespace(n_features=3)
    check_features("offsets", 3, hull)
    for n_columns in (2, 4):
        with pytest.raises(ValueError, match=rf"offsets has {n_columns} columns, but X has 3 feat"):
            check_features("offsets", n_columns, hull)


# ------------------------------------------------------------------------------------ offsets


def test_weights_of_offsets_are_ratios():
    kernel = OffsetsKernel([[3.0, 1.0], [-1.0, -1 / 3]], [1.0, 3.0])
    np.testing.assert_allclose(kernel.weights, [0.25, 0.75])
    np.testing.assert_allclose(OffsetsKernel([[1.0], [-1.0]]).weights, [0.5, 0.5])
    assert repr(kernel) == "<OffsetsKernel of 2 offsets in R^2>"


@pytest.mark.parametrize("unit", [1e-100, 1.0, 1e100])
def test_the_mean_of_offsets_may_be_rounding(unit):
    """A mean of 1e-10 of the largest offset, and no more; it is subtracted."""
    allowed = unit * (np.array([[1.0, -1.0], [-1.0, 1.0]]) + [1e-10 * (1 - 1e-5), -0.9e-10])
    hull = SimpleNamespace(n_features=2, basis=np.array([[0.6], [0.8]]))
    shape = OffsetsKernel(allowed).reduce(hull, None, None)
    np.testing.assert_allclose(shape.offsets / unit, [[-0.2], [0.2]], rtol=1e-14)
    np.testing.assert_array_equal(shape.weights, [0.5, 0.5])
    # The largest offset is that of all features.
    OffsetsKernel(unit * (np.array([[9.0, -1.0], [-9.0, 1.0]]) + [0.0, 5e-10]))
    for moved in ([2.1e-10, 0.0], [0.0, -2.1e-10]):
        with pytest.raises(ValueError, match=r"offsets have the mean .* expected mean zero"):
            OffsetsKernel(unit * (np.array([[2.0, -1.0], [-2.0, 1.0]]) + moved))


@pytest.mark.parametrize(
    ("offsets", "weights", "message"),
    [
        ([1.0, -1.0], None, r"offsets has shape \(2,\); expected \(M, d\)"),
        (np.empty((0, 2)), None, r"offsets has shape \(0, 2\)"),
        (np.empty((2, 0)), None, r"offsets has shape \(2, 0\)"),
        ([[1.0], [-1.0]], [1.0], r"weights has shape \(1,\); expected \(2,\)"),
        ([[1.0], [-1.0]], [[1.0], [1.0]], r"weights has shape \(2, 1\)"),
        ([[1.0], [-1.0]], [1.0, 0.0], "weights holds a value that is zero"),
        ([[1.0], [-1.0]], [np.inf, np.inf], "weights holds a value that is zero"),
        ([[1.0], [-1.0]], [np.nan, 1.0], "weights holds a value that is zero"),
    ],
)
def test_bad_offsets(offsets, weights, message):
    with pytest.raises(ValueError, match=message):
        OffsetsKernel(offsets, weights)


def test_draws_of_a_sampler_have_the_shape_and_are_finite():
    kernel = SamplerKernel(lambda rng, n: np.full((n, 2), 3.0))
    np.testing.assert_array_equal(kernel.draw(None, 4, 2), np.full((4, 2), 3.0))
    with pytest.raises(
        ValueError, match=r"sampler\(rng, 4\) returned the shape \(4, 2\); expected \(4, 3\)"
    ):
        kernel.draw(None, 4, 3)
    with pytest.raises(ValueError, match=r"what sampler\(rng, n\) returned .*NaN"):
        SamplerKernel(lambda rng, n: np.full((n, 2), np.nan)).draw(None, 4, 2)
    shape = kernel.reduce(SimpleNamespace(basis=np.eye(2)), None, None)
    assert shape.draw == kernel.draw
    np.testing.assert_array_equal(shape.basis, np.eye(2))
    assert repr(SamplerKernel(len)) == "SamplerKernel(<built-in function len>)"
