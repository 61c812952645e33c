"""Tests of the learned kernel: its field and divergence, its cells, and the density of its flow.

The slow twin is the formula of the field in torch, differentiated automatically.
"""

import math

import numpy as np
import oracles
import pytest
import torch
from scipy import stats

from skdiffsmooth._coordinates.hull import AffineHull
from skdiffsmooth._engine.hierarchy import PointHierarchy
from skdiffsmooth._engine.moments import Nodes
from skdiffsmooth._engine.posterior import Posterior
from skdiffsmooth._utils.backend import Backend
from skdiffsmooth.kernels._cells import Cells, default_n_cells
from skdiffsmooth.kernels._gated import GatedKernel, GatedScore, GatedShape
from skdiffsmooth.kernels._nodes import NodeRule, default_n_nodes
from skdiffsmooth.noise import NoiseLevels
from skdiffsmooth.scores import ScoreSchedule, SmoothedScore
from skdiffsmooth.solvers import Heun, solve
from skdiffsmooth.solvers._flow import flow_log_density
from skdiffsmooth.solvers._terminal import EmpiricalTerminal

CPU = Backend.from_params("cpu", "float64")


def curve(n, d=3, seed=0):
    """Asymmetric rows near a curve in hull coordinates, with unequal weights."""
    rng = np.random.RandomState(seed)
    t = rng.gamma(3.0, size=n)
    X = np.column_stack([t, np.sin(2 * t), 0.3 * np.cos(t), *rng.normal(size=(2, n))])[:, :d]
    weights = rng.uniform(0.2, 1, n)
    points, _ = AffineHull.of(X).split(X)
    return points, weights / weights.sum()


def field(points, weights, cells, sigma=0.4, n_nodes=8, backend=CPU, level=2, exclude=None):
    posterior = Posterior(
        backend.tensor(points),
        backend.tensor(np.log(weights)),
        memory_limit=64,
        radius=float(np.linalg.norm(points, axis=1).max()),
    )
    return frozen(sigma, cells, n_nodes).field(level, posterior, backend, exclude)


def frozen(sigma, cells, n_nodes, n_levels=32):
    return GatedKernel(cells, np.full(n_levels, sigma), NodeRule("sobol", n_nodes, 0))


def smoothed(points, weights, factor=None, sigma=0.4, n_nodes=8, level=2):
    """The field of a constant kernel, isotropic or with a given factor."""
    factor = np.eye(points.shape[1]) if factor is None else factor
    standard, shares = NodeRule("sobol", n_nodes, 0).normal(factor.shape[1], level)
    offsets = sigma * standard @ factor.T
    posterior = Posterior(CPU.tensor(points), CPU.tensor(np.log(weights)), memory_limit=64)
    reach = float(np.linalg.norm(offsets, axis=1).max())
    return SmoothedScore(posterior, Nodes(CPU.tensor(offsets), CPU.tensor(shares), reach))


def twin(x, points, weights, cells, v, offsets):
    """The formula of the module's docstring for one query."""
    points, means = torch.tensor(points), torch.tensor(cells.means)
    log_weights, masses = torch.tensor(np.log(weights)), torch.tensor(cells.masses)
    responsibility = torch.stack(
        [
            mass * torch.exp(-((x - mean) ** 2).sum() / (2 * cells.width**2))
            for mass, mean in zip(masses, means, strict=True)
        ]
    )
    responsibility = responsibility / responsibility.sum()
    gate = torch.relu(responsibility - 0.05 / len(means))
    gate = gate / gate.sum()
    score = torch.zeros_like(x)
    for k, own in enumerate(torch.tensor(offsets)):
        shares = torch.full((len(own),), 1 / len(own), dtype=x.dtype)
        log_density = oracles.averaged_log_density(x, points, log_weights, v, own, shares)
        (gradient,) = torch.autograd.grad(log_density, x, create_graph=True)
        score = score + gate[k] * gradient
    return score


@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize("v", [0.04, 0.5, 20.0])
@pytest.mark.parametrize(("d", "k", "n_cells"), [(2, 1, 4), (3, 1, 7), (5, 2, 3)])
def test_field_and_divergence_are_those_of_the_formula(d, k, n_cells, v, exclude):
    points, weights = curve(30, d)
    cells = Cells.of(points, weights, k, n_cells)
    queries = points[:3] + 0.3 * np.random.RandomState(1).normal(size=(3, d))
    left_out = torch.arange(3) if exclude else None
    fast = field(points, weights, cells, exclude=left_out)
    score, divergence = fast.with_divergence(torch.tensor(queries), v)
    np.testing.assert_allclose(fast(torch.tensor(queries), v), score, rtol=1e-12, atol=1e-12)
    offsets, _ = frozen(0.4, cells, 8).nodes(2)
    for i, query in enumerate(queries):
        seen = np.arange(len(points)) != i if exclude else slice(None)
        shares = weights[seen] / weights[seen].sum()

        def slow(x, seen=seen, shares=shares):
            return twin(x, points[seen], shares, cells, v, offsets)

        x = torch.tensor(query, requires_grad=True)
        np.testing.assert_allclose(score[i], slow(x).detach(), rtol=1e-9, atol=1e-9 / v)
        trace = torch.autograd.functional.jacobian(slow, x).trace()
        np.testing.assert_allclose(divergence[i], trace, rtol=1e-9, atol=1e-9 / v)


def test_some_gates_are_zero_and_some_cells_are_blended():
    """Otherwise the tests of the divergence would not test the gates."""
    points, weights = curve(30)
    cells = Cells.of(points, weights, 1, 7)
    open_gates = (field(points, weights, cells)._gating(torch.tensor(points)).gates > 0).sum(1)
    assert open_gates.min() < 3
    assert open_gates.max() > 1
    assert open_gates.max() < 7


def test_gates_sum_to_one_for_queries_far_away():
    points, weights = curve(40)
    gates = field(points, weights, Cells.of(points, weights, 1))._gating
    far = torch.tensor(points) * torch.logspace(0, 8, 40, dtype=torch.float64)[:, None]
    np.testing.assert_allclose(gates(far).gates.sum(1), 1, rtol=1e-12)


@pytest.mark.parametrize("v", [0.05, 2.0])
def test_a_full_tangent_is_the_isotropic_kernel(v):
    points, weights = curve(30)
    cells = Cells.of(points, weights, 3)
    assert len(cells) == 1
    x = torch.tensor(points) + 0.2
    found = field(points, weights, cells).with_divergence(x, v)
    expected = smoothed(points, weights).with_divergence(x, v)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("v", [0.05, 2.0])
def test_on_a_plane_the_number_of_cells_does_not_matter(v):
    """All tangents are the plane and the thickness is zero, so gates do not matter.

    One kernel along the plane, node by node: with one cell and with many.
    """
    plane, weights = curve(60, 2)
    points = np.column_stack([plane, np.zeros(60)])
    cells = Cells.of(points, weights, 2, 6)
    assert len(cells) == 6
    x = torch.tensor(points + np.random.RandomState(0).normal(size=(60, 3)))
    found = field(points, weights, cells).with_divergence(x, v)
    expected = smoothed(points, weights, np.diag([1.0, 1.0, 0.0])).with_divergence(x, v)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9 / v)


def test_offsets_along_and_across():
    """A line of thickness 0.05: sigma along it, twice that across it, and never more than sigma."""
    rng = np.random.RandomState(0)
    points = np.column_stack([np.linspace(-1, 1, 400), 0.05 * rng.normal(size=(2, 400)).T])
    cells = Cells.of(points, np.full(400, 1 / 400), 1, 2, n_neighbors=200)
    for sigma in (0.3, 0.01):
        offsets, _ = frozen(sigma, cells, 64).nodes(3)
        spread = offsets.std(axis=1)
        np.testing.assert_allclose(offsets.mean(axis=1), 0, atol=1e-15)
        # Of 200 rows the thickness is known to 5 %, and so is where the line points.
        np.testing.assert_allclose(spread[:, 0], sigma, rtol=1e-2)
        np.testing.assert_allclose(spread[:, 1:], min(sigma, 0.1), rtol=0.15)


def test_numbers_of_nodes():
    points, weights = curve(30)
    shape = GatedShape(Cells.of(points, weights, 1, 4))
    assert (shape.rank, shape.n_nodes, shape.widest_std) == (3, default_n_nodes(3) // 2, 1.0)
    kernel = shape.freeze(np.array([0.0, 1.0]), NodeRule("sobol", 8, 0))
    # The number at levels that are smoothed; others have one node, which is zero.
    assert kernel.n_nodes == 8
    offsets, shares = kernel.nodes(0)
    np.testing.assert_array_equal(offsets, np.zeros((4, 1, 3)))
    np.testing.assert_array_equal(shares, [1.0])
    assert kernel.nodes(1)[0].shape == (4, 8, 3)
    on_a_line = Cells.of(points[:, :1], weights, 0, 4)
    assert frozen(0.3, on_a_line, 8).nodes(0)[0].shape == (len(on_a_line), 8, 1)


def test_pairs_of_queries_and_cells():
    """Only those with an open gate, by cell, with nodes of which the longest norm is known."""
    points, weights = curve(30)
    cells = Cells.of(points, weights, 1, 7)
    own = field(points, weights, cells)
    gating = own._gating(torch.tensor(points))
    rows, which, counts = own._active_pairs(gating)
    expected = [(k, i) for k in range(7) for i in range(30) if gating.gates[i, k] > 0]
    assert list(zip(which.tolist(), rows.tolist(), strict=True)) == expected
    assert counts == [sum(k == j for k, _ in expected) for j in range(7)]
    for nodes in own.nodes:
        assert nodes.max_norm == pytest.approx(nodes.offsets.norm(dim=1).max().item())


def test_influence_is_that_of_the_cells_weighted_by_their_gates():
    points, weights = curve(30)
    own = field(points, weights, Cells.of(points, weights, 1, 7))
    x = torch.tensor(points[:4]) + 0.1
    found, gates = own.influence(x, 0.3), own._gating(x).gates
    for i in range(4):
        parts = [
            own.posterior.influence((x[i] + n.offsets)[None], 0.3, n.weights) for n in own.nodes
        ]
        for name in ("weights", "derivatives"):
            expected = sum(
                g * getattr(part, name)[0] for g, part in zip(gates[i], parts, strict=True)
            )
            np.testing.assert_allclose(getattr(found, name)[i], expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.weights.sum(1), 1, rtol=1e-12)


@pytest.mark.parametrize("dimension", [0, 1, 4])
def test_one_data_point_is_not_smoothed(dimension):
    point = np.zeros((1, dimension))
    cells = Cells.of(point, np.ones(1), 1)
    x = torch.tensor(np.random.RandomState(0).normal(size=(5, dimension)))
    score, divergence = field(point, np.ones(1), cells).with_divergence(x, 0.3)
    np.testing.assert_allclose(score, -x / 0.3, atol=1e-12)
    np.testing.assert_allclose(divergence, -dimension / 0.3, rtol=1e-12)


def test_without_smoothing_gates_do_not_matter():
    points, weights = curve(30)
    cells = Cells.of(points, weights, 1, 5)
    x = torch.tensor(points) + 0.2
    found = field(points, weights, cells, sigma=0.0).with_divergence(x, 0.1)
    expected = smoothed(points, weights, sigma=0.0).with_divergence(x, 0.1)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10)


# ------------------------------------------------------------------------------------------- cells


def test_rows_may_come_in_any_order():
    points, weights = curve(50)
    order = np.random.RandomState(1).permutation(50)
    x = torch.tensor(points[:10]) + 0.1
    found, expected = (
        field(points[o], weights[o], Cells.of(points[o], weights[o], 1, 6))(x, 0.1)
        for o in (order, np.arange(50))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_the_model_moves_with_the_data():
    """Rotated and shifted: cells are made in coordinates of the hull, which rotate with the data."""
    rng = np.random.RandomState(0)
    X, weights = curve(50)
    turn = stats.ortho_group.rvs(3, random_state=rng)

    def score(rows, queries):
        hull = AffineHull.of(rows)
        (points, _), (x, _) = hull.split(rows), hull.split(queries)
        cells = Cells.of(points, weights, 1, 6)
        return field(points, weights, cells)(torch.tensor(x), 0.1).numpy() @ hull.basis.T

    moved = score(X @ turn + [3, -2, 5], (X[:10] + 0.1) @ turn + [3, -2, 5])
    np.testing.assert_allclose(moved, score(X, X[:10] + 0.1) @ turn, rtol=1e-9, atol=1e-9)


def test_tangents_follow_the_curve():
    """Of a circle of 100 rows in eight cells, to the angle of a chord: a tenth at most."""
    angle = np.random.RandomState(0).uniform(0, 2 * np.pi, 100)
    X = np.column_stack([np.cos(angle), np.sin(angle)])
    cells = Cells.of(X, np.full(100, 0.01), 1, 8)
    radial = cells.means / np.linalg.norm(cells.means, axis=1)[:, None]
    assert len(cells) == 8
    assert np.abs(np.sum(radial * cells.tangents[:, :, 0], axis=1)).max() < 0.1
    np.testing.assert_allclose(cells.masses.sum(), 1)


def test_weights_count_as_rows():
    points, _ = curve(20)
    counts = np.random.RandomState(0).randint(1, 4, 20)
    weighted = Cells.of(points, counts / counts.sum(), 1, 4, n_neighbors=20)
    rows = np.repeat(points, counts, axis=0)
    repeated = Cells.of(rows, np.full(len(rows), 1 / len(rows)), 1, 4, n_neighbors=len(rows))
    np.testing.assert_allclose(weighted.means, repeated.means, atol=1e-12)
    for one, other in zip(weighted.tangents, repeated.tangents, strict=True):
        np.testing.assert_allclose(one @ one.T, other @ other.T, atol=1e-9)
    np.testing.assert_allclose(weighted.thickness, repeated.thickness, atol=1e-9)


@pytest.mark.parametrize("n_cells", [None, 1, 3, 16, 100])
@pytest.mark.parametrize(
    "points",
    [
        np.zeros((1, 3)),
        np.eye(2, 3),
        np.zeros((8, 3)),
        np.repeat(np.eye(3), 5, axis=0),
        np.random.RandomState(0).normal(size=(16, 15)),
        np.outer(np.arange(12.0), np.ones(4)),
        1e-9 * np.random.RandomState(0).normal(size=(12, 3)) + np.repeat(np.eye(3), 4, axis=0),
        1e12 * np.random.RandomState(0).normal(size=(12, 3)),
    ],
)
def test_degenerate_data_give_finite_results(points, n_cells):
    """One row, equal rows, fewer rows than dimensions, lines, and more cells than rows."""
    weights = np.full(len(points), 1 / len(points))
    for n_components in (1, 2):
        cells = Cells.of(points, weights, n_components, n_cells)
        assert len(cells) <= len(points)
        assert cells.width > 0
        assert (cells.masses > 0).all()
        gram = cells.tangents.transpose(0, 2, 1) @ cells.tangents
        np.testing.assert_allclose(gram - np.eye(gram.shape[1]), 0, atol=1e-12)
        scale = max(np.abs(points).max(), 1.0)
        x = torch.tensor(np.concatenate([points, points + 0.1 * scale, points + 1e6 * scale]))
        score, divergence = field(points, weights, cells, 0.3 * scale).with_divergence(
            x, 0.01 * scale**2
        )
        assert torch.isfinite(score).all()
        assert torch.isfinite(divergence).all()


def test_default_number_of_cells():
    assert [default_n_cells(n, 1) for n in (1, 16, 60, 10**6)] == [1, 4, 15, 32]
    assert default_n_cells(60, 2) == 7
    assert default_n_cells(60, 0) == 15


# ----------------------------------------------------------------------------------------- devices


def test_computing_all_pairs_gives_the_same_result(monkeypatch):
    points, weights = curve(60)
    cells = Cells.of(points, weights, 1, 9)
    x = torch.tensor(points) + 0.2
    sparse = field(points, weights, cells).with_divergence(x, 0.1)
    every = torch.arange(60 * len(cells))
    everything = every % 60, every // 60, [60] * len(cells)
    monkeypatch.setattr(GatedScore, "_active_pairs", lambda self, gating: everything)
    dense = field(points, weights, cells).with_divergence(x, 0.1)
    for one, other in zip(sparse, dense, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("left_out", [False, True])
def test_tiles_do_not_change_the_result(left_out, monkeypatch):
    """With all gates positive, the scores of nine cells take nine times the memory."""
    points, weights = curve(60)
    cells = Cells.of(points, weights, 1, 9)
    x = torch.tensor(points) + 0.2
    exclude = torch.arange(60) if left_out else None
    whole = field(points, weights, cells, exclude=exclude)
    expected = *whole.with_divergence(x, 0.1), whole(x, 0.1)
    sizes, score = [], GatedScore._score

    def watch(self, x, v):
        sizes.append(len(x))
        return score(self, x, v)

    monkeypatch.setattr(GatedScore, "_score", watch)
    whole.posterior.memory_limit = 0.012  # MiB: 9 cells, and some 150 bytes in each for a query
    found = *whole.with_divergence(x, 0.1), whole(x, 0.1)
    assert len(sizes) > 5
    assert sum(sizes) == 60
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-11)


def test_no_queries():
    points, weights = curve(20)
    nothing = field(points, weights, Cells.of(points, weights, 1, 4))
    score, divergence = nothing.with_divergence(torch.zeros(0, 2, dtype=torch.float64), 0.1)
    assert score.shape == (0, 2)
    assert divergence.shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("v", [0.3, 1e-4])
def test_the_host_does_not_wait_for_the_device(v, dtype):
    """Tensors on torch's meta device have no values: reading one on the host raises an error."""
    points, weights = curve(40)
    meta = Backend(torch.device("meta"), dtype)
    cells = Cells.of(points, weights, 1, 5)
    there = field(points, weights, cells, backend=meta)
    x = meta.tensor(points[:7])
    score, divergence = there.with_divergence(x, v)
    assert there(x, v).shape == score.shape == x.shape
    assert score.dtype == divergence.dtype == dtype
    assert divergence.shape == (7,)


@pytest.mark.parametrize("v", [0.3, 1e-3])
def test_single_precision(v):
    """Relative to the largest score: rounding of coordinates of a few units, over v."""
    points, weights = curve(40)
    cells = Cells.of(points, weights, 1, 5)
    single = field(points, weights, cells, backend=Backend.from_params("cpu", "float32"))
    x = torch.tensor(points[:9] + 0.1)
    found = single.with_divergence(x.float(), v)
    expected = field(points, weights, cells).with_divergence(x, v)
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() < 1e-4 * other.abs().max() + 1e-5 / v


def test_gates_between_close_cells_that_are_far_from_others():
    """Two curves a thousand apart with cells of width 0.1: squares in this unit are beyond float32."""
    points, weights = curve(60)
    points, weights = np.vstack([points, points + 1000.0]), np.tile(weights / 2, 2)
    cells = Cells.of(points, weights, 1)
    x = torch.tensor(points + 0.1).float()
    single = field(points, weights, cells, backend=Backend.from_params("cpu", "float32"))
    found, expected = single._gating(x), field(points, weights, cells)._gating(x.double())
    # Means are rounded to 6e-5, over widths of a few tenths.
    assert (found.gates - expected.gates).abs().max() < 5e-3
    # In double precision the same is seen at a distance of 1e9.
    far = np.where(np.arange(120) < 60, 0.0, 2.0**30)[:, None]
    near = Cells.of(points[:60], weights[:60] * 2, 1, 7)
    both = Cells(
        np.tile(near.masses / 2, 2),
        np.vstack([near.means, near.means + 2.0**30]),
        near.width,
        np.tile(near.tangents, (2, 1, 1)),
        np.tile(near.thickness, 2),
    )
    x = torch.tensor(np.round((points[:60] + 0.1) * 2**20) / 2**20)
    here = field(points + far, weights, both)._gating(x).gates[:, :7]
    there = field(points + far, weights, both)._gating(x + 2.0**30).gates[:, 7:]
    np.testing.assert_allclose(there, here, rtol=0, atol=1e-4)


# --------------------------------------------------------------------------------------------- law


@pytest.fixture(scope="module")
def law():
    """Forty rows of a wavy circle, and their model."""
    angle = np.random.RandomState(0).uniform(0, 2 * np.pi, 40)
    radius = 1 + 0.13 * np.sin(8 * angle)
    X = np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])
    points, _ = AffineHull.of(X).split(X)
    weights = np.full(40, 1 / 40)
    kernel = frozen(0.2, Cells.of(points, weights, 1), 16)
    hierarchy = PointHierarchy.of(points, weights, 0.0, 0.08)
    return ScoreSchedule(NoiseLevels(0.08, 1.0, 32), hierarchy, kernel, CPU, 64)


def density(law, points):
    terminal = EmpiricalTerminal(law, law.levels.terminal_scale)
    steps = law.levels.steps(1)
    return flow_log_density(Heun(), law, torch.tensor(points), steps, terminal.log_density)


def grid(law, spacing):
    axis = np.arange(-1.8, 1.8, spacing)
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)


def test_the_density_integrates_to_one(law):
    """1e-2 allows for 32 steps of Heun's method; the grid, of a bandwidth, is exact to 1e-8."""
    points = grid(law, 0.08).reshape(-1, 2)
    assert math.isclose(float(density(law, points).exp().sum()) * 0.08**2, 1, abs_tol=1e-2)


def test_samples_have_the_density(law):
    """Chi-square over boxes that expect ten of 2500 samples; fails by chance once in 10^4 seeds.

    Samples moved by half a bandwidth must fail.
    """
    rng = np.random.RandomState(0)
    start = EmpiricalTerminal(law, law.levels.terminal_scale).sample(rng, 2500)
    steps = [step.reversed() for step in reversed(law.levels.steps(1))]
    samples = solve(Heun(), law, torch.tensor(start), steps, lambda: None).numpy()
    points = grid(law, 0.04)
    mass = density(law, points.reshape(-1, 2)).exp().reshape(points.shape[:2]).numpy() * 0.04**2
    expected = 2500 * mass.reshape(15, 6, 15, 6).sum((1, 3))
    edges = np.linspace(-1.82, -1.82 + 90 * 0.04, 16)

    def pvalue(drawn):
        counts = np.histogram2d(*drawn.T, bins=[edges, edges])[0]
        large = expected > 10
        seen, due = np.append(counts[large], 0), np.append(expected[large], 0)
        seen[-1], due[-1] = 2500 - seen.sum(), 2500 - due.sum()
        return stats.chi2(len(due) - 1).sf(((seen - due) ** 2 / due).sum())

    assert pvalue(samples) > 1e-4
    assert pvalue(samples + 0.04) < 1e-4
