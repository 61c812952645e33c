"""The default members of a DensityStacking: the densities of this package with default parameters."""

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
# Restarts of a mixture with too many components differ; their mean is stable.
_N_RESTARTS = 8
# Variance added to each component, in squared units of the standardised columns: only rounding
# makes a component as thin as this.
_REGULARISATION = 1e-5
_N_NEIGHBORS = 20
# A mixture with fewer rows for each component than this fits noise.
_MIN_ROWS_PER_COMPONENT = 5


def density_family(n_rows: int, n_features: int, *, weighted: bool) -> list[tuple[str, Any]]:
    """Return the default members, ordered by the gain in likelihood for their time.

    They are smoothed rows; smoothed mixtures of several sizes, each the mean of eight restarts (not
    if `weighted`, since mixtures take no weights); manifold Parzen windows on scaled and on
    whitened columns. `n_rows` is the least number of distinct rows that a member will be fitted to.
    Smoothing along learned tangents is left out: it takes as long as all others, for less than a
    tenth of a nat on tables (docs/bases.md).
    """
    members: list[tuple[str, Any]] = [("smoothed", SmoothedScoreDiffusion())]
    for k in _N_COMPONENTS if not weighted else ():
        if k * _MIN_ROWS_PER_COMPONENT > n_rows:
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
    # One row fewer remains in leave-one-out likelihoods.
    neighbors = min(_N_NEIGHBORS, n_rows - 2)
    windows = SmoothedScoreDiffusion(sigma=0.0, base=ManifoldParzen(neighbors))
    members.append(("windows", TransformedDensity(windows, StandardScaler())))
    if 1 < n_features < n_rows:
        whitened = TransformedDensity(windows, PCA(whiten=True))
        members.append(("whitened-windows", whitened))
    return members
