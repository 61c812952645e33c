"""Joint densities with the kernels of proposals, from which conditionals and posteriors are computed.

A periodic column is unrolled to the line. The density is multiplied by a window phi(a) that spans two
periods and whose shifts by whole periods sum to one, so that integrals over the line are those over one
period; kernels have images at whole periods, and draws are wrapped.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .._coordinates.hull import principal_axes
from .._coordinates.warp import ColumnWarp
from .._utils.backend import Backend
from .._utils.gaussian import gaussian_log_normalizer
from .._utils.periods import reduced, wrapped
from .._utils.shards import ONE_PROCESS
from .._utils.units import column_norms
from ..bandwidth import gaussian_leave_one_out
from ..kernels import FrozenKernel
from .model import DiffusionModel
from .settings import Resources
from .source import NoisedData

# Relations are narrow if rounding along them moves rows by less than this, in bandwidths; log-densities
# then change by about its square.
_NARROW = 1e-3


# Number of centers of proposals, where the centers are draws of the density.
N_CENTERS = 1024


# Memory limit, in MiB, of the leave-one-out sums that choose the bandwidth of kernels at such draws.
_MEMORY_LIMIT = 256.0


@dataclass(frozen=True, eq=False)
class JointDensity:
    """A joint density of rows origin + y @ axes, with the kernels of its proposals.

    If `warp` is given, the rows are those of X after some columns were mapped.
    """

    # Maps rows (n, d) to log-densities (n,) in nats, per unit of X
    log_density_of_rows: Callable[[np.ndarray], np.ndarray]
    # The same for coordinates y (n, d), per unit of the rows origin + y @ axes
    log_density: Callable[[np.ndarray], np.ndarray]
    origin: np.ndarray  # (d,): the row at y = 0
    axes: np.ndarray  # (d, d): from coordinates to columns
    log_abs_det: float  # Log |det axes|
    centers: np.ndarray  # (N, d): coordinates of the centers of kernels
    weights: np.ndarray  # (N,): weights of the kernels
    scales: np.ndarray  # (3, d): widths of narrow and wide Gaussian kernels and of t kernels
    warp: ColumnWarp | None = None  # The maps of columns
    # How many of the last coordinates are rounding errors along relations between the columns
    n_relations: int = 0
    # (d,): periods of the columns, 0 where one has none; None where no column has one
    periods: np.ndarray | None = None

    @classmethod
    def of_model(cls, model: DiffusionModel, resources: Resources) -> JointDensity:
        """Return the density of a model, with proposals at its training rows or at draws of it."""
        model.check_density()
        if not isinstance(model.source, NoisedData) or model.source.base is not None:
            rows = model.draw(N_CENTERS, np.random.RandomState(0), resources)
            return cls.of_draws(lambda X: model.log_density(X, resources)[0], rows)
        hull, metric, h = model.embedding.hull, model.embedding.metric, model.bandwidth
        columns, r, smoothing = metric.columns, hull.dimension, model.source.smoothing
        # Outside the hull, coordinates are in standard deviations of the noise.
        relations = columns.relation_axes()
        lengths = np.linalg.norm(relations, axis=1)
        complement = h * np.linalg.qr(hull.basis, mode="complete")[0][:, r:].T

        def log_density(y: np.ndarray) -> np.ndarray:
            residual = y[:, r : r + len(complement)] @ complement
            if columns.n_relations:
                residual = columns.lift(residual) + y[:, r + len(complement) :] @ relations
            return model.log_density_within(y[:, :r], residual, resources)[0]

        sigma = smoothing.scales[0] if isinstance(smoothing, FrozenKernel) else h
        widths = np.sqrt(h**2 + sigma**2 * np.array([1 / 16, 1 / 4, 1.0]))
        scales = np.ones((3, columns.n_features))
        scales[:, :r] = widths[:, None]
        if model.tail is not None:
            # The t distribution of the background has one width outside the hull, whatever the noise.
            stds = np.concatenate([np.full(len(complement), h), lengths])
            scales[2, r:] = np.maximum(1.0, model.tail.student.residual_scale / stds)
        points, weights = model.source.hierarchy.at(h)
        if model.source.periods is not None:
            points, weights = _with_images(points, weights, model.source.periods)
        steps = [metric.steps_from_metric(np.vstack([hull.basis.T, complement]))]
        log_lengths = len(complement) * math.log(h) + float(np.log(lengths).sum())
        return cls(
            lambda X: model.log_density(X, resources)[0],
            log_density,
            columns.origin + metric.scaled_from_metric(hull.center[None])[0] * columns.scales,
            np.vstack([*steps, relations * columns.scales]),
            log_lengths - metric.log_abs_det,
            np.pad(points, ((0, 0), (0, columns.n_features - r))),
            weights,
            scales,
            columns.warp,
            columns.n_relations,
            columns.periods,
        )

    @classmethod
    def of_draws(
        cls, log_density: Callable[[np.ndarray], np.ndarray], rows: np.ndarray
    ) -> JointDensity:
        """Return a density of rows (n, d), with proposals at draws (N, d) of it."""
        origin = rows.mean(axis=0)
        units = column_norms(rows - origin) / math.sqrt(len(rows))
        units[units == 0] = 1.0
        centered = (rows - origin) / units
        singular_values, directions = principal_axes(centered, ONE_PROCESS)
        if len(directions) < len(origin):
            raise ValueError(
                f"{len(rows)} draws do not span {len(origin)} columns; expected fewer columns."
            )
        stds = singular_values / math.sqrt(len(rows))
        stds = np.maximum(stds, 1e-12 * stds.max())
        axes = stds[:, None] * directions * units
        centers = centered @ (directions.T / stds)
        weights = np.full(len(rows), 1 / len(rows))
        h = gaussian_leave_one_out(
            centers, weights, 0, Backend.from_params("cpu", "float64"), _MEMORY_LIMIT
        )
        return cls(
            log_density,
            lambda y: log_density(origin + y @ axes),
            origin,
            axes,
            float(np.log(stds).sum() + np.log(units).sum()),
            centers,
            weights,
            np.outer([h, 1.3 * h, 2 * h], np.ones(len(origin))),
        )

    def mapped(
        self, values: np.ndarray, columns: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | float]:
        """Return mapped values (n, k) of some columns, and the log (n,) of the product of slopes."""
        if self.periods is not None:
            values = values.copy()
            for k, column in enumerate(columns):
                if self.periods[column]:
                    origin, period = self.origin[column], self.periods[column]
                    values[:, k] = origin + wrapped(values[:, k] - origin, period)
        if self.warp is None:
            return values, 0.0
        warp, rows = self.warp.only(columns), np.zeros((len(values), len(self.origin)))
        rows[:, columns] = values
        return warp.mapped(rows)[:, columns], warp.log_slopes(rows)

    def unmapped(self, rows: np.ndarray) -> np.ndarray:
        """Return rows (n, d) of X from those of the mapped columns."""
        X = rows if self.warp is None else self.warp.unmapped(rows)
        return X if self.periods is None else reduced(X, self.periods)

    def log_window(self, y: np.ndarray, given: np.ndarray) -> np.ndarray:
        """Return the logarithms (n,) of windows at coordinates y (n, d) in free periodic columns.

        Columns of the indices `given` have no window.
        """
        if self.periods is None:
            return np.zeros(len(y))
        free = np.setdiff1d(np.flatnonzero(self.periods), given)
        turns = (y @ self.axes[:, free]) / self.periods[free]
        with np.errstate(divide="ignore"):
            return np.log(np.prod(_window(turns), axis=1))

    def log_windowed(self, y: np.ndarray, given: np.ndarray) -> np.ndarray:
        """Return log-densities (n,) of coordinates y (n, d), windowed in free periodic columns."""
        result = self.log_window(y, given)
        inside = result > -np.inf
        if inside.any():
            result[inside] += self.log_density(y[inside])
        return result

    def log_density_without_relations(
        self, columns: np.ndarray, values: np.ndarray
    ) -> np.ndarray | None:
        """Return log-densities (n,) of values (n, k) of columns that determine all others, else None.

        The values are returned if there are as many relations as other columns, and the joint density is
        constant over rounding errors along the relations, whose Gaussian factor integrates to one.
        """
        d = len(self.origin)
        if not self.n_relations or d - len(columns) != self.n_relations:
            return None
        to_columns = self.axes[:, columns]
        units = column_norms(to_columns)
        axes, rounding = np.split(to_columns / units, [len(columns)])
        widths = self.scales[0, : len(columns), None]
        least_step = np.linalg.svd(widths * axes, compute_uv=False)[-1]
        if np.linalg.norm(rounding) > _NARROW * least_step:
            return None
        values, log_slopes = self.mapped(values, columns)
        y = np.linalg.solve(axes.T, ((values - self.origin[columns]) / units).T).T
        normalizer = gaussian_log_normalizer(self.n_relations)
        log_density = self.log_density(np.pad(y, ((0, 0), (0, self.n_relations))))
        log_volume = np.linalg.slogdet(axes)[1] + np.log(units).sum()
        return log_density + self.log_abs_det + normalizer - float(log_volume) + log_slopes


def _with_images(
    points: np.ndarray, weights: np.ndarray, periods: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return points (N, r) with their images in the windows of `log_windowed`, and windowed weights.

    With equal weights of images, only two thirds of the draws would be effective per free column.
    """
    for column in np.flatnonzero(periods):
        images = points[:, column, None] + periods[column] * np.array([-1.0, 0.0, 1.0])
        row, turn = np.nonzero(np.abs(images) < periods[column])
        points, images = points[row], images[row, turn]
        points[:, column] = images
        weights = weights[row] * _window(images / periods[column])
    return points, weights


def _window(turns: np.ndarray) -> np.ndarray:
    """Return cos^2(pi u / 2) of turns |u| < 1, else 0; its shifts by whole turns sum to one."""
    return np.where(np.abs(turns) < 1, np.cos(0.5 * math.pi * turns) ** 2, 0.0)
