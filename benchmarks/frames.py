"""Ordinary tables as they are: likelihood of held-out rows, and the statistics of drawn rows.

A density of a column of few values has no meaning before its unit is stated. Here all methods are
fitted to the same rows and scored on the same rows: both with uniform noise where values are tied, one
unit wide, and half the difference of the values in a column that has two. The rivals, a standardised
KDE and a cross-validated Gaussian mixture, get the independent columns only, since they have no density
for others; ours get the columns that follow from them too, dummies and totals. "recorded" is ours fitted
to the table as it was recorded, without noise, and scored like the others. Run it by ``make frames``,
which updates docs/evidence/frames.md.
"""

import argparse
import time
import warnings
from pathlib import Path

import joblib
import numpy as np
from _densities import CVGaussianMixture
from _frames import FRAMES, SPLITS, Columns, split

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth.compose import DensityStacking

PAGE = Path(__file__).parent.parent / "docs" / "evidence" / "frames.md"
_N_DRAWS = 2000
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
OURS = {
    "default": SmoothedScoreDiffusion,
    "recorded": SmoothedScoreDiffusion,
    "stack": DensityStacking,
}
RIVALS = {"KDE": KDESampler, "mixture": CVGaussianMixture}


def compute(name, method, seed):
    """Return the mean held-out log-density, the errors of drawn statistics, and CPU seconds."""
    frame = FRAMES[name].load()
    columns = Columns(frame.to_numpy())
    train, test = (part.to_numpy() for part in split(frame, seed))
    rng = np.random.RandomState(seed)
    unit = columns.scale[columns.independent]
    queries = columns.unrounded(test, rng)
    rows = columns.unrounded(train, rng)
    start = time.process_time()
    if method in RIVALS:
        model = RIVALS[method]().fit(rows / unit)
        score = float(np.mean(model.score_samples(queries / unit)))
        drawn = _draw(model, rng) * unit
    else:
        if method == "recorded":
            rows = train[:, columns.independent]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tables are what the warnings are about
            model = OURS[method]().fit(train if method == "recorded" else columns.complete(rows))
            marginal = model.score_samples(columns.complete(queries), columns=columns.independent)
            drawn = model.sample(_N_DRAWS, random_state=seed)[:, columns.independent]
        score = float(np.mean(marginal) + np.sum(np.log(unit)))
    return score, _errors(drawn / unit, rows / unit), time.process_time() - start


def _draw(model, rng):
    if isinstance(model, CVGaussianMixture):
        return model.mixture_.sample(_N_DRAWS)[0]
    return model.sample(_N_DRAWS, random_state=rng)


def _errors(drawn, train):
    """Return the largest errors of means, deviations, quantiles, correlations; the share outside.

    Those of means and quantiles are in standard deviations of the training rows, those of deviations
    are ratios less one.
    """
    varies = train.std(axis=0) > 0
    drawn, train = drawn[:, varies], train[:, varies]
    std = train.std(axis=0)
    means = np.abs(drawn.mean(0) - train.mean(0)) / std
    ratios = np.abs(drawn.std(0) / std - 1)
    quantiles = np.abs(np.quantile(drawn, _QUANTILES, 0) - np.quantile(train, _QUANTILES, 0)) / std
    correlations = np.abs(np.corrcoef(drawn.T) - np.corrcoef(train.T))
    outside = (drawn < train.min(0)) | (drawn > train.max(0))
    return (
        *(float(error.max()) for error in (means, ratios, quantiles, correlations)),
        float(outside.mean()),
    )


def report(results):
    """Return the tables of the page, in Markdown."""
    methods = [name for name in (*RIVALS, *OURS) if any(key[1] == name for key in results)]
    likelihood = [_head("table", "rows, columns", "what is hard", *methods)]
    names = ("means", "deviations", "quantiles", "correlations", "outside")
    draws = [_head("table", "drawn by", *names, "CPU s")]
    for name, frame in FRAMES.items():
        kept = {key[1:]: value for key, value in results.items() if key[0] == name}
        if not kept:
            continue
        shape = "{} x {}".format(*frame.load().shape)
        scores = {
            m: [kept[m, seed][0] for seed in range(SPLITS) if (m, seed) in kept] for m in methods
        }
        likelihood.append(_row(name, shape, frame.kind, *(_mean(scores[m]) for m in methods)))
        for m in methods:
            cells = [kept[m, seed] for seed in range(SPLITS) if (m, seed) in kept]
            if cells:
                errors = np.mean([cell[1] for cell in cells], axis=0)
                seconds = np.mean([cell[2] for cell in cells])
                draws.append(_row(name, m, *(f"{error:.2f}" for error in errors), f"{seconds:.1f}"))
    return "\n".join(likelihood) + "\n\n" + "\n".join(draws)


def _head(*names):
    return f"{_row(*names)}\n|{'---|' * len(names)}"


def _row(*cells):
    return "| " + " | ".join(map(str, cells)) + " |"


def _mean(scores):
    return f"{np.mean(scores):.2f}" if scores else ""


def main():
    """Compute the tables and print them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="comma-separated, default all")
    parser.add_argument("--methods", default="KDE,mixture,default,recorded", help="comma-separated")
    parser.add_argument("--jobs", type=int, default=1, help="processes; each uses one thread")
    parser.add_argument("--write", action="store_true", help=f"update {PAGE}")
    options = parser.parse_args()
    names = options.data.split(",") if options.data else list(FRAMES)
    cells = [
        (name, method, seed)
        for name in names
        for method in options.methods.split(",")
        for seed in range(SPLITS)
    ]
    calls = (joblib.delayed(compute)(*cell) for cell in cells)
    done = joblib.Parallel(n_jobs=options.jobs, return_as="generator")(calls)
    results = {}
    for cell, result in zip(cells, done, strict=True):
        results[cell] = result
        print(*cell, f"{result[0]:.3f}", [round(error, 3) for error in result[1]], flush=True)
    text = report(results)
    print(text)
    if options.write:
        begin, end = "<!-- frames:begin -->", "<!-- frames:end -->"
        head, _, rest = PAGE.read_text().partition(begin)
        PAGE.write_text(f"{head}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}")


if __name__ == "__main__":
    main()
