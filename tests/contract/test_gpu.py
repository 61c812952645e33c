"""What only a GPU can show: the CPU's numbers, nothing awaited on the way, memory within its bounds."""

import contextlib

import numpy as np
import pytest
import torch

from skdiffsmooth import KDESampler, ManifoldAdaptedDiffusion, SmoothedScoreDiffusion
from skdiffsmooth._diffusion import settings
from skdiffsmooth._utils.backend import Backend
from skdiffsmooth.manifolds import (
    AffineSubspace,
    Circle,
    Curve,
    LocalPolynomialManifold,
    PointCloud,
    Sphere,
)
from skdiffsmooth.solvers import SOLVERS, Adaptive, Heun, solve
from skdiffsmooth.solvers._flow import flow_log_density

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

SMALL = {"n_nodes": 16, "n_levels": 4, "n_steps": 8}


@pytest.fixture
def X():
    rng = np.random.RandomState(0)
    return rng.normal(size=(150, 3)) @ np.diag([1.0, 0.5, 0.2])


def results(model, X):
    """Everything that a model can be asked for."""
    found = [model.sample(30, random_state=0), model.score_samples(X[:40])]
    found.append(model.grad_log_density(X[:40]))
    if not isinstance(model, KDESampler):
        found.append(model.leave_one_out_log_density())
    if not isinstance(model, ManifoldAdaptedDiffusion):
        found.append(model.energy(X[:40]))
    return found


@pytest.mark.parametrize("bandwidth", [0.5, 0.1, 1e-4])
@pytest.mark.parametrize("largest_exact", [10_000, 0])
@pytest.mark.filterwarnings("ignore:tol=5 is not reached")
@pytest.mark.parametrize(
    "model",
    [
        SmoothedScoreDiffusion(sigma=0.3, **SMALL),
        SmoothedScoreDiffusion(sigma=0.3, terminal="gaussian", **SMALL),
        ManifoldAdaptedDiffusion(sigma=0.3, manifold="pca", n_components=2, **SMALL),
        ManifoldAdaptedDiffusion(sigma=0.3, n_components=1, **SMALL),
        ManifoldAdaptedDiffusion(sigma=0.3, manifold=Sphere(np.zeros(3), 1.0), **SMALL),
    ],
    ids=["smoothed", "gaussian", "pca", "local", "sphere"],
)
def test_the_numbers_are_those_of_the_cpu(model, bandwidth, largest_exact, X, monkeypatch):
    """To the rounding of sums in another order; draws are made on the host, so samples agree too.

    At a bandwidth of 1e-4 a rounding error of a position is 1e4 times one of the score.
    """
    monkeypatch.setattr(settings, "_LARGEST_EXACT", largest_exact)
    model = model.set_params(bandwidth=bandwidth, tol=5.0, device="cpu").fit(X)
    expected = results(model, X)
    found = results(model.set_params(device="cuda"), X)
    for there, here in zip(found, expected, strict=True):
        np.testing.assert_allclose(there, here, rtol=1e-7, atol=1e-7 * np.abs(here).max())


def test_a_kernel_density_estimate_is_that_of_the_cpu(X):
    for kernel in ("gaussian", "epanechnikov"):
        model = KDESampler(bandwidth=0.8, kernel=kernel).fit(X)
        here = model.sample(20, random_state=0), model.score_samples(X[:40])
        model.set_params(device="cuda")
        there = model.sample(20, random_state=0), model.score_samples(X[:40])
        for found, expected in zip(there, here, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("bandwidth", [0.5, 0.05])
def test_single_precision_is_near_double(bandwidth, X):
    """Float32 carries 1e-7 of each exponent, which are held below 1e4 times a relative 1e-3."""
    model = SmoothedScoreDiffusion(bandwidth, 0.3, device="cuda", **SMALL).fit(X)
    expected = model.score_samples(X[:40])
    found = model.set_params(dtype="float32").fit(X).score_samples(X[:40])
    np.testing.assert_allclose(found, expected, atol=5e-3)


@contextlib.contextmanager
def nothing_may_be_awaited():
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("bandwidth", [0.5, 0.01])
@pytest.mark.parametrize(
    "model",
    [
        SmoothedScoreDiffusion(**SMALL),
        SmoothedScoreDiffusion(kernel="temperature", **SMALL),
        ManifoldAdaptedDiffusion(n_components=1, **SMALL),
        ManifoldAdaptedDiffusion(manifold=Sphere(np.zeros(3), 1.0), **SMALL),
        ManifoldAdaptedDiffusion(manifold=Sphere(np.zeros(3), 1.0), push="level-set", **SMALL),
    ],
    ids=["smoothed", "temperature", "local", "translated", "level-set"],
)
def test_the_solver_never_waits_for_the_device(model, bandwidth, dtype, X):
    model = model.set_params(bandwidth=bandwidth, sigma=0.5).fit(X)
    schedule, steps = model.model_.source.schedule(model._resources()), model.model_.steps()
    schedule.backend = Backend(torch.device("cuda"), dtype)
    x = schedule.backend.tensor(X[:7])
    noise = torch.randn_like(x)
    terminal = model.model_.source.terminal(schedule)
    down = [step.reversed() for step in reversed(steps)]
    with nothing_may_be_awaited():
        for name in SOLVERS:
            # Steps are halved, or not, by numbers: this solver does wait, unless it may not halve any.
            solver = Adaptive(max_halvings=0) if name == "adaptive" else SOLVERS[name]()
            solve(solver, schedule, x, down, lambda: noise)
        flow_log_density(Heun(), schedule, x, steps, terminal.log_density)


def wave(t):
    return np.stack([np.cos(t), np.sin(t), 0.2 * np.cos(3 * t)], axis=1)


SMOOTH_MANIFOLDS = [
    AffineSubspace([[1.0, 1.0, 1.0]], [0.5]),
    Sphere([0.1, 0.2, 0.3], 1.2),
    Circle([0.1, 0.2, 0.3], 1.2, [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]),
    Curve(wave, 0, 2 * np.pi, closed=True),
    Curve(wave, 0, 4),
]


@pytest.mark.parametrize("manifold", SMOOTH_MANIFOLDS, ids=repr)
def test_smooth_manifolds_never_wait_for_the_device(manifold, X):
    x = torch.tensor(X, device="cuda")
    names = ["project", "distance", "tangent", "projection_derivative"]
    found = [getattr(manifold, name)(x) for name in names]
    # The first calls copied what stays the same.
    with nothing_may_be_awaited():
        found = [getattr(manifold, name)(x) for name in names]
    for name, there in zip(names, found, strict=True):
        expected = getattr(manifold, name)(X)
        np.testing.assert_allclose(there.cpu(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("d", [3, 12])
def test_learned_manifolds_on_a_device(d):
    """By products there and by a tree here, in three dimensions."""
    rng = np.random.RandomState(0)
    rows = rng.normal(size=(400, 3))
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True) @ np.eye(3, d)
    queries = rows[:50] * 1.2
    for manifold in (PointCloud(rows, 2), LocalPolynomialManifold(2).fit(rows)):
        there = manifold.project(torch.tensor(queries, device="cuda")).cpu()
        np.testing.assert_allclose(there, manifold.project(queries), rtol=0, atol=1e-9)


def test_waiting_for_the_device_would_be_seen():
    x = torch.ones(3, device="cuda")
    with nothing_may_be_awaited(), pytest.raises(RuntimeError, match="synchronizing"):
        x.sum().item()


@pytest.mark.parametrize("memory_limit", [32, 256])
def test_memory_stays_within_the_limit(memory_limit):
    """Data and results of these sizes take less than a megabyte; the allocator rounds up."""
    rng = np.random.RandomState(0)
    X, queries = rng.normal(size=(4000, 5)), rng.normal(size=(3000, 5))
    model = SmoothedScoreDiffusion(
        0.2, 0.3, device="cuda", memory_limit=memory_limit, n_levels=2, n_steps=2
    ).fit(X)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    model.score_samples(queries)
    assert torch.cuda.max_memory_allocated() - before < 1.2 * memory_limit * 2**20 + 2**22


def test_a_full_device_is_answered_by_smaller_tiles():
    """With room for a fraction of what `memory_limit` allows, the numbers are the same."""
    rng = np.random.RandomState(0)
    X, queries = rng.normal(size=(20_000, 4)), rng.normal(size=(4000, 4))
    model = SmoothedScoreDiffusion(
        0.3, 0.3, device="cuda", memory_limit=8192, n_levels=1, n_steps=1
    ).fit(X)
    expected = model.set_params(memory_limit=256).score_samples(queries)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(2**30 / total)
    try:
        found = model.set_params(memory_limit=8192).score_samples(queries)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
