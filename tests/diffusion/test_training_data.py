"""Training rows as a value: parts of a table, their weights, dimensions and periodic columns."""

import numpy as np
import pytest
from likelihood_problems import rows_of
from numpy.testing import assert_allclose

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(12, 3)) * [1.0, 10.0, 0.1]


@pytest.mark.parametrize(("n", "rank"), [(1, 0), (2, 1), (3, 2), (4, 3), (12, 3)])
def test_the_dimension_of_the_rows(n, rank):
    assert rows_of(ROWS[:n]).rank == rank


def test_relations_and_periods_have_no_dimension_of_their_own():
    related = np.column_stack([ROWS, ROWS.sum(axis=1)])
    assert rows_of(related).rank == 3
    angles = np.column_stack([ROWS, RNG.uniform(0, 0.5, 12)])
    data = rows_of(angles, periods=np.array([0.0, 0.0, 0.0, 0.5]))
    assert data.rank == 3
    assert data.periodic_for("euclidean").is_periodic.tolist() == [False, False, False, True]
    assert data.has_circles
    assert (data.linear.points == ROWS).all()
    assert data.linear.periods is None
    only = rows_of(angles[:, 3:], periods=np.array([6.0]))
    assert only.rank == 0
    assert not only.has_circles  # a single column has a single metric
    assert rows_of(angles[:, 2:], periods=np.array([0.0, 6.0])).has_circles
    both = np.column_stack([angles[:, 3], RNG.uniform(0, 6, 12)])
    assert rows_of(both, periods=np.array([6.0, 6.0])).has_circles
    assert not rows_of(ROWS).has_circles


def test_a_constant_periodic_column_is_a_relation_except_in_a_single_row():
    angles = np.column_stack([ROWS[:, 0], np.ones(12)])
    periods = np.array([0.0, 6.0])
    data = rows_of(angles, periods=periods)
    assert data.linear.points.shape == (12, 2)
    assert data.rank == 1
    single = rows_of(angles[:1], periods=periods)
    assert single.linear.points.shape == (1, 1)
    # Of a part of a table it is the table that decides.
    varied = angles.copy()
    varied[0, 1] = 2.0
    part = rows_of(varied, periods=periods).with_rows(varied[1:], np.ones(11))
    assert part.linear.points.shape == (11, 1)
    # Metrics in units of X have all periodic columns as coordinates of their own.
    assert data.periodic_for("euclidean").is_periodic.tolist() == [False, True]
    assert data.periodic_for("scaled") is data.periodic
    assert rows_of(ROWS).periodic_for("euclidean") is None


def test_other_rows_of_the_table_have_weights_of_sum_one_and_its_scales():
    whole = rows_of(ROWS, widths=np.array([0.1, 0.0, 0.0]))
    part = whole.with_rows(ROWS[:4] * 2, np.array([1.0, 2.0, 3.0, 4.0]))
    assert_allclose(part.weights, [0.1, 0.2, 0.3, 0.4])
    assert (part.n_samples, part.is_weighted, part.table) == (4, True, whole)
    assert (part.widths == whole.widths).all()
    again = part.with_rows(ROWS[:2], np.ones(2))
    assert again.table is whole
    assert again.columns_for("euclidean") is None
    assert whole.columns_for("euclidean") is None
    assert whole.columns_for(0.5) is whole.columns


def test_relations_of_a_part_are_those_of_the_table():
    related = np.column_stack([ROWS, ROWS.sum(axis=1)])
    whole = rows_of(related)
    part = whole.with_rows(related[:2], np.ones(2))
    assert rows_of(related[:2]).columns.n_relations > 1
    assert part.columns.n_relations == part.columns_for("scaled").n_relations == 1
    assert part.rank == 1


def test_columns_of_a_mask_keep_their_units_and_widths():
    whole = rows_of(ROWS, units=np.array([1.0, 2.0, 3.0]), widths=np.array([0.1, 0.2, 0.3]))
    kept = whole.only(np.array([True, False, True]))
    assert (kept.points == ROWS[:, [0, 2]]).all()
    assert kept.units.tolist() == [1.0, 3.0]
    assert kept.widths.tolist() == [0.1, 0.3]
    none = rows_of(ROWS).only(np.array([True, False, True]))
    assert none.units is None
    assert none.widths is None
    assert none.columns.scales.shape == (2,)
    assert rows_of(np.empty((1, 0))).columns.n_features == 0


def test_rows_taken_evenly_are_sorted_and_from_all_distances():
    data = rows_of(ROWS)
    assert data.evenly(12).tolist() == data.evenly(99).tolist() == list(range(12))
    taken = data.evenly(4)
    assert len(taken) == 4
    assert (np.diff(taken) > 0).all()
    place = np.argsort(data.columns.order(ROWS))[taken]
    # One of each third of the order by distance from the center, and its ends.
    assert sorted(place) == pytest.approx([0, 11 / 3, 22 / 3, 11], abs=1.0)
    assert len(data.evenly(11)) == 11


def test_rounded_columns_are_scored_within_their_intervals():
    counts = np.round(ROWS[:, :1] * 3)
    points = np.unique(counts, axis=0)
    data = rows_of(points, widths=np.array([1.0]))
    assert data.excluded is not None
    assert np.abs(data.excluded.offsets).max() <= 0.5
    assert rows_of(points).excluded is None


def test_maps_are_of_the_columns_that_need_one_and_have_no_period():
    skewed = np.column_stack([np.exp(2 * RNG.normal(size=40)), RNG.uniform(0, 6, 40)])
    data = rows_of(skewed, periods=np.array([0.0, 6.0]))
    assert data.warped_columns.warp is not None
    assert data.warped_columns.n_features == 2
    assert data.columns_for("scaled").warp is None
    light = rows_of(
        np.column_stack([RNG.uniform(size=40), skewed[:, 1]]), periods=np.array([0.0, 6.0])
    )
    assert light.linear.warped_columns is light.warped_columns is None
