"""Held-out rows of one fold under models of its training rows, in the coordinates of one metric."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from .._coordinates.embedding import Embedding
from .._engine.periodic import PeriodicPosterior, make_posterior
from .._engine.posterior import Posterior
from .._utils.cached import cached_property
from ..bandwidth import Queries
from .background import Tail, tail_log_density
from .fitting import make_model
from .geometry import Geometry, leave_one_out_bandwidth
from .settings import ParsedParameters, Sigma


class HeldOutRows(NamedTuple):
    """Held-out rows (n, d) as recorded, offsets (n, d) at which they are scored, and weights (n,).

    `exclude` (n,) are their indices among the training rows; None if they are not training rows.
    """

    recorded: np.ndarray
    offsets: np.ndarray
    weights: np.ndarray
    exclude: np.ndarray | None


class Fold:
    """Training rows in the coordinates of a metric, and the rows at which their models are scored."""

    def __init__(
        self,
        geometry: Geometry,
        held_out: HeldOutRows,
        parsed: ParsedParameters,
        *,
        is_screening: bool,
        first: Fold | None,
    ) -> None:
        self.geometry, self.held_out, self.parsed = geometry, held_out, parsed
        self.is_screening, self._first = is_screening, first
        self._kdes: dict[float, np.ndarray] = {}
        self.embedding = Embedding(geometry.metric, geometry.hull)
        exclude, self.rows = held_out.exclude, held_out.recorded + held_out.offsets
        if exclude is None:
            self.training = geometry
            self.x, self.residual = self.embedding.split(self.rows)
        else:
            self.training = geometry.with_copies_apart()
            self.x = geometry.moved(exclude, held_out.offsets)
            self.residual = np.zeros_like(self.rows)

    @cached_property
    def h(self) -> float:
        """Bandwidth of highest leave-one-out likelihood of the KDE of the training rows.

        In screening, the search starts at the bandwidth of the first fold.
        """
        return leave_one_out_bandwidth(
            self.geometry,
            self.parsed,
            is_screening=self.is_screening,
            near=None if self._first is None else self._first.h,
        )

    @cached_property
    def _posterior(self) -> Posterior | PeriodicPosterior:
        resources, training = self.parsed.resources, self.training
        return make_posterior(
            training.coordinates,
            training.data.weights,
            training.periods,
            resources.backend,
            memory_limit=resources.memory_limit,
        )

    @cached_property
    def log_slopes(self) -> np.ndarray | float:
        """Log |det| (n,) of the maps of columns at the rows, in nats; 0 if no column is mapped."""
        return self.embedding.log_slopes(self.x, self.residual)

    def kde(self, scale: float) -> np.ndarray:
        """Return log-densities (n,) under the Gaussian kernel density estimate of a bandwidth."""
        if scale in self._kdes:
            return self._kdes[scale]
        backend, exclude = self.parsed.resources.backend, self.held_out.exclude
        index = None if exclude is None else torch.from_numpy(exclude).to(backend.device)
        within = self._posterior.log_density(backend.tensor(self.x), scale**2, exclude=index)
        outside = self.embedding.log_density_outside_hull(self.residual, scale)
        self._kdes[scale] = backend.array(within) + outside + self.log_slopes
        return self._kdes[scale]

    @cached_property
    def tails(self) -> np.ndarray:
        """Log-densities (n, n_students) under the t distributions that a background may have."""
        coordinates, weights = self.training.coordinates, self.training.data.weights
        columns = []
        for student in self.geometry.students:
            excluded = None
            if self.held_out.exclude is not None:
                excluded = student.leave_one_out_log_density(coordinates, weights)
                excluded = excluded[self.held_out.exclude]
            columns.append(
                tail_log_density(student, self.embedding, self.x, self.residual, excluded)
            )
        return np.column_stack(columns) + np.reshape(self.log_slopes, (-1, 1))

    @cached_property
    def distances(self) -> np.ndarray:
        """Distances (n, n_students) from the centers of the t distributions of `tails`."""
        return np.column_stack([student.distances(self.x) for student in self.geometry.students])

    def parts(
        self, bandwidth: float, sigma: Sigma, parsed: ParsedParameters
    ) -> tuple[np.ndarray, Tail | None]:
        """Return log-densities (n, 3) under a model's parts, and its tail; (n, 1) without background."""
        model, _ = make_model(self.training, parsed, bandwidth, sigma, is_candidate=True)
        if self.held_out.exclude is None:
            return model.parts(self.rows, parsed.resources), model.tail
        queries = Queries(self.x, self.held_out.exclude, self.held_out.weights)
        return model.leave_one_out_parts(parsed.resources, queries), model.tail
