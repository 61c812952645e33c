"""P8: time and error of float32 against float64."""

import numpy as np
from _common import full_requested, header, row, timed
from _problems import engine_case, surface

from skdiffsmooth import SmoothedScoreDiffusion


def run(full=False):
    """Print the table: the engine at four noise levels, and log-densities."""
    print(
        "P8, float32 against float64: engine as in P1, log-densities of rows on a surface in R^8.\n"
    )
    header("what", "float64 (s)", "float32 (s)", "ratio", "largest error")
    single, double = engine_case("float32"), engine_case("float64")
    for v in (1.0, 1e-1, 1e-2, 1e-4):
        slow, expected = timed(lambda v=v: double.moments(v))
        fast, found = timed(lambda v=v: single.moments(v))
        error = max(
            (found.mean - expected.mean).abs().max(), (found.trace - expected.trace).abs().max()
        )
        name = f"mean + trace, v = {v:g}"
        row(name, f"{slow:.3f}", f"{fast:.3f}", f"{slow / fast:.1f}x", f"{error:.0e}")

    n_points, n_queries = (2000, 1000) if full else (1000, 100)
    X, Q = surface(n_points), surface(n_queries, seed=1)
    for bandwidth in (0.3, 0.1, 0.03):
        seconds, values = {}, {}
        for dtype in ("float64", "float32"):
            model = SmoothedScoreDiffusion(bandwidth, 1.5 * bandwidth, dtype=dtype).fit(X)
            seconds[dtype], values[dtype] = timed(lambda m=model: m.score_samples(Q), repeats=3)
        slow, fast = seconds["float64"], seconds["float32"]
        error = np.abs(values["float32"] - values["float64"]).max()
        name = f"score_samples, N = {n_points}, B = {n_queries}, bandwidth {bandwidth}"
        row(name, f"{slow:.2f}", f"{fast:.2f}", f"{slow / fast:.1f}x", f"{error:.0e} nats")


if __name__ == "__main__":
    run(full_requested())
