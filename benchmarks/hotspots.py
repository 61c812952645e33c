"""Profile: where the time of one likelihood run goes, by operation and by function."""

import cProfile
import pstats

from _common import full_requested, header, row
from _problems import surface
from torch.profiler import ProfilerActivity, profile

from skdiffsmooth import SmoothedScoreDiffusion


def by_operation(call, top):
    """Print torch's operations by the time spent in themselves."""
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        call()
    entries = recorded.key_averages()
    total = sum(entry.self_cpu_time_total for entry in entries)
    header("operation", "self (s)", "share", "calls")
    for entry in sorted(entries, key=lambda entry: -entry.self_cpu_time_total)[:top]:
        seconds = entry.self_cpu_time_total
        row(f"`{entry.key}`", f"{seconds / 1e6:.3f}", f"{seconds / total:.0%}", entry.count)


def by_function(call, top):
    """Print the package's functions by the time spent in them and what they call."""
    recorder = cProfile.Profile()
    recorder.runcall(call)
    stats = pstats.Stats(recorder)
    ours = {key: value for key, value in stats.stats.items() if "skdiffsmooth" in key[0]}
    header("function", "with callees (s)", "share", "calls")
    for (path, _, name), (_, calls, _, cumulative, _) in sorted(
        ours.items(), key=lambda item: -item[1][3]
    )[:top]:
        module = path.split("skdiffsmooth/")[-1]
        row(f"`{module}: {name}`", f"{cumulative:.3f}", f"{cumulative / stats.total_tt:.0%}", calls)


def run(full=False):
    """Print both tables for the log-densities of rows on a surface in R^8."""
    n_points, n_queries = (2000, 1000) if full else (1000, 200)
    model = SmoothedScoreDiffusion(0.1, 0.15).fit(surface(n_points))
    queries = surface(n_queries, seed=1)

    def call():
        return model.score_samples(queries)

    call()
    print(
        f"Profile: score_samples of {n_queries} rows, {n_points} points in 8 dimensions, bandwidth "
        "0.1, sigma 0.15. The profilers slow small operations down.\n"
    )
    by_operation(call, 10)
    print()
    by_function(call, 10)


if __name__ == "__main__":
    run(full_requested())
