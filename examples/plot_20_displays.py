"""
Pictures of a model
===================

**What you see here**: the pictures with which to inspect a fitted density. Each display computes in
``from_estimator``, draws in ``plot``, and returns the numbers that it draws as a data frame by
``frame``, as scikit-learn's displays do. The data are Fisher's irises, with noise of one rounding unit.
"""

# %%
# What a search chose
# -------------------
# Held-out log-density against the smoothing scale, one line for each bandwidth, with the kernel density
# estimate's level and the choice. All candidates that are drawn were scored on the same rows.
import numpy as np
from sklearn.datasets import load_iris
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import train_test_split

from skdiffsmooth import KDESampler, LangevinSampler, SmoothedScoreDiffusion
from skdiffsmooth.displays import (
    ChainDisplay,
    ComparisonDisplay,
    DensityDisplay,
    SampleComparisonDisplay,
    ScoreFieldDisplay,
    SelectionCurveDisplay,
    TrajectoryDisplay,
)
from skdiffsmooth.model_selection import SmoothedScoreDiffusionCV

flowers = load_iris(as_frame=True).data
flowers = flowers + np.random.RandomState(0).uniform(-0.05, 0.05, size=flowers.shape)
train, test = train_test_split(flowers, random_state=0)
search = SmoothedScoreDiffusionCV().fit(train)
curve = SelectionCurveDisplay.from_estimator(search).plot()
print(curve.frame().sort_values("score", ascending=False).head(3).round(3))

# %%
# Is it better than others?
# -------------------------
# The figure shows differences of log-likelihoods of the same held-out rows, with two standard errors.
# They are noisy here: there are 38 held-out rows.
models = {
    "KDE": KDESampler().fit(train),
    "mixture": GaussianMixture(3, random_state=0).fit(train),
    "smoothed": search,
}
compared = ComparisonDisplay.from_estimators(models, test).plot()
print(compared.comparison)

# %%
# The density
# -----------
# All pairs of columns, from 2000 draws; and two columns given the two others, which is exact.
pairs = DensityDisplay.from_estimator(search, train).plot()

# %%
petals = {"petal length (cm)": 4.5, "petal width (cm)": 1.4}
sepals = DensityDisplay.from_estimator(search, given=petals).plot()

# %%
# Rows that it draws
# ------------------
# Held-out rows below the diagonal, drawn ones above.
drawn = SampleComparisonDisplay.from_estimator(search, test, random_state=0).plot()

# %%
# How it works
# ------------
# The score at three noise scales, for two columns; where the flow moves draws from large noise to
# small; and chains of a Langevin sampler, which do not move between the groups of rows: their R-hat is
# far above one.
petals = train[["petal length (cm)", "petal width (cm)"]]
model = SmoothedScoreDiffusion().fit(petals)
field = ScoreFieldDisplay.from_estimator(model, petals, t=[0.02, 0.2, 1.0]).plot()

# %%
paths = TrajectoryDisplay.from_estimator(model, n_samples=60, random_state=0).plot()

# %%
sampler = LangevinSampler(300, metropolis=True, n_chains=8)
chains = ChainDisplay.from_estimator(model, sampler, random_state=0).plot()
print("R-hat", chains.r_hat.round(2))
