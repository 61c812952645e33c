"""LocalScoreDiffusion: the score of each column is computed from its own group of columns."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from .._diffusion.model import DiffusionModel
from .._diffusion.queries import FlowDensity
from .._utils.estimator import on_one_fit
from .._utils.rows import split_off_copies
from .._utils.threads import threads_for
from .._utils.units import common_unit
from .._utils.warnings import warn_user
from ..bandwidth import warn_of_copies
from ..solvers import Solver
from .local_choice import N_FOLDS, covariances_by_fold
from .local_fitting import LocalParameters, columns_as_they_are, fit_local_scores
from .local_groups import resolve_groups, resolve_shifts
from .local_source import LocalScores

__all__ = ["LocalScoreDiffusion"]

_STEPS_A_LEVEL = 2


class LocalScoreDiffusion(FlowDensity):
    """Diffusion in which the score of each column depends on a group of columns only, such as a patch.

    For rows whose columns have positions: images, series, spectra. The score of a pixel is computed from
    the patch around it only, and each patch weights the training rows by its own similarity to them, so
    that new images combine patches of different training images. There is no training, and log-densities
    are exact up to the solver's error. For tables, whose columns have no positions, use
    `SmoothedScoreDiffusion`, which is better there (docs/evidence/local.md has the figures).

    By default the size of the groups of columns, the denoisers of each noise level and their weights
    are those with the smallest denoising error on left-out rows; the bandwidth has the highest
    leave-one-out likelihood:

    >>> import numpy as np
    >>> from skdiffsmooth import LocalScoreDiffusion
    >>> rng = np.random.RandomState(0)
    >>> X = rng.normal(size=(60, 9)) + np.repeat(rng.normal(size=(60, 3)), 3, axis=1)
    >>> model = LocalScoreDiffusion(image_shape=(3, 3)).fit(X)
    >>> log_density, new_rows = model.score_samples(X), model.sample(10, random_state=0)

    ================  ===========================================================================
    scales            `bandwidth`, `sigma`, `width`, `background`
    groups            `groups`, `image_shape`, `size`, `shifts`
    accuracy          `terminal`, `terminal_scale`, `n_levels`, `n_steps`, `n_nodes`, `solver`
    machine           `random_state`, `device`, `dtype`, `memory_limit`
    ================  ===========================================================================

    Parameters
    ----------
    bandwidth : float or "auto", default="auto"
        Standard deviation of the noise left at the end of the reverse process, in units of X. "auto"
        has the highest leave-one-out likelihood. It is at most 0.7 and at least 0.001 of the root mean
        square of the columns' standard deviations, and above the noise levels where the denoisers
        remove less than 1 % of the noise.
    sigma : float, default=0.0
        Standard deviation of Gaussian offsets that the local score is averaged over, in units of X. 0:
        no average. An average takes `n_nodes` times as long. In most cases `width` smooths as well, at
        no cost.
    groups : {"auto", "patches", "windows", "covariance"} or list of lists of int, default="auto"
        The columns from which the score of each column is computed. "patches": the square of `size`
        pixels about each pixel, with all its channels, cut at the border of the image. "windows": the
        `size` columns about each column of a series. "covariance": the `size` columns with the largest
        entries in the row of the Wiener filter C (C + v I)^-1, C the covariance of the rows. A list of
        groups of column indices: the group of a column is the union of those that contain it. "auto" is
        "patches" where `image_shape` is given, else "covariance".
    image_shape : tuple of int, default=None
        (height, width) of images, or (height, width, channels), whose pixels are the columns, row by
        row; for patches only.
    size : int or "auto", default="auto"
        Side of patches, width of windows, or number of correlated columns, the same at all noise
        levels; not with a list of groups. "auto" compares sizes in each noise level, the size of all
        columns included.
    shifts : int, default=0
        0 compares the patch around a pixel with the patches at the same position in the training
        images. 1 also compares it with the patches up to one pixel away, each with 0.3 of the weight,
        in the denoisers whose error this lowers; it requires `image_shape`, which is (1, n_features)
        for series. Edges are repeated beyond the border. 1 suits images whose strokes vary in position:
        held-out digits gain 4 nats, at 14 x 14 pixels 16; scores and `fit` take about six times as
        long. Most of `fit` is the search of the bandwidth, where rows are not merged since one is left
        out: pass a number to save this time. The (2 shifts + 1)^2 copies of the images take 3.2 times
        their size, outside `memory_limit`. The largest value is the longer side of the images less one,
        at which patches of all positions are compared.
    width : float or "auto", default="auto"
        Covariance of a Gaussian at each training row, as a multiple of the covariance of the data; 0:
        no Gaussians, the rows themselves. "auto" compares 0, 0.05 and 0.2, and mixes the best denoisers
        with the Wiener filter, which is the denoiser of a Gaussian with the data's covariance. With a
        number for `width` there is no Wiener filter.
    background : float, default=0.001
        Weight of a wide Gaussian in each group of columns; its standard deviation is three times the
        root mean square of those of the columns. A pixel that is bright but was dark in all training
        images lowers the log-density of an image by some ten nats; without a background, by hundreds.
    terminal : {"gaussian", "empirical"}, default="gaussian"
        The distribution that the reverse process starts from: the Gaussian with the mean and covariance
        of the training rows with noise, or these rows themselves. With "empirical", one group of all
        columns, width=0, background=0 and sigma=0 the model is the Gaussian kernel density estimate.
    terminal_scale : float or "auto", default="auto"
        Noise scale at which the reverse process starts, in units of X. "auto" is four times the root
        mean square of the columns' standard deviations, and at least twice the widest standard
        deviation along any direction.
    n_levels : int or "auto", default="auto"
        Number of intervals of the noise range, each with groups, weights and offsets of its own. With
        ``bandwidth="auto"`` it is the number between the lowest bandwidth that is compared and the
        terminal scale; only levels above the chosen bandwidth are kept (``noise_levels_.n_levels``).
        "auto" is 3.5 for each factor e in the noise range.
    n_steps : int or "auto", default="auto"
        Number of steps of the solver, rounded up to a multiple of the number of levels. "auto" is two
        for each level.
    n_nodes : int or "auto", default="auto"
        Number of offsets in each noise level, even; used if sigma > 0. "auto" is 64, or more in more
        than 16 dimensions.
    solver : {"heun", "euler", "adaptive", "euler-maruyama", "predictor-corrector"} or Solver, \
            default="heun"
        Solver of the flow's differential equation; see `SmoothedScoreDiffusion`.
    random_state : int, RandomState or None, default=None
        Seed of the noise of the comparisons, of the offsets, and of `sample` where its call passes
        none. With None `fit` uses a fixed seed, and `sample` draws anew at every call.
    device : str, default="cpu"
        Where to compute, as torch names it ("cuda", "cuda:1", "mps"). It can be set after `fit`.
    dtype : {"float64", "float32"}, default="float64"
        Precision of the computation (see Notes); results are float64 arrays either way.
    memory_limit : float, default=1024
        Largest size of temporary arrays, in MiB. It can be set after `fit`.

    Attributes
    ----------
    model_ : DiffusionModel
        The fitted model, which no later call changes.
    bandwidth_, sigma_ : float
        The scales used, in units of X.
    metric_ : str
        "euclidean".
    groups_ : str
        The kind of groups used; "given" for a list.
    parts_ : list of list of dict
        For each noise level, from the bandwidth up, its denoisers: `size` (number of columns in the
        largest group), `width`, `shifts` and `weight`. For the Wiener filter all but the weight are
        None.
    denoising_errors_ : ndarray of shape (n_levels,)
        Mean squared error of each level's mixture of denoisers on left-out rows, in columns that vary,
        divided by the variance of the noise; NaN if there is only one row.
    noise_levels_ : NoiseLevels
        The noise range and its intervals.
    n_steps_ : int
        Number of steps of the solver.
    points_ : ndarray of shape (n_points, n_features)
        Distinct training rows, in lexicographic order.
    weights_ : ndarray of shape (n_points,)
        Their weights.
    seed_ : int
        The seed used.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features,)
        Column names, where X had them.

    See Also
    --------
    SmoothedScoreDiffusion : The same weights of the rows for all columns; for tables.
    skdiffsmooth.compose.TransformedDensity : Maps of single columns before this model.

    Notes
    -----
    With groups c_p the score of column p is that of a mixture of Gaussians in the columns c_p. Together
    these scores are not a gradient, but their divergence has a closed form, so log-densities can be
    computed. Denoised rows are ``x + t * grad_log_density(x, t)``.

    Columns should have the same unit, since distances in a group are Euclidean. The density of a
    constant column is a Gaussian with the bandwidth as its standard deviation. Add uniform noise of one
    unit to integer images first, since a bandwidth below one unit makes a peak at each integer; the
    mean log-density is then a lower bound of that of the integers.

    An evaluation takes ``n_samples * n_points`` exponentials for each distinct group of each denoiser:
    one group for each column or, at the size of all columns, a single one. From 256 rows on,
    evaluations are in single precision where the noise level allows it, and rows are merged in groups
    of one column; errors of log-densities are some thousandths of a nat.

    References
    ----------
    M. Kamb, S. Ganguli, An Analytic Theory of Creativity in Convolutional Diffusion Models,
    arXiv:2412.20292.

    M. Niedoba, B. Zwartsenberg, K. Murphy, F. Wood, Towards a Mechanistic Explanation of Diffusion Model
    Generalization, arXiv:2411.19339.

    D. Guo, S. Shamai, S. Verdu, Mutual Information and Minimum Mean-Square Error in Gaussian Channels,
    IEEE Transactions on Information Theory 51, 2005.

    Examples
    --------
    >>> model.parts_[0][0].keys()
    dict_keys(['size', 'width', 'shifts', 'weight'])
    >>> bool(model.score(X) > LocalScoreDiffusion(size=1, width=0.0).fit(X).score(X))
    True
    """

    def __init__(
        self,
        bandwidth: float | str = "auto",
        sigma: float = 0.0,
        *,
        groups: Any = "auto",
        image_shape: tuple[int, ...] | None = None,
        size: int | str = "auto",
        shifts: int = 0,
        width: float | str = "auto",
        background: float = 0.001,
        terminal: str = "gaussian",
        terminal_scale: float | str = "auto",
        n_levels: int | str = "auto",
        n_steps: int | str = "auto",
        n_nodes: int | str = "auto",
        solver: str | Solver = "heun",
        random_state: Any = None,
        device: str = "cpu",
        dtype: str = "float64",
        memory_limit: float = 1024,
    ) -> None:
        self.bandwidth = bandwidth
        self.sigma = sigma
        self.groups = groups
        self.image_shape = image_shape
        self.size = size
        self.shifts = shifts
        self.width = width
        self.background = background
        self.terminal = terminal
        self.terminal_scale = terminal_scale
        self.n_levels = n_levels
        self.n_steps = n_steps
        self.n_nodes = n_nodes
        self.solver = solver
        self.random_state = random_state
        self.device = device
        self.dtype = dtype
        self.memory_limit = memory_limit

    # ------------------------------------------------------------------------------------ fitting

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> LocalScoreDiffusion:
        """Store the training rows, and choose the denoisers of each noise level and the bandwidth.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows. Rows that are equal, exactly or up to rounding, are merged.
        y : object, default=None
            Ignored; there for scikit-learn's calling convention.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; a row of weight k counts as k equal rows.

        Returns
        -------
        self : LocalScoreDiffusion
            The fitted estimator.

        Raises
        ------
        TypeError
            If a parameter has the wrong type.
        ValueError
            If X, the weights or a parameter is out of range, or `groups` or `image_shape` does not fit
            the columns; the estimator is then left as it was.

        Warns
        -----
        UserWarning
            If rows were merged, columns were recorded in steps wider than the bandwidth, the lowest of
            the compared bandwidths has the highest likelihood, or a bandwidth that is passed makes
            draws near-copies of training rows.

        Notes
        -----
        Denoisers are compared on at most 256 rows and 24 columns in each noise level; bandwidths by the
        leave-one-out likelihood of 128 rows.
        """
        shape = tuple(getattr(X, "shape", ()))
        if len(shape) > 2:
            raise ValueError(
                f"X has the shape {shape}; expected (n_samples, n_features). Pass "
                f"X.reshape(len(X), -1), and image_shape={shape[1:]}."
            )
        rows = self._check_training(X, sample_weight)
        d = rows.points.shape[1]
        center, unit = rows.weights @ rows.points, common_unit(rows.points)
        points, widths = (rows.points - center) / unit, rows.precision.width / unit
        covariance = (points * rows.weights[:, None]).T @ points
        family = resolve_groups(self.groups, self.image_shape, self.size, d, covariance)
        images = resolve_shifts(self.shifts, self.image_shape, center / unit)
        parsed = LocalParameters.of(self.get_params(deep=False), unit)
        with threads_for(len(points) ** 2 * d):
            source, errors = fit_local_scores(
                points, rows.weights, covariance, widths, family, images, parsed
            )
        levels = source.levels.times(unit)
        _warn_of_steps(rows.precision.width, levels.bandwidth)
        parts = [mixture.described() for mixture in source.mixtures]
        # Smaller groups combine columns of several rows, which are near-copies of none.
        narrow = [part for part in parts[0] if part["size"] == d and part["width"] == 0]
        if parsed.bandwidth is not None and sum(part["weight"] for part in narrow) > 0.5:
            warn_of_copies(
                f"bandwidth={self.bandwidth!r} with sigma={self.sigma!r} and groups of all columns",
                math.hypot(source.levels.bandwidth, source.sigma) * math.sqrt(d),
                points,
                rows.weights,
            )
        embedding = columns_as_they_are(points, rows.weights, center / unit, unit)
        n_steps = parsed.n_steps or _STEPS_A_LEVEL * levels.n_levels
        steps = levels.equal_steps(n_steps)
        self._set_fitted(
            X,
            model_=DiffusionModel(source, embedding, parsed.solver, steps, self.dtype),
            bandwidth_=levels.bandwidth,
            metric_="euclidean",
            sigma_=unit * source.sigma,
            groups_=family.name,
            parts_=parts,
            denoising_errors_=errors,
            noise_levels_=levels,
            n_steps_=n_steps,
            points_=rows.points,
            weights_=rows.weights,
            seed_=parsed.seed,
        )
        return self

    # ------------------------------------------------------------------------------------ queries

    @on_one_fit
    def leave_one_out_log_density(self, own_weights: Any = None) -> np.ndarray:
        """Return the log-density of each training point under the model without that point.

        Denoisers and bandwidth are those of the fit. The covariance is computed from the four fifths of
        the points that are in other folds.

        Parameters
        ----------
        own_weights : array-like of shape (n_points,), default=None
            The part of each point's weight that is removed when the point is left out, in the units of
            ``weights_``. None removes all of it.

        Returns
        -------
        ndarray of shape (n_points,)
            In nats, in the order of ``points_``.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        ValueError
            If there is a single distinct row or `own_weights` is out of range, and as `score_samples`
            raises.
        """
        check_is_fitted(self)
        own, model = self._check_others(own_weights), self.model_
        source = model.source
        assert isinstance(source, LocalScores)
        split = source
        if own is not None:
            points, weights = split_off_copies(source.points, source.weights, own)
            split = replace(source, points=points, weights=weights)
        exclude = np.arange(len(self.points_))
        log_density = np.empty(len(exclude))
        folds = covariances_by_fold(source.points, source.weights, exclude % N_FOLDS, exclude)
        for taken, covariance in folds:
            of_fold = replace(split, covariance=covariance)
            log_density[taken] = replace(model, source=of_fold).excluded_log_density(
                self.points_[taken], taken, self._resources()
            )
        return log_density

    def _sums_per_row(self) -> float:
        """See `DensityEstimatorMixin`."""
        if "points_" not in vars(self):
            return 0.0
        source = self.model_.source
        assert isinstance(source, LocalScores)
        n_nodes = source.rule.n_nodes if source.sigma else 1
        n_copies = source.images.n_copies if source.images else 1
        return float(source.points.size * n_copies * n_nodes * max(map(len, self.parts_)))


def _warn_of_steps(widths: np.ndarray, bandwidth: float) -> None:
    """Warn if the recorded values of columns are in steps, `widths` (d,), wider than the bandwidth."""
    coarse = int(np.sum(widths > bandwidth))
    if coarse:
        warn_user(
            f"{coarse} of {len(widths)} columns of X were recorded in steps of up to "
            f"{widths.max():.3g}, wider than the bandwidth {bandwidth:.3g}: the density has a peak at "
            "each recorded value. Add uniform noise of one step before fit (integer images: "
            "rng.uniform(size=X.shape)), or pass a larger bandwidth."
        )
