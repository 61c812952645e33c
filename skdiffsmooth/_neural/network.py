"""A small preconditioned network as a score field, with its exact divergence.

With the standard deviations s of the data along the coordinates, c = (s^2 + v)^(-1/2) and y = sqrt(v),

    D(x; y) = c^2 s^2 x + c s y F(c x, y),        score(x, v) = (D - x) / v = c (s F / y - c x),

where products are by coordinate (Karras et al. 2022, eq. 7, with one variance for each coordinate) and
F is the output of the network. If F is zero, this is the score of the Gaussian with these variances;
the values that F has to learn are of size one at every noise variance v.
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

Layers = list[tuple[torch.Tensor, torch.Tensor]]

# Number of inputs that are cosines of the position of the noise scale in its range: enough to resolve a
# tenth of the range.
_N_COSINES = 8
# Lowest frequency of the cosines and sines of inputs of unit variance; the wavelength is four of their
# standard deviations.
_FREQUENCY = 1.5


@dataclass(frozen=True)
class NetworkShape:
    """The architecture of a network, without its weights."""

    scales: np.ndarray  # (r,): standard deviations of the data along the coordinates
    # lowest, highest: range of noise scales of the training
    lowest: float
    highest: float
    hidden_layer_sizes: tuple[int, ...]  # Widths of the hidden layers, at least one
    n_frequencies: int  # Number of frequencies 1.5, 3, 6, ... of cosines and sines of each input.

    @property
    def layer_sizes(self) -> list[tuple[int, int]]:
        """Numbers of inputs and outputs of each layer."""
        r = len(self.scales)
        sizes = [r * (1 + 2 * self.n_frequencies) + _N_COSINES, *self.hidden_layer_sizes, r]
        return list(pairwise(sizes))

    def initial(self, rng: np.random.Generator) -> np.ndarray:
        """Return random weights and biases (n_parameters,); those of the last layer are zero."""
        parts: list[np.ndarray] = []
        for n_in, n_out in self.layer_sizes:
            # In the first layer a larger gain and random biases make its few features differ.
            gain = 1.0 if parts else 2.0
            parts += [
                gain * rng.standard_normal((n_in, n_out)) / math.sqrt(n_in),
                rng.uniform(-1, 1, n_out) if not parts else np.zeros(n_out),
            ]
        parts[-2] = np.zeros_like(parts[-2])
        return np.concatenate([part.ravel() for part in parts])

    def layers(self, parameters: torch.Tensor) -> Layers:
        """Return the weights and biases of each layer, as views of `parameters` (n_parameters,)."""
        shapes = self.layer_sizes
        lengths = [length for n_in, n_out in shapes for length in (n_in * n_out, n_out)]
        parts = parameters.split(lengths)
        return [
            (weight.view(shape), bias)
            for weight, bias, shape in zip(parts[::2], parts[1::2], shapes, strict=True)
        ]

    def position(self, noise_scale: float) -> float:
        """Return the position of a noise scale in the range, from 0 to 1 in its logarithm."""
        return math.log(noise_scale / self.lowest) / math.log(self.highest / self.lowest)

    def inputs(self, u: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        """Return inputs (n, n_inputs) at scaled rows u (n, r) and `position` (n, 1) of the noise."""
        waves = [wave(f * u) for f in self._frequencies for wave in (torch.cos, torch.sin)]
        k = torch.arange(1, _N_COSINES + 1, device=u.device, dtype=u.dtype)
        return torch.cat([u, *waves, torch.cos(math.pi * k * position)], dim=1)

    def input_derivatives(self, u: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
        """Return derivatives of the inputs that depend on u, along (m, r) or (n, m, r) directions."""
        slopes = [torch.ones_like(u)]
        for f in self._frequencies:
            slopes += [-f * torch.sin(f * u), f * torch.cos(f * u)]
        return torch.cat([slope[:, None] * directions for slope in slopes], dim=2)

    @property
    def _frequencies(self) -> list[float]:
        return [_FREQUENCY * 2.0**k for k in range(self.n_frequencies)]


def evaluate(layers: Layers, inputs: torch.Tensor) -> torch.Tensor:
    """Return F (n, r), the output of the network, at inputs (n, n_inputs) of `NetworkShape.inputs`."""
    *hidden, (weight, bias) = layers
    for each, shift in hidden:
        inputs = torch.nn.functional.silu(torch.addmm(shift, inputs, each))
    return torch.addmm(bias, inputs, weight)


@dataclass(frozen=True)
class ScoreNetwork:
    """The score field of a network with given weights; see `ScoreField`."""

    shape: NetworkShape
    layers: Layers  # Weights and biases of each layer
    # (m, r) or (n, 1, r): directions p with sum p p^T = I, the coordinate axes, for the exact
    # divergence; or one random direction for each query with E p p^T = I, for an unbiased estimate
    # (Hutchinson 1990)
    directions: torch.Tensor

    def __call__(self, x: torch.Tensor, v: float) -> torch.Tensor:
        """Return the score (n, r) at x (n, r) and noise variance v."""
        c, gain = self._preconditioning(x, v)
        return c * (gain * evaluate(self.layers, self._inputs(c * x, v)) - c * x)

    def with_divergence(self, x: torch.Tensor, v: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the score (n, r) and its divergence (n,), without automatic differentiation."""
        c, gain = self._preconditioning(x, v)
        u = c * x
        values, slopes = self._inputs(u, v), self.shape.input_derivatives(u, c * self.directions)
        *hidden, (last, bias) = self.layers
        for weight, shift in hidden:
            before = torch.addmm(shift, values, weight)
            gate = torch.sigmoid(before)
            values = before * gate
            # In the first layer `slopes` omit the inputs that depend on the noise only, whose
            # derivatives are zero.
            slopes = slopes @ weight[: slopes.shape[2]]
            slopes = slopes * (gate + values * (1 - gate))[:, None]
        score = c * (gain * torch.addmm(bias, values, last) - u)
        trace = (slopes * ((c * gain * self.directions) @ last.T)).sum((1, 2))
        return score, trace - c.square().sum()

    def rows(self, index: torch.Tensor) -> ScoreNetwork:
        """Return the field of the queries with these indices (m,)."""
        if self.directions.dim() == 2:
            return self
        return replace(self, directions=self.directions[index])

    def _preconditioning(self, x: torch.Tensor, v: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the factors c and s / y of the preconditioning."""
        scales = x.new_tensor(self.shape.scales)
        return (scales.square() + v).rsqrt(), scales / math.sqrt(v)

    def _inputs(self, u: torch.Tensor, v: float) -> torch.Tensor:
        """Return the inputs of the first layer for rows u (n, r) of one noise variance."""
        position = u.new_full((len(u), 1), self.shape.position(math.sqrt(v)))
        return self.shape.inputs(u, position)


@dataclass(frozen=True)
class AveragedScore:
    """A score field averaged over offsets (nodes); it evaluates every query at every node."""

    # The field to average; its method `rows` repeats queries, one copy for each node
    field: RowSelectable
    offsets: torch.Tensor  # (M, r): the nodes; their mean is zero
    weights: torch.Tensor  # (M,): positive, summing to one

    def __call__(self, x: torch.Tensor, v: float) -> torch.Tensor:
        """Return the averaged score (n, r)."""
        field, shifted = self._shifted(x)
        return self._average(field(shifted, v), len(x))

    def with_divergence(self, x: torch.Tensor, v: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the averaged score (n, r) and its divergence (n,)."""
        field, shifted = self._shifted(x)
        score, divergence = field.with_divergence(shifted, v)
        return self._average(score, len(x)), self._average(divergence, len(x))

    def rows(self, index: torch.Tensor) -> AveragedScore:
        """Return the field of the queries with these indices (m,)."""
        field = self.field.rows(index)
        assert isinstance(field, RowSelectable)
        return replace(self, field=field)

    def _shifted(self, x: torch.Tensor) -> tuple[ScoreField, torch.Tensor]:
        """Return the field of queries repeated for each node, and the shifted queries (n M, r)."""
        repeated = torch.arange(len(x), device=x.device).repeat_interleave(len(self.weights))
        return self.field.rows(repeated), (x[:, None] + self.offsets).reshape(-1, x.shape[1])

    def _average(self, values: torch.Tensor, n: int) -> torch.Tensor:
        """Return the weighted means (n, ...) of values (n M, ...) over the nodes."""
        by_node = values.view(n, len(self.weights), *values.shape[1:])
        return torch.tensordot(by_node, self.weights, dims=([1], [0]))


@dataclass(frozen=True)
class NetworkSchedule:
    """The score fields of all noise levels: one network, averaged over the nodes of each level."""

    network: ScoreNetwork
    sigma: float  # Smoothing scale; 0 leaves the network unsmoothed
    rule: NodeRule  # Rule and number of the nodes
    backend: Backend  # Device and type of the nodes

    def at(self, level: int) -> ScoreField:
        """Return the score field of the noise level with a given index."""
        r = len(self.network.shape.scales)
        if self.sigma == 0 or r == 0:
            return self.network
        nodes, weights = self.rule.normal(r, level)
        tensor = self.backend.tensor
        return AveragedScore(self.network, tensor(self.sigma * nodes), tensor(weights))
