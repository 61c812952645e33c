"""The density of continuous coordinates given levels: training rows are weighted by their levels.

With training rows z_i of levels c_i and weights w_i, p(z | c) is the density of the rows with weights
``w_i prod_k K_k(c_k, c_ik)``. Metric and background are chosen once, from all rows. The bandwidths of
the kernels K_k of levels, and one scale for all levels, maximise the leave-one-out likelihood of z_i
given c_i.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist
from sklearn.base import clone

from .._diffusion.background import WIDTH
from .._diffusion.conditional import Conditional, draw_given_columns, together
from .._diffusion.estimator import BaseScoreDiffusion
from .._diffusion.joint_density import JointDensity
from .._estimators.kde import KDESampler
from .._utils.near_rows import distinct_rows
from .._utils.periods import reduced, wrapped
from .._utils.progress import counted
from .._utils.units import column_norms
from ..compose._conditionals import draw_given, score_columns
from ..compose._members import fit_member, log_density_of
from ..compose._unconditional import draw
from ._discrete import LevelKernel, choose_lambdas, one_row, products, some_rows

# Maps indices (k,) of rows and offsets (m, p), in units of cells, to coordinates (m, k, p) of the moved
# rows, and to the logarithms (m, k) of the slopes of the maps of columns there, less those at the row.
Moved = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]

_LABEL = "continuous part"

# A conditional density omits the rows of least weight, up to this fraction of the total weight.
_NEGLIGIBLE = 1e-4
# Most left-out rows, and most pairs of rows, whose likelihood chooses scales and bandwidths of levels.
_MOST_JUDGES, _MOST_PAIRS = 512, 4_000_000
_N_ROUNDS, _CHANGE = 4, 0.01
# The scale given the levels is searched between these multiples of the leave-one-out scale of all rows.
_LEAST_FACTOR, _MOST_FACTOR = 0.2, 2.0
# The least bandwidth is the larger of the first factor times the widest cells and the second times the
# next widest, but at most the third times the widest. The width of a column's cells is this quantile
# over rows, measured between the offsets -0.25 and 0.25 of a cell.
_LEAST_OF_CELL, _MOST_CELLS, _END = (0.03, 0.25, 0.1), 0.9, 0.25
# Errors of integrals over one and over more missing coordinates, in nats, at which no more draws are
# made. The error of integrals over one is estimated some eight times too large.
_TOLERANCES = 0.1, 0.03
_RELATIVE = re.compile(r"(.+)h")


@dataclass(frozen=True, eq=False)
class ContinuousPart:
    """The density of some continuous coordinates given the levels, from n training rows."""

    columns: np.ndarray  # (p,) indices of the coordinates
    fitted: Any  # the density of all rows that have values in them
    kernels: list[LevelKernel]  # which weight the rows, one for each discrete coordinate
    levels: np.ndarray  # (n, q)
    weights: np.ndarray  # (n,)
    rows: np.ndarray  # (n, p) coordinates, mapped to the line
    group: (
        np.ndarray | None
    )  # (n,) index of each row in `fitted.points_`, or None if these cannot be reweighted
    offsets: np.ndarray  # (m, p) points of a cell of width one, over which the density is averaged

    @property
    def relevant(self) -> np.ndarray:
        """Indices of the discrete coordinates on which the density depends."""
        return np.array(
            [k for k, kernel in enumerate(self.kernels) if kernel.lam < 1], dtype=np.intp
        )

    @property
    def is_integrated(self) -> bool:
        """Whether marginals are integrals over draws, and not in closed form."""
        return not isinstance(self.fitted, KDESampler)

    def row_weights(self, levels: np.ndarray) -> np.ndarray:
        """Return the weights (n,) of the rows, which sum to one, for levels (q,)."""
        tables = [kernel.table for kernel in self.kernels]
        weights = self.weights * products(tables, levels[None], self.levels)[0]
        return weights / weights.sum()

    def given(self, levels: np.ndarray) -> Any:
        """Return the density for levels (q,), a fitted estimator."""
        if not len(self.relevant):
            return self.fitted
        weights = self.row_weights(levels)
        if self.group is not None:
            weights = np.bincount(self.group, weights=weights)
        order = np.argsort(weights, kind="stable")
        weights[order[np.cumsum(weights[order]) <= _NEGLIGIBLE]] = 0.0
        if self.group is not None:
            return self.fitted._reweighted(weights)
        kept = weights > 0
        return fit_member("density", clone(self.fitted), self.rows[kept], weights[kept])

    def log_densities(
        self,
        levels: np.ndarray,
        requests: Sequence[tuple[np.ndarray, np.ndarray]],
        tolerance: float | None,
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return log-densities (n,) given levels (q,), and standard errors (n,), for each request.

        A request is a pair: which coordinates are observed (p,), and queries (n, p). Other coordinates
        are integrated out, until errors are about `tolerance` nats; None is the smallest tolerance.
        """
        model, none = self.given(levels), np.array([], dtype=np.intp)
        results: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        integrals: dict[int, tuple[np.ndarray, float]] = {}
        for k, (observed, queries) in enumerate(requests):
            scored = np.flatnonzero(observed)
            if observed.all():
                log_density = log_density_of(_LABEL, model, queries)
            elif isinstance(model, BaseScoreDiffusion):
                error = tolerance or _TOLERANCES[len(observed) > len(scored) + 1]
                integrals[k] = scored, error
                continue
            else:
                filled = np.where(observed, queries, 0.0)
                log_density = score_columns(_LABEL, model, filled, scored, none)
            results[k] = log_density, np.zeros(len(queries))
        if integrals:
            joint, memory_limit = self._joint(model)
            limit = memory_limit / len(integrals)
            jobs = [
                Conditional(joint, scored, limit, error).log_marginal(requests[k][1][:, scored])
                for k, (scored, error) in integrals.items()
            ]
            results.update(zip(integrals, together(joint, jobs), strict=True))
        return [results[k] for k in range(len(requests))]

    def _joint(self, model: BaseScoreDiffusion) -> tuple[JointDensity, float]:
        """Return the density of all coordinates, and the limit of memory, for integrals and draws."""
        resources = model._resources()
        # Without `tol` inaccurate flows are not solved again: the density is small there.
        model_of_rows = replace(model.model_, tol=None)
        return JointDensity.of_model(model_of_rows, resources), resources.memory_limit

    def of_all(self, queries: np.ndarray) -> np.ndarray:
        """Return log-densities (n,) of coordinates (n, p), not conditional on levels."""
        return log_density_of(_LABEL, self.fitted, queries)

    def draw(
        self,
        levels: np.ndarray,
        values: np.ndarray,
        rng: np.random.RandomState,
        *,
        for_means: bool = False,
    ) -> np.ndarray:
        """Return rows (n, p) drawn given levels (q,) and values (n, p), of which NaN are drawn.

        With `for_means` rows with equal values may have equal draws.
        """
        model, observed = self.given(levels), ~np.isnan(values[0])
        if not observed.any():
            return draw(model, len(values), rng)
        given = np.flatnonzero(observed)
        if isinstance(model, BaseScoreDiffusion):
            joint, memory_limit = self._joint(model)
            return draw_given_columns(
                joint, given, values[:, given], rng, memory_limit, for_means=for_means
            )
        return draw_given(_LABEL, model, given, values[:, given], rng)[0]


class RowsInCells(NamedTuple):
    """Training rows, and how they are moved within their cells."""

    levels: np.ndarray  # (n, q)
    rows: np.ndarray  # (n, p) coordinates
    weights: np.ndarray  # (n,)
    moved: Moved
    offsets: np.ndarray  # (m, p) points of cells at which left-out rows are scored
    has_cells: np.ndarray  # (p,) which coordinates have cells


def fit_part(
    label: str, columns: np.ndarray, density: Any, own: RowsInCells, kernels: list[LevelKernel]
) -> ContinuousPart:
    """Return the density of coordinates of rows given levels; `label` names it in messages.

    `columns` (p,) are indices of the coordinates in the table; `kernels`, one for each discrete
    coordinate, are where the search for bandwidths begins.
    """
    levels, rows, weights, _, offsets, has_cells = own
    # Equal weights are passed as None, so that densities that take no weights can be used.
    passed = None if np.all(weights == weights[0]) else weights
    with counted(2) as done:
        fitted = fit_member(label, clone(density), rows, passed)
        done()
        if kernels or has_cells.any():
            chooser = _Chooser.of(fitted, own)
            kernels, factor = chooser.choose(kernels)
            if chooser.is_scale_free and factor != 1:
                rescaled = clone(fitted).set_params(**_scales(fitted, factor))
                fitted = fit_member(label, rescaled, rows, passed)
        done()
    group, of_rows = _point_of_row(fitted, rows), weights / weights.sum()
    return ContinuousPart(columns, fitted, kernels, levels, of_rows, rows, group, offsets)


def _point_of_row(fitted: Any, rows: np.ndarray) -> np.ndarray | None:
    """Return the index (n,) of each row in `fitted.points_`, or None if these cannot be reweighted."""
    if not getattr(fitted, "_can_reweight", False):
        return None
    if fitted.periods_ is not None:
        rows = reduced(rows, fitted.periods_)
    scale = column_norms(rows - rows[0])
    scale[scale == 0] = 1.0
    return cKDTree(fitted.points_ / scale).query(rows / scale)[1]


def _squares(y: np.ndarray, x: np.ndarray, periods: np.ndarray | None) -> np.ndarray:
    """Return squared distances (m, n) of y (m, r) from x (n, r); coordinates may have periods (r,)."""
    if periods is None:
        return cdist(y, x, "sqeuclidean")
    squares = np.zeros((len(y), len(x)))
    if (periods == 0).any():
        squares += cdist(y[:, periods == 0], x[:, periods == 0], "sqeuclidean")
    for k in np.flatnonzero(periods):
        squares += wrapped(np.subtract.outer(y[:, k], x[:, k]), periods[k]) ** 2
    return squares


def _scales(fitted: Any, factor: float) -> dict[str, Any]:
    """Return the chosen parameters of a fitted density, with its scales multiplied by a factor."""
    if isinstance(fitted, KDESampler):
        return {"bandwidth": fitted.bandwidth_ * factor}
    settings = dict(fitted.settings_)
    settings["bandwidth"] = fitted.bandwidth_ * factor
    if _factor_of(settings["sigma"]) is not None:
        settings["sigma"] = fitted.sigma_ * factor
    return settings


def _factor_of(scale: Any) -> float | None:
    """Return the factor of a multiple of the leave-one-out scale such as "0.85h", or None."""
    relative = _RELATIVE.fullmatch(scale) if isinstance(scale, str) else None
    return None if relative is None else float(relative[1])


@dataclass(frozen=True, eq=False)
class _Chooser:
    """Chooses bandwidths by the likelihood of left-out rows under a kernel density of the others."""

    levels: np.ndarray  # (n, q)
    weights: np.ndarray  # (n,)
    judges: np.ndarray  # (k,) indices of the rows that are left out
    kept: np.ndarray  # (k, n) fraction of each row's weight that remains without the judge
    # (m, k, n) squared distances at m points of the cells, in units of the scale for all rows together
    squares: np.ndarray
    log_slopes: np.ndarray  # (m, k) of the maps of columns at these points, less those at the row
    n_directions: int  # dimension of the space of the distances
    background: float  # weight of kernels four times as wide, as in the density
    is_scale_free: bool  # whether the scale is to be chosen
    least: float  # the least scale at which averages over the points of cells are accurate

    @classmethod
    def of(cls, fitted: Any, own: RowsInCells) -> _Chooser:
        """Return the chooser, with distances in the metric of a density, or else of a `KDESampler`."""
        levels, rows, weights, moved, offsets, has_cells = own
        n = len(rows)
        is_scale_free, background, bandwidth = False, 0.0, 1.0
        if isinstance(fitted, BaseScoreDiffusion) and fitted._can_reweight:
            factor = _factor_of(fitted.settings_["bandwidth"])
            is_scale_free = factor is not None
            bandwidth = factor or 1.0
            scale = fitted.bandwidth_ / bandwidth
            background = fitted.background_

            periods = fitted.model_.data.periods

            def coordinates(z: np.ndarray) -> np.ndarray:
                return fitted.model_.embedding.split(z)[0]
        else:
            kde = fitted
            if isinstance(fitted, KDESampler):
                is_scale_free = isinstance(fitted.bandwidth, str) and fitted.kernel == "gaussian"
            else:
                kde = fit_member(_LABEL, KDESampler(metric="local"), rows, weights)
            scale, periods = kde.bandwidth_, kde.coordinates_.periods

            def coordinates(z: np.ndarray) -> np.ndarray:
                return kde.coordinates_.to_metric(z)

        most = min(_MOST_JUDGES, max(64, _MOST_PAIRS // (n * len(offsets))))
        judges = some_rows(n, most)
        queries, log_slopes = moved(judges, offsets)
        x = coordinates(rows) / scale
        y = coordinates(queries.reshape(-1, rows.shape[1])) / scale
        squares = _squares(y, x, None if periods is None else periods / scale)
        squares = squares.reshape(len(queries), len(judges), n)
        if not has_cells.all():
            # Equal rows are left out together, as by the densities of continuous rows.
            _, point = distinct_rows(rows)
            kept = (point[judges][:, None] != point).astype(np.float64)
        else:
            kept = np.ones((len(judges), n))
            kept[np.arange(len(judges)), judges] = 1 - one_row(weights)[judges] / weights[judges]
        # The widest cells of each column, in bandwidths.
        cells = [0.0, 0.0]
        for j in np.flatnonzero(has_cells):
            ends = np.zeros((2, rows.shape[1]))
            ends[:, j] = -_END, _END
            lower, upper = (coordinates(z) for z in moved(judges, ends)[0])
            steps = upper - lower
            if periods is not None:
                for k in np.flatnonzero(periods):
                    steps[:, k] = wrapped(steps[:, k], float(periods[k]))
            lengths = np.linalg.norm(steps / scale, axis=1) / (2 * _END * bandwidth)
            order = np.argsort(lengths, kind="stable")
            mass = np.cumsum(weights[judges][order])
            cells.append(float(lengths[order][np.searchsorted(mass, _MOST_CELLS * mass[-1])]))
        second, first = np.sort(cells)[-2:]
        # The average is over cells of one column where those of the others are narrow, else of all.
        one_column, one_narrow, several = _LEAST_OF_CELL
        least = min(max(one_column * first, one_narrow * second), several * first)
        choice = x.shape[1], background, is_scale_free, least
        return cls(levels, weights, judges, kept, squares, log_slopes, *choice)

    def choose(self, kernels: list[LevelKernel]) -> tuple[list[LevelKernel], float]:
        """Return the likeliest kernels of levels, and the likeliest scale over that of all rows."""
        log_factor = 0.0
        for _ in range(_N_ROUNDS):
            before = [kernel.lam for kernel in kernels], log_factor
            closeness, _ = self._closeness(log_factor)
            if kernels:
                kernels = choose_lambdas(
                    kernels, self.levels, self.weights, self.judges, self.kept, closeness
                )
            if not self.is_scale_free:
                break
            tables = [kernel.table for kernel in kernels]
            product = products(tables, self.levels[self.judges], self.levels)
            product *= self.kept * self.weights
            log_factor = self._best_scale(product)
            after = [kernel.lam for kernel in kernels], log_factor
            if max(
                abs(np.subtract(before[0], after[0])).max(initial=0), abs(before[1] - after[1])
            ) < (_CHANGE):
                break
        return kernels, math.exp(log_factor)

    def _best_scale(self, product: np.ndarray) -> float:
        """Return the logarithm of the scale of highest likelihood for weights (k, n) of the rows."""
        row_weights = self.weights[self.judges]
        tiny = np.finfo(np.float64).tiny

        def loss(log_factor: float) -> float:
            closeness, shift = self._closeness(log_factor)
            sums = (product * closeness).sum(axis=1)
            return (
                -float(row_weights @ (np.log(np.maximum(sums, tiny)) + shift)) / row_weights.sum()
            )

        least = max(self.least, _LEAST_FACTOR)
        bounds = math.log(least), math.log(max(_MOST_FACTOR, 2 * least))
        return float(
            minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 0.01}).x
        )

    def _closeness(self, log_factor: float) -> tuple[np.ndarray, np.ndarray]:
        """Return kernels (k, n) of the distances, divided by a factor (k,), and its logarithm (k,)."""
        variance = math.exp(2 * log_factor)
        log_kernels = self.squares * (-0.5 / variance)
        if self.background:
            ratio = WIDTH**self.n_directions
            wider = log_kernels / WIDTH**2 + math.log(self.background / ratio)
            log_kernels += math.log1p(-self.background)
            log_kernels = np.logaddexp(log_kernels, wider)
        log_kernels += self.log_slopes[:, :, None]
        shift = log_kernels.max(axis=(0, 2))
        closeness = np.exp(log_kernels - shift[:, None]).mean(axis=0)
        return closeness, shift - self.n_directions * log_factor
