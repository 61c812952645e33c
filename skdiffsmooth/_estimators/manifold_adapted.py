"""ManifoldAdaptedDiffusion: smoothing in the log domain, along a manifold only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._diffusion.estimator import BaseScoreDiffusion
from ..kernels._along_manifold import AlongManifold
from ..manifolds import Manifold
from ..noise import NoiseProcess
from ..solvers import Solver

__all__ = ["ManifoldAdaptedDiffusion"]


class ManifoldAdaptedDiffusion(BaseScoreDiffusion):
    """Density estimation and sampling by a diffusion smoothed along a manifold.

    As SmoothedScoreDiffusion, with offsets that keep to the directions of a manifold: one that is
    learned from the data, one that is known, or an affine subspace. On data that lie in an affine
    subspace all of these are the same model (Prop. 3.1 of the paper).

    Parameters
    ----------
    bandwidth : float or {"auto", "loo"}, default="auto"
        Noise left at the end of the reverse process, in units of the metric; see SmoothedScoreDiffusion.
    sigma : float, callable or "auto", default="auto"
        Smoothing scale along the manifold, in units of the metric; see SmoothedScoreDiffusion. Along a
        known curved manifold keep it below 0.6 of its reach: beyond, offsets go around it, and `fit`
        warns.
    manifold : {"local", "pca"} or Manifold, default="local"
        "local" learns it: local principal components in cells of the data, blended smoothly between
        cells. "pca" is the affine span of the leading principal components. Or an object of
        `skdiffsmooth.manifolds`, known or fitted. For log-densities its projection needs a derivative:
        by `projection_factors` or `projection_derivative`, as all but PointCloud have, or by a
        `project` of your own in torch, which forward mode differentiates. A LocalPolynomialManifold
        that is not fitted is fitted to the training rows, as clones in a search are.
    n_components : int, float or "auto", default="auto"
        Dimension of a manifold that is to be found. "auto" estimates it (TwoNN) for "local", and is a
        share of 0.95 for "pca", which takes any share of the variance, in (0, 1), for the number of
        components that reach it. Where that is all that the data span, or there are fewer than ten
        distinct rows, "local" is the isotropic kernel. Not used when `manifold` is given.
    n_cells : int or "auto", default="auto"
        Number of cells in which "local" learns a tangent, at most. "auto" is one for every four rows
        and dimension, up to 32.
    push : {"translated", "level-set"}, default="translated"
        How offsets go along a known curved manifold: along the copy of it that is translated to the
        query (the paper's experiments), or along the set of points that are as far from it as the
        query, the normal turned with the manifold (after the paper's theory, eq. 10).
    metric : {"auto", "euclidean", "scaled", "whitened"}, float or array-like, default="auto"
        Linear coordinates in which noise and kernel act; see SmoothedScoreDiffusion. A known manifold
        lies in the user's own, "euclidean" ones, and so do principal axes ("pca").
    background : float or "auto", default="auto"
        Weight of a wide kernel density estimate mixed to the model; see SmoothedScoreDiffusion.
    base : {"points", "parzen"}, ManifoldParzen, mixture or list, default=None
        The law whose score is smoothed, in place of the training rows; see SmoothedScoreDiffusion.
        Tangents are learned from the rows all the same.
    noise : {"ve", "ou"} or NoiseProcess, default="ve"
        The forward process; see SmoothedScoreDiffusion.
    node_rule : {"sobol", "gauss-hermite"}, default="sobol"
        How the kernel's nodes are chosen in each noise level; see SmoothedScoreDiffusion.
    n_nodes : int or "auto", default="auto"
        Nodes in each noise level, of each cell where the manifold is learned; "auto" as in
        SmoothedScoreDiffusion, from half as many for cells.
    n_levels : int, default=32
        Intervals of the noise range, each with nodes of its own.
    n_steps : int, default=32
        Steps of the solver, rounded up to a multiple of `n_levels`.
    solver : {"heun", "euler", "adaptive", "euler-maruyama", "predictor-corrector"} or Solver, \
            default="heun"
        How the flow is followed; see SmoothedScoreDiffusion.
    terminal : {"empirical", "gaussian"}, default="empirical"
        What the reverse process starts from.
    terminal_scale : float or "auto", default="auto"
        Noise scale at the start of the reverse process, in units of the metric.
    device : str, default="cpu"
        Where to compute, as torch names it.
    dtype : {"float64", "float32"}, default="float64"
        Precision of the computation; results are float64 arrays either way.
    random_state : int, RandomState or None, default=None
        Seed of the node sets; None is a fixed seed.
    tolerance : float or "auto", default="auto"
        How far points may be merged where noise blurs them, in nats: points within
        ``sqrt(2 * tolerance)`` noise scales of their mean may be replaced by it. That raises the
        log-density of a noise level by at most `tolerance`, and lowers it by about `tolerance` times
        the squared distance to the points that count, in units of the noise: little near the data,
        where errors are some thousandths of a nat (docs/scaling.md), nats in the far tails. 0 merges
        nothing. "auto" is 0 up to 10 000 distinct rows or without smoothing, and 0.02 beyond.
    memory_limit : float, default=1024
        Bound on temporaries, in MiB, of each worker.
    n_jobs : int or None, default=None
        Over how many joblib workers `sample` and the log-densities split their rows. None is one,
        or what a ``joblib.parallel_config`` says; -1 is all cores. One worker already uses several
        threads: this is for many rows, or for the machines of a cluster.
    shards : {"distributed"} or None, default=None
        Whether each process of torch.distributed fits rows of its own; see SmoothedScoreDiffusion.

    Attributes
    ----------
    manifold_ : Manifold
        The manifold used, where it is known or affine.
    cells_ : Cells
        Cells with their tangents, in coordinates of the hull, where they are learned.
    n_components_ : int
        Dimension of the tangents, where they are learned.
    bandwidth_ : float
        The bandwidth used, in units of the metric (of X where that is Euclidean).
    sigma_ : float or ndarray of shape (n_levels,)
        The smoothing scale used, in the same units; one for each level where `sigma` is a function.
    metric_ : str, float or ndarray
        The metric used.
    coordinates_ : LinearMetric
        Its coordinates, and their volume.
    background_ : float
        Weight of the background.
    n_nodes_ : int
        The number of nodes used.
    noise_ : NoiseProcess
        The forward process used.
    node_error_ : float
        Estimate of what finitely many nodes change the log-density of a row by, in nats; see
        SmoothedScoreDiffusion. NaN where log-densities cannot be computed.
    base_ : GaussianComponents or None
        The components of the base, in coordinates of the hull.
    points_ : ndarray of shape (n_points, n_features)
        Distinct training rows of positive weight; with `shards`, those of this process.
    weights_ : ndarray of shape (n_points,)
        Their weights; they sum to one, with `shards` over all processes.
    hull_ : AffineHull
        The affine hull of the points (and of a known curved manifold), in which the flow runs.
    kernel_ : Smoothing
        The smoothing kernel in coordinates of the hull.
    terminal_ : {"empirical", "gaussian"}
        The terminal law used.
    noise_levels_ : NoiseLevels
        The noise range and its intervals.
    n_steps_ : int
        Number of steps of the solver; of an adaptive one, the fewest.
    hierarchy_ : PointHierarchy
        The points in coordinates of the hull, and how they merge at each noise level.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features,)
        Column names, where X had them.

    See Also
    --------
    SmoothedScoreDiffusion : Smoothing in every direction alike.
    skdiffsmooth.manifolds : Manifolds that can be given.

    Notes
    -----
    A kernel that depends on where it acts averages the score, not the log-density: the field is no
    gradient (`energy` raises), and `score_samples` integrates its exact divergence, so that
    `sample` and `score_samples` keep one law.

    Projections on a known manifold are unique within its reach only. Offsets fade out between half and
    all of ``reach * sqrt(c)``, at distances measured in the manifold's affine hull, in which it has
    codimension c: for c = 1 nothing jumps, and noise of many dimensions, hardly any of it towards
    centres of curvature, does not stop the smoothing. Where `reach` is None it is taken to be half of
    what `estimate_reach` finds at up to 1000 rows. A manifold without derivative, that has no
    log-densities to be wrong, has no such limit, as in the paper's experiments.

    A LocalPolynomialManifold has waves of its own where rows are noisy and neighbours few, and its feet
    jump where it bends most. With sigma below 0.6 of where offsets fade the mass stays within 1e-2 of
    one (docs/manifolds.md); beyond, where `fit` warns, single log-densities may be wrong by nats.

    A learned kernel costs what the isotropic one costs times the number of cells whose gates are open
    at a query, two or three; a known curved manifold one softmax over the points and one projection
    for each pair of query and node (twice as many projections for "level-set"). A projection of moving
    least squares takes some 0.1 ms in the plane, so that a log-density takes 0.3 s at 64 nodes: with
    it, leave small samples and few nodes to searches. Forward mode takes a projection for each dimension
    of the hull.

    References
    ----------
    T. Farghly et al., Diffusion Models and the Manifold Hypothesis: Log-Domain Smoothing is Geometry
    Adaptive, NeurIPS 2025, arXiv:2510.02305, sec. 3 and 4.

    Examples
    --------
    Thirty rows on a circle, smoothed along tangents that are learned, and along the circle itself:

    >>> import numpy as np
    >>> from skdiffsmooth import ManifoldAdaptedDiffusion
    >>> from skdiffsmooth.manifolds import Circle
    >>> angle = np.random.RandomState(0).uniform(0, 2 * np.pi, size=30)
    >>> X = np.column_stack([np.cos(angle), np.sin(angle)])
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
        node_rule: str = "sobol",
        n_nodes: int | str = "auto",
        n_levels: int = 32,
        n_steps: int = 32,
        solver: str | Solver = "heun",
        terminal: str = "empirical",
        terminal_scale: float | str = "auto",
        device: str = "cpu",
        dtype: str = "float64",
        random_state: Any = None,
        tolerance: float | str = "auto",
        memory_limit: float = 1024,
        n_jobs: int | None = None,
        shards: str | None = None,
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
        self.node_rule = node_rule
        self.n_nodes = n_nodes
        self.n_levels = n_levels
        self.n_steps = n_steps
        self.solver = solver
        self.terminal = terminal
        self.terminal_scale = terminal_scale
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.tolerance = tolerance
        self.memory_limit = memory_limit
        self.n_jobs = n_jobs
        self.shards = shards

    def _kernel_choice(self) -> AlongManifold:
        return AlongManifold(self.manifold, self.n_components, self.n_cells, self.push)
