"""Held-out log-likelihood of a stack of densities beside its members.

Rows as in defaults.py: unrounded, columns standardised with the training rows, 30 % held out. Each
member is fitted once more to all training rows, as the stack does it.
"""

import numpy as np
from _common import header, row
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


def members():
    """Return a member that follows the rows, one that follows ellipses, and a broad one."""
    return [
        ("smoothed", SmoothedScoreDiffusion()),
        ("one Gaussian", GaussianMixture(1, reg_covar=1e-3)),
        ("five Gaussians", GaussianMixture(5, reg_covar=1e-3, random_state=0)),
    ]


def run(n_splits=5):
    """Print the table."""
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
