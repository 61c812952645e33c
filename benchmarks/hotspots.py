"""Profile: where the time of one likelihood run goes, and of one fit of `DensityStacking()`."""

import contextlib
import cProfile
import pstats
import time
from unittest import mock

from _common import full_requested, header, row
from _problems import surface
from torch.profiler import ProfilerActivity, profile

from skdiffsmooth import SmoothedScoreDiffusion, bases
from skdiffsmooth._diffusion import comparison, fitting, geometry
from skdiffsmooth._utils import rows
from skdiffsmooth.bases import ManifoldParzen
from skdiffsmooth.compose import DensityStacking, _members, _stacking

# What a fit of a stack does, and the function that does it where it is called.
PARTS = {
    "choice of settings": (comparison, "choose_settings"),
    "mixtures": (bases, "fit_restarts"),
    "bandwidths of windows": (ManifoldParzen, "leave_one_out"),
    "other bandwidths": (geometry, "gaussian_leave_one_out"),
    "errors of nodes": (fitting, "enough_nodes"),
    "corrections of divergences": (fitting, "divergence_shifts"),
    "held-out rows": (_members, "log_density_of"),
    "search for copies of rows": (rows, "near_rows"),
    "weights": (_stacking, "optimal_weights"),
}


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


def by_part(call):
    """Print CPU seconds of a call by part, those of a part within another in neither twice."""
    spent, running = dict.fromkeys((*PARTS, "all else"), 0.0), ["all else"]
    since = [time.process_time()]

    def turn_to(part):
        now = time.process_time()
        spent[running[-1]] += now - since[0]
        since[0] = now
        return part

    def timed(name, function):
        def wrapped(*args, **kwargs):
            running.append(turn_to(name))
            try:
                return function(*args, **kwargs)
            finally:
                turn_to(None)
                running.pop()

        return wrapped

    with contextlib.ExitStack() as stack:
        for name, (owner, attribute) in PARTS.items():
            function = timed(name, getattr(owner, attribute))
            stack.enter_context(mock.patch.object(owner, attribute, function))
        since[0] = time.process_time()
        call()
        turn_to(None)
    total = sum(spent.values())
    header("part", "CPU (s)", "share")
    for name, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        row(name, f"{seconds:.2f}", f"{seconds / total:.0%}")


def stacks():
    """Print the parts of fits of `DensityStacking()`."""
    import _tables

    for name in ("stocks", "body"):
        train, _ = _tables.split(_tables.load(name), 0, 5000)
        print(f"\nDensityStacking().fit of {name}, {len(train)} x {train.shape[1]}\n")
        by_part(lambda train=train: DensityStacking().fit(train))


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
    if full:
        stacks()


if __name__ == "__main__":
    run(full_requested())
