"""The members that a stacking has where none are named: this package's densities, each as it comes."""

from __future__ import annotations

from typing import Any

from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import StandardScaler

from .._estimators.smoothed import SmoothedScoreDiffusion
from ..bases import ManifoldParzen
from ._transformed import TransformedDensity

__all__ = ["density_family"]

_N_COMPONENTS = (1, 2, 4, 8, 16, 32)
# Restarts of the same mixture differ where it has too many components, and their mean has not.
_N_RESTARTS = 8
# In units of the standardised columns: a component as thin as this is rounding.
_REGULARISATION = 1e-5
_N_NEIGHBORS = 20
# Fewer rows a component than these fit noise, whatever the folds may say of the rest.
_LEAST_ROWS = 5


def density_family(n_rows: int, n_features: int, *, weighted: bool) -> list[tuple[str, Any]]:
    """Return this package's densities, those first that cost least for what they give.

    Parameters
    ----------
    n_rows : int
        Number of distinct rows that each will be fitted to, at least.
    n_features : int
        Number of features.
    weighted : bool
        Whether rows have weights, which mixtures cannot take.

    Returns
    -------
    list of (str, estimator)
        Smoothed rows; smoothed mixtures of several sizes, each the mean of eight restarts; manifold
        Parzen windows on scaled and on whitened columns. Not rows smoothed along learned tangents: they
        cost as much as all the others, for less than a tenth of a nat on tables (docs/bases.md).
    """
    members: list[tuple[str, Any]] = [("smoothed", SmoothedScoreDiffusion())]
    for k in _N_COMPONENTS if not weighted else ():
        if k * _LEAST_ROWS > n_rows:
            continue
        restarts = [
            GaussianMixture(
                k, reg_covar=_REGULARISATION, init_params="k-means++", random_state=seed
            )
            for seed in range(_N_RESTARTS if k > 1 else 1)
        ]
        mixture = SmoothedScoreDiffusion(base=restarts)
        members.append((f"mixture-{k}", TransformedDensity(mixture, StandardScaler())))
    if n_rows < 3:
        return members
    # One row fewer is there when a window's own is left out.
    neighbors = min(_N_NEIGHBORS, n_rows - 2)
    windows = SmoothedScoreDiffusion(sigma=0.0, base=ManifoldParzen(neighbors))
    members.append(("windows", TransformedDensity(windows, StandardScaler())))
    if 1 < n_features < n_rows:
        whitened = TransformedDensity(windows, PCA(whiten=True))
        members.append(("whitened-windows", whitened))
    return members
