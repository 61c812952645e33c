r"""
Directions and rotations
========================

**The claim**: on the globe, smoothing the score along geodesics gives a density of mass one that
turns with the data, and held-out rows are likelier under it than under a von Mises-Fisher kernel
density estimate. `SphericalScoreDiffusion` adds noise by the heat kernel of the sphere,
:math:`\partial_v K = \tfrac12 \Delta K`, and averages the score over small rotations of the query:

.. math:: s(x) = \tfrac1M \sum_m R_m^\top (\nabla \log p_v)(R_m x), \qquad
   \operatorname{div} s(x) = \tfrac1M \sum_m (\Delta \log p_v)(R_m x).

Rotations are isometries, so the second equation holds exactly for finitely many of them: the flow has a
divergence in closed form, as in :math:`\mathbb{R}^d`.
"""

# %%
# Rows along a curve on the globe
# -------------------------------
# A seam of a tennis ball with noise, 120 rows. Left: the kernel density estimate, which is
# ``sigma=0``. Middle: the smoothed score. Right: draws from it.
import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import minimize_scalar
from scipy.spatial.transform import Rotation
from scipy.special import logsumexp

from skdiffsmooth import SphericalScoreDiffusion


def seam(n, seed):
    """Return unit vectors near a closed curve on the sphere."""
    rng = np.random.RandomState(seed)
    t = rng.uniform(0, 2 * np.pi, size=n)
    rows = np.column_stack([np.cos(t), np.sin(t), 0.8 * np.cos(2 * t)])
    rows += 0.06 * rng.normal(size=rows.shape)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


train, test = seam(120, 0), seam(400, 1)
smoothed = SphericalScoreDiffusion().fit(train)
kernels = SphericalScoreDiffusion(sigma=0.0).fit(train)

lat, lon = np.meshgrid(np.linspace(-np.pi / 2, np.pi / 2, 46), np.linspace(-np.pi, np.pi, 91))
globe = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)
fig = plt.figure(figsize=(11, 4), layout="constrained")
for k, (title, model) in enumerate([("sigma = 0", kernels), ("smoothed", smoothed)]):
    density = np.exp(model.score_samples(globe.reshape(-1, 3))).reshape(lat.shape)
    ax = fig.add_subplot(1, 3, k + 1, projection="3d")
    colors = plt.cm.viridis(np.minimum(density / 1.2, 1))
    ax.plot_surface(
        *np.moveaxis(globe, -1, 0), facecolors=colors, rstride=1, cstride=1, shade=False
    )
    ax.set_title(f"{title}: {model.score(test):.3f} nats a held-out row")
ax = fig.add_subplot(1, 3, 3, projection="3d")
for label, rows in (("rows", train), ("draws", smoothed.sample(300, random_state=0))):
    front = rows @ [np.cos(0.4) * np.cos(0.8), np.cos(0.4) * np.sin(0.8), np.sin(0.4)] > 0
    ax.plot(*rows[front].T, ".", ms=4, label=label)
ax.set_title("the side in view")
ax.legend()
for ax in fig.axes:
    ax.view_init(elev=np.degrees(0.4), azim=np.degrees(0.8))
    ax.set_axis_off()
    ax.set(xlim=(-1, 1), ylim=(-1, 1), zlim=(-1, 1))
    ax.set_box_aspect((1, 1, 1), zoom=1.5)

# %%
# The number that decides
# -----------------------
# The gain in nats a row over von Mises-Fisher kernels, whose concentration has the highest leave-one-out
# likelihood, on the same rows, with the paired standard error.


def fisher(cosine, k):
    """Return log-kernels of concentration k."""
    return k * (cosine - 1) + np.log(k / (2 * np.pi * -np.expm1(-2 * k)))


def left_out(log_k):
    logits = fisher(train @ train.T, np.exp(log_k))
    np.fill_diagonal(logits, -np.inf)
    return -np.mean(logsumexp(logits, axis=1))


k = np.exp(minimize_scalar(left_out, bounds=(0, 8)).x)
of_fisher = logsumexp(fisher(test @ train.T, k), axis=1) - np.log(len(train))
for name, others in (("von Mises-Fisher", of_fisher), ("sigma = 0", kernels.score_samples(test))):
    gain = smoothed.score_samples(test) - others
    print(f"smoothed less {name}: {gain.mean():+.3f} +- {gain.std() / np.sqrt(len(gain)):.3f} nats")

# %%
# Mass, and rotated data
# ----------------------
# Gauss-Legendre quadrature times the trapezoidal rule; the error of the mass is that of the solver's
# steps. Rotated data have the rotated density, up to rounding.
z, weights = np.polynomial.legendre.leggauss(40)
phi = np.arange(80) * np.pi / 40
r = np.sqrt(1 - z**2)
nodes = np.stack(
    [np.outer(r, np.cos(phi)), np.outer(r, np.sin(phi)), np.outer(z, np.ones(80))], axis=-1
)
wide = SphericalScoreDiffusion(0.2, 0.3, n_nodes=16).fit(train[:40])
mass = np.repeat(weights, 80) * np.pi / 40 @ np.exp(wide.score_samples(nodes.reshape(-1, 3)))
turn = Rotation.random(random_state=0).as_matrix()
turned = SphericalScoreDiffusion(0.2, 0.3, n_nodes=16).fit(train[:40] @ turn.T)
change = np.abs(turned.score_samples(test @ turn.T) - wide.score_samples(test)).max()
print(f"mass: {mass:.5f}; largest change of a log-density by a rotation of all rows: {change:.0e}")

# %%
# Rotations
# ---------
# ``space="rotations"`` takes quaternions or rotation matrices. In this example bodies turn about one
# axis, which itself wobbles; smoothing along the rotations recovers the turning.


def turning(n, seed):
    """Return quaternions of turns about an axis that wobbles."""
    rng = np.random.RandomState(seed)
    about = Rotation.from_rotvec(np.outer(rng.uniform(-2, 2, size=n), [0, 0, 1.0]))
    return (Rotation.from_rotvec(0.1 * rng.normal(size=(n, 3))) * about).as_quat()


rows, held_out = turning(60, 0), turning(200, 1)
scores = {
    sigma: SphericalScoreDiffusion(sigma=sigma, space="rotations").fit(rows).score_samples(held_out)
    for sigma in ("auto", 0.0)
}
gain = scores["auto"] - scores[0.0]
print(
    f"rotations, smoothed less sigma = 0: {gain.mean():+.3f} +- {gain.std() / np.sqrt(200):.3f} nats"
)

# %%
# What is noisy, and what it cannot do
# ------------------------------------
# The page uses one split of two made-up sets. Four sets of real places and motions are in
# :doc:`/evidence/periodic`. There are no conditionals. For places together with other columns, use
# columns of the longitude, with its period, and of the sine of the latitude: :doc:`/guide/periodic`.
