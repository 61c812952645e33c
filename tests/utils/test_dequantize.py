"""Left-out rows are scored where their values may have been before they were rounded."""

import warnings

import numpy as np
import pytest

from skdiffsmooth import KDESampler, ManifoldAdaptedDiffusion, SmoothedScoreDiffusion
from skdiffsmooth._utils import dequantize
from skdiffsmooth._utils.column_precision import column_precision
from skdiffsmooth._utils.dequantize import excluded_rows
from skdiffsmooth._utils.rows import merge_duplicates
from skdiffsmooth.compose import DensityClassifier
from skdiffsmooth.model_selection import SmoothedScoreDiffusionCV

pytestmark = pytest.mark.filterwarnings("ignore:these columns of X are not continuous")
SMALL = {"n_nodes": 8, "n_levels": 8, "n_steps": 8}


def counts(seed=0, n=150, mean=1):
    return np.random.RandomState(seed).poisson(mean, size=(n, 1)) * 1.0


def excluded(X, weights=None):
    points, weights = merge_duplicates(X, np.ones(len(X)) if weights is None else weights)
    rows = excluded_rows(points, weights, column_precision(points, weights).width)
    return points, weights, rows


def mixed(seed=0, n=80):
    rng = np.random.RandomState(seed)
    return np.column_stack([rng.normal(size=n), rng.poisson(2, n), rng.normal(size=n).round(1)])


def test_continuous_tables_are_scored_as_they_are():
    X = np.random.RandomState(0).normal(size=(50, 3))
    assert excluded(X)[2] is None
    assert excluded(X.astype(np.float32).astype(float))[2] is None


def test_offsets_are_uniform_within_the_width_of_each_column():
    points, _, rows = excluded(mixed(n=400))
    assert not rows.offsets[:, 0].any()
    for column, width in ((1, 1.0), (2, 0.1)):
        share = np.sort(rows.offsets[:, column] / width + 0.5)
        # Kolmogorov's distance of 800 uniform numbers is below 0.06 but for one seed in a hundred.
        assert np.abs(share - (np.arange(len(share)) + 0.5) / len(share)).max() < 0.06
    assert abs(np.corrcoef(rows.offsets[:, 1:].T)[0, 1]) < 0.12  # 3.4 standard errors
    assert len(rows.point) == len(points)
    assert rows.query_weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("seed", range(3))
def test_offsets_move_with_the_columns(seed):
    X, rng = mixed(seed), np.random.RandomState(seed)
    points, _, rows = excluded(X)
    queries = points[rows.exclude] + rows.offsets
    columns, factors = rng.permutation(3), 2.0 ** rng.randint(-50, 50, size=3)
    moved_points, _, moved = excluded((X * factors)[rng.permutation(len(X))][:, columns])
    found = moved_points[moved.exclude] + moved.offsets
    expected = (queries * factors)[:, columns]
    order, expected_order = np.lexsort(found.T), np.lexsort(expected.T)
    np.testing.assert_array_equal(found[order], expected[expected_order])
    # A constant column, and a copy of a column in another unit, change no offset.
    wider = np.column_stack([X, np.full(len(X), 7.0), 0.5 * X[:, 1] + 3])
    offsets = excluded(wider)[2].offsets
    np.testing.assert_array_equal(offsets[:, :3], rows.offsets)
    # Nor does a mirror image, such as the indicator of the other of two categories.
    mirrored = excluded(np.column_stack([X, 9 - X[:, 1]]))[2].offsets
    order, mirrored_order = np.lexsort(rows.offsets.T), np.lexsort(mirrored[:, :3].T)
    np.testing.assert_array_equal(mirrored[mirrored_order, :3], rows.offsets[order])
    np.testing.assert_array_equal(mirrored[:, 3], -mirrored[:, 1])
    np.testing.assert_array_equal(offsets[:, 4], 0.5 * offsets[:, 1])


def test_one_of_several_equal_rows_is_left_out_where_all_columns_are_discrete():
    points, weights, rows = excluded(counts())
    copies = np.round(weights * 150).astype(int)
    # One training row for the copy that is left out, one for the others.
    np.testing.assert_array_equal(rows.point[: len(points)], np.arange(len(points)))
    np.testing.assert_allclose(rows.weights[: len(points)], np.full(len(points), 1 / 150))
    totals = np.bincount(rows.point, rows.weights)
    np.testing.assert_allclose(totals, weights, rtol=1e-12)
    assert len(rows.point) == len(points) + np.sum(copies > 1)


@pytest.mark.parametrize("mean", [0.5, 1, 3])
@pytest.mark.parametrize("estimator", [KDESampler(), SmoothedScoreDiffusion(**SMALL)])
def test_counts_are_drawn_with_their_standard_deviation(estimator, mean):
    """Leaving out all rows of a value made the standard deviation half as large again."""
    X = counts(mean=mean)
    drawn = estimator.fit(X).sample(4000, random_state=0)
    assert drawn.std() < 1.2 * X.std()
    # The values before rounding have a density without gaps between the integers.
    assert estimator.bandwidth_ > 0.15


@pytest.mark.parametrize(
    "estimator", [SmoothedScoreDiffusion(**SMALL), ManifoldAdaptedDiffusion(**SMALL)]
)
def test_a_thin_column_recorded_to_one_decimal(estimator):
    """The rows before rounding are as likely as under the fit to them, within a nat."""

    def ring(seed, n=80):
        rng = np.random.RandomState(seed)
        angle = rng.uniform(0, 2 * np.pi, n)
        return np.column_stack([10 * np.cos(angle), 10 * np.sin(angle), rng.normal(0, 0.05, n)])

    exact = estimator.fit(ring(0)).score(ring(1))
    assert estimator.fit(ring(0).round(1)).score(ring(1)) > exact - 1


def test_a_dummy_does_not_make_the_bandwidth_of_the_others_collapse():
    rng = np.random.RandomState(0)
    X = np.column_stack([rng.binomial(1, 0.3, 200), rng.normal(size=200)])
    # The best bandwidth of 200 normal rows is 0.35; that of a table of ties was 0.07.
    assert 0.12 < KDESampler().fit(X).bandwidth_ < 0.6


@pytest.mark.parametrize("kernel", ["tophat", "exponential"])
def test_other_kernels_are_wide_enough_too(kernel):
    X = counts()
    kde = KDESampler(kernel=kernel).fit(X)
    assert kde.sample(4000, random_state=0).std() < 1.4 * X.std()
    assert np.all(np.isfinite(kde.score_samples(np.arange(0, 3, 0.1)[:, None])))


def test_integer_weights_are_copies_of_discrete_rows():
    X = counts()
    points, weights = np.unique(X, axis=0, return_counts=True)
    for estimator in (KDESampler(), SmoothedScoreDiffusion(**SMALL)):
        copied = estimator.fit(X).score_samples(X)
        weighted = estimator.fit(points, sample_weight=weights).score_samples(X)
        np.testing.assert_allclose(weighted, copied, rtol=1e-9)  # sums in another order


def test_folds_score_rows_before_rounding():
    X = np.random.RandomState(0).normal(0, 0.3, size=(120, 1)).round(1)
    search = SmoothedScoreDiffusionCV(
        SmoothedScoreDiffusion(n_nodes=4, n_levels=4, n_steps=4), cv=4, n_refinements=1
    ).fit(X)
    # Test rows at the recorded values would reward kernels that are narrower than their distance.
    assert np.hypot(search.bandwidth_, search.sigma_) > 0.03


# What is worth a warning.


@pytest.mark.parametrize(
    "fit",
    [
        KDESampler().fit,
        SmoothedScoreDiffusion(**SMALL).fit,
        SmoothedScoreDiffusionCV(SmoothedScoreDiffusion(**SMALL), n_refinements=0).fit,
        lambda X: DensityClassifier(KDESampler()).fit(X, np.arange(len(X)) % 3),
    ],
    ids=["kde", "smoothed", "search", "classifier"],
)
def test_one_warning_names_the_columns_that_are_not_continuous(fit):
    pd = pytest.importorskip("pandas")
    rng = np.random.RandomState(0)
    frame = pd.DataFrame(
        {
            "children": rng.poisson(1, 90),
            "height": rng.normal(1.7, 0.1, 90).round(2),
            "income": np.where(rng.uniform(size=90) < 0.4, 0, rng.lognormal(size=90)),
            "member": rng.binomial(1, 0.5, 90),
            "age": rng.normal(size=90),
        }
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(frame)
    (text,) = (str(w.message) for w in caught if "not continuous" in str(w.message))
    assert "column 'children': values are multiples of 1" in text
    assert "column 'income': " in text
    assert "% of the rows have the same value" in text
    assert "column 'member': has two values" in text
    # A unit that is small against the standard deviation changes nothing that one would see.
    assert "height" not in text
    assert "age" not in text


def test_continuous_tables_do_not_warn():
    from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine

    rng = np.random.RandomState(0)
    tables = [load().data for load in (load_breast_cancer, load_iris, load_wine)]
    tables += [np.delete(load_diabetes().data, 1, axis=1), rng.standard_cauchy(size=(100, 2))]
    # Copies of rows are no ties of columns.
    tables += [rng.normal(size=(40, 2))[rng.randint(40, size=80)], rng.normal(size=(5, 2))]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for X in tables:
            KDESampler(1.0).fit(X)


def test_a_column_of_large_steps_does_not_widen_the_others():
    """Its unit is 1.7 of its standard deviations, and its bandwidth at least a third of the unit."""
    rng = np.random.RandomState(0)
    X = np.column_stack([rng.normal(size=200), rng.normal(0, 0.05, 200).round(1)])
    model = SmoothedScoreDiffusion(metric="scaled", **SMALL).fit(X)
    # The best bandwidth of 200 normal rows is 0.35.
    assert model.bandwidth_ * model.coordinates_.columns.scales[0] < 0.5
    assert model.bandwidth_ * model.coordinates_.columns.scales[1] > 0.02


# ------------------------------------------------------------------------------ parts, against loops


MASK = 2**64 - 1


def split_mix(key):
    """The generator SplitMix64, in integers of Python."""
    z = (key + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def test_pseudo_random_integers_are_those_of_split_mix():
    # The first numbers of the seed 0, as published with the generator.
    assert split_mix(0) == 0xE220A8397B1DCDAF
    keys = np.array([0, 1, 7, 2**63 + 5, MASK], dtype=np.uint64)
    np.testing.assert_array_equal(dequantize._mixed(keys), [split_mix(int(key)) for key in keys])


def test_ranks_are_counted_from_the_end_whose_hash_is_smaller():
    ranks = np.array([[0, 3, 0], [1, 0, 0], [2, 1, 0], [2, 2, 0]])
    found, signs = dequantize._oriented(ranks)
    for column, sign, oriented in zip(ranks.T, signs, found.T, strict=True):
        opposite = column.max() - column
        keys = [sum(split_mix(int(r)) for r in each) & MASK for each in (column, opposite)]
        assert sign == (-1.0 if keys[1] < keys[0] else 1.0)
        np.testing.assert_array_equal(oriented, opposite if sign < 0 else column)
    # Both ends of columns without ties, and of constants, have the same sum.
    assert signs[1:].tolist() == [1, 1]
    mirrored, of_mirror = dequantize._oriented(ranks.max(axis=0) - ranks)
    np.testing.assert_array_equal(mirrored[:, [0, 2]], found[:, [0, 2]])
    assert of_mirror[0] == -signs[0]


def test_offsets_against_a_loop_over_integers():
    points = np.array([[0.0, 5.0, 1.0], [2.0, 5.0, 3.0], [1.0, 5.0, 3.0], [7.0, 5.0, 1.0]])
    widths, query, number = (
        np.array([1.0, 0.0, 0.5]),
        np.array([0, 0, 2, 3]),
        np.array([0, 9, 1, 2]),
    )
    ranks = np.array([[0, 0, 0], [2, 0, 1], [1, 0, 1], [3, 0, 0]])
    ranks, signs = dequantize._oriented(ranks)
    hashed = [[split_mix(int(r)) for r in row] for row in ranks]
    keys = [split_mix(sum(row[j] for row in hashed) & MASK) for j in range(3)]
    found = dequantize._random_offsets(points, widths, query, number)
    for i, (q, n) in enumerate(zip(query, number, strict=True)):
        row_key = sum(split_mix((hashed[q][j] + keys[j]) & MASK) for j in (0, 2)) & MASK
        draw_key = split_mix((row_key + int(n) * 0x9E3779B97F4A7C15) & MASK)
        for j in (0, 2):
            bits = split_mix((draw_key + keys[j] + hashed[q][j]) & MASK)
            expected = (bits / 2**64 - 0.5) * signs[j] * widths[j]
            assert found[i, j] == pytest.approx(expected, abs=1e-15)
    np.testing.assert_array_equal(found[:, 1], 0)


def test_equal_rows_before_each_row():
    points = np.array([[1.0], [0.0], [1.0], [1.0], [0.0], [2.0]])
    np.testing.assert_array_equal(dequantize._occurrence(points), [0, 0, 1, 2, 1, 0])


def test_copies_of_rows_count_where_all_columns_are_discrete():
    points, weights = np.array([[0.0, 7.0], [1.0, 7.0], [3.0, 7.0]]), np.array([0.2, 0.2, 0.6])
    for widths, copies in (([1.0, 0.0], [1, 1, 3]), ([1.0, 1.0], [1, 1, 3]), ([0.0, 1.0], [1] * 3)):
        found = dequantize._copies(points, weights, np.array(widths))
        np.testing.assert_array_equal(found, copies)


def test_rows_before_rounding():
    points, weights = np.array([[0.0], [1.0], [3.0]]), np.array([0.2, 0.2, 0.6])
    found, row = dequantize.dequantized(points, weights, np.zeros(1))
    assert found is points
    np.testing.assert_array_equal(row, [0, 1, 2])
    two = np.column_stack([points, [0.3, 0.1, 0.7]])
    found, row = dequantize.dequantized(two, weights, np.array([0.5, 0.0]))
    np.testing.assert_array_equal(row, [0, 1, 2])
    np.testing.assert_array_equal((found != two).any(axis=0), [True, False])
    found, row = dequantize.dequantized(points, weights, np.array([0.5]))
    np.testing.assert_array_equal(row, [0, 1, 2, 2, 2])
    offsets = found - points[row]
    assert np.all((np.abs(offsets) <= 0.25) & (offsets != 0))
    assert len(np.unique(offsets)) == 5
    number = np.array([0, 0, 0, 1, 2])
    np.testing.assert_allclose(
        offsets, dequantize._random_offsets(points, np.array([0.5]), row, number), atol=1e-15
    )


def test_queries_of_left_out_rows():
    """512 offsets of all rows together, at least one of each; weights are shared among them."""
    points, weights = np.array([[0.0], [1.0], [3.0]]), np.array([0.2, 0.2, 0.6])
    assert excluded_rows(points, weights, None) is None
    assert excluded_rows(points, weights, np.zeros(1)) is None
    rows = excluded_rows(points, weights, np.array([1.0]))
    np.testing.assert_array_equal(rows.point, [0, 1, 2, 2])
    np.testing.assert_allclose(rows.weights, [0.2, 0.2, 0.2, 0.4])
    n_draws = [103, 103, 308]  # 102.4 and 307.2, rounded up
    np.testing.assert_array_equal(rows.exclude, np.repeat([0, 1, 2], n_draws))
    np.testing.assert_allclose(rows.query_weights, np.repeat(weights / n_draws, n_draws))
    number = np.concatenate([np.arange(n) for n in n_draws])
    expected = dequantize._random_offsets(points, np.array([1.0]), rows.exclude, number)
    np.testing.assert_array_equal(rows.offsets, expected)
    # Equal rows, which folds may hold, get numbers beyond all those before.
    twice = excluded_rows(np.repeat(points, 2, axis=0), np.repeat(weights / 2, 2), np.array([1.0]))
    assert len(np.unique(twice.offsets)) == len(twice.offsets)
    assert (
        len(excluded_rows(points, np.array([1e-9, 1e-9, 1 - 2e-9]), np.array([1.0])).exclude) == 514
    )
