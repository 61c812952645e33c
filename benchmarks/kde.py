"""Time and error of KDESampler against scikit-learn and scipy, in one process."""

import numpy as np
from engine import median_time
from scipy.stats import gaussian_kde
from sklearn.neighbors import KernelDensity

from skdiffsmooth import KDESampler


def run(n_points=10_000, n_queries=1000, bandwidth=0.3):
    """Print the table: scoring 1000 queries against 10 000 standard normal rows."""
    print(f"KDE: {n_queries} queries, {n_points} points, bandwidth {bandwidth}, times in s\n")
    print("| d | KDESampler | sklearn tree | its error | sklearn exact | scipy | our error |")
    print("|---|---|---|---|---|---|---|")
    for d in (2, 10, 64):
        rng = np.random.RandomState(0)
        X, Q = rng.normal(size=(n_points, d)), rng.normal(size=(n_queries, d))
        ours = KDESampler(bandwidth).fit(X)
        tree = KernelDensity(bandwidth=bandwidth).fit(X)
        exact = KernelDensity(bandwidth=bandwidth, leaf_size=n_points).fit(X)
        rival = gaussian_kde(X.T)
        reference = exact.score_samples(Q)
        print(
            f"| {d} | {median_time(lambda m=ours, q=Q: m.score_samples(q)):.3f} "
            f"| {median_time(lambda m=tree, q=Q: m.score_samples(q), 1):.2f} "
            f"| {np.abs(tree.score_samples(Q) - reference).max():.0e} "
            f"| {median_time(lambda m=exact, q=Q: m.score_samples(q), 1):.2f} "
            f"| {median_time(lambda m=rival, q=Q: m.logpdf(q.T), 1):.2f} "
            f"| {np.abs(ours.score_samples(Q) - reference).max():.0e} |"
        )


if __name__ == "__main__":
    run()
