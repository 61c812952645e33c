"""Parameters as values: what each spelling means, its bounds, and scales at their boundaries."""

import math

import numpy as np
import pytest
from likelihood_problems import parsed
from numpy.testing import assert_allclose

from skdiffsmooth._diffusion.settings import (
    DEFAULT_TOL,
    Relative,
    check_suits_periods,
    merging_tolerance,
    noise_for,
    resolve_background,
    resolve_flow_solver,
    resolve_kernel,
    resolve_n_jobs,
    resolve_n_nodes,
    resolve_solver,
    scales_of_levels,
    terminal_scale_for,
)
from skdiffsmooth._utils.validation import check_count
from skdiffsmooth.kernels import AnisotropicGaussianKernel, GaussianKernel
from skdiffsmooth.noise import NoiseLevels, OrnsteinUhlenbeck, VarianceExploding
from skdiffsmooth.solvers import Adaptive, Heun


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("bandwidth", "auto", None),
        ("bandwidth", "loo", Relative(1.0)),
        ("bandwidth", "0.85h", Relative(0.85)),
        ("bandwidth", ".5h", Relative(0.5)),
        ("bandwidth", "2.h", Relative(2.0)),
        ("bandwidth", "1e-1h", Relative(0.1)),
        ("bandwidth", 2, 2.0),
        ("sigma", "auto", None),
        ("sigma", "1.5h", Relative(1.5)),
        ("sigma", "0h", 0.0),
        ("sigma", 0, 0.0),
        ("sigma", 1.5, 1.5),
        ("background", "auto", None),
        ("background", 0, 0.0),
        ("background", 0.999, 0.999),
        ("n_levels", "auto", None),
        ("n_levels", 1, 1),
        ("n_steps", 7, 7),
        ("tol", "auto", None),
        ("tol", 0.05, 0.05),
        ("terminal_scale", "auto", "auto"),
        ("terminal_scale", 3, 3.0),
        ("terminal", "gaussian", "gaussian"),
        ("noise", "ve", "ve"),
    ],
)
def test_values_of_parameters(name, value, expected):
    found = getattr(parsed(**{name: value}), name)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"background": 1}, r"background=1 is out of range; expected a finite number >= 0 and < 1"),
        ({"background": -0.1}, "background=-0.1 is out of range"),
        ({"background": "much"}, "'auto'"),
        ({"bandwidth": 0.0}, "bandwidth=0.0"),
        ({"sigma": -1e-9}, "sigma=-1e-09"),
        ({"tol": 0}, "tol=0"),
        ({"terminal_scale": 0}, "terminal_scale=0"),
        ({"n_levels": 0}, "n_levels=0"),
        ({"n_nodes": 3}, "n_nodes=3 is odd"),
        ({"terminal": "flat"}, "terminal='flat'"),
    ],
)
def test_values_out_of_range(params, message):
    with pytest.raises(ValueError, match=message):
        parsed(**params)


def test_relative_scales_are_written_as_they_are_read():
    assert str(Relative(0.85)) == "0.85h"
    assert parsed(bandwidth=str(Relative(1 / 3))).bandwidth == Relative(1 / 3)


def test_numbers_of_nodes_by_rule():
    assert resolve_n_nodes("auto", "sobol") is None
    assert resolve_n_nodes(4, "sobol") == 4
    assert resolve_n_nodes(3, "gauss-hermite") == 3
    with pytest.raises(ValueError, match="too small"):
        resolve_n_nodes(1, "gauss-hermite")
    assert parsed().rule.n_nodes == 0
    assert parsed(n_nodes=6).rule.n_nodes == 6


def test_solvers_kernels_and_counts_by_name():
    assert resolve_flow_solver("auto") is None
    assert resolve_flow_solver("heun") == Heun()
    assert resolve_flow_solver("adaptive", 0.5) == Adaptive(tol=0.2)
    assert resolve_flow_solver("adaptive") == Adaptive()
    mine = Adaptive(tol=0.3)
    assert resolve_flow_solver(mine, 0.1) is mine
    assert resolve_solver("heun") == Heun()
    for wrong in (Heun, 3):
        with pytest.raises(TypeError, match=r"solver=.*an object of skdiffsmooth.solvers"):
            resolve_solver(wrong)
    assert isinstance(resolve_kernel("gaussian"), GaussianKernel)
    kernel = GaussianKernel()
    assert resolve_kernel(kernel) is kernel
    assert check_count("n_steps", "auto") is None
    assert resolve_background(0.5) == 0.5


@pytest.mark.parametrize("value", [None, 1, 4, -1, -3])
def test_numbers_of_workers(value):
    assert resolve_n_jobs(value) == value


def test_no_workers_are_refused():
    with pytest.raises(ValueError, match="n_jobs=0 is not a number of workers"):
        resolve_n_jobs(0)


def test_noise_by_name():
    process = noise_for("ou", 4.0)
    assert process == OrnsteinUhlenbeck(0.125)  # which keeps a variance of 4
    assert process.alpha(3.0) ** 2 * 4 + process.variance(3.0) == pytest.approx(4.0)
    assert noise_for("ou", 0.0) == VarianceExploding()
    assert noise_for("ve", 4.0) == VarianceExploding()
    assert noise_for(process, 1.0) is process


def by_noise(scale):
    return 2.0


@pytest.mark.parametrize(
    ("params", "are_absolute", "has_absolute", "is_free"),
    [
        ({}, False, False, True),
        ({"bandwidth": 0.5, "metric": "euclidean"}, False, True, False),
        ({"bandwidth": 0.5, "sigma": 0.5}, True, True, True),
        ({"bandwidth": 0.5, "sigma": by_noise, "metric": 0.5}, True, True, False),
        ({"bandwidth": 0.5, "sigma": "1h"}, False, True, True),
        ({"sigma": 0.0}, False, False, True),
        ({"sigma": 0.5}, False, True, True),
        ({"bandwidth": "loo", "sigma": "1h"}, False, False, True),
        ({"bandwidth": 0.5, "sigma": 0.0}, True, True, True),
    ],
)
def test_which_scales_have_units(params, are_absolute, has_absolute, is_free):
    settings = parsed(**params)
    assert settings.are_scales_absolute == are_absolute
    assert settings.has_absolute_scale == has_absolute
    assert settings.is_metric_free == is_free


def test_a_function_as_sigma_is_checked_where_it_is_called():
    assert parsed(sigma=lambda y: 2 * y).sigma(0.5) == 1.0
    assert parsed(sigma=lambda y: 0).sigma(0.5) == 0.0
    with pytest.raises(ValueError, match=r"sigma=-1.*That is what sigma\(0.5\) returned"):
        parsed(sigma=lambda y: -1).sigma(0.5)
    with pytest.raises(TypeError, match=r"failed at the noise scale 0\.5"):
        parsed(sigma=lambda: 1).sigma(0.5)


@pytest.mark.parametrize(
    ("tol", "n_points", "is_smoothed", "expected"),
    [
        (None, 10_000, True, 0.0),
        (None, 10_001, True, 0.1 * DEFAULT_TOL),
        (None, 10_001, False, 0.0),
        (0.5, 10_000, True, 0.0),
        (0.5, 10_001, False, 0.05),
        (0.5, 10_001, True, 0.05),
    ],
)
def test_points_are_merged_by_the_accuracy(tol, n_points, is_smoothed, expected):
    found = merging_tolerance(tol, n_points, is_smoothed=is_smoothed)
    assert found == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(
    ("arguments", "is_exact", "expected"),
    [
        (("auto", 5.0, 0.1, 0.2), False, 5.0),
        (("auto", 5.0, 0.1, 0.2), True, 1.6),  # eight smoothing scales are enough
        (("auto", 1.0, 0.1, 0.2), True, 1.0),
        (("auto", 0.1, 0.1, 0.2), True, 0.2 * 3),
        (("auto", 0.1, 0.4, 0.2), True, 0.8),
        (("auto", 0.1, 0.4, 0.0), False, 0.8),
        ((3.0, 0.1, 0.4, 9.0), True, 3.0),
    ],
)
def test_terminal_scales(arguments, is_exact, expected):
    assert terminal_scale_for(*arguments, is_exact=is_exact) == pytest.approx(expected)


@pytest.mark.parametrize("scale", [0.4, 0.3])
def test_a_terminal_scale_is_above_the_bandwidth(scale):
    with pytest.raises(ValueError, match=rf"terminal_scale={scale:g} is not above the bandwidth"):
        terminal_scale_for(scale, 1.0, 0.4, 0.0, is_exact=True)


def test_smoothing_scales_of_levels_are_divided_by_the_shrinkage():
    levels = NoiseLevels(0.5, 8.0, 4)
    middles = 0.5 * 2.0 ** np.array([0.5, 1.5, 2.5, 3.5])
    requested, scales = scales_of_levels(0.3, VarianceExploding(), levels)
    assert_allclose([requested, scales], 0.3)
    requested, scales = scales_of_levels(lambda y: y / 2, VarianceExploding(), levels)
    assert_allclose(requested, middles / 2)
    assert_allclose(scales, middles / 2)
    process = OrnsteinUhlenbeck(0.5)
    requested, scales = scales_of_levels(0.3, process, levels)
    assert_allclose(requested, 0.3)
    assert_allclose(scales, 0.3 * np.sqrt(1 + middles**2))  # alpha = 1 / sqrt(1 + y^2)

    class Vanishing(VarianceExploding):
        def alpha(self, t):
            return 0.0 if t > 1 else 1.0

    with pytest.raises(ValueError, match=r"shrinks the data to zero at noise scale 5\.65685"):
        scales_of_levels(0.3, Vanishing(), levels)
    _, scales = scales_of_levels(0.0, VarianceExploding(), levels)
    assert (scales == 0).all()


@pytest.mark.parametrize(
    ("name", "params", "kernel"),
    [
        ("terminal", {"terminal": "gaussian"}, None),
        ("base", {"base": "parzen"}, None),
        ("shards", {"shards": "distributed"}, None),
        ("kernel", {}, AnisotropicGaussianKernel("data")),
    ],
)
def test_what_does_not_suit_periods(monkeypatch, name, params, kernel):
    monkeypatch.setattr("skdiffsmooth._diffusion.settings.resolve_shards", lambda shards: None)
    periods = np.array([1.0, 0.0])
    check_suits_periods(parsed(periods=periods), periods)
    settings = parsed(kernel=kernel, periods=periods, **params)
    with pytest.raises(ValueError, match=rf"^{name}=.* cannot be combined with periods="):
        check_suits_periods(settings, periods)


def test_smoothing_that_overflows_is_named():
    levels = NoiseLevels(1.0, 2.0, 1)
    with pytest.raises(ValueError, match="expected finite scales"):
        scales_of_levels(math.inf, VarianceExploding(), levels)
