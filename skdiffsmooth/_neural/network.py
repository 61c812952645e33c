"""A small network as a score field: preconditioned, with the exact divergence of what it computes.

With s the data's standard deviations along the coordinates, c = (s^2 + v)^(-1/2) and y = sqrt(v),

    D(x; y) = c^2 s^2 x + c s y F(c x, y),        score(x, v) = (D - x) / v = c (s F / y - c x),

coordinate by coordinate (Karras et al. 2022, eq. 7, with a variance for each). Where F is zero that is
the score of the Gaussian with these variances, and F always has to learn numbers of size one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch

from .._utils.backend import Backend
from ..kernels._nodes import NodeRule
from ..scores import RowSelectable, ScoreField

__all__ = ["AveragedScore", "NetworkSchedule", "NetworkShape", "ScoreNetwork", "evaluate"]

Layers = list[tuple[torch.Tensor, torch.Tensor]]

# Cosines of the noise scale's place in its range: enough to tell its finest tenth apart.
_N_COSINES = 8
# Lowest frequency at which inputs of unit variance are looked at: a wave of four standard deviations.
_FREQUENCY = 1.5


@dataclass(frozen=True)
class NetworkShape:
    """All of a network but its weights.

    Parameters
    ----------
    scales : ndarray of shape (r,)
        Standard deviations of the data along the coordinates.
    lowest, highest : float
        Range of noise scales that it is made for.
    hidden_layer_sizes : tuple of int
        Widths of the hidden layers, one at least.
    n_frequencies : int
        Cosines and sines of each input, at 1.5, 3, 6, ...
    """

    scales: np.ndarray
    lowest: float
    highest: float
    hidden_layer_sizes: tuple[int, ...]
    n_frequencies: int

    @property
    def layer_sizes(self) -> list[tuple[int, int]]:
        """Numbers of inputs and outputs of each layer."""
        r = len(self.scales)
        sizes = [r * (1 + 2 * self.n_frequencies) + _N_COSINES, *self.hidden_layer_sizes, r]
        return list(pairwise(sizes))

    def initial(self, rng: np.random.Generator) -> np.ndarray:
        """Return all weights and biases in one vector; those of the last layer are zero.

        Parameters
        ----------
        rng : Generator
            Source of randomness.

        Returns
        -------
        ndarray of shape (n_parameters,)
        """
        parts: list[np.ndarray] = []
        for n_in, n_out in self.layer_sizes:
            # The first layer's inputs are few, and its features are to differ.
            gain = 1.0 if parts else 2.0
            parts += [
                gain * rng.standard_normal((n_in, n_out)) / math.sqrt(n_in),
                rng.uniform(-1, 1, n_out) if not parts else np.zeros(n_out),
            ]
        parts[-2] = np.zeros_like(parts[-2])
        return np.concatenate([part.ravel() for part in parts])

    def layers(self, parameters: torch.Tensor) -> Layers:
        """Return the weights and biases of each layer, as views of the vector that holds them all.

        Parameters
        ----------
        parameters : torch.Tensor of shape (n_parameters,)
            Weights and biases.

        Returns
        -------
        list of (torch.Tensor, torch.Tensor)
        """
        shapes = self.layer_sizes
        lengths = [length for n_in, n_out in shapes for length in (n_in * n_out, n_out)]
        parts = parameters.split(lengths)
        return [
            (weight.view(shape), bias)
            for weight, bias, shape in zip(parts[::2], parts[1::2], shapes, strict=True)
        ]

    def place(self, noise_scale: float) -> float:
        """Return where a noise scale lies in the range, from 0 to 1 in its logarithm.

        Parameters
        ----------
        noise_scale : float
            sqrt(v).

        Returns
        -------
        float
        """
        return math.log(noise_scale / self.lowest) / math.log(self.highest / self.lowest)

    def inputs(self, u: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        """Return what the first layer sees.

        Parameters
        ----------
        u : torch.Tensor of shape (n, r)
            Rows of unit variance, c x.
        place : torch.Tensor of shape (n, 1)
            Where their noise scales lie in the range.

        Returns
        -------
        torch.Tensor of shape (n, n_inputs)
        """
        waves = [wave(f * u) for f in self._frequencies for wave in (torch.cos, torch.sin)]
        k = torch.arange(1, _N_COSINES + 1, device=u.device, dtype=u.dtype)
        return torch.cat([u, *waves, torch.cos(math.pi * k * place)], dim=1)

    def pushed(self, u: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
        """Return how the inputs change along directions, but for those that depend on the noise only.

        Parameters
        ----------
        u : torch.Tensor of shape (n, r)
            Rows of unit variance.
        directions : torch.Tensor of shape (m, r) or (n, m, r)
            Directions in their space.

        Returns
        -------
        torch.Tensor of shape (n, m, n_inputs - 8)
        """
        slopes = [torch.ones_like(u)]
        for f in self._frequencies:
            slopes += [-f * torch.sin(f * u), f * torch.cos(f * u)]
        return torch.cat([slope[:, None] * directions for slope in slopes], dim=2)

    @property
    def _frequencies(self) -> list[float]:
        return [_FREQUENCY * 2.0**k for k in range(self.n_frequencies)]


def evaluate(layers: Layers, inputs: torch.Tensor) -> torch.Tensor:
    """Return F, the output of the network.

    Parameters
    ----------
    layers : list of (torch.Tensor, torch.Tensor)
        Weights (n_in, n_out) and biases (n_out,).
    inputs : torch.Tensor of shape (n, n_inputs)
        See `NetworkShape.inputs`.

    Returns
    -------
    torch.Tensor of shape (n, r)
    """
    *hidden, (weight, bias) = layers
    for each, shift in hidden:
        inputs = torch.nn.functional.silu(torch.addmm(shift, inputs, each))
    return torch.addmm(bias, inputs, weight)


@dataclass(frozen=True)
class ScoreNetwork:
    """The score that a network has learned, and its divergence.

    Parameters
    ----------
    shape : NetworkShape
        What it looks like.
    layers : list of (torch.Tensor, torch.Tensor)
        Its weights and biases.
    directions : torch.Tensor of shape (m, r) or (n, 1, r)
        Directions p with sum p p^T = I: the coordinate axes, for the exact divergence. Or one probe
        for each query, p p^T being I on average only (Hutchinson 1990).
    """

    shape: NetworkShape
    layers: Layers
    directions: torch.Tensor

    def __call__(self, x: torch.Tensor, v: float) -> torch.Tensor:
        """Return the score.

        Parameters
        ----------
        x : torch.Tensor of shape (n, r)
            Queries.
        v : float
            Noise variance.

        Returns
        -------
        torch.Tensor of shape (n, r)
        """
        c, gain = self._preconditioning(x, v)
        return c * (gain * evaluate(self.layers, self._inputs(c * x, v)) - c * x)

    def with_divergence(self, x: torch.Tensor, v: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the score and its divergence, the network's Jacobian times each direction.

        Directions are pushed through the layers beside the rows: no graph is kept.

        Parameters
        ----------
        x : torch.Tensor of shape (n, r)
            Queries.
        v : float
            Noise variance.

        Returns
        -------
        score : torch.Tensor of shape (n, r)
        divergence : torch.Tensor of shape (n,)
        """
        c, gain = self._preconditioning(x, v)
        u = c * x
        values, slopes = self._inputs(u, v), self.shape.pushed(u, c * self.directions)
        *hidden, (last, bias) = self.layers
        for weight, shift in hidden:
            before = torch.addmm(shift, values, weight)
            gate = torch.sigmoid(before)
            values = before * gate
            # What depends on the noise only has no slope, and is missing in those of the first layer.
            slopes = slopes @ weight[: slopes.shape[2]]
            slopes = slopes * (gate + values * (1 - gate))[:, None]
        score = c * (gain * torch.addmm(bias, values, last) - u)
        trace = (slopes * ((c * gain * self.directions) @ last.T)).sum((1, 2))
        return score, trace - c.square().sum()

    def rows(self, index: torch.Tensor) -> ScoreNetwork:
        """Return the field of some of the queries.

        Parameters
        ----------
        index : torch.Tensor of shape (m,)
            Which.

        Returns
        -------
        ScoreNetwork
        """
        if self.directions.dim() == 2:
            return self
        return replace(self, directions=self.directions[index])

    def _preconditioning(self, x: torch.Tensor, v: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return c and s / y."""
        scales = x.new_tensor(self.shape.scales)
        return (scales.square() + v).rsqrt(), scales / math.sqrt(v)

    def _inputs(self, u: torch.Tensor, v: float) -> torch.Tensor:
        place = u.new_full((len(u), 1), self.shape.place(math.sqrt(v)))
        return self.shape.inputs(u, place)


@dataclass(frozen=True)
class AveragedScore:
    """Any score field, averaged over a set of nodes one evaluation at a time.

    Parameters
    ----------
    field : ScoreField
        What is averaged; one with `rows`, as every query is asked about at all its nodes.
    offsets : torch.Tensor of shape (M, r)
        The nodes, of mean zero.
    weights : torch.Tensor of shape (M,)
        Positive, summing to one.
    """

    field: RowSelectable
    offsets: torch.Tensor
    weights: torch.Tensor

    def __call__(self, x: torch.Tensor, v: float) -> torch.Tensor:
        """Return the averaged score.

        Parameters
        ----------
        x : torch.Tensor of shape (n, r)
            Queries.
        v : float
            Noise variance.

        Returns
        -------
        torch.Tensor of shape (n, r)
        """
        field, shifted = self._shifted(x)
        return self._average(field(shifted, v), len(x))

    def with_divergence(self, x: torch.Tensor, v: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the averaged score and its divergence.

        Parameters
        ----------
        x : torch.Tensor of shape (n, r)
            Queries.
        v : float
            Noise variance.

        Returns
        -------
        score : torch.Tensor of shape (n, r)
        divergence : torch.Tensor of shape (n,)
        """
        field, shifted = self._shifted(x)
        score, divergence = field.with_divergence(shifted, v)
        return self._average(score, len(x)), self._average(divergence, len(x))

    def rows(self, index: torch.Tensor) -> AveragedScore:
        """Return the field of some of the queries.

        Parameters
        ----------
        index : torch.Tensor of shape (m,)
            Which.

        Returns
        -------
        AveragedScore
        """
        field = self.field.rows(index)
        assert isinstance(field, RowSelectable)
        return replace(self, field=field)

    def _shifted(self, x: torch.Tensor) -> tuple[ScoreField, torch.Tensor]:
        repeated = torch.arange(len(x), device=x.device).repeat_interleave(len(self.weights))
        return self.field.rows(repeated), (x[:, None] + self.offsets).reshape(-1, x.shape[1])

    def _average(self, values: torch.Tensor, n: int) -> torch.Tensor:
        by_node = values.view(n, len(self.weights), *values.shape[1:])
        return torch.tensordot(by_node, self.weights, dims=([1], [0]))


@dataclass(frozen=True)
class NetworkSchedule:
    """The same network in each noise level, smoothed there over nodes of the level's own.

    Parameters
    ----------
    network : ScoreNetwork
        The field.
    sigma : float
        Smoothing scale; 0 is the network as it is.
    rule : NodeRule
        How nodes are chosen.
    backend : Backend
        Where they go.
    """

    network: ScoreNetwork
    sigma: float
    rule: NodeRule
    backend: Backend

    def at(self, level: int) -> ScoreField:
        """Return the field of one noise level.

        Parameters
        ----------
        level : int
            Index of the level.

        Returns
        -------
        ScoreField
        """
        r = len(self.network.shape.scales)
        if self.sigma == 0 or r == 0:
            return self.network
        nodes, weights = self.rule.normal(r, level)
        tensor = self.backend.tensor
        return AveragedScore(self.network, tensor(self.sigma * nodes), tensor(weights))
