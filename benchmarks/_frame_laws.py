"""Laws that a density of frames must obey: order, names, units, libraries, weights, missing cells."""

import numpy as np
import pandas as pd
from _laws import close

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth.tables import DensityImputer, TableColumns, TableDensity

COARSE = {"n_nodes": 8, "n_levels": 4, "n_steps": 4}
DAYS = pd.Timestamp("2021-03-01") + pd.to_timedelta(np.arange(300), unit="D")
LEVELS = pd.CategoricalDtype(["low", "mid", "high"], ordered=True)
# Columns by a random state, normal numbers, their ranks from 0 to 1, and what they depend on.
COLUMNS = {
    "text": lambda rng, z, rank, latent: np.array(["a", "b", "c"])[third(rank)],
    "category": lambda rng, z, rank, latent: pd.Categorical(
        (third(rank) + 2) % 3 + 1, [1, 2, 3, 4]
    ),
    "ordered": lambda rng, z, rank, latent: pd.Categorical.from_codes(third(rank), dtype=LEVELS),
    "bool": lambda rng, z, rank, latent: z > 0.3,
    "counts": lambda rng, z, rank, latent: rng.poisson(np.exp(1 + latent / 2)),
    "normal": lambda rng, z, rank, latent: z,
    "rounded": lambda rng, z, rank, latent: np.round(z, 1),
    "positive": lambda rng, z, rank, latent: np.exp(z),
    "zeros": lambda rng, z, rank, latent: np.exp(z) * (rng.uniform(size=len(z)) > 0.3),
    "share": lambda rng, z, rank, latent: 1 / (1 + np.exp(-2 * z)),
    "date": lambda rng, z, rank, latent: DAYS[(300 * rank).astype(int)],
    "nullable": lambda rng, z, rank, latent: pd.array(rng.poisson(4, len(z)), dtype="Int64"),
    "big": lambda rng, z, rank, latent: 1e6 + 1e4 * z,
    "constant": lambda rng, z, rank, latent: np.full(len(z), 7.5),
    "few": lambda rng, z, rank, latent: rng.choice([1.5, 2.5, 9.0], len(z)),
}


def third(rank):
    return (3 * rank).astype(int)


def random_column(rng, n, latent):
    """Return one column of a random kind that may depend on a latent number."""
    z = latent + rng.normal(size=n)
    rank = np.argsort(np.argsort(z)) / n
    return pd.Series(COLUMNS[rng.choice(list(COLUMNS))](rng, z, rank, latent))


def holds_no_missing(dtype):
    return str(dtype).startswith(("bool", "int"))


class FrameCase:
    """A random frame, some of its rows as queries, and a fitted TableDensity."""

    def __init__(self, number):
        self.rng = rng = np.random.RandomState(number)
        n, d = rng.randint(30, 90), rng.randint(2, 5)
        latent = rng.normal(size=n)
        self.X = pd.DataFrame({f"c{j}": random_column(rng, n, latent) for j in range(d)})
        has_missing = rng.uniform() < 0.5
        if has_missing and not holds_no_missing(self.X.dtypes.iloc[j := rng.randint(d)]):
            self.X.loc[rng.uniform(size=n) < 0.1, f"c{j}"] = None
        whole = self.X.dropna()
        self.Q = whole.iloc[rng.randint(len(whole), size=4)].reset_index(drop=True)
        densities = [KDESampler(), KDESampler("scott"), SmoothedScoreDiffusion(**COARSE)]
        self.density = densities[rng.choice(3, p=[0.5, 0.2, 0.3])]
        self.kinds = TableColumns.fit(self.X).kinds
        self.model = self.fit(self.X)
        self.answers = self.model.score_samples(self.Q)

    def fit(self, X, kinds=None, **options):
        return TableDensity(kinds or self.kinds, density=self.density).fit(X, **options)

    def same(self, found, expected=None, tolerance=1e-4):
        expected = self.answers if expected is None else expected
        dtypes = dict(self.X.dtypes.astype(str))
        close(found, expected, tolerance, f"{self.density} {self.X.shape} {dtypes}")


def detection(case):
    """Kinds are the same when they are detected again, and when they are passed."""
    case.same(TableDensity(density=case.density).fit(case.X).score_samples(case.Q), tolerance=1e-9)


def order_of_rows(case):
    rows = case.rng.permutation(len(case.X))
    case.same(TableDensity(density=case.density).fit(case.X.iloc[rows]).score_samples(case.Q))


def order_of_columns(case):
    names = list(case.rng.permutation(case.X.columns))
    case.same(case.model.score_samples(case.Q[names]), tolerance=0)
    if isinstance(case.density, KDESampler):
        # The search for bandwidths of levels ends where none changes by more than 0.01.
        found = TableDensity(density=case.density).fit(case.X[names]).score_samples(case.Q)
        case.same(found, tolerance=0.01)


def library(case):
    import polars as pl

    if any(isinstance(dtype, pd.CategoricalDtype) for dtype in case.X.dtypes):
        return  # polars has no order of levels, and no levels that are numbers
    X, Q = pl.from_pandas(case.X), pl.from_pandas(case.Q)
    case.same(TableDensity(density=case.density).fit(X).score_samples(Q), tolerance=1e-9)
    case.same(case.model.score_samples(Q), tolerance=1e-9)


def weights(case):
    k = case.rng.randint(1, 4, len(case.X))
    repeated = case.X.iloc[np.repeat(np.arange(len(k)), k)]
    kinds = TableColumns.fit(repeated).kinds
    first, second = case.fit(case.X, kinds, sample_weight=k), case.fit(repeated, kinds)
    case.same(first.score_samples(case.Q), second.score_samples(case.Q))


def absent(case):
    X = pd.concat([case.X, case.X.iloc[:3]], ignore_index=True)
    k = np.r_[np.ones(len(case.X)), np.zeros(3)]
    for kinds in (case.kinds, None):
        model = TableDensity(kinds, density=case.density).fit(X, sample_weight=k)
        case.same(model.score_samples(case.Q))


def one_at_a_time(case):
    found = [case.model.score_samples(case.Q.iloc[[i]])[0] for i in range(len(case.Q))]
    case.same(found, tolerance=1e-6)


def conditional(case):
    given = list(case.X.columns[: case.rng.randint(1, case.X.shape[1])])
    a, e = case.model.score_samples(case.Q, columns=given, return_error=True)
    b, f = case.model.score_samples(case.Q, given=given, return_error=True)
    c, g = case.model.score_samples(case.Q, return_error=True)
    case.same((a + b - c) / (1e-3 + 5 * (e + f + g)), np.zeros(len(a)), 1)


def missing(case):
    """A row with a missing cell has the density of its other columns."""
    name = case.X.columns[case.rng.randint(case.X.shape[1])]
    others = [c for c in case.X.columns if c != name]
    Q = case.Q.copy()
    if holds_no_missing(Q.dtypes[name]):
        Q[name] = Q[name].astype(object)
    Q[name] = None
    a, e = case.model.score_samples(Q, return_error=True)
    b, f = case.model.score_samples(case.Q, columns=others, return_error=True)
    case.same((a - b) / (1e-3 + 5 * (e + f)), np.zeros(len(a)), 1)
    filled = case.model.impute(Q, random_state=0)
    if filled.isna().any().any():
        raise AssertionError(f"missing cells in {filled}")
    pd.testing.assert_frame_equal(filled[others], Q[others])


def draws(case):
    """Draws have the dtypes of the frame, are right rows again, and keep given cells."""
    drawn = case.model.sample(8, random_state=0)
    if dict(drawn.dtypes) != dict(case.X.dtypes):
        raise AssertionError(f"{dict(drawn.dtypes)} for {dict(case.X.dtypes)}")
    log_density = case.model.score_samples(drawn)
    if not np.all(np.isfinite(log_density)):
        raise AssertionError(f"log-densities {log_density} of draws {drawn.to_dict('list')}")
    name, value = case.X.columns[0], case.Q.iloc[0, 0]
    given = case.model.sample(5, random_state=0, given={name: value})
    if not (given[name] == value).all():
        raise AssertionError(f"{name} is {given[name].tolist()}, given {value}")
    imputer = DensityImputer(TableDensity(density=case.density), random_state=0)
    filled = imputer.fit_transform(case.X)
    known = case.X.notna()
    if filled.isna().any().any() or not filled.where(known).equals(case.X.where(known)):
        raise AssertionError("DensityImputer changes known cells or leaves missing ones")


def unmodified(case):
    X, Q = case.X.copy(deep=True), case.Q.copy(deep=True)
    case.fit(case.X).score_samples(case.Q)
    pd.testing.assert_frame_equal(case.X, X)
    pd.testing.assert_frame_equal(case.Q, Q)


LAWS = (detection, order_of_rows, order_of_columns, library, weights, absent, one_at_a_time)
LAWS += (conditional, missing, draws, unmodified)
