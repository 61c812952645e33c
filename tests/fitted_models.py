"""One small model of each estimator that is fitted to rows, for tests and benchmarks of fitted state."""

from sklearn.mixture import GaussianMixture

from skdiffsmooth import (
    CoarseScoreDiffusion,
    KDESampler,
    LocalScoreDiffusion,
    ManifoldAdaptedDiffusion,
    NeuralScoreDiffusion,
    SmoothedScoreDiffusion,
)
from skdiffsmooth.compose import DensityOutlierDetector, DensityStacking, TransformedDensity
from skdiffsmooth.manifolds import Circle
from skdiffsmooth.model_selection import SmoothedScoreDiffusionCV
from skdiffsmooth.tables import TableDensity

COARSE = {"n_nodes": 8, "n_levels": 4, "n_steps": 4}
SMOOTHED = SmoothedScoreDiffusion(0.3, 0.4, **COARSE)
MODELS = {
    "kde": KDESampler(0.4),
    "smoothed": SMOOTHED,
    "chosen": SmoothedScoreDiffusion(**COARSE),
    "mixture": SmoothedScoreDiffusion(0.3, 0.4, base=GaussianMixture(2, random_state=0), **COARSE),
    "local": ManifoldAdaptedDiffusion(0.3, 0.4, n_components=1, n_cells=2, **COARSE),
    "circle": ManifoldAdaptedDiffusion(0.1, 0.2, manifold=Circle([0.0, 0.0], 1.0), **COARSE),
    "coarse": CoarseScoreDiffusion(0.3, 1, n_components=1, n_neighbors=8),
    "groups": LocalScoreDiffusion(n_levels=4, n_steps=4),
    "network": NeuralScoreDiffusion(
        max_iter=2, hidden_layer_sizes=(8,), n_levels=4, n_steps=4, random_state=0
    ),
    "search": SmoothedScoreDiffusionCV(SMOOTHED, n_refinements=0),
    "stacking": DensityStacking([("kde", KDESampler(0.4)), ("smoothed", SMOOTHED)]),
    "transformed": TransformedDensity(SMOOTHED),
    "outliers": DensityOutlierDetector(KDESampler(0.4)),
    "table": TableDensity(density=KDESampler()),
}
