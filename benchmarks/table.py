"""Held-out log-likelihood of every method on real data: what ``make table`` runs.

Each cell (method, data set, split) is computed once and kept, with the log-density of every test
row, as one file in ``benchmarks/.cache``; a method whose `version` changes is computed again. The
stacks, ranks and paired differences come from these files, without another fit. To add a method,
add a line to `METHODS`.
"""

import argparse
import functools
import hashlib
import json
import platform
import re
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import _densities
import _tables
import joblib
import numpy as np
import sklearn
import torch
import zuko
from scipy.special import logsumexp
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import KFold

import skdiffsmooth
from skdiffsmooth import KDESampler, ManifoldAdaptedDiffusion, SmoothedScoreDiffusion
from skdiffsmooth.compose import DensityStacking
from skdiffsmooth.model_selection import SmoothedScoreDiffusionCV

_HERE = Path(__file__).parent
CACHE = _HERE / ".cache" / "table"
PAGE = _HERE.parent / "docs" / "evidence" / "table.md"
# Out-of-fold log-densities are kept for so many training rows: enough for a handful of weights.
_OUT_OF_FOLD_ROWS = 1000
_FOLDS = 5


class WithDefaults(SmoothedScoreDiffusion):
    """Default parameters; what `fit` chooses is reused where it is fitted out of fold."""

    def refit(self, X):
        chosen = {
            name: getattr(self, f"{name}_")
            for name in ("metric", "bandwidth", "sigma", "background")
        }
        return SmoothedScoreDiffusion(**chosen).fit(X)

    @property
    def chosen_(self):
        ratio = self.sigma_ / self.bandwidth_
        return f"{self.metric_}, {self.bandwidth_:.3g}, x{ratio:.2f}, {self.background_:.3f}"


class Tuned(SmoothedScoreDiffusionCV):
    """The search; what it chooses is reused where it is fitted out of fold."""

    def refit(self, X):
        return clone(self.best_estimator_).fit(X)

    @property
    def chosen_(self):
        return self.best_params_


@functools.lru_cache(maxsize=3)  # the splits of a data set
def _family(data, shape):
    return DensityStacking().fit(np.frombuffer(data).reshape(shape))


class FamilyStack(BaseEstimator):
    """DensityStacking of this package's own densities, by one call."""

    def fit(self, X, y=None):
        # Fitted once for both classes: their members are the same.
        self.model_ = _family(np.ascontiguousarray(X).tobytes(), X.shape)
        shares = zip(self.model_.named_estimators_, self.model_.weights_, strict=True)
        self.chosen_ = {name: round(share, 2) for name, share in shares if share > 0.005}
        return self

    def score_samples(self, X):
        return self.model_.score_samples(X)


class FamilyBest(FamilyStack):
    """The same with combine="best": one model, chosen by the log-likelihood of held-out rows."""

    def fit(self, X, y=None):
        stack = _family(np.ascontiguousarray(X).tobytes(), X.shape)
        place = int(np.nanmean(stack.oof_log_density_, axis=0).argmax())
        self.chosen_ = list(stack.named_estimators_)[place]
        self.model_ = stack.estimators_[place]
        return self


class SameMetricKDE(BaseEstimator):
    """The leave-one-out-tuned KDE in the metric that the model chooses by default."""

    def fit(self, X, y=None):
        self.chosen_ = SmoothedScoreDiffusion().fit(X).metric_
        self.model_ = SmoothedScoreDiffusion("loo", 0.0, metric=self.chosen_, background=0.0).fit(X)
        return self

    def score_samples(self, X):
        return self.model_.score_samples(X)


@dataclass(frozen=True)
class Method:
    """How to make an estimator, and its part in the tables; a new `version` computes it again.

    A member of the stacks is scored out of fold as well, which takes five more fits. What is fitted
    with another method, once for both, takes the other's time.
    """

    make: Callable
    version: str = "1"
    rival: bool = False
    member: bool = True
    fitted_with: str | None = None


METHODS = {
    "KDE": Method(lambda: KDESampler(bandwidth="loo"), rival=True, member=False),
    "KDE full": Method(_densities.FullKDE, rival=True),
    "GMM": Method(_densities.CVGaussianMixture, rival=True, member=False),
    "8 GMMs": Method(_densities.RestartedGaussianMixtures, rival=True),
    "Parzen": Method(_densities.ParzenWindows, version="2", rival=True),
    "flow": Method(_densities.SplineFlow, version="2", rival=True, member=False),
    "KDE same metric": Method(SameMetricKDE, member=False),
    "smoothed": Method(WithDefaults, version="4"),
    "tuned": Method(Tuned, version="4"),
    "auto": Method(FamilyBest, version="3", member=False, fitted_with="family"),
    "family": Method(FamilyStack, version="3", member=False),
    "manifold": Method(ManifoldAdaptedDiffusion, version="4", member=False),
}
MEMBERS = [name for name, method in METHODS.items() if method.member]
# Mixtures of methods, their weights by EM on out-of-fold log-densities.
STACKS = {"stack": MEMBERS, "rivals' stack": [name for name in MEMBERS if METHODS[name].rival]}
SMOOTHED = [name for name in MEMBERS if not METHODS[name].rival]
# Ranks are taken among the rivals, less the isotropic KDE that ours contain, and one of ours.
RIVALS = [name for name, method in METHODS.items() if method.rival and name != "KDE"]
OURS = [name for name, method in METHODS.items() if not method.rival] + ["stack"]


# --- cells -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One fit: a method on a split of a data set."""

    method: str
    data: str
    split: int
    max_train: int

    @property
    def path(self):
        # All that a result depends on; the estimator's code answers by its method's version.
        key = (METHODS[self.method].version, _tables.VERSION, self.max_train)
        digest = hashlib.sha1(repr((self, key)).encode()).hexdigest()[:8]
        names = [re.sub(r"\W+", "_", text) for text in (self.method, self.data)]
        return CACHE / f"{'-'.join(names)}-{self.split}-{digest}.json"

    def result(self):
        """Return the kept result, or None."""
        return json.loads(self.path.read_text()) if self.path.exists() else None

    def rows(self):
        return _tables.split(_tables.load(self.data), self.split, self.max_train)


def compute(cell, again=False):
    """Return the kept result of a cell; fit and score where there is none, or it failed."""
    done = cell.result()
    if done is not None and not again and "error" not in done:
        return done
    torch.set_num_threads(1)
    method = METHODS[cell.method]
    train, test = cell.rows()
    result = {"method": cell.method, "data": cell.data, "split": cell.split}
    result |= {"version": method.version, "n_train": len(train), "n_features": train.shape[1]}
    try:
        clock = [(time.perf_counter(), time.process_time())]
        model = method.make().fit(train)
        clock.append((time.perf_counter(), time.process_time()))
        log_density = model.score_samples(test)
        clock.append((time.perf_counter(), time.process_time()))
        for name, start, end in zip(("fit", "score"), clock, clock[1:], strict=False):
            result[f"{name}_wall"], result[f"{name}_cpu"] = np.subtract(end, start).tolist()
        result["chosen"] = str(getattr(model, "chosen_", None))
        result["test"] = np.round(log_density, 6).tolist()
        if method.member:
            result["out_of_fold"] = np.round(out_of_fold(model, train), 6).tolist()
            result["out_of_fold_cpu"] = time.process_time() - clock[-1][1]
    except Exception as error:  # one estimator that fails on one data set must not end the run
        result["error"] = f"{type(error).__name__}: {error}"
        traceback.print_exc()
    CACHE.mkdir(parents=True, exist_ok=True)
    partial = cell.path.with_suffix(f".{time.time_ns()}")
    partial.write_text(json.dumps(result))
    partial.rename(cell.path)  # whole or not at all, also when two runs meet
    return result


def summary(result):
    """Return one line with the result of a cell."""
    if "error" in result:
        return result["error"]
    seconds = result["fit_cpu"] + result["score_cpu"]
    return f"{np.mean(result['test']):9.3f} {seconds:7.1f} s  {result['chosen']}"


def out_of_fold_splits(n_rows):
    """Return for each of five folds the rows to fit on and the rows to score, the same for all."""
    for train, test in KFold(_FOLDS, shuffle=True, random_state=0).split(np.empty((n_rows, 1))):
        yield train, test[: _OUT_OF_FOLD_ROWS // _FOLDS]


def out_of_fold(model, X):
    """Return log-densities of training rows under fits without them.

    Hyper-parameters stay those chosen on all training rows, where the estimator has a ``refit``.
    """
    parts = []
    for train, test in out_of_fold_splits(len(X)):
        again = model.refit(X[train]) if hasattr(model, "refit") else clone(model).fit(X[train])
        parts.append(again.score_samples(X[test]))
    return np.concatenate(parts)


# --- results -----------------------------------------------------------------------------------


class Results:
    """What is in the cache, and what follows from it."""

    def __init__(self, data, max_train):
        self.max_train = max_train
        self.names = data
        for method in ("sizes", "cell", "log_densities"):  # read and stacked once
            setattr(self, method, functools.cache(getattr(self, method)))

    def sizes(self, data):
        """Return rows in all, training rows, columns and splits."""
        X = _tables.load(data)
        train, _ = _tables.split(X, 0, self.max_train)
        return len(X), len(train), X.shape[1], _tables.n_splits(len(X))

    def cell(self, method, data, split):
        result = Cell(method, data, split, self.max_train).result()
        return None if result is None or "error" in result else result

    def log_densities(self, method, data):
        """Return one array of test log-densities a split, or None where a cell is missing."""
        splits = range(self.sizes(data)[-1])
        if method in STACKS:
            parts = [self._stacked(STACKS[method], data, split)[0] for split in splits]
        else:
            cells = [self.cell(method, data, split) for split in splits]
            parts = [None if cell is None else np.array(cell["test"]) for cell in cells]
        return None if any(part is None for part in parts) else parts

    def _stacked(self, members, data, split):
        cells = [self.cell(member, data, split) for member in members]
        if any(cell is None or "out_of_fold" not in cell for cell in cells):
            return None, None
        weights = _densities.em_weights(np.column_stack([cell["out_of_fold"] for cell in cells]))
        # A member of no weight may have no density there: its log is not multiplied by zero.
        used = weights > 1e-12
        test = np.column_stack([cell["test"] for cell in cells])
        return logsumexp(test[:, used], axis=1, b=weights[used]), weights

    def weights(self, stack, data):
        splits = range(self.sizes(data)[-1])
        return np.mean([self._stacked(STACKS[stack], data, s)[1] for s in splits], axis=0)

    def mean(self, method, data):
        """Return mean over splits of the mean test log-density, and its sd over splits."""
        parts = self.log_densities(method, data)
        if parts is None:
            return np.nan, np.nan
        means = [part.mean() for part in parts]
        return np.mean(means), np.std(means, ddof=1) if len(means) > 1 else np.nan

    def difference(self, method, reference, data):
        """Return the paired difference of two methods, and its standard error over test rows.

        Rows of all splits are pooled. With three splits a quarter of the held-out rows are held out
        more than once, which makes the standard error up to a fifth too small.
        """
        a, b = self.log_densities(method, data), self.log_densities(reference, data)
        if a is None or b is None:
            return np.nan, np.nan
        rows = np.concatenate(a) - np.concatenate(b)
        return rows.mean(), rows.std(ddof=1) / np.sqrt(len(rows))

    def ranks(self, methods):
        """Return ranks of shape (sets with all of them, methods), and the gaps to the best."""
        means = np.array([[self.mean(m, data)[0] for m in methods] for data in self.names])
        means = means[np.isfinite(means).all(1)]
        ranks = (-means).argsort(1).argsort(1) + 1
        return ranks, means.max(1, keepdims=True) - means

    def seconds(self, method, data):
        """Return the mean CPU seconds of a fit with all choices and of the scores."""
        if method in STACKS:
            return np.nan
        timed = METHODS[method].fitted_with or method
        cells = [self.cell(timed, data, s) for s in range(self.sizes(data)[-1])]
        return np.mean([np.nan if c is None else c["fit_cpu"] + c["score_cpu"] for c in cells])


def _number(value, digits=2, sign=""):
    if np.isnan(value):
        return "..."
    # A far outlier costs a light-tailed model thousands of nats; its digits say nothing.
    return f"{value:{sign}.{digits}f}" if abs(value) < 1000 else f"{value:{sign}.1e}"


def _mean_and_deviation(mean, deviation, best):
    text = _number(mean) + ("" if np.isnan(deviation) else f" ({_number(deviation)})")
    return f"**{text}**" if mean == best else text


def _table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def report(results, reference):
    """Return the generated part of the page, in Markdown."""
    # A method that has not run on any of the sets yet has no column.
    compared = [
        method
        for method in (*METHODS, *STACKS)
        if any(results.log_densities(method, data) is not None for data in results.names)
    ]
    methods = [method for method in compared if method in METHODS]
    rivals = [method for method in methods if METHODS[method].rival]
    ours = [method for method in compared if method not in rivals]
    of_rivals, of_ours, gains_of_rivals, gains_of_ours, worth, times = ([] for _ in range(6))
    for data in results.names:
        means = {m: results.mean(m, data) for m in compared}
        best = np.nanmax([means[m][0] for m in compared] + [-np.inf])
        text = {m: _mean_and_deviation(*means[m], best) for m in compared}
        of_rivals.append([data, *results.sizes(data), *(text[m] for m in rivals)])
        strongest = max(rivals, key=lambda method: np.nan_to_num(means[method][0], nan=-np.inf))
        of_ours.append(
            [data, f"{_number(means[strongest][0])}, {strongest}", *(text[m] for m in ours)]
        )
        for rows, kind in ((gains_of_rivals, rivals), (gains_of_ours, ours)):
            pairs = [results.difference(m, reference, data) for m in kind if m != reference]
            rows.append([data, *(f"{_number(a, sign='+')} ± {_number(b)}" for a, b in pairs)])
        gain, error = results.difference("stack", "rivals' stack", data)
        if np.isfinite(gain):
            shares = dict(zip(STACKS["stack"], results.weights("stack", data), strict=True))
            share = sum(shares[m] for m in SMOOTHED)
            worth.append(
                [data, f"{_number(gain, 3, '+')} ± {_number(error, 3)}", f"{gain / error:+.1f}"]
                + [f"{100 * share:.0f} %", max(shares, key=shares.get)]
            )
        times.append([data, *(_number(results.seconds(m, data), 1) for m in methods)])

    ranking = []
    for mine in OURS:
        ranks, gaps = results.ranks([*RIVALS, mine])
        if len(ranks):
            row = [f"{rank:.2f}" for rank in ranks.mean(0)]
            ranking.append([mine, len(ranks), *row, f"{gaps[:, -1].mean():.3f}"])
    parts = [
        f"Taken with scikit-learn {sklearn.__version__}, torch {torch.__version__}, zuko "
        f"{zuko.__version__}, skdiffsmooth {skdiffsmooth.__version__}, Python "
        f"{platform.python_version()}; at most {results.max_train} training rows.",
        "## Held-out log-likelihood\n\nThe tables show nats a row on columns standardised by the "
        "training rows, as the mean over splits (standard deviation over splits). Bold marks the best "
        "of both tables. These are the rivals:\n\n"
        + _table(["data", "N", "train", "d", "splits", *rivals], of_rivals)
        + "\n\nThese are our estimators, beside the best of the rivals:\n\n"
        + _table(["data", "best rival", *ours], of_ours),
        "## Ranks\n\nThe table shows the mean rank among the five rivals and one of our estimators, "
        "over the data sets for which all six have been run; *gap* is the mean distance of our "
        "estimator from the best of the six, in nats.\n\n"
        + _table(["ours", "sets", *RIVALS, "ours", "gap"], ranking),
        f"## Paired differences\n\nThe tables show each method minus {reference}, with the standard "
        "error over test rows.\n\n"
        + _table(["data", *(m for m in rivals if m != reference)], gains_of_rivals)
        + "\n\n"
        + _table(["data", *(m for m in ours if m != reference)], gains_of_ours),
        "## What smoothing is worth inside the stack\n\nThe table shows the stack of "
        f"{', '.join(MEMBERS)}, minus the stack without {', '.join(SMOOTHED)}; the weight of these "
        "two, and the member with the largest weight.\n\n"
        + _table(["data", "worth", "in standard errors", "smoothed weight", "heaviest"], worth),
        "## Time\n\nThe table shows CPU seconds on one thread, for `fit` with all its choices and for "
        "the scores of the test rows.\n\n" + _table(["data", *methods], times),
        "## Data\n\n"
        + _table(
            ["data", "from", "what is hard"],
            [[k, _tables.TABLES[k].source, _tables.TABLES[k].kind] for k in results.names],
        ),
    ]
    return "\n\n".join(parts)


def write_page(text):
    """Put the text between the page's markers."""
    begin, end = "<!-- table:begin -->", "<!-- table:end -->"
    head, _, rest = PAGE.read_text().partition(begin)
    PAGE.write_text(f"{head}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}")


def main():
    """Compute what the cache lacks, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--methods", help="comma-separated, default all")
    parser.add_argument("--data", help="comma-separated, default all")
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(_tables.QUICK)}")
    parser.add_argument("--jobs", type=int, default=1, help="processes; each uses one thread")
    parser.add_argument("--max-train", type=int, default=5000, help="cap on training rows")
    parser.add_argument("--reference", default="8 GMMs", help="what differences are taken to")
    parser.add_argument("--again", action="store_true", help="compute what is in the cache too")
    parser.add_argument("--report", action="store_true", help="compute nothing")
    parser.add_argument("--write", action="store_true", help=f"update {PAGE}")
    parser.add_argument("--check", action="store_true", help="test the rivals, and nothing else")
    options = parser.parse_args()
    if options.check:
        _densities.check()
        return
    data = list(_tables.QUICK if options.quick else _tables.TABLES)
    if options.data:
        data = options.data.split(",")
    methods = list(METHODS)
    if options.methods:
        methods = options.methods.split(",")
    if not options.report:
        # All methods of one data set, then the next: what is there can be read meanwhile.
        cells = [
            Cell(method, name, split, options.max_train)
            for name in data
            for method in methods
            for split in range(_tables.n_splits(len(_tables.load(name))))
        ]
        calls = (joblib.delayed(compute)(cell, options.again) for cell in cells)
        done = joblib.Parallel(n_jobs=options.jobs, return_as="generator")(calls)
        for cell, result in zip(cells, done, strict=True):
            print(f"{cell.data:15s} {cell.split} {cell.method:9s} {summary(result)}", flush=True)
    text = report(Results(data, options.max_train), options.reference)
    print(text)
    if options.write:
        write_page(text)


if __name__ == "__main__":
    main()
