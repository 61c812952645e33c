"""Faults that are injected, and what became of each: interrupts, full memory and disks, dead workers.

`python benchmarks/faults.py 100` injects as many faults of each kind and prints a table. A fault is
right if the estimator is afterwards the old model or the new one, if files are whole or refused, and if
nothing hangs for longer than a minute.
"""

import argparse
import copy
import io
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np
import torch
from _common import header, row

import skdiffsmooth
from skdiffsmooth import (
    CoarseScoreDiffusion,
    KDESampler,
    LocalScoreDiffusion,
    ManifoldAdaptedDiffusion,
    NeuralScoreDiffusion,
    SmoothedScoreDiffusion,
)
from skdiffsmooth.compose import DensityOutlierDetector, DensityStacking, TransformedDensity
from skdiffsmooth.tables import TableDensity

SOURCE = str(Path(skdiffsmooth.__file__).parent)
COARSE = {"n_nodes": 8, "n_levels": 2, "n_steps": 2}
SMOOTHED = SmoothedScoreDiffusion(0.3, 0.4, **COARSE)
MODELS = {
    "KDESampler": KDESampler(),
    "SmoothedScoreDiffusion": SMOOTHED,
    "ManifoldAdaptedDiffusion": ManifoldAdaptedDiffusion(0.3, 0.4, n_components=1, **COARSE),
    "CoarseScoreDiffusion": CoarseScoreDiffusion(n_components=1, bandwidth=0.05),
    "LocalScoreDiffusion": LocalScoreDiffusion(0.3, size=1, width=0.0, n_levels=2, n_steps=2),
    "NeuralScoreDiffusion": NeuralScoreDiffusion(
        max_iter=2, hidden_layer_sizes=(4,), n_levels=2, n_steps=2
    ),
    "DensityStacking": DensityStacking([("a", KDESampler(0.4)), ("b", SMOOTHED)], cv=2),
    "TransformedDensity": TransformedDensity(KDESampler(0.4)),
    "DensityOutlierDetector": DensityOutlierDetector(KDESampler(0.4)),
    "TableDensity": TableDensity(density=KDESampler()),
}
X, Y = np.random.RandomState(0).normal(size=(2, 25, 2))
Q = X[:4]
LONGEST = 60


class RaiseAt:
    """Raise an exception at the n-th line of the library that runs in this thread."""

    def __init__(self, n, exception):
        self.n, self.exception, self.count = n, exception, 0

    def __enter__(self):
        sys.settrace(self.trace)
        return self

    def __exit__(self, *args):
        sys.settrace(None)

    def trace(self, frame, event, arg):
        if not frame.f_code.co_filename.startswith(SOURCE):
            return None
        self.count += event == "line"
        if event == "line" and self.count == self.n:
            raise self.exception
        return self.trace


def raised(model, exception, rng):
    """Refit, then score, with an exception at a random line of each."""
    old = copy.deepcopy(model).fit(X)
    new = copy.deepcopy(model).fit(Y)
    known = [m.score_samples(Q) for m in (old, new)]
    with RaiseAt(-1, exception) as counter:
        copy.deepcopy(old).fit(Y)
    with RaiseAt(-1, exception) as queries:
        old.score_samples(Q)
    try:
        with RaiseAt(rng.randint(1, counter.count + 1), exception) as fault:
            old.fit(Y)
        # Training ends at an interrupt and returns what it has; cached results take fewer lines.
        outcome = "handled" if fault.count >= fault.n else "ended before"
    except exception:
        outcome = "raised"
    answer = old.score_samples(Q)
    if outcome != "handled" and not any(np.array_equal(answer, each) for each in known):
        return "WRONG: neither the old model nor the new one"
    try:
        with RaiseAt(rng.randint(1, queries.count + 1), exception):
            old.score_samples(Q)
    except exception:
        pass
    if not np.array_equal(old.score_samples(Q), answer):
        return "WRONG: another answer after an interrupted query"
    # Nothing that a call sets for its own time may stay.
    if torch.get_default_dtype() != torch.float32 or np.geterr()["over"] != "warn":
        return "WRONG: global state"
    return outcome


class FullDisk(io.BytesIO):
    """A file that has no space left after some bytes."""

    def __init__(self, size):
        super().__init__()
        self.left = size

    def write(self, data):
        self.left -= memoryview(data).nbytes
        if self.left < 0:
            raise OSError(28, "No space left on device")
        return super().write(data)


def full_disk(model, rng):
    """Save to a disk that fills up, load what was written."""
    import skops.io

    model = copy.deepcopy(model).fit(X)
    answer = model.score_samples(Q)
    for dump, load in ((pickle.dump, pickle.load), (skops.io.dump, skops.io.load)):
        whole = io.BytesIO()
        dump(model, whole)
        file = FullDisk(rng.randint(len(whole.getvalue())))
        try:
            dump(model, file)
            return "WRONG: no error"
        except OSError:
            pass
        try:
            load(io.BytesIO(file.getvalue()))
            return "WRONG: loaded a part"
        except Exception as error:
            if isinstance(error, MemoryError):
                return "WRONG: lack of memory"
        if not np.array_equal(model.score_samples(Q), answer):
            return "WRONG: another model"
    return "refused"


def die(X):
    os.kill(os.getpid(), signal.SIGKILL)


class Deadly(KDESampler):
    """A density whose fit ends its process, if that is a worker."""

    def fit(self, X, y=None, sample_weight=None):
        if multiprocessing.parent_process() is not None or os.getpid() != PID:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().fit(X, y, sample_weight)


PID = os.getpid()


def dead_worker(rng):
    """Fit a mixture whose members are fitted by processes that are killed."""
    model = DensityStacking([("a", KDESampler(0.4)), ("b", KDESampler(0.7))], cv=2).fit(X)
    answer = model.score_samples(Q)
    model.set_params(estimators=[("a", Deadly(0.4)), ("b", KDESampler(0.7))], n_jobs=2)
    with joblib.parallel_config("loky"):
        try:
            model.fit(Y)
            outcome = "WRONG: no error"
        except Exception as error:
            outcome = f"raised {type(error).__name__}"
    if not np.array_equal(model.score_samples(Q), answer):
        return "WRONG: another model"
    model.set_params(estimators=[("a", KDESampler(0.4)), ("b", KDESampler(0.7))]).fit(X)
    return outcome if np.array_equal(model.score_samples(Q), answer) else "WRONG: another fit"


def score_and_exit(model, answer):
    os._exit(0 if np.array_equal(model.score_samples(Q), answer) else 1)


def fork_after_threads(rng):
    """Fork while eight threads score; the child scores, too."""
    model = copy.deepcopy(SMOOTHED).fit(X)
    answer, stop = model.score_samples(Q), threading.Event()

    def work():
        while not stop.is_set():
            model.score_samples(Q)

    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(work)
        process = multiprocessing.get_context("fork").Process(
            target=score_and_exit, args=(model, answer)
        )
        process.start()
        process.join(LONGEST)
        stop.set()
    if process.exitcode is None:
        process.kill()
        return "WRONG: the child hangs"
    return "right" if process.exitcode == 0 else "WRONG: another answer in the child"


def nested(rng):
    """Fits with two workers inside two workers."""
    model = SmoothedScoreDiffusion(n_jobs=2, **COARSE)
    fits = joblib.Parallel(2)(joblib.delayed(copy.deepcopy(model).fit)(X) for _ in range(2))
    expected = SmoothedScoreDiffusion(**COARSE).fit(X).score_samples(Q)
    right = all(np.allclose(fit.score_samples(Q), expected, atol=1e-10) for fit in fits)
    return "right" if right else "WRONG: another answer"


def crowd(rng):
    """Eight threads and two processes score and draw from one model at once."""
    model = copy.deepcopy(SMOOTHED).fit(X)
    expected = model.score_samples(Q), model.sample(3, random_state=0)
    with ThreadPoolExecutor(8) as threads, joblib.parallel_config("loky"):
        scores = [threads.submit(model.score_samples, Q) for _ in range(16)]
        draws = [threads.submit(model.sample, 3, random_state=0) for _ in range(16)]
        others = joblib.Parallel(2)(joblib.delayed(model.score_samples)(Q) for _ in range(4))
        results = [each.result(LONGEST) for each in scores] + others
        right = all(np.array_equal(each, expected[0]) for each in results)
        right &= all(np.array_equal(each.result(LONGEST), expected[1]) for each in draws)
    return "right" if right else "WRONG: another answer"


def refit_during_queries(rng):
    """Another thread refits; each answer is that of one of the two models."""
    model = copy.deepcopy(SMOOTHED).fit(X)
    known = [copy.deepcopy(SMOOTHED).fit(rows).score_samples(Q) for rows in (X, Y)]
    with ThreadPoolExecutor(1) as pool:
        refits = [pool.submit(model.fit, rows) for rows in (Y, X, Y, X)]
        while not all(each.done() for each in refits):
            answer = model.score_samples(Q)
            if not any(np.array_equal(answer, each) for each in known):
                return "WRONG: an answer of neither model"
    return "right"


SINGLE = {f.__name__: f for f in (dead_worker, fork_after_threads, nested, crowd)}
SINGLE["refit_during_queries"] = refit_during_queries


def run(count, kinds):
    """Print the table of outcomes; return the number of wrong ones."""
    warnings.simplefilter("ignore")
    header("fault", "model", "injected", "outcomes", "CPU s")
    wrong = 0

    def line(kind, name, call, repeats):
        nonlocal wrong
        began = time.process_time()
        outcomes = Counter(call(np.random.RandomState(k)) for k in range(repeats))
        wrong += sum(n for outcome, n in outcomes.items() if outcome.startswith("WRONG"))
        text = ", ".join(f"{n} {outcome}" for outcome, n in outcomes.items())
        row(kind, name, repeats, text, f"{time.process_time() - began:.1f}")

    for name, model in MODELS.items():
        for exception in (KeyboardInterrupt, MemoryError):
            if exception.__name__ in kinds:
                line(
                    exception.__name__,
                    name,
                    lambda rng, m=model, e=exception: raised(m, e, rng),
                    count,
                )
        if "full_disk" in kinds:
            line("full_disk", name, lambda rng, m=model: full_disk(m, rng), max(count // 10, 1))
    for kind in kinds & set(SINGLE):
        line(kind, "", SINGLE[kind], max(count // 20, 1))
    return wrong


if __name__ == "__main__":
    everything = ["KeyboardInterrupt", "MemoryError", "full_disk", *SINGLE]
    parser = argparse.ArgumentParser()
    parser.add_argument("count", nargs="?", type=int, default=100)
    parser.add_argument("--kinds", nargs="+", choices=everything, default=everything)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sys.exit(bool(run(arguments.count, set(arguments.kinds))))
