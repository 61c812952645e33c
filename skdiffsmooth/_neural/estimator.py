"""NeuralScoreDiffusion: a diffusion whose score is learned by a small neural network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from .._coordinates.embedding import Embedding
from .._coordinates.hull import AffineHull, principal_axes
from .._coordinates.metric import fit_metric
from .._diffusion.model import DiffusionModel
from .._diffusion.queries import FlowDensity
from .._diffusion.settings import terminal_scale_for
from .._utils.progress import reports_fit
from .._utils.rows import check_sample_weight, merge_duplicates
from .._utils.shards import ONE_PROCESS
from .._utils.threads import threads_for
from .._utils.validation import check_extent, check_flag
from .._utils.warnings import warn_user
from ..kernels._nodes import NodeRule
from ..noise import NoiseLevels
from ..solvers import Solver
from .network import NetworkShape
from .settings import ParsedParameters, parse_parameters
from .source import TrainedNetwork
from .training import Outcome, TrainingState, fresh_state, stream, train

# Terminal noise scale, in units of the data's widest standard deviation. At this scale the cumulant of
# order three is divided by 26^(3/2) = 130, and its contribution to the entropy by the square of that.
_TERMINAL = 5.0
# Standard deviations are raised to at least this fraction of the largest, which is rounding.
_ROUNDING = np.finfo(np.float64).eps
# Largest distance of rows from the hull of those that training began with, in units of their size.
_OUTSIDE = 1e-8


class NeuralScoreDiffusion(FlowDensity):
    """Density estimation and sampling by a diffusion whose score a small network has learned.

    The network is trained by denoising score matching. Its score defines the same flow as in the
    estimators with a score in closed form, which are the first choice for most tables and need no
    training. Use this estimator to compare with networks as they are trained in research, to study how
    a network smooths, or for many rows: the time of a query does not depend on the number of rows.

    Parameters
    ----------
    bandwidth : float, default=0.05
        Noise left at the end of the reverse process, sqrt(v_eps), in units of the metric: by default
        in standard deviations of a column. A value below the finest detail of the data gains nothing and
        loses accuracy.
    sigma : float, default=0.0
        Scale of Gaussian offsets that the network's score is averaged over, in units of the metric. 0
        leaves the score unsmoothed; with offsets an evaluation costs as much as `n_nodes` evaluations.
    hidden_layer_sizes : tuple of int, default=(128, 128)
        Widths of the hidden layers, of which there is at least one.
    n_frequencies : int, default=0
        Number of frequencies, 1.5, 3, 6, ... per standard deviation of the noised data, whose cosines
        and sines are added to each input. With them a network learns fine structure in few columns
        after far fewer iterations, and also memorises the rows earlier.
    metric : {"scaled", "euclidean", "whitened", "local"}, float or array-like of shape \
            (n_features, n_features), default="scaled"
        Linear coordinates in which noise is isotropic, and in whose units scales are. See
        `SmoothedScoreDiffusion`. The inputs of the network are standardised principal coordinates
        for any metric.
    max_iter : int, default=1000
        Largest number of iterations of `fit`. An iteration is a pass over the rows, or four batches if
        that is more.
    batch_size : int, default=1024
        Noised rows in a step. A batch may contain each of few rows several times, with new noise.
    learning_rate_init : float, default=3e-3
        Learning rate of Adam, which is constant; averaging the weights replaces a schedule.
    ema_decay : float, default=0.999
        Decay, per step, of the moving average of the weights. Queries use the average; with 0 it equals
        the last weights.
    early_stopping : bool, default=True
        Whether `fit` holds out rows, and keeps the weights with the lowest loss on them. Otherwise the
        last weights are kept, and the network memorises more the longer it is trained.
    validation_fraction : float, default=0.1
        Fraction of the distinct rows that is held out, at least one row.
    n_iter_no_change : int, default=100
        Iterations without an improvement by `tol` after which `fit` stops.
    tol : float, default=1e-4
        The smallest decrease of the loss, on held-out rows if there are any, that counts as an
        improvement. A Gaussian with the covariance of the data has a loss of 1.
    warm_start : bool, default=False
        Whether `fit` continues the training of the last call.
    n_nodes : int, default=64
        Number of offsets in each noise level if sigma > 0; even.
    n_levels : int, default=32
        Number of intervals of the noise range, each with its own offsets.
    n_steps : int, default=64
        Number of steps of the solver, rounded up to a multiple of `n_levels`.
    solver : {"heun", "euler", "adaptive", "euler-maruyama"} or Solver, default="heun"
        Solver of the flow's ODE or SDE; see `SmoothedScoreDiffusion`.
    terminal_scale : float or "auto", default="auto"
        Noise scale sqrt(v_T) at which the reverse process starts, in units of the metric. "auto" is five
        times the data's widest standard deviation, or 2 * bandwidth if that is larger.
    max_exact_dimension : int, default=32
        Largest dimension of the data's affine hull for which the divergence is computed exactly. For
        larger dimensions the divergence is estimated from probes.
    n_probes : int, default=16
        Number of probes, vectors of random signs from which the divergence is estimated (Hutchinson); at
        least two. They are drawn once, in `fit`, and are the same for all rows and steps, so that
        `sample` and `score_samples` have the same distribution.
    device : str, default="cpu"
        Where to compute, as torch names it ("cuda", "cuda:1").
    dtype : {"float64", "float32"}, default="float32"
        Precision of the computation. "float32" is as accurate as a trained network, and training
        takes 0.6 of the time.
    random_state : int, RandomState or None, default=None
        Seed of the initial weights, the held-out rows, the noise in training, nodes and probes, and of
        `sample` if its call passes none. With None, fits use a fixed seed, so that they are reproducible
        by default, and every call of `sample` makes new draws.
    memory_limit : float, default=1024
        Bound on temporaries of a query, in MiB.
    verbose : int, default=0
        1 reports the progress of calls, and the time that is left; see SmoothedScoreDiffusion.

    Attributes
    ----------
    coefs_ : list of ndarray of shape (n_in, n_out)
        Weights of each layer, averaged over the steps.
    intercepts_ : list of ndarray of shape (n_out,)
        Biases of each layer, averaged over the steps.
    n_iter_ : int
        Number of iterations in all calls.
    loss_curve_ : list of float
        Training loss of each iteration; 1 is that of a Gaussian with the covariance of the data.
    validation_scores_ : list of float
        Minus the loss on held-out rows after each iteration of `fit`; empty without early stopping.
    best_validation_score_ : float or None
        The highest score of the last `fit`, that of its initial weights included.
    training_ : TrainingState
        State from which `partial_fit` and `warm_start` continue the training.
    scales_ : ndarray of shape (r,)
        Standard deviations of the rows along their principal axes, in units of the metric.
    bandwidth_, sigma_ : float
        The scales used, in units of the metric.
    metric_ : str, float or ndarray
        The metric used.
    coordinates_ : LinearMetric
        Map from X to the coordinates of the metric, with its ``log_abs_det``.
    hull_ : AffineHull
        The affine hull of the rows, about their mean, in which the flow runs.
    noise_levels_ : NoiseLevels
        The noise range and its intervals.
    n_steps_ : int
        Number of steps of the solver; for an adaptive one, the smallest number.
    n_nodes_ : int
        Number of offsets in each noise level.
    n_frequencies_ : int
        Number of frequencies whose cosines and sines are added to each input.
    probes_ : ndarray of shape (n_probes, r) or None
        Probes of the divergence; None if it is computed exactly.
    seed_ : int
        The seed used.
    n_features_in_, feature_names_in_ : int, ndarray of shape (n_features,)
        Number of columns; their names, where X had them.

    See Also
    --------
    SmoothedScoreDiffusion : The same flow along a score in closed form; nothing to train.

    Notes
    -----
    The network is preconditioned: where its output is zero, the score is that of the Gaussian with the
    data's covariance. Training starts there, and `fit` with early stopping returns this Gaussian, with a
    warning, if it finds no lower loss. Noise scales are drawn uniformly in their logarithm, and all have
    the same weight in the loss.

    The flow starts from N(mean, C + v_T I), C the covariance of the rows. At five standard deviations of
    noise the distribution of the rows is nearly Gaussian (a cumulant of order k is divided by
    26^(k / 2)), so the model stores no rows. Orthogonally to their affine hull the model is a Gaussian
    with the bandwidth as standard deviation. There is no `energy`, since a network's score need not be
    a gradient. If there are few rows, the score also differs from the gradient of `score_samples`, which
    is the log-density at the end of the flow. Divergences are exact up to `max_exact_dimension`, and
    means over the probes above it.

    An evaluation costs some 20 000 multiply-adds a row (those of the layers), with the divergence r + 1
    times that in r dimensions, or `n_probes` times twice that; a log-density takes ``2 * n_steps_``
    evaluations.

    References
    ----------
    T. Karras, M. Aittala, T. Aila, S. Laine, Elucidating the Design Space of Diffusion-Based Generative
    Models, NeurIPS 2022, arXiv:2206.00364.

    P. Vincent, A Connection Between Score Matching and Denoising Autoencoders, Neural Computation 23,
    2011.

    M. F. Hutchinson, A stochastic estimator of the trace of the influence matrix for Laplacian smoothing
    splines, Communications in Statistics 19, 1990.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import make_moons
    >>> from skdiffsmooth import NeuralScoreDiffusion
    >>> X, _ = make_moons(500, noise=0.1, random_state=0)
    >>> model = NeuralScoreDiffusion(hidden_layer_sizes=(32,), max_iter=5, n_iter_no_change=5)
    >>> model = model.fit(X)
    >>> model.sample(3, random_state=0).shape
    (3, 2)
    >>> model.partial_fit(X).n_iter_
    6
    """

    def __init__(
        self,
        bandwidth: float = 0.05,
        sigma: float = 0.0,
        *,
        hidden_layer_sizes: tuple[int, ...] = (128, 128),
        n_frequencies: int = 0,
        metric: Any = "scaled",
        max_iter: int = 1000,
        batch_size: int = 1024,
        learning_rate_init: float = 3e-3,
        ema_decay: float = 0.999,
        early_stopping: bool = True,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 100,
        tol: float = 1e-4,
        warm_start: bool = False,
        n_nodes: int = 64,
        n_levels: int = 32,
        n_steps: int = 64,
        solver: str | Solver = "heun",
        terminal_scale: float | str = "auto",
        max_exact_dimension: int = 32,
        n_probes: int = 16,
        device: str = "cpu",
        dtype: str = "float32",
        random_state: Any = None,
        memory_limit: float = 1024,
        verbose: int = 0,
    ) -> None:
        self.bandwidth = bandwidth
        self.sigma = sigma
        self.hidden_layer_sizes = hidden_layer_sizes
        self.n_frequencies = n_frequencies
        self.metric = metric
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.ema_decay = ema_decay
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.n_nodes = n_nodes
        self.n_levels = n_levels
        self.n_steps = n_steps
        self.solver = solver
        self.terminal_scale = terminal_scale
        self.max_exact_dimension = max_exact_dimension
        self.n_probes = n_probes
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.memory_limit = memory_limit
        self.verbose = verbose

    # ------------------------------------------------------------------------------------ fitting

    @reports_fit
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> NeuralScoreDiffusion:
        """Train the network.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows. Rows that are equal, exactly or up to rounding, are merged.
        y : ignored
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; a row of weight k counts as k equal rows.

        Raises
        ------
        TypeError
            If a parameter has the wrong type.
        ValueError
            If X, the weights or a parameter is out of range, or if the loss becomes NaN or infinite; the
            estimator is then not changed.

        Warns
        -----
        ConvergenceWarning
            If the loss was still falling after `max_iter` iterations, or never fell.
        UserWarning
            If a KeyboardInterrupt ended the training; the estimator is then fitted with the weights
            that had been reached.
        """
        if check_flag("warm_start", self.warm_start) and hasattr(self, "training_"):
            return self._go_on(X, sample_weight, None)
        return self._begin(X, sample_weight, None)

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> NeuralScoreDiffusion:
        """Train for one more iteration, on all of the rows.

        No rows are held out, and the weights are those of this last iteration. Coordinates, noise range
        and the terminal distribution stay those of the first call; `sigma`, `n_nodes`, `n_levels`,
        `n_steps`, `solver` and `dtype` are used as they are now.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows: the same rows, or other rows of the same distribution.
        y : ignored
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights.

        Raises
        ------
        TypeError, ValueError
            As `fit`; and if the network's layers, the metric or the noise range were changed since the
            first call, or rows are outside the affine hull of the rows of that call.
        """
        if hasattr(self, "training_"):
            return self._go_on(X, sample_weight, 1)
        return self._begin(X, sample_weight, 1)

    def _begin(self, X: Any, sample_weight: Any, n_iterations: int | None) -> NeuralScoreDiffusion:
        """Train from the start, for `n_iterations` iterations or, if None, to convergence."""
        rows = self._check_training(X, sample_weight)
        points, weights = rows.points, rows.weights
        parsed = parse_parameters(self.get_params(deep=False), points.shape[1])
        start = self._started(parsed, points, weights)
        trained = self._trained(parsed, start, points, weights, n_iterations)
        self._set_fitted(X, **trained, model_=_model(trained, parsed))
        return self

    def _go_on(self, X: Any, sample_weight: Any, n_iterations: int | None) -> NeuralScoreDiffusion:
        """Continue training, for `n_iterations` iterations or, if None, to convergence."""
        # A fit in another thread replaces the state of `self`, not of this copy.
        old = self._snapshot()
        X = old._check_query(X)
        points, weights = merge_duplicates(X, check_sample_weight(sample_weight, len(X)))
        parsed = parse_parameters(old.get_params(deep=False), X.shape[1])
        old._check_unchanged(parsed)
        levels = old.noise_levels_
        start = vars(old) | _of_queries(old, levels.bandwidth, levels.terminal_scale)
        trained = old._trained(parsed, start, points, weights, n_iterations)
        self.__dict__ = trained | {"model_": _model(trained, parsed)}
        return self

    def _check_unchanged(self, parsed: ParsedParameters) -> None:
        """Raise an error if a parameter differs from the one for which the network was made."""
        hidden = tuple(len(bias) for bias in self.intercepts_[:-1])
        pairs: dict[str, tuple[Any, Any]] = {
            "bandwidth": (self.bandwidth_, parsed.bandwidth),
            "hidden_layer_sizes": (hidden, parsed.hidden),
            "n_frequencies": (self.n_frequencies_, parsed.n_frequencies),
            "metric": (self.metric_, parsed.metric),
        }
        if not isinstance(parsed.terminal_scale, str):
            pairs["terminal_scale"] = self.noise_levels_.terminal_scale, parsed.terminal_scale
        for name, (value, now) in pairs.items():
            if not np.array_equal(now, value):
                raise ValueError(
                    f"{name}={getattr(self, name)!r}, but training began with {value!r}, which the "
                    "network was made for; set this value again, or call fit with warm_start=False."
                )

    def _started(
        self, parsed: ParsedParameters, points: np.ndarray, weights: np.ndarray
    ) -> dict[str, Any]:
        """Return all fitted attributes as they are before the first step of training."""
        coordinates = fit_metric(parsed.metric, points, weights)
        measured = coordinates.to_metric(points)
        check_extent(measured, f"metric={parsed.metric!r}")
        hull, scales = _principal_hull(measured, weights)
        widest = float(scales.max(initial=0.0))
        terminal_scale = terminal_scale_for(
            parsed.terminal_scale, _TERMINAL * widest, parsed.bandwidth, 0.0, is_exact=False
        )
        r = len(scales)
        probes = None
        if r > self.max_exact_dimension:
            signs = stream(parsed.seed, "probes").integers(2, size=(self.n_probes, r))
            probes = 2.0 * signs - 1
        start: dict[str, Any] = {
            "metric_": parsed.metric,
            "coordinates_": coordinates,
            "hull_": hull,
            "scales_": scales,
            "bandwidth_": parsed.bandwidth,
            "n_frequencies_": parsed.n_frequencies,
            "probes_": probes,
            "seed_": parsed.seed,
            "loss_curve_": [],
            "validation_scores_": [],
            "best_validation_score_": None,
            "n_iter_": 0,
            **_of_queries(self, parsed.bandwidth, terminal_scale),
        }
        shape = _shape(start, parsed)
        state = fresh_state(shape, parsed.seed)
        return start | {"training_": state} | _weights(shape, state.average)

    def _trained(
        self,
        parsed: ParsedParameters,
        start: dict[str, Any],
        points: np.ndarray,
        weights: np.ndarray,
        n_iterations: int | None,
    ) -> dict[str, Any]:
        """Return all fitted attributes after `n_iterations` iterations or convergence."""
        embedding = Embedding(start["coordinates_"], start["hull_"])
        rows, residual = embedding.split(points)
        size = np.abs(embedding.metric.to_metric(points)).max() + start["bandwidth_"]
        if np.abs(residual).max() > _OUTSIDE * size:
            raise ValueError(
                f"X leaves the affine hull of the rows that training began with, by up to "
                f"{np.abs(residual).max():.2g} in units of the metric, and the network is defined "
                "in this hull only; call fit with warm_start=False on rows in all directions."
            )
        state: TrainingState = start["training_"]
        if not len(start["scales_"]):
            # The noised distribution of a single distinct row is a Gaussian: no training is needed.
            return start
        shape = _shape(start, parsed)
        settings, held_out = parsed.settings, None
        training = rows, weights
        if n_iterations is not None:
            settings = replace(settings, max_iter=n_iterations)
        elif parsed.held_out is not None and len(rows) > 1:
            order = stream(start["seed_"], "split").permutation(len(rows))
            n = min(math.ceil(parsed.held_out * len(rows)), len(rows) - 1)
            held_out = _some(rows, weights, order[:n])
            training = _some(rows, weights, order[n:])
        with threads_for(3 * settings.batch_size * _n_weights(start)):
            outcome = train(
                shape,
                state,
                _flat(start["coefs_"], start["intercepts_"]),
                training,
                held_out,
                settings,
                parsed.backend,
                start["seed_"],
            )
        if n_iterations is None:
            self._warn_of_training(outcome, state, held_out is not None)
        scores = [-loss for loss in outcome.held_out_losses]
        return (
            start
            | {
                "training_": outcome.state,
                "n_iter_": outcome.state.n_iterations,
                "loss_curve_": start["loss_curve_"] + outcome.losses,
                "validation_scores_": start["validation_scores_"] + scores,
                "best_validation_score_": None if held_out is None else -outcome.best_loss,
            }
            | _weights(shape, outcome.chosen)
        )

    def _sums_per_row(self) -> float:
        """See `DensityEstimatorMixin`; the divergence costs one evaluation for each dimension."""
        if "coefs_" not in vars(self):
            return 0.0
        return _n_weights(vars(self)) * (1 + len(self.scales_))

    def _warn_of_training(self, outcome: Outcome, before: TrainingState, is_held_out: bool) -> None:
        which = "held-out" if is_held_out else "training"
        if before.n_steps == 0 and not outcome.best_loss < outcome.start_loss:
            warn_user(
                f"training did not lower the {which} loss, which was {outcome.start_loss:.4g} at the "
                "Gaussian that it starts from. Lower learning_rate_init, or give it more rows; where "
                "the data are Gaussian there is nothing to learn.",
                ConvergenceWarning,
            )
        elif not outcome.has_converged:
            warn_user(
                f"the {which} loss was still falling after max_iter={self.max_iter} iterations (now "
                f"{outcome.best_loss:.4g}); raise max_iter, or go on with warm_start=True.",
                ConvergenceWarning,
            )

    def _noise_scale(self, t: Any) -> float:
        levels, scale = self.noise_levels_, super()._noise_scale(t)
        # The scale is the square root of a square, which may have a rounding error.
        if not levels.bandwidth * (1 - 1e-9) <= scale <= levels.terminal_scale * (1 + 1e-9):
            raise ValueError(
                f"t={t!r} is outside the noise variances that the network was trained for, "
                f"{levels.bandwidth**2:.6g} to {levels.terminal_scale**2:.6g} in squared units of the "
                "metric; fit with another bandwidth or terminal_scale."
            )
        return scale

    def _check_result(self, what: str, rows: np.ndarray) -> None:
        lost = np.isnan(rows).any(axis=1)
        if lost.any():
            raise ValueError(
                f"{lost.sum()} of {len(lost)} {what} are NaN: the learned score diverged along the "
                "flow. Fit again with a smaller learning_rate_init or with early_stopping=True."
            )


def _of_queries(
    estimator: NeuralScoreDiffusion, bandwidth: float, terminal_scale: float
) -> dict[str, Any]:
    """Return the fitted attributes that are used by queries and may differ from those of training."""
    n_levels = int(estimator.n_levels)
    return {
        "sigma_": float(estimator.sigma),
        "noise_levels_": NoiseLevels(bandwidth, terminal_scale, n_levels),
        "n_steps_": n_levels * math.ceil(estimator.n_steps / n_levels),
        "n_nodes_": int(estimator.n_nodes),
    }


def _shape(attributes: Mapping[str, Any], parsed: ParsedParameters) -> NetworkShape:
    """Return the shape of the network for fitted attributes."""
    levels, scales = attributes["noise_levels_"], attributes["scales_"]
    return NetworkShape(
        scales, levels.bandwidth, levels.terminal_scale, parsed.hidden, parsed.n_frequencies
    )


def _n_weights(attributes: Mapping[str, Any]) -> int:
    """Return the number of weights of the network's layers, without intercepts."""
    return sum(weight.size for weight in attributes["coefs_"])


def _model(attributes: dict[str, Any], parsed: ParsedParameters) -> DiffusionModel:
    """Return the `DiffusionModel` built from fitted attributes."""
    network = TrainedNetwork(
        attributes["noise_levels_"],
        attributes["scales_"],
        attributes["n_frequencies_"],
        attributes["coefs_"],
        attributes["intercepts_"],
        attributes["sigma_"],
        NodeRule("sobol", attributes["n_nodes_"], attributes["seed_"]),
        attributes["probes_"],
    )
    embedding = Embedding(attributes["coordinates_"], attributes["hull_"])
    steps = network.levels.equal_steps(attributes["n_steps_"])
    return DiffusionModel(network, embedding, parsed.solver, steps, parsed.dtype)


def _principal_hull(points: np.ndarray, weights: np.ndarray) -> tuple[AffineHull, np.ndarray]:
    """Return the affine hull, with the weighted mean as center and the principal axes as basis.

    Also return the standard deviations (r,) along these axes.
    """
    hull = AffineHull.of(points)
    within, _ = hull.split(points)
    mean = weights @ within
    singular_values, axes = principal_axes(np.sqrt(weights)[:, None] * (within - mean), ONE_PROCESS)
    scales = np.maximum(singular_values, _ROUNDING * singular_values.max(initial=0.0))
    return AffineHull(hull.lift(mean[None])[0], hull.basis @ axes.T), scales


def _weights(shape: NetworkShape, parameters: np.ndarray) -> dict[str, list[np.ndarray]]:
    """Return the weights and biases of each layer, as fitted attributes."""
    layers = shape.layers(torch.from_numpy(parameters))
    return {
        "coefs_": [weight.numpy().copy() for weight, _ in layers],
        "intercepts_": [bias.numpy().copy() for _, bias in layers],
    }


def _flat(coefs: list[np.ndarray], intercepts: list[np.ndarray]) -> np.ndarray:
    pairs = zip(coefs, intercepts, strict=True)
    return np.concatenate([part.ravel() for pair in pairs for part in pair])


def _some(rows: np.ndarray, weights: np.ndarray, chosen: np.ndarray) -> tuple[Any, Any]:
    """Return the `chosen` rows in their original order, with weights that sum to one."""
    chosen = np.sort(chosen)
    return rows[chosen], weights[chosen] / weights[chosen].sum()
