"""P4 and S5: time and error of KDESampler against the kernel density estimates of other libraries."""

import importlib.util
import time

import numpy as np
from _common import full_requested, header, row, timed
from scipy.interpolate import RegularGridInterpolator
from scipy.stats import gaussian_kde
from sklearn.neighbors import KernelDensity

from skdiffsmooth import KDESampler


def white_rows(n, dimension):
    """Return normal rows of unit covariance exactly: scipy's kernel is then isotropic too."""
    X = np.random.RandomState(0).normal(size=(n, dimension))
    return X @ np.linalg.cholesky(np.linalg.inv(np.atleast_2d(np.cov(X.T))))


def kdepy(X, bandwidth):
    """Return KDEpy's log-density, the one without binning."""
    from KDEpy import NaiveKDE

    fitted = NaiveKDE(kernel="gaussian", bw=bandwidth).fit(X)
    return lambda Q: np.log(fitted.evaluate(Q))


def keops(X, bandwidth):
    """Return the log-density by KeOps' generated code."""
    from pykeops.numpy import LazyTensor

    normalizer = np.log(len(X)) + X.shape[1] * np.log(np.sqrt(2 * np.pi) * bandwidth)
    points = LazyTensor(X[None, :, :] / bandwidth)

    def log_density(Q):
        logits = -0.5 * ((LazyTensor(Q[:, None, :] / bandwidth) - points) ** 2).sum(-1)
        return logits.logsumexp(dim=1).ravel() - normalizer

    return log_density


def optional_rivals():
    """Return those that are installed, by name, and the names of those that are not."""
    if importlib.util.find_spec("pykeops"):
        import pykeops.numpy  # now, for it prints, and what it prints later would break the table

        pykeops.set_verbose(False)
    every = {"KDEpy": kdepy, "pykeops": keops}
    installed = {name: fit for name, fit in every.items() if importlib.util.find_spec(name)}
    return installed, sorted(every.keys() - installed.keys())


def rivals(X, bandwidth, optional):
    """Return log-densities by name; the first is exact."""
    exact = KernelDensity(bandwidth=bandwidth, leaf_size=len(X)).fit(X)
    tree = KernelDensity(bandwidth=bandwidth).fit(X)
    scipy_kde = gaussian_kde(X.T, bw_method=bandwidth)
    return {
        "sklearn, leaf_size=N": exact.score_samples,
        "sklearn, default": tree.score_samples,
        "scipy gaussian_kde": lambda Q: scipy_kde.logpdf(Q.T),
        **{name: fit(X, bandwidth) for name, fit in optional.items()},
    }


def spent(call):
    """Return the CPU seconds of one call, and what it returned."""
    start = time.process_time()
    value = call()
    return time.process_time() - start, value


def fft_density(X, bandwidth):
    """Return the log-density of KDEpy's FFT, interpolated linearly between the nodes of its grid."""
    from KDEpy import FFTKDE

    n_nodes = {1: 2**14, 2: 2**10, 3: 2**7}[X.shape[1]]
    grid, values = FFTKDE(bw=bandwidth).fit(X).evaluate(n_nodes)
    axes = [np.unique(column) for column in np.reshape(grid, (-1, X.shape[1])).T]
    values = np.reshape(values, [len(axis) for axis in axes])
    density = RegularGridInterpolator(axes, values, bounds_error=False, fill_value=0.0)
    return lambda Q: np.log(np.maximum(density(Q), 1e-300))


def many_rows(full):
    """Print the table of S5."""
    sizes = (100_000, 1_000_000) if full else (50_000,)
    print(
        "\nS5, KDE of many normal rows: CPU seconds of 1000 queries; those of `fit` in brackets, where "
        "ours also merges equal rows. The bandwidth is N^(-1/(d+4)); compact kernels have (d+4)^(1/2) "
        "times that. Errors are the largest relative ones, against rtol=0. FFT: KDEpy's, at the same "
        "queries by linear interpolation; it takes one grid for all. Ratios are sklearn's time over "
        "ours, of the queries alone and with `fit`.\n"
    )
    titles = "ours", "error", "sklearn's tree", "error", "ratio", "with fit", "FFT", "error"
    header("N", "d", "kernel", "rtol", *titles)
    has_fft = importlib.util.find_spec("KDEpy") is not None
    for n in sizes:
        for d in (1, 2, 3):
            X = np.random.RandomState(0).normal(size=(n, d))
            Q = np.random.RandomState(1).normal(size=(1000, d))
            for kernel in ("gaussian", "epanechnikov"):
                bandwidth = n ** (-1 / (d + 4)) * (1 if kernel == "gaussian" else (d + 4) ** 0.5)
                everything = KDESampler(bandwidth, kernel, rtol=0).fit(X)
                seconds, exact = spent(lambda m=everything, Q=Q: m.score_samples(Q))
                row(n, d, kernel, 0, f"{seconds:.2f}", "-", *[""] * 6)

                def error(values, exact=exact):
                    is_positive = exact > -np.inf
                    return f"{np.abs(np.expm1(values[is_positive] - exact[is_positive])).max():.0e}"

                fft = ("", "")
                if has_fft and kernel == "gaussian":
                    seconds, found = spent(lambda X=X, Q=Q, h=bandwidth: fft_density(X, h)(Q))
                    fft = f"{seconds:.2f}", error(found)
                for rtol in (1e-12, 1e-6, 1e-3):
                    cells, times = [], []
                    for model in (
                        KDESampler(bandwidth, kernel, rtol=rtol),
                        KernelDensity(bandwidth=bandwidth, kernel=kernel, rtol=rtol),
                    ):
                        fitting, _ = spent(lambda m=model, X=X: m.fit(X))
                        scoring, found = spent(lambda m=model, Q=Q: m.score_samples(Q))
                        cells += [f"{scoring:.2f} ({fitting:.2f})", error(found)]
                        times.append((scoring, scoring + fitting))
                    ratios = [f"{theirs / ours:.2g}" for ours, theirs in zip(*times, strict=True)]
                    row(n, d, kernel, f"{rtol:.0e}", *cells, *ratios, *fft)


def run(full=False):
    """Print both tables, and which optional rivals are not installed."""
    n_points, n_queries, bandwidth = 10_000, 1000, 0.3
    optional, missing = optional_rivals()
    print(
        f"P4, KDE: {n_queries} queries, {n_points} normal rows, bandwidth {bandwidth}. Errors are the "
        "largest, in nats, against sklearn with leaf_size=N; its own entry is ours against it. Fits "
        "and compilation are not timed.\n"
    )
    header("d", "rival", "KDESampler (s)", "rival (s)", "ratio", "our error", "rival's error")
    for dimension in (2, 10, 64):
        X = white_rows(n_points, dimension)
        Q = np.random.RandomState(1).normal(size=(n_queries, dimension))
        model = KDESampler(bandwidth).fit(X)
        ours, found = timed(lambda m=model, Q=Q: m.score_samples(Q))
        reference = None
        for name, log_density in rivals(X, bandwidth, optional).items():
            theirs, values = timed(lambda f=log_density, Q=Q: f(Q), 5 if full else 1)
            reference = values if reference is None else reference
            row(
                dimension,
                name,
                f"{ours:.3f}",
                f"{theirs:.2f}",
                f"{theirs / ours:.1f}x",
                f"{np.abs(found - reference).max():.0e}",
                f"{np.abs(values - reference).max():.0e}",
            )
    if missing:
        print(f"\nNot installed, so not timed: {', '.join(missing)}.")
    many_rows(full)


if __name__ == "__main__":
    run(full_requested())
