"""Laws that every density must obey, whatever its table: units, order, offsets, weights, conditionals.

Each law takes a case, a random table with a model of random settings, and raises AssertionError.
"""

import copy
import pickle

import numpy as np
from scipy.special import gammaln
from scipy.stats import special_ortho_group
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from skdiffsmooth import (
    CoarseScoreDiffusion,
    KDESampler,
    LocalScoreDiffusion,
    ManifoldAdaptedDiffusion,
    SmoothedScoreDiffusion,
    SphericalScoreDiffusion,
)
from skdiffsmooth.bases import ManifoldParzen
from skdiffsmooth.compose import DensityStacking, TransformedDensity

COARSE = {"n_nodes": 8, "n_levels": 4, "n_steps": 4}
# Two fits of the same rows choose their scales by a search that ends at this relative width.
SEARCH = 1e-5


def constant(rng, n, d):
    X = rng.normal(size=(n, d))
    X[:, rng.randint(d)] = rng.randint(1, 4)
    return X


def dependent(rng, n, d):
    X = rng.normal(size=(n, d))
    X[:, -1] = X[:, 0]
    return X


def thin(rng, n, d):
    return rng.normal(size=(n, 1)) @ rng.normal(size=(1, d)) + 1e-3 * rng.normal(size=(n, d))


TABLES = {
    "ordinary": lambda rng, n, d: rng.normal(size=(n, d)),
    "skewed": lambda rng, n, d: np.exp(rng.normal(size=(n, d))),
    "heavy": lambda rng, n, d: rng.standard_t(1.5, size=(n, d)),
    "thin": thin,
    "constant": constant,
    "dependent": dependent,
    "counts": lambda rng, n, d: rng.poisson(3, size=(n, d)).astype(float),
    "copies": lambda rng, n, d: rng.normal(size=(n, d))[rng.randint(n, size=n)],
    "groups": lambda rng, n, d: rng.normal(size=(n, d)) * 0.1 + 5 * rng.randint(0, 3, size=(n, 1)),
    "uneven": lambda rng, n, d: rng.normal(size=(n, d)) * 10.0 ** rng.randint(-3, 4, d),
}

# Models: each returns a function of the unit of the columns that returns an unfitted model.
KERNELS = ["gaussian", "tophat", "epanechnikov", "exponential", "linear", "cosine"]


def scale(rng, names):
    """Return a number, or one of some rules, as a function of the unit."""
    value = rng.choice([*names, "number"])
    size = 10 ** rng.uniform(-1.0, 0.3)
    return lambda s: size * s if value == "number" else str(value)


def scales(rng, *rules):
    """Return all as numbers, which are in units of X, or all by rules."""
    if rng.uniform() < 0.3:
        return [scale(rng, []) for _ in rules]
    names = [str(rng.choice(rule)) for rule in rules]
    return [lambda s, name=name: name for name in names]


def kde(rng, X):
    kernel = str(rng.choice(KERNELS))
    metric = str(rng.choice(["euclidean", "scaled", "whitened"]))
    bandwidth = scale(rng, ["loo"])
    # A number is in units of the metric.
    unit = 1.0 if metric == "euclidean" else 0.0
    return lambda s: KDESampler(bandwidth(s**unit), kernel, metric=metric)


def smoothed(rng, X):
    bandwidth, sigma = scales(rng, ["auto", "loo", "0.8h"], ["auto", "0h", "1.5h"])
    options = COARSE | {
        "kernel": str(rng.choice(["gaussian", "uniform-ball", "temperature"])),
        "background": ["auto", 0.0, 0.05][rng.randint(3)],
        "noise": str(rng.choice(["ve", "ou"])),
        "solver": str(rng.choice(["auto", "heun", "multistep", "adaptive"])),
        "terminal": str(rng.choice(["empirical", "gaussian"])),
    }
    if rng.uniform() < 0.2 and len(X) > 25:
        options |= {"base": ManifoldParzen(5), "kernel": "gaussian", "background": "auto"}
    return lambda s: SmoothedScoreDiffusion(bandwidth(s), sigma(s), **options)


def adapted(rng, X):
    bandwidth, sigma = scales(rng, ["auto", "loo"], ["auto", "1.5h"])
    options = COARSE | {"manifold": str(rng.choice(["local", "pca"])), "n_components": 1}
    return lambda s: ManifoldAdaptedDiffusion(bandwidth(s), sigma(s), **options)


def coarse(rng, X):
    size = 10 ** rng.uniform(-2, -0.5)
    options = {"degree": int(rng.choice([1, 2])), "n_components": 1}
    if rng.uniform() < 0.5:
        # The bandwidth is in units of the metric.
        metric = str(rng.choice(["scaled", "whitened"]))
        return lambda s: CoarseScoreDiffusion(bandwidth=size, metric=metric, **options)
    return lambda s: CoarseScoreDiffusion(bandwidth=size * s, **options)


def local(rng, X):
    bandwidth = scale(rng, ["auto"])
    sigma = rng.choice([0.0, 0.3])
    return lambda s: LocalScoreDiffusion(bandwidth(s), sigma * s, n_levels=4, n_steps=4)


def stacking(rng, X):
    first, second = kde(rng, X), smoothed(rng, X)
    return lambda s: DensityStacking([("kde", first(s)), ("smoothed", second(s))], cv=2)


def transformed(rng, X):
    """Return a model in columns of unit size, in which scales have no unit."""
    inner = (kde, smoothed)[rng.randint(2)](rng, X)(1.0)
    scaler = (StandardScaler(), MinMaxScaler())[rng.randint(2)]
    return lambda s: TransformedDensity(inner, scaler)


MODELS = {f.__name__: f for f in (kde, stacking, coarse, local, adapted, smoothed, transformed)}


def close(found, expected, tolerance, what):
    """Raise if arrays differ by more than a tolerance, absolute and relative."""
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    with np.errstate(invalid="ignore"):
        error = np.where(found == expected, 0, np.abs(found - expected))
    allowed = tolerance * (1 + np.where(np.isinf(expected), 0, np.abs(expected)))
    if not np.all(error <= allowed):
        raise AssertionError(f"{found} for {expected}: {what}")


class Case:
    """A table of a kind, a model of random settings, queries, and the fit of both."""

    def __init__(self, model, table, number):
        kind = 1000 * list(MODELS).index(model) + list(TABLES).index(table)
        self.rng = np.random.RandomState(7919 * kind + number)
        n, d = self.rng.randint(12, 40), self.rng.randint(2, 5)
        X = TABLES[table](self.rng, n, d)
        # Multiples of 2^-20, so that offsets and units change them exactly.
        self.X = np.round(X * 2.0**20) / 2.0**20
        rows = self.X[self.rng.randint(n, size=4)]
        noise = 0.2 * self.X.std(axis=0) * self.rng.normal(size=rows.shape)
        self.Q = np.round((rows + noise) * 2.0**20) / 2.0**20
        if table == "dependent":
            self.Q[:, -1] = self.Q[:, 0]
        # Residuals of the hull are as wide as the rounding of the values, in units of the column.
        self.has_hull = table in ("constant", "dependent", "copies")
        self.make = MODELS[model](self.rng, self.X)
        self.model = self.make(1.0).fit(self.X)
        self.answers = self.model.score_samples(self.Q)

    def same(self, found, expected=None, tolerance=SEARCH):
        expected = self.answers if expected is None else expected
        close(found, expected, tolerance, f"{self.model} {self.X.shape}")

    def same_fit(self, X, tolerance=SEARCH, shift=0, **options):
        """Raise if a model of other rows has other log-densities."""
        self.same(self.make(1.0).fit(X, **options).score_samples(self.Q + shift), None, tolerance)


class SphereCase(Case):
    """Directions of three to six columns, and a model of random settings."""

    def __init__(self, number):
        self.rng = rng = np.random.RandomState(number)
        n, d = rng.randint(12, 40), rng.randint(3, 7)
        rows = rng.normal(size=(n + 4, d)) + 10 ** rng.uniform(-1, 1) * rng.normal(size=d)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        self.X, self.Q, self.has_hull = rows[:-4], rows[-4:], False
        sigma = ["auto", 0.0, 10 ** rng.uniform(-1.5, 0)][rng.randint(3)]
        bandwidth = scale(rng, ["auto"])(1.0) if sigma == "auto" else 10 ** rng.uniform(-1.5, 0)
        options = {"n_nodes": 8, "n_steps": 6}
        self.make = lambda s: SphericalScoreDiffusion(bandwidth, sigma, **options)
        self.model = self.make(1.0).fit(self.X)
        self.answers = self.model.score_samples(self.Q)


def finite(case):
    draws = case.model.sample(5, random_state=0)
    if not np.all(np.isfinite(draws)) or not np.all(case.answers < np.inf):
        raise AssertionError(f"{draws} and log-densities {case.answers} of {case.model}")


def units(case):
    if isinstance(case.model, TransformedDensity) and np.ptp(case.X, axis=0).min() == 0:
        return  # a scaler leaves the unit of a constant column
    exponent = case.rng.randint(-60, 61)
    unit, std = 2.0**exponent, case.X.std()
    other = case.make(unit).fit(unit * case.X)
    case.same(other.score_samples(unit * case.Q) + case.X.shape[1] * exponent * np.log(2))
    draws = other.sample(3, random_state=0) / unit
    case.same(draws / std, case.model.sample(3, random_state=0) / std, 1e-4)


def offset(case):
    if not case.has_hull:
        shift = case.rng.randint(-(2**16), 2**16, case.X.shape[1])
        # The rounding of differences grows with the offset.
        case.same_fit(case.X + shift, 1e-4, shift)


def order(case):
    case.same_fit(case.X[case.rng.permutation(len(case.X))], 1e-4)


def weights(case):
    k = case.rng.randint(1, 4, len(case.X))
    weighted = case.make(1.0).fit(case.X, sample_weight=k)
    repeated = case.make(1.0).fit(np.repeat(case.X, k, axis=0))
    case.same(weighted.score_samples(case.Q), repeated.score_samples(case.Q))


def absent(case):
    k = np.r_[np.ones(len(case.X)), np.zeros(3)]
    case.same_fit(np.r_[case.X, 100 + case.Q[:3]], sample_weight=k)


def one_at_a_time(case):
    case.same([case.model.score_samples(q[None])[0] for q in case.Q], tolerance=1e-9)


def memory(case):
    model = case.make(1.0)
    parts = [p for p in model.get_params() if p.endswith("memory_limit")]
    model.set_params(**dict.fromkeys(parts, 1)).fit(case.X)
    case.same(model.score_samples(case.Q), tolerance=1e-7)


def copied(case):
    for other in (copy.deepcopy(case.model), pickle.loads(pickle.dumps(case.model))):
        case.same(other.score_samples(case.Q), tolerance=0)
        case.same(other.sample(3, random_state=1), case.model.sample(3, random_state=1), 0)


def slope(case):
    """The score is the gradient of the energy, by central differences."""
    model = case.model
    # Across the hull the density changes within the rounding of its rows.
    if isinstance(model, ManifoldAdaptedDiffusion) or not hasattr(model, "energy"):
        return
    if case.has_hull or np.isinf(case.answers).any():
        return
    score, eps = model.grad_log_density(case.Q), 1e-5 * case.X.std(axis=0)
    scale = np.abs(score).max(axis=1) + 1 / case.X.std()
    for j in np.flatnonzero(eps):
        shift = eps * (np.arange(len(eps)) == j)
        found = -(model.energy(case.Q + shift) - model.energy(case.Q - shift)) / (2 * eps[j])
        case.same((found - score[:, j]) / scale, np.zeros(len(found)), 1e-3)


def has_conditionals(model):
    if isinstance(model, TransformedDensity):
        return has_conditionals(model.estimator)
    if isinstance(model, DensityStacking):
        return all(has_conditionals(each) for _, each in model.estimators)
    if isinstance(model, CoarseScoreDiffusion):
        return not model.coordinates_.columns.n_relations
    return not isinstance(model, KDESampler) or model.metric == "euclidean"


def conditional(case):
    """The density of all columns is that of some given the others, times that of the others."""
    given = list(range(case.rng.randint(1, case.X.shape[1])))
    model = case.model
    if not has_conditionals(model) or np.isinf(case.answers).any():
        return
    a = model.score_samples(case.Q, columns=given)
    b = model.score_samples(case.Q, given=given)
    total = np.where(np.isinf(a) & np.isinf(b), -np.inf, a + b)
    case.same(total, tolerance=1e-6)
    draws = model.sample(3, random_state=0, given={j: case.Q[0, j] for j in given})
    case.same(draws[:, given], np.tile(case.Q[0, given], (3, 1)), 0)
    case.same(draws * 0, np.zeros(draws.shape), 0)


def mass(case):
    """The mass is one, by draws of a kernel density estimate of draws."""
    if case.has_hull or np.ptp(case.X, axis=0).min() == 0:
        return
    draws = case.model.sample(600, random_state=0)
    width = 1.5 * KDESampler(metric="whitened").fit(draws[:300]).bandwidth_
    other = KDESampler(width, metric="whitened").fit(draws[300:])
    rows = other.sample(600, random_state=1)
    ratios = np.exp(case.model.score_samples(rows) - other.score_samples(rows))
    one_by_mean(case, ratios)


def one_by_mean(case, ratios):
    """Raise if the mean of ratios is farther from 1 than five standard errors."""
    error = 0.02 + 5 * ratios.std() / np.sqrt(len(ratios))
    if not abs(ratios.mean() - 1) <= error:
        raise AssertionError(f"mass {ratios.mean():.3g} +- {error:.2g} of {case.model}")


def rotation(case):
    turn = special_ortho_group.rvs(case.X.shape[1], random_state=case.rng)
    case.same(case.make(1.0).fit(case.X @ turn).score_samples(case.Q @ turn), tolerance=1e-4)


def mass_on_sphere(case):
    d = case.X.shape[1]
    rows = case.rng.normal(size=(4000, d))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    area = np.exp(np.log(2) + d / 2 * np.log(np.pi) - gammaln(d / 2))
    one_by_mean(case, area * np.exp(case.model.score_samples(rows)))


OF_SPHERES = (finite, order, weights, one_at_a_time, memory, copied, rotation, mass_on_sphere)
LAWS = (finite, units, offset, order, weights, absent)
LAWS += (one_at_a_time, memory, copied, slope, conditional, mass)
