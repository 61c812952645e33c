"""Some columns given the others: distance from the joint density on grids, draws, imputation, time."""

import math
import time
import warnings

import numpy as np
from _common import header, row, timed
from criteria import tables
from scipy.integrate import cumulative_trapezoid, trapezoid
from scipy.stats import chi2, chisquare, multivariate_normal
from sklearn import datasets
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth.compose import DensityStacking
from skdiffsmooth.datasets import make_circle

GRID = np.linspace(-6, 6, 1201)
N_BINS = 20
N_CELLS, N_DRAWS = 200, 100
# Splits of exact intervals, and test rows of which draws are compared with them.
N_SPLITS, N_ROWS = 2, 6


def standardised(X):
    """Return rows with standardised columns."""
    return StandardScaler().fit_transform(X)


def planar():
    """Print total variation, errors of log p(b) and chi-square tests of draws, in two dimensions."""
    angles = 2 * np.pi * (np.arange(12) + 0.3) / 12
    twelve = np.column_stack([np.cos(angles), np.sin(angles)])
    rng = np.random.RandomState(0)
    sets = {
        "circle, 12 points, bandwidth 0.1, sigma 0.3": (twelve, SmoothedScoreDiffusion(0.1, 0.3)),
        "circle, 60 noisy points": make_circle(60, noise=0.05, random_state=0),
        "Gaussian, 400 rows": rng.multivariate_normal([0, 0], [[1.0, 0.8], [0.8, 1.0]], 400),
        "circle, 300 rows": standardised(make_circle(300, noise=0.05, random_state=rng)),
        "two moons, 400 rows": standardised(
            datasets.make_moons(400, noise=0.05, random_state=0)[0]
        ),
    }
    header(
        "data",
        "total variation, worst",
        "error of log p(b), worst",
        "estimated",
        "chi-square p, least",
    )
    for name, given in sets.items():
        X, model = given if isinstance(given, tuple) else (given, SmoothedScoreDiffusion())
        model.fit(X)
        distances, errors, estimates, levels = [], [], [], []
        for value in np.quantile(X[:, 1], np.linspace(0.05, 0.95, 10)):
            rows = np.column_stack([GRID, np.full_like(GRID, value)])
            joint = np.exp(model.score_samples(rows))
            marginal = trapezoid(joint, GRID)
            log_marginal, error = model.score_samples(rows[:1], columns=[1], return_error=True)
            found = joint / np.exp(log_marginal[0])
            distances.append(trapezoid(np.abs(found - joint / marginal), GRID) / 2)
            errors.append(abs(log_marginal[0] - np.log(marginal)))
            estimates.append(error[0])
            draws = model.sample(2000, random_state=0, given={1: value})[:, 0]
            cdf = np.cumsum(joint) / joint.sum()
            counts, _ = np.histogram(np.interp(draws, GRID + 0.005, cdf), N_BINS, (0, 1))
            levels.append(chisquare(counts).pvalue)
        row(
            name,
            f"{max(distances):.4f}",
            f"{max(errors):.4f}",
            f"{max(estimates):.4f}",
            f"{min(levels):.3f}",
        )


def spatial():
    """Print errors of log p(b) with two free columns and one, in three dimensions."""
    rng = np.random.RandomState(0)
    t = rng.uniform(0, 2 * np.pi, 150)
    X = np.column_stack([np.cos(t), np.sin(t), 0.3 * np.cos(2 * t)])
    X += 0.05 * rng.normal(size=X.shape)
    model = SmoothedScoreDiffusion(0.15, 0.25).fit(X)
    axis = np.linspace(-2.4, 2.4, 97)
    step = axis[1] - axis[0]
    header(
        "given", "log p(b) on the grid", "log p(b)", "standard error", "chi-square p of each column"
    )
    for value in (-0.8, 0.0, 0.5, 0.9):
        rows = np.stack(np.meshgrid([value], axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
        joint = np.exp(model.score_samples(rows)).reshape(len(axis), -1)
        log_marginal, error = model.score_samples(rows[:1], columns=[0], return_error=True)
        draws = model.sample(1000, random_state=0, given={0: value})
        levels = []
        for column, density in (1, joint.sum(axis=1)), (2, joint.sum(axis=0)):
            cdf = np.cumsum(density) / density.sum()
            uniform = np.interp(draws[:, column], axis + step / 2, cdf)
            levels.append(chisquare(np.histogram(uniform, N_BINS, (0, 1))[0]).pvalue)
        row(
            value,
            f"{np.log(joint.sum() * step**2):.4f}",
            f"{log_marginal[0]:.4f}",
            f"{error[0]:.4f}",
            ", ".join(f"{level:.3f}" for level in levels),
        )


def held_out():
    """Print held-out log-densities of half the columns given the other half, on at most 40 rows."""
    header("data", "columns", "Gaussian", "KDE, loo", "smoothed", "gain over the KDE", "its error")
    for name, X in tables(np.random.RandomState(0)).items():
        train, test = train_test_split(X, test_size=0.3, random_state=0)
        scaler = StandardScaler().fit(train)
        train, test = scaler.transform(train), scaler.transform(test[:40])
        d = X.shape[1]
        given = list(range(0, d, 2))
        normal = multivariate_normal(train.mean(0), np.cov(train.T))
        part = multivariate_normal(train[:, given].mean(0), np.cov(train[:, given].T))
        model, kde = SmoothedScoreDiffusion().fit(train), KDESampler("loo").fit(train)
        found, error = model.score_samples(test, given=given, return_error=True)
        plain = kde.score_samples(test, given=given)
        gain = found - plain
        row(
            name,
            f"{d - len(given)} given {len(given)}",
            f"{np.mean(normal.logpdf(test) - part.logpdf(test[:, given])):.2f}",
            f"{plain.mean():.2f}",
            f"{found.mean():.2f}",
            f"{gain.mean():+.2f} +- {gain.std(ddof=1) / np.sqrt(len(gain)):.2f}",
            f"{error.mean():.3f}",
        )


def ranked_probability_scores(draws, truth):
    """Return the scores of draws (m, cells): E|x - y| - E|x - x'| / 2."""
    ordered = np.sort(draws, axis=0)
    m = len(draws)
    ranks = 2 * np.arange(1, m + 1) - m - 1
    half_distance = (ranks[:, None] * ordered).sum(0) / (m * (m - 1))
    return np.abs(draws - truth).mean(0) - half_distance


def imputed_tables():
    """Return rows of five real tables, by name."""
    of_digits = PCA(8, random_state=0).fit_transform(datasets.load_digits().data[:400])
    return {
        "iris": datasets.load_iris().data,
        "wine": datasets.load_wine().data,
        "diabetes": datasets.load_diabetes().data,
        "breast cancer, means": datasets.load_breast_cancer().data[:, :10],
        "digits, 8 PCs, 400 rows": of_digits,
    }


def imputation():
    """Print scores and coverage of draws of single cells, each given the rest of its row."""
    sets = imputed_tables()
    header("data", "cells", "CRPS", "in the 50 % interval", "in the 90 % interval", "seconds")
    for name, X in sets.items():
        train, test = train_test_split(X, test_size=0.3, random_state=0)
        scaler = StandardScaler().fit(train)
        train, test = scaler.transform(train), scaler.transform(test)
        model, d = SmoothedScoreDiffusion().fit(train), X.shape[1]
        order = np.random.RandomState(0).permutation(test.size)[:N_CELLS]
        cells = np.unravel_index(order, test.shape)
        draws, start = np.empty((N_DRAWS, len(order))), time.process_time()
        for j in range(d):
            own = np.flatnonzero(cells[1] == j)
            known = np.tile(test[cells[0][own]], (N_DRAWS, 1))
            given = {k: known[:, k] for k in range(d) if k != j}
            rows = model.sample(len(known), random_state=0, given=given)
            draws[:, own] = rows[:, j].reshape(N_DRAWS, -1)
        ranks = np.mean(draws < test[cells], axis=0)
        row(
            name,
            len(order),
            f"{ranked_probability_scores(draws, test[cells]).mean():.3f}",
            f"{100 * np.mean(np.abs(ranks - 0.5) <= 0.25):.1f} %",
            f"{100 * np.mean(np.abs(ranks - 0.5) <= 0.45):.1f} %",
            f"{time.process_time() - start:.0f}",
        )


def levels_of_cells(models, train, test):
    """Return each model's probability of a value below each cell (n, d) given the rest of its row.

    It is exact but for a grid: 61 values, dense about a linear regression of the cell's column, and then
    61 more at quantiles of the first.
    """
    n, d = test.shape
    u, found = np.linspace(-1, 1, 61), [np.empty((n, d)) for _ in models]
    levels = (u + 1) / 2
    for j in range(d):
        rest = np.arange(d) != j
        line = LinearRegression().fit(train[:, rest], train[:, j])
        r = 5 * np.std(train[:, j] - line.predict(train[:, rest]))
        # From twenty-five values in a residual standard deviation to eight standard deviations away.
        steps = r * u + max(8 - r, 0) * np.sign(u) * np.abs(u) ** 9
        grid = line.predict(test[:, rest])[:, None] + steps
        for model, below in zip(models, found, strict=True):
            first = log_density_on(model, test, j, grid)
            cdf = distribution_on(grid, first)
            finer = np.array([np.interp(levels, *part) for part in zip(cdf, grid, strict=True)])
            values = np.concatenate([grid, finer], axis=1)
            log_density = np.concatenate([first, log_density_on(model, test, j, finer)], axis=1)
            order = np.argsort(values, axis=1)
            values = np.take_along_axis(values, order, axis=1)
            cdf = distribution_on(values, np.take_along_axis(log_density, order, axis=1))
            below[:, j] = [np.interp(*part) for part in zip(test[:, j], values, cdf, strict=True)]
    return found


def log_density_on(model, rows, j, grid):
    """Return log-densities (n, k) of rows (n, d) with the values of a grid (n, k) in column j."""
    queries = np.repeat(rows[:, None], grid.shape[1], axis=1)
    queries[:, :, j] = grid
    return model.score_samples(queries.reshape(-1, rows.shape[1])).reshape(grid.shape)


def distribution_on(grid, log_density):
    """Return distribution functions on grids (n, k), by the trapezoidal rule."""
    density = np.exp(log_density - log_density.max(axis=1, keepdims=True))
    cdf = cumulative_trapezoid(density, grid, axis=1, initial=0)
    return cdf / cdf[:, -1:]


def intervals():
    """Print the coverage of exact intervals of single cells, and compare draws with them."""
    header("data", "model", "nats a row", "cells", "50 %", "90 %", "draws: p")
    makers = {
        "defaults": SmoothedScoreDiffusion,
        "one Gaussian": GaussianMixture,
        "8 Gaussians": lambda: GaussianMixture(8, reg_covar=0.01, random_state=0),
        "KDE": lambda: KDESampler("loo"),
        "stacking": DensityStacking,
    }
    sets = imputed_tables()
    # s1, s2, s3 and s5 nearly satisfy a relation: without one of them none is left.
    for j in (4, 5, 6, 8):
        sets[f"diabetes without s{j - 3}"] = np.delete(sets["diabetes"], j, axis=1)
    for name, X in sets.items():
        found = {model: [] for model in makers}
        nats = {model: [] for model in makers}
        for split in range(N_SPLITS):
            train, test = train_test_split(X, test_size=0.3, random_state=split)
            scaler = StandardScaler().fit(train)
            train, test = scaler.transform(train), scaler.transform(test)
            test = test[: math.ceil(N_CELLS / X.shape[1])]
            # Stacking takes long: one split of it.
            used = [model for model in makers if model != "stacking" or not split]
            models = [makers[model]().fit(train) for model in used]
            for model, fitted, levels in zip(
                used, models, levels_of_cells(models, train, test), strict=True
            ):
                found[model].append(levels)
                nats[model].append(fitted.score(test))
            if not split:
                p = level_of_draws(models[0], test[:N_ROWS], found["defaults"][0][:N_ROWS])
        for model, levels in found.items():
            off = np.abs(np.concatenate(levels) - 0.5)
            inside = [
                f"{100 * held.mean():.1f} +- {100 * held.mean(axis=1).std() / math.sqrt(len(held)):.1f}"
                for held in (off <= 0.25, off <= 0.45)
            ]
            last = f"{p:.2f}" if model == "defaults" else ""
            row(name, model, f"{np.mean(nats[model]):.2f}", off.size, *inside, last)


def level_of_draws(model, test, levels):
    """Return the p-value of a chi-square test that draws of each cell have its distribution."""
    total, n_tested, d = 0.0, 0, test.shape[1]
    for j in range(d):
        known = np.tile(test, (N_DRAWS, 1))
        given = {k: known[:, k] for k in range(d) if k != j}
        draws = model.sample(len(known), random_state=j, given=given)[:, j]
        below = np.mean(draws.reshape(N_DRAWS, -1) < test[:, j], axis=0)
        # Five draws at least on either side, for the distribution to be that of a square.
        is_tested = np.abs(levels[:, j] - 0.5) <= 0.5 - 5 / N_DRAWS
        expected = levels[is_tested, j]
        total += np.sum((below[is_tested] - expected) ** 2 / (expected * (1 - expected) / N_DRAWS))
        n_tested += is_tested.sum()
    return chi2.sf(total, n_tested)


def seconds():
    """Print the time of one conditional on 200 rows of five columns."""
    rng = np.random.RandomState(0)
    X = rng.normal(size=(200, 5)) @ rng.normal(size=(5, 5))
    model = SmoothedScoreDiffusion().fit(X)
    header("given", "one density, s", "100 draws, s", "density of the row, s")
    joint, _ = timed(lambda: model.score_samples(X[:1]), 3)
    for n_given in (4, 3, 1):
        columns = list(range(n_given))
        values = dict(zip(columns, X[0, :n_given].tolist(), strict=True))
        density, _ = timed(lambda g=columns: model.score_samples(X[:1], given=g), 3)
        draws, _ = timed(lambda g=values: model.sample(100, random_state=0, given=g), 3)
        row(f"{n_given} of 5 columns", f"{density:.2f}", f"{draws:.2f}", f"{joint:.3f}")


def run():
    """Print all tables."""
    for title, part in (
        ("One of two columns given, ten values, against the joint density on a grid.", planar),
        ("One of three columns given, 150 rows about a curve.", spatial),
        ("Every second column given, held-out nats a row.", held_out),
        ("Single cells given the rest of their row.", imputation),
        ("Exact intervals of single cells.", intervals),
        ("Time of one condition.", seconds),
    ):
        print(f"\n{title}\n")
        with warnings.catch_warnings():
            # Rows of the heavy-tailed tables that are far from all others.
            warnings.filterwarnings("ignore", message="given values of")
            part()


if __name__ == "__main__":
    run()
