"""Tests of the t distribution in the background: its fit, its weight, and the bound on log-densities."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import trapezoid
from scipy.stats import cauchy, kstest, multivariate_t

from skdiffsmooth import SmoothedScoreDiffusion
from skdiffsmooth._coordinates.embedding import Embedding
from skdiffsmooth._coordinates.hull import AffineHull
from skdiffsmooth._coordinates.metric import fit_metric
from skdiffsmooth._diffusion import geometry
from skdiffsmooth._diffusion.background import choose_tail
from skdiffsmooth._diffusion.tails import StudentT, fit_student_t
from skdiffsmooth._utils.shards import ONE_PROCESS

RNG = np.random.RandomState(0)
MIXING = np.array([[1.0, 0.5, 0.0], [0.0, 0.3, 0.1], [0.0, 0.0, 4.0]])
ROWS = RNG.standard_t(3, size=(60, 3)) @ MIXING + 5
WEIGHTS = RNG.dirichlet(np.full(60, 5.0))
COARSE = {"n_nodes": 8, "n_levels": 4, "n_steps": 4}


def fitted(points, weights, degrees=(1.0, 2.0, 4.0, 8.0)):
    """Return hull coordinates of points and the t distributions fitted to them, by degrees."""
    metric = fit_metric("euclidean", points, weights)
    embedding = Embedding(metric, AffineHull.of(points))
    coordinates, _ = embedding.split(points)
    students = fit_student_t(coordinates, weights, embedding, degrees, ONE_PROCESS)
    return coordinates, {student.degrees: student for student in students}


def test_its_log_density_is_that_of_scipy_outside_the_hull_too():
    factor = np.array([[2.0, 0.0], [0.5, 0.1]])
    student = StudentT(np.array([1.0, 2.0]), factor, 3.0, residual_scale=0.5, codimension=1)
    scatter = np.zeros((3, 3))
    scatter[:2, :2], scatter[2, 2] = factor @ factor.T, 0.25
    rows = RNG.normal(size=(5, 3)) * [1, 1, 10]
    expected = multivariate_t([1, 2, 0], scatter, df=3).logpdf(rows)
    residual = rows * [0, 0, 1]
    assert_allclose(student.log_density(rows[:, :2], residual), expected, rtol=1e-12)
    # Squares of such rows overflow.
    assert student.log_density(np.full((1, 2), 1e200))[0] > -3000


@pytest.mark.parametrize("degrees", [1.0, 4.0])
def test_its_parameters_have_the_highest_likelihood(degrees):
    points, students = fitted(ROWS, WEIGHTS, (degrees,))
    student = students[degrees]
    best = WEIGHTS @ student.log_density(points)
    for step in 0.05 * RNG.normal(size=(20, 3)):
        moved = StudentT(student.center + step, student.factor, degrees)
        assert WEIGHTS @ moved.log_density(points) < best
        turned = StudentT(student.center, student.factor @ (np.eye(3) + np.diag(step)), degrees)
        assert WEIGHTS @ turned.log_density(points) < best


def test_it_is_the_same_in_other_units_and_directions():
    A = RNG.normal(size=(3, 3)) @ np.diag([1e-3, 1.0, 1e4])
    here, students = fitted(ROWS, WEIGHTS)
    there, moved = fitted(ROWS @ A.T, WEIGHTS)
    for nu, student in students.items():
        # Twenty iterations of EM, from the same start in exact arithmetic; A loses eight digits.
        expected = student.distances(here)
        assert_allclose(moved[nu].distances(there), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("n_points", [60, 12])
def test_excluded_rows_are_those_of_one_step_without_them(n_points):
    weights = WEIGHTS[:n_points] / WEIGHTS[:n_points].sum()
    points, students = fitted(ROWS[:n_points], weights)
    student = students[4.0]
    # Twelve rows are too few for a covariance.
    assert student.n_pooled == (3 if n_points == 12 else 0)
    v = weights.copy()
    if not student.n_pooled:
        v *= 1 / (4 + student.distances(points) ** 2)
    excluded = student.leave_one_out_log_density(points, weights)
    for i in range(0, n_points, 5):
        others = np.delete(np.arange(n_points), i)
        rows, v_others = points[others], v[others] / v[others].sum()
        mean = v_others @ rows
        scatter = (v_others[:, None] * (rows - mean)).T @ (rows - mean)
        if student.n_pooled:
            scatter = np.trace(scatter) / 3 * np.eye(3)
        expected = multivariate_t(mean, scatter, df=4).logpdf(points[i])
        # The fit itself is twenty steps from its maximum.
        assert_allclose(excluded[i], expected, atol=1e-4)


def test_few_rows_that_span_their_hull_by_chance_do_not_look_likely_when_they_are_left_out():
    # New rows are outside the hull of five: with the scales of the others in all twelve dimensions
    # an excluded row has the log-density of new ones. The difference is that of five rows to a mean.
    rows = np.random.RandomState(0).normal(size=(105, 12))
    metric = fit_metric("euclidean", rows[:5], np.full(5, 0.2))
    embedding = Embedding(metric, AffineHull.of(rows[:5]))
    points, _ = embedding.split(rows[:5])
    for student in fit_student_t(points, np.full(5, 0.2), embedding, (1.0, 8.0), ONE_PROCESS):
        excluded = student.leave_one_out_log_density(points, np.full(5, 0.2)).mean()
        assert abs(excluded - student.log_density(*embedding.split(rows[5:])).mean()) < 2.5


def test_a_rare_indicator_does_not_narrow_it():
    rows = np.column_stack([RNG.normal(size=100), RNG.uniform(size=100) < 0.04])
    weights = np.full(100, 0.01)
    _, students = fitted(rows, weights)
    for student in students.values():
        assert np.diag(student.factor).min() > 0.1


def test_the_tail_of_highest_likelihood_is_chosen():
    """Beside a model of half of the rows: the other half alone is worse than both halves, less high."""
    students = [StudentT(np.zeros(2), np.eye(2), degrees) for degrees in (4.0, 8.0)]
    first, weights = np.arange(200) < 100, np.full(200, 0.005)
    log_densities = np.column_stack([np.full(200, -0.5), np.where(first, -100.0, 0.0)])
    kdes = np.column_stack([np.where(first, 0.0, -100.0), np.full(200, -100.0)])
    for order in ([0, 1], [1, 0]):
        tail = choose_tail(
            [students[k] for k in order], log_densities[:, order], kdes, np.ones((200, 2)), weights
        )
        assert tail.student is students[0]


TABLES = {
    "normal": RNG.normal(size=(60, 2)),
    "cauchy": RNG.standard_cauchy(size=(60, 1)),
    "a constant": np.column_stack([RNG.normal(size=(60, 2)), np.ones(60)]),
    "a sum": np.column_stack([ROWS[:, :2], ROWS[:, :2].sum(axis=1)]),
    "few rows": RNG.normal(size=(5, 12)),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("metric", ["euclidean", "whitened"])
def test_log_densities_of_far_rows_have_a_logarithmic_bound(name, metric):
    X = TABLES[name]
    d = X.shape[1]
    model = SmoothedScoreDiffusion(0.5, 0.3, metric=metric, background=0.02, **COARSE).fit(X)
    bound = model.tail_bound_
    directions = np.vstack([np.eye(d), np.random.RandomState(1).normal(size=(5, d))])
    for distance in (10.0, 1e3, 1e6):
        far = X.mean(axis=0) + X.std(axis=0).max() * distance * directions
        log_density = model.score_samples(far)
        R = bound.distances(far)
        assert np.all(log_density >= -bound.constant - (bound.degrees + d) * np.log1p(R))
        # A bound that is met by being far too low says nothing.
        # Rows that break a relation have a billionth of the weight, 21 nats.
        assert bound.constant < 12 + 4 * d + 21 * bool(model.coordinates_.columns.n_relations)


def test_a_row_off_a_relation_costs_some_tens_of_nats_and_is_not_drawn():
    rows = np.random.RandomState(0).normal(size=(100, 3)) * [1.0, 1e3, 0.0] + [0.0, 0.0, 1.0]
    model = SmoothedScoreDiffusion(0.3, 0.0, metric="scaled", background=0.02, **COARSE).fit(rows)
    off = rows[:5] + [0.0, 0.0, 1.0]
    # A weight of 1e-12 and a t distribution of three columns, one of them a thousand wide. In the width
    # of the relation alone, rounding of the column, it would be some 1e23.
    assert np.all(model.score_samples(off) > -46)
    # Draws satisfy the relation all the same, from the background too.
    assert np.abs(model.sample(2000, random_state=0)[:, 2] - 1).max() < 1e-10


def test_density_and_draws_with_heavy_tails_are_of_one_distribution():
    X = np.random.RandomState(0).standard_cauchy(size=(80, 1))
    model = SmoothedScoreDiffusion(0.5, 0.0, background=0.5).fit(X)
    # In t with x = sinh(t) the tails are exponential; 1e-6 of the mass is beyond.
    t = np.linspace(-17, 17, 6001)
    density = np.exp(model.score_samples(np.sinh(t)[:, None])) * np.cosh(t)
    assert trapezoid(density, t) == pytest.approx(1, abs=1e-4)  # of the grid
    cumulated = np.r_[0, np.cumsum(np.diff(t) * (density[1:] + density[:-1]) / 2)]
    draws = model.sample(2000, random_state=0)[:, 0]
    # Fails one seed in ten thousand.
    result = kstest(draws, lambda x: np.interp(np.arcsinh(x), t, cumulated / cumulated[-1]))
    assert result.pvalue > 1e-4


def test_defaults_follow_the_tails_of_the_data():
    rng = np.random.RandomState(0)
    train, test = rng.standard_cauchy(size=(80, 1)), rng.standard_cauchy(size=(1000, 1))
    model = SmoothedScoreDiffusion(metric="scaled").fit(train)
    assert model.score(test) > cauchy.logpdf(test).mean() - 0.1
    assert model.tail_bound_.degrees <= 2
    # Where the column is mapped first, its tails are light. Over twelve seeds the mean is .07 below.
    assert SmoothedScoreDiffusion().fit(train).score(test) > cauchy.logpdf(test).mean() - 0.15
    # Without evidence the tail is the lightest one, whose draws have a variance.
    assert SmoothedScoreDiffusion().fit(rng.normal(size=(80, 1))).tail_bound_.degrees == 8
    assert SmoothedScoreDiffusion(background=0).fit(train).tail_bound_ is None


@pytest.mark.parametrize("seed", range(2))
def test_a_sharp_peak_is_no_heavy_tail(seed):
    # Bounded rows with a sharp peak, for which one degree of freedom is likeliest.
    X = np.random.RandomState(seed).uniform(-1, 1, size=(100, 2)) ** 5
    model = SmoothedScoreDiffusion(metric="scaled").fit(X)
    assert model.tail_bound_.degrees > 2
    # The standard error is some 4 %, and smoothing widens rows by a few percent.
    assert_allclose(model.sample(2000, random_state=0).std(axis=0), X.std(axis=0), rtol=0.25)


def test_tails_that_are_not_fitted_would_not_be_chosen(monkeypatch):
    """In several columns a tail without a variance is never chosen, however heavy those of the data."""
    X = np.random.RandomState(0).standard_t(1.5, size=(120, 3))
    model = SmoothedScoreDiffusion(metric="scaled").fit(X)
    monkeypatch.setattr(geometry, "WITHOUT_VARIANCE", 0.0)
    all_of_them = SmoothedScoreDiffusion(metric="scaled").fit(X)
    assert model.settings_ == all_of_them.settings_
    np.testing.assert_array_equal(model.score_samples(X), all_of_them.score_samples(X))


def test_its_peak_has_the_volume_of_all_directions():
    factor = np.diag([2.0, 0.5])
    student = StudentT(np.zeros(2), factor, 3.0, 0.25, codimension=2, periods=(4.0, 10.0))
    assert student.dimension == 4
    peak = multivariate_t(np.zeros(4), np.diag([4.0, 0.25, 1 / 16, 1 / 16]), df=3).logpdf(
        np.zeros(4)
    )
    assert student.log_peak == pytest.approx(peak - np.log(40.0))
    # Positions on circles count for nothing.
    rows = np.array([[1.0, 2.0, 3.0, -1.0], [1.0, 2.0, 0.0, 0.0]])
    residual = np.zeros((2, 4))
    assert np.ptp(student.log_density(rows, residual)) == 0
    assert_allclose(student.distances(rows, residual), np.sqrt(0.25 + 16))
    assert_allclose(student.distances(rows), np.sqrt(0.25 + 16))
    residual[1] = 0.5
    assert_allclose(student.distances(rows, residual)[1], np.sqrt(0.25 + 16 + 16))
    nothing = StudentT(np.zeros(2), factor, 3.0, 0.25)
    assert_allclose(nothing.distances(rows, residual), np.sqrt(0.25 + 16))
    assert (StudentT(np.ones(2), factor, 3.0).distances(np.ones((3, 2))) == 0).all()


def test_its_draws_have_its_scales_and_are_uniform_on_circles():
    factor = np.array([[2.0, 0.0], [0.5, 0.1]])
    student = StudentT(np.array([5.0, 7.0]), factor, 6.0, 0.25, 1, periods=(4.0,))
    rows, scales = student.draw(20_000, np.random.RandomState(0))
    assert rows.shape == (20_000, 3)
    # The variance is that of the scale matrix times nu / (nu - 2).
    assert_allclose(np.cov(rows[:, :2].T), 1.5 * factor @ factor.T, rtol=0.05)
    assert_allclose(rows[:, :2].mean(axis=0), [5.0, 7.0], atol=0.05)
    assert kstest(rows[:, 2] / 4 + 0.5, "uniform").pvalue > 1e-3
    assert np.mean(scales**2) == pytest.approx(0.25**2 * 1.5, rel=0.05)
    # Rows and their residuals are stretched together.
    far = np.abs((rows[:, 0] - 5) / 2) > 5
    assert scales[far].mean() > 2 * scales.mean()


def test_pooled_scales_of_few_rows_and_of_one():
    weights = np.array([0.1, 0.2, 0.3, 0.4])
    rows = RNG.normal(size=(4, 2)) * [1.0, 3.0]
    points, students = fitted(rows, weights, (4.0, 1.0))
    assert list(students) == [1.0, 4.0]  # the smallest first
    scale = np.sqrt(weights @ (points - weights @ points) ** 2 @ [0.5, 0.5])
    for student in students.values():
        assert (student.n_pooled, student.codimension) == (2, 0)
        assert_allclose(student.center, weights @ points)
        assert_allclose(student.factor, scale * np.eye(2))
        assert student.residual_scale == pytest.approx(scale)
    # p + 1 rows: the same scale within their hull and outside, over all columns.
    rows = np.column_stack([rows[:3], np.zeros(3)])
    points, students = fitted(rows, np.full(3, 1 / 3), (4.0,))
    scale = np.sqrt(points.var(axis=0).sum() / 3)
    assert (students[4.0].n_pooled, students[4.0].codimension) == (3, 1)
    assert_allclose(students[4.0].factor, scale * np.eye(2))
    assert students[4.0].residual_scale == pytest.approx(scale)
    _, students = fitted(rows[:1], np.ones(1), (4.0,))
    assert students[4.0].n_pooled == 3
    assert students[4.0].factor.shape == (0, 0)


@pytest.mark.parametrize(("n_points", "is_fitted"), [(10, False), (11, True)])
def test_a_scale_matrix_takes_more_than_five_rows_a_dimension(n_points, is_fitted):
    weights = np.full(n_points, 1 / n_points)
    _, students = fitted(ROWS[:n_points, :2], weights, (4.0,))
    assert (students[4.0].n_pooled == 0) == is_fitted


def test_directions_without_extent_are_given_the_common_scale():
    """With few degrees of freedom half of the rows on a line would narrow it to nothing."""
    rng = np.random.RandomState(0)
    rows = rng.normal(size=(60, 2))
    rows[:45, 1] = 1e-9 * rows[:45, 0]
    weights = np.full(60, 1 / 60)
    _, students = fitted(rows, weights, (1.0, 2.0, 4.0))
    assert list(fitted(ROWS, WEIGHTS)[1]) == [1.0, 2.0, 4.0, 8.0]  # the heaviest first
    narrow = [np.diag(each.factor).min() for each in students.values()]
    assert min(narrow) > 1e-4
    # A constant coordinate has no scale matrix, and the others have their own variance.
    metric = fit_metric("euclidean", rows, weights)
    embedding = Embedding(metric, AffineHull.of(rows))
    flat = np.column_stack([rows[:, 0], np.zeros(60)])
    (student,) = fit_student_t(flat, weights, embedding, (4.0,), ONE_PROCESS)
    assert student.n_pooled == 2
    assert_allclose(student.factor, rows[:, 0].std() / np.sqrt(2) * np.eye(2))


def test_coordinates_on_circles_are_uniform():
    weights = np.full(60, 1 / 60)
    metric = fit_metric("euclidean", ROWS, weights)
    embedding = Embedding(metric, AffineHull.of(ROWS))
    points, _ = embedding.split(ROWS)
    linear = fit_student_t(points[:, :2], weights, embedding, (2.0, 4.0), ONE_PROCESS)
    with_circle = fit_student_t(points, weights, embedding, (2.0, 4.0), ONE_PROCESS, (9.0,))
    for alone, both in zip(linear, with_circle, strict=True):
        assert both.periods == (9.0,)
        expected = alone.log_density(points[:, :2]) - np.log(9.0)
        assert_allclose(both.log_density(points), expected)
    # Circles only: one distribution.
    (only,) = fit_student_t(points, weights, embedding, (2.0, 4.0), ONE_PROCESS, (9.0, 8.0, 7.0))
    assert only.degrees == 4.0
    assert_allclose(only.log_density(points), -np.log(9 * 8 * 7))
    assert only.residual_scale == embedding.residual_scale(9.0)


def test_the_bound_of_a_model_is_its_peak_and_weight():
    model = SmoothedScoreDiffusion(0.5, 0.3, metric="euclidean", background=0.1, **COARSE).fit(ROWS)
    bound = model.tail_bound_
    heavy = min(0.1 * model.model_.tail.weight, 0.081)
    assert bound.weight == pytest.approx(max(heavy, 0.005))
    assert bound.degrees == bound.student.degrees
    assert bound.constant == pytest.approx(-np.log(bound.weight) - bound.student.log_peak)
    expected = bound.student.distances(*model.model_.embedding.split(ROWS))
    assert_allclose(bound.distances(ROWS.tolist()), expected)
