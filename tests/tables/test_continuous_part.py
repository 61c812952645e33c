"""The density of numbers given levels and its search for scales, called directly, against loops."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import norm

from skdiffsmooth import KDESampler
from skdiffsmooth.tables import _continuous
from skdiffsmooth.tables._continuous import ContinuousPart, RowsInCells, _Chooser, fit_part
from skdiffsmooth.tables._discrete import LevelKernel, choose_lambdas

HALF = np.array([0.5, 0.5])


def part_of(fitted=None, **changes):
    rng = np.random.default_rng(0)
    own = {
        "columns": np.array([0, 2]),
        "fitted": fitted,
        "kernels": [LevelKernel(HALF, False, 0.3), LevelKernel(HALF, False, 1.0)],
        "levels": rng.integers(0, 2, (6, 2)),
        "weights": np.arange(1, 7) / 21,
        "rows": rng.normal(size=(6, 2)),
        "group": None,
        "offsets": np.zeros((1, 2)),
    }
    return ContinuousPart(**{**own, **changes})


def weights_by_loops(part, levels):
    weights = []
    for weight, own in zip(part.weights, part.levels, strict=True):
        tables = zip(part.kernels, levels, own, strict=True)
        weights.append(weight * math.prod(kernel.table[a, b] for kernel, a, b in tables))
    return np.array(weights) / sum(weights)


@pytest.mark.parametrize("levels", [[0, 1], [1, -1], [-1, -1]])
def test_weights_of_rows_given_levels(levels):
    part = part_of()
    found = part.row_weights(np.array(levels))
    np.testing.assert_allclose(found, weights_by_loops(part, levels))
    assert found.sum() == pytest.approx(1)


def test_what_matters():
    part = part_of()
    assert part.relevant.tolist() == [0]
    assert part.relevant.dtype == np.intp
    assert part_of(KDESampler()).is_integrated is False
    assert part_of(SimpleNamespace()).is_integrated is True


def test_a_density_that_depends_on_no_level_is_the_one_of_all_rows():
    part = part_of("all", kernels=[LevelKernel(HALF, False, 1.0)] * 2)
    assert part.given(np.array([0, 0])) == "all"


def test_rows_of_negligible_weight_are_omitted(monkeypatch):
    stub = SimpleNamespace(_reweighted=lambda weights: weights)
    group = np.array([0, 1, 2, 2, 1, 3])
    part = part_of(stub, group=group)
    of_rows = part.row_weights(np.array([0, 0]))
    expected = np.array([of_rows[group == k].sum() for k in range(4)])
    np.testing.assert_allclose(part.given(np.array([0, 0])), expected)
    order = np.sort(expected)
    for limit, n_omitted in (
        (order[0], 1),
        (0.99 * order[0], 0),
        (1.01 * order[:2].sum(), 2),
        (order[:3].sum() * 0.999, 2),
    ):
        monkeypatch.setattr(_continuous, "_NEGLIGIBLE", limit)
        found = part.given(np.array([0, 0]))
        np.testing.assert_allclose(np.sort(found)[n_omitted:], order[n_omitted:])
        assert (found == 0).sum() == n_omitted


def test_a_ten_thousandth_of_the_weight_is_negligible():
    stub = SimpleNamespace(_reweighted=lambda weights: weights)
    for small, is_kept in ((0.9e-4, False), (1.1e-4, True)):
        weights = np.array([small, (1 - small) / 2, (1 - small) / 2])
        part = part_of(
            stub, group=np.arange(3), weights=weights, levels=np.zeros((3, 1), dtype=int),
            kernels=[LevelKernel(HALF, False, 0.5)], rows=np.zeros((3, 2)),
        )  # fmt: skip
        assert (part.given(np.array([0]))[0] > 0) == is_kept


def test_densities_that_take_no_other_weights_are_fitted_again(monkeypatch):
    calls = []
    monkeypatch.setattr(_continuous, "fit_member", lambda *a: calls.append(a) or "fitted")
    monkeypatch.setattr(_continuous, "_NEGLIGIBLE", 0.02)
    part = part_of(KDESampler(bandwidth=2.0))
    assert part.given(np.array([0, 0])) == "fitted"
    ((label, density, rows, weights),) = calls
    assert label == "density"
    assert density.bandwidth == 2.0
    assert density is not part.fitted
    expected = part.row_weights(np.array([0, 0]))
    kept = np.cumsum(np.sort(expected)) > 0.02
    np.testing.assert_allclose(np.sort(weights), np.sort(expected)[kept])
    np.testing.assert_array_equal(rows, part.rows[np.isin(expected, weights)])


# ------------------------------------------------------------------------------ queries


def test_log_densities_of_all_and_of_some_coordinates():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(6, 2))
    fitted = KDESampler(bandwidth=0.7).fit(rows)
    group = _continuous._point_of_row(fitted, rows)
    part = part_of(fitted, rows=rows, group=group)
    queries = rng.normal(size=(4, 2))
    with_nan = np.column_stack([np.full(4, np.nan), queries[:, 1]])
    requests = [
        (np.array([False, True]), with_nan),
        (np.array([True, True]), queries),
    ]
    (of_second, no_error), (of_both, _) = part.log_densities(np.array([1, 0]), requests, None)
    weights = weights_by_loops(part, [1, 0])
    kernels = norm.pdf(queries[:, None], rows, 0.7)
    np.testing.assert_allclose(np.exp(of_both), kernels.prod(axis=2) @ weights, rtol=1e-9)
    np.testing.assert_allclose(np.exp(of_second), kernels[:, :, 1] @ weights, rtol=1e-9)
    assert no_error.tolist() == [0, 0, 0, 0]
    of_all = fitted.score_samples(queries)
    np.testing.assert_allclose(part.of_all(queries), of_all)


class Flow:
    """A density whose marginals are integrals."""


def test_integrals_share_the_memory_and_have_their_errors(monkeypatch):
    made = []

    class Integral:
        def __init__(self, joint, scored, limit, error):
            made.append((joint, scored.tolist(), limit, error))

        def log_marginal(self, values):
            return values

    monkeypatch.setattr(_continuous, "BaseScoreDiffusion", Flow)
    monkeypatch.setattr(_continuous, "Conditional", Integral)
    monkeypatch.setattr(
        _continuous, "together", lambda joint, jobs: [(job, len(job)) for job in jobs]
    )
    monkeypatch.setattr(
        _continuous, "log_density_of", lambda label, model, queries: np.full(len(queries), 7.0)
    )
    monkeypatch.setattr(ContinuousPart, "_joint", lambda self, model: ("joint", 90.0))
    part = part_of(Flow(), kernels=[])
    values = np.arange(12.0).reshape(4, 3)
    requests = [
        (np.array([True, False, True]), values),
        (np.array([True, True, True]), values),
        (np.array([False, True, False]), values),
    ]
    found = part.log_densities(np.array([]), requests, None)
    assert made == [("joint", [0, 2], 45.0, 0.1), ("joint", [1], 45.0, 0.03)]
    np.testing.assert_array_equal(found[0][0], values[:, [0, 2]])
    assert found[1][0].tolist() == [7.0] * 4
    np.testing.assert_array_equal(found[2][0], values[:, [1]])
    made.clear()
    part.log_densities(np.array([]), requests[:1], 0.5)
    assert made == [("joint", [0, 2], 90.0, 0.5)]


def test_draws_with_and_without_given_values(monkeypatch):
    calls = []

    def record(name, value):
        def called(*a, **options):
            calls.append((name, a, options))
            return value

        return called

    monkeypatch.setattr(_continuous, "draw", record("all", "drawn"))
    monkeypatch.setattr(_continuous, "draw_given", record("some", ("given", None)))
    monkeypatch.setattr(_continuous, "draw_given_columns", record("flow", "integrated"))
    monkeypatch.setattr(ContinuousPart, "_joint", lambda self, model: ("joint", 90.0))
    part = part_of("model", kernels=[])
    nothing, some = np.full((3, 2), np.nan), np.array([[np.nan, 1.0], [np.nan, 2.0]])
    assert part.draw(np.array([]), nothing, "rng") == "drawn"
    assert part.draw(np.array([]), some, "rng") == "given"
    monkeypatch.setattr(_continuous, "BaseScoreDiffusion", Flow)
    flow = part_of(Flow(), kernels=[])
    assert flow.draw(np.array([]), nothing, "rng") == "drawn"
    assert flow.draw(np.array([]), some, "rng", for_means=True) == "integrated"
    (_, of_all, _), (_, of_some, _), _, (_, of_flow, options) = calls
    assert of_all == ("model", 3, "rng")
    assert of_some[1] == "model"
    assert of_some[2].tolist() == [1]
    assert of_some[3].tolist() == [[1.0], [2.0]]
    assert of_flow[0] == "joint"
    assert of_flow[1].tolist() == [1]
    assert of_flow[4] == 90.0
    assert options == {"for_means": True}


# ------------------------------------------------------------------------------ fit


def rows_in_cells(n=12, has_cells=(False, False), weights=None):
    """Return rows whose cells have width 0.4, in coordinates that are the values."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(n, 2))
    has_cells = np.array(has_cells)

    def moved(index, offsets):
        at = rows[index] + 0.4 * offsets[:, None] * has_cells
        return at, 0.1 * offsets[:, None].sum(axis=2) * np.ones(len(index))

    offsets = np.array([[-0.25, 0.0], [0.25, 0.0]]) if has_cells.any() else np.zeros((1, 2))
    weights = np.ones(n) if weights is None else np.array(weights)
    return RowsInCells(rng.integers(0, 2, (n, 1)), rows, weights, moved, offsets, has_cells)


@pytest.mark.parametrize(
    ("kernels", "has_cells", "factor", "is_free", "n_fits"),
    [
        ([], (False, False), 0.5, True, 1),
        ([LevelKernel(HALF, False)], (False, False), 0.5, True, 2),
        ([], (True, False), 0.5, True, 2),
        ([LevelKernel(HALF, False)], (False, False), 1, True, 1),
        ([LevelKernel(HALF, False)], (False, False), 0.5, False, 1),
    ],
)
def test_the_scale_is_chosen_given_levels_or_cells(
    monkeypatch, kernels, has_cells, factor, is_free, n_fits
):
    fits = []
    fit_member = _continuous.fit_member

    def record(label, density, rows, weights):
        fits.append((label, density, weights))
        return fit_member(label, density, rows, weights)

    chooser = SimpleNamespace(choose=lambda each: (["chosen"] if each else [], factor))
    chooser.is_scale_free = is_free
    monkeypatch.setattr(_continuous, "fit_member", record)
    monkeypatch.setattr(_continuous._Chooser, "of", lambda fitted, own: chooser)
    own = rows_in_cells(has_cells=has_cells)
    density = KDESampler()
    part = fit_part("label", np.array([0, 1]), density, own, kernels)
    assert len(fits) == n_fits
    assert all(label == "label" and weights is None for label, _, weights in fits)
    assert part.kernels == (["chosen"] if kernels else [])
    expected = KDESampler().fit(own.rows).bandwidth_
    assert part.fitted.bandwidth_ == pytest.approx(expected * (factor if n_fits == 2 else 1))
    np.testing.assert_allclose(part.weights, 1 / 12)
    np.testing.assert_array_equal(part.fitted.points_[part.group], own.rows)
    assert part.levels is own.levels
    assert part.rows is own.rows
    assert part.offsets is own.offsets
    assert not hasattr(density, "bandwidth_")


def test_weights_are_passed_where_they_differ():
    weights = np.r_[3.0, np.ones(11)]
    own = rows_in_cells(weights=weights)
    part = fit_part("label", np.array([0, 1]), KDESampler(bandwidth=1.0), own, [])
    np.testing.assert_allclose(part.weights, weights / 14)
    np.testing.assert_allclose(part.fitted.weights_[part.group], weights / 14)


def test_rows_are_found_among_the_points_of_a_density():
    rows = np.array([[0.0, 1e9], [23.0, 2e9], [0.0, 1e9], [25.0, 3e9]])
    fitted = KDESampler(bandwidth=1.0).fit(rows)
    found = _continuous._point_of_row(fitted, rows)
    np.testing.assert_allclose(fitted.points_[found], rows)
    assert found[0] == found[2]
    periodic = KDESampler(bandwidth=1.0, periods={0: 24.0}).fit(rows)
    found = _continuous._point_of_row(periodic, rows)
    np.testing.assert_allclose(periodic.points_[found] % [24, np.inf], rows % [24, np.inf])
    constant = np.array([[1.0, 5.0], [2.0, 5.0]])
    fitted = KDESampler(bandwidth=1.0).fit(constant)
    found = _continuous._point_of_row(fitted, constant)
    np.testing.assert_allclose(fitted.points_[found], constant)
    assert _continuous._point_of_row(SimpleNamespace(), rows) is None
    assert _continuous._point_of_row(SimpleNamespace(_can_reweight=False), rows) is None


def test_columns_of_unlike_units_are_compared_in_their_own():
    """The nearest point in the first column is another one, whose second column is far off."""
    rows = np.array([[1e-9, 0.0], [2e-9, 1e6], [3e-9, 2e6]])
    fitted = SimpleNamespace(_can_reweight=True, periods_=None, points_=rows[::-1].copy())
    assert _continuous._point_of_row(fitted, rows).tolist() == [2, 1, 0]
    offset = np.array([[5.0, 1e9], [6.0, 1e9 + 1]])
    fitted = SimpleNamespace(_can_reweight=True, periods_=None, points_=offset[::-1].copy())
    assert _continuous._point_of_row(fitted, offset).tolist() == [1, 0]


@pytest.mark.parametrize("periods", [None, [0.0, 24.0], [7.0, 24.0], [0.0, 0.0]])
def test_squared_distances(periods):
    rng = np.random.default_rng(0)
    y, x = rng.uniform(0, 20, (3, 2)), rng.uniform(0, 20, (4, 2))
    found = _continuous._squares(y, x, None if periods is None else np.array(periods))
    for i, j in np.ndindex(3, 4):
        total = 0.0
        for k in range(2):
            distance = abs(y[i, k] - x[j, k])
            if periods is not None and periods[k]:
                distance %= periods[k]
                distance = min(distance, periods[k] - distance)
            total += distance**2
        assert found[i, j] == pytest.approx(total)


@pytest.mark.parametrize(
    ("scale", "factor"), [("0.85h", 0.85), ("2h", 2.0), ("h", None), ("loo", None), (0.5, None)]
)
def test_multiples_of_the_leave_one_out_scale(scale, factor):
    assert _continuous._factor_of(scale) == factor


def test_scales_are_multiplied():
    kde = KDESampler(bandwidth=3.0).fit(np.arange(4.0)[:, None])
    assert _continuous._scales(kde, 0.5) == {"bandwidth": 1.5}
    flow = SimpleNamespace(
        settings_={"bandwidth": "1h", "sigma": "0.5h", "kernel": "gaussian"},
        bandwidth_=4.0, sigma_=2.0,
    )  # fmt: skip
    assert _continuous._scales(flow, 0.25) == {
        "bandwidth": 1.0, "sigma": 0.5, "kernel": "gaussian",
    }  # fmt: skip
    flow.settings_["sigma"] = 0.7
    assert _continuous._scales(flow, 0.25)["sigma"] == 0.7
    assert flow.settings_["bandwidth"] == "1h"


# ------------------------------------------------------------------------------ search


def test_the_chooser_of_exact_rows_leaves_equal_rows_out_together():
    own = rows_in_cells()
    own.rows[3] = own.rows[0]
    fitted = KDESampler("loo").fit(own.rows)
    chooser = _Chooser.of(fitted, own)
    assert chooser.judges.tolist() == list(range(12))
    assert chooser.is_scale_free
    assert chooser.background == 0
    assert chooser.n_directions == 2
    assert chooser.least == 0
    assert chooser.squares.shape == (1, 12, 12)
    h = float(fitted.bandwidth_)
    for i, j in np.ndindex(12, 12):
        square = ((own.rows[i] - own.rows[j]) ** 2).sum() / h**2
        assert chooser.squares[0, i, j] == pytest.approx(square, abs=1e-9)
        assert chooser.kept[i, j] == (not (i == j or {i, j} == {0, 3}))
    np.testing.assert_array_equal(chooser.log_slopes, np.zeros((1, 12)))
    given = KDESampler(bandwidth=1.0).fit(own.rows)
    assert not _Chooser.of(given, own).is_scale_free
    other = KDESampler("loo", kernel="epanechnikov").fit(own.rows)
    assert not _Chooser.of(other, own).is_scale_free


def test_the_scale_of_other_densities_is_not_chosen():
    """Distances are then in the metric of a kernel density estimate of the same rows."""
    own = rows_in_cells()
    chooser = _Chooser.of(SimpleNamespace(), own)
    assert chooser.is_scale_free is False
    assert chooser.background == 0
    kde = KDESampler(metric="local").fit(own.rows)
    x = kde.coordinates_.to_metric(own.rows) / kde.bandwidth_
    squares = ((x[:, None] - x) ** 2).sum(axis=2)
    np.testing.assert_allclose(chooser.squares[0], squares, atol=1e-9)


def test_the_chooser_of_rows_in_cells_leaves_one_copy_out():
    weights = np.r_[4.0, np.ones(11)]
    own = rows_in_cells(has_cells=(True, True), weights=weights)
    fitted = KDESampler("loo").fit(own.rows)
    chooser = _Chooser.of(fitted, own)
    np.testing.assert_allclose(np.diag(chooser.kept), np.r_[0.75, np.zeros(11)])
    assert chooser.kept.sum() == pytest.approx(11 * 12 + 0.75)
    h = float(fitted.bandwidth_)
    assert chooser.squares.shape == (2, 12, 12)
    for m, i, j in np.ndindex(2, 12, 12):
        at = own.rows[i] + 0.4 * own.offsets[m]
        square = ((at - own.rows[j]) ** 2).sum() / h**2
        assert chooser.squares[m, i, j] == pytest.approx(square, abs=1e-9)
    np.testing.assert_allclose(chooser.log_slopes, np.tile([[-0.025], [0.025]], (1, 12)))
    # Both columns have cells of width 0.4, in bandwidths: 0.25 of the second, at most 0.1 of the first.
    assert chooser.least == pytest.approx(0.1 * 0.4 / h)
    one = _Chooser.of(fitted, rows_in_cells(has_cells=(True, False)))
    assert one.least == pytest.approx(0.03 * 0.4 / h)


def test_rows_whose_likelihood_chooses_are_limited(monkeypatch):
    own = rows_in_cells(n=100)
    fitted = KDESampler("loo").fit(own.rows)
    for most, pairs, n in ((512, 4_000_000, 100), (30, 4_000_000, 30), (512, 8000, 80),
                           (512, 6000, 64)):  # fmt: skip
        monkeypatch.setattr(_continuous, "_MOST_JUDGES", most)
        monkeypatch.setattr(_continuous, "_MOST_PAIRS", pairs)
        chooser = _Chooser.of(fitted, own)
        assert len(chooser.judges) == n
        assert chooser.squares.shape == (1, n, 100)


def chooser_of(background=0.0, is_scale_free=True, least=0.0):
    rng = np.random.default_rng(0)
    n, judges = 10, np.array([0, 2, 5, 9])
    x = rng.normal(size=(n, 2))
    y = x[judges] + np.array([[[-0.1, 0]], [[0.1, 0]]])
    squares = ((y[:, :, None] - x) ** 2).sum(axis=3)
    kept = np.ones((4, n))
    kept[np.arange(4), judges] = 0.0
    return _Chooser(
        rng.integers(0, 2, (n, 1)), rng.uniform(0.5, 2, n), judges, kept, squares,
        rng.normal(size=(2, 4)) / 10, 2, background, is_scale_free, least,
    )  # fmt: skip


@pytest.mark.parametrize("background", [0.0, 0.2])
@pytest.mark.parametrize("log_factor", [-0.7, 0.0, 0.4])
def test_closeness_against_loops(background, log_factor):
    chooser = chooser_of(background)
    closeness, shift = chooser._closeness(log_factor)
    h = math.exp(log_factor)
    for i, j in np.ndindex(4, 10):
        total = 0.0
        for m in range(2):
            square = chooser.squares[m, i, j]
            # Of the background, a fraction of the mass, kernels are four times as wide.
            kernel = (1 - background) * math.exp(-square / h**2 / 2)
            kernel += background / 4**2 * math.exp(-square / (4 * h) ** 2 / 2)
            total += kernel * math.exp(chooser.log_slopes[m, i]) / h**2
        assert closeness[i, j] * math.exp(shift[i]) == pytest.approx(total / 2, rel=1e-10)
    assert closeness.max() <= 1


def loss_of(chooser, product, log_factor):
    closeness, shift = chooser._closeness(log_factor)
    values = np.log((product * closeness).sum(axis=1)) + shift
    own = chooser.weights[chooser.judges]
    return -(own @ values) / own.sum()


@pytest.mark.parametrize("least", [0.0, 0.9, 1.5])
def test_the_best_scale_has_the_highest_likelihood(least):
    chooser = chooser_of(least=least)
    product = chooser.kept * chooser.weights
    found = chooser._best_scale(product)
    low = math.log(max(least, 0.2))
    high = math.log(max(2.0, 2 * least))
    grid = np.linspace(low, high, 200)
    losses = [loss_of(chooser, product, each) for each in grid]
    assert found == pytest.approx(grid[int(np.argmin(losses))], abs=0.02)
    assert low <= found <= high


@pytest.mark.parametrize("distance", [1e-3, 30.0])
def test_the_scale_is_within_its_bounds(distance):
    chooser = chooser_of()
    chooser = _continuous.replace(chooser, squares=np.full_like(chooser.squares, distance**2))
    found = chooser._best_scale(chooser.kept * chooser.weights)
    expected = math.log(0.2 if distance < 1 else 2.0)
    assert found == pytest.approx(expected, abs=0.02)


def test_likelihoods_that_underflow_are_bounded():
    chooser = chooser_of()
    product = np.zeros_like(chooser.kept)
    assert math.isfinite(chooser._best_scale(product))


def test_kernels_and_the_scale_are_chosen_in_turn():
    chooser = chooser_of()
    kernels, factor = chooser.choose([LevelKernel(HALF, False)])
    log_factor = math.log(factor)
    product = kernels[0].table[chooser.levels[chooser.judges, 0]][:, chooser.levels[:, 0]]
    product = product * chooser.kept * chooser.weights
    assert chooser._best_scale(product) == pytest.approx(log_factor, abs=0.03)
    again = choose_lambdas(
        kernels, chooser.levels, chooser.weights, chooser.judges, chooser.kept,
        chooser._closeness(log_factor)[0],
    )  # fmt: skip
    assert again[0].lam == pytest.approx(kernels[0].lam, abs=0.03)
    fixed, one = chooser_of(is_scale_free=False).choose([LevelKernel(HALF, False)])
    assert one == 1.0
    expected = choose_lambdas(
        [LevelKernel(HALF, False)], chooser.levels, chooser.weights, chooser.judges, chooser.kept,
        chooser._closeness(0.0)[0],
    )  # fmt: skip
    assert fixed[0].lam == expected[0].lam
    without, scale = chooser.choose([])
    assert without == []
    expected = chooser._best_scale(chooser.kept * chooser.weights)
    assert math.log(scale) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("scales", "n_rounds"),
    [([0.0] * 9, 1), ([0.5, 0.5, 0.0], 2), ([0.5, 0.505, 0.0], 2), ([0.5, 0.52, 0.52], 3),
     ([0.1, 0.2, 0.3, 0.4, 0.5], 4), ([-0.5, -0.5, 0.0], 2)],
)  # fmt: skip
def test_rounds_end_where_nothing_changes_or_after_four(monkeypatch, scales, n_rounds):
    results, calls = iter(scales), []
    monkeypatch.setattr(_Chooser, "_best_scale", lambda self, product: next(results))
    closeness = _Chooser._closeness
    monkeypatch.setattr(
        _Chooser, "_closeness", lambda self, each: calls.append(each) or closeness(self, each)
    )
    _, factor = chooser_of().choose([])
    assert calls == [0.0, *scales[: n_rounds - 1]]
    assert factor == pytest.approx(math.exp(scales[n_rounds - 1]))


def test_rounds_go_on_where_a_kernel_changes(monkeypatch):
    lambdas, calls = iter([0.1, 0.3, 0.305, 0.9]), []

    def choose(kernels, *arguments):
        calls.append(arguments)
        return [LevelKernel(HALF, False, next(lambdas))]

    monkeypatch.setattr(_continuous, "choose_lambdas", choose)
    monkeypatch.setattr(_Chooser, "_best_scale", lambda self, product: 0.3)
    kernels, _ = chooser_of().choose([LevelKernel(HALF, False, 0.1)])
    assert kernels[0].lam == 0.305
    assert len(calls) == 3
