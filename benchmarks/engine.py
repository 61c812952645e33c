"""P1: time and error of the engine against the direct method, by noise level."""

import itertools

import torch
from _common import full_requested, header, peak_rate, row, timed
from _problems import engine_case
from _rivals import direct


def fastest_tile(case):
    """Return the number of queries at which the direct way is fastest here."""
    some = case.queries[:64]
    return min(
        (1, 4, 16, 64),
        key=lambda tile: timed(lambda: direct(case.points, some, 0.1, case.offsets, tile), 2)[0],
    )


def run(full=False):
    """Print the table and the steepest rise of the time between neighbouring noise levels."""
    case = engine_case()
    n_points, dimension = case.points.shape
    n_queries, n_nodes = len(case.queries), len(case.offsets)
    rate = peak_rate(torch.float64)
    flops = 2 * (dimension + 2) * n_queries * n_nodes * n_points
    tile = fastest_tile(case)
    print(
        f"P1, engine: {n_queries} queries, {n_points} points, {n_nodes} nodes, {dimension} dimensions, "
        f"sigma 0.3, float64. Direct: tiles of {tile} queries, its fastest. Of peak: 2 (r + 2) B M N "
        f"flops over the time of mean + trace, of {rate / 1e9:.0f} GFlop/s.\n"
    )
    header(
        "v", "direct (s)", "mean + trace (s)", "ratio", "mean only (s)", "of peak", "largest error"
    )
    times = {}
    for k in range(19 if full else 13):
        v = 10 ** (-k / 3)
        slow, (mean, trace) = timed(
            lambda v=v: direct(case.points, case.queries, v, case.offsets, tile),
            repeats=5 if full else 3,
            warm_up=False,
        )
        fast, found = timed(lambda v=v: case.moments(v))
        mean_only, _ = timed(lambda v=v: case.moments(v, trace=False))
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
    rise, a, b = max((times[b] / times[a], a, b) for a, b in itertools.pairwise(times))
    print(f"\nSteepest rise between neighbours: {rise:.1f}x, from v = {a:.1e} to {b:.1e}.")
    what_sets_could_share()


def what_sets_could_share():
    """Print the time of a node at few and at many nodes: the queries' half is computed once a call."""
    print(
        "\nWhat several scales in one call could share is the queries' half of the exponentials, "
        "which a call pays once. Milliseconds for each 64 nodes, v = 0.1:\n"
    )
    header("moments", *(f"{n_nodes} nodes" for n_nodes in (64, 128, 512)))
    for trace in (False, True):
        times = []
        for n_nodes in (64, 128, 512):
            case = engine_case(n_nodes=n_nodes)
            seconds, _ = timed(lambda case=case, trace=trace: case.moments(0.1, trace), repeats=9)
            times.append(f"{1e3 * seconds * 64 / n_nodes:.1f}")
        row("mean and trace" if trace else "mean", *times)


if __name__ == "__main__":
    run(full_requested())
