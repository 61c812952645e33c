"""Faults that are injected, and what became of each: interrupts, full memory and disks, dead workers.

`python benchmarks/faults.py 100` injects as many faults of each kind and prints a table. Afterwards the
estimator is the old model or the new one, files are whole or refused, and nothing hangs for a minute;
all else is printed as WRONG. `--soak 3600` calls all models for an hour instead, and watches the memory.
"""

import argparse
import contextlib
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
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import skops.io
import torch
from _common import header, row
from memory import resident

import skdiffsmooth
from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth.compose import DensityStacking

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from fitted_models import COARSE, MODELS, SMOOTHED

SOURCE = str(Path(skdiffsmooth.__file__).parent)
X, Y = np.random.RandomState(0).normal(size=(2, 25, 2))
Q = X[:4]
LONGEST = 60
# Rows that a soak prints after its first.
SOAK_ROWS = 12
PID = os.getpid()


def same(model, *answers):
    """Return whether a model gives one of the answers, to the last bit."""
    found = model.score_samples(Q)
    return any(np.array_equal(found, each) for each in answers)


class RaiseAt:
    """Raise an exception at the n-th line of the library that runs in this thread."""

    def __init__(self, n, exception=None):
        self.n, self.exception, self.count = n, exception, 0

    def __enter__(self):
        self.before = sys.gettrace()
        sys.settrace(self.trace)
        return self

    def __exit__(self, *args):
        sys.settrace(self.before)

    def trace(self, frame, event, arg):
        if not frame.f_code.co_filename.startswith(SOURCE):
            return None
        self.count += event == "line"
        if event == "line" and self.count == self.n:
            raise self.exception
        return self.trace


def raised(model, exception, rng):
    """Refit, then score, with an exception at a random line of each."""
    old, new = copy.deepcopy(model).fit(X), copy.deepcopy(model).fit(Y)
    known = [m.score_samples(Q) for m in (old, new)]
    with RaiseAt(-1) as fit:
        copy.deepcopy(old).fit(Y)
    with RaiseAt(-1) as query:
        old.score_samples(Q)
    try:
        with RaiseAt(rng.randint(1, fit.count + 1), exception) as fault:
            old.fit(Y)
        # Training ends at an interrupt and returns what it has; cached results take fewer lines.
        outcome = "handled" if fault.count >= fault.n else "ended before"
    except exception:
        outcome = "raised"
    answer = old.score_samples(Q)
    if outcome != "handled" and not same(old, *known):
        return "WRONG: neither the old model nor the new one"
    with contextlib.suppress(exception), RaiseAt(rng.randint(1, query.count + 1), exception):
        old.score_samples(Q)
    if not same(old, answer):
        return "WRONG: another answer after an interrupted query"
    # Nothing that a call sets for its own time may stay.
    if torch.get_default_dtype() != torch.float32 or np.geterr()["over"] != "warn":
        return "WRONG: global state"
    return outcome


class FullDisk(io.BytesIO):
    """A file that has no space left after some bytes."""

    left = 0

    def write(self, data):
        self.left -= memoryview(data).nbytes
        if self.left < 0:
            raise OSError(28, "No space left on device")
        return super().write(data)


def full_disk(model, rng):
    """Save to a disk that fills up, load what was written."""
    model = copy.deepcopy(model).fit(X)
    answer = model.score_samples(Q)
    for library in (pickle, skops.io):
        file = FullDisk()
        file.left = rng.randint(len(library.dumps(model)))
        try:
            library.dump(model, file)
            return "WRONG: no error"
        except OSError:
            pass
        try:
            library.loads(file.getvalue())
            return "WRONG: loaded a part"
        except MemoryError:
            return "WRONG: lack of memory"
        except Exception:
            if not same(model, answer):
                return "WRONG: another model"
    return "refused"


class Deadly(KDESampler):
    """A density whose fit ends its process, if that is a worker."""

    def fit(self, X, y=None, sample_weight=None):
        if os.getpid() != PID or multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().fit(X, y, sample_weight)


def dead_worker(rng):
    """Fit a mixture whose members are fitted by processes that are killed."""
    members = [("a", KDESampler(0.4)), ("b", KDESampler(0.7))]
    model = DensityStacking(members, cv=2).fit(X)
    answer = model.score_samples(Q)
    model.set_params(estimators=[("a", Deadly(0.4)), members[1]], n_jobs=2)
    try:
        with joblib.parallel_config("loky"):
            model.fit(Y)
        return "WRONG: no error"
    except Exception as error:
        outcome = f"raised {type(error).__name__}"
    if not same(model, answer):
        return "WRONG: another model"
    model.set_params(estimators=members).fit(X)
    return outcome if same(model, answer) else "WRONG: another fit"


def fork_after_threads(rng):
    """Fork while eight threads score; the child scores, too."""
    model, stop = copy.deepcopy(SMOOTHED).fit(X), threading.Event()
    answer = model.score_samples(Q)

    def work():
        while not stop.is_set():
            model.score_samples(Q)

    def score_and_exit():
        os._exit(not same(model, answer))

    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(work)
        child = multiprocessing.get_context("fork").Process(target=score_and_exit)
        child.start()
        child.join(LONGEST)
        stop.set()
    if child.exitcode is None:
        child.kill()
        return "WRONG: the child hangs"
    return "WRONG: another answer in the child" if child.exitcode else "right"


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
    answer, drawn = model.score_samples(Q), model.sample(3, random_state=0)
    with ThreadPoolExecutor(8) as threads, joblib.parallel_config("loky"):
        scores = [threads.submit(model.score_samples, Q) for _ in range(16)]
        draws = [threads.submit(model.sample, 3, random_state=0) for _ in range(16)]
        others = joblib.Parallel(2)(joblib.delayed(model.score_samples)(Q) for _ in range(4))
        others += [each.result(LONGEST) for each in scores]
        right = all(np.array_equal(each, answer) for each in others)
        right &= all(np.array_equal(each.result(LONGEST), drawn) for each in draws)
    return "right" if right else "WRONG: another answer"


SINGLE = (dead_worker, fork_after_threads, nested, crowd)


class Watched:
    """A fitted model that all threads use, and its answers, which may never change."""

    def __init__(self, model):
        self.model = copy.deepcopy(model).fit(X)
        self.score, self.draw = self.model.score_samples(Q), self.drawn(self.model)

    def drawn(self, model):
        return model.sample(3, random_state=0) if hasattr(model, "sample") else None

    def call(self, method):
        """Return whether a call gives the known answer to the last bit."""
        if method == "sample":
            return np.array_equal(self.drawn(self.model), self.draw)
        model = self.model
        if method == "fit":
            model = copy.deepcopy(model).fit(X)
        elif method in LIBRARIES:
            data = LIBRARIES[method].dumps(model)
            trust = (
                {"trusted": skops.io.get_untrusted_types(data=data)} if method == "skops" else {}
            )
            # The copy takes the place of the model, as after a restart.
            model = self.model = LIBRARIES[method].loads(data, **trust)
        return np.array_equal(model.score_samples(Q), self.score)


LIBRARIES = {"pickle": pickle, "skops": skops.io}
METHODS = ("fit", "score", "sample", *LIBRARIES)


def soak(seconds):
    """Call all models at random from four threads; print calls, wrong answers and memory."""
    warnings.simplefilter("ignore")
    models = {name: Watched(model) for name, model in MODELS.items()}
    calls = Counter({(method, number): 0 for method in METHODS for number in range(4)})
    began, wrong = time.monotonic(), []

    def work(number):
        rng = np.random.RandomState(number)
        while time.monotonic() < began + seconds:
            method, name = rng.choice(METHODS), rng.choice(list(MODELS))
            if not models[name].call(method):
                wrong.append((method, name))
            calls[method, number] += 1

    header("minutes", "calls", "wrong", "resident memory, MiB", "CPU s")
    with ThreadPoolExecutor(4) as threads:
        workers = [threads.submit(work, number) for number in range(4)]
        for part in range(SOAK_ROWS + 1):
            time.sleep(max(0, began + seconds * part / SOAK_ROWS - time.monotonic()))
            minutes = (time.monotonic() - began) / 60
            cells = f"{minutes:.1f}", sum(calls.values()), len(wrong), f"{resident('VmRSS'):.0f}"
            row(*cells, f"{time.process_time():.0f}")
        for worker in workers:
            worker.result()
    of_method = Counter()
    for (method, _), count in calls.items():
        of_method[method] += count
    print("\n" + ", ".join(f"{count} {method}" for method, count in of_method.items()), *wrong)
    return bool(wrong)


def run(count, kinds):
    """Print the table of outcomes; return whether one was wrong."""
    warnings.simplefilter("ignore")
    header("fault", "model", "injected", "outcomes", "CPU s")
    # Fault, name of the model, what injects it, how many.
    faults = []
    for name, model in MODELS.items():
        for error in (KeyboardInterrupt, MemoryError):
            faults.append((error.__name__, name, partial(raised, model, error), count))
        faults.append(("full_disk", name, partial(full_disk, model), max(count // 10, 1)))
    faults += [(each.__name__, "", each, max(count // 20, 1)) for each in SINGLE]
    is_wrong = False
    for kind, name, inject, repeats in faults:
        if kind in kinds:
            began = time.process_time()
            outcomes = Counter(inject(np.random.RandomState(k)) for k in range(repeats))
            text = ", ".join(f"{n} {outcome}" for outcome, n in outcomes.items())
            row(kind, name, repeats, text, f"{time.process_time() - began:.1f}")
            is_wrong |= "WRONG" in text
    return is_wrong


if __name__ == "__main__":
    kinds = ["KeyboardInterrupt", "MemoryError", "full_disk", *(each.__name__ for each in SINGLE)]
    parser = argparse.ArgumentParser()
    parser.add_argument("count", nargs="?", type=int, default=100)
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--soak", type=int, metavar="SECONDS", help="only call models so long")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.soak:
        sys.exit(soak(arguments.soak))
    sys.exit(run(arguments.count, arguments.kinds))
