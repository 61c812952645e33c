"""Left-out rows are scored where their values may have been before they were rounded."""

import warnings

import numpy as np
import pytest

from skdiffsmooth import KDESampler, ManifoldAdaptedDiffusion, SmoothedScoreDiffusion
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
