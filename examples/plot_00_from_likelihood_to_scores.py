r"""
From likelihood to smoothed scores: an introduction
===================================================

Density estimation looks for a distribution :math:`q` close to the unknown distribution :math:`p` of
some rows. This page goes from the oldest method, maximum likelihood, to that of this library, a
diffusion whose score is smoothed. Each step is a formula, the call that computes it, and a number that
checks it.

A Gaussian mixture is a kernel density estimate (KDE) of its means. So ``KDESampler``, given two
means, is also a distribution that is *known*: its density, its score and its draws are exact.
"""

# %%
# Kullback-Leibler divergence and likelihood
# ------------------------------------------
# .. math:: \mathrm{KL}(p\|q) = \mathbb{E}_p \log\frac{p}{q}
#           = \underbrace{\mathbb{E}_p[-\log q]}_{\text{negative log-likelihood (NLL)}} - H(p),
#           \qquad H(p) = \mathbb{E}_p[-\log p].
#
# The entropy :math:`H(p)` does not depend on :math:`q`, so maximising likelihood minimises
# KL. ``-q.score(held_out)`` estimates the first term from rows that :math:`q` was not fitted on, in
# nats a row.
import matplotlib.pyplot as plt
import numpy as np
from grids import regular_grid, renyi_divergence
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax
from scipy.stats import norm

from skdiffsmooth import KDESampler, LangevinSampler, SmoothedScoreDiffusion
from skdiffsmooth.datasets import lima_bean
from skdiffsmooth.diagnostics import split_r_hat
from skdiffsmooth.displays import ScoreFieldDisplay
from skdiffsmooth.metrics import distance_to_data, distance_to_manifold, fisher_divergence
from skdiffsmooth.model_selection import denoising_score, hyvarinen_score

p = KDESampler(0.7).fit([[-2.0], [2.0]], sample_weight=[1, 2])
train, held_out = p.sample(100, random_state=7), p.sample(1000, random_state=1)
grid = regular_grid(-10, 10, 2000)
x, log_p = grid.points[:, 0], p.score_samples(grid.points)
mass = np.exp(log_p) * grid.volume
entropy = -mass @ log_p

bandwidths = np.geomspace(0.08, 1.6, 14)
models = [KDESampler(h).fit(train) for h in bandwidths]
log_qs = [q.score_samples(grid.points) for q in models]
kl = [renyi_divergence(log_p, log_q, volume=grid.volume).value for log_q in log_qs]
nll = np.array([-q.score(held_out) for q in models])
errors = [q.score_samples(held_out).std() / np.sqrt(len(held_out)) for q in models]

fig, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
ax.semilogx(bandwidths, kl, label="KL(p||q) by quadrature")
ax.errorbar(bandwidths, nll - entropy, errors, fmt="o", label="held-out NLL - H(p), +- its error")
ax.set(xlabel="bandwidth of the estimate q", ylabel="nats", title="Held-out likelihood measures KL")
ax.legend()

q = KDESampler(bandwidth="loo").fit(train)  # of highest leave-one-out likelihood
exact = renyi_divergence(log_p, q.score_samples(grid.points), volume=grid.volume).value
by_rows = renyi_divergence(p.score_samples(held_out), q.score_samples(held_out))
print(f"bandwidth {q.bandwidth_:.2f}: NLL {-q.score(held_out):.4f}, entropy of p {entropy:.4f}")
print(f"KL: {exact:.4f} by quadrature, {by_rows.value:.4f} +- {by_rows.standard_error:.4f} by rows")

# %%
# The two directions of KL
# ------------------------
# .. math:: \min_q \mathrm{KL}(p\|q) \;\text{(forward: likelihood)} \qquad\text{or}\qquad
#           \min_q \mathrm{KL}(q\|p) \;\text{(reverse: variational inference)}.
#
# Fit one Gaussian to both modes. Forward, KL is large where :math:`p` has mass and :math:`q` has
# little: the Gaussian covers both modes, and has the mean and the variance of :math:`p`. Reverse, it
# is large where :math:`q` has mass and :math:`p` has little: the Gaussian covers one mode, and which
# one depends on where the search starts.


def divergence(parameters, direction):
    """Return KL between p and the Gaussian of a mean and a log scale."""
    gaussian = norm(parameters[0], np.exp(parameters[1])).logpdf(x)
    pair = (log_p, gaussian) if direction == "forward" else (gaussian, log_p)
    return renyi_divergence(*pair, volume=grid.volume).value


fig, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
ax.fill_between(x, mass / grid.volume, color="0.85", label="p")
print("search       mean   scale   KL(p||q)   KL(q||p)")
for direction, start in (("forward", 0.0), ("reverse", 2.0), ("reverse", -2.0)):
    found = minimize(divergence, [start, 0.0], args=(direction,), method="Nelder-Mead").x
    kls = divergence(found, "forward"), divergence(found, "reverse")
    print(f"{direction} {found[0]:9.3f} {np.exp(found[1]):7.3f} {kls[0]:10.3f} {kls[1]:10.3f}")
    label = direction if direction == "forward" else f"reverse, started at {start:.0f}"
    ax.plot(x, norm(found[0], np.exp(found[1])).pdf(x), label=label)
ax.set(xlim=(-6, 6), ylim=(0, 0.75), xlabel="x", ylabel="density")
ax.set_title("Forward KL covers both modes, reverse KL one")
ax.legend(loc="upper center", ncols=2)
print(f"moments of p {mass @ x:.3f} {np.sqrt(mass @ (x - mass @ x) ** 2):.3f}")

# %%
# Energies and scores
# -------------------
# .. math:: q(x) = \frac{e^{-E(x)}}{Z}, \quad Z = \int e^{-E}, \qquad
#           s(x) = \nabla \log q(x) = -\nabla E(x).
#
# The partition function :math:`Z` is an integral over all of space. The *score* :math:`s`, the
# direction in which the density grows fastest, does not depend on Z. The calls are ``energy`` and
# ``grad_log_density``; scikit-learn's ``score`` is something else, the mean log-likelihood. The example
# uses rows from another known distribution: points of a curve plus noise of scale 0.02.
shape = lima_bean()
curve = shape.sample(1000, spacing="even")
bean = KDESampler(0.02).fit(curve)
X, X_new = bean.sample(60, random_state=0), bean.sample(2000, random_state=1)
model = SmoothedScoreDiffusion(bandwidth=0.05, sigma=0.08).fit(X)

square = regular_grid(curve.min(axis=0) - 0.3, curve.max(axis=0) + 0.3, 80)
energy = model.energy(square.points)
step = 1e-5 * np.eye(2)
slopes = [model.energy(X_new + e) - model.energy(X_new - e) for e in step]
gap = np.abs(np.transpose(slopes) / 2e-5 + model.grad_log_density(X_new)).max()
Z = np.exp(-energy).sum() * square.volume
print(f"Z = {Z:.3f}; slopes of the energy are minus the score, up to {gap:.0e}")

fig, ax = plt.subplots(figsize=(5.6, 4.6), layout="constrained")
corners, above = square.points.reshape(80, 80, 2), (energy - energy.min()).reshape(80, 80)
filled = ax.contourf(*corners.T, above.T, np.arange(0, 33, 4), cmap="Blues", extend="max")
fig.colorbar(filled, label="energy above its least (nats)")
ScoreFieldDisplay.from_estimator(model, X, grid_resolution=14).plot(ax)
ax.set(aspect="equal", title="Scores point down the energy")

# %%
# Langevin sampling: draws from a score alone
# -------------------------------------------
# .. math:: x' = x + h\, s(x) + \sqrt{2h}\, z, \qquad z \sim N(0, I).
#
# Follow the score and add noise: as the step :math:`h \to 0`, the chain's distribution becomes
# :math:`e^{-E} / Z`. Accepting steps by Metropolis' rule makes it exact at any :math:`h`, and
# takes only differences of energies. This energy belongs to no fitted model: two wells, one of them
# deeper.


def well(x):
    """Return energies in nats."""
    return (2 * (x**2 - 1) ** 2 - 0.4 * x)[:, 0]


density = np.exp(-well(grid.points))
density /= density.sum() * grid.volume  # by quadrature, which chains do not need
fig, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
print("chains       R-hat of 50 draws   of all   largest error of the distribution function")
for name, sampler in {
    "adjusted": LangevinSampler(n_draws=10_000, metropolis=True),
    "unadjusted": LangevinSampler(n_draws=10_000, step_size=0.05),
}.items():
    target = (lambda x: 0.4 - 8 * x * (x**2 - 1), lambda x: -well(x))  # the score and -E
    chains = sampler.run(target, start=np.linspace(-1.5, 1.5, 32)[:, None], random_state=0)
    below = np.searchsorted(np.sort(chains.samples[:, 0]), x) / len(chains.samples)
    error = np.abs(below - density.cumsum() * grid.volume).max()
    early = split_r_hat(chains.draws[:, :50])[0]
    print(f"{name:10s}   {early:17.2f} {chains.r_hat[0]:8.3f} {error:49.3f}")
    axes[1].hist(chains.samples[:, 0], 60, density=True, histtype="step", label=name)
    if sampler.metropolis:
        axes[0].plot(chains.draws[[0, 31], :300, 0].T, linewidth=0.8)
axes[0].set(xlabel="step", ylabel="x", title="Two of 32 chains, adjusted")
axes[1].plot(x, density, "k", linewidth=1, label="exact")
axes[1].set(xlim=(-2, 2), xlabel="x", ylabel="density", title="All draws")
axes[1].legend()

# %%
# An R-hat of one says that the chains agree with one another, which takes more than 50 draws. It
# does not say that they agree with the target: the large step of the unadjusted chains makes
# their distribution too wide.
#
# Score matching: comparing scores
# --------------------------------
# .. math:: D_F(p\|q) = \mathbb{E}_p |\nabla\log p - s|^2, \qquad
#           \tfrac12 D_F = \underbrace{\mathbb{E}_p\big[\operatorname{div} s + \tfrac12 |s|^2\big]
#           }_{\text{Hyvarinen's loss}} + \tfrac12 \mathbb{E}_p |\nabla\log p|^2.
#
# The Fisher divergence compares scores. Integration by parts turns it into a loss, which held-out rows
# estimate, plus a constant of :math:`p`, as for KL. First between N(0, 1) and N(0.3, 1.25) in two
# columns:
normal, other = KDESampler(1.0).fit([[0, 0]]), KDESampler(np.sqrt(1.25)).fit([[0.3, 0.3]])
rows = normal.sample(200_000, random_state=0)
by_rows = fisher_divergence(rows, normal, other)
constant = np.sum(normal.grad_log_density(rows) ** 2, axis=1).mean() / 2
print(f"D_F / 2: exact {(1 - 1 / 1.25) ** 2 + (0.3 / 1.25) ** 2:.4f}")
print(f"by definition {by_rows.value / 2:.4f} +- {by_rows.standard_error / 2:.4f}")
print(f"Hyvarinen's loss + constant {-hyvarinen_score(other, rows) + constant:.4f}")

score_p = p.grad_log_density(grid.points)
fisher = [mass @ (score_p - q.grad_log_density(grid.points))[:, 0] ** 2 / 2 for q in models]
loss = np.array([-hyvarinen_score(q, held_out) for q in models])
fig, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
ax.loglog(bandwidths, fisher, label="half the Fisher divergence by quadrature")
constant = mass @ score_p[:, 0] ** 2 / 2
ax.loglog(bandwidths, loss + constant, "o", label="held-out Hyvarinen loss + constant")
ax.set(xlabel="bandwidth of the estimate q", ylabel="1 / squared units of x")
ax.set_title("Hyvarinen's loss measures the Fisher divergence")
ax.legend()
best = [bandwidths[np.argmin(values)] for values in (kl, nll, fisher, loss)]
print("lowest KL, NLL, D_F and loss at bandwidths", np.round(best, 2))

# %%
# Denoising score matching
# ------------------------
# .. math:: x_t = x_0 + \sqrt{t}\, z, \qquad
#           \mathbb{E}\big|s(x_t) - \nabla\log p_t(x_t)\big|^2
#           = \mathbb{E}\big|s(x_t) + z / \sqrt{t}\big|^2 - \text{constant}.
#
# On rows plus noise of variance :math:`t` no derivative of :math:`s` is needed: on average, a score
# points back to the row without the noise. Integrated over all :math:`t`, Fisher divergences give KL
# (de Bruijn), so that differences of ``denoising_score`` are differences of likelihood, for KDEs.
t, narrow, wide = 0.25, KDESampler(0.3).fit(train), KDESampler(0.8).fit(train)
clean = p.sample(100_000, random_state=2)
z = np.random.RandomState(3).normal(size=clean.shape)
noisy, back = clean + np.sqrt(t) * z, -z / np.sqrt(t)
score_t = p.grad_log_density(noisy, t=p.bandwidth_**2 + t)  # p_t is p with a wider kernel
score = wide.grad_log_density(noisy, t=wide.bandwidth_**2 + t)
terms = (score - back) ** 2 - (score_t - back) ** 2  # the second is the constant
print(f"from the score of p_t {np.mean((score - score_t) ** 2):.4f}")
print(f"by denoising          {terms.mean():.4f} +- {terms.std() / np.sqrt(len(terms)):.4f}")
for name, scorer in (("log-likelihoods", KDESampler.score), ("denoising scores", denoising_score)):
    print(f"difference of {name}: {scorer(narrow, clean) - scorer(wide, clean):.4f} nats")

# %%
# The empirical score memorises
# -----------------------------
# .. math:: p_t(x) = \frac1N \sum_i N(x; x_i, tI), \qquad
#           s(x, t) = \nabla \log p_t(x) = \frac{\mathbb{E}[x_0 | x_t = x] - x}{t}, \qquad
#           \frac{dx}{dt} = -\tfrac12 s(x, t).
#
# The density of rows plus noise is a KDE of bandwidth :math:`\sqrt t`, and its score has a closed
# form: the mean is a softmax over the rows. A diffusion starts from much noise and follows this score
# down to little. Nothing is trained and nothing generalises: the distribution at noise ``bandwidth``
# *is* the KDE, and samples are the training rows as the bandwidth goes to zero.
h, at = 0.02, X_new[:500]
empirical, kde = SmoothedScoreDiffusion(bandwidth=h, sigma=0).fit(X), KDESampler(h).fit(X)
posterior = softmax(-np.sum((at[:, None] - X) ** 2, axis=2) / (2 * h**2), axis=1)
gap = np.abs((posterior @ X - at) / h**2 - empirical.grad_log_density(at)).max()
print(f"the softmax's score and the model's: {gap:.0e} apart")
gap = np.abs(empirical.score_samples(at) - kde.score_samples(at)).max()
print(f"log-densities of sigma=0 and of the KDE: {gap:.0e} nats apart")
copies = SmoothedScoreDiffusion(bandwidth=1e-6, sigma=0).fit(X).sample(1000, random_state=0)
away = distance_to_data(copies, X).max()
print(f"samples at bandwidth 1e-6: at most {away:.0e} from a training row")

# %%
# Smoothing in the log domain
# ---------------------------
# .. math:: s_k(x, t) = \mathbb{E}_\xi\, s(x + \xi, t) = \nabla\, \mathbb{E}_\xi \log p_t(x + \xi),
#           \qquad \xi \sim N(0, \sigma^2 I).
#
# A smoother score generalises. To average the score is to average the *log-density*; the average
# density would be one more KDE, a wider one. The code computes both averages directly at ten points
# (the model averages over 64 quasi-random offsets, here there are 20 000), then draws samples.
sigma = 0.1
model = SmoothedScoreDiffusion(bandwidth=h, sigma=sigma).fit(X)
wider = KDESampler(np.hypot(h, sigma)).fit(X)
offsets = sigma * np.random.RandomState(0).normal(size=(20_000, 1, 2))
logs = kde.score_samples((at[:10] + offsets).reshape(-1, 2)).reshape(-1, 10)
gap = np.abs(logs.mean(axis=0) + model.energy(at[:10])).mean()
print(f"mean log-density and -energy: {gap:.2f} nats apart, of {-logs.mean():.1f}")
gap = np.abs(logsumexp(logs, axis=0) - np.log(len(logs)) - wider.score_samples(at[:10])).mean()
print(f"log of the mean density and the wider KDE: {gap:.2f} nats apart")

fig, axes = plt.subplots(1, 3, figsize=(10, 3.9), sharex=True, sharey=True, layout="constrained")
for ax, (name, estimate) in zip(
    axes,
    {
        f"KDE, bandwidth {h}": kde,
        f"its density smoothed by {sigma}": wider,
        f"its log-density smoothed by {sigma}": model,
    }.items(),
    strict=True,
):
    drawn = estimate.sample(2000, random_state=0)
    ax.plot(*drawn.T, ".", markersize=2)
    ax.plot(*np.vstack([curve, curve[:1]]).T, color="0.5", linewidth=0.8)
    ax.plot(*X.T, "k.", markersize=4)
    ax.set(aspect="equal", title=name)
    off, away = distance_to_manifold(drawn, shape.manifold), distance_to_data(drawn, X)
    print(f"{name}: {off.mean():.3f} from the curve, {away.mean():.3f} from the rows")

# %%
# The density of a smoothed score
# -------------------------------
# The flow of a smoothed score leads to a distribution: ``sample`` draws from it, and
# ``score_samples`` integrates the divergence along the flow, so held-out likelihood can compare it
# with other densities. If no scales are given, ``fit`` chooses them. The truth is known here, so KL
# can be computed.
print("                                           held-out NLL   KL from the truth")
for estimate in (KDESampler(bandwidth="loo"), model, SmoothedScoreDiffusion()):
    log_q = estimate.fit(X).score_samples(X_new)
    found = renyi_divergence(bean.score_samples(X_new), log_q)
    name = str(estimate).replace("bandwidth=", "")
    print(f"{name:39s}   {-log_q.mean():12.3f}   {found.value:.3f} +- {found.standard_error:.3f}")
new_rows = estimate.sample(1000, random_state=0)

# %%
# Where to go on
# --------------
# Why mass spreads along the curve and not away from it:
# :ref:`sphx_glr_gallery_plot_02_kde_against_score.py`. Which scale is best:
# :ref:`sphx_glr_gallery_plot_04_likelihood_curve.py`, and by losses that are faster than likelihood:
# :ref:`sphx_glr_gallery_plot_15_score_matching.py`. A smoothed score's energy is not minus the
# log-density of its samples; the last of these pages measures the difference.
