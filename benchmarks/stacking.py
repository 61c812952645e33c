"""Held-out log-likelihood of a stack of densities beside its members.

Rows as in defaults.py: unrounded, columns standardised with the training rows, 30 % held out. Each
member is fitted once more to all training rows, as the stack does it. With --full also the time of
`DensityStacking()` beside that of eight mixtures by cross-validation (S4), on the tables of table.py.
"""

import statistics

import numpy as np
import torch
from _common import full_requested, header, row
from choices import cpu_seconds
from defaults import tables
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from skdiffsmooth import SmoothedScoreDiffusion
from skdiffsmooth.compose import DensityStacking

NAMES = (
    "iris",
    "wine",
    "diabetes, without sex",
    "breast cancer, radius and area",
    "two moons, noise 0.05 *",
    "normal in R^5 *",
    "Student t(3) in R^4 *",
)

# A stack takes minutes on these tables; table.md does not have it for cells, and not these others.
WITHOUT_TIMES = ("cells", "photo patches", "diamonds")


def members():
    """Return a member that follows the rows, one that follows ellipses, and a broad one."""
    return [
        ("smoothed", SmoothedScoreDiffusion()),
        ("one Gaussian", GaussianMixture(1, reg_covar=1e-3)),
        ("five Gaussians", GaussianMixture(5, reg_covar=1e-3, random_state=0)),
    ]


def least_time(make, train, test, n_fits):
    """Return the least CPU seconds of a fit with the scores of the test rows, and these scores."""
    runs = [cpu_seconds(lambda: make().fit(train).score_samples(test)) for _ in range(n_fits)]
    return min(seconds for seconds, _ in runs), runs[0][1]


def times():
    """Print CPU seconds of fits with the scores of the test rows, on one thread and the first split.

    Both are fitted three times to fewer than 250 rows, and the least is taken.
    """
    # Imported here, since they need the packages of the rivals.
    import _tables
    from _densities import RestartedGaussianMixtures

    torch.set_num_threads(1)
    print("\nS4: DensityStacking() beside 8 GMMs, held out in nats a row\n")
    header("data", "N", "d", "stack (s)", "8 GMMs (s)", "ratio", "held out", "of 8 GMMs")
    ratios = []
    for name in [name for name in _tables.TABLES if name not in WITHOUT_TIMES]:
        train, test = _tables.split(_tables.load(name), 0, 5000)
        n_fits = 3 if len(train) < 250 else 1
        (stack, own), (mixtures, other) = (
            least_time(make, train, test, n_fits)
            for make in (DensityStacking, RestartedGaussianMixtures)
        )
        ratios.append(stack / mixtures)
        held_out = [f"{np.mean(values):.3f}" for values in (own, other)]
        size = len(train), train.shape[1]
        row(name, *size, f"{stack:.1f}", f"{mixtures:.1f}", f"{ratios[-1]:.2f}", *held_out)
    print(f"\nMedian ratio: {statistics.median(ratios):.2f}")


def run(n_splits=5):
    """Print the table of three members."""
    names = [name for name, _ in members()]
    print(
        f"Stacking: held-out nats a row, mean of {n_splits} splits; gain: over the best single member "
        "(of the mean), with its paired standard error over splits\n"
    )
    header("data", "N", "d", *names, "stack", "gain", "weights")
    data = tables(np.random.RandomState(0))
    for name in NAMES:
        scores, weights = [], []
        for split in range(n_splits):
            train, test = train_test_split(data[name], test_size=0.3, random_state=split)
            scaler = StandardScaler().fit(train)
            train, test = scaler.transform(train), scaler.transform(test)
            stack = DensityStacking(members()).fit(train)
            scores.append([model.score(test) for model in stack.estimators_] + [stack.score(test)])
            weights.append(stack.weights_)
        scores = np.array(scores)
        means = scores.mean(axis=0)
        gain = scores[:, -1] - scores[:, means[:-1].argmax()]
        row(
            name,
            len(train),
            train.shape[1],
            *(f"{mean:.2f}" for mean in means),
            f"{gain.mean():+.2f} +- {gain.std(ddof=1) / np.sqrt(n_splits):.2f}",
            " ".join(f"{weight:.2f}" for weight in np.mean(weights, axis=0)),
        )


if __name__ == "__main__":
    run()
    if full_requested():
        times()
