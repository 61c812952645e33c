"""Random extreme tables: log-densities against 60-digit arithmetic, and laws that must hold.

`python benchmarks/torture.py 400` draws 400 tables of each kind. It prints how many answers were right,
how many calls raised an error that names what is wrong, how many warned, and each failure with its seed;
`python benchmarks/torture.py --seed KIND NUMBER` repeats one. For a tenth as many tables of each kind
all other densities are held to laws (`_laws.py`, `_frame_laws.py`); `--laws COUNT` does that only.
"""

import argparse
import decimal
import sys
import traceback
import warnings
from collections import Counter

import _frame_laws
import _laws
import numpy as np
from _common import header, row

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion

DIGITS = decimal.Context(prec=60, Emin=decimal.MIN_EMIN, Emax=decimal.MAX_EMAX)
PI = decimal.Decimal("3.14159265358979323846264338327950288419716939937510582097494")
# Log-densities in nats: absolute, and relative to the largest part of the sum.
TOLERANCE = 1e-9
# Two fits of the same rows in other units, order or containers choose their scales by a search that ends
# at this relative width.
LAW_TOLERANCE = 1e-5
COARSE = {"n_nodes": 16, "n_levels": 6, "n_steps": 6}


def exact_kde(X, weights, bandwidth, query):
    """Return the log-density of a Gaussian kernel density estimate at one row, by decimal arithmetic."""
    with decimal.localcontext(DIGITS):
        number = decimal.Decimal
        h, total, mass = number(float(bandwidth)), number(0), number(0)
        for x, w in zip(X.tolist(), map(number, weights.tolist()), strict=True):
            offsets = (number(q) - number(c) for q, c in zip(query.tolist(), x, strict=True))
            total += w and w * (-sum(o**2 for o in offsets) / (2 * h * h)).exp()
            mass += w
        return float((total / mass).ln() - X.shape[1] * (h.ln() + (2 * PI).ln() / 2))


def plain(rng, shape=None):
    """Return rows of one to five normal columns, weights, queries and a bandwidth."""
    n, d = shape or (rng.randint(2, 40), rng.randint(1, 6))
    X = rng.normal(size=(n, d))
    return X, np.ones(n), X[:3] + 0.3 * rng.normal(size=(min(n, 3), d)), 10 ** rng.uniform(-2, 1)


def units(rng):
    X, w, Q, h = plain(rng)
    unit = 2.0 ** rng.randint(-480, 481)
    return X * unit, w, Q * unit, h * unit


def offsets(rng):
    X, w, Q, h = plain(rng)
    shift = 10 ** rng.uniform(0, 12) * rng.choice([-1, 1], X.shape[1])
    return X + shift, w, Q + shift, h


def outlier(rng):
    X, w, Q, h = plain(rng)
    X[0] += 10 ** rng.uniform(1, 17)
    Q[0] = X[0]
    return X, w, Q, h


def near_copies(rng):
    X, _, Q, h = plain(rng)
    X = np.concatenate([X, X + 1e-12 * rng.normal(size=X.shape), X[:2]])
    return X, np.ones(len(X)), Q, h


def weights(rng):
    X, w, Q, h = plain(rng)
    w = 10 ** rng.uniform(-150, 150, len(X))
    w[1:][rng.uniform(size=len(X) - 1) < 0.2] = 0
    return X, w, Q, h


def far_queries(rng):
    X, w, Q, h = plain(rng)
    return X, w, Q + h * 10 ** rng.uniform(0, 8, Q.shape), h


# What is printed of each kind, and its draw of rows, weights, queries and a bandwidth.
KINDS = {
    "plain": ("Normal rows, of one to five columns", plain),
    "units": ("All columns times one power of two between 2^-480 and 2^480", units),
    "offsets": ("An offset of up to 1e12 standard deviations", offsets),
    "outlier": ("One row up to 1e17 standard deviations away, and a query beside it", outlier),
    "near_copies": ("Rows 1e-12 apart, and exact copies", near_copies),
    "weights": ("Weights over 300 decades, some of them zero", weights),
    "far_queries": ("Queries up to 1e8 bandwidths away", far_queries),
    "many_columns": (
        "Up to 2000 columns of at most 12 rows",
        lambda rng: plain(rng, (rng.randint(2, 13), rng.randint(50, 2001))),
    ),
    "bandwidths": (
        "Bandwidths between 1e-6 and 1e12 of the data's size",
        lambda rng: (*plain(rng)[:3], 10 ** rng.uniform(-6, 12)),
    ),
}


def scale_of_error(X, Q, h, expected):
    """Return what the rounding of rows and queries allows: an error of 2^-52 of each distance."""
    size = np.abs(X - Q).max()
    return 1 + abs(expected) + size / h * np.sqrt(X.shape[1]) * 2**-10


def check_against_decimals(rng, kind):
    """Compare the kernel density estimate, and the diffusion at sigma = 0, with 60 digits."""
    X, w, Q, h = KINDS[kind][1](rng)
    for model in (KDESampler(h), SmoothedScoreDiffusion(h, 0.0, metric="euclidean", background=0)):
        model.fit(X, sample_weight=w)
        found = model.score_samples(Q)
        for q, value in zip(Q, found, strict=True):
            expected = exact_kde(X, w, h, q)
            error = abs(value - expected) / scale_of_error(X, q, h, expected)
            if not error <= TOLERANCE:
                raise AssertionError(
                    f"{model} gives {value!r} for {expected!r}, with rows of shape {X.shape}, h = {h:g}"
                )
        if not np.all(np.isfinite(model.sample(4, random_state=0))):
            raise AssertionError(f"{model} draws {model.sample(4, random_state=0)}")


def check_laws(rng, kind):
    """Compare default fits of the same rows: in other units for each column, in another order."""
    X, w, Q, _ = KINDS[kind][1](rng)
    order = rng.permutation(len(X))
    unit = 2.0 ** rng.randint(-30, 31, X.shape[1])
    first = SmoothedScoreDiffusion(**COARSE).fit(X, sample_weight=w)
    second = SmoothedScoreDiffusion(**COARSE).fit(X[order] * unit, sample_weight=w[order])
    found = first.score_samples(Q)
    expected = second.score_samples(Q * unit) + np.log(unit).sum()
    if not np.allclose(found, expected, rtol=LAW_TOLERANCE, atol=LAW_TOLERANCE * X.shape[1]):
        raise AssertionError(f"{found} for {expected}, {first.settings_}, {second.settings_}")
    if not np.all(np.isfinite(found)):
        raise AssertionError(f"log-densities {found}")


CHECKS = {"60 digits": check_against_decimals, "laws": check_laws}


def attempt(check, kind, number):
    """Return "right", "warned", "refused" or "failed", and the failure."""
    rng = np.random.RandomState(1_000_003 * list(KINDS).index(kind) + number)
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            CHECKS[check](rng, kind)
    except (ValueError, TypeError) as error:
        # A message that names what is wrong, what is expected and the next step is long.
        if len(str(error)) > 60 and "skdiffsmooth" in traceback.format_exc():
            return "refused", str(error)
        return "failed", traceback.format_exc()
    except Exception:
        return "failed", traceback.format_exc()
    return ("warned", str(seen[0].message)) if seen else ("right", "")


def run(count):
    """Print the table of outcomes; return the number of failures."""
    names = ("right", "warned", "refused", "failed")
    header("kind of table", "check", *names)
    failed, texts = [], {}
    for kind, (what, _) in KINDS.items():
        for check in CHECKS:
            ends = [attempt(check, kind, number) for number in range(count)]
            outcomes = Counter(outcome for outcome, _ in ends)
            row(what, check, *(outcomes[name] for name in names))
            for number, (outcome, text) in enumerate(ends):
                if outcome == "failed":
                    failed.append(f"\n{kind}, {check}, number {number}:\n{text}")
                elif text:
                    texts.setdefault((outcome, text[:60]), f"{outcome}: {text}")
    print("", *texts.values(), *failed[:20], sep="\n")
    return len(failed)


def run_laws(count, densities=None):
    """Print how many laws held, for `count` tables of each kind; return the number of failures."""
    warnings.simplefilter("ignore")
    header("density", "tables", "laws that held", "refused", "broken")
    failures, tables = [], list(_laws.TABLES)
    others = {
        "TableDensity of a frame": (_frame_laws.FrameCase, _frame_laws.LAWS),
        "SphericalScoreDiffusion": (_laws.SphereCase, _laws.OF_SPHERES),
    }
    for model in densities or [*others, *_laws.MODELS]:
        held, refused, before = 0, 0, len(failures)
        for number in range(count * len(tables)):
            table, draw = tables[number % len(tables)], number // len(tables)
            try:
                if model in others:
                    make, laws = others[model]
                    case = make(number)
                else:
                    case, laws = _laws.Case(model, table, draw), _laws.LAWS
            except ValueError:
                refused += 1
                continue
            for law in laws:
                try:
                    law(case)
                    held += 1
                except Exception as error:
                    failures.append(f"{model}, {table} {draw}, {law.__name__}: {error!r:.300}")
        row(model, count * len(tables), held, refused, len(failures) - before)
    print("", *failures, sep="\n")
    return len(failures)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("count", nargs="?", type=int, default=100, help="tables of each kind")
    parser.add_argument("--seed", nargs=2, metavar=("KIND", "NUMBER"), help="repeat one table")
    parser.add_argument("--laws", type=int, help="tables of each kind for the laws only")
    parser.add_argument("--densities", nargs="+", help="names of the first column of the laws")
    arguments = parser.parse_args()
    if arguments.laws:
        sys.exit(bool(run_laws(arguments.laws, arguments.densities)))
    if arguments.seed:
        for check in CHECKS:
            print(check, *attempt(check, arguments.seed[0], int(arguments.seed[1])))
    else:
        failed = run(arguments.count) + run_laws(max(arguments.count // 10, 1))
        sys.exit(bool(failed))
