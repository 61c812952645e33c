"""Tests of small functions: slices of rows, units, norms, triangular systems, precision of backends."""

import math
import re

import numpy as np
import pytest
import torch

from skdiffsmooth._utils.backend import Backend, to_device
from skdiffsmooth._utils.gaussian import gaussian_log_normalizer
from skdiffsmooth._utils.kernel_weights import (
    log_kernel_weights,
    log_wrapped_kernel,
    nearest_squares,
)
from skdiffsmooth._utils.memory import (
    check_fits,
    rows_that_fit,
    rows_within,
    slices,
    slices_within,
)
from skdiffsmooth._utils.parallel import over_workers
from skdiffsmooth._utils.support import warn_of_far_values
from skdiffsmooth._utils.triangular import divide_by_triangle
from skdiffsmooth._utils.units import column_norms, common_unit, per_unit, unit_for

# ------------------------------------------------------------------------------ memory


@pytest.mark.parametrize(
    ("bytes_per_row", "limit", "n_rows"),
    [(2**20, 1, 1), (2**19, 1, 2), (2**19 + 1, 1, 1), (8, 2, 2**18), (2**20, 0.999, 0)],
)
def test_as_many_rows_as_fit(bytes_per_row, limit, n_rows):
    assert rows_within(bytes_per_row, limit) == max(1, n_rows)
    if n_rows:
        assert rows_that_fit(bytes_per_row, limit) == n_rows
    else:
        with pytest.raises(ValueError, match=r"memory_limit=0.999 .* one row: at least 1 MiB"):
            rows_that_fit(bytes_per_row, limit)


def test_the_least_memory_is_named():
    check_fits(3 * 2**20, 3, "four rows")
    message = r"memory_limit=3 (MiB) is too small for four rows: at least 3.5 MiB are needed."
    with pytest.raises(ValueError, match=re.escape(message)):
        check_fits(7 * 2**19, 3, "four rows")


@pytest.mark.parametrize(
    ("length", "step", "expected"),
    [
        (0, 3, []),
        (1, 3, [(0, 1)]),
        (3, 3, [(0, 3)]),
        (4, 3, [(0, 3), (3, 4)]),
        (2, 0, [(0, 1), (1, 2)]),
        (2, -5, [(0, 1), (1, 2)]),
    ],
)
def test_slices_cover_a_range(length, step, expected):
    assert [(part.start, part.stop) for part in slices(length, step)] == expected


def test_slices_within_a_limit():
    assert list(slices_within(5, 2**19, 1)) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    # No rows are one empty slice, so that callers get arrays of the right shape.
    assert [np.arange(0)[part].size for part in slices_within(0, 8, 1)] == [0]
    assert list(slices_within(0, 8, 1)) == [slice(0, 1)]


# ------------------------------------------------------------------------------ units


@pytest.mark.parametrize(
    ("size", "unit"),
    [
        (0.0, 1.0),
        (1.0, 1.0),
        (2.0**20, 1.0),
        (2.0**21 - 0.5, 1.0),
        (2.0**21, 2.0**21),
        (3 * 2.0**21, 2.0**22),
        (2.0**-20, 1.0),
        (2.0**-21, 2.0**-21),
        (1.5 * 2.0**-21, 2.0**-21),
        (1e300, 2.0**996),
    ],
)
def test_units_are_powers_of_two_up_to_the_size(size, unit):
    assert unit_for(size) == unit
    assert unit_for(size, 0) == (2.0 ** math.floor(math.log2(size)) if size else 1.0)
    assert common_unit(np.array([[7.0, 7.0], [7.0, 7.0 + size]])) == (
        unit_for(7.0 + size - 7.0) if 7.0 + size > 7.0 else 1.0
    )


def test_the_common_unit_is_that_of_the_range_or_else_of_the_size():
    assert common_unit(np.array([[2.0**40], [2.0**40 + 2.0**30]])) == 2.0**30
    assert common_unit(np.full((3, 2), -(2.0**40))) == 2.0**40
    assert common_unit(np.empty((0, 2))) == 1.0
    assert common_unit(np.array([[0.0], [3.0]]), 0) == 2.0


@pytest.mark.parametrize("scale", [1e-250, 1.0, 1e250])
def test_norms_neither_overflow_nor_underflow(scale):
    matrix = np.array([[3.0, 0.0, 1.0], [-4.0, 0.0, 1.0]])
    np.testing.assert_allclose(column_norms(matrix * scale) / scale, [5, 0, math.sqrt(2)], 1e-15)


def test_norms_of_no_rows_are_zero():
    np.testing.assert_array_equal(column_norms(np.empty((0, 2))), [0.0, 0.0])


def test_values_per_unit():
    values = np.array([[6.0, 0.0], [-9.0, 3.0]])
    np.testing.assert_array_equal(per_unit("m", values, 3.0), values / 3)
    np.testing.assert_array_equal(
        per_unit("m", values, 3.0, np.array([1.0, 2.0])), [[2, 0], [-3, 0.5]]
    )
    for units in ([1e-300, 1e-300], [1e300, 1e300]):
        with pytest.raises(ValueError, match=r"m leaves the finite range .* 3 of 4 values"):
            per_unit("m", values, *units)


@pytest.mark.parametrize("n_rows", [0, 1, 5])
def test_triangular_systems(n_rows):
    rng = np.random.default_rng(0)
    triangle = np.tril(rng.normal(size=(4, 4))) + 3 * np.eye(4)
    rows = rng.normal(size=(n_rows, 4))
    solved = divide_by_triangle(rows, triangle)
    assert solved.shape == (n_rows, 4)
    np.testing.assert_allclose(solved @ triangle.T, rows, atol=1e-13)


@pytest.mark.parametrize(("dimension", "variance"), [(1, 1.0), (3, 1.0), (2, 4.0), (0, 2.0)])
def test_normalizers_of_gaussians(dimension, variance):
    x = np.linspace(-40, 40, 20001)
    of_one = np.sum(np.exp(-(x**2) / (2 * variance))) * (x[1] - x[0])
    assert abs(gaussian_log_normalizer(dimension, variance) - dimension * math.log(of_one)) < 1e-10
    assert gaussian_log_normalizer(1) == gaussian_log_normalizer(1, 1.0)


# ------------------------------------------------------------------------------ kernels


@pytest.mark.parametrize("scale", [0.01, 0.3, 1.0, 2.0, 2.001, 5.0])
def test_wrapped_kernels_are_sums_over_images(scale):
    period = 2.0
    u = np.linspace(-1, 1, 9)
    images = u[:, None] + period * np.arange(-60, 61)
    exponents = -(images**2) / (2 * scale**2)
    top = exponents.max(axis=1)
    expected = top + np.log(np.exp(exponents - top[:, None]).sum(axis=1))
    # Images below 1e-10 of the nearest are left out.
    np.testing.assert_allclose(log_wrapped_kernel(u, period, scale), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("periods", [None, [0.0, 0.0], [3.0, 0.0], [3.0, 5.0]])
@pytest.mark.parametrize("far", [0.0, 1e7])
def test_squares_against_loops(periods, far):
    rng = np.random.default_rng(0)
    values, centers = rng.normal(size=(3, 2)), rng.normal(size=(5, 2))
    if periods is None or not all(periods):
        values[:, 1] += far
    periods = None if periods is None else np.array(periods)
    squares = np.zeros((3, 5))
    for i, j, k in np.ndindex(3, 5, 2):
        difference = values[i, k] - centers[j, k]
        if periods is None or periods[k] == 0:
            squares[i, j] += difference**2
        else:
            images = difference + periods[k] * np.arange(-30, 31)
            squares[i, j] -= 2 * np.log(np.sum(np.exp(-(images**2) / 2)))
    excess, smallest = nearest_squares(values, centers, periods)
    np.testing.assert_allclose(smallest, squares.min(axis=1), rtol=1e-12, atol=1e-9)
    expected = squares - squares.min(axis=1, keepdims=True)
    # Far away the loops lose digits: differences of squares of 1e14.
    np.testing.assert_allclose(excess, expected, rtol=1e-9, atol=0.1 if far else 1e-9)
    log_weights = np.log([0.1, 0.2, 0.3, 0.2, 0.2])
    weights = np.exp(log_kernel_weights(values, centers, log_weights, periods))
    posterior = np.exp(log_weights - excess / 2)
    np.testing.assert_allclose(weights, posterior / posterior.sum(axis=1, keepdims=True), 1e-12)


def test_squares_far_from_all_centers_keep_their_digits():
    values, centers = np.array([[1e12, 0.0]]), np.array([[0.0, 0.0], [-0.5, 1.0], [-1.0, 3.0]])
    # |v - c|^2 - |v|^2 = c (c - 2 v), which is exact here.
    expected = [[0.0, 1e12 + 0.25 + 1.0, 2e12 + 1.0 + 9.0]]
    np.testing.assert_allclose(nearest_squares(values, centers)[0], expected, rtol=1e-15)


# ------------------------------------------------------------------------------ support


def warnings_of(distances, centers, recwarn):
    recwarn.clear()
    warn_of_far_values(np.array(distances), np.array(centers, dtype=float))
    return [str(w.message) for w in recwarn.list]


@pytest.mark.parametrize(
    ("distances", "centers", "n_far"),
    [
        ([], [[0.0]], 0),
        ([8.0], [[0.0]], 0),
        ([8.001, 1.0], [[0.0]], 1),
        ([11.9, 8.5], [[0.0], [4.0]], 0),
        ([12.5, 8.5, 13.0], [[0.0], [4.0]], 2),
        ([9.0, 8.0], [[0.0], [1.0]], 1),
        # The gap of 5 before the last one counts.
        ([14.0], [[0.0], [1.0], [2.0], [7.0]], 0),
    ],
)
def test_values_far_from_all_rows_warn(distances, centers, n_far, recwarn):
    found = warnings_of(distances, centers, recwarn)
    assert len(found) == (n_far > 0)
    if found:
        assert f"of {n_far} of {len(distances)} conditions" in found[0]
        worst = int(np.argmax(distances))
        assert f"up to {distances[worst]:.3g} bandwidths (condition {worst})" in found[0]


# ------------------------------------------------------------------------------ backends


@pytest.mark.parametrize(
    ("smallest", "largest", "promoted"),
    [
        (1.0, 1.0, False),
        (1.0, 0.02 / 2.0**-23, False),
        (1.0, 0.0201 / 2.0**-23, True),
        (1.1 * 2.0**-31.5, 2.0**-31, False),
        (0.9 * 2.0**-31.5, 2.0**-31, True),
        (2.0**31, 0.9 * 2.0**32, False),
        (2.0**31, 1.1 * 2.0**32, True),
    ],
)
def test_float32_is_promoted_where_it_has_too_few_digits_or_exponents(smallest, largest, promoted):
    single = Backend(torch.device("cpu"), torch.float32)
    backend = single.promote_to_float64(smallest, largest)
    assert backend == (Backend(torch.device("cpu"), torch.float64) if promoted else single)
    double = Backend(torch.device("cpu"), torch.float64)
    assert double.promote_to_float64(smallest, largest) is double


def test_backends_copy_arrays():
    backend = Backend.from_params("cpu", "float64")
    assert backend.is_exact_on_host
    assert not Backend.from_params("cpu", "float32").is_exact_on_host
    array = np.arange(6, dtype=">f8").reshape(2, 3)[:, ::-1]
    array.flags.writeable = False
    tensor = backend.tensor(array)
    assert tensor.dtype == torch.float64
    assert tensor.is_contiguous()
    np.testing.assert_array_equal(backend.array(tensor), array)
    assert to_device(np.arange(3, dtype=np.int32), torch.device("cpu"), None).dtype == torch.int32
    assert backend.array(torch.ones(2, dtype=torch.float32, requires_grad=True)).dtype == np.float64


@pytest.mark.parametrize(
    "device", ["cpu:1", "cpu:01", "cpu:10", "mps", "mps:0", "nothing", "cuda:77"]
)
def test_devices_that_are_absent(device):
    with pytest.raises(ValueError, match=f"device='{device}'"):
        Backend.from_params(device, "float64")


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
def test_the_cpu_has_one_number(device):
    assert Backend.from_params(device, "float32").device.type == "cpu"


# ------------------------------------------------------------------------------ workers


@pytest.mark.parametrize(
    ("n_jobs", "n_rows", "sizes"),
    [(1, 5, [5]), (None, 5, [5]), (3, 5, [2, 2, 1]), (4, 2, [1, 1]), (2, 1, [1])],
)
def test_rows_are_split_over_workers(n_jobs, n_rows, sizes):
    from joblib import parallel_config

    found = []

    def work(rows, others, *, factor):
        found.append(len(rows))
        return factor * rows + others

    with parallel_config("threading"):
        result = over_workers(n_jobs, work, np.arange(n_rows), np.ones(n_rows), factor=2)
    np.testing.assert_array_equal(result, 2 * np.arange(n_rows) + 1)
    assert sorted(found) == sorted(sizes)
