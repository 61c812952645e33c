"""The density of amounts given the other columns, against loops and quadrature."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad
from scipy.special import logsumexp

from skdiffsmooth.tables import _amounts, _distances
from skdiffsmooth.tables._amounts import AmountPart, Regression, Rows, _Choice, _Setting
from skdiffsmooth.tables._discrete import LevelKernel

NONE = np.array([np.nan, np.nan])


def regression(**changes):
    """Return a regression of two columns on a plain and a periodic x, and on two levels."""
    own = {
        "low": np.array([-1.0, 0.0]),
        "high": np.array([2.0, 24.0]),
        "mean": np.array([0.5, 10.0]),
        "scale": np.array([2.0, 5.0]),
        "periods": np.array([0.0, 24.0]),
        "n_levels": [2, 3],
        "is_quadratic": True,
        "discrete": [1],
        "intercept": np.array([0.5, -1.0]),
        "coefficients": np.arange(14.0).reshape(7, 2) / 10,
        "ends": np.array([[1.1, -0.4], [2.2, 5.0]]),
    }
    return Regression(**{**own, **changes})


def test_features_of_a_regression_against_their_list():
    x = np.array([[1.0, 6.0], [5.0, 30.0], [-3.0, 12.0], [0.5, 0.0]])
    levels = np.array([[0, 1], [1, 2], [-1, 0], [0, -1]])
    found = regression().features(x, levels)
    for row, (position, hour), (_, level) in zip(found, x, levels, strict=True):
        z = (min(max(position, -1.0), 2.0) - 0.5) / 2
        angle = 2 * math.pi * hour / 24
        # A missing level has no indicator.
        indicators = [float(level == k) for k in range(3)]
        np.testing.assert_allclose(
            row, [z, z**2, math.cos(angle), math.sin(angle), *indicators], atol=1e-14
        )
    plain = regression(is_quadratic=False, discrete=[]).features(x, levels)
    np.testing.assert_allclose(plain, found[:, [0, 2, 3]])


def test_products_of_two_columns_are_features():
    x = np.array([[3.0, -1.0]])
    own = regression(periods=np.zeros(2), low=np.full(2, -9.0), high=np.full(2, 9.0), discrete=[])
    a, b = (3 - 0.5) / 2, (-1 - 10) / 5
    found = own.features(x, np.array([[0, 0]]))
    np.testing.assert_allclose(found, [[a, b, a * a, a * b, b * b]])


def test_values_of_a_regression_are_clipped():
    own, x = regression(), np.array([[1.0, 6.0], [5.0, 30.0], [-3.0, 12.0]])
    levels = np.array([[0, 1], [1, 2], [-1, 0]])
    values = own.intercept + own.features(x, levels) @ own.coefficients
    expected = np.clip(values, [1.1, -0.4], [2.2, 5.0])
    assert (values != expected).any()
    np.testing.assert_allclose(own.at(x, levels), expected)


# ------------------------------------------------------------------------------ regression


def setting_of(x, weights, one_share, levels=None, n_levels=(), periods=None):
    mean = weights @ x
    scale = np.sqrt(weights @ (x - mean) ** 2)
    levels = np.empty((len(x), 0), dtype=int) if levels is None else levels
    periods = np.zeros(x.shape[1]) if periods is None else periods
    return _Setting(levels, weights, one_share, list(n_levels), mean, scale, periods)


def ridge(features, y, weights, penalty):
    """Return the weighted ridge regression with an intercept, from its normal equations."""
    center, middle = weights @ features, weights @ y
    z = features - center
    gram = z.T @ (weights[:, None] * z) + penalty * np.eye(z.shape[1])
    slope = np.linalg.solve(gram, z.T @ (weights * (y - middle)))
    return middle - center @ slope, slope


def left_out_errors(features, y, weights, one_share, penalty):
    """Return errors at rows of which one copy is left out, of the ridge regression with equal centers.

    The centers, and the total weight, are those of all rows.
    """
    center, middle = weights @ features, weights @ y
    errors = []
    for i in range(len(y)):
        kept = weights.copy()
        kept[i] *= 1 - one_share[i]
        design = np.column_stack([np.ones(len(y)), features - center])
        # A row of weight one for the intercept stands for the centers.
        gram = design.T @ (kept[:, None] * design) + np.diag([0.0, *[penalty] * features.shape[1]])
        gram[0, 0] = kept.sum()
        solution = np.linalg.solve(gram, design.T @ (kept * (y - middle)))
        errors.append(y[i] - middle - design[i] @ solution)
    return np.array(errors)


@pytest.mark.parametrize("is_quadratic", [True, False])
def test_regressions_have_the_least_left_out_errors(is_quadratic):
    rng = np.random.default_rng(1)
    n = 25
    x = rng.normal(size=(n, 2))
    y = x[:, 0] - 0.5 * x[:, 1] + 0.3 * rng.normal(size=n)
    if is_quadratic:
        y = y + 1.5 * x[:, 0] ** 2
    weights = rng.uniform(0.5, 2, n)
    weights /= weights.sum()
    one_share = np.where(np.arange(n) % 3, 1.0, 0.5)
    setting = setting_of(x, weights, one_share)
    found, errors = _amounts._regress(x, y[:, None], setting)
    assert found.is_quadratic == is_quadratic
    z = (x - setting.mean) / setting.scale
    features = z
    if is_quadratic:
        features = np.column_stack([z, z[:, 0] ** 2, z[:, 0] * z[:, 1], z[:, 1] ** 2])
    losses = {}
    for penalty in (1e-4, 1e-3, 1e-2, 0.1, 1.0, 100.0):
        tried = left_out_errors(features, y, weights, one_share, penalty)
        losses[penalty] = weights @ (tried - weights @ tried) ** 2, tried
    best = min(losses, key=lambda penalty: losses[penalty][0])
    expected = losses[best][1]
    np.testing.assert_allclose(errors[:, 0], expected, rtol=1e-8, atol=1e-10)
    intercept, slope = ridge(features, y, weights, best)
    np.testing.assert_allclose(found.intercept, [intercept])
    np.testing.assert_allclose(found.coefficients[:, 0], slope, atol=1e-10)
    line = y - expected
    np.testing.assert_allclose(found.ends[:, 0], [line.min(), line.max()])
    np.testing.assert_array_equal(found.low, x.min(axis=0))
    np.testing.assert_array_equal(found.high, x.max(axis=0))


def test_levels_have_indicators_where_they_matter():
    rng = np.random.default_rng(0)
    n = 40
    x, levels = rng.normal(size=(n, 1)), rng.integers(0, 2, (n, 3))
    levels[:, 2] = 1
    y = x[:, 0] + 2.0 * levels[:, 1] + 0.1 * rng.normal(size=n)
    weights = np.full(n, 1 / n)
    setting = setting_of(x, weights, np.ones(n), levels, [2, 2, 2])
    found, errors = _amounts._regress(x, y[:, None], setting)
    assert found.discrete == [1]
    assert errors.std() == pytest.approx(0.1, rel=0.3)
    # A constant column without spread has no errors at all: nothing is divided by zero.
    _, errors = _amounts._regress(x, np.ones((n, 1)), setting)
    np.testing.assert_allclose(errors, 0, atol=1e-12)


def test_one_row_is_its_own_regression():
    setting = setting_of(np.zeros((1, 1)), np.ones(1), np.ones(1))._replace(scale=np.ones(1))
    found, errors = _amounts._regress(np.zeros((1, 1)), np.array([[3.0]]), setting)
    np.testing.assert_allclose(found.intercept, [3.0])
    np.testing.assert_allclose(errors, [[0.0]])


# ------------------------------------------------------------------------------ density


def part_of(**changes):
    """Return the density of two columns, of which one is mapped, given one x and one level."""
    rng = np.random.default_rng(1)
    n = 6
    x, y = rng.uniform(0, 24, (n, 1)), rng.normal(size=(n, 2))
    own_regression = Regression(
        np.array([-9.0]), np.array([99.0]), np.array([12.0]), np.array([7.0]), np.array([24.0]),
        [2], False, [], np.array([0.2, -0.1]), np.array([[0.3, 0.2], [0.1, -0.4]]),
        np.array([[-2.0, -2.0], [2.0, 2.0]]),
    )  # fmt: skip
    levels, weights = rng.integers(0, 2, (n, 1)), rng.uniform(0.5, 2, n)
    residual = y - own_regression.at(x, levels)
    own = {
        "columns": np.array([1, 2]),
        "base": np.array([0]),
        "x": x,
        "y": y,
        "levels": levels,
        "weights": weights / weights.sum(),
        "kernels": [LevelKernel(np.array([0.4, 0.6]), False, 0.3)],
        "periods": np.array([24.0]),
        "of_x": np.array([3.0]),
        "of_y": np.array([0.3, 0.5]),
        "shifts": NONE,
        "knots": NONE,
        "regression": own_regression,
        "residual": residual,
        "deviation": residual.std(axis=0),
    }
    return AmountPart(**{**own, **changes})


def weights_by_loops(part, level, x):
    """Return the weights (n,) of the rows, for one level and one x."""
    table = part.kernels[0].table
    of_levels = np.array(
        [w * table[level, own] for w, own in zip(part.weights, part.levels[:, 0], strict=True)]
    )
    of_levels /= of_levels.sum()
    if np.isinf(part.of_x[0]):
        return of_levels
    near = np.empty(len(part.x))
    for i, own in enumerate(part.x[:, 0]):
        distance = abs(x - own) % 24
        near[i] = of_levels[i] * math.exp(-((min(distance, 24 - distance) / part.of_x[0]) ** 2) / 2)
    b = _amounts._BACKGROUND
    return (1 - b) * near / near.sum() + b * of_levels


def density_by_loops(part, level, x, y):
    """Return the density of y (k,), NaN being integrated out, given one level and one x."""
    known = ~np.isnan(y)
    line = part.regression.at(np.array([[x]]), np.array([[level]]))[0]
    near = 0.0
    for i, weight in enumerate(weights_by_loops(part, level, x)):
        kernels = stats.norm.pdf(y, line + part.residual[i], part.of_y)
        near += weight * kernels[known].prod()
    center = part.weights @ part.y
    of_all = np.sqrt(part.weights @ (part.y - center) ** 2)
    factor = math.sqrt(3) / math.pi
    about_line = stats.logistic.pdf(
        y, line + part.weights @ part.residual, factor * part.deviation
    )[known].prod()
    about_all = stats.logistic.pdf(y, center, factor * np.maximum(of_all, part.deviation))
    b = _amounts._BACKGROUND
    return (1 - b) * near + b * (about_line + about_all[known].prod()) / 2


@pytest.mark.parametrize("width", [3.0, np.inf])
@pytest.mark.parametrize("missing", [None, 0, 1])
def test_densities_of_amounts_against_loops(width, missing):
    part = part_of(of_x=np.array([width]))
    x, levels = np.array([[1.0], [13.0], [23.5]]), np.array([[0], [1], [-1]])
    y = np.array([[0.1, 0.2], [5.0, -9.0], [-0.3, 0.0]])
    if missing is not None:
        y[:, missing] = np.nan
    found = np.exp(part.log_density(levels, x, y, y))
    expected = [
        density_by_loops(part, level, own, each)
        for (level,), (own,), each in zip(levels, x, y, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_density_without_observed_amounts_is_one():
    y = np.full((2, 2), np.nan)
    found = part_of().log_density(np.array([[0], [1]]), np.array([[1.0], [2.0]]), y, y)
    np.testing.assert_allclose(found, 0, atol=1e-14)


def test_cells_have_the_integral_of_the_density():
    part = part_of()
    low, high = np.array([[-0.5, 0.3]]), np.array([[0.7, 0.3]])
    found = part.log_density(np.array([[1]]), np.array([[5.0]]), low, high)
    integral = quad(lambda u: density_by_loops(part, 1, 5.0, np.array([u, 0.3])), -0.5, 0.7)[0]
    assert found[0] == pytest.approx(math.log(integral), rel=1e-8)


def test_a_mapped_amount_has_the_density_of_its_map():
    part = part_of(shifts=np.array([0.4, np.nan]), knots=np.array([2.0, np.nan]))
    y = np.array([[0.3, 0.2], [-2.0, 0.2]])
    x, levels = np.array([[5.0], [5.0]]), np.array([[1], [1]])
    found = part.log_density(levels, x, y, y)
    mapped, log_slopes = _amounts._mapped(y, part.shifts, part.knots)
    plain = part_of().log_density(levels, x, mapped, mapped)
    np.testing.assert_allclose(found, plain + log_slopes[:, 0])
    # Of a cell the ends are mapped, and its probability has no slope.
    low, high = y - [[0.1, 0.0]], y + [[0.2, 0.0]]
    ends = [_amounts._mapped(each, part.shifts, part.knots)[0] for each in (low, high)]
    found = part.log_density(levels, x, low, high)
    np.testing.assert_allclose(found, part_of().log_density(levels, x, *ends))


@pytest.mark.parametrize("most_pairs", [1, 12, 17, 4_000_000])
def test_parts_of_queries_change_neither_densities_nor_draws(monkeypatch, most_pairs):
    part, rng = part_of(), np.random.default_rng(0)
    x, levels = rng.uniform(0, 24, (7, 1)), rng.integers(-1, 2, (7, 1))
    low = rng.normal(size=(7, 2))
    high = low + [0.0, 0.5]
    given = np.where([True, False], low, np.nan)
    expected = part.log_density(levels, x, low, high)
    drawn = part.draw(levels, x, given, given, np.random.RandomState(0))
    monkeypatch.setattr(_amounts, "_MOST_PAIRS", most_pairs)
    np.testing.assert_allclose(part.log_density(levels, x, low, high), expected, rtol=1e-13)
    again = part.draw(levels, x, given, given, np.random.RandomState(0))
    np.testing.assert_allclose(again, drawn, rtol=1e-12)


def test_relevant_levels_are_those_of_kernels_and_of_the_regression():
    half = np.array([0.5, 0.5])
    kernels = [LevelKernel(half, False, lam) for lam in (1.0, 0.9, 1.0, 0.0)]
    part = part_of(kernels=kernels, regression=regression(discrete=[2]))
    np.testing.assert_array_equal(part.relevant, [1, 2, 3])
    none = part_of(kernels=kernels[:1], regression=regression(discrete=[]))
    assert none.relevant.shape == (0,)
    assert none.relevant.dtype == np.intp


def test_backgrounds_are_about_the_regression_and_about_all_rows():
    part = part_of(deviation=np.array([9.0, 1e-3]))
    line = np.array([[1.0, 2.0], [3.0, 4.0]])
    (about_line, own), (about_all, of_all) = part._tails(line)
    np.testing.assert_allclose(about_line, line + part.weights @ part.residual)
    np.testing.assert_array_equal(own, part.deviation)
    center = part.weights @ part.y
    np.testing.assert_allclose(about_all, [center, center])
    spread = np.sqrt(part.weights @ (part.y - center) ** 2)
    np.testing.assert_allclose(of_all, [9.0, spread[1]])
    found = part._log_tails(line, line, line, np.array([0]))
    for row, (centers, deviation) in zip(found, part._tails(line), strict=True):
        scale = deviation[0] * math.sqrt(3) / math.pi
        expected = stats.logistic.logpdf(line[:, 0], centers[:, 0], scale) - math.log(2)
        np.testing.assert_allclose(row, expected)


# ------------------------------------------------------------------------------ draws


def conditional_cdf(part, level, x, given, end):
    """Return the distribution function of the second amount given the first one, unless it is NaN."""
    line = part.regression.at(np.array([[x]]), np.array([[level]]))[0]
    parts, b = [], _amounts._BACKGROUND
    for i, weight in enumerate(weights_by_loops(part, level, x)):
        center = line + part.residual[i]
        parts.append(((1 - b) * weight, stats.norm, center, part.of_y))
    center = part.weights @ part.y
    of_all = np.sqrt(part.weights @ (part.y - center) ** 2)
    factor = math.sqrt(3) / math.pi
    for about, scale in (
        (line + part.weights @ part.residual, part.deviation),
        (center, np.maximum(of_all, part.deviation)),
    ):
        parts.append((b / 2, stats.logistic, about, scale * factor))
    masses = [
        weight * (1 if np.isnan(given) else kind.pdf(given, about[0], scale[0]))
        for weight, kind, about, scale in parts
    ]
    below = [kind.cdf(end, about[1], scale[1]) for _, kind, about, scale in parts]
    return np.dot(masses, below) / np.sum(masses)


@pytest.mark.parametrize("background", [0.02, 0.5])
@pytest.mark.parametrize("given", [np.nan, 0.4, 30.0])
def test_draws_of_amounts_have_their_conditional_distribution(monkeypatch, given, background):
    """At 30 only the background reaches the given value."""
    monkeypatch.setattr(_amounts, "_BACKGROUND", background)
    part, n = part_of(), 6000
    x, levels = np.full((n, 1), 5.0), np.full((n, 1), 1)
    condition = np.tile([given, np.nan], (n, 1))
    drawn = part.draw(levels, x, condition, condition, np.random.RandomState(0))
    assert drawn.shape == (n, 2)
    for end in (-1.0, 0.0, 0.5, 2.0):
        below = conditional_cdf(part, 1, 5.0, given, end)
        error = 5 * math.sqrt(below * (1 - below) / n)
        assert np.mean(drawn[:, 1] < end) == pytest.approx(below, abs=error)


def test_draws_given_a_cell_are_of_the_rows_near_it():
    part, n = part_of(), 3000
    x, levels = np.full((n, 1), 5.0), np.full((n, 1), 1)
    low, high = np.tile([-0.5, np.nan], (n, 1)), np.tile([0.7, np.nan], (n, 1))
    drawn = part.draw(levels, x, low, high, np.random.RandomState(0))[:, 1]

    def mass(end):
        ends = np.array([[-0.5, -60.0]]), np.array([[0.7, end]])
        return math.exp(part.log_density(levels[:1], x[:1], *ends)[0])

    for end in (-1.0, 0.0, 0.5):
        below = mass(end) / mass(60.0)
        error = 5 * math.sqrt(below * (1 - below) / n)
        assert np.mean(drawn < end) == pytest.approx(below, abs=error)


def test_draws_come_back_from_the_map():
    changes = {"shifts": np.array([0.4, np.nan]), "knots": np.array([2.0, np.nan])}
    x, levels = np.full((50, 1), 5.0), np.zeros((50, 1), dtype=int)
    nothing = np.full((50, 2), np.nan)
    arguments = levels, x, nothing, nothing
    mapped = part_of().draw(*arguments, np.random.RandomState(3))
    drawn = part_of(**changes).draw(*arguments, np.random.RandomState(3))
    expected = _amounts._unmapped(mapped, changes["shifts"], changes["knots"])
    np.testing.assert_allclose(drawn, expected)


def test_draws_far_in_the_tails_are_finite(monkeypatch):
    class Ends:
        """Random numbers at the ends of their range."""

        def uniform(self, size):
            return np.tile([0.5, 1.0 - 1e-16, 0.0, 1.0], (size[0], 1))

        def normal(self, size):
            return np.zeros(size)

    monkeypatch.setattr(_amounts, "_BACKGROUND", 1 - 1e-9)
    part = part_of()
    nothing = np.full((2, 2), np.nan)
    arguments = np.zeros((2, 1), dtype=int), np.full((2, 1), 5.0), nothing, nothing
    drawn = part.draw(*arguments, Ends())
    (centers, deviation) = part._tails(np.zeros((2, 2)))[1]
    far = deviation * math.sqrt(3) / math.pi * math.log((1 - 1e-12) / 1e-12)
    np.testing.assert_allclose(drawn, centers + far * [-1, 1], rtol=1e-4)


# ------------------------------------------------------------------------------ fit


def random_rows(n=14, seed=0):
    rng = np.random.default_rng(seed)
    x, levels = rng.normal(size=(n, 1)), rng.integers(0, 2, (n, 1))
    y = x + levels + 0.3 * rng.normal(size=(n, 1))
    return Rows(x, y, y, levels, np.ones(n)), y


def fitted(rows, y, knots=(np.nan,), **changes):
    kernels = [LevelKernel(np.array([0.5, 0.5]), False)]
    arguments = {"columns": np.array([1]), "base": np.array([0]), "periods": np.zeros(1)}
    arguments |= changes
    return _amounts.fit_amounts(
        arguments["columns"], arguments["base"], rows, y, kernels, arguments["periods"],
        np.array(knots, dtype=float),
    )  # fmt: skip


def test_equal_rows_are_merged_and_weights_count_copies():
    rows, y = random_rows()
    double = Rows(*(np.concatenate([each, each[:3]]) for each in rows))
    heavy = rows._replace(weights=np.r_[2.0, 2, 2, np.ones(11)])
    first, second = fitted(double, np.concatenate([y, y[:3]])), fitted(heavy, y)
    assert len(first.x) == 14
    for name in ("x", "y", "weights", "of_x", "of_y", "residual", "deviation", "levels"):
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), rtol=1e-10)
    assert first.weights.sum() == pytest.approx(1)
    assert sorted(first.weights)[-3:] == pytest.approx([2 / 17] * 3)
    assert first.kernels[0].lam == pytest.approx(second.kernels[0].lam, rel=1e-9)


def test_residuals_are_those_of_left_out_rows():
    rows, y = random_rows()
    part = fitted(rows, y)
    order = np.lexsort(np.column_stack([*rows[:4], y]).T[::-1])
    np.testing.assert_allclose(part.y, y[order])
    weights = np.full(14, 1 / 14)
    setting = setting_of(rows.x[order], weights, np.ones(14), rows.levels[order], [2])
    own, errors = _amounts._regress(rows.x[order], y[order], setting)
    np.testing.assert_allclose(part.residual, errors)
    np.testing.assert_allclose(part.deviation, errors.std(axis=0))
    np.testing.assert_allclose(part.regression.coefficients, own.coefficients)
    assert part.columns.tolist() == [1]
    assert part.base.tolist() == [0]


@pytest.mark.parametrize("value", [0.3, -40.0])
def test_one_value_has_a_width_of_its_own_size(value):
    rows, y = random_rows()
    y = np.full_like(y, value)
    part = fitted(rows._replace(low=y, high=y), y)
    np.testing.assert_allclose(part.deviation, [max(abs(value), 1.0)])


def test_columns_of_x_without_spread_have_a_scale():
    rows, y = random_rows()
    part = fitted(rows._replace(x=np.full((14, 1), 5.0)), y)
    assert part.regression.scale.tolist() == [1.0]
    assert part.regression.mean.tolist() == [5.0]
    # It does not matter, so that the widest kernel is chosen.
    assert part.of_x.tolist() == [np.inf]


def choice_of(part, rows=None):
    n = len(part.x)
    judges = np.array([0, 2, 3, 5]) if rows is None else rows
    kept = np.ones((len(judges), n))
    kept[np.arange(len(judges)), judges] = 0.25
    return _Choice(part, judges, kept, (part.y, part.y))


def likelihood_by_loops(choice, widths, heights, lam):
    """Return the mean log-likelihood of left-out rows, by loops."""
    part, total = choice.part, 0.0
    table = replace(part.kernels[0], lam=lam).table
    for m, i in enumerate(choice.judges):
        weights = np.array(
            [
                choice.kept[m, j] * part.weights[j] * table[part.levels[i, 0], part.levels[j, 0]]
                for j in range(len(part.x))
            ]
        )
        distance = np.abs(part.x[i, 0] - part.x[:, 0]) % 24
        distance = np.minimum(distance, 24 - distance)
        near = weights * np.exp(-((distance / widths[0]) ** 2) / 2)
        row_weights = 0.98 * near / near.sum() + 0.02 * weights / weights.sum()
        line = part.y[i] - part.residual[i]
        kernels = stats.norm.pdf(part.y[i], line + part.residual, heights).prod(axis=1)
        tails = 0.0
        for centers, deviation in part._tails(line[None]):
            scale = deviation * math.sqrt(3) / math.pi
            tails += stats.logistic.pdf(part.y[i], centers[0], scale).prod() / 2
        value = math.log(0.98 * row_weights @ kernels + 0.02 * tails)
        total += part.weights[i] * value
    return total / part.weights[choice.judges].sum()


@pytest.mark.parametrize(("width", "lam"), [(3.0, 0.3), (np.inf, 1.0), (0.5, 0.0)])
def test_likelihoods_of_left_out_rows_against_loops(width, lam):
    part = part_of()
    choice = choice_of(part)
    heights = np.array([0.4, 0.2])
    close = choice.of_y(0, 0.4) + choice.of_y(1, 0.2)
    near = np.zeros_like(close) + choice.of_x(0, width)
    table = replace(part.kernels[0], lam=lam).table
    own = part.levels[choice.judges, 0]
    others = choice.others * table[own][:, part.levels[:, 0]]
    found = choice.likelihood(others, near, close)
    assert found == pytest.approx(likelihood_by_loops(choice, [width], heights, lam), rel=1e-9)


def test_no_other_bandwidth_is_likelier():
    """Of the tried ones: the last of equally likely ones is taken, the widest kernel."""
    part = part_of(of_x=np.array([np.inf]))
    choice = choice_of(part, np.arange(6))
    scale = np.array([6.0])
    found = choice.choose(scale)
    lam = found.kernels[0].lam
    best = likelihood_by_loops(choice, found.of_x, found.of_y, lam)
    widths = 6.0 * np.array([0.1, 0.2, 0.35, 0.6, 1.0, 1.7, 3.0, np.inf])
    heights = [0.05, 0.08, 0.12, 0.18, 0.25, 0.35, 0.5, 0.7, 1.0]
    assert found.of_x[0] in widths
    for width in widths:
        assert likelihood_by_loops(choice, [width], found.of_y, lam) <= best + 1e-12
    for g in range(2):
        assert found.of_y[g] / part.deviation[g] == pytest.approx(
            min(heights, key=lambda h: abs(h - found.of_y[g] / part.deviation[g]))
        )
        for height in heights:
            tried = found.of_y.copy()
            tried[g] = height * part.deviation[g]
            assert likelihood_by_loops(choice, found.of_x, tried, lam) <= best + 1e-12


def test_the_likelihood_of_one_row_is_that_of_the_background():
    part = part_of()
    one = {name: getattr(part, name)[:1] for name in ("x", "y", "levels", "residual")}
    part = replace(part, weights=np.ones(1), **one)
    kept = np.zeros((1, 1))
    choice = _Choice(part, np.array([0]), kept, (part.y, part.y))
    close = choice.of_y(0, 0.3) + choice.of_y(1, 0.3)
    found = choice.likelihood(choice.others, np.zeros((1, 1)), close)
    tails = logsumexp(part._log_tails(choice.line, choice.low, choice.high, np.arange(2)), axis=0)
    assert found == pytest.approx(tails[0] + math.log(0.02))


def test_amounts_at_most_judges_are_left_out(monkeypatch):
    seen = []
    init = _Choice.__init__

    def record(self, part, judges, kept, ends):
        seen.append((judges, kept))
        init(self, part, judges, kept, ends)

    monkeypatch.setattr(_Choice, "__init__", record)
    monkeypatch.setattr(_amounts, "_MOST_JUDGES", 5)
    rows, y = random_rows()
    fitted(rows._replace(weights=np.r_[4.0, np.ones(13)]), y)
    ((judges, kept),) = seen
    assert len(judges) == 5
    for own, judge in zip(kept, judges, strict=True):
        assert set(np.delete(own, judge)) == {1.0}
        assert own[judge] in (0.0, 0.75)
    monkeypatch.setattr(_amounts, "_MOST_JUDGES", 14)
    fitted(rows._replace(weights=np.r_[4.0, np.ones(13)]), y)
    assert sorted(seen[1][1][np.arange(14), np.arange(14)]) == [0.0] * 13 + [0.75]


# ------------------------------------------------------------------------------ maps


@pytest.mark.parametrize("power", [1.0, 0.0])
def test_the_map_of_a_distance_is_chosen_by_the_regression(power):
    """A distance that is linear in x is not taken as its logarithm, and the other way round."""
    rng = np.random.default_rng(0)
    x = rng.uniform(1, 10, (40, 1))
    noise = rng.normal(size=(40, 1))
    w = x + 0.1 * noise + 20 if power else np.exp(x / 2 + 0.3 * noise)
    knot = _distances.knot_of(w)
    y = _distances.to_line(w, knot)[0]
    rows = Rows(x, y, y, np.zeros((40, 1), dtype=int), np.ones(40))
    part = fitted(rows, y, knots=(knot,))
    # Each map has its left-out errors in units of the distance.
    log_distance = np.log(w[:, 0]).mean()
    tried = [np.nan, *(np.log([1.0, 4.0, 20.0]) - log_distance)]
    weights = np.full(40, 1 / 40)
    setting = setting_of(x, weights, np.ones(40), rows.levels, [2])
    losses = []
    for shift in tried:
        mapped, log_slopes = _amounts._mapped(y, np.array([shift]), np.array([knot]))
        errors = _amounts._regress(x, mapped, setting)[1]
        losses.append(0.5 * math.log(np.mean(errors**2)) - log_slopes.mean())
    expected = tried[int(np.argmin(losses))]
    np.testing.assert_allclose(part.shifts, [expected], rtol=1e-12)
    order = np.lexsort(np.column_stack([x, y]).T[::-1])
    mapped = _amounts._mapped(y[order], part.shifts, np.array([knot]))[0]
    np.testing.assert_allclose(part.y, mapped)


def test_distances_at_coordinates_and_their_slopes():
    w, knots = np.array([[1e-20, 0.3], [2.0, 50.0]]), np.array([0.5, 3.0])
    y = np.column_stack([_distances.to_line(w[:, k], knots[k])[0] for k in range(2)])
    log_w, log_slopes = _amounts._log_distance(y, knots)
    np.testing.assert_allclose(log_w, np.log(w), rtol=1e-9, atol=1e-12)
    # dz/dw = 1/w + 1/knot, and dlog(w)/dz = 1 / (1 + w / knot).
    np.testing.assert_allclose(log_slopes, -np.log1p(w / knots), rtol=1e-9, atol=1e-12)
    with np.errstate(invalid="ignore"):
        ends, _ = _amounts._log_distance(np.array([[-np.inf, np.inf]]), knots)
    np.testing.assert_array_equal(ends, [[-np.inf, np.inf]])


def test_maps_of_the_ends_of_the_line(recwarn):
    shifts, knots = np.array([1.0]), np.array([2.0])
    mapped, log_slopes = _amounts._mapped(np.array([[-np.inf], [1e4]]), shifts, knots)
    assert mapped[0, 0] == -np.inf
    assert log_slopes[0, 0] == 0
    assert math.isfinite(mapped[1, 0])
    w = _distances.from_line(np.array([1e4]), 2.0)[0]
    assert mapped[1, 0] == pytest.approx(math.e * w)
    assert not recwarn.list


@pytest.mark.parametrize("mapped", [-500.0, -31.0, -30.0, -29.0, 0.0, 3.0, 600.0])
def test_maps_come_back_from_everywhere(mapped):
    shifts, knots = np.array([0.7, np.nan]), np.array([2.0, np.nan])
    y = _amounts._unmapped(np.array([[mapped, -7.0]]), shifts, knots)
    log_distance = (mapped if mapped < -30 else math.log(np.logaddexp(0, mapped))) - 0.7
    assert y[0, 0] == pytest.approx(log_distance + math.exp(log_distance) / 2, rel=1e-12)
    assert y[0, 1] == -7.0
    again, _ = _amounts._mapped(y, shifts, knots)
    assert again[0, 0] == pytest.approx(mapped, rel=1e-6)


@pytest.mark.parametrize("chosen", range(9))
def test_every_bandwidth_of_the_grid_is_tried(monkeypatch, chosen):
    """A likelihood that prefers one of the calls for each coordinate."""
    part = part_of(kernels=[], of_x=np.array([np.inf]))
    choice = choice_of(part)
    scale, calls = np.array([6.0]), []

    def prefers(others, near, close):
        # Eight bandwidths of x, then nine of each y, in each pass.
        position = len(calls) % 26
        calls.append((others, near, close))
        position = position if position < 8 else (position - 8) % 9
        return float(position == chosen)

    monkeypatch.setattr(choice, "likelihood", prefers)
    found = choice.choose(scale)
    of_x = 6.0 * np.array([0.1, 0.2, 0.35, 0.6, 1.0, 1.7, 3.0, np.inf])
    of_y = np.array([0.05, 0.08, 0.12, 0.18, 0.25, 0.35, 0.5, 0.7, 1.0])
    # Of equally likely ones the widest is taken.
    chosen_width = of_x[min(chosen, 7)]
    assert found.of_x[0] == chosen_width
    np.testing.assert_allclose(found.of_y, of_y[chosen] * part.deviation)

    tried, heights = [], part.of_y.copy()
    for _ in range(2):  # the second pass changes nothing, and is the last
        tried += [(width, heights.copy()) for width in of_x]
        for g in range(2):
            for height in of_y * part.deviation[g]:
                heights[g] = height
                tried.append((chosen_width, heights.copy()))
            heights[g] = of_y[chosen] * part.deviation[g]
    for (others, near, close), (width, of_call) in zip(calls, tried, strict=True):
        np.testing.assert_array_equal(others, choice.others)
        np.testing.assert_allclose(near - choice.of_x(0, width), 0, atol=1e-8)
        expected = choice.of_y(0, of_call[0]) + choice.of_y(1, of_call[1])
        np.testing.assert_allclose(close, expected, atol=1e-8)


def test_kernels_of_levels_are_chosen_by_the_same_likelihood(monkeypatch):
    part, seen = part_of(of_x=np.array([np.inf])), []
    choice = choice_of(part)

    def record(kernels, levels, weights, judges, kept, closeness):
        seen.append((levels, weights, judges, kept, closeness))
        return [replace(kernel, lam=0.7) for kernel in kernels]

    monkeypatch.setattr(_amounts, "choose_lambdas", record)
    others_of_calls = []
    likelihood = choice.likelihood
    monkeypatch.setattr(
        choice, "likelihood", lambda *a: others_of_calls.append(a[0]) or likelihood(*a)
    )
    found = choice.choose(np.array([6.0]))
    assert found.kernels[0].lam == 0.7
    table = replace(part.kernels[0], lam=0.7).table
    of_levels = table[part.levels[choice.judges, 0]][:, part.levels[:, 0]]
    for others in others_of_calls:
        np.testing.assert_allclose(others, choice.others * of_levels)
    # In the second pass with the bandwidths of the first.
    assert len(seen) >= 2
    for (levels, weights, judges, kept, closeness), width, heights in (
        (seen[0], np.inf, part.of_y), (seen[-1], found.of_x[0], found.of_y),
    ):  # fmt: skip
        assert levels is part.levels
        assert weights is part.weights
        assert judges is choice.judges
        near = np.zeros_like(kept) + choice.of_x(0, width)
        np.testing.assert_allclose(
            kept, choice.kept * np.exp(near - near.max(axis=1, keepdims=True)), atol=1e-12
        )
        close = choice.of_y(0, heights[0]) + choice.of_y(1, heights[1])
        np.testing.assert_allclose(
            closeness, np.exp(close - close.max(axis=1, keepdims=True)), atol=1e-12
        )


def test_passes_over_bandwidths_end_after_four(monkeypatch):
    choice, calls = choice_of(part_of(kernels=[], of_x=np.array([np.inf]))), []

    def varies(others, near, close):
        calls.append(1)
        return float((len(calls) - 1) % 26 == (len(calls) - 1) // 26)

    monkeypatch.setattr(choice, "likelihood", varies)
    choice.choose(np.array([6.0]))
    assert len(calls) == 4 * 26


def test_an_indicator_needs_a_gain_of_a_hundredth():
    """A column of levels that changes log variances by less is not in the regression."""
    rng = np.random.default_rng(0)
    n = 150
    x, levels = rng.normal(size=(n, 1)), rng.integers(0, 2, (n, 1))
    noise = rng.normal(size=n)
    weights = np.full(n, 1 / n)
    for effect, has_indicator in ((0.1, False), (0.7, True)):
        y = (x[:, 0] + effect * (levels[:, 0] - 0.5) + noise)[:, None]
        setting = setting_of(x, weights, np.ones(n), levels, [2])
        without, errors = _amounts._regress(x, y, setting._replace(n_levels=[]))
        z = (x - setting.mean) / setting.scale
        losses = []
        for penalty in (1e-4, 1e-3, 1e-2, 0.1, 1.0, 100.0):
            parts = [z, z**2] if without.is_quadratic else [z]
            features = np.column_stack([*parts, levels == 0])
            tried = left_out_errors(features, y[:, 0], weights, np.ones(n), penalty)
            losses.append(math.log(tried.var()))
        gain = math.log(errors.var()) - min(losses)
        assert (gain > 0.01) == has_indicator
        found, _ = _amounts._regress(x, y, setting)
        assert (found.discrete == [0]) == has_indicator


def test_rows_that_are_far_from_all_training_rows_have_weights():
    """Kernels of all rows underflow there; their ratios count."""
    part = part_of(periods=np.zeros(1), of_x=np.array([0.1]))
    found = part._row_weights(np.array([[0]]), np.array([[500.0]]))[0]
    nearest = np.argmax(part.x[:, 0])
    assert found.sum() == pytest.approx(1)
    assert found[nearest] > 0.98
