"""S3 and S7: CPU seconds of fits that choose everything, their held-out likelihood, and small calls.

To compare with another commit, run the script with PYTHONPATH set to a checkout of it.
"""

import statistics
import time

import numpy as np
from _common import full_requested, header, row
from _tables import load, split

from skdiffsmooth import SmoothedScoreDiffusion
from skdiffsmooth.model_selection import SmoothedScoreDiffusionCV

QUICK = ("iris", "wine", "olive oil", "quakes")
FULL = (*QUICK, "crabs", "glass", "geyser", "diabetes", "body", "breast cancer", "stocks")
MOST_ROWS = 3000
N_CALLS = 20


def cpu_seconds(call):
    """Return the CPU seconds of a call, and its value."""
    start = time.process_time()
    value = call()
    return time.process_time() - start, value


def fits(name, make, n_splits):
    """Return the median CPU seconds of fits, and the mean held-out log-density."""
    seconds, means = [], []
    for seed in range(n_splits):
        train, test = split(load(name), seed, MOST_ROWS)
        spent, model = cpu_seconds(lambda train=train: make().fit(train))
        seconds.append(spent)
        means.append(model.score(test))
    return statistics.median(seconds), float(np.mean(means))


def small_calls():
    """Print the CPU milliseconds of calls for one row and for twelve."""
    train, test = split(load("iris"), 0, MOST_ROWS)
    model = SmoothedScoreDiffusion().fit(train)
    calls = {
        "score_samples, one row": lambda: model.score_samples(test[:1]),
        "score_samples, twelve rows": lambda: model.score_samples(test[:12]),
        "sample(1)": lambda: model.sample(1, random_state=0),
    }
    header("call, a model of 113 rows in R^4", "CPU (ms)")
    for name, call in calls.items():
        times = [cpu_seconds(call)[0] for _ in range(N_CALLS)]
        row(name, f"{1e3 * statistics.median(times):.1f}")


def run(full=False):
    """Print the tables; in full mode over more tables, with three splits, and with the search."""
    makers = {"SmoothedScoreDiffusion": SmoothedScoreDiffusion}
    if full:
        makers["SmoothedScoreDiffusionCV"] = SmoothedScoreDiffusionCV
    n_splits = 3 if full else 1
    print(f"S3, default fits, standardised columns, splits: {n_splits}.\n")
    header("estimator", "data", "fit (CPU s)", "held out (nats a row)")
    for estimator, make in makers.items():
        for name in FULL if full else QUICK:
            seconds, mean = fits(name, make, n_splits)
            row(estimator, name, f"{seconds:.2f}", f"{mean:.3f}")
    print("\nS7, small calls.\n")
    small_calls()


if __name__ == "__main__":
    run(full_requested())
