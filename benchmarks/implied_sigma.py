"""Which sigma a network's score is closest to while it trains on twelve points of a circle.

    python benchmarks/implied_sigma.py [--full]

At each stage `implied_smoothing` compares the network's field with that of `SmoothedScoreDiffusion` at
many sigma, on noised training points of ten noise levels. The distance is the mean over levels of
v E|s_network - s_sigma|^2 / 2, so that each scale counts alike (without the factor v only the lowest
would count). The figure is docs/images/implied_sigma.png.
"""

import pathlib
import warnings

import numpy as np
from _common import full_requested, header, row
from sklearn.exceptions import ConvergenceWarning

from skdiffsmooth import NeuralScoreDiffusion, SmoothedScoreDiffusion
from skdiffsmooth.datasets import make_circle
from skdiffsmooth.model_selection import implied_smoothing

LOWEST, HIGHEST = np.sqrt(1e-3), np.sqrt(5)
SIGMAS = np.concatenate([np.arange(0, 0.3, 0.02), np.arange(0.3, 1.21, 0.1)])
VARIANCES = np.geomspace(LOWEST**2, 0.9 * HIGHEST**2, 10)
STAGES = (10, 30, 60, 100, 200, 400, 800, 1500)
MORE_STAGES = (*STAGES, 3000, 6000)
FIGURE = pathlib.Path(__file__).parent.parent / "docs" / "images" / "implied_sigma.png"


def circle(n):
    """Return evenly spaced points of the unit circle."""
    return make_circle(n, spacing="even")


def smoothed(sigma):
    """Return the score of the points, smoothed."""
    model = SmoothedScoreDiffusion(LOWEST, sigma, n_nodes=512, terminal_scale=1.2 * HIGHEST)
    return model.fit(circle(12)).grad_log_density


def denoising_loss(model, points, n_rows=4800):
    """Return E|sqrt(v) s(x_0 + sqrt(v) z) + z|^2 / 2, a mean over the noise levels."""
    rng = np.random.RandomState(1)
    losses = []
    for v in VARIANCES:
        z = rng.normal(size=(n_rows, 2))
        rows = points[np.arange(n_rows) % len(points)] + np.sqrt(v) * z
        score = model.grad_log_density(rows, t=v)
        losses.append(np.mean((np.sqrt(v) * score + z) ** 2))
    return np.mean(losses)


def staged(n_frequencies, stages, seed=0):
    """Train in stages and yield the iterations made with the model."""
    model = NeuralScoreDiffusion(
        LOWEST,
        metric="euclidean",
        terminal_scale=HIGHEST,
        n_frequencies=n_frequencies,
        batch_size=256,
        learning_rate_init=2e-3,
        early_stopping=False,
        warm_start=True,
        random_state=seed,
    )
    done = 0
    for stage in stages:
        model.set_params(max_iter=stage - done, n_iter_no_change=stage)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(circle(12))
        done = stage
        yield stage, model


def curve(name, family, n_frequencies, stages, seed=0):
    """Print one line a stage, and return the figures."""
    found = []
    for stage, model in staged(n_frequencies, stages, seed):
        result = implied_smoothing(
            model, circle(12), family, noise_scales=np.sqrt(VARIANCES), n_samples=600
        )
        distance, by_level = result.distances.mean(axis=0), result.distances
        sigma, least = result.overall, distance.min()
        losses = denoising_loss(model, circle(12)), denoising_loss(model, circle(997))
        likelihood = model.score(circle(100))
        low, high = (SIGMAS[by_level[part].mean(axis=0).argmin()] for part in (LOW, HIGH))
        row(
            name,
            stage,
            f"{sigma:.2f} +- {result.overall_error:.3f}",
            f"{low:.2f}, {high:.2f}",
            f"{least:.4f}",
            f"{distance[0]:.4f}",
            f"{least / distance[0]:.2f}",
            f"{losses[0]:.4f}",
            f"{losses[1]:.4f}",
            f"{likelihood:.2f}",
        )
        found.append((stage, sigma, least, distance[0], *losses, likelihood))
    return np.array(found)


# The half of the levels with less noise, and that with more.
LOW, HIGH = slice(0, 5), slice(5, 10)


def draw(curves, path=FIGURE):
    """Draw implied sigma, distances and losses against iterations."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    for color, (name, found) in zip(("tab:blue", "tab:orange"), curves.items(), strict=True):
        stage, sigma, least, at_zero, train, held_out, _ = found.T
        axes[0].plot(stage, sigma, "o-", color=color, label=name)
        axes[1].plot(stage, least, "o-", color=color, label=f"{name}: at the implied sigma")
        axes[1].plot(stage, at_zero, "o--", color=color, label=f"{name}: at sigma = 0")
        axes[2].plot(stage, train, "o-", color=color, label=f"{name}: training points")
        axes[2].plot(stage, held_out, "o--", color=color, label=f"{name}: rest of the circle")
    axes[1].set_yscale("log")
    titles = ("implied sigma", "Fisher distance to the family", "denoising loss")
    for ax, title in zip(axes, titles, strict=True):
        ax.set_xscale("log")
        ax.set_xlabel("iterations (4 batches of 256)")
        ax.set_title(title, fontsize=10)
        ax.legend(fontsize=7)
    axes[0].set_ylim(bottom=0)
    figure.savefig(path, dpi=80)


def run(full=False):
    """Print the table and draw the figure."""
    print(
        "A network trained on 12 points of the unit circle, compared with smoothed scores; `sigma` "
        "is the closest, `low, high` the closest on the five levels of less noise and of more. Losses "
        "are denoising losses, 1 for a score of zero; nats are the mean log-density of points of the "
        "circle.\n"
    )
    header(
        *("network", "iterations", "sigma", "low, high", "distance", "to sigma = 0", "ratio"),
        *("loss, training", "loss, rest", "nats"),
    )
    family = {sigma: smoothed(sigma) for sigma in SIGMAS}
    stages = MORE_STAGES if full else STAGES
    networks = {"waves": 2, "plain": 0}
    draw({name: curve(name, family, k, stages) for name, k in networks.items()})


if __name__ == "__main__":
    run(full_requested())
