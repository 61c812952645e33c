"""Time and error of the engine against the direct way, over the noise level, in one process."""

import math
import statistics
import time

import torch

from skdiffsmooth._posterior import Nodes, Posterior


def median_time(call, repeats=5):
    """Return the median wall time of a call, in seconds, after one call to warm up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def direct(points, x, v, offsets, tile=64):
    """Return mean and trace by one softmax over the points for each shifted query."""
    means, traces = [], []
    squares = points.square().sum(1)
    for start in range(0, len(x), tile):
        y = (x[start : start + tile, None, :] + offsets).flatten(0, 1)
        logits = torch.cdist(y, points).square_().mul_(-0.5 / v)
        weights = torch.softmax(logits, dim=1)
        mean = weights @ points
        trace = weights @ squares - mean.square().sum(1)
        means.append(mean.unflatten(0, (-1, len(offsets))).mean(1))
        traces.append(trace.unflatten(0, (-1, len(offsets))).mean(1))
    return torch.cat(means), torch.cat(traces)


def peak_rate(dtype, size=1500):
    """Return the machine's rate of matrix products, in GFlop/s."""
    a = torch.ones(size, size, dtype=dtype)
    return 2 * size**3 / median_time(lambda: a @ a) / 1e9


def run(n_points=2000, n_queries=500, n_nodes=128, dimension=8, sigma=0.3):
    """Print the table: 500 queries, 2000 points, 128 nodes, 8 dimensions, float64."""
    generator = torch.Generator().manual_seed(0)
    normal = {"generator": generator, "dtype": torch.float64}
    points = torch.randn(n_points, dimension, **normal)
    points -= points.mean(0)
    x = torch.randn(n_queries, dimension, **normal)
    offsets = sigma * torch.randn(n_nodes // 2, dimension, **normal)
    offsets = torch.cat([offsets, -offsets])
    nodes = Nodes(offsets, torch.full((n_nodes,), 1 / n_nodes, dtype=torch.float64))
    log_weights = torch.full((n_points,), -math.log(n_points), dtype=torch.float64)
    posterior = Posterior(points, log_weights, memory_limit=1024)
    rate = peak_rate(torch.float64)
    flops = 2 * (dimension + 2) * n_queries * n_nodes * n_points
    print(
        f"Engine: B={n_queries} queries, N={n_points} points, M={n_nodes} nodes, r={dimension}, "
        f"sigma={sigma}, float64, {torch.get_num_threads()} threads, "
        f"matrix products at {rate:.0f} GFlop/s\n"
    )
    print("| v | direct (s) | engine, mean + trace (s) | ratio | mean only (s) | of peak | error |")
    print("|---|---|---|---|---|---|---|")
    for v in (1.0, 1e-1, 1e-2, 1e-3, 1e-4):
        slow = median_time(lambda v=v: direct(points, x, v, offsets), repeats=1)
        fast = median_time(lambda v=v: posterior.moments(x, v, nodes, trace=True))
        mean_only = median_time(lambda v=v: posterior.moments(x, v, nodes))
        mean, trace = direct(points, x, v, offsets)
        found = posterior.moments(x, v, nodes, trace=True)
        error = max(
            float((found.mean - mean).abs().max()), float((found.trace - trace).abs().max())
        )
        share = flops / fast / 1e9 / rate
        print(
            f"| {v:g} | {slow:.2f} | {fast:.3f} | {slow / fast:.0f}x | {mean_only:.3f} | "
            f"{share:.0%} | {error:.0e} |"
        )


if __name__ == "__main__":
    run()
