"""Kernels of levels and the distribution of levels, against loops."""

import math

import numpy as np
import pytest

from skdiffsmooth.tables import _discrete
from skdiffsmooth.tables._discrete import LevelDensity, LevelKernel, choose_lambdas


def conditional_loss(lambdas, kernels, levels, weights, judges, kept, closeness):
    """Return minus the mean log-likelihood of left-out rows, by loops over pairs of rows."""
    tables = [
        LevelKernel(kernel.masses, kernel.is_ordered, lam).table
        for kernel, lam in zip(kernels, lambdas, strict=True)
    ]
    total = 0.0
    for i, judge in enumerate(judges):
        joint = marginal = 0.0
        for j in range(len(levels)):
            term = weights[j] * kept[i, j]
            for k, table in enumerate(tables):
                term *= table[levels[judge, k], levels[j, k]]
            marginal += term
            joint += term * (1.0 if closeness is None else closeness[i, j])
        value = math.log(joint) if closeness is None else math.log(joint / marginal)
        total -= weights[judge] * value
    return total / weights[judges].sum()


@pytest.mark.parametrize("is_conditional", [True, False])
def test_no_other_bandwidth_of_a_column_is_likelier(is_conditional):
    rng = np.random.default_rng(0)
    n = 15
    first = rng.integers(0, 2, n)
    second = np.where(rng.uniform(size=n) < 0.7, 2 * first, rng.integers(0, 3, n))
    levels = np.column_stack([first, second, np.full(n, 1)])
    levels[3, 0] = levels[5, 1] = -1
    kernels = [
        LevelKernel(np.array([0.4, 0.6]), False),
        LevelKernel(np.array([0.5, 0.2, 0.3]), True),
        LevelKernel(np.array([0.5, 0.5]), False),
    ]
    weights, judges = rng.uniform(0.5, 2, n), np.array([0, 3, 4, 5, 8, 11, 14])
    kept = np.ones((len(judges), n))
    kept[np.arange(len(judges)), judges] = 0.2
    x = first + rng.normal(size=n)
    closeness = np.exp(-2 * (x[judges, None] - x) ** 2) if is_conditional else None
    chosen = choose_lambdas(kernels, levels, weights, judges, kept, closeness)
    lambdas = [kernel.lam for kernel in chosen]
    assert lambdas[2] == 1.0
    arguments = chosen, levels, weights, judges, kept, closeness
    least = conditional_loss(lambdas, *arguments)
    for k in range(2):
        assert np.array_equal(chosen[k].masses, kernels[k].masses)
        for lam in [*np.linspace(1e-4, 0.98, 21), 1.0]:
            other = [*lambdas[:k], lam, *lambdas[k + 1 :]]
            # The search ends where no bandwidth changes by more than 0.01.
            assert conditional_loss(other, *arguments) > least - 2e-4
    assert 0.01 < min(lambdas) < 0.98


@pytest.mark.parametrize(
    ("returned", "n_calls"),
    [
        ([0.3, 0.1, 0.3, 0.105], 4),
        ([0.109, 0.109], 2),
        ([0.109, 0.2, 0.109, 0.2], 4),
        ([0.3, 0.8] * 20, 16),
    ],
)
def test_passes_over_columns_end_where_nothing_changes_or_after_eight(
    monkeypatch, returned, n_calls
):
    results, calls = iter(returned), []
    monkeypatch.setattr(_discrete, "_best", lambda loss: calls.append(loss) or next(results))
    if len(returned) > 4:
        # Each column has other bandwidths in each pass.
        results = iter([0.3, 0.3, 0.8, 0.8] * 10)
    kernels = [LevelKernel(np.array([0.5, 0.5]), False)] * 2
    levels = np.array([[0, 1], [1, 0], [1, 1]])
    rows = np.arange(3)
    choose_lambdas(kernels, levels, np.ones(3), rows, 1 - np.eye(3))
    assert len(calls) == n_calls


def test_passes_go_on_where_a_bandwidth_changes_by_a_hundredth(monkeypatch):
    calls = []
    monkeypatch.setattr(_discrete, "_best", lambda loss: calls.append(loss) or 0.01)
    kernel = LevelKernel(np.array([0.5, 0.5]), False, 0.0)
    choose_lambdas([kernel], np.array([[0], [1]]), np.ones(2), np.arange(2), 1 - np.eye(2))
    assert len(calls) == 2


GRID = [1e-4, 0.003, 0.01, 0.03, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 0.98, 1.0]


@pytest.mark.parametrize("lam", GRID)
def test_every_bandwidth_of_the_grid_is_tried(lam):
    assert _discrete._best(lambda each: -float(each == lam)) == lam


def test_no_bandwidth_between_the_largest_and_one_is_tried():
    tried = []

    def loss(lam):
        tried.append(lam)
        return (lam - 0.99) ** 2 + (lam == 1)

    assert _discrete._best(loss) == pytest.approx(0.98, abs=2e-3)
    assert all(lam <= 0.98 or lam == 1 for lam in tried)
    assert all(lam >= 1e-4 for lam in tried)


def fitted(levels, weights, **options):
    q = np.shape(levels)[1]
    defaults = {"n_levels": [3] * q, "is_ordered": [False] * q, "has_values": [False] * q}
    return LevelDensity.fit(np.array(levels), np.array(weights), **{**defaults, **options})


def test_training_levels_are_merged_and_have_their_weight():
    density = fitted([[1], [0], [1], [-1]], [1.0, 2.0, 3.0, 2.0], n_levels=[2], is_ordered=[True])
    np.testing.assert_array_equal(density.levels, [[-1], [0], [1]])
    np.testing.assert_allclose(density.weights, [0.25, 0.25, 0.5])
    (kernel,) = density.kernels
    # Whole weights are numbers of rows: half a row more at each level, of 6 with a level.
    np.testing.assert_allclose(kernel.masses, [2.5 / 7, 4.5 / 7])
    assert kernel.is_ordered
    p = np.exp(density.log_density(np.array([[0], [1], [-1]])))
    assert p[0] + p[1] == pytest.approx(1)
    assert p[2] == pytest.approx(1)


@pytest.mark.parametrize(
    ("levels", "has_values", "first"),
    [
        ([[1], [2], [1]], True, 0.0),
        ([[1], [2], [1]], False, 0.5 / 4.5),
        ([[0], [2], [1]], True, 1.5 / 4.5),
        ([[0], [0], [0]], True, 3.5 / 4.5),
    ],
)
def test_level_zero_has_no_mass_where_no_row_is_off_the_atoms(levels, has_values, first):
    density = fitted(levels, [1.0, 1.0, 1.0], has_values=[has_values])
    masses = density.kernels[0].masses
    assert masses[0] == pytest.approx(first)
    assert masses.sum() == pytest.approx(1)
    p = np.exp(density.log_density(np.array([[0], [1], [2]])))
    assert p.sum() == pytest.approx(1)
    assert (p[0] == 0) == (first == 0)


def test_one_copy_of_equal_rows_is_left_out():
    """Three rows of level 0 and one of 1: with a bandwidth lambda, likelihoods are known."""
    density = fitted([[0], [0], [0], [1]], [1.0, 1.0, 1.0, 1.0], n_levels=[2])
    same = fitted([[0], [1]], [3.0, 1.0], n_levels=[2])
    assert density.kernels[0].lam == same.kernels[0].lam
    m = np.array([3.5, 1.5]) / 5

    def loss(lam):
        at_0 = 2 * (1 - lam + lam * m[0]) + lam * m[0]
        at_1 = 3 * lam * m[1]
        return -(3 * math.log(at_0) + math.log(at_1)) / 4

    expected = _discrete._best(loss)
    assert 0.01 < expected <= 1
    assert density.kernels[0].lam == pytest.approx(expected, abs=2e-3)


def test_fractions_of_rows_are_left_out_whole():
    """Weights that are no whole numbers count no copies: a row of weight 0.75 is left out whole."""
    density = fitted([[0], [0], [1]], [0.75, 0.5, 0.25], n_levels=[2])
    a_row = (0.75**2 + 0.5**2 + 0.25**2) / 1.5
    m = np.array([1.25 + a_row / 2, 0.25 + a_row / 2])
    m /= m.sum()
    # Of the weight of the two equal rows, the mean one is left out.
    one = (0.75**2 + 0.5**2) / 1.25

    def loss(lam):
        at_0 = (1.25 - one) * (1 - lam + lam * m[0]) + 0.25 * lam * m[0]
        at_1 = 1.25 * lam * m[1]
        return -(1.25 * math.log(at_0) + 0.25 * math.log(at_1)) / 1.5

    np.testing.assert_allclose(density.kernels[0].masses, m)
    assert density.kernels[0].lam == pytest.approx(_discrete._best(loss), abs=2e-3)


@pytest.mark.parametrize("most_pairs", [1, 4, 5, 4_000_000])
def test_parts_of_queries_change_no_probability_and_no_draw(monkeypatch, most_pairs):
    levels = np.array([[0, 0], [1, 2], [1, -1], [2, 1], [0, 2]])
    kernels = [LevelKernel(np.full(3, 1 / 3), False), LevelKernel(np.full(3, 1 / 3), True)]
    whole = LevelDensity(levels, np.full(5, 0.2), kernels)
    queries = np.array([[a, b] for a in (-1, 0, 1, 2) for b in (-1, 0, 1, 2)] * 2)
    expected = whole.log_density(queries), whole.draw(queries, np.random.RandomState(1))
    monkeypatch.setattr(_discrete, "_MOST_PAIRS", most_pairs)
    np.testing.assert_allclose(whole.log_density(queries), expected[0], rtol=1e-14)
    np.testing.assert_array_equal(whole.draw(queries, np.random.RandomState(1)), expected[1])


def test_rows_that_choose_bandwidths_are_limited_by_memory(monkeypatch):
    seen = []

    def record(kernels, levels, weights, judges, kept):
        seen.append((len(judges), kept.sum(axis=1)))
        return kernels

    monkeypatch.setattr(_discrete, "choose_lambdas", record)
    levels = np.arange(6)[:, None]
    for most_pairs in (4_000_000, 30, 12, 1):
        monkeypatch.setattr(_discrete, "_MOST_PAIRS", most_pairs)
        fitted(levels, np.full(6, 2.0), n_levels=[6])
    assert [n for n, _ in seen] == [6, 5, 2, 1]
    # One of two copies remains of the row that is left out.
    for _, kept in seen:
        np.testing.assert_allclose(kept, 5.5)


def test_without_coordinates_everything_has_probability_one():
    density = LevelDensity(np.empty((2, 0), dtype=int), np.array([0.5, 0.5]), [])
    np.testing.assert_array_equal(density.log_density(np.empty((3, 0), dtype=int)), np.zeros(3))
    given = np.empty((3, 0), dtype=int)
    drawn = density.draw(given, np.random.RandomState(0))
    assert drawn.shape == (3, 0)
    assert drawn is not given


def test_levels_of_probability_zero_have_minus_infinity(recwarn):
    density = fitted([[1], [2], [1]], [1.0, 1.0, 1.0], has_values=[True])
    assert density.log_density(np.array([[0]]))[0] == -math.inf
    assert not recwarn.list


def test_missing_levels_of_training_rows_are_drawn_by_their_masses():
    masses = np.array([0.2, 0.8])
    density = LevelDensity(np.array([[-1]]), np.ones(1), [LevelKernel(masses, False, 0.1)])
    drawn = density.draw(np.full((2000, 1), -1), np.random.RandomState(0))
    assert set(drawn[:, 0].tolist()) == {0, 1}
    assert drawn.mean() == pytest.approx(0.8, abs=5 * 0.4 / math.sqrt(2000))


def test_some_rows_are_the_same_in_every_run():
    some = _discrete.some_rows(10, 9)
    np.testing.assert_array_equal(some, np.sort(np.random.RandomState(0).permutation(10)[:9]))
    np.testing.assert_array_equal(_discrete.some_rows(9, 9), np.arange(9))
