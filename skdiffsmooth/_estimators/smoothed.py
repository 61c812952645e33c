"""SmoothedScoreDiffusion: smoothing in the log domain, by a kernel that is the same everywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .._diffusion.estimator import BaseScoreDiffusion
from .._diffusion.settings import resolve_kernel
from ..kernels import Kernel
from ..kernels._choice import SameEverywhere
from ..noise import NoiseProcess
from ..solvers import Solver


class SmoothedScoreDiffusion(BaseScoreDiffusion):
    """Density estimation and sampling by a diffusion whose empirical score is smoothed.

    The score of the data plus Gaussian noise is known in closed form. A reverse diffusion that
    follows it down to noise level `bandwidth` is a Gaussian kernel density estimate. Averaging
    that score over Gaussian offsets of scale `sigma` averages the log-density, not the density:
    mass spreads along the data's manifold and not away from it.

    Three parameters matter: `bandwidth`, `sigma` and `metric`. By default all three are chosen by the
    model's own leave-one-out likelihood:

    >>> import numpy as np
    >>> from skdiffsmooth import SmoothedScoreDiffusion
    >>> X = np.random.RandomState(0).normal(size=(100, 2))
    >>> model = SmoothedScoreDiffusion().fit(X)
    >>> log_density, new_rows = model.score_samples(X), model.sample(10, random_state=0)

    ================  ===========================================================================
    scales            `bandwidth`, `sigma`, `metric`, `background`
    columns           `periods`
    kernel and base   `kernel`, `base`, `noise`
    accuracy          `tol`, `solver`, `n_steps`, `n_levels`, `n_nodes`, `node_rule`, `terminal`, \
`terminal_scale`
    machine           `random_state`, `device`, `dtype`, `memory_limit`, `n_jobs`, `shards`, `verbose`
    ================  ===========================================================================

    Parameters
    ----------
    bandwidth : float, str such as "0.85h", or {"auto", "loo"}, default="auto"
        Standard deviation of the noise left at the end of the reverse process, in units of the metric:
        the bandwidth of a KDE. A string such as "0.85h" is a multiple of h, the bandwidth at which the
        Gaussian KDE in the same metric has the highest leave-one-out likelihood; "loo" is h itself.
        "auto" maximises the model's own leave-one-out likelihood: together with `sigma` over six pairs
        of multiples of h, or where `sigma` is given, from 0.55 h to h (h where sigma is 0). If `base`
        is a Parzen density, h is the bandwidth of highest leave-one-out likelihood of that density, and
        "auto" is h for both scales. If it is a mixture, "auto" is 0.3 of the narrowest standard
        deviation of its components, and h is not defined.
    sigma : float, callable, str such as "1.5h", or "auto", default="auto"
        Smoothing scale: standard deviation of the offsets that the score is averaged over, in units of
        the metric (a factor, where the kernel has a covariance of its own). 0 is the Gaussian KDE (or
        the base) exactly. A string such as "1.5h" is a multiple of h, along the kernel's widest
        direction, so that one grid, ``["0h", "0.75h", "1.5h", "3h"]``, suits all data. "auto" is chosen
        together with `bandwidth`, or where that is given, from 0.5 h to 5 h; if `base` is a mixture it
        is twice the narrowest standard deviation, if a Parzen density h. On thin manifolds in many
        dimensions 3 h and more is often best. Choose it by held-out likelihood. A function of the noise
        scale sqrt(v), such as ``skdiffsmooth.kernels.ProportionalScale(0.5)``, is evaluated at the
        bandwidth and in the middle of each level.
    metric : {"auto", "euclidean", "scaled", "whitened", "local"}, float or array-like of shape \
            (n_features, n_features), default="auto"
        Coordinates in which noise and kernel are isotropic; all scales are in their units. "euclidean"
        is the columns of X unchanged, "scaled" divides each column by its standard deviation,
        "whitened" each principal component. A number alpha from 0 ("scaled") to 1 ("whitened") divides
        the scaled columns by the power alpha / 2 of their correlation matrix. "local" divides them by
        the square root of the local covariance, which is that of differences between rows and their
        neighbours: it suits curved and thin data. A matrix M sets the distance to sqrt((x - y)^T M (x -
        y)). "warped scaled", "warped whitened", "warped local" and "warped 0.5" (any power) first map
        each skewed or heavy-tailed column by a monotone function (``warp_``); densities are still those
        of the columns of X. "auto" chooses among five powers and "local", with and without maps where a
        column is skewed or heavy-tailed; its results do not depend on the units of columns. A number
        for `bandwidth` or `sigma` is taken in the units of each metric compared. If `bandwidth` and
        `sigma` are both numbers, "auto" is "euclidean", so that they are in units of X. Under all but
        "euclidean" and matrices, samples keep constant columns, copies and totals up to rounding (see
        Notes).
    background : float or "auto", default="auto"
        Weight of a wide kernel density estimate (of four bandwidths) and a multivariate t distribution
        that are mixed into the model: they give outliers and heavy tails a higher density, and bound
        the log-density of far rows (``tail_bound_``). "auto" is the weight of highest leave-one-out
        likelihood, at least 0.02, which lowers log-densities by up to 0.02 nats; it is 0 if `bandwidth`
        and `sigma` are both numbers.
    periods : mapping from column to float, or None, default=None
        Columns that are periodic, by label or index, with their periods in units of the column:
        ``{"hour": 24, "wind_direction": 360}``. Distances in such a column wrap, so that a whole period
        added to a value changes nothing, densities integrate to one over one period, and draws are from
        0 to the period. The metric scales such a column by its circular standard deviation and does not
        mix it with others. Use it for columns whose smallest and largest values are neighbours, such as
        the hours 0 and 23. Only isotropic kernels are allowed, and no `base`, `shards` or
        ``terminal="gaussian"``. See docs/guide/periodic.md.
    kernel : {"gaussian", "uniform-ball", "temperature"} or Kernel, default="gaussian"
        Distribution of the offsets that the score is averaged over; an object of `skdiffsmooth.kernels`
        for any other shape, such as ``AnisotropicGaussianKernel("data")``.
    base : {"points", "parzen"}, ManifoldParzen, mixture or list, default=None
        The distribution whose score is smoothed. None and "points": the training rows. "parzen", or a
        `skdiffsmooth.bases.ManifoldParzen`: a Gaussian at each row, as wide as the distances to its
        neighbours. A GaussianMixture or BayesianGaussianMixture of scikit-learn: if it is fitted it is
        used unchanged, and the time does not grow with the number of rows; if not, a copy of it is
        fitted to the rows (clones in a search are never fitted, except in a FrozenEstimator). A list of
        mixtures, or of (weight, mixture), is their mixture. At sigma = 0 the model is the base with
        bandwidth^2 I added to each covariance. See docs/guide/bases.md.
    noise : {"ve", "ou"} or NoiseProcess, default="ve"
        The forward process: variance exploding, or Ornstein-Uhlenbeck at the rate that keeps the data's
        largest variance. With the latter the data shrink while noise is added, so that a constant
        `sigma` is a growing scale in units of X. Scales of noise (`bandwidth`, `terminal_scale`) are
        relative to the data either way.
    tol : float or "auto", default="auto"
        Accuracy of log-densities, in nats: the largest root mean square error over rows, as estimated.
        It determines `n_nodes`, `n_levels` and `n_steps` where they are "auto" and, above 10 000
        distinct rows, how far points may be merged. ``error_`` is the error reached, and `fit` warns if
        it is above `tol`. "auto" limits only the error due to nodes, to 0.2 nats with at most 512
        nodes, and warns only where sigma is many bandwidths; errors of single rows are then 0.01 to
        0.06 on ordinary tables, and errors of means some thousandths. A smaller number takes more time:
        0.05 up to five times as much, 0.02 five to thirty times (docs/evidence/accuracy.md).
    solver : {"auto", "heun", "multistep", "adaptive", "euler", "euler-maruyama", \
            "predictor-corrector"} or Solver, default="auto"
        Solver of the flow's differential equation. "multistep" takes one evaluation of the score a
        step, "heun" two. "auto" is "multistep" if `n_steps` is "auto", `sigma` is at most four
        bandwidths and such steps are short enough for nearly all training rows, and "heun" otherwise.
        Where `n_steps` is "auto", rows for which these steps are too long are computed again, after
        "multistep" by "heun", and log-densities then by shorter steps, with a warning if the estimated
        error of a log-density is still above `tol` / 20 (0.01 nats by default). "adaptive" keeps the
        error of the steps below 0.4 `tol` for each row, and below 1e-3 nats if `tol` is "auto": it
        makes as many steps as this needs, at least `n_steps`; `skdiffsmooth.solvers.Adaptive` takes a
        tolerance of its own. "euler-maruyama" samples the reverse SDE and "predictor-corrector" adds
        Langevin steps to the flow; "euler" is DDIM's step. These three only sample: the density of
        their samples is not known, and `score_samples` raises an error.
    n_steps : int or "auto", default="auto"
        Number of steps of the solver, rounded up to a multiple of `n_levels`; ``n_steps_`` is the
        result. "auto" is 6 for each factor e between bandwidth and terminal scale, and at least 16 in
        all, if the isotropic Gaussian kernel acts on the training rows in 3 to 64 dimensions; otherwise
        8 and at least 32, with a Parzen base 16 and 32, with a mixture 32 and 64. Levels where sigma is
        more than five times the noise scale have more steps, up to 32 times as many and 256 in all. The
        error of mean log-densities is then below some thousandths of a nat where sigma is at most 20
        bandwidths; `fit` warns if the estimated error of nodes and steps exceeds 0.2 nats a row. A
        number holds for all rows: none is computed again with more steps.
    n_levels : int or "auto", default="auto"
        Number of intervals of the noise range, each with its own nodes. It is part of the model: with
        more levels the errors of finitely many nodes average out. "auto" is one level for each step of
        ``n_steps="auto"``, without the additional steps at large sigma (more levels where `tol` needs
        them); ``noise_levels_.n_levels`` is the result.
    n_nodes : int or "auto", default="auto"
        Number of nodes (offsets that the score is averaged over) in each noise level: an even number
        or, for "gauss-hermite", an upper limit (at least two an axis). Not used with an OffsetsKernel,
        which has its own offsets. Where nodes are frames (see `node_rule`) the number is rounded up to
        whole frames. "auto" starts at 64, or more where the kernel acts along more than 16 directions,
        and doubles up to 512 until the estimated error ``node_error_`` is below 0.2 nats, or up to 4096
        until it is below 0.7 `tol`.
    node_rule : {"sobol", "gauss-hermite"}, default="sobol"
        How the kernel's nodes are chosen in each noise level. "sobol": mirrored quasi-random nodes with
        the kernel's covariance; for the isotropic Gaussian kernel in r = 3 to 64 dimensions (3 to 10
        with a `base`) randomly rotated frames (2 r nodes at one radius on orthogonal axes, for several
        radii), with which divergences are computed from log-densities in a fraction of the time.
        "gauss-hermite": a grid, for one to three directions; accurate where noise is not much smaller
        than `sigma`.
    terminal : {"empirical", "gaussian"}, default="empirical"
        The distribution that the reverse process starts from: the data with noise, or a Gaussian about
        their mean, as in research code.
    terminal_scale : float or "auto", default="auto"
        Noise scale sqrt(v_T) at the start of the reverse process, in units of the metric. "auto" is the
        largest of 3 sigma (its value at the bandwidth, if it is a function), 2 bandwidth, and the
        smaller of 8 sigma and the data's widest standard deviation: with more noise the effect of
        smoothing is negligible. The scale is at least the data's standard deviation if `sigma` is a
        function, `noise` shrinks the data, or `terminal` is "gaussian".
    random_state : int, RandomState or None, default=None
        Seed of `sample` where its call passes none, and of the node sets. None draws anew at every call
        of `sample`, but takes a fixed seed for the nodes: they are quadrature points, and two fits to
        the same data should be the same model.
    device : str, default="cpu"
        Where to compute, as torch names it ("cuda", "cuda:1"); Apple's "mps" is refused. It can be
        set after `fit`.
    dtype : {"float64", "float32"}, default="float64"
        Precision of the computation; results are float64 arrays either way.
    memory_limit : float, default=1024
        Largest size of temporary arrays, in MiB, for each worker. It can be set after `fit`. A call also
        holds a form of the training rows that takes some 3.5 r + 10 numbers a row, with r coordinates.
    n_jobs : int or None, default=None
        Number of joblib workers that share the rows of `sample` and of log-densities. None is one,
        or that of a ``joblib.parallel_config``; -1 is all cores. One worker already uses several
        threads: this is for many rows, or for the machines of a cluster. It can be set after `fit`.
    shards : {"distributed"} or None, default=None
        None: all training rows are in this process. "distributed": each process of torch.distributed's
        default group, initialised before, fits rows of its own; then all processes make the same calls
        with the same arguments and all get the result of the whole data. Numbers are needed for
        `bandwidth` and `sigma`, an integer for the `random_state` of `sample`. See docs/guide/large.md.
    verbose : int, default=0
        1 reports the progress of calls, and the time that is left: as a bar of tqdm in terminals and
        notebooks where it is installed, or as lines of the logger "skdiffsmooth.progress". It can be
        set after `fit`.

    Attributes
    ----------
    model_ : DiffusionModel
        The fitted model, which no later call changes; the attributes below are read from it.
    bandwidth_ : float
        The bandwidth used, in units of the metric (of X where that is Euclidean).
    sigma_ : float or ndarray of shape (n_levels,)
        The smoothing scale used, in the same units; one for each level where `sigma` is a function.
    metric_ : str, float or ndarray
        The metric used.
    settings_ : dict
        `metric`, `bandwidth`, `sigma` and `background` as parameters: an estimator with these fits the
        same model without comparisons. Chosen scales are multiples of h, such as "0.85h", so that they
        also suit other data.
    not_compared_ : dict
        For each of these parameters that was "auto" and was not chosen by likelihood: the reason.
    periods_ : ndarray of shape (n_features,) or None
        Period of each column in units of X, 0 where it has none; None where no column has one.
    rounding_ : ndarray of shape (n_features,)
        Width of the interval of values that each column records as one value, in units of X: the unit
        of rounded columns and counts, half the difference of the values of a binary column, 0 for a
        continuous one. Where scales are chosen, left-out rows are first moved at random within these
        intervals.
    warp_ : ColumnWarp or None
        The maps of columns, by their indices, or None if the metric has no maps; print it to see them.
        A column x of center m and width s becomes arcsinh(u) + c u with u = (x - m) / s. Columns that
        are discrete or in exact relations are not mapped, nor are those of tables with fewer than 30
        rows or no more rows than columns.
    coordinates_ : LinearMetric
        Map from X to the coordinates of the metric, with its ``log_abs_det``; ``coordinates_.columns``
        has scales and relations of columns.
    background_ : float
        Weight of the background.
    tail_bound_ : TailBound or None
        Lower bound of log-densities; None without a background. For any rows, ``score_samples(X) >=
        -constant - (degrees + n_features) * log(1 + distances(X))``. Its attributes are `constant`, in
        nats, and `degrees`, the degrees of freedom of the t distribution; its method `distances`
        returns distances from the center in units of fitted scales (of mapped columns, if the metric
        maps some).
    kernel_ : Smoothing
        The smoothing kernel in coordinates of the hull. Where it has nodes, ``kernel_.nodes(level)``
        returns them.
    base_ : GaussianComponents or None
        The components of the base, in coordinates of the hull.
    noise_ : NoiseProcess
        The forward process used.
    solver_ : Solver
        The solver used.
    n_steps_ : int
        Number of steps of the solver; for an adaptive solver, the smallest number.
    n_nodes_ : int
        The number of nodes used.
    node_error_ : float
        Estimated error of a log-density due to the finite number of nodes, in nats: the root mean
        square difference, over some rows with noise, from the values with twice as many other nodes.
        With a base, whose components were fitted to the rows, rows are first moved at random, by about
        the distance to the nearest other row. Errors of different rows largely cancel in a mean, less
        so in many dimensions.
    error_ : float
        Estimated error of a log-density, in nats. It includes nodes, steps and merged points where
        `tol` is a number; nodes and steps where sigma is many bandwidths and `n_nodes` and `n_steps`
        are "auto"; otherwise it is ``node_error_``. NaN where log-densities cannot be computed.
    noise_levels_ : NoiseLevels
        The noise range and its intervals.
    terminal_ : {"empirical", "gaussian"}
        The terminal distribution used.
    points_ : ndarray of shape (n_points, n_features)
        Distinct training rows of positive weight; with `shards`, those of this process.
    weights_ : ndarray of shape (n_points,)
        Their weights; they sum to one, with `shards` over all processes.
    weight_sum_ : float
        Sum of the weights of all training rows; their number where no weights were passed.
    hull_ : AffineHull
        The affine hull of the points, in coordinates of the metric, in which the flow runs; the whole
        space where the base is a mixture, whose components fill it.
    hierarchy_ : PointHierarchy
        The points in coordinates of the hull, and the cells in which they are merged.
    n_features_in_, feature_names_in_ : int, ndarray of shape (n_features,)
        Number of columns; their names, where X had them.

    See Also
    --------
    KDESampler : Kernel density estimation, which equals this estimator at sigma = 0.
    ManifoldAdaptedDiffusion : Smoothing along given or learned directions only.

    Notes
    -----
    One evaluation of the field takes about ``2 * n_queries * n_nodes * n_points`` multiply-adds with
    the isotropic Gaussian kernel in 3 to 64 dimensions, whose divergence is a quadrature by Stein's
    identity over log-densities at the nodes, and otherwise ``(r + 2) * n_queries * n_nodes *
    n_points``, where r is the dimension of the data's affine hull, at most ``min(n_features, n_points -
    1)``. A log-density takes one ("multistep") or two ("heun") evaluations for each step.

    With default scales a fit compares four to seven candidates by the likelihood of 256 of at most 2000
    rows, with few nodes and steps, after six kernel density estimates: a tenth to one second of CPU
    time for 100 to 2000 rows. Evidence: docs/evidence/defaults.md. Pass ``**model.settings_`` for the
    same model without comparisons, or `metric_`, `bandwidth_`, `sigma_` and `background_` for the same
    in numbers.

    **Columns that depend on one another.** A direction of the scaled columns in which no row varies is
    an exact relation, such as a constant, a copy, or a total beside its parts, if there are more rows
    than the dimension of their hull plus one. In these directions the density is Gaussian with the
    width of rounding, 2^14 float64 steps at the largest value of a column, whatever the bandwidth is.
    So draws satisfy relations to rounding, and log-densities of rows that satisfy them are high by a
    constant: some 25 nats for each relation. Compare log-densities of models with the same relations
    only. With fewer rows, the bandwidth applies in directions in which no row varies, in scaled
    columns.

    In the Euclidean metric features should have comparable units: put a StandardScaler before. Where
    the covariance of the data differs between regions, a Gaussian mixture as `base` is often better.

    References
    ----------
    T. Farghly, P. Potaptchik, S. Howard, G. Deligiannidis, J. Pidstrigach, Diffusion Models and the
    Manifold Hypothesis: Log-Domain Smoothing is Geometry Adaptive, NeurIPS 2025, arXiv:2510.02305,
    eq. 5-7.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth import SmoothedScoreDiffusion
    >>> rng = np.random.RandomState(0)
    >>> angle = rng.uniform(0, 2 * np.pi, size=60)
    >>> X = np.column_stack([np.cos(angle), np.sin(angle)])
    >>> model = SmoothedScoreDiffusion(bandwidth=0.05, sigma=0.15).fit(X)
    >>> radius = np.linalg.norm(model.sample(200, random_state=0), axis=1)
    >>> bool(np.abs(np.median(radius) - 1) < 0.03)
    True
    >>> model.score_samples([[1.0, 0.0]]) > model.score_samples([[0.0, 0.0]])
    array([ True])
    """

    def __init__(
        self,
        bandwidth: float | str = "auto",
        sigma: float | str | Callable[[float], float] = "auto",
        *,
        metric: Any = "auto",
        background: float | str = "auto",
        periods: Mapping[Any, float] | None = None,
        kernel: str | Kernel = "gaussian",
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
        self.metric = metric
        self.background = background
        self.periods = periods
        self.kernel = kernel
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

    def _kernel_choice(self) -> SameEverywhere:
        return SameEverywhere(resolve_kernel(self.kernel))
