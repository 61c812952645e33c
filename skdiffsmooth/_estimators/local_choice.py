"""The denoisers of each noise level, chosen by the error with which they denoise left-out rows.

A smaller denoising error means a higher likelihood: by the I-MMSE relation (Guo, Shamai & Verdu 2005)
the log-density of left-out rows changes by the integral of error / v over log sqrt(v), where v is the
noise variance. So no ODE is solved. The error of a weighted mean of denoisers is a quadratic form in the
weights, which is minimised over weights that are not negative and sum to one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import nnls

from .._diffusion.settings import Resources
from .._utils.dequantize import excluded_rows
from .._utils.rows import evenly
from ..noise import NoiseLevels
from .local_groups import GroupFamily, ShiftedImages
from .local_source import Gaussian, LevelMixture, LocalPart, PointTables

# Values of `width` that "auto" compares: covariance of the Gaussian at each row over that of the data.
WIDTHS = (0.0, 0.05, 0.2)
# Largest numbers of rows and of columns whose error is computed.
_MOST_ROWS, _MOST_COLUMNS = 256, 24
# A row is denoised with the covariance of the rows in other folds; otherwise, with few rows and many
# columns, the best density would have zero width across their affine hull.
N_FOLDS = 5
# The highest optional level where denoisers remove less than this fraction of the noise is dropped,
# with all levels below it.
_LEAST_GAIN = 0.01
# Most denoisers of a mixture, and the least increase of its error if any one of them is removed.
_MOST_PARTS, _LEAST_LOSS = 3, 5e-3


@dataclass(frozen=True, eq=False)
class ExcludedQueries:
    """Training rows (N, d) less their mean, and queries (n, d), each of which excludes one of them.

    A query is the row it excludes, with random offsets in columns that were rounded (`excluded_rows`).
    `exclude` (n,) has the indices of these rows; `query_weights` (n,) sum to one.
    """

    points: np.ndarray
    weights: np.ndarray
    queries: np.ndarray
    exclude: np.ndarray
    query_weights: np.ndarray
    folds: np.ndarray  # (N,): fold of each row; copies of one row share theirs

    @classmethod
    def of(cls, points: np.ndarray, weights: np.ndarray, widths: np.ndarray) -> ExcludedQueries:
        """Return the rows with at most 256 queries; `widths` (d,) are those of `ColumnPrecision`."""
        rows = excluded_rows(points, weights, widths)
        folds = np.arange(len(points)) % N_FOLDS
        if rows is None:
            exclude, queries, query_weights = np.arange(len(points)), points, weights
        else:
            points, weights, folds = points[rows.point], rows.weights, folds[rows.point]
            exclude, query_weights = rows.exclude, rows.query_weights
            queries = points[exclude] + rows.offsets
        taken = evenly(len(queries), _MOST_ROWS)
        share = query_weights[taken] / query_weights[taken].sum()
        return cls(points, weights, queries[taken], exclude[taken], share, folds)


def covariances_by_fold(
    points: np.ndarray, weights: np.ndarray, folds: np.ndarray, exclude: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return a pair for each fold: which of the rows `exclude` (n,) are in it, and a covariance (d, d).

    The covariance is that of the points (N, d) in all other folds, so that no row is denoised with a
    covariance that it contributed to.
    """
    parts = []
    for fold in np.unique(folds[exclude]):
        others = folds != fold
        kept, share = points[others], weights[others] / weights[others].sum()
        kept = kept - share @ kept
        parts.append((np.flatnonzero(folds[exclude] == fold), (kept.T * share) @ kept))
    return parts


def choose_mixtures(
    rows: ExcludedQueries,
    levels: NoiseLevels,
    n_optional: int,
    family: GroupFamily,
    widths: Sequence[float],
    has_gaussian: bool,
    images: ShiftedImages | None,
    background: tuple[float, float],
    resources: Resources,
    seed: int,
) -> tuple[tuple[LevelMixture, ...], np.ndarray]:
    """Return the mixture of denoisers of each level, and its error (n_levels,) over the noise variance.

    If the denoisers of one of the `n_optional` lowest levels remove too little of the noise, that level
    and all below it are dropped. Errors are means over columns that vary, and NaN if there is only one
    row, which cannot be left out.
    """
    if not np.any(rows.folds):
        groups = [family.make(family.sizes[-1], levels.middle(k)) for k in range(levels.n_levels)]
        alone = [LevelMixture((LocalPart(g, widths[0], 0),), np.ones(1), 0.0) for g in groups]
        return tuple(alone), np.full(levels.n_levels, np.nan)
    mixtures: list[LevelMixture] = []
    errors: list[float] = []
    # Constant columns are left out: all noise is removed from them at every level, whatever the
    # denoiser.
    varying = np.flatnonzero(np.ptp(rows.points, axis=0))
    columns = varying[evenly(len(varying), _MOST_COLUMNS)]
    backend = resources.backend
    folds = covariances_by_fold(rows.points, rows.weights, rows.folds, rows.exclude)
    settings = images, background, backend, resources.memory_limit
    tables = PointTables(rows.points, rows.weights, *settings)
    for level in reversed(range(levels.n_levels)):
        scale = levels.middle(level)
        groups = [family.make(size, scale) for size in family.sizes]
        parts = [LocalPart(group, width, 0) for group in groups for width in widths]
        if images is not None:
            patches = [part for part in parts if part.groups.size < rows.points.shape[1]]
            parts += [part._replace(shifts=images.shifts) for part in patches]
        noise = np.random.default_rng([seed, level]).standard_normal(rows.queries.shape)
        residuals = np.empty((len(noise), len(columns), len(parts) + has_gaussian))
        for taken, covariance in folds:
            x = backend.tensor(rows.queries[taken] + scale * noise[taken])
            exclude = torch.from_numpy(rows.exclude[taken]).to(backend.device)
            scores = [
                tables.posterior(part._replace(groups=part.groups.only(columns)), covariance).score(
                    x, scale**2, exclude
                )[0]
                for part in parts
            ]
            if has_gaussian:
                scores.append(Gaussian.of(covariance).score(x, scale**2)[0])
            for j, score in enumerate(scores):
                denoised = noise[taken] + scale * backend.array(score)
                residuals[taken, :, j] = denoised[:, columns]
        errors_of_pairs = np.einsum("i,ipj,ipk->jk", rows.query_weights, residuals, residuals)
        weights = _best_weights(errors_of_pairs / len(columns))
        error = float(weights @ errors_of_pairs @ weights) / len(columns)
        # The mean square of the noise that was drawn, not its expectation 1: both it and the error vary
        # with the draw.
        drawn = float(rows.query_weights @ np.square(noise[:, columns]).mean(axis=1))
        if level < n_optional and drawn - error < _LEAST_GAIN:
            break
        errors.append(error)
        used = [j for j in range(len(parts)) if weights[j]]
        of_gaussian = float(weights[-1]) if has_gaussian else 0.0
        mixtures.append(LevelMixture(tuple(parts[j] for j in used), weights[used], of_gaussian))
    return tuple(mixtures[::-1]), np.array(errors[::-1])


def _best_weights(errors: np.ndarray) -> np.ndarray:
    """Return weights a (J,) >= 0 of sum one that minimise a^T errors a, with few of them positive.

    As long as there are too many denoisers, or the error hardly increases, the denoiser whose removal
    increases the error least is removed.
    """

    def fitted(kept: np.ndarray) -> tuple[float, np.ndarray]:
        weights = np.zeros(len(errors))
        weights[kept] = _on_simplex(errors[np.ix_(kept, kept)])
        return float(weights @ errors @ weights), weights

    error, weights = fitted(np.arange(len(errors)))
    while np.count_nonzero(weights) > 1:
        used = np.flatnonzero(weights)
        without = [fitted(used[used != j]) for j in used]
        least, fewer = min(without, key=lambda pair: pair[0])
        if len(used) <= _MOST_PARTS and least - error >= _LEAST_LOSS:
            break
        error, weights = least, fewer
    return weights


def _on_simplex(errors: np.ndarray) -> np.ndarray:
    """Return weights a (J,) >= 0 of sum one that minimise a^T errors a."""
    values, vectors = np.linalg.eigh(errors)
    root = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T
    # A least-squares equation of large weight makes the sum of the weights nearly one; the division by
    # the sum makes it exactly one.
    large = 1e4 * max(float(np.sqrt(values.max())), 1e-300)
    weights, _ = nnls(
        np.vstack([root, np.full(len(errors), large)]), np.append(np.zeros(len(errors)), large)
    )
    return weights / weights.sum()
