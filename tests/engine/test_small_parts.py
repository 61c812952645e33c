"""Parts of the engine on a few points, against sums and loops that are obvious."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from skdiffsmooth._engine import box_sums, groups, sphere
from skdiffsmooth._engine.box_sums import BoxSums
from skdiffsmooth._engine.components import GaussianComponents
from skdiffsmooth._engine.hierarchy import PointHierarchy
from skdiffsmooth._engine.moments import Nodes, is_excluded
from skdiffsmooth._engine.points import Points, exclude_, log_weight_of_others
from skdiffsmooth._engine.radial_kernels import RADIAL_KERNELS
from skdiffsmooth._engine.radial_marginal import log_marginal_kernel, sample_free_offsets
from skdiffsmooth._utils.backend import Backend

RNG = np.random.default_rng(0)


# ---------------------------------------------------------------------------------------- points


def test_points_are_padded_where_they_are_grouped():
    for n, r, is_grouped in ((128, 2, False), (129, 2, True), (160, 2, True), (200, 0, False)):
        points = Points(torch.ones(n, r).double(), torch.full((n,), -math.log(n)).double(), 2.0)
        assert points.are_grouped == is_grouped
        assert len(points) == (-(-n // 32) * 32 if is_grouped else n)
        assert points.n_unpadded == n
        assert (points.log_weights[n:] == -math.inf).all()
    for n, are_few in ((8, True), (9, False)):
        few = Points(torch.ones(n, 2).double(), torch.zeros(n).double(), 2.0)
        assert few.are_few == are_few
        assert few.negligible == pytest.approx(math.log(2.0**-104 / n))


def test_rounding_decides_whether_products_are_exact():
    for dtype, error in ((torch.float64, 1e-10), (torch.float32, 1e-3)):
        points = Points(torch.ones(3, 2, dtype=dtype), torch.zeros(3, dtype=dtype), 2.0)
        edge = torch.finfo(dtype).eps * 2.0 * (2.0 + 3.0) / error
        assert points.products_are_exact(1.01 * edge, 3.0)
        assert not points.products_are_exact(0.99 * edge, 3.0)


def test_features_and_products_are_those_of_the_points():
    x, weights = RNG.normal(size=(5, 2)), RNG.dirichlet(np.ones(5))
    trace_weights = np.array([2.0, 0.5])
    points = Points(*map(torch.from_numpy, (x, np.log(weights))), 3.0, torch.tensor(trace_weights))
    expected = np.vstack([np.ones(5), x.T / 3, x**2 @ trace_weights / 9])
    assert_allclose(points.features, expected)
    assert_allclose(points.outer_products, [np.outer(a, a).ravel() / 9 for a in x])
    y = RNG.normal(size=(4, 2))
    squares = ((y[:, None] - x) ** 2).sum(axis=2)
    logits = np.log(weights) - squares / 1.4 + (y**2).sum(axis=1)[:, None] / 1.4
    assert_allclose(points.products(torch.from_numpy(y), 0.7), logits)
    assert_allclose(points.squared_distances(torch.from_numpy(y)), squares)
    of_trace = (y[:, None] - x) ** 2 @ trace_weights
    assert_allclose(points.squared_distances_for_trace(torch.from_numpy(y)), of_trace)
    assert_allclose(points.log_weights_of_others, np.log1p(-weights))
    heavy = torch.tensor([1e-30, 2e-30, 1.0]).double().log()
    assert_allclose(log_weight_of_others(heavy)[2], math.log(3e-30))
    logits = torch.zeros(2, 4)
    assert exclude_(logits, None) is logits
    assert exclude_(logits.clone(), torch.tensor([1, 3])).isinf().nonzero().tolist() == [
        [0, 1],
        [1, 3],
    ]
    both = torch.tensor([[0, 1], [2, 2]])
    assert exclude_(logits.clone(), both).isinf().sum(1).tolist() == [2, 1]
    index = torch.tensor([[0, 1, 2], [2, 1, 0]])
    assert is_excluded(index, torch.tensor([1, 2])).nonzero().tolist() == [[0, 1], [1, 0]]
    assert is_excluded(index, both).sum(1).tolist() == [2, 1]


def test_nodes_average_log_densities_and_laplacians():
    offsets, weights, stein = (
        RNG.normal(size=(3, 2)),
        np.array([0.2, 0.3, 0.5]),
        np.array([1.0, -2, 3]),
    )
    nodes = Nodes.from_arrays(offsets, weights, Backend.from_params("cpu", "float64"), stein)
    assert nodes.max_norm == np.linalg.norm(offsets, axis=1).max()
    assert nodes.stein_norm == pytest.approx(0.2 + 0.6 + 1.5)
    values = RNG.normal(size=(4, 3))
    found = nodes.averages(nodes.weights, torch.from_numpy(values))
    assert_allclose(found, np.column_stack([values @ (weights * stein), values @ weights]))
    plain = nodes.without_stein().averages(nodes.weights, torch.from_numpy(values))
    assert_allclose(plain, np.column_stack([np.zeros(4), values @ weights]))
    assert nodes.suits_stein(1e7 / 2.3 * 0.999)
    assert not nodes.suits_stein(1e7 / 2.3 * 1.001)
    single = nodes.to(torch.float32)
    assert single.suits_stein(1e3 / 2.3 * 0.999)
    assert not single.suits_stein(1e3 / 2.3 * 1.001)
    assert not nodes.without_stein().suits_stein(1e-9)
    assert nodes[0:3] is nodes
    part = nodes[1:3]
    assert len(part) == 2
    assert_allclose(part.stein, stein[1:])
    x = RNG.normal(size=(4, 2))
    halves = ((x[:, None] + offsets) ** 2).sum(axis=2) / 2
    assert_allclose(nodes.half_squares(torch.from_numpy(x)), halves)


# ---------------------------------------------------------------------------------------- groups


def test_groups_are_of_near_neighbours():
    """Of clusters of 32 points each, in any order, half of the groups are one cluster; on a line all."""
    centers = 100 * RNG.normal(size=(8, 3))
    points = np.repeat(centers, 32, axis=0) + RNG.normal(size=(256, 3))
    shuffled = RNG.permutation(256)
    order = groups._local_order(points[shuffled])
    assert sorted(order) == list(range(256))
    cluster = (shuffled[order] // 32).reshape(8, 32)
    # The halves are cut at the widest side, at the same number of groups: not all are pure.
    assert np.mean([len(set(group)) == 1 for group in cluster]) >= 0.5
    line = RNG.permutation(160).astype(float)[:, None]
    rows = line[groups._local_order(line), 0].reshape(5, 32)
    assert (np.sort(rows, axis=1) == np.arange(160).reshape(5, 32)).all()
    same = groups._local_order(np.ones((64, 2)))
    assert same.tolist() == list(range(64))


def test_slack_is_the_rounding_of_scores_and_what_is_negligible():
    x = torch.from_numpy(RNG.normal(size=(64, 2)))
    own = groups.Groups(x, torch.full((64,), -math.log(64)).double(), 2.0)
    distance = torch.tensor([0.0, 3.0]).double()
    eps = torch.finfo(torch.float32).eps
    negligible = -math.log(1e-3 * 2.0**-52 / 64)
    expected = 4 * 6 * eps * np.array([1.0, 4.0]) + negligible * 0.3 / 4
    assert_allclose(own.slack(distance, 0.3, torch.float32), expected)


# -------------------------------------------------------------------------------------- box sums


def test_bounds_of_boxes_hold_their_points():
    low, high = torch.tensor([[0.0, 0.0], [1.0, -1.0]]), torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    bounds = box_sums._Bounds(low.double(), high.double(), torch.zeros(2).double())
    x = torch.tensor([[0.5, 1.0], [-1.0, 3.0], [2.0, -4.0]]).double()
    nearest, farthest = bounds.squares(x, slice(None))
    corners = [[(a, b) for a in (l[0], h[0]) for b in (l[1], h[1])] for l, h in zip(low, high)]  # noqa: E741, B905
    for q in range(3):
        for b in range(2):
            inside = torch.minimum(torch.maximum(x[q], low[b]), high[b])
            assert nearest[q, b] == pytest.approx(float((x[q] - inside).square().sum()), abs=1e-12)
            far = max(float((x[q] - torch.tensor(c)).square().sum()) for c in corners[b])
            assert farthest[q, b] == pytest.approx(far)


@pytest.mark.parametrize(("d", "n"), [(1, 1), (1, 200), (2, 333), (3, 500)])
@pytest.mark.parametrize("fewest", [1, 20, math.inf])
def test_points_are_split_into_cubes(d, n, fewest):
    points = RNG.normal(size=(n, d))
    order, counts, middles = box_sums._split(points, 0.5, fewest)
    assert sorted(order) == list(range(n))
    assert counts.sum() == n
    assert len(middles) == len(counts) - 1
    if fewest == math.inf:
        assert len(middles) == 0
    cells = np.floor((points - points.min(axis=0)) / 0.5)
    _, which, sizes = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    assert (len(middles) == (sizes >= fewest).sum()) or fewest == math.inf
    start = counts[0]
    if fewest < math.inf:
        assert (sizes[which.ravel()[order[:start]]] < fewest).all()
    for count, middle in zip(counts[1:], middles, strict=True):
        own = points[order[start : start + count]]
        assert (np.abs(own - middle) <= 0.25 * (1 + 1e-9)).all()
        assert count >= fewest
        start += count


def test_extents_without_cubes():
    order, counts, middles = box_sums._split(np.ones((70, 2)), 0.5, 64)
    assert counts.tolist() == [0, 70]
    assert_allclose(middles, [[1.25, 1.25]])
    wide = np.append(np.zeros(69), 2.0**40)[:, None]
    order, counts, middles = box_sums._split(wide, 0.5, 64)
    assert counts.tolist() == [70]  # cubes as small as rounding
    assert order[-1] == 69
    assert len(box_sums._split(np.append(np.zeros(69), 2.0**29)[:, None], 0.5, 64)[2]) == 1


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("rtol", [1e-3, 1e-9])
def test_numbers_of_nodes_keep_the_error_bound(d, rtol):
    n, log_error = box_sums._nodes_for(rtol, d)

    def bound(q):
        return 2.2 * d * 0.5**q / math.sqrt(math.factorial(q))

    assert log_error == pytest.approx(math.log(bound(n)))
    assert bound(n) <= rtol / 32
    assert n == 4 or bound(n - 1) > rtol / 32


def test_chebyshev_polynomials_and_logarithms_of_sums():
    t = torch.linspace(-1, 1, 7).double()
    values = box_sums._chebyshev_polynomials(t, 6)
    expected = [np.cos(k * np.arccos(t.numpy())) for k in range(6)]
    assert_allclose(values, expected, atol=1e-12)
    assert_allclose(values[:, 0:1].shape, (6, 1))
    nodes = box_sums._chebyshev_nodes(5)
    assert_allclose(box_sums._chebyshev_polynomials(nodes, 6)[5], 0.0, atol=1e-12)
    logs = torch.tensor([-1000.0, -1001.0, 5.0, -math.inf]).double()
    found = box_sums._log_add(logs, torch.tensor([0, 0, 2, 1]), 4)
    assert_allclose(found, [np.logaddexp(-1000, -1001), -np.inf, 5.0, -np.inf])


def test_weights_without_excluded_points():
    log_weights = torch.tensor([0.5, 0.3, 0.2]).double().log()
    boxes = torch.tensor([[0, 1, 2]] * 3)
    own = torch.tensor([0, 2, -9])
    excluded = box_sums._Excluded(
        torch.tensor([0.1, 0.2 * (1 - 5e-7), 0.1]).double().log(), own, own
    )
    found = box_sums._without(log_weights, boxes, own.clamp_min(0), excluded).exp()
    assert_allclose(found[0], [0.4, 0.3, 0.2])
    assert_allclose(found[1], [0.5, 0.3, 0.0])
    assert box_sums._without(log_weights, boxes, None, None).shape == (3, 3)


@pytest.mark.parametrize("kernel", ["gaussian", "linear", "tophat"])
@pytest.mark.parametrize("n", [1, 64, 65, 64 * 33])
def test_sums_of_a_few_boxes(kernel, n):
    """Numbers of points at the edges of boxes and of groups of boxes, with and without one of them."""
    rng = np.random.default_rng(n)
    points, weights = rng.normal(size=(n, 1)), rng.dirichlet(np.ones(n))
    radial, h = RADIAL_KERNELS[kernel], 0.4
    own = BoxSums(points, weights, radial, h, 1e-9)
    x = torch.from_numpy(np.append(points[:3, 0], [0.0, 9.0])[:, None])
    log_kernel = radial.log_profile((x - torch.from_numpy(points[:, 0])).abs() / h).numpy()
    terms = np.log(weights) + log_kernel - radial.log_normalizer(1) - math.log(h)
    assert_allclose(own.log_density(x, 64.0), logsumexp(terms, axis=1), rtol=1e-8, atol=1e-8)
    if n > 1:
        terms[np.arange(3), np.arange(3)] = -np.inf
        expected = logsumexp(terms[:3], axis=1) - np.log1p(-weights[:3])
        found = own.log_density(x[:3], 64.0, exclude=torch.arange(3))
        assert_allclose(found, expected, rtol=1e-8, atol=1e-8)


# ------------------------------------------------------------------------------------ components


def test_components_of_covariances():
    weights, means = np.array([0.3, 0.7]), RNG.normal(size=(2, 3))
    roots = RNG.normal(size=(2, 3, 3))
    covariances = roots @ roots.transpose(0, 2, 1)
    own = GaussianComponents.of(weights, means, covariances)
    assert_allclose(own.covariances, covariances)
    values = np.linalg.eigvalsh(covariances)
    assert own.narrowest == pytest.approx(np.sqrt(values.min()))
    assert own.widest == pytest.approx(np.sqrt(values.max()))
    assert len(own) == 2
    flat = GaussianComponents.of(weights, means, np.diag([-1e-17, 1.0, 2.0])[None].repeat(2, 0))
    assert flat.narrowest == 0.0
    drawn = own.sample(np.random.RandomState(0), 20_000)
    mean = weights @ means
    expected = np.einsum("k,kij->ij", weights, covariances)
    expected += (weights[:, None] * (means - mean)).T @ (means - mean)
    assert_allclose(np.cov(drawn.T), expected, atol=0.05 * np.abs(expected).max())
    # Axes that span the space leave the floor without a direction.
    whole = GaussianComponents(
        weights, means, np.full(2, 9.0), np.tile(np.eye(3), (2, 1, 1)), values
    )
    assert whole.widest == pytest.approx(np.sqrt(values.max()))
    bare = GaussianComponents(
        weights, means, np.array([4.0, 9.0]), np.empty((2, 3, 0)), np.empty((2, 0))
    )
    assert (bare.narrowest, bare.widest) == (2.0, 3.0)
    density = [
        multivariate_normal(m, c).logpdf(means) for m, c in zip(means, own.covariances, strict=True)
    ]
    assert np.isfinite(density).all()


# -------------------------------------------------------------------------------------- hierarchy


def test_cells_keep_weights_and_means_and_stay_within_their_radius():
    points, weights = RNG.normal(size=(40, 2)), RNG.dirichlet(np.ones(40))
    tree = PointHierarchy.of(points, weights, 0.02, 0.3)
    for scale in (0.3, 1.0, 3.0, 30.0):
        merged, masses = tree.at(scale)
        assert masses.sum() == pytest.approx(1.0)
        assert_allclose(masses @ merged, weights @ points, atol=1e-12)
        if len(merged) < 40:
            assert 2 * len(merged) <= 40
            distances = np.linalg.norm(points[:, None] - merged, axis=2).min(axis=1)
            assert distances.max() <= math.sqrt(0.04) * scale * 2
    assert tree.at(0.29)[0] is points
    assert len(tree.at(100.0)[0]) == 1
    exact = PointHierarchy.of(points, weights, 0.0, 0.3)
    assert exact.at(100.0)[0] is points
    # Each cell's radius is at least that of its parts, and the outermost has none around it.
    assert tree.outer_radii[0] == np.inf
    assert (tree.outer_radii >= tree.radii).all()
    assert_allclose(tree.radii[0], np.linalg.norm(points - weights @ points, axis=1).max())


# ------------------------------------------------------------------------------- radial marginals


@pytest.mark.parametrize("kernel", RADIAL_KERNELS)
@pytest.mark.parametrize("n_free", [1, 2])
def test_marginals_of_radial_kernels_are_integrals(kernel, n_free):
    rho, own, d = np.array([0.0, 0.3, 0.9, 1.0, 1.5]), RADIAL_KERNELS[kernel], 1 + n_free
    found = np.exp(log_marginal_kernel(own, rho, d, n_free))
    r = np.linspace(0, 1 if own.is_compact else 40, 20_001)
    middle = (r[1:] + r[:-1]) / 2
    for at, value in zip(rho, found, strict=True):
        profile = np.exp(own.log_profile(torch.from_numpy(np.hypot(at, middle))).numpy())
        area = 2.0 if n_free == 1 else 2 * math.pi
        expected = area * np.sum(middle ** (n_free - 1) * profile) * (r[1] - r[0])
        assert value == pytest.approx(
            expected * math.exp(-own.log_normalizer(d)), rel=1e-3, abs=1e-9
        )


def test_free_offsets_of_a_normal_kernel_are_normal():
    rho = np.repeat([0.0, 3.0], 1000)
    offsets = sample_free_offsets(RADIAL_KERNELS["gaussian"], np.random.RandomState(0), rho, 2)
    assert offsets.shape == (2000, 2)
    assert_allclose(np.cov(offsets[:1000].T), np.eye(2), atol=0.15)
    assert_allclose(np.cov(offsets[1000:].T), np.eye(2), atol=0.15)
    disc = sample_free_offsets(RADIAL_KERNELS["tophat"], np.random.RandomState(0), 0.6 + 0 * rho, 2)
    lengths = np.linalg.norm(disc, axis=1)
    assert lengths.max() <= 0.8
    assert np.mean(lengths**2) == pytest.approx(0.32, rel=0.05)


# ------------------------------------------------------------------------------------------ sphere


@pytest.mark.parametrize("v", [0.05, 0.49, 0.51, 2.0])
def test_heat_kernels_on_the_circle_are_wrapped_normals(v):
    theta = np.linspace(0, math.pi, 9)
    kernel = sphere.heat_kernel(v, 1, is_antipodal=False)
    images = theta[:, None] + 2 * math.pi * np.arange(-9, 10)
    expected = logsumexp(-(images**2) / (2 * v), axis=1) - 0.5 * math.log(2 * math.pi * v)
    assert_allclose(kernel.values(theta).log, expected, atol=1e-4)


def test_angles_have_the_density_of_the_kernel():
    kernel = sphere.heat_kernel(0.3, 2, is_antipodal=False)
    drawn = kernel.draw_angles(np.random.RandomState(0), 20_000, 2)
    theta = np.linspace(0, math.pi, 4001)
    density = np.exp(kernel.values(theta).log) * np.sin(theta)
    mean = np.sum(theta * density) / density.sum()
    assert drawn.mean() == pytest.approx(mean, abs=0.01)
    # The mean cosine on S^2 is exp(-v).
    assert np.cos(drawn).mean() == pytest.approx(math.exp(-0.3), abs=0.01)
