"""Small tables with named columns, and models of them, for the tests of the displays."""

import numpy as np
import pandas as pd

from skdiffsmooth import SmoothedScoreDiffusion

COARSE = {"n_nodes": 8, "n_levels": 4, "n_steps": 8}


def frame(d, n=40, seed=0):
    rows = np.random.RandomState(seed).normal(size=(n, d))
    return pd.DataFrame(rows, columns=[f"column {j}" for j in range(d)])


def fitted(d):
    return SmoothedScoreDiffusion(0.4, 0.3, **COARSE).fit(frame(d))
