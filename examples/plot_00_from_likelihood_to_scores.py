r"""
From likelihood to smoothed scores: a walk for newcomers
========================================================

Density estimation asks for a law :math:`q` close to the unknown law :math:`p` of some rows. This page
goes from the oldest answer, maximum likelihood, to the one that this library is about, a diffusion
whose score is smoothed. Each step is a formula, the call that computes it, and a number that checks it.

A Gaussian mixture is a kernel density estimate of its means, so ``KDESampler``, given two of them,
also makes a law that is *known*: its density, score and draws are exact.
"""

# %%
# Kullback-Leibler divergence and likelihood
# ------------------------------------------
# .. math:: \mathrm{KL}(p\|q) = \mathbb{E}_p \log\frac{p}{q}
#           = \underbrace{\mathbb{E}_p[-\log q]}_{\text{negative log-likelihood}} - H(p),
#           \qquad H(p) = \mathbb{E}_p[-\log p].
#
# The entropy :math:`H(p)` does not depend on :math:`q`: whoever maximises likelihood minimises KL. Rows
# that :math:`q` has not seen estimate the first term, ``-q.score(held_out)``, in nats a row.
import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax
from scipy.stats import norm

from skdiffsmooth import KDESampler, LangevinSampler, SmoothedScoreDiffusion
from skdiffsmooth.datasets import make_lima_bean
from skdiffsmooth.diagnostics import split_r_hat
from skdiffsmooth.metrics import distance_to_data, distance_to_manifold
from skdiffsmooth.metrics import fisher_divergence, regular_grid, renyi_divergence
from skdiffsmooth.model_selection import denoising_score, hyvarinen_score

p = KDESampler(0.7).fit([[-2.0], [2.0]], sample_weight=[0.35, 0.65])
train, held_out = p.sample(100, random_state=7), p.sample(1000, random_state=1)
grid = regular_grid(-10, 10, 2000)
log_p = p.score_samples(grid.points)
entropy = -np.sum(np.exp(log_p) * log_p) * grid.volume

bandwidths = np.geomspace(0.08, 1.6, 14)
models = [KDESampler(h).fit(train) for h in bandwidths]
kl = [renyi_divergence(log_p, q.score_samples(grid.points), volume=grid.volume) for q in models]
kl = np.array([float(value) for value in kl])
nll = np.array([-q.score(held_out) for q in models])
errors = [q.score_samples(held_out).std() / np.sqrt(len(held_out)) for q in models]

fig, ax = plt.subplots(figsize=(6, 3.7), layout="constrained")
ax.semilogx(bandwidths, kl, label="KL(p||q), by quadrature")
ax.errorbar(bandwidths, nll - entropy, errors, fmt="o", label="held-out NLL - H(p), +- its error")
ax.axhline(0, color="0.7", linewidth=0.8)
ax.set(xlabel="bandwidth of the estimate q", ylabel="nats", title="Likelihood sees KL")
ax.legend()

q = KDESampler("loo").fit(train)  # the bandwidth of highest leave-one-out likelihood
log_q = q.score_samples(grid.points)
estimate = renyi_divergence(p.score_samples(held_out), q.score_samples(held_out))
print(f"entropy of p {entropy:.4f}, held-out NLL {-q.score(held_out):.4f} nats")
print(f"KL by quadrature {renyi_divergence(log_p, log_q, volume=grid.volume).value:.4f}")
print(f"KL from held-out rows {estimate.value:.4f} +- {estimate.standard_error:.4f}")

# %%
# The two directions of KL
# ------------------------
# KL is not symmetric. Fit one Gaussian to both modes:
#
# .. math:: \min_q \mathrm{KL}(p\|q) \;\text{(forward: likelihood)} \qquad\text{or}\qquad
#           \min_q \mathrm{KL}(q\|p) \;\text{(reverse: variational methods)}.
#
# Forward, :math:`q` pays wherever :math:`p` has mass that it misses, so it covers both modes; the best
# Gaussian has the moments of :math:`p`. Reverse, it pays where it has mass and :math:`p` has none, so
# it picks one mode; which one depends on where the search starts.
def divergence(parameters, direction):
    """Return KL between p and the Gaussian of a mean and a log scale."""
    gaussian = norm(parameters[0], np.exp(parameters[1])).logpdf(grid.points[:, 0])
    pair = (log_p, gaussian) if direction == "forward" else (gaussian, log_p)
    return renyi_divergence(*pair, volume=grid.volume).value


fig, ax = plt.subplots(figsize=(6, 3.7), layout="constrained")
x = grid.points[500:1500, 0]
ax.fill_between(x, np.exp(log_p[500:1500]), color="0.85", label="p, two modes")
print("search from     mean   scale   KL(p||q)   KL(q||p)")
for direction, start in (("forward", 2.0), ("reverse", 2.0), ("reverse", -2.0)):
    found = minimize(divergence, [start, 0.0], args=(direction,), method="Nelder-Mead").x
    mean, scale = found[0], np.exp(found[1])
    both = [divergence(found, way) for way in ("forward", "reverse")]
    print(f"{direction}, {start:4.1f}  {mean:7.3f}  {scale:6.3f}  {both[0]:9.3f}  {both[1]:9.3f}")
    ax.plot(x, norm(mean, scale).pdf(x), label=f"{direction} KL, from {start}")
ax.set(xlabel="x", ylabel="density", title="Forward KL covers, reverse KL picks")
ax.legend()
weights = np.exp(log_p) * grid.volume
mean = weights @ grid.points[:, 0]
print(f"moments of p: {mean:.3f}, {np.sqrt(weights @ (grid.points[:, 0] - mean) ** 2):.3f}")

# %%
# Energies and scores
# -------------------
# .. math:: q(x) = \frac{e^{-E(x)}}{Z}, \quad Z = \int e^{-E}, \qquad
#           s(x) = \nabla \log q(x) = -\nabla E(x).
#
# The partition function :math:`Z` is an integral over all of space; the *score* :math:`s`, the direction
# in which the density grows fastest, does not need it. ``energy`` and ``grad_log_density`` give both.
# Here for rows around a curve in the plane, whose law is known too: points along it, blurred by 0.02.
_, shape = make_lima_bean(1, return_shape=True, random_state=0)
curve = shape.sample(1000, spacing="even")
bean = KDESampler(0.02).fit(curve)
X, X_new = bean.sample(60, random_state=0), bean.sample(2000, random_state=1)
model = SmoothedScoreDiffusion(bandwidth=0.05, sigma=0.08).fit(X)

low, high = curve.min(axis=0) - 0.3, curve.max(axis=0) + 0.3
square = regular_grid(low, high, 80)
energy = model.energy(square.points)
Z = np.exp(-energy).sum() * square.volume
step = 1e-5 * np.eye(2)
slopes = [model.energy(X_new + e) - model.energy(X_new - e) for e in step]
gap = np.abs(np.transpose(slopes) / 2e-5 + model.grad_log_density(X_new)).max()
print(f"partition function of this energy {Z:.3f}; its gradient is -score up to {gap:.0e}")

fig, ax = plt.subplots(figsize=(5.6, 4.8), layout="constrained")
corner = square.points.reshape(80, 80, 2)
levels = np.arange(0, 33, 4)
above = (energy - energy.min()).reshape(80, 80)
filled = ax.contourf(*corner.T, above.T, levels, cmap="Blues", extend="max")
fig.colorbar(filled, label="energy above its least (nats)")
few = corner[4::6, 4::6].reshape(-1, 2)
score = model.grad_log_density(few)
score /= np.sqrt(np.linalg.norm(score, axis=1, keepdims=True))  # shorter, to be seen
ax.quiver(*few.T, *score.T, color="C1", width=0.004)
ax.plot(*X.T, "k.", markersize=4, label="training rows")
ax.set(aspect="equal", title="Scores point down the energy")
ax.legend(loc="upper right")

# %%
# Langevin sampling: draws from a score alone
# -------------------------------------------
# .. math:: x' = x + h\, s(x) + \sqrt{2h}\, z, \qquad z \sim N(0, I).
#
# Follow the score, add noise: as the step :math:`h \to 0` the chain's law becomes
# :math:`e^{-E} / Z`. Accepting each step by Metropolis' rule makes it exact at any step, and still
# needs differences of energies only. The energy below is nobody's model: two wells, one deeper.
def well(x):
    """Return an energy in nats."""
    return (2 * (x**2 - 1) ** 2 - 0.4 * x)[:, 0]


def pull(x):
    """Return the score, minus the energy's gradient."""
    return 0.4 - 8 * x * (x**2 - 1)


axis = regular_grid(-3, 3, 1000)
exact = np.exp(-well(axis.points))
exact /= exact.sum() * axis.volume  # by quadrature, which chains never need
start = np.linspace(-1.5, 1.5, 32)[:, None]
samplers = {
    "adjusted": LangevinSampler(n_draws=10_000, metropolis=True),
    "unadjusted, large step": LangevinSampler(n_draws=10_000, step_size=0.05),
}
fig, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
print("chains                   R-hat of 50   R-hat of all   largest error of the law")
for name, sampler in samplers.items():
    chains = sampler.run((pull, lambda x: -well(x)), start=start, random_state=0)
    below = np.searchsorted(np.sort(chains.samples[:, 0]), axis.points[:, 0]) / chains.samples.size
    error = np.abs(below - exact.cumsum() * axis.volume).max()
    early = split_r_hat(chains.draws[:, :50])[0]
    print(f"{name:22s}   {early:11.2f}   {chains.r_hat[0]:12.4f}   {error:24.4f}")
    bins = np.linspace(-2, 2, 61)
    axes[1].hist(chains.samples[:, 0], bins, density=True, histtype="step", label=name)
    if name == "adjusted":
        axes[0].plot(chains.draws[[0, 10, 21, 31], :300, 0].T, linewidth=0.8)
axes[0].set(xlabel="step", ylabel="x", title="Four of 32 chains, adjusted")
axes[1].plot(axis.points, exact, "k", linewidth=1, label="exact law")
axes[1].set(xlim=(-2, 2), xlabel="x", ylabel="density", title="All draws")
axes[1].legend()

# %%
# An R-hat of one says that chains agree with one another: not after 50 steps, but in the end. It does
# not say that their law is the right one; the large step's is not.
#
# Score matching: closeness of scores
# -----------------------------------
# .. math:: D_F(p\|q) = \mathbb{E}_p |\nabla\log p - s|^2, \qquad
#           \tfrac12 D_F = \underbrace{\mathbb{E}_p\big[\operatorname{div} s + \tfrac12 |s|^2\big]
#           }_{\text{Hyvarinen's loss}} + \tfrac12 \mathbb{E}_p |\nabla\log p|^2.
#
# The Fisher divergence needs the score of :math:`p`. Hyvarinen's identity (integration by parts) leaves
# one term that does not depend on :math:`s`, and a loss that held-out rows estimate, as they do KL.
# First between two Gaussians, N(0, 1) and N(0.3, 1.25) in each of two columns, where it is known.
normal, wider = (KDESampler(h).fit([[m, m]]) for h, m in ((1.0, 0.0), (np.sqrt(1.25), 0.3)))
rows = normal.sample(200_000, random_state=0)
by_rows = fisher_divergence(rows, normal, wider)
constant = np.sum(normal.grad_log_density(rows) ** 2, axis=1).mean() / 2
print(f"D_F / 2: exact {(1 - 0.8) ** 2 + (0.8 * 0.3) ** 2:.4f}")
print(f"by definition {by_rows.value / 2:.4f} +- {by_rows.standard_error / 2:.4f}")
print(f"Hyvarinen's loss + constant {-hyvarinen_score(wider, rows) + constant:.4f}")

score_p = p.grad_log_density(grid.points)
fisher = [weights @ (score_p - q.grad_log_density(grid.points))[:, 0] ** 2 / 2 for q in models]
loss = [-hyvarinen_score(q, held_out) for q in models]
constant = weights @ score_p[:, 0] ** 2 / 2
fig, ax = plt.subplots(figsize=(6, 3.7), layout="constrained")
ax.loglog(bandwidths, fisher, label="half the Fisher divergence, by quadrature")
ax.loglog(bandwidths, np.add(loss, constant), "o", label="held-out Hyvarinen loss + constant")
ax.set(xlabel="bandwidth of the estimate q", ylabel="nats / squared unit")
ax.set_title("Hyvarinen's loss sees the Fisher divergence")
ax.legend()
for name, values in (("KL", kl), ("held-out NLL", nll), ("D_F", fisher), ("its loss", loss)):
    print(f"lowest {name}: at bandwidth {bandwidths[np.argmin(values)]:.2f}")

# %%
# Denoising score matching
# ------------------------
# .. math:: x_t = x_0 + \sqrt{t}\, z, \qquad
#           \mathbb{E}\big|s(x_t) - \nabla\log p_t(x_t)\big|^2
#           = \mathbb{E}\big|s(x_t) + z / \sqrt{t}\big|^2 - \text{constant}.
#
# With noise of variance :math:`t` on the rows no derivative of :math:`s` is needed: a score points back
# to where the noise came from. Over all :math:`t`, Fisher divergences even add up to KL (de Bruijn):
# differences of ``denoising_score`` are differences of likelihood between estimates by a kernel.
t = 0.25
clean = p.sample(100_000, random_state=2)
z = np.random.RandomState(3).normal(size=clean.shape)
noisy, pull_back = clean + np.sqrt(t) * z, -z / np.sqrt(t)
score_t = p.grad_log_density(noisy, t=p.bandwidth_**2 + t)
constant = np.mean((score_t - pull_back) ** 2)
print("bandwidth   against the score of p_t   by denoising")
narrow, wide = KDESampler(0.3).fit(train), KDESampler(0.8).fit(train)
for q in (narrow, wide):
    score = q.grad_log_density(noisy, t=q.bandwidth_**2 + t)
    direct, denoised = np.mean((score - score_t) ** 2), np.mean((score - pull_back) ** 2) - constant
    print(f"{q.bandwidth:9.1f}   {direct:24.4f}   {denoised:12.4f}")
for name, scorer in (("log-likelihoods", KDESampler.score), ("denoising scores", denoising_score)):
    print(f"difference of {name}: {scorer(narrow, clean) - scorer(wide, clean):.4f} nats")

# %%
# The empirical score, and why it memorises
# -----------------------------------------
# .. math:: p_t(x) = \frac1N \sum_i N(x; x_i, tI), \qquad
#           s(x, t) = \nabla \log p_t(x) = \frac{\mathbb{E}[x_0 | x_t = x] - x}{t}, \qquad
#           \frac{dx}{dt} = -\tfrac12 s(x, t).
#
# Rows have no density, rows plus noise have: a kernel density estimate of bandwidth :math:`\sqrt t`,
# whose score is known in closed form: the posterior mean is a softmax over the rows. A diffusion model
# starts from much noise and follows this score down to little. Nothing is learned, and nothing
# generalises: with ``sigma=0`` what arrives at noise ``bandwidth`` *is* the KDE, and copies of the
# rows as the bandwidth goes to zero.
h = 0.02
exact_score = SmoothedScoreDiffusion(bandwidth=h, sigma=0).fit(X)
at = X_new[:500]
squares = np.sum((at[:, None] - X) ** 2, axis=2)
by_hand = (softmax(-squares / (2 * h**2), axis=1) @ X - at) / h**2
print(f"score by hand: off by {np.abs(by_hand - exact_score.grad_log_density(at)).max():.0e}")
kde = KDESampler(h).fit(X)
gap = np.abs(exact_score.score_samples(at) - kde.score_samples(at)).max()
print(f"log-density of sigma=0 against the KDE's: off by {gap:.0e} nats")
copies = SmoothedScoreDiffusion(bandwidth=1e-6, sigma=0).fit(X).sample(1000, random_state=0)
print(f"at bandwidth 1e-6: at most {distance_to_data(copies, X).max():.0e} from a training row")

# %%
# Smoothing in the log domain
# ---------------------------
# .. math:: s_k(x, t) = \mathbb{E}_\xi\, s(x + \xi, t) = \nabla\, \mathbb{E}_\xi \log p_t(x + \xi),
#           \qquad \xi \sim N(0, \sigma^2 I).
#
# What generalises is a smoother score. Averaging it averages the *log-density*; averaging the density
# would be another, wider KDE. Both averages by brute force, at ten places:
sigma = 0.1
model = SmoothedScoreDiffusion(bandwidth=h, sigma=sigma).fit(X)
wider = KDESampler(np.hypot(h, sigma)).fit(X)
offsets = sigma * np.random.RandomState(0).normal(size=(20_000, 1, 2))
logs = kde.score_samples((X_new[:10] + offsets).reshape(-1, 2)).reshape(-1, 10)
gap = np.abs(logs.mean(axis=0) + model.energy(X_new[:10]))
print(f"mean of log-densities against -energy: off by {gap.mean():.2f} of {logs.std():.1f} nats")
gap = logsumexp(logs, axis=0) - np.log(len(logs)) - wider.score_samples(X_new[:10])
print(f"log of mean density against the wider KDE: off by {np.abs(gap).mean():.2f} nats")

fig, axes = plt.subplots(1, 3, figsize=(10, 3.9), sharey=True, layout="constrained")
laws = {
    f"as it is: KDE, bandwidth {h}": kde,
    f"density smoothed by {sigma}: wider KDE": wider,
    f"log-density smoothed by {sigma}": model,
}
for ax, (name, law) in zip(axes, laws.items(), strict=True):
    drawn = law.sample(2000, random_state=0)
    ax.plot(*drawn.T, ".", markersize=2)
    ax.plot(*curve[np.r_[: len(curve), 0]].T, color="0.5", linewidth=0.8)
    ax.plot(*X.T, "k.", markersize=4)
    ax.set(aspect="equal", title=name)
    off = distance_to_manifold(drawn, shape.manifold).mean()
    print(f"{name}: {off:.3f} from the curve, {distance_to_data(drawn, X).mean():.3f} from the rows")

# %%
# The last call
# -------------
# Averaged scores belong to a law too: ``score_samples`` integrates the divergence along the flow, so
# held-out likelihood compares them with anything. Without numbers, ``fit`` chooses its own. Here
# the entropy is known, and likelihoods become divergences from the truth.
entropy = -bean.score(X_new)
untouched = SmoothedScoreDiffusion().fit(X)
print("                                    held-out NLL   KL from the truth")
for name, law in {
    "leave-one-out KDE": KDESampler(bandwidth="loo").fit(X),
    "SmoothedScoreDiffusion(0.02, 0.1)": model,
    "SmoothedScoreDiffusion()": untouched,
}.items():
    gap = renyi_divergence(bean.score_samples(X_new), law.score_samples(X_new))
    found = f"{gap.value:.3f} +- {gap.standard_error:.3f}"
    print(f"{name:33s}   {-law.score(X_new):12.3f}   {found:>17s}")
print("ten new rows:", untouched.sample(10, random_state=0).round(2).tolist())

# %%
# What this walk left out
# -----------------------
# Why mass spreads along the curve and not away from it:
# :ref:`sphx_glr_gallery_plot_02_kde_against_score.py`. How much smoothing is best:
# :ref:`sphx_glr_gallery_plot_04_likelihood_curve.py`, and by cheaper losses than likelihood:
# :ref:`sphx_glr_gallery_plot_15_score_matching.py`. A smoothed score's energy is not minus the
# log-density of its samples; that page shows by how much.
