"""The same work on a GPU and on the CPU of its machine; where there is no GPU, a line that says so."""

import time

import numpy as np
import torch
from _common import full_requested, header, row
from _problems import engine_case, surface

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth.datasets import make_circle


def finished(call, repeats=3):
    """Return the median wall time of a call until the device has finished, and what it returned."""
    times = []
    for k in range(repeats + 1):
        start = time.perf_counter()
        value = call()
        torch.cuda.synchronize()
        if k:
            times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2], value


def peak_rate(dtype, size=8192):
    """Return the device's rate of matrix products, in Flop/s."""
    a = torch.ones(size, size, dtype=dtype, device="cuda")
    return 2 * size**3 / finished(lambda: a @ a)[0]


def engine():
    """Print time, rate and error of single evaluations of the field."""
    rates = {name: peak_rate(getattr(torch, name)) for name in ("float64", "float32")}
    print(
        f"\n{torch.cuda.get_device_name()}, torch {torch.__version__}: matrix products at "
        f"{rates['float64'] / 1e12:.1f} (float64) and {rates['float32'] / 1e12:.1f} (float32) "
        "TFlop/s. Mean + trace of 64 nodes in 8 dimensions, sigma 0.3; counted: 2 (r + 2) B M N.\n"
    )
    header(
        "B", "N", "dtype", "v", "CPU (s)", "GPU (s)", "ratio", "GPU (TFlop/s)", "largest difference"
    )
    for n_queries, n_points in ((500, 2000), (5000, 2000), (2000, 20_000), (256, 200_000)):
        for dtype in ("float64", "float32"):
            sizes = {"n_queries": n_queries, "n_points": n_points, "n_nodes": 64}
            cpu = engine_case(dtype, **sizes)
            gpu = engine_case(dtype, device="cuda", **sizes)
            for v in (0.3, 1e-3):
                here, expected = finished(lambda c=cpu, v=v: c.moments(v), repeats=1)
                there, found = finished(lambda c=gpu, v=v: c.moments(v))
                flops = 2 * 10 * n_queries * 64 * n_points
                difference = (found.trace.cpu() - expected.trace).abs().max()
                row(
                    n_queries,
                    n_points,
                    dtype,
                    v,
                    f"{here:.4f}",
                    f"{there:.4f}",
                    f"{here / there:.0f}x",
                    f"{flops / there / 1e12:.1f}",
                    f"{difference:.0e}",
                )


def compare(model, what, call):
    """Print one line: a call of the same fitted model on both devices."""
    here, expected = finished(lambda: call(model.set_params(device="cpu")), repeats=1)
    there, found = finished(lambda: call(model.set_params(device="cuda")))
    row(
        what,
        f"{here:.3f}",
        f"{there:.3f}",
        f"{here / there:.1f}x",
        f"{np.abs(found - expected).max():.0e}",
    )


def estimators(full):
    """Print time and error of whole calls."""
    print()
    header("call", "CPU (s)", "GPU (s)", "ratio", "largest difference")
    few = SmoothedScoreDiffusion(0.05, 0.15, n_levels=100, n_steps=100).fit(
        make_circle(12, spacing="even")
    )
    compare(
        few,
        "score_samples, 12 points, 1000 rows, 100 steps (P2)",
        lambda m: m.score_samples(make_circle(1000, spacing="even")),
    )
    rng = np.random.RandomState(0)
    for d in (2, 10, 64):
        X, Q = rng.normal(size=(10_000, d)), rng.normal(size=(1000, d))
        compare(
            KDESampler(0.3).fit(X),
            f"KDESampler.score_samples, d = {d} (P4)",
            lambda m, Q=Q: m.score_samples(Q),
        )
    X, Q = surface(1000), surface(1000, seed=1)
    model = SmoothedScoreDiffusion(0.1, 0.2).fit(X)
    compare(model, "score_samples, 1000 points in R^8, 1000 rows", lambda m: m.score_samples(Q))
    compare(
        model, "sample, 1000 points in R^8, 1000 rows", lambda m: m.sample(1000, random_state=0)
    )
    compare(
        model,
        "leave_one_out_log_density, 1000 points in R^8",
        lambda m: m.leave_one_out_log_density(),
    )
    for n in (100_000, 1_000_000) if full else (100_000,):
        bandwidth = 0.5 * n ** (-1 / 6)
        model = SmoothedScoreDiffusion(bandwidth, 2 * bandwidth, memory_limit=2048)
        model.fit(surface(n, noise=0))
        compare(
            model,
            f"sample, {n} points in R^8, 1000 rows (P6)",
            lambda m: m.sample(1000, random_state=0),
        )


def run(full=False):
    """Print both tables."""
    if not torch.cuda.is_available():
        print(
            "No CUDA device here; `python benchmarks/gpu.py` prints its table where there is one."
        )
        return
    print("GPU: the same calls on both devices of one machine.")
    engine()
    estimators(full)


if __name__ == "__main__":
    run(full_requested())
