"""Conditions, parts and quantiles of drawn columns, called directly, against loops."""

import datetime
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from skdiffsmooth import KDESampler
from skdiffsmooth.tables import (
    _draws,
    _mutual_information,
    cdf,
    marginal,
    mutual_information,
    probability,
    quantile,
)
from skdiffsmooth.tables._draws import DrawnColumn, Draws


def drawn(values, levels=None, is_ordered=False, atoms=(), unit=0.0, period=None, index=0):
    return DrawnColumn("a", np.asarray(values), levels, is_ordered, atoms, unit, period, index)


NUMBERS = [0.5, 1.0, 1.5, 1.0, 2.0]
DAYS = np.array(["2020-01-01", "2020-01-03", "2020-01-02"], dtype="datetime64[D]")


# ------------------------------------------------------------------------------ values


def test_values_become_positions():
    column = drawn([0, 1], levels=("x", 2, "xy"))
    assert column.positions("xy") == 2
    assert column.positions(["xy", "x", 2]).tolist() == [2, 0, 1]
    assert column.positions(np.array([["x", "xy"]], dtype=object)).tolist() == [[0, 2]]
    with pytest.raises(ValueError, match=r"column 'a' has no level 'q'; expected .* 'x', 2, 'xy'"):
        column.positions(["x", "q", "r"])
    dates = drawn(DAYS)
    assert dates.positions("2020-01-02") == np.datetime64("2020-01-02")
    noon = datetime.datetime(2020, 1, 2, 0, tzinfo=datetime.UTC)
    assert dates.positions(noon) == np.datetime64("2020-01-02")
    with pytest.raises(
        ValueError, match=r"holds values of type datetime64\[D\], and 'soon' is none"
    ):
        dates.positions("soon")
    assert drawn(NUMBERS).positions([1, 2]).tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="the value of column 'a' is NaN; expected a number"):
        drawn(NUMBERS).positions([1.0, np.nan])
    with pytest.raises((TypeError, ValueError), match="the value of column 'a'"):
        drawn(NUMBERS).positions("x")


def test_tolerances():
    assert drawn(NUMBERS).tolerance == 0
    assert drawn(NUMBERS, unit=0.5).tolerance == 0.5e-9
    assert drawn([0, 1], levels=("x", "y")).tolerance == 0
    assert drawn(DAYS, unit=1.0).tolerance == np.timedelta64(0)
    assert drawn(DAYS).is_time
    assert drawn(DAYS - DAYS[0]).is_time
    assert not drawn(NUMBERS).is_time


def test_recorded_values_are_equal_up_to_rounding():
    column = drawn([0.1 + 0.2, 0.3, 0.4, 0.3 + 2e-10], unit=0.1)
    assert column.holds(0.3).tolist() == [True, True, False, False]
    assert column.holds((0.3, None)).tolist() == [True, True, True, True]
    assert column.holds((None, 0.3)).tolist() == [True, True, False, False]
    exact = drawn([0.1 + 0.2, 0.3])
    assert exact.holds((None, 0.3)).tolist() == [False, True]


# ------------------------------------------------------------------------------ conditions


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ((1.0, 1.5), [0, 1, 1, 1, 0]),
        ((None, 1.0), [1, 1, 0, 1, 0]),
        ((1.5, None), [0, 0, 1, 0, 1]),
        ((None, None), [1, 1, 1, 1, 1]),
        ((1.0, 1.0), [0, 1, 0, 1, 0]),
        ([1.0], [0, 1, 0, 1, 0]),
        (1, [0, 1, 0, 1, 0]),
    ],
)
def test_intervals_include_their_ends(condition, expected):
    column = drawn(NUMBERS, atoms=(1.0,))
    assert column.holds(condition).astype(int).tolist() == expected


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (1.5, r"event\['a'\]=1.5 is one value of a column of exact numbers, .* probability zero"),
        ((1.5, 1.5), r"event\['a'\]=1.5 is one value of a column of exact numbers"),
        ([1.0, 1.5], r"event\['a'\]=1.5 is one value"),
        ([], r"event\['a'\] is empty; expected at least one value"),
        ((1.0,), r"event\['a'\]=\(1.0,\) is a tuple of 1; expected an interval"),
        ((1.0, 2.0, 3.0), "is a tuple of 3; expected an interval"),
        ((2.0, 1.0), r"event\['a'\]=\(2.0, 1.0\) is empty: its lower end is above its upper end"),
        ([[1.0, 2.0]], r"event\['a'\]=\[1.0, 2.0\] has shape \(2,\); expected one value"),
    ],
)
def test_conditions_that_are_none(condition, message):
    with pytest.raises(ValueError, match=message):
        drawn(NUMBERS, atoms=(1.0,)).holds(condition)


def test_conditions_on_levels():
    plain = drawn([0, 2, 1, 0], levels=("x", "y", "z"))
    assert plain.holds("x").tolist() == [True, False, False, True]
    assert plain.holds(["x", "y"]).tolist() == [True, False, True, True]
    assert plain.holds({"y"}).tolist() == [False, False, True, False]
    assert plain.holds(frozenset(["z"])).tolist() == [False, True, False, False]
    assert plain.holds(np.array(["z", "x"], dtype=object)).tolist() == [True, True, False, True]
    with pytest.raises(ValueError, match=r"column 'a' has levels without an order; .*Ordinal"):
        plain.holds(("x", "y"))
    ordered = drawn([0, 2, 1, 0], levels=("x", "y", "z"), is_ordered=True)
    assert ordered.holds(("y", None)).tolist() == [False, True, True, False]
    assert ordered.holds(("x", "y")).tolist() == [True, False, True, True]
    assert ordered.holds(("y", "y")).tolist() == [False, False, True, False]
    drawn(NUMBERS).check_order()


def test_dates_are_in_intervals_and_at_recorded_values():
    column = drawn(DAYS, unit=1.0)
    assert column.holds(("2020-01-02", None)).tolist() == [False, True, True]
    assert column.holds("2020-01-03").tolist() == [False, True, False]
    assert column.holds(("2020-01-02", "2020-01-02")).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ((22, 2), [1, 0, 1, 1]),
        ((2, 22), [0, 1, 0, 0]),
        ((None, 2), [1, 0, 0, 1]),
        ((0, 24), [1, 1, 1, 1]),
        ((23, None), [0, 0, 1, 0]),
    ],
)
def test_intervals_of_a_period_may_contain_its_end(condition, expected):
    column = drawn([1.0, 12.0, 23.5, 0.0], period=(0.0, 24.0))
    assert column.holds(condition).astype(int).tolist() == expected


@pytest.mark.parametrize("condition", [(-1, 2), (2, 25), (None, 24.5), (-0.1, None), (25, 2)])
def test_ends_are_within_the_period(condition):
    column = drawn([1.0, 12.0], period=(0.0, 24.0))
    with pytest.raises(ValueError, match=r"event\['a'\]=.* is outside the period from 0 to 24"):
        column.holds(condition)


# ------------------------------------------------------------------------------ parts


def counts_of(parts, labels):
    return np.bincount(labels, minlength=len(parts)).tolist()


def test_levels_are_parts():
    parts, labels = drawn([1, 0, 1], levels=("x", "y", "z")).parts(2)
    assert parts == ["x", "y", "z"]
    assert labels.tolist() == [1, 0, 1]


def test_few_values_are_parts():
    parts, labels = drawn([3.0, 1.0, 3.0, 2.0], unit=1.0).parts(3)
    assert parts == [1.0, 2.0, 3.0]
    assert all(type(part) is float for part in parts)
    assert labels.tolist() == [2, 0, 2, 1]
    # An exact value that was drawn once is no part of its own.
    parts, labels = drawn([3.0, 1.0, 3.0, 2.5]).parts(3)
    assert parts == [(None, 1.75), (1.75, 2.75), 3.0]
    assert labels.tolist() == [2, 0, 2, 1]


@pytest.mark.parametrize("n_bins", [2, 3, 5, 10])
def test_intervals_are_of_equal_width_between_outer_quantiles(n_bins):
    rng = np.random.default_rng(0)
    values = rng.normal(size=1000)
    parts, labels = drawn(values).parts(n_bins)
    assert len(parts) == n_bins
    assert parts[0][0] is None
    assert parts[-1][1] is None
    ordered = np.sort(values)
    # Ten of the draws are below the lowest target, and ten above the highest.
    low, high = ordered[10], ordered[-11]
    if n_bins == 2:
        targets = [(low + high) / 2]
    else:
        targets = [low + (high - low) * k / (n_bins - 2) for k in range(n_bins - 1)]
    for k, target in enumerate(targets):
        position = np.searchsorted(ordered, target)
        expected = (ordered[position - 1] + ordered[position]) / 2
        assert parts[k][1] == parts[k + 1][0] == pytest.approx(expected, rel=1e-12)
    for value, label in zip(values, labels, strict=True):
        low, high = parts[label]
        assert low is None or low < value
        assert high is None or value < high


def test_atoms_are_parts_of_their_own():
    rng = np.random.default_rng(0)
    values = np.r_[rng.normal(size=500), np.zeros(50), np.full(30, 1.0)]
    parts, labels = drawn(values, atoms=(0.0, 1.0)).parts(4)
    assert parts.count(0.0) == parts.count(1.0) == 1
    counts = counts_of(parts, labels)
    assert counts[parts.index(0.0)] == 50
    assert counts[parts.index(1.0)] == 30
    for value, label in zip(values, labels, strict=True):
        part = parts[label]
        if isinstance(part, tuple):
            assert part[0] is None or part[0] < value
            assert part[1] is None or value < part[1]
        else:
            assert value == part
    assert len(parts) == 4 + 2 + 2 or len(parts) == 4 + 2 + 1


def test_an_atom_at_the_end_is_the_last_part():
    rng = np.random.default_rng(0)
    values = np.r_[rng.uniform(size=300), np.full(40, 1.0)]
    parts, labels = drawn(values, atoms=(1.0,)).parts(3)
    assert parts[-1] == 1.0
    assert np.array_equal(labels == len(parts) - 1, values == 1.0)
    assert labels.max() == len(parts) - 1


def test_dates_have_intervals_of_dates():
    values = np.array("2020-01-01", dtype="datetime64[s]") + np.arange(300) * np.timedelta64(1, "D")
    parts, labels = drawn(values, unit=1.0).parts(4)
    assert len(parts) == 4
    assert parts[0][0] is None
    assert parts[0][1] == np.datetime64("2020-01-03T12:00")
    assert parts[-1][1] is None
    counts = counts_of(parts, labels)
    assert sum(counts) == 300
    assert counts[0] == 3
    assert counts[1:3] == [147, 146]


def test_plain_values():
    assert type(_draws._plain(np.float64(2))) is float
    assert type(_draws._plain(np.float32(2))) is float
    assert _draws._plain(None) is None
    assert _draws._plain(DAYS[0]) is DAYS[0] or _draws._plain(DAYS[0]) == DAYS[0]


# ------------------------------------------------------------------------------ normal scores


def test_normal_scores_of_exact_numbers():
    found = drawn([3.0, -1.0, 2.0, 2.0]).coordinates()
    np.testing.assert_allclose(found, norm.ppf((np.array([4, 1, 2.5, 2.5]) - 0.5) / 4))
    np.testing.assert_allclose(
        drawn(DAYS).coordinates(), norm.ppf((np.array([1, 3, 2]) - 0.5) / 3), atol=1e-15
    )
    levels = drawn([0, 2, 1], levels=("x", "y", "z")).coordinates()
    np.testing.assert_array_equal(levels, [0, 200, 100])


def test_recorded_values_are_moved_within_their_cells():
    values = np.array([1.0, 0.0, 1.0, 2.0, 1.0, 0.0])
    found = drawn(values, unit=1.0, index=3).coordinates()
    assert len(set(found)) == 6
    uniform = np.random.RandomState(3).uniform(size=6)
    order = sorted(range(6), key=lambda i: (values[i], uniform[i]))
    ranks = np.empty(6)
    ranks[order] = np.arange(1, 7)
    np.testing.assert_allclose(found, norm.ppf((ranks - 0.5) / 6), atol=1e-15)
    other = drawn(values, unit=1.0, index=4).coordinates()
    assert not np.array_equal(found, other)
    # Atoms stay equal: they are no rounded values.
    with_atom = drawn(values, unit=1.0, index=3, atoms=(1.0,)).coordinates()
    assert len(set(with_atom[values == 1.0])) == 1
    np.testing.assert_allclose(with_atom[0], norm.ppf(3.5 / 6), atol=1e-15)
    np.testing.assert_array_equal(with_atom[values != 1.0], found[values != 1.0])


def test_terms_within_a_radius():
    ordered = np.array([0.0, 1.0, 1.0, 2.0, 5.0])
    found = _mutual_information._n_within(
        ordered, np.array([1.0, 5.0, 0.5]), np.array([1.0, 0.0, 0.4])
    )
    assert found.tolist() == [4, 1, 0]


def test_draws_are_appended():
    first = drawn([1.0, 2.0], unit=0.5, index=7)
    both = first.followed_by(drawn([3.0]))
    assert both.values.tolist() == [1.0, 2.0, 3.0]
    assert (both.unit, both.index) == (0.5, 7)


# ------------------------------------------------------------------------------ estimates


class Rows:
    """A density whose draws are known: row i holds i modulo 1000, and a square."""

    random_state = None

    def __init__(self):
        self.n_drawn = []
        self.fitted_ = True

    def sample(self, n_samples, random_state=None):
        self.n_drawn.append(n_samples)
        a = np.arange(n_samples) % 1000
        return np.column_stack([a, a**2]).astype(float)

    def fit(self):
        return self

    def __sklearn_tags__(self):
        return SimpleNamespace(requires_fit=True)


def test_estimates_from_known_draws():
    rows = Rows()
    value, error = probability(rows, {0: (100, 299), 1: (None, 199.5**2)}, error=0.025)
    assert rows.n_drawn == [400]
    # Of 0 to 399, those from 100 to 199.
    assert value == 0.25
    p = 101 / 402
    assert error == pytest.approx(math.sqrt(p * (1 - p) / 400))
    value, _ = cdf(rows, 0, [-1, 0, 99.5, 399], error=0.025)
    assert value.tolist() == [0, 1 / 400, 0.25, 1]
    value, error = quantile(rows, 0, [0.25, 0.5], error=0.025)
    assert value.tolist() == [99, 199]
    # Half of the distance between the quantiles a standard error above and below.
    steps = np.sqrt(np.array([0.25 * 0.75, 0.25]) / 400)
    expected = [
        (math.ceil(400 * (q + s) - 1e-9) - math.ceil(400 * (q - s) - 1e-9)) / 2
        for q, s in zip([0.25, 0.5], steps, strict=True)
    ]
    np.testing.assert_allclose(error, expected)


@pytest.mark.parametrize(("q", "n"), [(0.5, 400), (0.2, 500), (0.75, 400), ([0.2, 0.875], 800)])
def test_quantiles_have_a_hundred_draws_on_each_side(q, n):
    rows = Rows()
    quantile(rows, 0, q, error=0.025)
    assert rows.n_drawn == [n]


@pytest.mark.parametrize("q", [0.0, 1.0, -0.1, [], [0.5, 1.5]])
def test_quantiles_of_no_probability(q):
    with pytest.raises(
        ValueError, match=r"q=.* is out of range; expected probabilities in \(0, 1\)"
    ):
        quantile(Rows(), 0, q)


def test_marginals_from_known_draws():
    parts, p, error = marginal(Rows(), [0], n_bins=4, error=0.025)
    assert p.shape == (4,)
    assert p.sum() == pytest.approx(1)
    assert parts[0][0] == (None, 3.5)
    smoothed = (p * 400 + 1) / 402
    np.testing.assert_allclose(error, np.sqrt(smoothed * (1 - smoothed) / 400))
    parts, p, _ = marginal(Rows(), [1, 0], n_bins=3, error=0.025)
    assert p.shape == (3, 3)
    assert [len(each) for each in parts] == [3, 3]
    of_squares = np.arange(400) ** 2
    rows = [
        sum((low or -1) < x < (high or 1e9) for x in of_squares) / 400 for low, high in parts[0]
    ]
    np.testing.assert_allclose(p.sum(axis=1), rows)
    with pytest.raises(ValueError, match=r"columns=\[0, 1, 0\] has 3 columns|column"):
        marginal(Rows(), [0, 1, 0])
    with pytest.raises(ValueError, match="n_bins=1"):
        marginal(Rows(), [0], n_bins=1)


@pytest.mark.parametrize(
    ("event", "error", "message"),
    [
        ([1], TypeError, r"event=\[1\] has type list; expected a mapping"),
        ({}, ValueError, "event is empty; expected a condition on at least one column"),
    ],
)
def test_events_that_are_none(event, error, message):
    with pytest.raises(error, match=message):
        probability(Rows(), event)


def test_models_that_have_no_draws():
    for model in (3, KDESampler, Rows):
        with pytest.raises(TypeError, match=r"has type .*; expected a fitted density"):
            _draws.generator_of(model, 0)
    rows = Rows()
    rows.random_state = 5
    expected = np.random.RandomState(5).uniform()
    assert _draws.generator_of(rows, None).uniform() == expected
    assert _draws.generator_of(rows, 6).uniform() == np.random.RandomState(6).uniform()


def test_draws_that_are_a_frame_have_its_types():
    class Frames(Rows):
        def sample(self, n_samples, random_state=None):
            self.n_drawn.append(n_samples)
            return pd.DataFrame(
                {
                    "kind": np.resize(["x", "y", "y", "z"], n_samples),
                    "flag": np.resize([True, False], n_samples),
                    "size": pd.Categorical(
                        np.resize(["s", "l"], n_samples), ["s", "m", "l"], ordered=True
                    ),
                    "wait": np.resize(pd.to_timedelta([1, 2, 3], unit="s"), n_samples),
                }
            )

    model = Frames()
    assert probability(model, {"kind": ["x", "z"]}, error=0.05).value == 0.5
    assert probability(model, {"flag": True}, error=0.05).value == 0.5
    assert cdf(model, "size", ["s", "m", "l"], error=0.05).value.tolist() == [0.5, 0.5, 1]
    parts, p, _ = marginal(model, ["size"], error=0.05)
    assert parts == (["s", "m", "l"],)
    assert p.tolist() == [0.5, 0, 0.5]
    # Durations are recorded in ticks, which have a probability.
    assert probability(model, {"wait": pd.Timedelta(2, "s")}, error=0.05).value == 0.33
    draws = Draws.of(model, 8, None, 0, "columns", ["wait"])
    assert draws.column("wait").unit == 1.0
    assert draws.column("kind").levels == ("x", "y", "z")
    assert draws.column("kind").values.tolist() == [0, 1, 1, 2, 0, 1, 1, 2]
    assert draws.column("size").is_ordered
    assert draws.column(1).index == 1
    with pytest.raises(ValueError, match="column 'kind' has levels; expected a column of numbers"):
        quantile(model, "kind", 0.5)
    with pytest.raises(ValueError, match="column 'kind' has levels without an order"):
        cdf(model, "kind", "x")


def test_periods_of_a_density_of_arrays():
    rows = Rows()
    rows.periods_ = np.array([1000.0, 0.0])
    draws = Draws.of(rows, 4, None, 0, "columns", [0])
    assert draws.column(0).period == (0.0, 1000.0)
    assert draws.column(1).period is None


# ------------------------------------------------------------------------------ information


def test_information_has_draws_until_its_error_is_small(monkeypatch):
    """Each step takes 1.5 to 3 times as many draws, and at most the largest number."""

    class Pairs(Rows):
        def sample(self, n_samples, random_state=None):
            self.n_drawn.append(n_samples)
            return random_state.normal(size=(n_samples, 2))

    pairs = Pairs()
    value, error = mutual_information(pairs, 0, 1, error=10.0, random_state=0)
    assert pairs.n_drawn == [1000]
    assert value >= 0
    assert 0 < error < 0.2
    monkeypatch.setattr(_mutual_information, "_FEWEST_PAIRS", 100)
    monkeypatch.setattr(_mutual_information, "_MOST_PAIRS", 1000)
    pairs = Pairs()
    with pytest.warns(UserWarning, match=r"of 0 and 1 is .* nats after 1000 draws, and 1e-06 was"):
        mutual_information(pairs, 0, 1, error=1e-6, random_state=0)
    assert pairs.n_drawn == [100, 200, 600, 100]


def test_the_error_of_information_is_that_of_its_parts(monkeypatch):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(1000, 2))

    class Pairs(Rows):
        def sample(self, n_samples, random_state=None):
            return points

    value, error = mutual_information(Pairs(), 0, 1, error=10.0)
    first, second = (drawn(points[:, k]).coordinates() for k in range(2))
    terms = _mutual_information._mixed_terms(first, second)
    assert value == max(terms.mean(), 0)
    tenths = [
        _mutual_information._mixed_terms(first[k::10], second[k::10]).mean() for k in range(10)
    ]
    quarters = [
        _mutual_information._mixed_terms(first[k::4], second[k::4]).mean() for k in range(4)
    ]
    expected = math.hypot(np.std(tenths, ddof=1) / math.sqrt(10), terms.mean() - np.mean(quarters))
    assert error == pytest.approx(expected)
    # A moderate excess: the number grows by its square, with a tenth to spare.
    sizes = []

    class Growing(Rows):
        def sample(self, n_samples, random_state=None):
            sizes.append(n_samples)
            return points[:n_samples]

    monkeypatch.setattr(_mutual_information, "_MOST_PAIRS", 1001)
    with pytest.warns(UserWarning, match="after 1001 draws"):
        mutual_information(Growing(), 0, 1, error=expected / 1.3)
    assert sizes == [1000, 1]
    monkeypatch.setattr(_mutual_information, "_MOST_PAIRS", 2000)
    sizes.clear()
    with pytest.warns(UserWarning, match="after 2000 draws|after"):
        mutual_information(Growing(), 0, 1, error=expected / 1.3, random_state=0)
    assert sizes[1] == min(math.ceil(1000 * (1.1 * 1.3) ** 2), 2000) - 1000
