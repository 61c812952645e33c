"""An estimate of the error in log-densities that is due to the finite number of nodes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from ..manifolds._neighbors import NearestPoints
from ..scores import ScoreSchedule
from ._nodes import NodeRule

# Nodes are doubled until the estimated error of a single log-density is below _TOLERANCE nats (that of
# their mean is many times smaller), or until there are _MOST_NODES.
_TOLERANCE = 0.2
_MOST_NODES = 512
# If an accuracy is requested, the nodes may use this part of it, since the estimate is from few rows
# and other errors are added; and there may be this many nodes.
_PART = 0.7
_MOST_REQUESTED_NODES = 4096

# The estimate decides between powers of two, so few rows and levels are enough.
_N_ROWS = 16
_N_LEVELS = 8


# Corrections of divergences are means over this many rows, from a comparison with this many times the
# number of nodes.
_N_CORRECTING, _MORE_NODES = 64, 6


def checked_rows(schedule: ScoreSchedule, n_rows: int = _N_ROWS) -> tuple[np.ndarray, np.ndarray]:
    """Return rows (n, r), evenly spaced in order of the widest coordinate, and normal noise for them.

    Thin components of a base contain the rows that they were fitted to, but not new rows. So with a base
    the rows are moved in random directions, by about the distance from the nearest other row.
    """
    points = schedule.shards.first(schedule.hierarchy.points)
    rows = points[_evenly(points, n_rows)]
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(rows.shape)
    if schedule.base is not None and len(points) > 1:
        nearest = NearestPoints(points, schedule.memory_limit)
        distances = nearest.query(torch.from_numpy(rows), 2)[0][:, 1:].numpy()
        rows = rows + distances / math.sqrt(rows.shape[1]) * rng.standard_normal(rows.shape)
    return rows, noise


def _evenly(points: np.ndarray, n: int) -> np.ndarray:
    """Return indices of at most n points, evenly spaced in the order of the widest coordinate."""
    # A hull of dimension zero has one row, and no coordinate.
    order = np.argsort(points[:, :1].sum(axis=1), kind="stable")
    return order[np.linspace(0, len(points) - 1, min(n, len(points))).astype(int)]


def node_error(schedule: ScoreSchedule, reference: ScoreSchedule) -> float:
    """Return the root mean square difference of log-densities from those of `reference`, in nats.

    `reference` is the same model with more and different nodes. The scores s and divergences of
    both are compared at noised rows. To first order an error e of the score changes a log-density by
    the integral of v (div e + e . s) over log sqrt(v): the first term is due to the error of the
    divergence, the second to that of the position. Errors of different levels are independent, so the
    squares of their contributions are added.
    """
    levels = schedule.levels
    rows, noise = checked_rows(schedule)
    checked = np.unique(np.linspace(0, levels.n_levels - 1, _N_LEVELS).astype(int))
    squares = np.zeros(len(rows))
    for level in checked.tolist():
        scale = levels.middle(level)
        x = schedule.backend.tensor(rows + scale * noise)
        score, divergence = schedule.at(level).with_divergence(x, scale**2)
        finer_score, finer = reference.at(level).with_divergence(x, scale**2)
        change = divergence - finer + ((score - finer_score) * score).sum(1)
        width = math.log(levels.start(level + 1) / levels.start(level))
        squares += (width * scale**2 * schedule.backend.array(change)) ** 2
    return float(np.sqrt(np.mean(squares) * levels.n_levels / len(checked)))


def divergence_shifts(
    schedule: Callable[[NodeRule, np.ndarray], ScoreSchedule], rule: NodeRule, points: np.ndarray
) -> np.ndarray:
    """Return by how much v times the divergences of each level (n_levels,) are too small on average.

    Frames integrate terms of order four exactly only on average over rotations, and in many dimensions
    the errors from these terms are alike at all rows. Divergences are compared with those of more nodes,
    at noised points that `schedule(rule, exclude)` excludes, as if they were held-out rows.
    """
    index = _evenly(points, _N_CORRECTING)
    coarse = schedule(rule, index)
    n_nodes = _MORE_NODES * coarse.smoothing.n_nodes
    fine = schedule(replace(rule, n_nodes=n_nodes, seed=rule.seed + 1), index)
    rng = np.random.default_rng(0)
    shifts = np.zeros(coarse.levels.n_levels)
    for level in range(len(shifts)):
        scale = coarse.levels.middle(level)
        noise = rng.standard_normal((len(index), points.shape[1]))
        x = coarse.backend.tensor(points[index] + scale * noise)
        _, divergence = coarse.at(level).with_divergence(x, scale**2)
        _, finer = fine.at(level).with_divergence(x, scale**2)
        shifts[level] = scale**2 * float((finer - divergence).mean())
    return shifts


def enough_nodes(
    schedule: Callable[[NodeRule], ScoreSchedule],
    rule: NodeRule,
    tol: float | None,
    *,
    is_fixed: bool,
) -> tuple[NodeRule, float]:
    """Return the rule with enough nodes for an error of `tol`, and the estimated error, in nats.

    `schedule` returns the model under a rule, whose number of nodes is doubled until it is enough,
    unless `is_fixed`. The error is NaN if the field has no divergence.
    """
    largest, most = _TOLERANCE, _MOST_NODES
    if tol is not None:
        largest, most = _PART * tol, _MOST_REQUESTED_NODES
    if not schedule(rule).smoothing.has_divergence:
        return rule, math.nan
    while True:
        finer = replace(rule, name="sobol", n_nodes=2 * rule.n_nodes, seed=rule.seed + 1)
        error = node_error(schedule(rule), schedule(finer))
        if is_fixed or error < largest or rule.n_nodes >= most:
            return rule, error
        rule = replace(rule, n_nodes=2 * rule.n_nodes)
