"""Held-out log-likelihood of every method on real data: what ``make table`` runs.

Each cell (method, data set, split) is computed once and kept, with the log-density of every test
row, as one file in ``benchmarks/.cache``; a method whose `version` changes is computed again. The
stacks and paired differences come from these files, without another fit. ``--write`` puts what the
files say into ``docs/evidence/table.json``, beside what is there from earlier runs, and writes the
page from that; figures of an older `version` are marked. To add a method, add a line to `METHODS`.
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
FIGURES = PAGE.with_suffix(".json")
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
    "KDE same metric": Method(SameMetricKDE, version="2", member=False),
    "smoothed": Method(WithDefaults, version="6"),
    "tuned": Method(Tuned, version="5"),
    "auto": Method(FamilyBest, version="4", member=False, fitted_with="family"),
    "family": Method(FamilyStack, version="4", member=False),
    "manifold": Method(ManifoldAdaptedDiffusion, version="5", member=False),
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


def _sizes(data, max_train):
    """Return rows in all, training rows, columns and splits."""
    X = _tables.load(data)
    train, _ = _tables.split(X, 0, max_train)
    return len(X), len(train), X.shape[1], _tables.n_splits(len(X))


class Results:
    """What is in the cache, and what follows from it."""

    def __init__(self, data, max_train):
        self.max_train = max_train
        self.names = data
        self.splits = functools.cache(lambda name: range(_sizes(name, max_train)[-1]))
        for method in ("cell", "log_densities"):  # read and stacked once
            setattr(self, method, functools.cache(getattr(self, method)))

    def cell(self, method, data, split):
        result = Cell(method, data, split, self.max_train).result()
        return None if result is None or "error" in result else result

    def log_densities(self, method, data):
        """Return one array of test log-densities a split, or None where a cell is missing."""
        if method in STACKS:
            parts = [self._stacked(STACKS[method], data, k)[0] for k in self.splits(data)]
        else:
            cells = [self.cell(method, data, k) for k in self.splits(data)]
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
        return np.mean(
            [self._stacked(STACKS[stack], data, k)[1] for k in self.splits(data)], axis=0
        )

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

    def seconds(self, method, data):
        """Return the mean CPU seconds of a fit with all choices and of the scores."""
        if method in STACKS:
            return np.nan
        timed = METHODS[method].fitted_with or method
        cells = [self.cell(timed, data, s) for s in self.splits(data)]
        return np.mean([np.nan if c is None else c["fit_cpu"] + c["score_cpu"] for c in cells])


def _number(value, digits=2, sign=""):
    if np.isnan(value):
        return "..."
    # A far outlier costs a light-tailed model thousands of nats; its digits say nothing.
    return f"{value:{sign}.{digits}f}" if abs(value) < 1000 else f"{value:{sign}.1e}"


def _table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def version_of(method):
    """Return the version of a method, or those of the members of a stack."""
    if method in STACKS:
        return "+".join(METHODS[member].version for member in STACKS[method])
    return METHODS[method].version


def best_rival(figures):
    """Return the rival of the highest mean, from the figures of each method on one data set."""
    rivals = [m for m in METHODS if METHODS[m].rival and m in figures]
    return max(rivals, key=lambda m: figures[m]["mean"])


def measured(results, reference, kept):
    """Return the figures of each data set and method of which the cache has all cells.

    `kept` are those of earlier runs, by which the best rival of each data set is chosen.
    """
    found = {}
    for data in results.names:
        for method in (*METHODS, *STACKS):
            if results.log_densities(method, data) is None:
                continue
            mean, deviation = results.mean(method, data)
            difference, error = results.difference(method, reference, data)
            own = {"mean": mean, "deviation": deviation, "seconds": results.seconds(method, data)}
            own |= {"difference": difference, "error": error}
            if not (method in METHODS and METHODS[method].rival):
                rival = best_rival(kept[data])
                own["gap"], own["gap_error"] = results.difference(method, rival, data)
            if method == "stack":
                own["gain"], own["gain_error"] = results.difference(method, "rivals' stack", data)
                shares = dict(zip(STACKS[method], results.weights(method, data), strict=True))
                own["share"] = sum(shares[m] for m in SMOOTHED)
            own = {
                name: round(float(value), 4) for name, value in own.items() if np.isfinite(value)
            }
            if method == "stack":
                own["heaviest"] = max(shares, key=shares.get)
            found.setdefault(data, {})[method] = own | {"version": version_of(method)}
    return found


class Figures:
    """The figures of each data set and method, measured now or in an earlier run."""

    def __init__(self, kept):
        self.kept = kept
        # A method that has not run on any of the sets yet has no column.
        self.methods = [m for m in (*METHODS, *STACKS) if any(m in own for own in kept.values())]

    def get(self, method, data, name):
        return self.kept[data].get(method, {}).get(name, np.nan)

    def mark(self, method, data):
        """Return a dagger if the figures are those of an older version."""
        own = self.kept[data].get(method)
        return "" if own is None or own["version"] == version_of(method) else " †"

    def mean(self, method, data, best):
        value, deviation = (self.get(method, data, name) for name in ("mean", "deviation"))
        text = _number(value) + ("" if np.isnan(deviation) else f" ({_number(deviation)})")
        return (f"**{text}**" if value == best else text) + self.mark(method, data)

    def difference(self, method, reference, data):
        value, error = (self.get(method, data, name) for name in ("difference", "error"))
        if np.isnan(value):  # the rows of the reference are not in the cache of this method
            value = self.get(method, data, "mean") - self.get(reference, data, "mean")
        text = _number(value, sign="+") + ("" if np.isnan(error) else f" ± {_number(error)}")
        return text + self.mark(method, data)

    def rule(self, method, data, reference):
        """Return a difference from the best rival, with its error, and whether it breaks the rule.

        The rule: no more than 0.02 nats and two paired standard errors below the best rival.
        """
        gap, error = (self.get(method, data, name) for name in ("gap", "gap_error"))
        rival = best_rival(self.kept[data])
        if np.isnan(error) and rival == reference:
            gap, error = (self.get(method, data, name) for name in ("difference", "error"))
        if np.isnan(gap):
            gap = self.get(method, data, "mean") - self.get(rival, data, "mean")
        text = _number(gap, 3, "+") + ("" if np.isnan(error) else f" ± {_number(error, 3)}")
        text += self.mark(method, data)
        return f"**{text}**" if gap < -max(0.02, 2 * np.nan_to_num(error)) else text

    def ranks(self, methods):
        """Return ranks of shape (sets with all of them, methods), and the gaps to the best."""
        means = np.array([[self.get(m, data, "mean") for m in methods] for data in self.kept])
        means = means[np.isfinite(means).all(1)]
        ranks = (-means).argsort(1).argsort(1) + 1
        return ranks, means.max(1, keepdims=True) - means


def report(figures, reference, max_train):
    """Return the generated part of the page, in Markdown."""
    methods = [method for method in figures.methods if method in METHODS]
    rivals = [method for method in methods if METHODS[method].rival]
    ours = [method for method in figures.methods if method not in rivals]
    of_rivals, of_ours, gains_of_rivals, gains_of_ours, worth, times = ([] for _ in range(6))
    for data in figures.kept:
        means = {m: figures.get(m, data, "mean") for m in figures.methods}
        best = np.nanmax([*means.values(), -np.inf])
        text = {m: figures.mean(m, data, best) for m in figures.methods}
        of_rivals.append([data, *_sizes(data, max_train), *(text[m] for m in rivals)])
        strongest = sorted(rivals, key=lambda m: np.nan_to_num(means[m], nan=-np.inf))[-1:]
        of_rival = [f"{_number(means[m])}, {m}" for m in strongest] or ["..."]
        of_ours.append([data, *of_rival, *(text[m] for m in ours)])
        for rows, kind in ((gains_of_rivals, rivals), (gains_of_ours, ours)):
            pairs = [figures.difference(m, reference, data) for m in kind if m != reference]
            rows.append([data, *pairs])
        gain, error = (figures.get("stack", data, name) for name in ("gain", "gain_error"))
        if np.isfinite(gain):
            shown = f"{_number(gain, 3, '+')} ± {_number(error, 3)}{figures.mark('stack', data)}"
            share = f"{100 * figures.get('stack', data, 'share'):.0f} %"
            heaviest = figures.get("stack", data, "heaviest")
            ratio = f"{gain / error:+.1f}" if error else "..."
            worth.append([data, shown, ratio, share, heaviest])
        seconds = {m: figures.get(m, data, "seconds") for m in methods}
        marks = {m: figures.mark(m, data) if seconds[m] >= 0 else "" for m in methods}
        times.append([data, *(_number(seconds[m], 1) + marks[m] for m in methods)])

    ranking = []
    for mine in OURS:
        ranks, gaps = figures.ranks([*RIVALS, mine])
        if len(ranks):
            row = [f"{rank:.2f}" for rank in ranks.mean(0)]
            ranking.append([mine, len(ranks), *row, f"{gaps[:, -1].mean():.3f}"])
    parts = [
        f"Written with scikit-learn {sklearn.__version__}, torch {torch.__version__}, zuko "
        f"{zuko.__version__}, skdiffsmooth {skdiffsmooth.__version__}, Python "
        f"{platform.python_version()}; at most {max_train} training rows. A dagger † marks figures of "
        "an older version of a method.",
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
        "## Against the best rival\n\nThe table shows the default and the family minus the rival of "
        "the highest mean, which is chosen after the fact, with the paired standard error over test "
        "rows (none where the rows of one of the two were not kept). Bold marks where it is lower by "
        "more than 0.02 nats and two standard errors.\n\n"
        + _table(
            ["data", "best rival", "smoothed", "family"],
            [
                [
                    data,
                    best_rival(figures.kept[data]),
                    *(figures.rule(m, data, reference) for m in ("smoothed", "family")),
                ]
                for data in figures.kept
            ],
        ),
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
            [[k, _tables.TABLES[k].source, _tables.TABLES[k].kind] for k in figures.kept],
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
    parser.add_argument("--write", action="store_true", help=f"update {PAGE} and {FIGURES.name}")
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
    kept = json.loads(FIGURES.read_text())
    found = measured(Results(data, options.max_train), options.reference, kept)
    for name, figures in found.items():
        before = kept.setdefault(name, {})
        for method, own in figures.items():
            # Paired errors of an earlier run, where the rows of the other method are not in the cache.
            is_same = before.get(method, {}).get("version") == own["version"]
            before[method] = (before[method] if is_same else {}) | own
    kept = {name: kept[name] for name in _tables.TABLES if name in kept}
    if options.write:
        lines = [f"{json.dumps(name)}: {json.dumps(own)}" for name, own in kept.items()]
        FIGURES.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        write_page(report(Figures(kept), options.reference, options.max_train))
    chosen = {name: kept[name] for name in data if name in kept}
    print(report(Figures(chosen), options.reference, options.max_train))


if __name__ == "__main__":
    main()
