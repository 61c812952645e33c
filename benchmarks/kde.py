"""P4: time and error of KDESampler against the kernel density estimates of other libraries."""

import importlib.util

import numpy as np
from _common import full_requested, header, row, timed
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


def run(full=False):
    """Print the table, and which optional rivals are not installed."""
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


if __name__ == "__main__":
    run(full_requested())
