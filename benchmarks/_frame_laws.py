"""Laws that a density of frames must obey: order, names, units, libraries, weights, missing cells."""

import numpy as np
import pandas as pd
from _laws import close

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth.tables import DensityImputer, TableColumns, TableDensity

COARSE = {"n_nodes": 8, "n_levels": 4, "n_steps": 4}


def random_column(rng, n, latent):
    """Return one column of a random kind that may depend on a latent number."""
    noise = rng.normal(size=n)
    drawn = latent + noise
    rank = np.argsort(np.argsort(drawn)) / n
    kind = rng.choice(
        ["text", "category", "ordered", "bool", "counts", "normal", "rounded", "positive", "zeros"]
        + ["share", "date", "nullable", "big", "constant", "few"]
    )
    if kind == "text":
        return pd.Series(np.array(["a", "b", "c"])[(3 * rank).astype(int)])
    if kind == "category":
        return pd.Series(pd.Categorical(np.array([3, 1, 2])[(3 * rank).astype(int)], [1, 2, 3, 4]))
    if kind == "ordered":
        levels = ["low", "mid", "high"]
        codes = (3 * rank).astype(int)
        return pd.Series(pd.Categorical.from_codes(codes, levels, ordered=True))
    if kind == "bool":
        return pd.Series(drawn > 0.3)
    if kind == "counts":
        return pd.Series(rng.poisson(np.exp(1 + latent / 2)))
    if kind == "rounded":
        return pd.Series(np.round(drawn, 1))
    if kind == "positive":
        return pd.Series(np.exp(drawn))
    if kind == "zeros":
        return pd.Series(np.where(rng.uniform(size=n) < 0.3, 0.0, np.exp(drawn)))
    if kind == "share":
        return pd.Series(1 / (1 + np.exp(-2 * drawn)))
    if kind == "date":
        days = pd.to_timedelta((300 * rank).astype(int), unit="D")
        return pd.Series(pd.Timestamp("2021-03-01") + days)
    if kind == "nullable":
        return pd.Series(rng.poisson(4, n)).astype("Int64")
    if kind == "big":
        return pd.Series(1e6 + 1e4 * drawn)
    if kind == "constant":
        return pd.Series(np.full(n, 7.5))
    if kind == "few":
        return pd.Series(rng.choice([1.5, 2.5, 9.0], n))
    return pd.Series(drawn)


def holds_no_missing(dtype):
    return str(dtype).startswith(("bool", "int"))


class FrameCase:
    """A random frame, some of its rows as queries, and a fitted TableDensity."""

    def __init__(self, number):
        self.rng = rng = np.random.RandomState(number)
        n, d = rng.randint(30, 90), rng.randint(2, 5)
        latent = rng.normal(size=n)
        self.X = pd.DataFrame({f"c{j}": random_column(rng, n, latent) for j in range(d)})
        if rng.uniform() < 0.5:
            j = rng.randint(d)
            if not holds_no_missing(self.X.dtypes.iloc[j]):
                self.X.loc[rng.uniform(size=n) < 0.1, f"c{j}"] = None
        whole = self.X.dropna()
        self.Q = whole.iloc[rng.randint(len(whole), size=4)].reset_index(drop=True)
        self.density = [KDESampler(), KDESampler("scott"), SmoothedScoreDiffusion(**COARSE)][
            rng.choice(3, p=[0.5, 0.2, 0.3])
        ]
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
    case.same(case.fit(X, sample_weight=k).score_samples(case.Q))
    model = TableDensity(density=case.density).fit(X, sample_weight=k)
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
    for c in others:
        if not filled[c].equals(Q[c]):
            raise AssertionError(f"{c} is {filled[c].tolist()}, was {Q[c].tolist()}")


def draws(case):
    """Draws have the dtypes of the frame, are right rows again, and keep given cells."""
    drawn = case.model.sample(8, random_state=0)
    if dict(drawn.dtypes) != dict(case.X.dtypes):
        raise AssertionError(f"{dict(drawn.dtypes)} for {dict(case.X.dtypes)}")
    log_density = case.model.score_samples(drawn)
    if not np.all(np.isfinite(log_density)):
        raise AssertionError(f"log-densities {log_density} of draws {drawn.to_dict('list')}")
    name = case.X.columns[0]
    value = case.Q[name].iloc[0]
    given = case.model.sample(5, random_state=0, given={name: value})
    if not (given[name] == value).all():
        raise AssertionError(f"{name} is {given[name].tolist()}, given {value}")
    filled = DensityImputer(TableDensity(density=case.density), random_state=0).fit_transform(
        case.X
    )
    known = case.X.notna()
    if filled.isna().any().any() or not filled.where(known).equals(case.X.where(known)):
        raise AssertionError("DensityImputer changes known cells or leaves missing ones")


def unmodified(case):
    X, Q = case.X.copy(deep=True), case.Q.copy(deep=True)
    case.fit(case.X).score_samples(case.Q)
    if not (X.equals(case.X) and Q.equals(case.Q)):
        raise AssertionError("X changed")


LAWS = {
    f.__name__: f
    for f in (
        detection,
        order_of_rows,
        order_of_columns,
        library,
        weights,
        absent,
        one_at_a_time,
        conditional,
        missing,
        draws,
        unmodified,
    )
}
