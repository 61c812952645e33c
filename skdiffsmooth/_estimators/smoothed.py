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
        Noise left at the end of the reverse process, sqrt(v_eps), in units of the metric: what a KDE
        calls bandwidth. A string such as "0.85h" is a multiple of h, the Gaussian KDE's bandwidth of
        highest leave-one-out likelihood in the same metric, and "loo" is h itself. "auto" is chosen by
        the model's own leave-one-out likelihood: with `sigma`, from six pairs of multiples of h, or
        given `sigma`, from 0.55 h to h (h where sigma is 0). Over windows (see `base`) h is the
        bandwidth of highest leave-one-out likelihood of the windows, and "auto" is h for both
        scales; over a mixture "auto" is 0.3 of the narrowest standard deviation of its components,
        and there is no h.
    sigma : float, callable, str such as "1.5h", or "auto", default="auto"
        Smoothing scale, in units of the metric (of the kernel's own shape, where that has units). 0
        is the Gaussian KDE (or the base) exactly. A string such as "1.5h" is a multiple of h, along the
        kernel's widest direction: one grid, ``["0h", "0.75h", "1.5h", "3h"]``, suits all data. "auto" is
        chosen with `bandwidth`, or given it, from 0.5 h to 5 h; over a mixture it is twice its
        narrowest standard deviation, over windows h. On thin manifolds in many dimensions 3 h and more
        is often best. Choose it by held-out likelihood. A function of the noise scale sqrt(v), such as
        ``skdiffsmooth.kernels.ProportionalScale(0.5)``, is evaluated at the bandwidth and in the
        middle of each level.
    metric : {"auto", "euclidean", "scaled", "whitened", "local"}, float or array-like of shape \
            (n_features, n_features), default="auto"
        Coordinates in which noise and kernel are isotropic; all scales are in its units. "euclidean"
        takes the columns as they are, "scaled" in standard deviations, "whitened" in those of the
        principal axes. A number alpha from 0 ("scaled") to 1 ("whitened") divides the scaled columns by
        the power alpha / 2 of their correlation matrix. "local" does so by the root of the local
        covariance, that of rows about their neighbours: it suits curved and thin data. A matrix M
        measures sqrt((x - y)^T M (x - y)). "warped scaled", "warped whitened", "warped local" and
        "warped 0.5" (any power) first map each skewed or heavy-tailed column by a monotone function
        (``warp_``): densities remain those of the columns of X. "auto" chooses among five powers and
        "local", with and without maps where a column needs one; results do not depend on the units of
        columns. A number for `bandwidth` or `sigma` is taken in the units of each metric compared. If
        `bandwidth` and `sigma` are both numbers, "auto" is "euclidean", so that they are in units of X.
        Under all but "euclidean" and matrices, constant columns, copies and totals are drawn to rounding
        (see Notes).
    background : float or "auto", default="auto"
        Weight of a wide kernel density estimate (of four bandwidths) and a multivariate t
        distribution that are mixed to the model: they give outliers and heavy tails a higher
        density, and bound the log-density of far rows (``tail_bound_``). "auto" is the weight of
        highest leave-one-out likelihood, at least 0.02, which lowers log-densities by up to 0.02
        nats; it is 0 if `bandwidth` and `sigma` are both numbers.
    periods : mapping from column to float, or None, default=None
        Columns that are periodic, by label or index, with their periods in units of the column:
        ``{"hour": 24, "wind_direction": 360}``. Distances in such a column wrap, so that a whole period
        added to a value changes nothing, densities integrate to one over one period, and draws are from
        0 to the period. The metric scales such a column by its circular standard deviation and does not
        mix it with others. Choose it wherever the ends of a range are neighbours. It takes isotropic
        kernels only, and no `base`, `shards` or ``terminal="gaussian"``. See docs/guide/periodic.md.
    kernel : {"gaussian", "uniform-ball", "temperature"} or Kernel, default="gaussian"
        Distribution of the offsets that the score is averaged over; an object of `skdiffsmooth.kernels`
        for any other shape, such as ``AnisotropicGaussianKernel("data")``.
    base : {"points", "parzen"}, ManifoldParzen, mixture or list, default=None
        The distribution whose score is smoothed. None and "points": the training rows. "parzen", or a
        `skdiffsmooth.bases.ManifoldParzen`: a Gaussian at each row, as wide as the distances to its
        neighbours. A GaussianMixture or BayesianGaussianMixture of scikit-learn: if it is fitted it
        is used unchanged, and the time does not grow with the number of rows; if not, a copy of it
        is fitted to the rows (clones in a search are never fitted, except in a FrozenEstimator). A
        list of mixtures, or of (weight, mixture), is their mixture. At sigma = 0 the model is the
        base, each covariance plus bandwidth^2. See docs/guide/bases.md.
    noise : {"ve", "ou"} or NoiseProcess, default="ve"
        The forward process: variance exploding, or Ornstein-Uhlenbeck at the rate that keeps the data's
        largest variance. With the latter the data shrink while noise is added, so that the same
        `sigma` grows in units of X. Scales of noise (`bandwidth`, `terminal_scale`) are relative to
        the data either way.
    tol : float or "auto", default="auto"
        Accuracy of log-densities, in nats: the estimated root mean square error over rows, from which
        nodes, levels and steps follow where they are "auto", and how far points may be merged where
        there are more than 10 000 distinct rows. ``error_`` is what is reached, and `fit` warns where
        that is more. "auto" requires 0.2 of the nodes alone, up to 512 of them, and does not warn;
        errors are then 0.01 to 0.06 on ordinary tables, and some thousandths in means. A smaller number
        takes more time: 0.05 up to five times as much, 0.02 five to thirty times
        (docs/evidence/accuracy.md).
    solver : {"auto", "heun", "multistep", "adaptive", "euler", "euler-maruyama", \
            "predictor-corrector"} or Solver, default="auto"
        How the flow is followed. "multistep" takes one evaluation a step, "heun" two. "auto" is
        "multistep" if `n_steps` is "auto", `sigma` is at most four bandwidths and such steps are short
        enough for nearly all training rows, and "heun" otherwise. Where `n_steps` is "auto", rows for
        which the steps of these two are too long are followed again, those of "multistep" by "heun",
        and log-densities then by shorter steps, with a warning where the estimated error of one
        remains above `tol` / 20 (0.01 nats by default). "adaptive" keeps the error of each row, for
        given nodes, below 0.4 `tol`, and below 1e-3 nats if that is "auto": it makes as many steps as
        this needs, at least `n_steps`; `skdiffsmooth.solvers.Adaptive` takes a tolerance of its own.
        "euler-maruyama" samples the reverse SDE and
        "predictor-corrector" adds Langevin steps to the flow; "euler" is DDIM's step. They sample only:
        the density of what they sample is not known, and `score_samples` raises.
    n_steps : int or "auto", default="auto"
        Steps of the solver, rounded up to a multiple of `n_levels`; ``n_steps_`` is the result. "auto"
        is 6 for each factor e between bandwidth and terminal scale, and at least 16, with the
        isotropic Gaussian kernel over rows in 3 to 64 dimensions; otherwise 8 and at
        least 32, over windows 16 and 32, over a mixture 32 and 64. Levels where sigma is more than five
        noise scales have more, up to 32 times as many and 256 in all. That keeps the error of means
        below some thousandths of a nat where sigma is at most 20 bandwidths; `fit` warns where nodes
        and steps together do not suffice for 0.2 nats a row. A number is used unchanged for all rows.
    n_levels : int or "auto", default="auto"
        Intervals of the noise range, each with its own nodes. They are part of the model: with more
        levels the errors of finitely many nodes average out. "auto" is as for `n_steps` (more where
        `tol` needs them), and ``noise_levels_.n_levels`` the result.
    n_nodes : int or "auto", default="auto"
        Nodes in each noise level: an even number or, for "gauss-hermite", a bound (two an axis at
        least); not used by an OffsetsKernel, which has its own. Where nodes are frames (see
        `node_rule`) the number is rounded up to whole frames. "auto" starts at 64, or more where the
        kernel acts along more than 16 directions, and doubles up to 512 until the estimated error
        ``node_error_`` is below 0.2 nats, or up to 4096 until it is below 0.7 `tol`.
    node_rule : {"sobol", "gauss-hermite"}, default="sobol"
        How the kernel's nodes are chosen in each noise level. "sobol": mirrored quasi-random nodes
        with the kernel's covariance; for the isotropic Gaussian kernel in r = 3 to 64 dimensions (over
        a base, 10) randomly rotated frames, of 2 r nodes for each of several radii, with which
        divergences follow from log-densities in a fraction of the time. "gauss-hermite": a grid, for
        one to three directions; good while noise is not small against `sigma`.
    terminal : {"empirical", "gaussian"}, default="empirical"
        The distribution that the reverse process starts from: the noised data, or a Gaussian about
        their mean, as in research code.
    terminal_scale : float or "auto", default="auto"
        Noise scale sqrt(v_T) at the start of the reverse process, in units of the metric. "auto" is the
        largest of 3 sigma (at the bandwidth, where it is a function), 2 bandwidth, and the data's
        widest standard deviation or, if that is less, 8 sigma: more noise makes the effect of the
        smoothing negligible. It is never less than the data's standard deviation where `sigma` is a
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
        Bound on temporaries, in MiB, of each worker. It can be set after `fit`. Beside them a call holds
        the training rows in a form of its own: some 3.5 r + 10 numbers for each, of r coordinates.
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
        `metric`, `bandwidth`, `sigma` and `background` as parameters: an estimator with these chooses
        nothing and is the same model. Scales that were chosen are multiples of h, such as "0.85h", and
        suit other data.
    not_compared_ : dict
        For each of these parameters that was "auto" and was not chosen by likelihood: the reason.
    periods_ : ndarray of shape (n_features,) or None
        Period of each column in units of X, 0 where it has none; None where no column has one.
    rounding_ : ndarray of shape (n_features,)
        How far apart values of each column are that were recorded as one, in units of X: the unit of
        rounded columns and counts, half the difference of two values, 0 where a column is continuous.
        Scales that are not given are chosen with left-out rows within such a distance of theirs.
    warp_ : ColumnWarp or None
        The maps of columns, by their indices, if the metric has some: print it to see them. A column x
        of center m and width s becomes arcsinh(u) + c u with u = (x - m) / s. Columns that are discrete
        or in exact relations have none, nor have tables with fewer than 30 rows or no more rows than
        columns.
    coordinates_ : LinearMetric
        Map from X to the coordinates of the metric, with its log |det|; ``coordinates_.columns`` has
        scales and relations of columns.
    background_ : float
        Weight of the background.
    tail_bound_ : TailBound or None
        Lower bound of log-densities where there is a background. For any rows, ``score_samples(X) >=
        -constant - (degrees + n_features) * log(1 + distances(X))``, with its attributes `constant` in
        nats and `degrees`, the degrees of freedom of the t distribution, and its method `distances`,
        from the center in units of fitted scales, of mapped columns where the metric maps some.
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
        Number of steps of the solver; of an adaptive one, the fewest.
    n_nodes_ : int
        The number of nodes used.
    node_error_ : float
        Estimate of how far finitely many nodes change the log-density of a row: the root mean square
        over some noised rows, in nats, against twice as many other nodes. Over a base, whose components
        were fitted to the rows, rows are first moved at random, by about the distance to the nearest
        other row. Errors of different rows largely cancel in a mean, less so in many dimensions.
    error_ : float
        The same with the errors of steps and of merged points where `tol` is a number, with that of
        steps where sigma is many bandwidths and `n_nodes` and `n_steps` are "auto", otherwise that of
        the nodes. NaN where log-densities cannot be computed.
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
    KDESampler : Smoothing in the data domain; what this becomes at sigma = 0.
    ManifoldAdaptedDiffusion : Smoothing along given or learned directions only.

    Notes
    -----
    One evaluation of the field takes about ``2 * n_queries * n_nodes * n_points`` multiply-adds with
    the isotropic Gaussian kernel in 3 to 64 dimensions, whose divergence is a quadrature by Stein's
    identity over log-densities at the nodes, and otherwise ``(r + 2) * n_queries * n_nodes *
    n_points``, r the dimension of the data's affine hull, at most ``min(n_features, n_points - 1)``; a
    likelihood takes two for each step.

    With default scales a fit compares four to seven candidates by the likelihood of 256 of at most 2000
    rows, with few nodes and steps, after six kernel density estimates: a tenth to one second of CPU
    time for 100 to 2000 rows. Evidence: docs/evidence/defaults.md. Pass ``**model.settings_`` for the
    same model without comparisons, or `metric_`, `bandwidth_`, `sigma_` and `background_` for the same
    in numbers.

    **Columns that depend on one another.** In scaled columns, directions that the rows could span but
    never use (more rows than the dimension of their hull plus one) are exact relations: constants,
    copies, totals beside their parts. Along them the density is Gaussian with the width of rounding,
    2^14 float64 steps at the largest value of a column, whatever the bandwidth is. So draws satisfy
    relations to rounding, and log-densities of rows that satisfy them are high by a constant: some 25
    nats for each relation. They are comparable between models with the same relations. Where few rows
    leave directions open, the bandwidth applies there, in scaled columns.

    In the Euclidean metric features should have comparable units: put a StandardScaler before. Where the
    shape of the noise should change from place to place, a Gaussian mixture is often better: see `base`.

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
