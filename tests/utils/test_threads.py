"""Tests of the number of threads: those of the caller are the same after calls, and forks compute."""

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from scipy.linalg import solve_triangular

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth._diffusion import estimator
from skdiffsmooth._utils.threads import threads_for
from skdiffsmooth._utils.triangular import divide_by_triangle

X = np.random.RandomState(0).normal(size=(40, 3))
SMALL, LARGE = 1, 2**40


def in_new_thread(function):
    """Call `function` in a thread of its own, and return its result."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


def test_only_small_work_is_limited():
    """A new thread, since torch's threads are set in each thread."""

    def counts():
        torch.set_num_threads(3)
        with threads_for(SMALL):
            small = torch.get_num_threads()
        with threads_for(LARGE):
            large = torch.get_num_threads()
        return small, large, torch.get_num_threads()

    default = in_new_thread(torch.get_num_threads)
    try:
        assert in_new_thread(counts) == (1, 3, 3)
    finally:
        in_new_thread(lambda: torch.set_num_threads(default))


def test_few_rows_of_many_columns_are_small_work(monkeypatch):
    """Sums are over coordinates in the hull of the rows, of which there are fewer than rows."""
    sizes = []

    def recorded(size):
        sizes.append(size)
        return threads_for(size)

    monkeypatch.setattr(estimator, "threads_for", recorded)
    images = np.random.RandomState(0).normal(size=(16, 4096))
    SmoothedScoreDiffusion(50.0, 10.0, n_nodes=4, n_levels=2, n_steps=2).fit(images)
    SmoothedScoreDiffusion(0.5, 0.1, n_nodes=4, n_levels=2, n_steps=2).fit(X)
    assert sizes == [16**2 * 64 * (15 + 2), len(X) ** 2 * 64 * (X.shape[1] + 2)]


def test_eight_threads_keep_their_settings():
    """Each has another setting, and half of the calls raise; new threads have torch's default."""
    default = in_new_thread(torch.get_num_threads)
    model = KDESampler().fit(X)
    diffusion = SmoothedScoreDiffusion(0.5, 0.1, n_nodes=4, n_levels=4, n_steps=4)
    start, outcomes, during = threading.Barrier(8), [], []

    def work(n_threads):
        # Torch replaces a thread's own number by the default at the first call that needs it.
        torch.get_num_threads()
        start.wait()
        torch.set_num_threads(n_threads)
        start.wait()
        for k in range(4):
            try:
                diffusion.fit(X).sample(5, random_state=k)
                model.score_samples(X[:, : 2 + k % 2])
            except ValueError:
                pass
            outcomes.append(torch.get_num_threads() == n_threads)

    def default_of_new_threads():
        # Limiting a thread must not be what other threads begin with.
        start_value = in_new_thread(torch.get_num_threads)
        with threads_for(SMALL):
            during.append(in_new_thread(torch.get_num_threads) == start_value)

    threads = [threading.Thread(target=work, args=(2 + k,)) for k in range(8)]
    before = torch.get_num_threads()
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        default_of_new_threads()
    finally:
        in_new_thread(lambda: torch.set_num_threads(default))
    assert torch.get_num_threads() == before
    assert len(outcomes) == 32
    assert all(outcomes)
    assert all(during)


def test_division_by_a_triangle_is_that_of_lapack():
    """Up to rounding; also for no columns."""
    rng = np.random.RandomState(0)
    for p in (0, 1, 5):
        triangle = np.tril(rng.normal(size=(p, p))) + 3 * np.eye(p)
        rows = rng.normal(size=(7, p))
        expected = solve_triangular(triangle, rows.T, lower=True).T if p else rows
        np.testing.assert_allclose(
            divide_by_triangle(rows, triangle), expected, rtol=1e-12, atol=1e-14
        )


FORK = """
import os, torch, numpy as np
from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
torch.set_num_threads(4)
X = np.random.RandomState(0).normal(size=(60, 2))
A = torch.rand(800, 800, dtype=torch.float64)
models = [SmoothedScoreDiffusion(0.3, 0.2, n_nodes=32), KDESampler()]
def work():
    (A.exp() @ A).sum()  # torch uses all threads for it
    return [model.fit(X).score_samples(X[:9]) for model in models]
expected = work()
child = os.fork()
if child == 0:
    same = np.allclose(work(), expected, rtol=1e-6)
    os._exit(0 if same and torch.get_num_threads() == 1 else 3)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert torch.get_num_threads() == 4
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_forked_child_computes():
    """Without one thread in the child, it waits for ever for the threads of its parent."""
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    # The session of its own ends child and parent together, where one of them waits for ever.
    run = subprocess.Popen(
        [sys.executable, "-c", FORK],
        env=environment,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        _, messages = run.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGKILL)
        raise
    assert run.returncode == 0, messages.decode()
