"""What to smooth: rows, Parzen windows or a Gaussian mixture; isotropic or gated kernel.

Every model is tuned on a quarter of the training rows that it is not fitted on, then refitted to all of
them and scored on held-out rows, as a user of a search would. Scales are numbers, so the metric is
Euclidean and there is no background, but for the last column: rows with default parameters.
"""

import numpy as np
from _common import full_requested, header, row, timed
from learned import ring, roll, splits, table
from sklearn import datasets
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from skdiffsmooth import KDESampler, ManifoldAdaptedDiffusion, SmoothedScoreDiffusion
from skdiffsmooth.bases import ManifoldParzen

STEPS = {"n_levels": 24, "n_steps": 24}
# In units of the leave-one-out bandwidth of the KDE.
BANDWIDTH = 0.85
SIGMAS = (1.0, 2.0, 3.5)
# In units of the windows' own leave-one-out bandwidth, and of a mixture's narrowest deviation.
MULTIPLES = (0.0, 1.0, 2.0, 4.0)
SHAPES = ((10, 2), (20, 3), (20, None))
COMPONENTS = (1, 2, 4, 8, 16)


class Tuning:
    """One split: parameters chosen on held-back rows, and their log-density on others."""

    def __init__(self, X, held_out):
        n_seen = len(X) * 3 // 4
        self.X, self.seen, self.kept_back, self.held_out = X, X[:n_seen], X[n_seen:], held_out
        self.scales = [KDESampler("loo").fit(rows).bandwidth_ for rows in (X, self.seen)]
        self.densities, self.seconds = {}, {}

    def best(self, name, make, grid):
        """Choose from a grid by `make(h, *choice)`, and keep the density of the held-out rows."""
        grid = list(grid)
        scores = []
        for choice in grid:
            model = make(self.scales[1], *choice).fit(self.seen)
            scores.append(model.score_samples(self.kept_back[:40]).mean())
        choice = grid[int(np.argmax(scores))]
        model = make(self.scales[0], *choice).fit(self.X)
        self.seconds[name], self.densities[name] = timed(
            lambda: model.score_samples(self.held_out), repeats=1, warm_up=False
        )
        return choice


class OverMixture:
    """A mixture that is smoothed by a multiple of its narrowest standard deviation."""

    def __init__(self, n_components, multiple):
        self.n_components, self.multiple = n_components, multiple

    def fit(self, X):
        mixture = GaussianMixture(self.n_components, random_state=0, reg_covar=1e-4).fit(X)
        sigma = "auto"
        if self.multiple is not None:
            narrowest = np.linalg.eigvalsh(mixture.covariances_).min() ** 0.5
            sigma = self.multiple * narrowest
        return SmoothedScoreDiffusion(sigma=sigma, base=mixture, n_nodes=64, **STEPS).fit(X)


def tuned(X, held_out, n_components):
    """Return the tuned split, and what was chosen."""
    case, chosen = Tuning(X, held_out), {}

    def isotropic(b, s, **given):
        return SmoothedScoreDiffusion(b, s, **STEPS, **given)

    def gated(b, s, **given):
        return ManifoldAdaptedDiffusion(
            b, s, n_components=n_components, n_nodes=32, **STEPS, **given
        )

    case.best("kde", lambda h, b: KDESampler(b * h), [(b,) for b in (0.7, 0.85, 1.0, 1.2)])
    for name, kernel in (("points", isotropic), ("gated", gated)):
        chosen[name] = case.best(
            name,
            lambda h, s, kernel=kernel: kernel(BANDWIDTH * h, s * h),
            [(s,) for s in SIGMAS],
        )
    shape = case.best(
        "parzen",
        lambda h, n, k: SmoothedScoreDiffusion("loo", 0.0, base=ManifoldParzen(n, k)),
        SHAPES,
    )
    base = ManifoldParzen(*shape)
    alone = {
        h: SmoothedScoreDiffusion("loo", 0.0, base=base).fit(rows).bandwidth_
        for rows, h in zip((case.X, case.seen), case.scales, strict=True)
    }
    for name, kernel in (("smoothed parzen", isotropic), ("gated parzen", gated)):
        (s,) = case.best(
            name,
            lambda h, s, kernel=kernel: kernel(alone[h], s * alone[h], base=base),
            [(s,) for s in MULTIPLES],
        )
        chosen[name] = (*shape, round(alone[case.scales[0]] / case.scales[0], 2), s)
    (n,) = case.best(
        "mixture",
        lambda h, n: GaussianMixture(n, random_state=0, reg_covar=1e-4),
        [(n,) for n in COMPONENTS],
    )
    chosen["mixture"] = n

    def over_mixture(h, n, s):
        return OverMixture(n, s)

    grid = [(k, s) for k in (n, 2 * n) for s in MULTIPLES]
    chosen["smoothed mixture"] = case.best("smoothed mixture", over_mixture, grid)
    case.best("smoothed mixture, auto", lambda h: OverMixture(n, None), [()])
    case.best("defaults", lambda h: SmoothedScoreDiffusion(**STEPS), [()])
    return case, chosen


def principal(X, n_components):
    """Return leading principal components, standardised alike."""
    found = PCA(n_components).fit_transform(X)
    return found / found.std()


def problems():
    """Return name, generator or rows, how many to fit, and dimension of the tangents."""
    cancer = table(datasets.load_breast_cancer)[:, :10]
    digits = principal(datasets.load_digits().data / 16.0, 8)
    return [
        ("circle in R^10", lambda n, rng: ring(n, rng, d=10, noise=0.03), 200, 1),
        ("swiss roll in R^10", roll, 300, 2),
        ("wine", table(datasets.load_wine), 124, 4),
        ("breast cancer, means", cancer, 300, 4),
        ("digits, 8 PCs", digits, 300, 4),
        ("diabetes", table(datasets.load_diabetes), 300, 4),
    ]


NAMES = (
    "kde",
    "points",
    "gated",
    "parzen",
    "smoothed parzen",
    "gated parzen",
    "mixture",
    "smoothed mixture",
    "smoothed mixture, auto",
    "defaults",
)


def mixtures():
    """Print the gain of smoothing mixtures: those chosen by held-out rows, and larger ones."""
    multiples = (1.0, 2.0, 3.0, 4.0, 6.0)
    print("\nGain of smoothing a mixture, by sigma over its narrowest standard deviation.\n")
    header("data", "split", "components", *multiples)
    for name, make, n, _ in problems():
        for split, (X, held_out) in enumerate(splits(make, n, 200, 2)):
            cut = len(X) * 3 // 4
            given = {"random_state": 0, "reg_covar": 1e-4}
            scores = [GaussianMixture(k, **given).fit(X[:cut]).score(X[cut:]) for k in COMPONENTS]
            best = COMPONENTS[int(np.argmax(scores))]
            for k in sorted({best, min(2 * best, 16)}):
                base = GaussianMixture(k, **given).fit(X)
                narrowest = np.linalg.eigvalsh(base.covariances_).min() ** 0.5
                plain, *smoothed = (
                    SmoothedScoreDiffusion(0.3 * narrowest, s * narrowest, base=base, n_nodes=64)
                    .fit(X)
                    .score(held_out[:60])
                    for s in (0.0, *multiples)
                )
                row(name, split, k, *[f"{score - plain:+.2f}" for score in smoothed])


def times():
    """Print the time of bases and learned kernels, over isotropic smoothing of the rows."""
    rng = np.random.RandomState(0)
    queries = roll(100, rng)
    given = {"n_nodes": 64, "n_levels": 8, "n_steps": 8, "metric": "euclidean"}
    print(
        "\nTime of score_samples over that of isotropic smoothing of the rows: swiss roll in R^10.\n"
    )
    header(
        "rows", "learned kernel", "mixture of 8", "mixture of 32", "windows", "learned over windows"
    )
    for n in (400, 4000):
        X = roll(n, rng)
        windows = ManifoldParzen(20, 3)
        models = [
            SmoothedScoreDiffusion(0.2, 0.3, **given),
            ManifoldAdaptedDiffusion(0.2, 0.3, n_components=2, **given),
            SmoothedScoreDiffusion(0.2, 0.3, base=GaussianMixture(8, random_state=0), **given),
            SmoothedScoreDiffusion(0.2, 0.3, base=GaussianMixture(32, random_state=0), **given),
        ]
        if n == 400:
            models += [
                SmoothedScoreDiffusion(0.2, 0.3, base=windows, **given),
                ManifoldAdaptedDiffusion(0.2, 0.3, n_components=2, base=windows, **given),
            ]
        seconds = [
            timed(lambda fitted=fitted: fitted.score_samples(queries), repeats=3)[0]
            for fitted in [model.fit(X) for model in models]
        ]
        row(n, *[f"{spent / seconds[0]:.2g}x" for spent in seconds[1:]])


def run(full=False):
    """Print the tables."""
    n_seeds = 3 if full else 2
    print("Held-out nats a row, means of splits.\n")
    header("data", "N", *NAMES)
    gains, times, choices = [], [], []
    for name, make, n, n_components in problems():
        cases = [tuned(X, held[:100], n_components) for X, held in splits(make, n, 100, n_seeds)]
        means = {k: np.mean([case.densities[k].mean() for case, _ in cases]) for k in NAMES}
        row(name, n, *[f"{means[k]:.2f}" for k in NAMES])
        cells = []
        for one, other in (
            ("gated parzen", "parzen"),
            ("gated", "points"),
            ("smoothed mixture, auto", "mixture"),
            ("smoothed mixture", "mixture"),
        ):
            gap = np.concatenate([case.densities[one] - case.densities[other] for case, _ in cases])
            cells.append(f"{gap.mean():+.2f} +- {gap.std() / np.sqrt(len(gap)):.2f}")
        gains.append((name, *cells))
        seconds = {k: np.mean([case.seconds[k] for case, _ in cases]) for k in NAMES}
        times.append(
            (name, *[f"{seconds[k] / seconds['points']:.1f}x" for k in NAMES[2:] if k != "mixture"])
        )
        choices.append((name, *[str(chosen) for _, chosen in cases]))
    print(
        "\nGain over the base, or over isotropic smoothing of rows, with its paired standard error.\n"
    )
    header("data", "gated Parzen", "gated points", "smoothed mixture, auto", "tuned")
    for cells in gains:
        row(*cells)
    print("\nTime of score_samples over that of the isotropic kernel over points.\n")
    header("data", *[k for k in NAMES[2:] if k != "mixture"])
    for cells in times:
        row(*cells)
    print("\nChosen.\n")
    for cells in choices:
        row(*cells)
    mixtures()
    times()


if __name__ == "__main__":
    run(full_requested())
