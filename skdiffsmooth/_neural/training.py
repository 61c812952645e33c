"""Training of a score network by denoising score matching over weighted rows.

A row x_0 is noised, x = x_0 + y z, at a scale y drawn uniformly in log y. The network F is fitted by
least squares to the value for which the denoised row D of the module `network` is x_0,
(x_0 y / s - s z) / sqrt(s^2 + y^2) (Vincent 2011; in the parametrisation of Karras et al. 2022, eq. 8).
The Gaussian that training starts from has a loss of one at each scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from .._utils.backend import Backend
from .._utils.draws import invert_cumulated
from .._utils.progress import tracked
from .._utils.warnings import warn_user
from .network import NetworkShape, evaluate

# An iteration is one pass over the rows, or this many batches if that is more, in which rows are noised
# several times.
_MIN_BATCHES = 4
# The held-out loss is a mean over at least this many noised rows.
_MIN_HELD_OUT = 1024

# Decay rates, and the constant added to the denominator of a step (Kingma & Ba 2015, alg. 1).
_BETA_1, _BETA_2, _FLOOR = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class TrainingSettings:
    """Parameters of the training, named as in the estimator (`learning_rate`: learning_rate_init)."""

    max_iter: int
    batch_size: int
    learning_rate: float
    ema_decay: float
    tol: float
    n_iter_no_change: int


@dataclass(frozen=True)
class TrainingState:
    """The state from which the next iteration of training starts."""

    parameters: np.ndarray  # (n_parameters,): weights and biases after the last step
    average: np.ndarray  # (n_parameters,): their exponential moving average over the steps
    # first_moment, second_moment (n_parameters,): moving averages of the gradient and of its square
    first_moment: np.ndarray
    second_moment: np.ndarray
    # n_steps, n_iterations: numbers of steps and iterations so far
    n_steps: int = 0
    n_iterations: int = 0


@dataclass(frozen=True)
class Outcome:
    """The result of training for some iterations."""

    state: TrainingState  # The state after the last iteration
    # (n_parameters,): averaged weights of the lowest held-out loss, or the last if no rows are held out
    chosen: np.ndarray
    losses: list[float]  # Mean training loss of each iteration
    # Loss of the averaged weights on held-out rows, if there are any, after each iteration
    held_out_losses: list[float]
    # start_loss, best_loss: the held-out loss (the training loss if no rows are held out) at the
    # start, and its minimum
    start_loss: float
    best_loss: float
    has_converged: bool  # Whether the loss has stopped decreasing


@dataclass(frozen=True)
class _Noised:
    """A batch of noised rows: inputs (n, n_inputs) of the network, and target outputs (n, r)."""

    inputs: torch.Tensor
    target: torch.Tensor

    def loss(self, shape: NetworkShape, parameters: torch.Tensor) -> torch.Tensor:
        """Return the mean squared error of the network."""
        return (evaluate(shape.layers(parameters), self.inputs) - self.target).square().mean()


def stream(seed: int, purpose: str, iteration: int = 0) -> np.random.Generator:
    """Return the random generator for one purpose and iteration, independent of earlier draws."""
    purposes = ("weights", "split", "held out", "probes", "noise")
    return np.random.default_rng([seed, purposes.index(purpose), iteration])


def fresh_state(shape: NetworkShape, seed: int) -> TrainingState:
    """Return the state before the first step."""
    initial = shape.initial(stream(seed, "weights"))
    zeros = np.zeros_like(initial)
    return TrainingState(initial, initial, zeros, zeros)


def train(
    shape: NetworkShape,
    state: TrainingState,
    chosen: np.ndarray,
    rows: tuple[np.ndarray, np.ndarray],
    held_out: tuple[np.ndarray, np.ndarray] | None,
    settings: TrainingSettings,
    backend: Backend,
    seed: int,
) -> Outcome:
    """Train until the loss stops decreasing, at most `settings.max_iter` iterations.

    - `state`: state to start from.
    - `chosen` (n_parameters,): averaged weights of the best iteration so far.
    - `rows` (n, r) and (n,): training rows in the network's coordinates, and their weights, which
      sum to one.
    - `held_out`: rows and weights whose loss selects the best iteration; with None the last is used.
    - `settings`: parameters of the training.
    - `seed`: seed of rows and noise.

    Raises ValueError if the loss is not finite.

    Warns if a KeyboardInterrupt ended the training; the result up to then is returned.
    """
    optimizer = _Adam(shape, state, backend, settings)
    watched = None
    best, best_loss = chosen, math.inf
    if held_out is not None:
        n = max(1, math.ceil(_MIN_HELD_OUT / len(held_out[0]))) * len(held_out[0])
        (watched,) = _noised(shape, *held_out, 1, n, stream(seed, "held out"), backend)
        best_loss = watched.loss(shape, backend.tensor(chosen)).item()
    start_loss = reference = best_loss
    losses: list[float] = []
    held_out_losses: list[float] = []
    n_since, has_converged = 0, False
    n_batches = max(_MIN_BATCHES, math.ceil(len(rows[0]) / settings.batch_size))
    last = state
    try:
        for _ in tracked(range(settings.max_iter), "iteration"):
            rng = stream(seed, "noise", last.n_iterations)
            batches = _noised(shape, *rows, n_batches, settings.batch_size, rng, backend)
            if not math.isfinite(start_loss):
                start_loss = batches[0].loss(shape, optimizer.parameters).item()
            loss = float(torch.stack([optimizer.step(batch) for batch in batches]).mean())
            watched_loss = loss
            if watched is not None:
                watched_loss = watched.loss(shape, optimizer.average).item()
            if not math.isfinite(loss + watched_loss):
                raise ValueError(
                    f"the loss of iteration {last.n_iterations + 1} is {loss}: training diverged with "
                    f"learning_rate_init={settings.learning_rate!r}; pass a smaller one."
                )
            last = replace(optimizer.state(), n_iterations=last.n_iterations + 1)
            losses.append(loss)
            if watched is not None:
                held_out_losses.append(watched_loss)
            if watched is None or watched_loss < best_loss:
                best = last.average
            best_loss = min(best_loss, watched_loss)
            # The loss is compared with that at the last improvement, so that small decreases add up to
            # an improvement.
            n_since += 1
            if watched_loss < reference - settings.tol:
                n_since, reference = 0, watched_loss
            if n_since >= settings.n_iter_no_change:
                has_converged = True
                break
    except KeyboardInterrupt:
        warn_user(
            f"training was interrupted after {last.n_iterations} iterations; the network trained so "
            "far is kept. Fit again with warm_start=True to continue."
        )
        has_converged = True
    return Outcome(last, best, losses, held_out_losses, start_loss, best_loss, has_converged)


class _Adam:
    """The Adam optimiser (Kingma & Ba 2015, alg. 1), with a moving average of the weights."""

    def __init__(
        self,
        shape: NetworkShape,
        state: TrainingState,
        backend: Backend,
        settings: TrainingSettings,
    ) -> None:
        self.shape, self.backend, self.settings = shape, backend, settings
        self.parameters = backend.tensor(state.parameters)
        self.average = backend.tensor(state.average)
        self.first = backend.tensor(state.first_moment)
        self.second = backend.tensor(state.second_moment)
        self.n_steps = state.n_steps

    def state(self) -> TrainingState:
        """Return the state of the optimiser as arrays, without the number of iterations."""
        array = self.backend.array
        return TrainingState(
            array(self.parameters),
            array(self.average),
            array(self.first),
            array(self.second),
            self.n_steps,
        )

    def step(self, batch: _Noised) -> torch.Tensor:
        """Make one step and return the loss before it."""
        parameters = self.parameters.detach().requires_grad_()
        with torch.enable_grad():
            loss = batch.loss(self.shape, parameters)
            (gradient,) = torch.autograd.grad(loss, parameters)
        n = self.n_steps = self.n_steps + 1
        self.first = _BETA_1 * self.first + (1 - _BETA_1) * gradient
        self.second = _BETA_2 * self.second + (1 - _BETA_2) * gradient.square()
        scale = (self.second / (1 - _BETA_2**n)).sqrt() + _FLOOR
        move = self.first / (1 - _BETA_1**n) / scale
        self.parameters = self.parameters - self.settings.learning_rate * move
        # A shorter average at the start forgets the initial weights sooner.
        decay = min(self.settings.ema_decay, (1 + n) / (10 + n))
        self.average = decay * self.average + (1 - decay) * self.parameters
        return loss.detach()


def _noised(
    shape: NetworkShape,
    points: np.ndarray,
    weights: np.ndarray,
    n_batches: int,
    batch_size: int,
    rng: np.random.Generator,
    backend: Backend,
) -> list[_Noised]:
    """Return batches of noised rows, drawn in numpy so that they are the same on every device."""
    n = n_batches * batch_size
    # Equal steps through the cumulated weights: each row occurs n times its weight, rounded up or
    # down.
    steps = (np.arange(n) + rng.uniform()) / n
    rows = rng.permutation(invert_cumulated(np.cumsum(weights), steps))
    # Every batch has one noise scale from each of `batch_size` equal parts of the range.
    parts = rng.permuted(np.tile(np.arange(batch_size), (n_batches, 1)), axis=1)
    position = (parts + rng.uniform(size=parts.shape)).reshape(n, 1) / batch_size
    y = shape.lowest * (shape.highest / shape.lowest) ** position
    x, z, s = points[rows], rng.standard_normal((n, points.shape[1])), shape.scales
    c = 1 / np.sqrt(s**2 + y**2)
    u = backend.tensor(c * (x + y * z)).split(batch_size)
    target = backend.tensor(c * (x * (y / s) - s * z)).split(batch_size)
    positions = backend.tensor(position).split(batch_size)
    return [
        _Noised(shape.inputs(rows_u, at), expected)
        for rows_u, at, expected in zip(u, positions, target, strict=True)
    ]
