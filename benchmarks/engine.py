"""P1: time and error of the engine against the direct way over the noise level."""

import itertools

import torch
from _common import full_requested, header, peak_rate, row, timed
from _problems import engine_case
from _rivals import direct


def fastest_tile(points, x, offsets):
    """Return the number of queries at which the direct way is fastest here."""
    return min(
        (1, 4, 16, 64),
        key=lambda tile: timed(lambda: direct(points, x[:64], 0.1, offsets, tile), repeats=2)[0],
    )


def run(full=False):
    """Print the table and the steepest rise of the time between neighbouring noise levels."""
    posterior, x, nodes = engine_case()
    rate = peak_rate(torch.float64)
    columns = posterior.dimension + 2
    flops = 2 * columns * len(x) * len(nodes) * posterior.n_points
    tile = fastest_tile(posterior.points, x, nodes.offsets)
    print(
        f"P1, engine: {len(x)} queries, {posterior.n_points} points, {len(nodes)} nodes, "
        f"{posterior.dimension} dimensions, sigma 0.3, float64. Direct: tiles of {tile} queries, its "
        f"fastest. Of peak: 2 (r + 2) B M N flops over the time, of {rate / 1e9:.0f} GFlop/s.\n"
    )
    header(
        "v", "direct (s)", "mean + trace (s)", "ratio", "mean only (s)", "of peak", "largest error"
    )
    times = {}
    for k in range(13):
        v = 10 ** (-k / 3)
        slow, (mean, trace) = timed(
            lambda v=v: direct(posterior.points, x, v, nodes.offsets, tile),
            repeats=3 if full else 1,
            warm_up=full,
        )
        fast, found = timed(lambda v=v: posterior.moments(x, v, nodes, trace=True))
        mean_only, _ = timed(lambda v=v: posterior.moments(x, v, nodes))
        times[v] = fast
        error = max((found.mean - mean).abs().max(), (found.trace - trace).abs().max())
        row(
            f"{v:.1e}",
            f"{slow:.2f}",
            f"{fast:.3f}",
            f"{slow / fast:.1f}x",
            f"{mean_only:.3f}",
            f"{flops / fast / rate:.0%}",
            f"{error:.0e}",
        )
    steps = [(times[b] / times[a], a, b) for a, b in itertools.pairwise(times)]
    rise, a, b = max(steps)
    print(f"\nSteepest rise between neighbours: {rise:.1f}x, from v = {a:.1e} to {b:.1e}.")


if __name__ == "__main__":
    run(full_requested())
