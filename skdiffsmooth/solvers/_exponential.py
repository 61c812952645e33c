"""The flow's right-hand side and the phi functions, for exponential schemes in log y."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch

from ..scores import RowSelectable, ScoreField


class Values(NamedTuple):
    """Posterior means (n, r), and decreases (n,) of the log-density per unit of log y."""

    mean: torch.Tensor
    rate: torch.Tensor


@dataclass(frozen=True)
class RightHandSide:
    """The right-hand side of the flow, for positions alone or with log-densities (`with_rate`)."""

    field: ScoreField
    with_rate: bool

    def __call__(self, x: torch.Tensor, y: float) -> Values:
        v = y**2
        if not self.with_rate:
            return Values(x + v * self.field(x, v), x.new_zeros(len(x)))
        score, divergence = self.field.with_divergence(x, v)
        return Values(x + v * score, -v * divergence)

    def rows(self, index: torch.Tensor) -> RightHandSide:
        """See `RowSelectable`."""
        if not isinstance(self.field, RowSelectable):
            raise TypeError(
                f"the score field {type(self.field).__name__} has no method rows(index); expected one "
                "that returns the field of some of the queries, since solver='adaptive' repeats steps "
                "of some rows. Add it, or use solver='heun'."
            )
        return RightHandSide(self.field.rows(index), self.with_rate)


def displacement_in_nats(
    displacement: torch.Tensor, x: torch.Tensor, mean: torch.Tensor, y: float
) -> torch.Tensor:
    """Return by how much displacements (n, r) of rows x (n, r) change their log-densities, (n,).

    This is their norm times the norm of the score (mean - x) / y^2 at noise scale y, or 1 / y if larger.
    """
    slope = length(mean - x) / y**2
    return slope.clamp_min(1 / y) * length(displacement)


def length(vectors: torch.Tensor) -> torch.Tensor:
    """Return the norms (n,) of vectors (n, r)."""
    return torch.linalg.vector_norm(vectors, dim=1)


def phi(h: float) -> tuple[float, float, float]:
    """Return phi_k(h) = (exp(h) - sum of h^j / j! over j < k) / h^k for k = 1, 2, 3."""
    if abs(h) < 0.5:
        # The closed form would cancel. Of the series, terms after the 14th are below rounding.
        phi_3 = sum(h**j / math.factorial(j + 3) for j in range(14))
    else:
        phi_3 = (math.exp(h) - 1 - h - h**2 / 2) / h**3
    phi_2 = 1 / 2 + h * phi_3
    return 1 + h * phi_2, phi_2, phi_3
