"""The default members of a DensityStacking: the densities of this package with default parameters."""

from __future__ import annotations

from typing import Any

from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline

from .._estimators.smoothed import SmoothedScoreDiffusion
from ..bases import ManifoldParzen
from ._independent import IndependentColumns
from ._quantiles import QuantileSpline
from ._transformed import TransformedDensity

_N_KNOTS = (8, 24)
# Fewest rows between two knots.
_MIN_ROWS_PER_KNOT = 5
_N_COMPONENTS = (1, 2, 4, 8, 16, 32)
# Fits of a mixture with too many components depend on the seed; the mean of several densities is stable
# (docs/evidence/compose.md).
_N_RESTARTS = 8
# Variance added to each component, in squared units of the scaled columns: only rounding
# makes a component as thin as this.
_REGULARISATION = 1e-5
_N_NEIGHBORS = 20
# A mixture with fewer rows for each component than this fits noise.
_MIN_ROWS_PER_COMPONENT = 5


def density_family(
    smoothed: Any, n_rows: int, n_features: int, *, weighted: bool
) -> list[tuple[str, Any]]:
    """Return names and estimators of the default members, by decreasing gain in likelihood per time.

    Members that need more than `n_rows` distinct rows are left out and, if rows are `weighted`, those
    that take no weights. Smoothed mixtures and learned tangents are not members: they would take most
    of the time and gain little (docs/evidence/compose.md, docs/evidence/bases.md).
    """
    members: list[tuple[str, Any]] = [("smoothed", smoothed)]
    # Leave-one-out likelihoods have one row fewer.
    neighbors = min(_N_NEIGHBORS, n_rows - 2)
    if neighbors > 0:
        windows = SmoothedScoreDiffusion(sigma=0.0, base=ManifoldParzen(neighbors))
        members.append(("windows", TransformedDensity(windows, IndependentColumns())))
        if 1 < n_features < n_rows:
            whitening = make_pipeline(IndependentColumns(), PCA(whiten=True))
            whitened = TransformedDensity(windows, whitening)
            members.append(("whitened-windows", whitened))
    members += [
        (f"smoothed-quantiles-{k}", TransformedDensity(smoothed, QuantileSpline(k)))
        for k in _N_KNOTS
        if k * _MIN_ROWS_PER_KNOT <= n_rows
    ]
    for k in _N_COMPONENTS if not weighted else ():
        if k * _MIN_ROWS_PER_COMPONENT > n_rows:
            continue
        restarts = [
            GaussianMixture(
                k, reg_covar=_REGULARISATION, init_params="k-means++", random_state=seed
            )
            for seed in range(_N_RESTARTS if k > 1 else 1)
        ]
        mixture = SmoothedScoreDiffusion(sigma=0.0, base=restarts)
        members.append((f"mixture-{k}", TransformedDensity(mixture, IndependentColumns())))
    return members
