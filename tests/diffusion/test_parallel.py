"""Tests of where the work is done: rows over workers, and devices that must not be kept waiting."""

import joblib
import numpy as np
import pytest
import torch

from skdiffsmooth import ManifoldAdaptedDiffusion, SmoothedScoreDiffusion
from skdiffsmooth._diffusion import settings
from skdiffsmooth._utils.backend import Backend
from skdiffsmooth.solvers import SOLVERS, Adaptive, Heun, solve
from skdiffsmooth.solvers._flow import flow_log_density

SMALL = {"n_nodes": 16, "n_levels": 4, "n_steps": 4}


@pytest.fixture(scope="module")
def X():
    return np.random.RandomState(0).standard_normal((60, 3))


def results(model, X):
    return (
        model.score_samples(X),
        model.sample(23, random_state=0),
        model.leave_one_out_log_density(),
    )


# ------------------------------------------------------------------------------------- workers


@pytest.mark.parametrize("n_jobs", [2, 3, -1])
@pytest.mark.parametrize("estimator", [SmoothedScoreDiffusion, ManifoldAdaptedDiffusion])
def test_workers_give_the_numbers_of_one(estimator, n_jobs, X):
    """A row's sums are the same wherever it is; products of other shapes round otherwise: 1e-12."""
    model = estimator(0.3, 0.5, **SMALL).fit(X)
    alone = results(model, X)
    with joblib.parallel_config("threading"):
        together = results(model.set_params(n_jobs=n_jobs), X)
    for found, expected in zip(together, alone, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)


def test_workers_in_processes_give_the_numbers_of_one(X):
    model = SmoothedScoreDiffusion(0.3, 0.5, **SMALL).fit(X)
    alone = results(model, X)
    together = results(model.set_params(n_jobs=2), X)
    for found, expected in zip(together, alone, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)


def test_noise_of_a_row_is_the_same_on_any_worker(X):
    model = SmoothedScoreDiffusion(0.3, 0.5, solver="euler-maruyama", **SMALL).fit(X)
    alone = model.sample(11, random_state=3)
    with joblib.parallel_config("threading"):
        together = model.set_params(n_jobs=4).sample(11, random_state=3)
    np.testing.assert_allclose(together, alone, rtol=1e-11, atol=1e-12)
    assert len(np.unique(alone, axis=0)) == 11


def test_fewer_rows_than_workers(X):
    model = SmoothedScoreDiffusion(0.3, 0.5, n_jobs=8, **SMALL).fit(X)
    with joblib.parallel_config("threading"):
        assert model.sample(1, random_state=0).shape == (1, 3)
        assert model.score_samples(X[:2]).shape == (2,)


@pytest.mark.slow
def test_a_cluster_gives_the_numbers_of_one(X):
    """A real worker process of dask with two threads, to which joblib sends the rows in two parts."""
    distributed = pytest.importorskip("distributed")
    model = SmoothedScoreDiffusion(0.3, 0.5, **SMALL).fit(X)
    alone = results(model, X)
    cluster = distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=True, dashboard_address=None
    )
    with cluster, distributed.Client(cluster) as client:
        with joblib.parallel_config("dask"):
            together = results(model, X)
        workers = client.scheduler_info()["workers"]
    assert [worker["nthreads"] for worker in workers.values()] == [2]
    for found, expected in zip(together, alone, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    ("n_jobs", "error", "message"),
    [
        (0, ValueError, r"n_jobs=0 is not a number of workers; expected None, 1 or more, or -1"),
        (1.5, TypeError, r"n_jobs=1\.5 has type float"),
        ("all", TypeError, r"n_jobs='all' has type str"),
    ],
)
def test_n_jobs_that_is_none(n_jobs, error, message, X):
    with pytest.raises(error, match=message):
        SmoothedScoreDiffusion(0.3, 0.5, n_jobs=n_jobs).fit(X)


# ------------------------------------------------------------------------------------ interruption


def test_an_interrupted_call_leaves_the_model_usable(X, monkeypatch):
    model = SmoothedScoreDiffusion(0.3, 0.5, **SMALL).fit(X)
    expected = results(model, X)
    with monkeypatch.context() as patch:
        patch.setattr(Heun, "step", interrupt)
        patch.setattr(Heun, "step_with_log_density", interrupt)
        for call in (lambda: model.sample(3), lambda: model.score_samples(X)):
            with pytest.raises(KeyboardInterrupt):
                call()
    for found, again in zip(results(model, X), expected, strict=True):
        np.testing.assert_array_equal(found, again)


def interrupt(*args):
    raise KeyboardInterrupt


# ----------------------------------------------------------------------------------------- devices


@pytest.mark.parametrize("bandwidth", [0.5, 0.01])
@pytest.mark.parametrize("largest_exact", [10_000, 0])
@pytest.mark.filterwarnings("ignore:tol=5 is not reached")
def test_no_step_waits_for_a_device_or_mixes_devices(bandwidth, largest_exact, X, monkeypatch):
    """Torch's meta device holds no numbers: what needs one on the host raises, and so does a mixture.

    At ordinary noise, where exponentials factorise, and at noise so small that they do not.
    """
    monkeypatch.setattr(settings, "_LARGEST_EXACT", largest_exact)
    model = SmoothedScoreDiffusion(bandwidth, 0.5, tol=5.0, **SMALL).fit(X)
    steps = model.model_.steps()
    down = [step.reversed() for step in reversed(steps)]
    for dtype in (torch.float64, torch.float32):
        schedule = model.model_.source.schedule(
            model._resources()._replace(backend=Backend(torch.device("meta"), dtype))
        )
        x = schedule.backend.tensor(X[:7])
        for name in SOLVERS:
            # Steps are halved, or not, by numbers: this solver does wait, unless it may not halve any.
            solver = Adaptive(max_halvings=0) if name == "adaptive" else SOLVERS[name]()
            moved = solve(solver, schedule, x, down, lambda x=x: x)
            assert (moved.device.type, moved.dtype, moved.shape) == ("meta", dtype, x.shape)
        terminal = model.model_.source.terminal(schedule)
        found = flow_log_density(Heun(), schedule, x, steps, terminal.log_density)
        assert (found.device.type, found.dtype, found.shape) == ("meta", dtype, (7,))


def test_the_meta_device_fails_where_a_real_one_would():
    """The two mistakes that the test above is there for are seen."""
    there, here = torch.empty(3, device="meta"), torch.empty(3)
    with pytest.raises(RuntimeError, match="device"):
        there + here
    with pytest.raises(RuntimeError, match="item"):
        int(there.sum())
