"""The estimated error of the nodes, against loops over levels and rows with fields in closed form."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from skdiffsmooth._utils.backend import Backend
from skdiffsmooth._utils.shards import ONE_PROCESS
from skdiffsmooth.kernels._node_error import checked_rows, divergence_shifts, node_error
from skdiffsmooth.kernels._nodes import NodeRule
from skdiffsmooth.noise import NoiseLevels

POINTS = np.random.default_rng(0).normal(size=(30, 2)) * [3.0, 1.0]


class Field:
    """The score -x / (1 + v) and its divergence, times a factor, with a term of fourth order."""

    def __init__(self, factor, more):
        self.factor, self.more = factor, more

    def with_divergence(self, x, v):
        divergence = -2 * self.factor / (1 + v) + self.more * x[:, 0] ** 2 / v
        return -self.factor * x / (1 + v), divergence


def schedule(points=POINTS, n_levels=3, factor=1.0, more=0.0, n_nodes=8, base=None):
    return SimpleNamespace(
        levels=NoiseLevels(0.5, 4.0, n_levels),
        hierarchy=SimpleNamespace(points=points),
        shards=ONE_PROCESS,
        base=base,
        memory_limit=64.0,
        backend=Backend.from_params("cpu", "float64"),
        smoothing=SimpleNamespace(n_nodes=n_nodes),
        at=lambda level: Field(factor + 0.01 * level, more),
    )


def in_order(points, n):
    """At most n rows at equal steps of the order of the first coordinate."""
    order = points[:, 0].argsort()
    index = np.linspace(0, len(points) - 1, min(n, len(points)))
    return points[order[index.astype(int)]]


@pytest.mark.parametrize(("n", "n_rows"), [(30, 16), (5, 5), (1, 1)])
def test_rows_and_their_noise(n, n_rows):
    rows, noise = checked_rows(schedule(POINTS[:n]))
    np.testing.assert_array_equal(rows, in_order(POINTS[:n], 16))
    np.testing.assert_array_equal(noise, np.random.default_rng(0).standard_normal((n_rows, 2)))
    assert len(checked_rows(schedule(POINTS[:n]), 3)[0]) == min(n, 3)


def test_over_a_base_rows_are_moved_by_the_distance_of_the_nearest_row():
    rows, noise = checked_rows(schedule(base="base"))
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(noise, rng.standard_normal((16, 2)))
    before = in_order(POINTS, 16)
    distances = np.sort(np.linalg.norm(before[:, None] - POINTS, axis=2), axis=1)[:, 1]
    moves = distances[:, None] / math.sqrt(2) * rng.standard_normal((16, 2))
    np.testing.assert_allclose(rows, before + moves)
    # A single row has no other.
    np.testing.assert_array_equal(checked_rows(schedule(POINTS[:1], base="base"))[0], POINTS[:1])
    two = checked_rows(schedule(POINTS[:2], base="base"))[0]
    assert (two != in_order(POINTS[:2], 2)).all()


@pytest.mark.parametrize(
    ("n_levels", "checked"),
    [(1, [0]), (3, [0, 1, 2]), (8, range(8)), (20, [0, 2, 5, 8, 10, 13, 16, 19])],
)
def test_the_error_is_the_root_mean_square_over_rows_of_the_sum_over_levels(n_levels, checked):
    one, other = schedule(n_levels=n_levels), schedule(n_levels=n_levels, factor=1.3, more=0.2)
    rows, noise = checked_rows(one)
    width = math.log(8.0) / n_levels
    squares = np.zeros(16)
    for level in checked:
        scale = 0.5 * math.exp((level + 0.5) * width)
        v = scale**2
        for i in range(16):
            x = torch.tensor(rows[i : i + 1] + scale * noise[i])
            s, div = one.at(level).with_divergence(x, v)
            finer_s, finer_div = other.at(level).with_divergence(x, v)
            change = float(div - finer_div) + float(((s - finer_s) * s).sum())
            squares[i] += (width * v * change) ** 2
    expected = math.sqrt(squares.mean() * n_levels / len(list(checked)))
    assert node_error(one, other) == pytest.approx(expected)
    assert node_error(one, one) == 0.0


@pytest.mark.parametrize("n", [5, 100])
def test_shifts_are_mean_differences_of_divergences(n):
    points = np.random.default_rng(1).normal(size=(n, 2))
    made = []

    def make(rule, exclude):
        made.append((rule, exclude))
        return schedule(points, factor=1.0 + 0.1 * rule.seed, more=0.3 * (rule.seed > 4))

    rule = NodeRule("sobol", 16, 4)
    shifts = divergence_shifts(make, rule, points)
    # Six times the number of nodes that there are, 8, and another scrambling.
    assert [each for each, _ in made] == [rule, NodeRule("sobol", 48, 5)]
    index = made[0][1]
    assert made[1][1] is index
    np.testing.assert_array_equal(points[index], in_order(points, 64))
    rng = np.random.default_rng(0)
    for level in range(3):
        scale = 0.5 * 8 ** ((level + 0.5) / 3)
        x = torch.tensor(points[index] + scale * rng.standard_normal((len(index), 2)))
        coarse = Field(1.4 + 0.01 * level, 0.0).with_divergence(x, scale**2)[1]
        fine = Field(1.5 + 0.01 * level, 0.3).with_divergence(x, scale**2)[1]
        assert shifts[level] == pytest.approx(scale**2 * float((fine - coarse).mean()))
    assert len(shifts) == 3
