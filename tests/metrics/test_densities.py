"""Metrics of two samples as laws: distances, tests, fidelity. And of densities and score fields."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.stats import special_ortho_group
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth.metrics import _pairs as pairs_module
from skdiffsmooth.metrics import (
    classifier_two_sample_test,
    energy_distance,
    fidelity_and_diversity,
    fisher_divergence,
    frechet_distance,
    maximum_mean_discrepancy,
    regular_grid,
    renyi_divergence,
    sliced_wasserstein_distance,
    two_sample_test,
)


def rows(n, d, seed=0):
    return np.random.RandomState(seed).normal(size=(n, d))


@pytest.fixture(params=["one tile", "many tiles"])
def tile_size(request, monkeypatch):
    if request.param == "many tiles":
        monkeypatch.setattr(pairs_module, "MEMORY_LIMIT", 2**-9)


DISTANCES = {
    "energy": energy_distance,
    "sliced": lambda X, Y: sliced_wasserstein_distance(X, Y, n_projections=20, random_state=1),
    "sliced, p=1": lambda X, Y: sliced_wasserstein_distance(
        X, Y, p=1, n_projections=20, random_state=1
    ),
    "frechet": frechet_distance,
}
# Under a scaling of the rows by s, distances scale by s to this power.
POWER = {"energy": 0.5}


@pytest.mark.parametrize("name", DISTANCES)
@given(seed=st.integers(0, 10_000), d=st.integers(1, 4), scale=st.floats(1e-2, 1e2))
@settings(max_examples=25, deadline=None)
def test_laws_of_distances(name, seed, d, scale):
    """A metric on laws: zero, symmetry, the triangle; order of rows and shifts do not count.

    1e-6: roots of what rounding leaves of squares of some units.
    """
    distance = DISTANCES[name]
    X, Y, Z = rows(9, d, seed), 1 + rows(12, d, seed + 1), 2 * rows(7, d, seed + 2)
    xy, yz, xz = distance(X, Y), distance(Y, Z), distance(X, Z)
    shuffled = np.random.RandomState(seed).permutation(X)
    assert distance(shuffled, X) == pytest.approx(0, abs=1e-6)
    assert distance(Y, X) == pytest.approx(xy, abs=1e-6)
    assert xz <= xy + yz + 1e-6
    assert distance(shuffled + 10, Y + 10) == pytest.approx(xy, abs=1e-6)
    power = POWER.get(name, 1.0)
    assert distance(scale * X, scale * Y) == pytest.approx(scale**power * xy, rel=1e-6)
    if not name.startswith("sliced"):  # whose directions are drawn, and do not turn
        turn = special_ortho_group.rvs(d, random_state=seed) if d > 1 else np.array([[-1.0]])
        assert distance(X @ turn, Y @ turn) == pytest.approx(xy, abs=1e-6)


# --- Energy distance and kernel discrepancy ---


def slow_pair_mean(X, Y, k, skip_self=False):
    total, n = 0.0, 0
    for i, x in enumerate(X):
        for j, y in enumerate(Y):
            if not (skip_self and i == j):
                total += k(math.dist(x, y))
                n += 1
    return total / n


@pytest.mark.parametrize("d", [2, 40])
def test_statistics_against_loops(d, tile_size):
    X, Y = rows(15, d), rows(20, d, seed=1) + 0.3

    def distance(u):
        return u

    square = (
        2 * slow_pair_mean(X, Y, distance)
        - slow_pair_mean(X, X, distance)
        - slow_pair_mean(Y, Y, distance)
    )
    assert energy_distance(X, Y) == pytest.approx(math.sqrt(square), rel=1e-9)
    profiles = {
        "gaussian": lambda u: math.exp(-(u**2) / (2 * 1.7**2)),
        "laplace": lambda u: math.exp(-u / 1.7),
    }
    for kernel, k in profiles.items():
        expected = (
            slow_pair_mean(X, X, k, skip_self=True)
            + slow_pair_mean(Y, Y, k, skip_self=True)
            - 2 * slow_pair_mean(X, Y, k)
        )
        found = maximum_mean_discrepancy(X, Y, kernel=kernel, bandwidth=1.7)
        assert found == pytest.approx(expected, abs=1e-12)


def test_energy_distance_on_a_line_is_scipys():
    x, y = np.random.RandomState(0).normal(size=30), np.random.RandomState(1).uniform(size=40)
    expected = stats.energy_distance(x, y)
    assert energy_distance(x[:, None], y[:, None]) == pytest.approx(expected, rel=1e-9)


def test_the_discrepancy_is_unbiased():
    """Mean of 2000 pairs of samples of one law, and of N(0, 1) against N(1, 1), in closed form.

    Within four standard errors, so that correct code fails one such test in 16 000.
    """
    rng = np.random.RandomState(0)
    for shift in (0.0, 1.0):
        found = [
            maximum_mean_discrepancy(
                rng.normal(size=(5, 1)), rng.normal(shift, size=(7, 1)), bandwidth=1
            )
            for _ in range(2000)
        ]
        # X - Y is N(shift, 2), and k is a Gaussian of variance one.
        expected = 2 / math.sqrt(3) * (1 - math.exp(-(shift**2) / 6))
        assert np.mean(found) == pytest.approx(expected, abs=4 * np.std(found) / math.sqrt(2000))


def test_the_median_bandwidth():
    X, Y = rows(15, 2), rows(20, 2, seed=1)
    pooled = np.concatenate([X, Y])
    median = np.median(cdist(pooled, pooled)[np.triu_indices(35, 1)])
    expected = maximum_mean_discrepancy(X, Y, bandwidth=median)
    assert maximum_mean_discrepancy(X, Y) == pytest.approx(expected, rel=1e-12)
    # Of many rows some are taken, the same whichever sample they are in.
    many, other = rows(1500, 2), 3 + rows(900, 2, seed=1)
    everything = np.random.RandomState(0).permutation(np.concatenate([many, other]))
    from skdiffsmooth.metrics._two_sample import _median_distance

    taken = _median_distance(everything)
    assert taken == _median_distance(np.concatenate([many, other]))
    full = np.median(cdist(everything, everything)[np.triu_indices(2400, 1)])
    assert taken == pytest.approx(full, rel=0.01)


# --- Tests ---


@pytest.mark.parametrize("given", [{"statistic": "energy"}, {"statistic": "mmd", "bandwidth": 0.8}])
def test_permutations_against_a_loop(given, tile_size):
    """Each permuted statistic is that of the rows with these labels."""
    X, Y = rows(6, 2), rows(9, 2, seed=1)
    found = two_sample_test(X, Y, n_permutations=20, random_state=3, **given)
    pooled = np.concatenate([X, Y])
    generator = np.random.RandomState(3)
    expected = []
    for _ in range(20):
        order = generator.permutation(15)
        pair = pooled[np.sort(order[:6])], pooled[np.sort(order[6:])]
        expected.append(
            energy_distance(*pair)
            if given["statistic"] == "energy"
            else maximum_mean_discrepancy(*pair, bandwidth=0.8)
        )
    assert_allclose(found.permuted, expected, rtol=1e-9)
    own = energy_distance if given["statistic"] == "energy" else maximum_mean_discrepancy
    kwargs = {} if given["statistic"] == "energy" else {"bandwidth": 0.8}
    assert found.statistic == pytest.approx(own(X, Y, **kwargs), rel=1e-12)
    assert found.p_value == (1 + np.sum(found.permuted >= found.statistic)) / 21


def test_equal_rows_are_never_rejected():
    """All permutations tie, up to rounding: a p-value below one would be made of rounding."""
    X = np.repeat(rows(1, 3), 8, axis=0) * np.pi
    for statistic in ("energy", "mmd"):
        given = {"bandwidth": 1.0, "statistic": statistic}
        assert two_sample_test(X, X[:5], random_state=0, **given).p_value == 1
    # Two values: there are few different statistics, each met by many permutations.
    binary = np.array([[0.1]] * 7 + [[0.7]] * 6)
    found = two_sample_test(binary[:6], binary[6:], random_state=0, n_permutations=2000)
    # Six of seven 0.1s in X: of C(13, 6) = 1716 ways 7 are as extreme; so is the other end, 0 and 6: 1.
    assert found.p_value == pytest.approx(8 / 1716, abs=4 * math.sqrt(8 / 1716 / 2000))


@pytest.mark.parametrize("statistic", ["energy", "mmd"])
def test_exchanged_samples_tie(statistic):
    """Two rows far from two others: of six ways to deal them, this one and its mirror image are extreme.

    In floating point the image may come out below. 999 permutations, five standard errors of 1/3.
    """
    for seed in range(10):
        X, Y = rows(2, 3, seed), 10 + rows(2, 3, seed + 100)
        p = two_sample_test(X, Y, statistic, bandwidth=3.0, random_state=0).p_value
        assert p == pytest.approx(1 / 3, abs=5 * math.sqrt(2 / 9 / 999))


def test_the_same_seed_gives_the_same_test():
    X, Y = rows(20, 2), rows(20, 2, seed=1)
    first, second = (two_sample_test(X, Y, n_permutations=50, random_state=5) for _ in range(2))
    assert_array_equal(first.permuted, second.permuted)
    # More permutations begin with the same ones.
    more = two_sample_test(X, Y, n_permutations=70, random_state=5)
    assert_allclose(more.permuted[:50], first.permuted, rtol=1e-9)


def rejections(test, shift, n_repeats, seed):
    rng = np.random.RandomState(seed)
    return [
        test(rng.normal(size=(20, 2)), rng.normal(size=(25, 2)) + shift, rng)
        for _ in range(n_repeats)
    ]


TESTS = {
    "energy": lambda X, Y, rng: two_sample_test(X, Y, n_permutations=99, random_state=rng).p_value,
    "mmd": lambda X, Y, rng: (
        two_sample_test(X, Y, "mmd", n_permutations=99, random_state=rng).p_value
    ),
    "classifier": lambda X, Y, rng: (
        classifier_two_sample_test(X, Y, KNeighborsClassifier(3), random_state=rng).p_value
    ),
    "classifier, 2 folds": lambda X, Y, rng: (
        classifier_two_sample_test(
            X, Y, GaussianNB(), cv=2, n_permutations=19, random_state=rng
        ).p_value
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TESTS)
def test_p_values_under_the_null(name):
    """P(p <= t) is at most t, and for the statistics without ties t itself: 600 repeats, 60 where
    classifiers are fitted many times.

    Four standard errors at each of five levels: correct code fails in about one run of 6000.
    """
    n_repeats = 60 if "folds" in name else 600
    p = np.array(rejections(TESTS[name], 0.0, n_repeats, seed=0))
    for level in (0.05, 0.1, 0.25, 0.5, 0.75):
        allowed = 4 * math.sqrt(level * (1 - level) / n_repeats)
        assert np.mean(p <= level) <= level + allowed
        if name in ("energy", "mmd"):
            assert np.mean(p <= level) >= level - allowed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "least"),
    [("energy", 0.95), ("mmd", 0.95), ("classifier", 0.5), ("classifier, 2 folds", 0.9)],
)
def test_power_against_a_shift(name, least):
    """A shift by 1.2 in both columns, at level 0.05; a t-test along the shift has a power above 0.99."""
    p = np.array(rejections(TESTS[name], 1.2, 20, seed=1))
    assert np.mean(p <= 0.05) >= least


def test_the_classifier_test_is_fishers():
    """One split: the table of names against samples, counted here again."""
    X, Y = rows(31, 2), rows(24, 2, seed=1) + 0.5
    pooled, is_x = np.concatenate([X, Y]), np.repeat([1, 0], [31, 24])
    cv = StratifiedKFold(2, shuffle=True, random_state=4)
    found = classifier_two_sample_test(X, Y, LogisticRegression(), cv=cv, n_permutations=1)
    one_split = [next(iter(cv.split(pooled, is_x)))]
    single = classifier_two_sample_test(X, Y, LogisticRegression(), cv=one_split)
    p_values = []
    for (train, test), accuracy in zip(cv.split(pooled, is_x), found.accuracies, strict=True):
        named = LogisticRegression().fit(pooled[train], is_x[train]).predict(pooled[test])
        truth = is_x[test]
        table = [[np.sum((named == a) & (truth == b)) for b in (1, 0)] for a in (1, 0)]
        p_values.append(stats.fisher_exact(table, alternative="greater").pvalue)
        rates = [table[0][0] / np.sum(truth == 1), table[1][1] / np.sum(truth == 0)]
        assert accuracy == pytest.approx(np.mean(rates))
    assert single.p_value == pytest.approx(p_values[0])
    assert single.accuracy == found.accuracies[0]
    assert found.accuracy == pytest.approx(found.accuracies.mean())


def test_what_a_classifier_sees():
    """Everything where laws do not overlap; nothing of scales, if it is linear."""
    X = rows(100, 2)
    apart = classifier_two_sample_test(X, X + 100, random_state=0)
    assert apart.accuracy == 1
    assert apart.p_value < 1e-28  # of C(100, 50) = 1e29 tables one
    linear, neighbors = (
        classifier_two_sample_test(X, 4 * rows(100, 2, seed=1), model, random_state=0)
        for model in (LogisticRegression(), None)
    )
    assert linear.p_value > 0.01 > 1e-4 > neighbors.p_value
    folds = classifier_two_sample_test(
        X, X + 100, GaussianNB(), cv=2, n_permutations=9, random_state=0
    )
    assert (folds.accuracy, folds.p_value) == (1, 1 / 10)
    # One split by default, in halves.
    assert len(neighbors.accuracies) == 1
    with pytest.raises(ValueError, match="holds out 34 rows of X and 0 of Y"):
        classifier_two_sample_test(X, X, cv=KFold(6))


# --- Sliced Wasserstein ---


@pytest.mark.parametrize("p", [1, 2, 3.5])
@pytest.mark.parametrize(("n", "m"), [(20, 20), (20, 30), (7, 12), (1, 5)])
def test_wasserstein_on_a_line(n, m, p):
    """Copies of both samples until they are equally many, then optimal assignment."""
    rng = np.random.RandomState(0)
    X, Y = rng.normal(size=(n, 1)), rng.exponential(size=(m, 1))
    size = math.lcm(n, m)
    x, y = np.repeat(X, size // n, axis=0), np.repeat(Y, size // m, axis=0)
    costs = cdist(x, y) ** p
    expected = costs[linear_sum_assignment(costs)].mean() ** (1 / p)
    found = sliced_wasserstein_distance(X, Y, p=p)
    assert found == pytest.approx(expected, rel=1e-12)
    if p == 1:
        assert found == pytest.approx(stats.wasserstein_distance(X[:, 0], Y[:, 0]))


def test_slices_average_over_all_directions(monkeypatch):
    """In the plane, against directions that are evenly spread: 2000 drawn ones, five standard errors."""
    X, Y = rows(30, 2), rows(40, 2, seed=1) * [3, 1]
    angles = np.linspace(0, np.pi, 400, endpoint=False)
    per_angle = np.array(
        [
            sliced_wasserstein_distance((X @ u)[:, None], (Y @ u)[:, None]) ** 2
            for u in np.column_stack([np.cos(angles), np.sin(angles)])
        ]
    )
    found = sliced_wasserstein_distance(X, Y, n_projections=2000, random_state=0)
    assert found**2 == pytest.approx(per_angle.mean(), abs=5 * per_angle.std() / math.sqrt(2000))
    from skdiffsmooth.metrics import _wasserstein

    monkeypatch.setattr(_wasserstein, "MEMORY_LIMIT", 2**-6)
    again = sliced_wasserstein_distance(X, Y, n_projections=2000, random_state=0)
    assert again == pytest.approx(found, rel=1e-12)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_slices_of_a_shift(d):
    """Directions in whole bases have no error: |t| / sqrt(d), at any size of the numbers."""
    X, t = rows(30, d), np.arange(1.0, d + 1)
    for scale in (1e-100, 1.0, 1e140):
        found = sliced_wasserstein_distance(scale * X, scale * (X + t), n_projections=10 * d)
        assert found == pytest.approx(scale * np.linalg.norm(t) / math.sqrt(d), rel=1e-9)


@pytest.mark.parametrize("scale", [1e-140, 1e140])
def test_powers_that_are_no_numbers(scale):
    X = rows(9, 1)
    found = sliced_wasserstein_distance(scale * X, scale * (X + 3), p=4)
    assert found == pytest.approx(3 * scale, rel=1e-12)


def test_fewer_directions_than_columns():
    """The squared length of a projection is |t|^2 / d on average: 500 seeds, four standard errors."""
    t = np.arange(1.0, 6.0)
    squares = [
        sliced_wasserstein_distance([np.zeros(5)], [t], n_projections=3, random_state=seed) ** 2
        for seed in range(500)
    ]
    assert np.mean(squares) == pytest.approx(t @ t / 5, abs=4 * np.std(squares) / math.sqrt(500))


# --- Fidelity ---


def slow_fidelity(X, Y, k):
    def radius(Z, i):
        return sorted(math.dist(Z[i], Z[j]) for j in range(len(Z)) if j != i)[k - 1]

    around_x = [radius(X, i) for i in range(len(X))]
    around_y = [radius(Y, j) for j in range(len(Y))]
    in_y = np.array([[math.dist(x, y) <= r for y, r in zip(Y, around_y, strict=True)] for x in X])
    in_x = np.array([[math.dist(x, y) <= r for y in Y] for x, r in zip(X, around_x, strict=True)])
    return [in_y.any(1).mean(), in_x.any(0).mean(), in_y.sum(1).mean() / k, in_y.any(0).mean()]


@pytest.mark.parametrize(("d", "k"), [(2, 1), (2, 5), (40, 3)])
def test_fidelity_against_loops(d, k, tile_size):
    X, Y = rows(25, d), rows(30, d, seed=1) + 0.5
    found = fidelity_and_diversity(X, Y, n_neighbors=k)
    expected = slow_fidelity(X.tolist(), Y.tolist(), k)
    assert_allclose(list(vars(found).values()), expected, rtol=1e-12)


@pytest.mark.parametrize("d", [2, 40])
def test_fidelity_of_copies(d):
    """All are perfect: each ball holds its centre and its K neighbours, the last on the border."""
    X = rows(50, d)
    found = fidelity_and_diversity(np.random.RandomState(0).permutation(X), X, n_neighbors=4)
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)
    assert found.density == pytest.approx(5 / 4)


def test_fidelity_of_two_samples_of_one_law():
    """Density one, and coverage 1 - 2^-K (Naeem et al., lemma 2): 400 rows, 20 pairs."""
    rng = np.random.RandomState(0)
    found = [
        fidelity_and_diversity(rng.normal(size=(400, 3)), rng.normal(size=(400, 3)), n_neighbors=3)
        for _ in range(20)
    ]
    # Standard errors from the pairs themselves; five of them.
    for name, expected in (("density", 1.0), ("coverage", 1 - 2**-3)):
        values = [getattr(one, name) for one in found]
        assert np.mean(values) == pytest.approx(expected, abs=5 * np.std(values) / math.sqrt(20))


def test_a_missing_mode_costs_recall_and_a_wrong_one_precision():
    one, two = rows(60, 2), np.concatenate([rows(60, 2, seed=1), 50 + rows(60, 2, seed=2)])
    missing = fidelity_and_diversity(one, two)
    assert missing.precision > 0.9
    assert missing.recall < 0.55
    assert missing.coverage < 0.55
    wrong = fidelity_and_diversity(two, one)
    assert wrong.precision < 0.55
    assert wrong.density < 0.7
    assert wrong.recall > 0.9


# --- Frechet distance ---


@pytest.mark.parametrize(
    ("n", "m", "d"), [(50, 40, 3), (5, 4, 10), (4, 60, 10), (60, 4, 10), (2, 2, 3)]
)
def test_frechet_against_matrix_roots(n, m, d):
    X, Y = rows(n, d) * np.geomspace(1, 3, d), rows(m, d, seed=1) + 0.5
    first, second = (np.cov(Z.T).reshape(d, d) for Z in (X, Y))

    def eigen(matrix):
        """Those that a matrix of lower rank has by rounding are zero."""
        values, vectors = np.linalg.eigh(matrix)
        return np.where(values > 1e-12 * values.max(), values, 0), vectors

    values, vectors = eigen(first)
    root = vectors @ np.diag(np.sqrt(values)) @ vectors.T
    cross = np.sqrt(eigen(root @ second @ root)[0]).sum()
    square = np.sum((X.mean(0) - Y.mean(0)) ** 2) + np.trace(first + second) - 2 * cross
    # What the oracle takes for rounding, 1e-12, has a root of 1e-6.
    assert frechet_distance(X, Y) == pytest.approx(math.sqrt(square), rel=1e-6)


def test_frechet_in_closed_form():
    """Commuting covariances: |m|^2 + sum (a_j - b_j)^2 of the standard deviations."""
    corners = np.array(np.meshgrid(*[[-1.0, 1.0]] * 3)).reshape(3, -1).T * math.sqrt(7 / 8)
    X, Y = corners * [1, 2, 3], corners * [2, 2, 0] + [0, 4, 0]
    assert frechet_distance(X, Y) == pytest.approx(math.sqrt(16 + 1 + 9), rel=1e-9)
    assert frechet_distance(1e140 * X, 1e140 * Y) == pytest.approx(1e140 * math.sqrt(26), rel=1e-9)


def test_frechet_sees_two_moments_only():
    X = np.concatenate([rows(200, 2), 6 + rows(200, 2, seed=1)])
    Z = rows(400, 2, seed=2)
    Z = (Z - Z.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(Z.T))).T
    same_moments = Z @ np.linalg.cholesky(np.cov(X.T)).T + X.mean(0)
    assert frechet_distance(same_moments, X) < 1e-5
    assert two_sample_test(same_moments, X, random_state=0).p_value == 0.001


# --- Renyi divergences ---


def normal_divergence(m, s, t, order):
    """Of N(m, s^2) from N(0, t^2): van Erven & Harremoes, eq. 10; Gil et al. 2013."""
    if order == 1:
        return math.log(t / s) + (s**2 + m**2) / (2 * t**2) - 0.5
    v = order * t**2 + (1 - order) * s**2
    return order * m**2 / (2 * v) + math.log(v / (s ** (2 - 2 * order) * t ** (2 * order))) / (
        2 * (1 - order)
    )


ORDERS = (0.3, 0.5, 1.0, 1.5, 2.0)


@pytest.mark.parametrize("order", ORDERS)
def test_divergences_on_a_grid(order):
    grid = regular_grid(-15, 15, 3000)
    p, q = (stats.norm(m, s).logpdf(grid.points[:, 0]) for m, s in ((0.7, 0.9), (0, 1.2)))
    found = renyi_divergence(p, q, order, volume=grid.volume)
    # The rule of midpoints is exact for what is analytic and decays.
    assert found.value == pytest.approx(normal_divergence(0.7, 0.9, 1.2, order), rel=1e-9)
    assert found.standard_error == 0
    volumes = np.full(3000, grid.volume)
    assert renyi_divergence(p, q, order, volume=volumes).value == found.value


def test_divergences_in_the_plane_add_up():
    grid = regular_grid([-9, -12], [11, 12], 200)
    p = stats.norm(1, 1).logpdf(grid.points[:, 0]) + stats.norm(0, 1.2).logpdf(grid.points[:, 1])
    q = stats.norm(0, 1).logpdf(grid.points[:, 0]) + stats.norm(0, 1).logpdf(grid.points[:, 1])
    expected = normal_divergence(1, 1, 1, 2.0) + normal_divergence(0, 1.2, 1, 2.0)
    found = renyi_divergence(p, q, 2.0, volume=grid.volume)
    assert found.value == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("proposal", [None, stats.norm(0.5, 1.3)])
def test_divergences_from_draws(order, proposal):
    """500 estimates of 400 draws: mean and spread as they say, within some standard errors of both.

    The bias of the logarithm is below a tenth of a standard error here; 4.5 of 500 are 0.2 of one.
    """
    rng = np.random.RandomState(0)
    p, q = stats.norm(0.7, 0.9), stats.norm(0, 1.2)
    law = proposal or p
    found = []
    for _ in range(500):
        x = law.rvs(400, random_state=rng)
        log_proposal = None if proposal is None else proposal.logpdf(x)
        found.append(renyi_divergence(p.logpdf(x), q.logpdf(x), order, log_proposal=log_proposal))
    values, errors = np.array([(one.value, one.standard_error) for one in found]).T
    expected = normal_divergence(0.7, 0.9, 1.2, order)
    assert values.mean() == pytest.approx(expected, abs=0.3 * values.std())
    assert errors.mean() == pytest.approx(values.std(), rel=0.2)
    z = np.abs(values - expected) / errors
    assert np.mean(z < 2) > 0.9


def test_errors_of_a_mean_of_log_ratios():
    p, q = rows(2, 50)
    found = renyi_divergence(p, q)
    assert found.value == pytest.approx(np.mean(p - q))
    assert found.standard_error == pytest.approx(np.std(p - q, ddof=1) / math.sqrt(50))
    assert found.effective_sample_size == pytest.approx(50)


def test_a_poor_proposal_is_seen_in_the_effective_sample_size():
    x = np.random.RandomState(0).normal(size=1000)
    p, q = stats.norm(3, 0.5).logpdf(x), stats.norm(3.2, 0.5).logpdf(x)
    found = renyi_divergence(p, q, log_proposal=stats.norm.logpdf(x))
    assert found.effective_sample_size < 20
    weights = np.exp(p - stats.norm.logpdf(x))
    expected = weights.sum() ** 2 / np.sum(weights**2)
    assert found.effective_sample_size == pytest.approx(expected)
    assert renyi_divergence(x, q).effective_sample_size == pytest.approx(1000)


@given(
    log_p=st.lists(st.floats(-3, 3), min_size=5, max_size=5),
    log_q=st.lists(st.floats(-3, 3), min_size=5, max_size=5),
)
@settings(max_examples=50, deadline=None)
def test_laws_of_divergences(log_p, log_q):
    """On five cells: zero of itself, not negative, growing with the order, skew symmetric."""
    p, q = (np.array(z) - np.log(np.sum(np.exp(z))) for z in (log_p, log_q))
    values = [renyi_divergence(p, q, order, volume=1.0).value for order in ORDERS]
    assert all(value >= -1e-12 for value in values)
    assert np.all(np.diff(values) >= -1e-12)
    for order in ORDERS:
        assert renyi_divergence(p, p, order, volume=1.0).value == pytest.approx(0, abs=1e-12)
    # a / (1 - a) D_{1-a}(q||p) = D_a(p||q)
    other = renyi_divergence(q, p, 0.7, volume=1.0).value
    assert values[0] == pytest.approx(0.3 / 0.7 * other, abs=1e-12)
    # The limit at one.
    near = renyi_divergence(p, q, 1 + 1e-6, volume=1.0).value
    assert near == pytest.approx(values[2], abs=1e-4)


def test_where_densities_are_zero():
    none = -np.inf
    half, p, q = math.log(0.5), [math.log(0.5)] * 2 + [none], [none] + [math.log(0.5)] * 2
    assert renyi_divergence(p, q, 1.0, volume=1.0).value == math.inf
    assert renyi_divergence(p, q, 2.0, volume=1.0).value == math.inf
    # (1/2)^a (1/2)^(1-a) in the one cell that they share
    assert renyi_divergence(p, q, 0.5, volume=1.0).value == pytest.approx(math.log(2) / 0.5)
    assert renyi_divergence([0.0, none], [none, 0.0], 0.5, volume=1.0).value == math.inf
    # Where p is zero q does not matter.
    found = renyi_divergence([0.0, none], [half, half], 2.0, volume=1.0)
    assert found.value == pytest.approx(math.log(2))


def test_mass_on_the_grid_is_checked():
    grid = regular_grid(-1, 1, 100)
    p = stats.norm.logpdf(grid.points[:, 0])
    with pytest.warns(UserWarning, match=r"p has mass 0\.6827"):
        renyi_divergence(p, p, volume=grid.volume)
    wide = regular_grid(-9, 9, 500)
    p = stats.norm.logpdf(wide.points[:, 0])
    with pytest.warns(UserWarning, match="q has 2"):
        renyi_divergence(p, p + math.log(2), volume=wide.volume)


@pytest.mark.parametrize(
    ("args", "given", "match"),
    [
        (([0.0, np.nan], [0.0, 0.0]), {}, "log_p holds 1 values"),
        (([0.0, 0.0], [0.0, np.inf]), {}, "log_q holds 1 values"),
        (([0.0, 0.0], [0.0]), {}, "log_q has 1 values; expected 2"),
        (([[0.0]], [0.0]), {}, r"shape \(1, 1\)"),
        (([0.0], [0.0]), {}, "two draws"),
        (([-np.inf, 0.0], [0.0, 0.0]), {}, "log_p is -infinity at 1 points"),
        (([0.0, 0.0], [0.0, 0.0]), {"log_proposal": [0.0]}, "log_proposal has 1 values"),
        (([0.0, 0.0], [0.0, 0.0]), {"log_proposal": [0.0, -np.inf]}, "log_proposal is -infinity"),
        (([0.0, 0.0], [0.0, 0.0]), {"volume": -1.0}, "volume"),
        (([0.0, 0.0], [0.0, 0.0]), {"volume": [1.0] * 3}, r"shape \(3,\)"),
        (([0.0, 0.0], [0.0, 0.0]), {"volume": 1.0, "log_proposal": [0.0] * 2}, "both passed"),
        (([0.0, 0.0], [0.0, 0.0], 0.0), {}, "order=0.0"),
    ],
)
def test_log_densities_that_do_not_fit(args, given, match):
    with pytest.raises(ValueError, match=match):
        renyi_divergence(*args, **given)


@pytest.mark.parametrize(
    ("low", "high", "match"),
    [(0, 0, "no box"), ([0, 1], [1], "shape"), (0, np.inf, "no box"), (1, 0, "no box")],
)
def test_boxes_that_are_none(low, high, match):
    with pytest.raises(ValueError, match=match):
        regular_grid(low, high)


# --- Score fields ---


def test_fisher_divergence_of_gaussians():
    """E |x (1/b^2 - 1)|^2 over N(0, I) in the plane: 2 (1/b^2 - 1)^2. 500 estimates of 100 rows."""
    rng = np.random.RandomState(0)
    found = [
        fisher_divergence(rng.normal(size=(100, 2)), lambda x: -x, lambda x: -x / 4)
        for _ in range(500)
    ]
    values, errors = np.array([(one.value, one.standard_error) for one in found]).T
    expected = 2 * (1 / 4 - 1) ** 2
    assert values.mean() == pytest.approx(expected, abs=4 * values.std() / math.sqrt(500))
    assert errors.mean() == pytest.approx(values.std(), rel=0.1)


def test_fisher_divergence_of_estimators():
    X = pd.DataFrame(rows(40, 2), columns=["a", "b"])
    narrow, wide = KDESampler(0.5).fit(X), KDESampler(0.6).fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of columns that have lost their names
        found = fisher_divergence(X, narrow, wide)
    gap = narrow.grad_log_density(X) - wide.grad_log_density(X)
    assert found.value == pytest.approx(np.mean(np.sum(gap**2, axis=1)))
    terms = np.sum(gap**2, axis=1)
    assert found.effective_sample_size == pytest.approx(terms.sum() ** 2 / np.sum(terms**2))
    # A KDE is the smoothed score at sigma = 0, also at other noise.
    model = SmoothedScoreDiffusion(0.5, 0.0).fit(X)
    assert fisher_divergence(X, narrow, model).value < 1e-20
    at_noise = fisher_divergence(X, lambda x: model.grad_log_density(X, t=0.36), wide)
    assert at_noise.value < 1e-20


def test_equal_fields_are_at_no_distance():
    found = fisher_divergence(rows(10, 2), lambda x: -x, lambda x: -x)
    assert (found.value, found.standard_error, found.effective_sample_size) == (0, 0, 10)
    assert float(found) == 0


@pytest.mark.parametrize(
    ("score", "error", "match"),
    [
        (lambda x: x[:, 0], ValueError, "score_q answered rows of shape"),
        (lambda x: x * np.nan, ValueError, "20 values that are not finite"),
        (3.0, TypeError, "score_q=3.0 is no score field"),
        (lambda x: "a", ValueError, "score_q"),
    ],
)
def test_fields_that_do_not_fit(score, error, match):
    with pytest.raises(error, match=match):
        fisher_divergence(rows(10, 2), lambda x: -x, score)


def test_a_field_cannot_change_the_rows():
    def greedy(x):
        x *= 0
        return x

    X = rows(10, 2)
    expected = np.mean(np.sum(X**2, axis=1))
    assert fisher_divergence(X, greedy, lambda x: -x).value == pytest.approx(expected)
