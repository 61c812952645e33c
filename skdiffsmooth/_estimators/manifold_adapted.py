"""ManifoldAdaptedDiffusion: smoothing in the log domain, along a manifold only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._diffusion.estimator import BaseScoreDiffusion
from ..kernels._along_manifold import AlongManifold
from ..manifolds import Manifold
from ..noise import NoiseProcess
from ..solvers import Solver


class ManifoldAdaptedDiffusion(BaseScoreDiffusion):
    """Density estimation and sampling by a diffusion smoothed along a manifold.

    Like SmoothedScoreDiffusion, with offsets along the directions of a manifold only: a manifold
    learned from the data, a known one, or an affine subspace. On data that lie in an affine subspace
    all of these are the same model (Prop. 3.1 of the paper).

    Four parameters matter: `bandwidth`, `sigma`, `manifold` and `n_components`.

    >>> import numpy as np
    >>> from skdiffsmooth import ManifoldAdaptedDiffusion
    >>> angle = np.random.RandomState(0).uniform(0, 2 * np.pi, size=30)
    >>> X = np.column_stack([np.cos(angle), np.sin(angle)])
    >>> model = ManifoldAdaptedDiffusion(0.05, 0.2, n_components=1).fit(X)
    >>> new_rows = model.sample(10, random_state=0)

    ================  ===========================================================================
    scales            `bandwidth`, `sigma`, `metric`, `background`
    manifold          `manifold`, `n_components`, `n_cells`, `push`
    base and noise    `base`, `noise`
    accuracy          `solver`, `n_steps`, `n_levels`, `n_nodes`, `node_rule`, `terminal`, \
`terminal_scale`
    machine           `random_state`, `device`, `dtype`, `memory_limit`, `n_jobs`, `shards`, `verbose`
    ================  ===========================================================================

    Parameters
    ----------
    bandwidth : float, str such as "0.85h", or {"auto", "loo"}, default="auto"
        Noise left at the end of the reverse process, in units of the metric; see
        SmoothedScoreDiffusion. With a known manifold "auto" is 0.85 h, without a comparison.
    sigma : float, callable, str such as "1.5h", or "auto", default="auto"
        Smoothing scale along the manifold, in units of the metric; see SmoothedScoreDiffusion. With a
        known manifold "auto" is 1.5 h; if that is curved, keep `sigma` below 0.6 of its reach (0.3 with
        ``push="level-set"``): larger offsets go around its bends, and `fit` warns.
    manifold : {"local", "pca"} or Manifold, default="local"
        "local" learns it from the rows: local principal components in cells of the data, blended
        smoothly between cells. "pca" is the affine span of the leading principal components. Or an
        object of `skdiffsmooth.manifolds`, known or fitted. Log-densities need the derivative of its
        projection: a method `projection_factors` or `projection_derivative`, which all but PointCloud
        have, or your own `project` in torch, which is differentiated automatically (forward mode). A
        LocalPolynomialManifold that is not fitted is fitted to the training rows, as clones in a search
        are.
    n_components : int, float or "auto", default="auto"
        Dimension of a manifold that is to be learned. "auto" estimates it (TwoNN) for "local", and is
        0.95 for "pca", where a number in (0, 1) means as many components as explain this fraction of
        the variance. If the dimension is that of the data's affine hull, or there are fewer than ten
        distinct rows, "local" is the isotropic kernel. Not used when `manifold` is given.
    n_cells : int or "auto", default="auto"
        Number of cells in which "local" learns a tangent, at most. "auto" is one for every four rows
        and dimension, up to 32.
    push : {"translated", "level-set"}, default="translated"
        Which surface offsets follow where the manifold is known and curved. "translated": a copy of the
        manifold, translated to the query (the paper's experiments). "level-set": the points as far from
        the manifold as the query; its normal offset turns with the manifold (after the paper's theory,
        eq. 10).
    metric : {"auto", "euclidean", "scaled", "whitened", "local"}, float or array-like, default="auto"
        Linear coordinates in which noise and kernel act; see SmoothedScoreDiffusion. A known manifold
        is in the coordinates of X, "euclidean", and so are principal axes ("pca").
    base : {"points", "parzen"}, ManifoldParzen, mixture or list, default=None
        The distribution whose score is smoothed, in place of the training rows; see
        SmoothedScoreDiffusion. Tangents are learned from the rows all the same.
    n_nodes : int or "auto", default="auto"
        Number of nodes in each noise level, and in each cell of a learned manifold; "auto" chooses as in
        SmoothedScoreDiffusion, and begins with half as many nodes where there are cells.
    background, noise, tol, solver, n_steps, n_levels, node_rule, terminal, terminal_scale, \
            random_state, device, dtype, memory_limit, n_jobs, shards, verbose
        See SmoothedScoreDiffusion.

    Attributes
    ----------
    manifold_ : Manifold
        The manifold used, where it is known or affine.
    cells_ : Cells
        Cells with their tangents, in coordinates of the hull, where they are learned.
    n_components_ : int
        Dimension of the tangents, where they are learned.
    node_error_ : float
        Estimate of how far finitely many nodes change the log-density of a row, in nats; see
        SmoothedScoreDiffusion. NaN where log-densities cannot be computed.
    error_ : float
        ``node_error_`` with the errors of steps and of merged points, where `tol` is a number.
    hull_ : AffineHull
        The affine hull of the points (and of a known curved manifold), in which the flow runs.
    model_, bandwidth_, sigma_, metric_, settings_, not_compared_, rounding_, warp_, coordinates_, \
            background_, tail_bound_, kernel_, base_, noise_, solver_, n_steps_, n_nodes_, \
            noise_levels_, terminal_, points_, weights_, weight_sum_, hierarchy_, \
            n_features_in_, feature_names_in_
        See SmoothedScoreDiffusion.

    See Also
    --------
    SmoothedScoreDiffusion : The same smoothing in all directions.
    skdiffsmooth.manifolds : Manifolds to pass as `manifold`.

    Notes
    -----
    A kernel that differs between queries averages the score, not the log-density: the field is not
    a gradient (`energy` raises), and `score_samples` integrates its exact divergence, so that
    `score_samples` is the log-density of what `sample` draws.

    Projections on a known manifold are unique within its reach only. Offsets fade out between half and
    all of ``reach * sqrt(c)``, at distances measured in the manifold's affine hull, in which it has
    codimension c. So for c = 1 the projections of moved points do not jump. The limit grows with c,
    since in many dimensions hardly any noise points to centres of curvature, so that noise does not
    stop the smoothing. If `reach` is None, half of the value of `estimate_reach` at up to 1000 rows is
    used. A manifold without derivative gives no log-densities, and its offsets do not fade out, as in
    the paper's experiments.

    A LocalPolynomialManifold has waves if rows are noisy and neighbours are few, and its projections
    jump where its curvature is largest. With sigma below 0.6 of the distance at which offsets are zero
    (0.3 for "level-set"), densities integrate to one within 1e-2 (docs/evidence/manifolds.md). With a
    larger sigma, for which `fit` warns, single log-densities may be wrong by nats.

    With learned tangents, time is that of the isotropic kernel times the number of cells with non-zero
    gates at a query, two or three. A known curved manifold takes one softmax over the points and one
    projection for each pair of query and node (two projections for "level-set"). A projection of moving
    least squares takes some 0.1 ms in the plane, so that a log-density takes 0.3 s with 64 nodes: use
    few rows and nodes in searches with it. Automatic differentiation takes a projection for each
    dimension of the hull.

    References
    ----------
    T. Farghly et al., Diffusion Models and the Manifold Hypothesis: Log-Domain Smoothing is Geometry
    Adaptive, NeurIPS 2025, arXiv:2510.02305, sec. 3 and 4.

    Examples
    --------
    Smoothed along tangents that are learned, and along the circle itself:

    >>> from skdiffsmooth.manifolds import Circle
    >>> circle = Circle([0.0, 0.0], 1.0)
    >>> for manifold in ("local", circle):
    ...     model = ManifoldAdaptedDiffusion(0.02, 0.2, manifold=manifold, n_components=1).fit(X)
    ...     print(circle.distance(model.sample(100, random_state=0)).mean() < 0.05)
    True
    True
    """

    def __init__(
        self,
        bandwidth: float | str = "auto",
        sigma: float | str | Callable[[float], float] = "auto",
        *,
        manifold: str | Manifold = "local",
        n_components: int | float | str = "auto",
        n_cells: int | str = "auto",
        push: str = "translated",
        metric: Any = "auto",
        background: float | str = "auto",
        base: Any = None,
        noise: str | NoiseProcess = "ve",
        tol: float | str = "auto",
        solver: str | Solver = "auto",
        n_steps: int | str = "auto",
        n_levels: int | str = "auto",
        n_nodes: int | str = "auto",
        node_rule: str = "sobol",
        terminal: str = "empirical",
        terminal_scale: float | str = "auto",
        random_state: Any = None,
        device: str = "cpu",
        dtype: str = "float64",
        memory_limit: float = 1024,
        n_jobs: int | None = None,
        shards: str | None = None,
        verbose: int = 0,
    ) -> None:
        self.bandwidth = bandwidth
        self.sigma = sigma
        self.manifold = manifold
        self.n_components = n_components
        self.n_cells = n_cells
        self.push = push
        self.metric = metric
        self.background = background
        self.base = base
        self.noise = noise
        self.tol = tol
        self.solver = solver
        self.n_steps = n_steps
        self.n_levels = n_levels
        self.n_nodes = n_nodes
        self.node_rule = node_rule
        self.terminal = terminal
        self.terminal_scale = terminal_scale
        self.random_state = random_state
        self.device = device
        self.dtype = dtype
        self.memory_limit = memory_limit
        self.n_jobs = n_jobs
        self.shards = shards
        self.verbose = verbose

    def _kernel_choice(self) -> AlongManifold:
        return AlongManifold(self.manifold, self.n_components, self.n_cells, self.push)
