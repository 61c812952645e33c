"""Score whose component for a column depends only on the columns of its group, and its divergence.

Let the rows x_i be centers of Gaussians with covariance S, and v the variance of the noise. In the
columns c of the group of column p,

    P = (S_cc + v I)^-1,    W_i(x) = softmax_i( log w_i - (x_c - x_ic)^T P (x_c - x_ic) / 2 ),

and with m the row of p in P and t_i = m . x_ic, the p-th component of the score of that mixture is

    s_p = E_W t - m . x_c,    ds_p / dx_p = Var_W t - m_p.

S = 0 gives the posterior mean s_p v + x_p = E_W x_ip (Kamb & Ganguli 2024; Niedoba et al. 2024). A
background of weight b, the Gaussian N(0, u I) in the columns of each group, is one more component:
with r its posterior weight and s_0 = -x_p / (u + v) the score is (1 - r) s_p + r s_0, and its
derivative the same mean of derivatives plus r (1 - r) (s_p - s_0)^2.

The components come from different mixtures, so the field is no gradient; but its divergence is the sum
of these derivatives, and the flow along it is that of one normalised distribution.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import torch

from .._utils.cached import cached_property
from .._utils.memory import rows_within, slices

__all__ = ["ColumnGroups", "LocalPosterior"]

# Tiles above this size in MiB are slower on a CPU, since they leave its cache.
_LARGEST_TILE = 16.0
# Number of arrays of the size of the posterior weights that are held at once.
_ALIVE = 2
# Single precision is used if no point of a group has a squared norm above this many noise variances:
# logits, and variances divided by that of the noise, then have errors of 1e-4. With fewer points than
# _MANY, double precision is used and points are not merged, since there is no time to save.
_LARGEST_IN_SINGLE, _MANY = 1600.0, 256
# Width of the bins whose points are merged, in standard deviations of the noised kernel of a column.
_BIN = 0.35
# With more bins than this for each point, points are not merged: few bins would hold two of them.
_MOST_BINS = 4
# Logits, less the largest one, are raised to at least these values, which changes no sum.
_LEAST_LOGIT = {torch.float32: -60.0, torch.float64: -300.0}


@dataclass(frozen=True, eq=False)
class ColumnGroups:
    """For each column the group of columns from which its score is computed."""

    columns: np.ndarray  # (K, k): the distinct groups as increasing indices, padded with -1
    owner: np.ndarray  # (d,): index of the group of each column; -1 where no score is computed

    @classmethod
    def of(cls, groups: Sequence[np.ndarray]) -> ColumnGroups:
        """Return the groups of columns 0, 1, ..., each of which contains its column."""
        distinct: dict[tuple[int, ...], int] = {}
        keys = [tuple(np.unique(group).tolist()) for group in groups]
        owner = np.array([distinct.setdefault(key, len(distinct)) for key in keys])
        return cls(_padded(distinct), owner)

    def only(self, kept: np.ndarray) -> ColumnGroups:
        """Return the groups of some columns, given by their indices."""
        used, owner = np.unique(self.owner[kept], return_inverse=True)
        all_owners = np.full(len(self.owner), -1)
        all_owners[kept] = owner
        return ColumnGroups(self.columns[used], all_owners)

    @property
    def size(self) -> int:
        """Number of columns of the largest group."""
        return self.columns.shape[1]


@dataclass(frozen=True)
class _Outputs:
    """The columns (K, m) whose scores are computed from each group, and their positions in the group.

    `present` is False where a row is padded.
    """

    columns: torch.Tensor
    positions: torch.Tensor
    present: torch.Tensor

    @classmethod
    def of(cls, groups: ColumnGroups, device: torch.device) -> _Outputs:
        columns = _padded([np.flatnonzero(groups.owner == k) for k in range(len(groups.columns))])
        positions = (groups.columns[:, None] == columns[:, :, None]).argmax(2)
        arrays = np.maximum(columns, 0), positions, columns >= 0
        return cls(*(torch.from_numpy(array).to(device) for array in arrays))


def _padded(lists: Iterable[Iterable[int]]) -> np.ndarray:
    """Return lists of column indices as the rows of an array, padded with -1."""
    return np.ascontiguousarray(np.array(list(zip_longest(*lists, fillvalue=-1))).T)


class LocalPosterior:
    """The posterior of centred points (N, d) under noise, given only the columns of each group.

    `covariance` is S (d, d) of the Gaussians at the points, or None for zero; `background` holds the
    weight b and the variance u of the background. The points are `copies` blocks, each with all rows.
    """

    def __init__(
        self,
        points: torch.Tensor,
        log_weights: torch.Tensor,
        groups: ColumnGroups,
        covariance: np.ndarray | None,
        memory_limit: float,
        background: tuple[float, float] = (0.0, 0.0),
        copies: int = 1,
    ) -> None:
        # Transposed, (d, N), so that each column is contiguous in memory.
        self.points, self.log_weights = points.T.contiguous(), log_weights
        self.background, self.copies = background, copies
        self.memory_limit = memory_limit
        self.outputs = _Outputs.of(groups, points.device)
        present = groups.columns >= 0
        columns = np.where(present, groups.columns, 0)
        self.columns = torch.from_numpy(columns).to(points.device)
        self.present = torch.from_numpy(present).to(points)
        self.axes: torch.Tensor | None = None
        self.variances = torch.zeros_like(self.present)
        # Which axes are not padding; among eigenvectors, those of padding come first.
        self.is_axis = self.present
        if covariance is not None:
            both = present[:, :, None] & present[:, None, :]
            blocks = np.where(both, covariance[columns[:, :, None], columns[:, None, :]], 0.0)
            # Padding has a negative eigenvalue, so that no eigenvector mixes padding with columns.
            scale = np.abs(blocks).max(initial=0.0) + 1.0
            index = np.arange(groups.size)
            blocks[:, index, index] = np.where(present, blocks[:, index, index], -scale)
            variances, axes = np.linalg.eigh(blocks)
            self.axes = torch.from_numpy(axes * present[:, :, None]).to(points)
            self.variances = torch.from_numpy(np.maximum(variances, 0.0)).to(points)
            self.is_axis = torch.from_numpy(variances > -0.5 * scale).to(points)

    @cached_property
    def _largest_square(self) -> float:
        """Return the largest squared norm of a point in the columns of a group; inf for few points."""
        if self.points.shape[1] < _MANY:
            return math.inf
        members = self.points.new_zeros(len(self.columns), len(self.points))
        members.scatter_add_(1, self.columns, self.present)
        return float((members @ self.points.square()).max())

    @cached_property
    def _in_first_group(self) -> torch.Tensor:
        """Return the points (1, k, N) along the axes of the first group."""
        return self._points_along(slice(0, 1))

    @cached_property
    def _single(self) -> LocalPosterior:
        """Return this posterior in single precision."""
        single = copy(self)
        for name, value in vars(self).items():
            if isinstance(value, torch.Tensor) and value.dtype == torch.float64:
                setattr(single, name, value.float())
        return single

    def score(
        self, x: torch.Tensor, v: float, exclude: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the score of queries x (n, d) and the derivatives ds_p / dx_p, both (n, d).

        `exclude` (n,) is the index of the row whose copies each query must not use. Columns without a
        group are zero.
        """
        if x.dtype == torch.float64 and self._largest_square <= _LARGEST_IN_SINGLE * v:
            score, derivative = self._single.score(x.float(), v, exclude)
            return score.double(), derivative.double()
        score, derivative = torch.zeros_like(x), torch.zeros_like(x)
        n_points, k = self.points.shape[1], self.columns.shape[1]
        limit = min(self.memory_limit, _LARGEST_TILE)
        least = _LEAST_LOGIT[x.dtype]
        a_row = x.element_size() * _ALIVE * n_points
        rows = min(len(x), rows_within(a_row, limit))
        a_group = a_row * rows + x.element_size() * 4 * n_points * k
        for part in slices(len(self.columns), rows_within(a_group, limit)):
            inverse = 1 / (self.variances[part] + v)
            rows_of_axes = self._rows_of_axes(part)
            precision = rows_of_axes * inverse[:, None]
            own = (rows_of_axes * precision).sum(2)
            points, logits = self._points_and_logits(part, inverse, merge=exclude is None)
            targets = torch.bmm(precision, points)
            out = self.outputs.columns[part][self.outputs.present[part]]
            is_output = self.outputs.present[part]
            powers = torch.cat([targets, targets.square(), torch.ones_like(logits)], dim=1)
            n_out = targets.shape[1]
            for cut in slices(len(x), rows):
                queries = self._along(x[cut], part)
                # For a single column a batched product of matrices is slow.
                product = torch.addcmul if k == 1 else torch.baddbmm
                weights = product(logits, queries * inverse[:, None], points)
                if exclude is not None:
                    index = torch.arange(len(exclude[cut]), device=x.device)
                    of_rows = weights.view(*weights.shape[:2], self.copies, -1)
                    of_rows[:, index, :, exclude[cut]] = -torch.inf
                peak = weights.amax(2, keepdim=True)
                # Smaller weights would be denormal, with which a product of matrices is slow.
                weights.sub_(peak).clamp_min_(least).exp_()
                moments = torch.bmm(powers, weights.transpose(1, 2)).transpose(1, 2)
                log_sum = peak + moments[..., -1:].log()
                moments = moments[..., :-1] / moments[..., -1:]
                mean, second = moments[..., :n_out], moments[..., n_out:]
                here = mean - queries @ precision.transpose(1, 2)
                slope = (second - mean.square()).clamp_min(0) - own[:, None]
                if self.background[0]:
                    here, slope = self._with_background(
                        here, slope, log_sum, x[cut], queries, part, v
                    )
                score[cut, out] = here.transpose(1, 2)[is_output].T
                derivative[cut, out] = slope.transpose(1, 2)[is_output].T
        return score, derivative

    def _with_background(
        self,
        score: torch.Tensor,
        slope: torch.Tensor,
        log_sum: torch.Tensor,
        x: torch.Tensor,
        queries: torch.Tensor,
        part: slice,
        v: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores and derivatives (G, n, n_out) with the background.

        `log_sum` (G, n, 1) are the logarithms of the sums of posterior weights before normalisation, and
        `queries` (G, n, k) are x (n, d) along the axes of the groups.
        """
        weight, variance = self.background
        present, total = self.is_axis[part][:, None], variance + v
        variances = (self.variances[part] + v)[:, None]
        squares = queries.square()
        log_ratio = (present * (variances.log() - math.log(total))).sum(2, keepdim=True)
        log_ratio = log_ratio + (squares * (present / variances - 1 / total)).sum(2, keepdim=True)
        r = torch.sigmoid(math.log(weight / (1 - weight)) + log_ratio / 2 - log_sum)
        of_background = -x[:, self.outputs.columns[part]].transpose(0, 1) / total
        gap = score - of_background
        slope = (1 - r) * slope - r / total + r * (1 - r) * gap.square()
        return score - r * gap, slope

    def _along(self, rows: torch.Tensor, part: slice) -> torch.Tensor:
        """Return rows (n, d) along the axes of some groups, shape (G, n, k)."""
        gathered = rows[:, self.columns[part]].transpose(0, 1) * self.present[part][:, None]
        return gathered if self.axes is None else gathered @ self.axes[part]

    def _points_along(self, part: slice) -> torch.Tensor:
        """Return the points along the axes of some groups, shape (G, k, N)."""
        gathered = self.points[self.columns[part]].mul_(self.present[part][:, :, None])
        return gathered if self.axes is None else self.axes[part].transpose(1, 2) @ gathered

    def _rows_of_axes(self, part: slice) -> torch.Tensor:
        """Return the rows (G, n_out, k) of the axes of some groups that belong to the outputs."""
        positions = self.outputs.positions[part]
        if self.axes is None:
            one_hot = torch.nn.functional.one_hot(positions, self.columns.shape[1])
            return one_hot.to(self.variances)
        index = positions[:, :, None].expand(-1, -1, self.axes.shape[2])
        return torch.gather(self.axes[part], 1, index)

    def _points_and_logits(
        self, part: slice, inverse: torch.Tensor, merge: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return points (G, k, N) along the axes, and logits (G, 1, N) of a query at zero.

        Points of single columns are merged on request; `inverse` (G, k) are inverse variances.
        """
        # The points along the axes of a single group are stored and used at all noise scales.
        points = self._in_first_group if len(self.columns) == 1 else self._points_along(part)
        log_weights = self.log_weights
        if merge and points.shape[1] == 1 and points.shape[2] >= _MANY:
            merged = _merged(points.squeeze(1), log_weights.exp(), _BIN * inverse.rsqrt())
            points, log_weights = (points, log_weights) if merged is None else merged
        squares = torch.bmm(inverse[:, None], points.square())
        return points, log_weights.reshape(-1, 1, points.shape[2]) - 0.5 * squares


def _merged(
    points: torch.Tensor, weights: torch.Tensor, width: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return fewer points (G, 1, M) with log-weights (G, M), or None if there would not be fewer.

    The points (G, N) of each bin, of `width` (G, 1), are replaced by two with the same moments of order
    zero to three (Gauss quadrature); `weights` (N,) are the weights of the points.
    """
    lowest = points.amin(1, keepdim=True)
    index = ((points - lowest) / width).long()
    n_bins = int(index.max()) + 1
    if n_bins > _MOST_BINS * points.shape[1]:
        return None
    # Empty bins are left out.
    occupied = torch.zeros(len(points), n_bins, dtype=torch.bool, device=points.device)
    number = occupied.scatter_(1, index, True).cumsum(1) - 1
    n_occupied = int(number[:, -1].max()) + 1
    if 2 * n_occupied >= points.shape[1]:
        return None
    number = number.gather(1, index)
    centers = torch.zeros_like(points[:, :n_occupied])
    centers.scatter_(1, number, lowest + width * (index + 0.5))
    offsets, index = points - centers.gather(1, number), number
    power, sums = weights.expand_as(points), []
    for _ in range(4):
        sums.append(torch.zeros_like(centers).scatter_add_(1, index, power))
        power = power * offsets
    mass = sums[0].clamp_min(torch.finfo(points.dtype).tiny)
    mean, second, third = (moment / mass for moment in sums[1:])
    variance = (second - mean.square()).clamp_min(1e-6 * width.square())
    half_skew = (third - mean * (3 * variance + mean.square())) / (2 * variance)
    root = (half_skew.square() + variance).sqrt()
    nodes = torch.cat([centers + mean + half_skew + root, centers + mean + half_skew - root], dim=1)
    share = torch.cat([root - half_skew, root + half_skew], dim=1) / (2 * root).repeat(1, 2)
    return nodes[:, None], (sums[0].repeat(1, 2) * share).log()
