"""ManifoldAdaptedDiffusion: smoothing in the log domain, along a manifold only."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.base import clone

from .._coordinates.hull import AffineHull, principal_axes
from .._coordinates.metric import candidate_metrics
from .._diffusion.diffusion import BaseScoreDiffusion
from .._diffusion.selection import Metric
from .._utils.shards import resolve_shards
from .._utils.validation import check_choice, check_integer, check_real
from .._utils.warnings import warn_user
from ..kernels import LinearShape, ReducedKernel
from ..kernels._cells import Cells
from ..kernels._gated import GatedShape
from ..kernels._pushed import PUSHES, ManifoldShape, distance_in_span, fading_distance
from ..manifolds import (
    AffineSubspace,
    LocalPolynomialManifold,
    Manifold,
    check_idempotent,
    estimate_reach,
)
from ..manifolds._base import has_derivative
from ..manifolds._dimension import check_n_components
from ..manifolds._forward import differentiable
from ..manifolds._within import within
from ..noise import NoiseProcess
from ..solvers import Solver

__all__ = ["ManifoldAdaptedDiffusion"]

# What "auto" means for the span of principal components.
_SHARE_OF_VARIANCE = 0.95

# In units of the bandwidth: where offsets fade over less than this, solvers step over the change (a
# thin ellipse of reach a tenth of the bandwidth is off by half a nat, of nine tenths by 0.01).
_SHORTEST_REACH = 0.5
# In units of the distance at which offsets have faded out: on circles and waves the mass of the density
# is within 1e-2 of one up to this.
_WIDEST_SCALE = 0.6

# A reach that is estimated is that of all but the worst places. On noisy circles and waves no foot was
# missed up to a half of it, and one in ten between three quarters and all of it.
_SHARE_OF_REACH = 0.5
# Rows by which it is estimated, at most; pairs of them are compared.
_MOST_ROWS = 1000

# Fewer distinct rows than these say nothing about the dimension they come from.
_FEWEST_ROWS = 10


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
        super().__init__(
            bandwidth,
            sigma,
            metric=metric,
            background=background,
            base=base,
            noise=noise,
            node_rule=node_rule,
            n_nodes=n_nodes,
            n_levels=n_levels,
            n_steps=n_steps,
            solver=solver,
            terminal=terminal,
            terminal_scale=terminal_scale,
            device=device,
            dtype=dtype,
            random_state=random_state,
            tolerance=tolerance,
            memory_limit=memory_limit,
            n_jobs=n_jobs,
            shards=shards,
        )
        self.manifold = manifold
        self.n_components = n_components
        self.n_cells = n_cells
        self.push = push

    def _reduced_kernel(
        self, points: np.ndarray, weights: np.ndarray, hull: AffineHull
    ) -> tuple[ReducedKernel, AffineHull, dict[str, Any]]:
        push = check_choice("push", self.push, PUSHES)
        manifold = self._given_manifold(points, weights)
        is_plain = isinstance(self.metric, str) and self.metric in ("auto", "euclidean")
        is_power = isinstance(self.metric, numbers.Real) or (
            isinstance(self.metric, str) and self.metric == "whitened"
        )
        if manifold is None and self.manifold == "pca" and is_power:
            raise ValueError(
                f"metric={self.metric!r} changes the variances that manifold='pca' goes by; use "
                "metric='scaled' or 'euclidean', or manifold='local'."
            )
        if manifold is not None and not is_plain:
            raise ValueError(
                f"metric={self.metric!r} cannot be combined with a given manifold, which lies in the "
                "coordinates of X; use metric='euclidean'."
            )
        if manifold is None and self.manifold == "local":
            kernel, learned = self._learned(points, weights, hull)
            return kernel, hull, learned
        if manifold is None:
            manifold = self._principal_subspace(points, weights)
        if isinstance(manifold, AffineSubspace):
            return _along_subspace(manifold, hull), hull, {"manifold_": manifold}
        check_idempotent(manifold, points)
        if not isinstance(manifold.project(torch.from_numpy(points[:1])), torch.Tensor):
            raise TypeError(
                f"manifold={manifold!r} answers tensors by other types; expected tensors from its "
                "methods where tensors go in. Subclass skdiffsmooth.manifolds.Manifold's "
                "implementations, or write its methods in torch."
            )
        # What a curved manifold does outside the hull of the data moves queries within it.
        hull = hull.joined(getattr(manifold, "affine_hull", None))
        inside = differentiable(within(manifold, hull), hull.split(points)[0])
        shape = ManifoldShape(inside, push, _usable_reach(inside, manifold, points))
        return shape, hull, {"manifold_": manifold}

    def _candidate_metrics(self, points: np.ndarray) -> tuple[Metric, ...]:
        # Log-densities along a known manifold take long, where there are any: nothing is compared.
        if not isinstance(self.manifold, str):
            return ()
        # Principal axes are those of the columns as they are; whitened rows have none.
        return ("euclidean",) if self.manifold == "pca" else candidate_metrics(points)

    def _check_scales(
        self,
        kernel: ReducedKernel,
        coordinates: np.ndarray,
        bandwidth: float,
        scales: np.ndarray,
    ) -> None:
        if not isinstance(kernel, ManifoldShape) or not scales.any():
            return
        reach, fading = kernel.reach, fading_distance(kernel.manifold, kernel.reach)
        if reach is None or fading is None:
            return
        if fading < _SHORTEST_REACH * bandwidth:
            raise ValueError(
                f"manifold={self.manifold!r} has the reach {reach:.3g}, too small for the bandwidth "
                f"{bandwidth:.3g}: its nearest points are not unique at the noise that is left. Lower "
                "the bandwidth, use a manifold that bends less and does not come near itself (a learned "
                "one: more n_neighbors), or a PointCloud to sample only."
            )
        beyond = distance_in_span(kernel.manifold, torch.from_numpy(coordinates)) > fading / 2
        if 2 * int(beyond.sum()) > len(coordinates):
            warn_user(
                f"{int(beyond.sum())} of {len(coordinates)} distinct rows are farther from the manifold "
                f"than {fading / 2:.3g}, where smoothing along it fades. Check that manifold and rows "
                "are in the same units and place."
            )
        if scales.max() > _WIDEST_SCALE * fading:
            warn_user(
                f"sigma={scales.max():.3g} is large against the manifold's reach {reach:.3g}: offsets "
                "go around it, and some log-densities may be off by nats. Lower sigma to "
                f"{_WIDEST_SCALE * fading:.3g}."
            )

    def _given_manifold(self, points: np.ndarray, weights: np.ndarray) -> Manifold | None:
        """Return the manifold that was given, None where one is to be found."""
        manifold = self.manifold
        if isinstance(manifold, LocalPolynomialManifold) and not hasattr(manifold, "n_components_"):
            return clone(manifold).fit(points, sample_weight=weights)
        if isinstance(manifold, str):
            hint = "Or pass an object of skdiffsmooth.manifolds."
            check_choice("manifold", manifold, ("local", "pca"), hint=hint)
            return None
        if isinstance(manifold, type) or not isinstance(manifold, Manifold):
            raise TypeError(
                f"manifold={manifold!r} has type {type(manifold).__name__}; expected 'local', 'pca' "
                "or an object of skdiffsmooth.manifolds."
            )
        if manifold.n_features != points.shape[1]:
            raise ValueError(
                f"manifold lies in R^{manifold.n_features} but X has {points.shape[1]} features; "
                "expected the same number."
            )
        return manifold

    def _learned(
        self, points: np.ndarray, weights: np.ndarray, hull: AffineHull
    ) -> tuple[ReducedKernel, dict[str, Any]]:
        """Find tangents of the data by local principal components."""
        if not resolve_shards(self.shards).alone:
            raise ValueError(
                f"manifold='local' cannot be learned with shards={self.shards!r}; pass "
                "manifold='pca', or a manifold that was fitted to a subsample."
            )
        n_cells = None
        if isinstance(self.n_cells, str):
            check_choice("n_cells", self.n_cells, ("auto",), hint="Or pass an integer.")
        else:
            n_cells = check_integer("n_cells", self.n_cells)
        if n_cells is not None and n_cells > len(points):
            raise ValueError(
                f"n_cells={n_cells} exceeds the number of distinct rows, {len(points)}; expected at "
                "most as many."
            )
        if isinstance(self.n_components, numbers.Real) and not isinstance(
            self.n_components, numbers.Integral
        ):
            raise TypeError(
                f"n_components={self.n_components!r} is a share of the variance, which "
                "manifold='pca' understands; manifold='local' wants an integer or 'auto'."
            )
        n_components = self._tangent_dimension(points, hull.dimension)
        coordinates, _ = hull.split(points)
        cells = Cells.of(coordinates, weights, n_components, n_cells)
        learned = {"cells_": cells, "n_components_": n_components}
        if n_components == hull.dimension:
            # The tangents are everything, in one cell: the isotropic kernel.
            return LinearShape(np.eye(hull.dimension)), learned
        return GatedShape(cells), learned

    def _tangent_dimension(self, points: np.ndarray, largest: int) -> int:
        """Return the dimension of the tangents to learn, at most that of the hull."""
        if not isinstance(self.n_components, str):
            # Data without extent have tangents of no dimension, whatever is asked for.
            return check_n_components(self.n_components, points, largest) if largest else 0
        check_choice("n_components", self.n_components, ("auto",), hint="Or pass an integer.")
        if len(points) < _FEWEST_ROWS or not largest:
            return largest
        try:
            return check_n_components("auto", points, largest)
        except ValueError as error:
            warn_user(
                f"n_components='auto': {error} The score is smoothed in all {largest} directions."
            )
            return largest

    def _principal_subspace(self, points: np.ndarray, weights: np.ndarray) -> AffineSubspace:
        """Find the affine span of the leading principal components."""
        shards = resolve_shards(self.shards)
        center = shards.total(weights @ points)
        scaled = np.sqrt(weights)[:, None] * (points - center)
        spread, directions = principal_axes(scaled, shards)
        limit = len(spread)
        requested = self.n_components
        if isinstance(requested, str):
            hint = "Or pass an integer, or a share of the variance."
            check_choice("n_components", requested, ("auto",), hint=hint)
            requested = _SHARE_OF_VARIANCE
        if isinstance(requested, numbers.Real) and not isinstance(requested, numbers.Integral):
            share = check_real("n_components", requested, hint="Or pass an integer.")
            if share >= 1:
                raise ValueError(
                    f"n_components={requested!r} is out of range; expected a share of the variance "
                    "in (0, 1), or an integer number of components."
                )
            reached = np.cumsum(spread**2)
            n_components = int(np.searchsorted(reached, share * reached[-1])) + 1
        else:
            n_components = check_integer("n_components", requested)
            if n_components > limit:
                raise ValueError(
                    f"n_components={n_components} exceeds min(number of distinct rows, number of "
                    f"features) = {limit}; expected an integer from 1 to {limit}."
                )
        return AffineSubspace.from_basis(center, directions[:n_components].T)


def _usable_reach(inside: Manifold, manifold: Manifold, points: np.ndarray) -> float | None:
    """Return the distance from a manifold up to which its projections can be relied on.

    Where it is not known it is estimated if log-densities are at stake; without a derivative there
    are none.
    """
    if manifold.reach is not None or not has_derivative(inside):
        return manifold.reach
    rows = points[:: math.ceil(len(points) / _MOST_ROWS)]
    return _SHARE_OF_REACH * estimate_reach(manifold, rows) if len(rows) >= 3 else math.inf


def _along_subspace(manifold: AffineSubspace, hull: AffineHull) -> LinearShape:
    """Return offsets P xi of a subspace, seen in hull coordinates: of covariance S there."""
    seen = hull.basis.T @ manifold.basis
    variances, axes = np.linalg.eigh(seen @ seen.T)
    kept = variances > hull.n_features * np.finfo(np.float64).eps
    roots = axes[:, kept] * np.sqrt(variances[kept])
    # Of all factors of S, which differ by a rotation of the nodes, the one whose upper block is
    # symmetric and positive. At full rank it is the symmetric root, hence the identity on data
    # that lie in the manifold: node by node the model is then that of the isotropic kernel.
    left, _, right = np.linalg.svd(roots[: roots.shape[1]].T)
    return LinearShape(roots @ left @ right)
