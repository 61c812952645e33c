"""Posteriors: errors on grids, calibration beside diffusion guidance, 8 x 8 digits from measurements.

`python benchmarks/posterior.py [grids] [calibration] [digits]` prints the tables of
docs/evidence/posterior.md, or some of them.
"""

import itertools
import sys
import time

import numpy as np
from _common import header, row
from scipy.special import logsumexp
from scipy.stats import chisquare
from sklearn.datasets import load_digits, make_moons, make_swiss_roll
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from skdiffsmooth import KDESampler, LinearObservation, SmoothedScoreDiffusion
from skdiffsmooth.datasets import make_circle

N_SIMULATIONS, N_DRAWS = 500, 7
LEVEL = 0.01
COARSE = {"metric": "euclidean", "background": 0.0, "n_nodes": 8, "n_steps": 16}


# ------------------------------------------------------------------------------------------- grids


def grids():
    """Print errors of evidence and densities of draws against sums over grids."""
    rng = np.random.RandomState(0)
    circle = make_circle(40, noise=0.05, random_state=0)
    moons = make_moons(60, noise=0.05, random_state=0)[0]
    line = rng.standard_t(4, size=(80, 1))
    models = {
        "t, 80 rows, bandwidth .4, sigma .6": SmoothedScoreDiffusion(0.4, 0.6).fit(line),
        "t, 80 rows, kernel density": KDESampler().fit(line),
        "circle, bandwidth .1, sigma .2": SmoothedScoreDiffusion(0.1, 0.2, **COARSE).fit(circle),
        "circle, kernel density": KDESampler().fit(circle),
        "moons, bandwidth .1, sigma .15": SmoothedScoreDiffusion(0.1, 0.15, **COARSE).fit(moons),
    }
    header(
        "density",
        "likelihood",
        "error of log Z",
        "standard error",
        "effective",
        "TV",
        "of draws",
        "CPU s",
    )
    for name, model in models.items():
        d = model.n_features_in_
        n = {1: 2001, 2: 101}[d]
        axis = np.linspace(*{1: (-40, 40), 2: (-2.4, 2.4)}[d], n)
        grid = np.stack(np.meshgrid(*[axis] * d, indexing="ij"), axis=-1).reshape(-1, d)
        if name.startswith("moons"):
            grid = grid + [0.5, 0.25]
        log_density = model.score_samples(grid)
        point = LinearObservation(np.eye(d), np.full(d, 0.6), 0.2)
        likelihoods = {
            "one sum": LinearObservation(np.ones((1, d)), [0.5], 0.1),
            "all columns": point,
            "the same as a function": lambda X, point=point: point(X),
            "norm": lambda X: -(((np.linalg.norm(X, axis=1) - 1.2) / 0.1) ** 2) / 2,
        }
        for label, likelihood in likelihoods.items():
            log_joint = log_density + likelihood(grid)
            cell = (axis[1] - axis[0]) ** d
            exact = logsumexp(log_joint) + np.log(cell)
            start = time.process_time()
            evidence = model.log_evidence(likelihood)
            seconds = time.process_time() - start
            # The density of the posterior by Bayes' rule, and 2000 draws in 4^d cells.
            masses = np.exp(log_joint - exact) * cell
            distance = np.abs(masses - np.exp(log_joint - evidence.value) * cell).sum() / 2
            drawn = model.sample(2000, random_state=0, likelihood=likelihood)
            edges = np.quantile(drawn, np.linspace(0, 1, 5)[1:-1], axis=0)
            # Between points of the grid, so that its sums over cells are those of the midpoint rule.
            step = axis[1] - axis[0]
            edges = grid[0] + step * (np.round((edges - grid[0]) / step - 0.5) + 0.5)
            found = coarse_cells(model.sample(2000, random_state=1, likelihood=likelihood), edges)
            expected = coarse_cells(grid, edges, masses)
            of_draws = np.abs(found / 2000 - expected).sum() / 2
            row(
                name,
                label,
                f"{evidence.value - exact:.4f}",
                f"{evidence.standard_error:.4f}",
                f"{evidence.effective_sample_size:.0f}",
                f"{distance:.4f}",
                f"{of_draws:.3f}",
                f"{seconds:.1f}",
            )


def coarse_cells(rows, edges, masses=None):
    """Return the masses (4^d,) of rows (n, d), or their numbers, in cells with inner edges (3, d)."""
    index = np.zeros(len(rows), dtype=int)
    for k in range(rows.shape[1]):
        index = 4 * index + np.searchsorted(edges[:, k], rows[:, k])
    return np.bincount(index, weights=masses, minlength=4 ** rows.shape[1])


# ------------------------------------------------------------------------------------- calibration


def problems():
    """Return names with priors, what is measured of rows, and the standard deviation of its noise."""
    rng = np.random.RandomState(0)
    clusters = np.vstack(
        [center + 0.15 * rng.normal(size=(15, 2)) for center in ([1, 0], [-1, 0.3], [0, 1.2])]
    )
    roll = make_swiss_roll(60, noise=0.1, random_state=0)[0] / 10
    digits = load_digits().data[:80]
    pca = PCA(4, random_state=0).fit(digits)
    upper = pca.components_[:, :32].T
    return {
        "circle, one noisy sum": (
            SmoothedScoreDiffusion(0.1, 0.2, **COARSE).fit(make_circle(24, random_state=0)),
            LinearMap(np.array([[1.0, 0.5]])),
            0.2,
        ),
        "three clusters, kernel density, noisy squared norm": (
            KDESampler(0.2).fit(clusters),
            lambda X: np.sum(X**2, axis=1, keepdims=True),
            0.3,
        ),
        "swiss roll, two of three columns": (
            SmoothedScoreDiffusion(0.15, 0.2, **COARSE).fit(roll),
            LinearMap(np.eye(3)[[0, 2]]),
            0.1,
        ),
        "digits in 4 components, upper half": (
            SmoothedScoreDiffusion(3.0, 6.0, **COARSE).fit(pca.transform(digits)),
            LinearMap(upper),
            5.0,
        ),
    }


class LinearMap:
    """The map x -> A x."""

    def __init__(self, A):
        self.A = A

    def __call__(self, X):
        """Return A x for each row."""
        return X @ self.A.T


def calibration():
    """Print p-values of the uniformity of ranks of 500 true rows among draws of their posteriors.

    Ranked are the coordinates and the log-likelihood: by coordinates alone, draws that ignore the
    measurement are calibrated, too.
    """
    header("problem", "ranked", "p, posterior", "p, guidance", "guidance: least, highest rank")
    n_tests, results = 0, []
    for name, (model, measure, noise) in problems().items():
        rng = np.random.RandomState(1)
        truth = model.sample(N_SIMULATIONS, random_state=rng)
        y = measure(truth)
        y = y + noise * rng.standard_normal(y.shape)
        start = time.process_time()
        drawn = np.empty((N_SIMULATIONS, N_DRAWS, truth.shape[1]))
        for k in range(N_SIMULATIONS):
            if isinstance(measure, LinearMap):
                likelihood = LinearObservation(measure.A, y[k], noise)
            else:

                def likelihood(X, value=y[k], measure=measure, noise=noise):
                    return -(((measure(X) - value) / noise) ** 2).sum(axis=1) / 2

            drawn[k] = model.sample(N_DRAWS, random_state=k, likelihood=likelihood)
        seconds = time.process_time() - start
        start = time.process_time()
        guided = guidance(model, measure, np.repeat(y, N_DRAWS, axis=0), noise, rng)
        ranks = [
            ranks_of(rows, truth, lambda X: -np.sum((measure(X) - y) ** 2, axis=1))  # noqa: B023
            for rows in (drawn, guided.reshape(drawn.shape))
        ]
        print(f"<!-- {name}: {seconds:.0f} CPU s, guidance {time.process_time() - start:.0f} -->")
        for j in range(truth.shape[1] + 1):
            counts = [np.bincount(each[:, j], minlength=N_DRAWS + 1) for each in ranks]
            p = [chisquare(count).pvalue for count in counts]
            ends = ", ".join(f"{counts[1][e] / N_SIMULATIONS:.0%}" for e in (0, -1))
            label = f"column {j}" if j < truth.shape[1] else "log-likelihood"
            row(name, label, f"{p[0]:.3f}", f"{p[1]:.1e}", ends)
            n_tests += 1
            results.append(p)
    bound = LEVEL / n_tests
    failed = np.sum(np.array(results) < bound, axis=0)
    print(
        f"\nBelow {LEVEL} / {n_tests} = {bound:.1e}: posterior {failed[0]}, guidance {failed[1]}."
    )


def ranks_of(drawn, truth, log_likelihood):
    """Return ranks (n, d + 1) of the columns and log-likelihoods of true rows among draws (n, m, d)."""
    of_columns = np.sum(drawn < truth[:, None], axis=1)
    own = log_likelihood(truth)
    of_likelihood = sum(log_likelihood(drawn[:, k]) < own for k in range(drawn.shape[1]))
    return np.column_stack([of_columns, of_likelihood])


def guidance(model, measure, y, noise, rng, n_steps=50):
    """Return rows (n, d) of annealed diffusion posterior sampling (Chung et al. 2023), one for each y.

    At each noise scale the score of the noised data is increased by the gradient of the log-likelihood
    of the posterior mean (Tweedie's formula), here by central differences, so without approximations of
    its derivative. The step is that of the reverse process; there is no tuned step size.
    """
    d = model.n_features_in_
    terminal = 4 * np.sqrt(np.var(model.points_, axis=0).sum())
    scales = np.geomspace(terminal, model.bandwidth_, n_steps + 1)
    x = model.points_.mean(axis=0) + terminal * rng.standard_normal((len(y), d))

    def log_likelihood(x, v):
        mean = x + v * model.grad_log_density(x, v)
        return -(((measure(mean) - y) / noise) ** 2).sum(axis=1) / 2

    for scale, following in itertools.pairwise(scales):
        v, step = scale**2, scale**2 - following**2
        gradient = np.empty_like(x)
        for j in range(d):
            h = 1e-3 * scale * np.eye(d)[j]
            change = log_likelihood(x + h, v) - log_likelihood(x - h, v)
            gradient[:, j] = change / (2e-3 * scale)
        # No step is longer than the noise: without this bound the process diverges.
        move = step * (model.grad_log_density(x, v) + gradient)
        length = np.linalg.norm(move, axis=1, keepdims=True)
        move *= np.minimum(1.0, 3 * scale * np.sqrt(d) / np.maximum(length, 1e-300))
        noise_scale = np.sqrt(step) * following / scale
        x = x + move + noise_scale * rng.standard_normal(x.shape)
    return x


# ------------------------------------------------------------------------------------------ digits


def digits(n_components=8, n_train=400, n_test=24):
    """Print mean CRPS of pixels for denoising, deblurring and inpainting of 8 x 8 digits."""
    images = load_digits().data
    images = images[np.random.RandomState(0).permutation(len(images))]
    pca = PCA(n_components, random_state=0).fit(images[:n_train])
    train, test = np.split(pca.transform(images)[: n_train + n_test], [n_train])
    priors = {
        "score-smoothed": SmoothedScoreDiffusion(
            metric="euclidean", background=0.0, n_nodes=32, n_steps=16, random_state=0
        ).fit(train),
        "kernel density": KDESampler().fit(train),
        "Gaussian mixture, 10": GaussianMixture(10, reg_covar=0.1, random_state=0).fit(train),
        "Gaussian": GaussianMixture(1, random_state=0).fit(train),
    }
    blur = np.array(
        [
            [np.abs(i // 8 - j // 8) <= 1 and np.abs(i % 8 - j % 8) <= 1 for j in range(64)]
            for i in range(64)
        ]
    )
    tasks = {
        "denoising, noise 6": (np.eye(64), 6.0),
        "deblurring 3 x 3, noise 3": (blur / blur.sum(axis=1, keepdims=True), 3.0),
        "inpainting, lower half hidden, noise 2": (np.eye(64)[:32], 2.0),
    }
    header("task", *priors)
    seconds = dict.fromkeys(priors, 0.0)
    for name, (A, noise) in tasks.items():
        scores = {label: [] for label in priors}
        for k, z in enumerate(test):
            rng = np.random.RandomState(k)
            y = A @ pca.components_.T @ z + noise * rng.standard_normal(len(A))
            observation = LinearObservation(A @ pca.components_.T, y, noise)
            for label, prior in priors.items():
                start = time.process_time()
                if isinstance(prior, GaussianMixture):
                    drawn = mixture_posterior(prior, observation, noise, 200, rng)
                else:
                    drawn = prior.sample(200, random_state=k, likelihood=observation)
                seconds[label] += (time.process_time() - start) / n_test / len(tasks)
                scores[label].append(crps(drawn @ pca.components_, z @ pca.components_))
        reference = np.array(scores["Gaussian"])
        cells = []
        for label in priors:
            values = np.array(scores[label])
            error = (values - reference).std(ddof=1) / np.sqrt(n_test)
            suffix = (
                ""
                if label == "Gaussian"
                else f" ({np.mean(values - reference):+.3f} ± {error:.3f})"
            )
            cells.append(f"{values.mean():.3f}{suffix}")
        row(name, *cells)
    row("CPU s for 200 draws", *(f"{value:.2f}" for value in seconds.values()))


def mixture_posterior(mixture, observation, noise, n, rng):
    """Return n draws of the posterior of a Gaussian mixture, in closed form."""
    A, y = observation.A, observation.y
    log_weights, means, factors = [], [], []
    for weight, mean, covariance in zip(
        mixture.weights_, mixture.means_, mixture.covariances_, strict=True
    ):
        F = A @ covariance @ A.T + noise**2 * np.eye(len(A))
        gain = np.linalg.solve(F, A @ covariance).T
        r = y - A @ mean
        log_weights.append(
            np.log(weight) - 0.5 * r @ np.linalg.solve(F, r) - 0.5 * np.linalg.slogdet(F)[1]
        )
        means.append(mean + gain @ r)
        C = covariance - gain @ A @ covariance
        factors.append(np.linalg.cholesky((C + C.T) / 2 + 1e-9 * np.eye(len(C))))
    weights = np.exp(log_weights - logsumexp(log_weights))
    index = rng.choice(len(weights), size=n, p=weights)
    z = rng.standard_normal((n, A.shape[1]))
    return np.array(means)[index] + np.einsum("nij,nj->ni", np.array(factors)[index], z)


def crps(drawn, truth):
    """Return the mean continuous ranked probability score of columns, by draws (n, d)."""
    n = len(drawn)
    ordered = np.sort(drawn, axis=0)
    pairs = 2 * np.sum((2 * np.arange(1, n + 1) - n - 1)[:, None] * ordered, axis=0) / (n * (n - 1))
    return float(np.mean(np.abs(drawn - truth).mean(axis=0) - pairs / 2))


if __name__ == "__main__":
    wanted = sys.argv[1:] or ["grids", "calibration", "digits"]
    for part in (grids, calibration, digits):
        if part.__name__ in wanted:
            print(f"\n## {part.__name__}\n")
            part()
