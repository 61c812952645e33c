"""P5: choosing bandwidth and sigma by leave-one-out likelihood, beside five-fold cross-validation."""

import numpy as np
from _common import full_requested, header, row, timed
from _problems import surface
from sklearn.model_selection import GridSearchCV

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth.model_selection import SmoothedScoreDiffusionCV

BANDWIDTHS = (0.05, 0.08, 0.12, 0.18, 0.27)
SIGMAS = (0.0, 0.1, 0.2, 0.3, 0.4)
# A number, so that it does not depend on the excluded row.
TERMINAL_SCALE = 1.5


def leave_one_out(X, bandwidth, sigma):
    """Return the mean leave-one-out log-density of a cell of the grid."""
    model = SmoothedScoreDiffusion(bandwidth, sigma).fit(X)
    return float(model.weights_ @ model.leave_one_out_log_density())


def cross_validated(X, bandwidth, sigma):
    """Return the mean log-density over five folds of a cell of the grid."""
    grid = {"bandwidth": [bandwidth], "sigma": [sigma]}
    search = GridSearchCV(SmoothedScoreDiffusion(), grid, cv=5, refit=False)
    return float(search.fit(X).cv_results_["mean_test_score"][0])


def searched(X):
    """Return the search over the same grid: all cells with few nodes and steps, three in full."""
    h = KDESampler("loo").fit(X).bandwidth_
    plain = SmoothedScoreDiffusion(metric="euclidean", background=0.0)
    return SmoothedScoreDiffusionCV(
        plain,
        bandwidth_factors=np.divide(BANDWIDTHS, h),
        sigma_factors=np.divide(SIGMAS, h),
        n_refinements=0,
    ).fit(X)


def refitted(X, bandwidth, sigma, left_out):
    """Return the log-density of some rows, each under a model fitted to all rows but it."""
    return np.array(
        [
            SmoothedScoreDiffusion(bandwidth, sigma, terminal_scale=TERMINAL_SCALE)
            .fit(np.delete(X, i, axis=0))
            .score_samples(X[i : i + 1])[0]
            for i in left_out
        ]
    )


def run(full=False):
    """Print the table; in quick mode three cells stand for the grid."""
    n, n_cells = 1000, len(BANDWIDTHS) * len(SIGMAS)
    X, fresh = surface(n), surface(n, seed=1)
    cells = [(h, s) for h in BANDWIDTHS for s in SIGMAS] if full else [(0.08, 0.1), (0.18, 0.3)]
    label = "" if full else f", extrapolated from {len(cells)}"
    print(
        f"P5, selection: {n} rows on a surface in R^8, {n_cells} cells of bandwidth and sigma{label}. "
        "Error: of the estimate of a cell's log-likelihood, in nats, mean over the cells, "
        f"against {n} fresh rows. Regret: what the chosen cell loses to the best one on them.\n"
    )
    truth = np.array([SmoothedScoreDiffusion(h, s).fit(X).score(fresh) for h, s in cells])
    seconds, names = {}, {"leave-one-out": leave_one_out, "GridSearchCV, cv=5": cross_validated}
    header("selector", "grid (s)", "time over leave-one-out's", "error", "regret")
    for name, estimate in names.items():
        spent, values = timed(
            lambda f=estimate: np.array([f(X, h, s) for h, s in cells]), repeats=1, warm_up=False
        )
        seconds[name] = spent * n_cells / len(cells)
        row(
            name,
            f"{seconds[name]:.0f}",
            f"{seconds[name] / seconds['leave-one-out']:.2f}x",
            f"{np.abs(values - truth).mean():.3f}",
            f"{truth.max() - truth[values.argmax()]:.3f}",
        )
    spent, search = timed(lambda: searched(X), repeats=1, warm_up=False)
    lost = truth.max() - search.score(fresh)
    row(
        "SmoothedScoreDiffusionCV",
        f"{spent:.0f}",
        f"{spent / seconds['leave-one-out']:.2f}x",
        f"{abs(search.best_score_ - search.score(fresh)):.3f}",
        f"{lost:.3f}",
    )
    print(
        f"\nGridSearchCV takes {seconds['GridSearchCV, cv=5'] / spent:.1f} times as long as "
        "SmoothedScoreDiffusionCV, which uses the whole grid in either mode."
    )
    h, s = cells[len(cells) // 2]
    model = SmoothedScoreDiffusion(h, s, terminal_scale=TERMINAL_SCALE).fit(X)
    left_out = range(0, n, n // 5)
    expected = refitted(X, h, s, left_out)
    # Rows are kept in another order once equal ones are merged.
    order = [int(np.argmin(np.abs(model.points_ - X[i]).sum(1))) for i in left_out]
    found = model.leave_one_out_log_density()[order]
    print(
        f"\nLeave-one-out against refitting without the row, which rotates the nodes a "
        f"little: at most {np.abs(found - expected).max():.0e} nats on "
        f"{len(expected)} rows (bandwidth {h}, sigma {s})."
    )


if __name__ == "__main__":
    run(full_requested())
