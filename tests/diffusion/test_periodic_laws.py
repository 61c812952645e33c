"""Laws of models with periodic columns: on circles, on tori, and on their products with lines."""

import pickle

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth._diffusion.joint_density import JointDensity
from skdiffsmooth.kernels import AnisotropicGaussianKernel, OffsetsKernel
from skdiffsmooth.model_selection import SmoothedScoreDiffusionCV

DAY, TURN = 24.0, 360.0
FAST = {"n_nodes": 16, "n_levels": 12, "n_steps": 12}


def hours(n=120, seed=0):
    return (np.random.RandomState(seed).normal(0, 1, size=n) % DAY)[:, None]


def angles_and_line(n=90, seed=0):
    rng = np.random.RandomState(seed)
    angle = np.degrees(rng.vonmises(3.0, 2.0, size=n)) % TURN
    other = (2 * angle + rng.normal(0, 25, size=n)) % TURN
    line = np.cos(np.radians(angle)) + rng.normal(0, 0.3, size=n)
    return np.column_stack([angle, line, other])


def queries(X, n=12, seed=1):
    rng = np.random.RandomState(seed)
    return X[rng.randint(len(X), size=n)] + 0.1 * X.std(axis=0) * rng.normal(size=(n, X.shape[1]))


BY_CASE = {
    "circle": (hours(), {0: DAY}),
    "cylinder": (angles_and_line()[:, :2], {0: TURN}),
    "torus": (angles_and_line()[:, [0, 2]], {0: TURN, 1: TURN}),
    "torus and line": (angles_and_line(), {0: TURN, 2: TURN}),
}
cases = pytest.mark.parametrize("case", BY_CASE)


def wrapped_kde(X, Q, periods, bandwidths):
    """Return log-densities by explicit sums over images, in two loops."""
    k = np.arange(-30, 31)
    result = np.empty(len(Q))
    for i, q in enumerate(Q):
        log_kernels = np.zeros(len(X))
        for j, h in enumerate(bandwidths):
            shifts = k * periods[j] if j in periods else np.zeros(1)
            distances = q[j] - X[:, j, None] + shifts
            log_kernels += np.logaddexp.reduce(-(distances**2) / (2 * h**2), axis=1)
            log_kernels -= np.log(np.sqrt(2 * np.pi) * h)
        result[i] = np.logaddexp.reduce(log_kernels) - np.log(len(X))
    return result


def nothing_chosen(case, sigma=0.5):
    """Return a model with numbers for the scales, in scaled columns, and a background."""
    X, periods = BY_CASE[case]
    return SmoothedScoreDiffusion(
        0.2, sigma, metric="scaled", background=0.1, periods=periods, **FAST
    ).fit(X)


@cases
@pytest.mark.parametrize("model", ["kde", "flow"])
def test_whole_periods_change_nothing(case, model):
    X, periods = BY_CASE[case]
    rng = np.random.RandomState(2)
    moved, Q = X.copy(), queries(X)
    moved_queries = Q.copy()
    for column, period in periods.items():
        moved[:, column] += period * rng.randint(-1000, 1000, size=len(X))
        moved_queries[:, column] += period * rng.randint(-1000, 1000, size=len(Q))

    def fitted(rows):
        if model == "kde":
            return KDESampler(periods=periods).fit(rows)
        return SmoothedScoreDiffusion(
            "0.85h", "1.5h", metric="scaled", background=0.1, periods=periods, **FAST
        ).fit(rows)

    plain, shifted = fitted(X), fitted(moved)
    # A value of 1000 periods is rounded by 1e-13 of a period, and the order of equal numbers changes.
    np.testing.assert_allclose(
        shifted.score_samples(moved_queries), plain.score_samples(Q), rtol=0, atol=1e-7
    )
    np.testing.assert_allclose(
        shifted.sample(5, random_state=0), plain.sample(5, random_state=0), rtol=1e-7, atol=1e-7
    )


@cases
def test_density_moves_with_the_origin_and_with_units(case):
    X, periods = BY_CASE[case]
    Q = queries(X)
    plain = SmoothedScoreDiffusion(periods=periods, **FAST).fit(X)
    offset, unit = np.full(X.shape[1], 5.3), np.full(X.shape[1], -3.0)
    moved = SmoothedScoreDiffusion(
        periods={column: 3 * period for column, period in periods.items()}, **FAST
    ).fit((X + offset) * unit)
    assert moved.settings_["metric"] == plain.settings_["metric"]
    expected = plain.score_samples(Q) - np.log(np.abs(unit)).sum()
    # Rounding, which the choice of the bandwidth (to 0.1 %) enlarges.
    np.testing.assert_allclose(moved.score_samples((Q + offset) * unit), expected, atol=1e-5)


def test_permuted_columns_of_a_torus_give_the_same_density():
    X, _ = BY_CASE["torus"]
    periods = {0: TURN, 1: TURN}
    plain = SmoothedScoreDiffusion(periods=periods, **FAST).fit(X)
    swapped = SmoothedScoreDiffusion(periods=periods, **FAST).fit(X[:, ::-1])
    Q = queries(X)
    np.testing.assert_allclose(
        swapped.score_samples(Q[:, ::-1]), plain.score_samples(Q), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("sigma", [0.0, 0.5, 1.0])
def test_mass_over_one_period_is_one(sigma):
    X, periods = BY_CASE["circle"]
    model = SmoothedScoreDiffusion(
        0.3, sigma, metric="scaled", periods=periods, n_levels=40, n_steps=80
    ).fit(X)
    grid = np.arange(0, DAY, DAY / 400)[:, None]
    # The density is smooth and periodic, so that the sum is exact; the rest is the solver's error.
    assert np.exp(model.score_samples(grid)).mean() * DAY == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("by", ["images", "products"])
def test_mass_of_a_torus_is_one(by, monkeypatch):
    if by == "products":
        monkeypatch.setattr("skdiffsmooth._engine.periodic._IMAGES_A_PRODUCT", 0)
    X, periods = BY_CASE["torus"]
    model = SmoothedScoreDiffusion(
        0.35, 0.5, metric="scaled", periods=periods, n_nodes=16, n_levels=32, n_steps=32
    ).fit(X[:30])
    axis = np.arange(0, TURN, TURN / 30)
    grid = np.column_stack([each.ravel() for each in np.meshgrid(axis, axis)])
    assert np.exp(model.score_samples(grid)).mean() * TURN**2 == pytest.approx(1, abs=1e-3)


def test_mass_of_a_circle_times_a_line_is_one():
    X, periods = BY_CASE["cylinder"]
    model = SmoothedScoreDiffusion(
        0.35, 0.5, metric="scaled", periods=periods, n_nodes=16, n_levels=32, n_steps=32
    ).fit(X[:30])
    axis, line = np.arange(0, TURN, TURN / 25), np.linspace(-4, 4, 61)
    grid = np.column_stack([each.ravel() for each in np.meshgrid(axis, line)])
    mass = np.exp(model.score_samples(grid)).mean() * TURN * 8 * 61 / 60
    assert mass == pytest.approx(1, abs=1e-3)


@cases
@pytest.mark.parametrize("h", [0.1, 1.0])
def test_without_smoothing_the_model_is_the_wrapped_kde(case, h):
    X, periods = BY_CASE[case]
    h *= 30.0
    Q = queries(X) + [1000 * periods.get(j, 0) for j in range(X.shape[1])]
    expected = wrapped_kde(X, queries(X), periods, [h] * X.shape[1])
    model = SmoothedScoreDiffusion(h, 0.0, periods=periods).fit(X)
    kde = KDESampler(h, periods=periods).fit(X)
    np.testing.assert_allclose(model.score_samples(Q), expected, atol=1e-8)
    np.testing.assert_allclose(kde.score_samples(Q), expected, atol=1e-8)


def test_the_flow_without_smoothing_leads_to_the_wrapped_kde():
    X, periods = BY_CASE["cylinder"]
    # A sigma that is too small to change the result, but not zero: then the flow is run.
    flow = SmoothedScoreDiffusion(0.3, 1e-9, metric="scaled", periods=periods, n_steps=64).fit(X)
    exact = SmoothedScoreDiffusion(0.3, 0.0, metric="scaled", periods=periods).fit(X)
    Q = queries(X)
    # The error of the solver.
    np.testing.assert_allclose(flow.score_samples(Q), exact.score_samples(Q), atol=5e-3)


@pytest.mark.parametrize("case", ["circle", "torus and line"])
def test_left_out_rows_are_scored_as_refits_score_them(case):
    X, periods = BY_CASE[case]
    X = X[:25]
    metric = np.diag([1.0, 2500.0, 1.0][: X.shape[1]])

    def model(n_levels=8):
        return SmoothedScoreDiffusion(
            20.0, 30.0, metric=metric, periods=periods, terminal_scale=200.0,
            **{**FAST, "n_levels": n_levels, "n_steps": 16}
        )  # fmt: skip

    fitted = model().fit(X)
    scores = fitted.leave_one_out_log_density()
    for i in (0, 7, 20):
        point = fitted.points_[i : i + 1]
        rest = np.delete(fitted.points_, i, axis=0)
        alone = model().fit(rest).score_samples(point)
        # Hull coordinates turn a little without the row, and the nodes with them.
        assert scores[i] == pytest.approx(alone[0], abs=1e-3 if case == "circle" else 0.05)


@cases
def test_draws_are_within_one_period_and_follow_the_density(case):
    X, periods = BY_CASE[case]
    model = nothing_chosen(case)
    drawn = model.sample(300, random_state=0)
    for column, period in periods.items():
        assert np.all((drawn[:, column] >= 0) & (drawn[:, column] < period))
    log_density = model.score_samples(drawn)
    wide = KDESampler(0.6, metric="scaled", periods=periods).fit(X)
    ratio = np.exp(wide.score_samples(drawn) - log_density)
    error = ratio.std() / np.sqrt(len(drawn))
    # E_p[q / p] = 1: a false alarm in one of 15 000 runs.
    assert abs(ratio.mean() - 1) < 4 * error + 2e-3


def test_draws_of_hours_have_the_frequencies_of_the_density():
    model = nothing_chosen("circle")
    drawn = model.sample(2000, random_state=3)[:, 0]
    grid = (np.arange(320) + 0.5) * DAY / 320
    masses = np.exp(model.score_samples(grid[:, None])).reshape(16, 20).sum(axis=1)
    counts = np.histogram(drawn, np.linspace(0, DAY, 17))[0]
    expected = 2000 * masses / masses.sum()
    statistic = np.sum((counts - expected) ** 2 / expected)
    # A false alarm in one of 10 000 runs.
    assert statistic < chi2.isf(1e-4, 15)


def test_a_far_larger_period_changes_nothing():
    rng = np.random.RandomState(0)
    X = rng.normal(size=(60, 1)) + 5
    wide = SmoothedScoreDiffusion(
        "0.85h", "1.5h", metric="scaled", background=0.0, periods={0: 1e6}, **FAST
    ).fit(X)
    Q = np.linspace(1, 9, 9)[:, None]
    plain = SmoothedScoreDiffusion("0.85h", "1.5h", metric="scaled", background=0.0, **FAST).fit(X)
    # Relative to the period the spread is 1e-6: so is the change of the circular standard deviation,
    # squared, and the bandwidth is chosen to 0.1 %.
    np.testing.assert_allclose(wide.score_samples(Q), plain.score_samples(Q), atol=2e-3)


def test_midnight_is_no_boundary():
    X = hours(150)
    model = SmoothedScoreDiffusion(periods={0: DAY}).fit(X)
    both = model.score_samples([[23.99], [0.01]])
    assert both[0] == pytest.approx(both[1], abs=0.02)
    # The normal distribution of the rows has -0.919 there.
    np.testing.assert_allclose(both, -0.919, atol=0.15)
    held_out = model.score(hours(200, seed=7))
    assert held_out > -1.50  # the truth has -1.42, a model without periods -1.60
    np.testing.assert_allclose(
        model.score_samples([[24.0], [48.0], [-24.0]]), model.score_samples([[0.0]])[0]
    )


@pytest.mark.parametrize("column", [0, 1])
def test_conditionals_and_marginals_are_integrals_of_the_joint_density(column):
    X, _ = BY_CASE["cylinder"]
    model = nothing_chosen("cylinder")
    Q = X[:3] + [-720.0, 0.0]
    grid = (np.arange(0, TURN, 6.0), np.linspace(-8, 8, 161))[1 - column]
    rows = np.repeat(Q, len(grid), axis=0)
    rows[:, 1 - column] = np.tile(grid, len(Q))
    step = grid[1] - grid[0]
    marginal = np.log(np.exp(model.score_samples(rows)).reshape(3, -1).sum(axis=1) * step)
    found, error = model.score_samples(Q, columns=[column], return_error=True)
    assert error.max() < 0.02
    # The quadrature's tolerance of 0.01.
    np.testing.assert_allclose(found, marginal, atol=0.02)
    given = model.score_samples(Q, given=[column])
    np.testing.assert_allclose(given, model.score_samples(Q) - marginal, atol=0.02)


def test_marginals_of_circles_take_few_draws(monkeypatch):
    """Proposals follow the windows of unrolled columns, so that errors are small after few draws."""
    rng = np.random.RandomState(0)
    X = np.column_stack([rng.vonmises(3.0, 1.0, size=(80, 3)), rng.normal(size=80)])
    periods = dict.fromkeys(range(3), 2 * np.pi)
    model = SmoothedScoreDiffusion(0.4, 0.0, metric="scaled", periods=periods).fit(X)
    n_rows, window = [], JointDensity.log_window

    def counted(self, y, given):
        n_rows.append(len(y))
        return window(self, y, given)

    monkeypatch.setattr(JointDensity, "log_window", counted)
    model.score_samples(X[:10], columns=[3])
    # 64 draws a row are the fewest, and 70 are taken; with images of equal weights it is 1638.
    assert 10 * 64 <= sum(n_rows) <= 10 * 256


def test_conditional_draws_wrap():
    X, _ = BY_CASE["torus and line"]
    model = nothing_chosen("torus and line")
    value = float(X[3, 1])
    drawn = model.sample(40, random_state=0, given={1: value})
    assert np.all(drawn[:, 1] == value)
    assert np.all((drawn[:, [0, 2]] >= 0) & (drawn[:, [0, 2]] < TURN))
    shifted = model.sample(5, random_state=0, given={0: X[0, 0] + TURN})
    same = model.sample(5, random_state=0, given={0: X[0, 0]})
    np.testing.assert_allclose(shifted[:, 1:], same[:, 1:], rtol=1e-6)


def test_draws_of_one_free_column_have_the_frequencies_of_its_density():
    X, _ = BY_CASE["cylinder"]
    model = nothing_chosen("cylinder")
    value = float(X[3, 1])
    drawn = model.sample(2000, random_state=0, given={1: value})[:, 0]
    grid = (np.arange(320) + 0.5) * TURN / 320
    rows = np.column_stack([grid, np.full(320, value)])
    masses = np.exp(model.score_samples(rows)).reshape(8, 40).sum(axis=1)
    counts, expected = np.histogram(drawn, np.linspace(0, TURN, 9))[0], 2000 * masses / masses.sum()
    # A false alarm in one of 10 000 runs.
    assert np.sum((counts - expected) ** 2 / expected) < chi2.isf(1e-4, 7)


@cases
def test_gradients_are_derivatives_of_the_energy(case):
    X, periods = BY_CASE[case]
    model = SmoothedScoreDiffusion(0.4, 0.5, metric="scaled", periods=periods, **FAST).fit(X)
    Q, step = queries(X, 4), 1e-4 * X.std(axis=0)
    gradient = model.grad_log_density(Q)
    for column in range(X.shape[1]):
        move = np.eye(X.shape[1])[column] * step
        difference = model.energy(Q - move) - model.energy(Q + move)
        numerical = difference / (2 * step[column])
        scale = np.abs(gradient[:, column]).max()
        np.testing.assert_allclose(gradient[:, column], numerical, atol=1e-5 * scale)
    sizes = model.effective_sample_size(Q)
    assert np.all((sizes >= 1) & (sizes <= len(X)))
    assert np.all(model.score_variance(Q) > 0)


def test_columns_are_named_by_label():
    X, _ = BY_CASE["cylinder"]
    frame = pd.DataFrame(X, columns=["direction", "speed"])
    by_name = SmoothedScoreDiffusion(0.2, 0.3, metric="scaled", periods={"direction": TURN}, **FAST)
    by_index = SmoothedScoreDiffusion(0.2, 0.3, metric="scaled", periods={0: TURN}, **FAST)
    Q = queries(X)
    frame_queries = pd.DataFrame(Q, columns=frame.columns)
    np.testing.assert_array_equal(
        by_name.fit(frame).score_samples(frame_queries), by_index.fit(X).score_samples(Q)
    )
    np.testing.assert_array_equal(by_name.periods_, [TURN, 0.0])


def test_saved_models_and_devices_give_the_same_results():
    model = nothing_chosen("torus and line")
    Q = queries(BY_CASE["torus and line"][0])
    expected = model.score_samples(Q)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).score_samples(Q), expected)
    model.set_params(memory_limit=16)
    np.testing.assert_allclose(model.score_samples(Q), expected, atol=1e-9)
    X, periods = BY_CASE["torus and line"]
    single = SmoothedScoreDiffusion(
        0.2, 0.5, metric="scaled", background=0.1, periods=periods, dtype="float32", **FAST
    ).fit(X)
    # Rounding in float32.
    np.testing.assert_allclose(single.score_samples(Q), expected, atol=1e-2)


def test_a_constant_periodic_column_changes_only_a_constant():
    X, periods = BY_CASE["cylinder"]
    constant = np.column_stack([X, np.full(len(X), 350.0)])
    with_constant = SmoothedScoreDiffusion(
        0.2, 0.3, metric="scaled", periods={**periods, 2: TURN}, **FAST
    ).fit(constant)
    without = SmoothedScoreDiffusion(0.2, 0.3, metric="scaled", periods=periods, **FAST).fit(X)
    Q = queries(X)
    extended = np.column_stack([Q, np.full(len(Q), 350.0 - TURN)])
    difference = with_constant.score_samples(extended) - without.score_samples(Q)
    np.testing.assert_allclose(difference, difference[0], atol=1e-6)
    np.testing.assert_allclose(with_constant.sample(5, random_state=0)[:, 2], 350.0)


def test_rows_many_periods_away_are_reduced_or_refused():
    model = KDESampler(0.5, periods={0: DAY}).fit(hours())
    far = model.score_samples([[DAY * 2.0**30 + 3.0]])
    # The value itself is rounded by 4e-6.
    np.testing.assert_allclose(far, model.score_samples([[3.0]]), atol=1e-4)
    with pytest.raises(ValueError, match="rounding of"):
        model.score_samples([[1e14]])
    with pytest.raises(ValueError, match="column 'hour' of X holds 1e"):
        KDESampler(0.5, periods={"hour": DAY}).fit(pd.DataFrame({"hour": [1.0, 1e14]}))


WRONG_PERIODS = {
    "zero": ({0: 0.0}, ValueError, r"periods\[0\]=0.0 is out of range"),
    "negative": ({0: -1.0}, ValueError, r"periods\[0\]=-1.0"),
    "nan": ({0: float("nan")}, ValueError, r"periods\[0\]"),
    "text": ({0: "day"}, TypeError, r"periods\[0\]"),
    "unknown column": ({3: 24.0}, ValueError, "periods column 3"),
    "unknown name": ({"hour": 24.0}, ValueError, "periods column 'hour' is a name"),
    "no mapping": ([24.0], TypeError, "expected a mapping from columns"),
}


@pytest.mark.parametrize("wrong", WRONG_PERIODS)
@pytest.mark.parametrize("estimator", [SmoothedScoreDiffusion, KDESampler])
def test_wrong_periods_are_refused_by_name(wrong, estimator):
    periods, error, message = WRONG_PERIODS[wrong]
    with pytest.raises(error, match=message):
        estimator(0.5, periods=periods).fit(hours(10))


UNSUITABLE = {
    "kernel": {"kernel": AnisotropicGaussianKernel("data")},
    "kernel of offsets": {"kernel": OffsetsKernel(np.array([[1.0, 0.0], [-1.0, 0.0]]))},
    "base": {"base": "parzen"},
    "terminal": {"terminal": "gaussian"},
    "metric": {"metric": np.array([[1.0, 0.1], [0.1, 1.0]])},
}


@pytest.mark.parametrize("name", UNSUITABLE)
def test_what_cannot_be_periodic_is_refused_by_name(name):
    X, periods = BY_CASE["cylinder"]
    with pytest.raises(ValueError, match=name.split()[0]):
        SmoothedScoreDiffusion(5.0, 1.0, periods=periods, **UNSUITABLE[name]).fit(X)


def test_compact_kernels_are_refused():
    with pytest.raises(ValueError, match="kernel='tophat' cannot be combined with periods"):
        KDESampler(kernel="tophat", periods={0: DAY}).fit(hours())


def test_kde_conditionals_and_draws_wrap():
    X, periods = BY_CASE["torus and line"]
    bandwidths = np.array([20.0, 0.2, 40.0])
    kde = KDESampler(bandwidths, periods=periods).fit(X)
    Q = queries(X)
    only = wrapped_kde(X[:, :1], Q[:, :1], {0: TURN}, bandwidths[:1])
    np.testing.assert_allclose(
        kde.score_samples(Q, given=[0]), wrapped_kde(X, Q, periods, bandwidths) - only, atol=1e-8
    )
    rest = wrapped_kde(X[:, 1:], Q[:, 1:], {1: TURN}, bandwidths[1:])
    np.testing.assert_allclose(kde.score_samples(Q, columns=[1, 2]), rest, atol=1e-8)
    drawn = kde.sample(500, random_state=0, given={0: -10.0})
    assert np.all(drawn[:, 0] == -10.0)
    assert np.all((drawn[:, 2] >= 0) & (drawn[:, 2] < TURN))
    gradient, step = kde.grad_log_density(Q), 1e-4
    for column in range(3):
        move = step * np.eye(3)[column]
        change = kde.score_samples(Q + move) - kde.score_samples(Q - move)
        np.testing.assert_allclose(gradient[:, column], change / (2 * step), atol=1e-5)


def test_rules_of_thumb_use_circular_deviations():
    narrow = (350 + np.random.RandomState(0).normal(0, 15, size=200)) % TURN
    unrolled = (narrow + 180) % TURN
    wrapped = KDESampler("scott", periods={0: TURN}).fit(narrow[:, None]).bandwidth_
    plain = KDESampler("scott").fit(unrolled[:, None]).bandwidth_
    # The circular standard deviation is that of the wrapped normal distribution.
    np.testing.assert_allclose(wrapped, plain, rtol=0.02)


def test_a_search_keeps_the_periods():
    X = hours(60)
    grid = {"bandwidth_factors": [0.85], "sigma_factors": [0.75, 1.5], "n_refinements": 0}
    estimator = SmoothedScoreDiffusion(metric="scaled", periods={0: DAY}, **FAST)
    search = SmoothedScoreDiffusionCV(estimator, **grid).fit(X)
    moved = SmoothedScoreDiffusionCV(estimator, **grid).fit(X + DAY)
    assert search.best_score_ == pytest.approx(moved.best_score_, abs=1e-6)
    np.testing.assert_allclose(
        search.score_samples([[23.9], [47.9]]), search.score_samples([[-0.1]])[0], rtol=1e-9
    )


def test_six_periodic_columns_are_a_model_like_any_other():
    """At a small noise scale kernels do not wrap, and densities are those without periods."""
    X = np.random.RandomState(0).normal(0, 1, size=(40, 6))
    periods = dict.fromkeys(range(6), 60.0)
    options = {"metric": "scaled", **FAST}
    model = SmoothedScoreDiffusion(0.4, 0.4, periods=periods, **options).fit(X)
    on_line = SmoothedScoreDiffusion(0.4, 0.4, **options).fit(X)
    # Hull coordinates, and so nodes, are others.
    difference = model.score_samples(X[:10] + 120) - on_line.score_samples(X[:10])
    assert np.abs(difference).max() < 0.5
    narrow = dict.fromkeys(range(6), 5.0)
    model = SmoothedScoreDiffusion(0.4, 0.0, periods=narrow, **options).fit(X)
    kde = KDESampler(0.4, metric="scaled", periods=narrow).fit(X)
    np.testing.assert_allclose(model.score_samples(X), kde.score_samples(X), atol=1e-8)
    assert np.all(model.sample(5, random_state=0) < 5)
