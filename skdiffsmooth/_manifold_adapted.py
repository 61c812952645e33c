"""ManifoldAdaptedDiffusion: smoothing in the log domain, along a manifold only."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any

import numpy as np

from ._diffusion import BaseScoreDiffusion
from ._hull import AffineHull, principal_axes
from ._shards import resolve_shards
from ._validation import check_integer, check_real
from .kernels import LinearShape, ReducedKernel
from .manifolds import AffineSubspace
from .noise import NoiseProcess
from .solvers import Solver

__all__ = ["ManifoldAdaptedDiffusion"]


class ManifoldAdaptedDiffusion(BaseScoreDiffusion):
    """Density estimation and sampling by a diffusion smoothed along a manifold.

    As SmoothedScoreDiffusion, with offsets that keep to the directions of a manifold. For now the
    manifold is an affine subspace, given or found by principal components; on data that lie in that
    subspace the two estimators are the same model (Prop. 3.1 of the paper).

    Parameters
    ----------
    bandwidth : float or {"auto", "loo"}, default="auto"
        Noise left at the end of the reverse process, in units of X; see SmoothedScoreDiffusion.
    sigma : float or "auto", default="auto"
        Smoothing scale along the manifold, in units of X. 0 gives the Gaussian KDE exactly.
    manifold : AffineSubspace or None, default=None
        The manifold, if it is known. None: the affine span of the leading principal components.
    n_components : int or float, default=0.95
        Dimension of that span: a number of components, or the share of the variance, in (0, 1),
        that they must reach. Not used when `manifold` is given.
    n_nodes : int or "auto", default="auto"
        Quadrature nodes of the kernel in each noise level, an even number. "auto" is 64, or more
        for manifolds of more than 16 dimensions.
    n_levels : int, default=32
        Intervals of the noise range, each with nodes of its own.
    n_steps : int, default=32
        Steps of the solver, rounded up to a multiple of `n_levels`.
    solver : {"heun", "euler", "euler-maruyama"} or Solver, default="heun"
        How the flow is followed; see SmoothedScoreDiffusion.
    terminal : {"empirical", "gaussian"}, default="empirical"
        What the reverse process starts from.
    terminal_scale : float or "auto", default="auto"
        Noise scale at the start of the reverse process, in units of X.
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
    manifold_ : AffineSubspace
        The manifold used.
    bandwidth_, sigma_ : float
        The scales used, in units of X.
    points_ : ndarray of shape (n_points, n_features)
        Distinct training rows of positive weight; with `shards`, those of this process.
    weights_ : ndarray of shape (n_points,)
        Their weights; they sum to one, with `shards` over all processes.
    hull_ : AffineHull
        The affine hull of the points, in which the flow runs.
    kernel_ : GaussianKernel
        The smoothing kernel.
    terminal_ : {"empirical", "gaussian"}
        The terminal law used.
    noise_levels_ : NoiseLevels
        The noise range and its intervals.
    n_steps_ : int
        Number of steps of the solver.
    hierarchy_ : PointHierarchy
        The points in coordinates of the hull, and how they merge at each noise level.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Column names, where X had them.

    See Also
    --------
    SmoothedScoreDiffusion : Smoothing in every direction alike.

    References
    ----------
    T. Farghly et al., Diffusion Models and the Manifold Hypothesis: Log-Domain Smoothing is Geometry
    Adaptive, NeurIPS 2025, arXiv:2510.02305, sec. 3 and 4.

    Examples
    --------
    Forty rows about a line in three dimensions, smoothed along the line:

    >>> import numpy as np
    >>> from skdiffsmooth import ManifoldAdaptedDiffusion
    >>> rng = np.random.RandomState(0)
    >>> X = rng.normal(size=(40, 1)) * [1.0, 1.0, 0.0] + 0.01 * rng.normal(size=(40, 3))
    >>> model = ManifoldAdaptedDiffusion(0.02, 0.3, n_components=1).fit(X)
    >>> model.manifold_
    <AffineSubspace of dimension 1 in R^3>
    >>> bool(model.manifold_.distance(model.sample(100, random_state=0)).mean() < 0.05)
    True
    """

    def __init__(
        self,
        bandwidth: float | str = "auto",
        sigma: float | str | Callable[[float], float] = "auto",
        *,
        noise: str | NoiseProcess = "ve",
        node_rule: str = "sobol",
        manifold: AffineSubspace | None = None,
        n_components: int | float = 0.95,
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

    def _reduced_kernel(
        self, points: np.ndarray, weights: np.ndarray, hull: AffineHull
    ) -> tuple[ReducedKernel, dict[str, Any]]:
        if self.manifold is None:
            manifold = self._principal_subspace(points, weights)
        else:
            manifold = self._check_manifold(points.shape[1])
        # Offsets P xi of the space, seen in hull coordinates, have covariance sigma^2 S.
        seen = hull.basis.T @ manifold.basis
        variances, axes = np.linalg.eigh(seen @ seen.T)
        kept = variances > hull.n_features * np.finfo(np.float64).eps
        roots = axes[:, kept] * np.sqrt(variances[kept])
        # Of all factors of S, which differ by a rotation of the nodes, the one whose upper block is
        # symmetric and positive. At full rank it is the symmetric root, hence the identity on data
        # that lie in the manifold: node by node the model is then that of the isotropic kernel.
        left, _, right = np.linalg.svd(roots[: roots.shape[1]].T)
        return LinearShape(roots @ left @ right), {"manifold_": manifold}

    def _check_manifold(self, n_features: int) -> AffineSubspace:
        manifold = self.manifold
        if not isinstance(manifold, AffineSubspace):
            raise TypeError(
                f"manifold={manifold!r} has type {type(manifold).__name__}; expected an "
                "AffineSubspace, or None for one found by principal components."
            )
        if manifold.n_features != n_features:
            raise ValueError(
                f"manifold lies in R^{manifold.n_features} but X has {n_features} features; expected "
                "the same number."
            )
        return manifold

    def _principal_subspace(self, points: np.ndarray, weights: np.ndarray) -> AffineSubspace:
        """Find the affine span of the leading principal components."""
        shards = resolve_shards(self.shards)
        center = shards.total(weights @ points)
        scaled = np.sqrt(weights)[:, None] * (points - center)
        spread, directions = principal_axes(scaled, shards)
        limit = len(spread)
        requested = self.n_components
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
