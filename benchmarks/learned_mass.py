"""The mass of densities along learned manifolds, which should be one (docs/evidence/manifolds.md).

    python benchmarks/learned_mass.py

exp(score_samples) is summed over a grid of 0.6 bandwidths, by eight nodes, twelve levels and steps.
*Fades* is the distance from the manifold at which offsets have faded out.
"""

import time
import warnings

import numpy as np
from _common import header, row

from skdiffsmooth import ManifoldAdaptedDiffusion
from skdiffsmooth.datasets import make_circle, make_wavy_circle
from skdiffsmooth.manifolds import LocalPolynomialManifold


def problems():
    """Yield a name, rows, their true manifold, bandwidth, sigma and numbers of neighbours."""
    given = {"random_state": 0, "return_shape": True}
    X, shape = make_circle(60, noise=0.03, **given)
    yield "circle, 60 rows, noise 0.03", X, shape.manifold, 0.15, 0.25, ("auto",)
    X, shape = make_wavy_circle(150, amplitude=0.13, noise=0.02, **given)
    yield "wavy circle, 150 rows, noise 0.02", X, shape.manifold, 0.1, 0.06, (12, 18)
    # As far as offsets reach before they fade: `fit` warns.
    yield "the same", X, shape.manifold, 0.1, 0.1, (12, 18)


def mass(model, X):
    """Return the integral of a fitted model's density, and the CPU time of a row."""
    reach = np.abs(X).max() + 4.2 * model.bandwidth_
    count = int(np.ceil(2 * reach / (0.6 * model.bandwidth_)))
    side = 2 * reach / count
    middles = -reach + side * (np.arange(count) + 0.5)
    points = np.stack(np.meshgrid(middles, middles, indexing="ij"), axis=-1).reshape(-1, 2)
    start = time.process_time()
    log_density = model.score_samples(points)
    seconds = time.process_time() - start
    return np.exp(log_density).sum() * side**2, seconds / len(points)


def main():
    """Print the table."""
    header("rows", "manifold", "sigma", "fades", "translated", "level set", "log-density (ms)")
    for name, X, exact, bandwidth, sigma, neighbours in problems():
        manifolds = {
            f"learned, {k} neighbours": LocalPolynomialManifold(1, n_neighbors=k)
            for k in neighbours
        }
        for label, manifold in {**manifolds, "known": exact}.items():
            found = []
            for push in ("translated", "level-set"):
                model = ManifoldAdaptedDiffusion(
                    bandwidth,
                    sigma,
                    manifold=manifold,
                    push=push,
                    n_nodes=8,
                    n_levels=12,
                    n_steps=12,
                )
                with warnings.catch_warnings():
                    # That sigma is large against an estimated reach is part of the question.
                    warnings.simplefilter("ignore", UserWarning)
                    model.fit(X)
                found.append(mass(model, X))
            (translated, seconds), (level_set, _) = found
            fades = f"{model.kernel_.fading:.2f}"
            masses = f"{translated:.4f}", f"{level_set:.4f}"
            row(name, label, sigma, fades, *masses, f"{1e3 * seconds:.1f}")


if __name__ == "__main__":
    main()
