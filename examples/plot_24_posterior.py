"""
Posteriors that are calibrated
==============================

**The claim**: a density from training rows is a prior. With a noisy measurement of a new row, draws of
its posterior and the evidence follow from importance weights with the model's exact log-density, up to a
reported error. Guidance, the common way to condition diffusion models, adds the gradient of a likelihood
at the denoised point to the score; its draws are not those of any posterior, and their error is not
known.

Here rows are on a noisy circle, and of a new row only x + y / 2 is measured, with noise.
"""

# %%
# One measurement
# ---------------
# A line crosses the circle twice; training rows support one crossing more than the other. The sum over
# a grid is exact.
import itertools

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import logsumexp
from scipy.stats import chisquare

from skdiffsmooth import LinearObservation, SmoothedScoreDiffusion
from skdiffsmooth.datasets import make_circle

X = make_circle(24, random_state=0)
model = SmoothedScoreDiffusion(
    0.1, 0.2, metric="euclidean", background=0.0, n_nodes=8, n_steps=16
).fit(X)
A, noise = np.array([[1.0, 0.5]]), 0.2
observation = LinearObservation(A, [0.4], noise)
drawn = model.sample(300, random_state=0, likelihood=observation)
evidence = model.log_evidence(observation)

axis = np.linspace(-1.8, 1.8, 121)
grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
log_joint = model.score_samples(grid) + observation(grid)
exact = logsumexp(log_joint) + 2 * np.log(axis[1] - axis[0])
print(f"log-evidence {evidence.value:.4f} (standard error {evidence.standard_error:.4f})")
print(f"on the grid  {exact:.4f}")

# %%
# Guidance
# --------
# Annealed from large noise to small, with the gradient of the log-likelihood of the posterior mean
# (Tweedie's formula) added to the score (Chung et al. 2023). The gradient is computed by differences.


def guidance(y, rng, n_steps=50):
    """Return one draw (n, 2) for each measured value (n, 1)."""
    scales = np.geomspace(4.0, model.bandwidth_, n_steps + 1)
    x = scales[0] * rng.standard_normal((len(y), 2))

    def log_likelihood(x, v):
        mean = x + v * model.grad_log_density(x, v)
        return -(((mean @ A.T - y) / noise) ** 2).sum(axis=1) / 2

    for scale, following in itertools.pairwise(scales):
        v, step = scale**2, scale**2 - following**2
        h = 1e-3 * scale * np.eye(2)
        gradient = np.column_stack(
            [log_likelihood(x + each, v) - log_likelihood(x - each, v) for each in h]
        ) / (2e-3 * scale)
        move = step * (model.grad_log_density(x, v) + gradient)
        # No step is longer than four noise scales; without this bound the process diverges.
        length = np.linalg.norm(move, axis=1, keepdims=True)
        move *= np.minimum(1.0, 4 * scale / np.maximum(length, 1e-300))
        x = x + move + np.sqrt(step) * following / scale * rng.standard_normal(x.shape)
    return x


guided = guidance(np.full((300, 1), 0.4), np.random.RandomState(0))

# %%
# Calibration
# -----------
# Rows are drawn from the model, measured, and ranked among seven draws of their posteriors, here by
# their column y. Over many rows the ranks of exact posteriors are uniform, whatever the problem (Talts
# et al. 2018). ``benchmarks/posterior.py`` does so for four problems, and ranks by the likelihood
# too, since by columns alone draws that ignore the measurement are calibrated as well.
n, m = 400, 7
rng = np.random.RandomState(1)
truth = model.sample(n, random_state=rng)
y = truth @ A.T + noise * rng.standard_normal((n, 1))
posterior = np.stack(
    [
        model.sample(m, random_state=k, likelihood=LinearObservation(A, y[k], noise))
        for k in range(n)
    ]
)
rival = guidance(np.repeat(y, m, axis=0), rng).reshape(n, m, 2)


def ranks(draws):
    """Return the rank (n,) of each true row among draws (n, m, 2), by its column y."""
    return np.sum(draws[:, :, 1] < truth[:, None, 1], axis=1)


counts = [np.bincount(ranks(draws), minlength=m + 1) for draws in (posterior, rival)]
p_values = [chisquare(each).pvalue for each in counts]
for name, p in zip(("posterior", "guidance"), p_values, strict=True):
    print(f"{name:10s} chi-square test of uniform ranks: p = {p:.2g}")

# %%
# The figure
# ----------
# Contours are those of the exact posterior. Ranks of the posterior are as uniform as 400 simulations
# can show (the band holds 95 % of the counts); those of guidance are not.
figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), constrained_layout=True)
density = np.exp(log_joint - exact).reshape(121, 121)
titles = (
    f"sample(likelihood=...)\nlog-evidence {evidence.value:.3f}, on the grid {exact:.3f}",
    "guidance\nno evidence",
)
for ax, rows, title in zip(axes[:2], (drawn, guided), titles, strict=True):
    ax.contour(axis, axis, density, levels=6, colors="0.6", linewidths=0.8)
    ax.scatter(*rows.T, s=5, color="C0" if rows is drawn else "C1")
    ax.set(title=title, xlim=(-1.8, 1.8), ylim=(-1.8, 1.8), aspect="equal", xlabel="x", ylabel="y")
ax = axes[2]
deviation = 1.96 * np.sqrt(n / 8 * 7 / 8)
ax.axhspan(n / 8 - deviation, n / 8 + deviation, color="0.9")
for k, (name, p) in enumerate(zip(("posterior", "guidance"), p_values, strict=True)):
    ax.bar(
        np.arange(8) + 0.4 * k - 0.2, counts[k], 0.4, label=f"{name}: p = {p:.1g}", color=f"C{k}"
    )
ax.set(title=f"ranks of {n} true rows", xlabel="rank among 7 draws", ylabel="number")
ax.legend()
plt.show()

# %%
# What it cannot do
# -----------------
# Each posterior costs some hundred to some thousand log-densities of the model. A posterior is as good
# as its prior: rows unlike all training rows are not drawn. ``log_evidence`` warns where nothing
# supports the likelihood.
