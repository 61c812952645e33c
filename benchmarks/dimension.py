"""The dimension of clouds with a known one, by six estimators; and what it is worth to a learned kernel.

Needs scikit-dimension (pip install scikit-dimension) for the columns of other estimators; without it,
TwoNN alone is shown.
"""

import time

import numpy as np
from _common import full_requested, header, row
from sklearn.datasets import make_swiss_roll
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from skdiffsmooth import ManifoldAdaptedDiffusion, SmoothedScoreDiffusion
from skdiffsmooth.manifolds import intrinsic_dimension
from skdiffsmooth.metrics import memorization

OTHERS = ("MLE", "lPCA", "CorrInt", "MOM", "MADA", "MiND_ML")


def two_nn(X):
    """Return the estimate of Facco et al. 2017 from ratios of the distances to two neighbours."""
    distances = NearestNeighbors(n_neighbors=2).fit(X).kneighbors()[0]
    logs = np.sort(np.log(distances[:, 1] / distances[:, 0]))[: int(0.9 * len(X))]
    tails = -np.log1p(-np.arange(1, len(logs) + 1) / len(X))
    return logs @ tails / (logs @ logs)


def other_estimators():
    """Return functions of scikit-dimension by name, or none."""
    try:
        from skdim import id as skdim
    except ImportError:
        return {}
    makers = {name: getattr(skdim, name) for name in OTHERS}
    return {name: lambda X, make=make: make().fit(X).dimension_ for name, make in makers.items()}


def sphere(n, k, d, std, rng):
    """Return rows of the k-sphere in R^d, with noise."""
    X = rng.normal(size=(n, k + 1))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    return X @ np.eye(k + 1, d) + std * rng.normal(size=(n, d))


def flat(n, k, std, rng, is_cube=False):
    """Return rows of a Gaussian cloud, or of a cube with the same variance, in R^20, with noise."""
    X = rng.uniform(-(3**0.5), 3**0.5, size=(n, k)) if is_cube else rng.normal(size=(n, k))
    return X @ np.eye(k, 20) + std * rng.normal(size=(n, 20))


def klein(n, std, rng):
    """Return rows of a Klein bottle in R^4, with noise."""
    u, w = rng.uniform(0, 2 * np.pi, size=(2, n))
    radius = 2 + np.cos(w)
    columns = radius * np.cos(u), radius * np.sin(u)
    X = np.column_stack([*columns, np.sin(w) * np.cos(u / 2), np.sin(w) * np.sin(u / 2)])
    return X + std * rng.normal(size=X.shape)


def swiss_roll(n, std, rng):
    """Return rows of a swiss roll in R^3, with noise."""
    return make_swiss_roll(n, noise=std, random_state=rng)[0]


CLOUDS = {
    "circle in R^10, noise .05": (1, lambda n, rng: sphere(n, 1, 10, 0.05, rng)),
    "S^2 in R^10": (2, lambda n, rng: sphere(n, 2, 10, 0.0, rng)),
    "S^2 in R^10, noise .05": (2, lambda n, rng: sphere(n, 2, 10, 0.05, rng)),
    "S^2 in R^6, noise .1": (2, lambda n, rng: sphere(n, 2, 6, 0.1, rng)),
    "S^5 in R^10": (5, lambda n, rng: sphere(n, 5, 10, 0.0, rng)),
    "S^5 in R^10, noise .05": (5, lambda n, rng: sphere(n, 5, 10, 0.05, rng)),
    "swiss roll": (2, lambda n, rng: swiss_roll(n, 0.0, rng)),
    "swiss roll, noise .3": (2, lambda n, rng: swiss_roll(n, 0.3, rng)),
    "Klein bottle in R^4": (2, lambda n, rng: klein(n, 0.0, rng)),
    "Klein bottle in R^4, noise .05": (2, lambda n, rng: klein(n, 0.05, rng)),
}
for _k in (1, 3, 5, 10):
    for _std in (0.0, 0.05):
        _name = f"{_k}-flat in R^20, Gaussian" + (", noise .05" if _std else "")
        CLOUDS[_name] = (_k, lambda n, rng, k=_k, std=_std: flat(n, k, std, rng))
    CLOUDS[f"{_k}-cube in R^20"] = (_k, lambda n, rng, k=_k: flat(n, k, 0.0, rng, is_cube=True))


def dimensions(n, seeds):
    """Print the mean estimate of each estimator, and the largest error of ours in standard errors."""
    others = {"TwoNN": two_nn, **other_estimators()}
    print(f"\n{n} rows, mean of {len(seeds)} tables\n")
    header("cloud", "k", "ours", "error", "largest z", "noise", "CPU s", *others)
    misses = {kind: dict.fromkeys(("ours", *others), 0) for kind in ("clouds", "cubes")}
    for name, (k, make) in CLOUDS.items():
        start = time.process_time()
        results = [intrinsic_dimension(make(n, np.random.RandomState(seed))) for seed in seeds]
        seconds = (time.process_time() - start) / len(seeds)
        values = np.array([result.dimension for result in results])
        errors = np.array([result.dimension_error for result in results])
        noise = np.sqrt(np.mean([result.noise_variance for result in results]))
        means = {
            other: np.mean([call(make(n, np.random.RandomState(seed))) for seed in seeds])
            for other, call in others.items()
        }
        for other, mean in {"ours": values.mean(), **means}.items():
            misses["cubes" if "cube" in name else "clouds"][other] += abs(mean - k) > 0.3
        z = np.max(np.abs(values - k) / errors)
        cells = f"{values.mean():.2f}", f"{errors.mean():.2f}", f"{z:.1f}", f"{noise:.3f}"
        row(name, str(k), *cells, f"{seconds:.2f}", *(f"{mean:.2f}" for mean in means.values()))
    n_cubes = sum("cube" in name for name in CLOUDS)
    for kind, n_kind in (("clouds", len(CLOUDS) - n_cubes), ("cubes", n_cubes)):
        of_ours, *rest = misses[kind].values()
        row(f"off by more than .3, of {n_kind} {kind}", "", of_ours, *[""] * 4, *rest)


def kernels(n, seeds):
    """Print held-out nats of `ManifoldAdaptedDiffusion` by the dimension of its tangents."""
    print(f"\nHeld-out nats, {n} rows, {len(seeds)} splits\n")
    header("cloud", '"auto"', "chosen", "1", "2", "3", "4")
    for name in [name for name in list(CLOUDS)[:10] if "noise" in name]:
        _, make = CLOUDS[name]
        scores, chosen = [], []
        for seed in seeds:
            X = make(n + 200, np.random.RandomState(100 + seed))
            fits = [
                ManifoldAdaptedDiffusion(n_components=m).fit(X[:n])
                for m in ("auto", *range(1, min(5, X.shape[1] + 1)))
            ]
            chosen.append(fits[0].n_components_)
            scores.append([fit.score(X[n:]) for fit in fits])
        means = np.mean(scores, axis=0)
        row(name, f"{means[0]:.3f}", str(chosen), *(f"{mean:.3f}" for mean in means[1:]))


def copies(n):
    """Print how well copies with noise are found: areas under ROC curves, beside `memorization`.

    A drawn row is a copy where its LID under the training rows is small. Noise is in units of the median
    distance to the nearest training row, and v a third of the square of that distance over k.
    """
    print(f"\nCopies with noise among new rows, {n} training rows: area under the ROC curve\n")
    noises = (0.3, 0.6, 1.0)
    header("cloud", *(f"{name}, noise {s:g}" for s in noises for name in ("LID", "ratio")))
    for name in (*list(CLOUDS)[2::4], "Klein bottle in R^4", "5-flat in R^20, Gaussian"):
        k, make = CLOUDS[name]
        X, new = (make(rows, np.random.RandomState(rows)) for rows in (n, n // 2))
        spacing = np.median(NearestNeighbors(n_neighbors=1).fit(X).kneighbors()[0])
        v, d = spacing**2 / (3 * k), X.shape[1]
        kde = {"sigma": 0.0, "metric": "euclidean", "background": 0.0}
        model = SmoothedScoreDiffusion(np.sqrt(v), **kde).fit(X)
        rng, cells = np.random.RandomState(0), []
        for s in noises:
            near = X[: n // 2] + s * spacing * rng.normal(size=(n // 2, d)) / np.sqrt(d)
            rows, is_new = np.concatenate([near, new]), np.repeat([0, 1], n // 2)
            score = model.grad_log_density(rows, v)
            lid = d + v * (model.laplacian_log_density(rows, v) + np.sum(score**2, axis=1))
            ratio = memorization(rows, X).ratio
            cells += [f"{roc_auc_score(is_new, each):.2f}" for each in (lid, ratio)]
        row(name, *cells)


if __name__ == "__main__":
    full = full_requested()
    dimensions(1000, range(3 if full else 1))
    if full:
        dimensions(2000, range(2))
        copies(1000)
        kernels(400, range(2))
