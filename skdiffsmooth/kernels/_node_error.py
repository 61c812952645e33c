"""What finitely many nodes cost: an estimate of the quadrature error of log-densities."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..scores import ScoreSchedule
from ._nodes import NodeRule

__all__ = ["enough_nodes", "node_error"]

# Nodes are doubled until the estimated error of a single log-density is below this many nats (that of
# their mean is many times smaller), or until there are so many.
_TOLERANCE = 0.2
_MOST_NODES = 512

# Few of both are enough for an estimate that decides between powers of two.
_N_ROWS = 16
_N_LEVELS = 8


def node_error(schedule: ScoreSchedule, reference: ScoreSchedule) -> float:
    """Estimate how far log-densities are from those of a finer node set.

    Each level's nodes err on their own, so the squares of what levels contribute to the change of a
    log-density along the flow add up. Positions are held, at noised data: how errors of the score
    move them is not in the estimate.

    Parameters
    ----------
    schedule : ScoreSchedule
        The model.
    reference : ScoreSchedule
        The same with more nodes, other ones.

    Returns
    -------
    float
        Root mean square over rows, in nats.
    """
    levels = schedule.levels
    points = schedule.shards.first(schedule.hierarchy.points)
    # In the order of the widest coordinate, which is not that of the rows of X and turns with them.
    order = np.argsort(points[:, 0], kind="stable")
    rows = points[order[np.linspace(0, len(points) - 1, min(_N_ROWS, len(points))).astype(int)]]
    noise = np.random.default_rng(0).standard_normal(rows.shape)
    checked = np.unique(np.linspace(0, levels.n_levels - 1, _N_LEVELS).astype(int))
    squares = np.zeros(len(rows))
    for level in checked.tolist():
        scale = levels.middle(level)
        x = schedule.backend.tensor(rows + scale * noise)
        _, here = schedule.at(level).with_divergence(x, scale**2)
        _, there = reference.at(level).with_divergence(x, scale**2)
        width = math.log(levels.start(level + 1) / levels.start(level))
        squares += (width * scale**2 * schedule.backend.array(here - there)) ** 2
    return float(np.sqrt(np.mean(squares) * levels.n_levels / len(checked)))


def enough_nodes(
    schedule: Callable[[NodeRule], ScoreSchedule], rule: NodeRule, *, is_fixed: bool
) -> tuple[NodeRule, float]:
    """Double the nodes until their estimated error is small.

    Parameters
    ----------
    schedule : callable
        Returns the model under a rule.
    rule : NodeRule
        The fewest nodes.
    is_fixed : bool
        Whether their number is not to be changed: the error is estimated all the same.

    Returns
    -------
    rule : NodeRule
        With the number of nodes to use.
    error : float
        Its `node_error`; NaN where the field has no divergence to tell it by.
    """
    if not schedule(rule).smoothing.has_divergence:
        return rule, math.nan
    while True:
        finer = NodeRule("sobol", 2 * rule.n_nodes, rule.seed + 1)
        error = node_error(schedule(rule), schedule(finer))
        if is_fixed or error < _TOLERANCE or rule.n_nodes >= _MOST_NODES:
            return rule, error
        rule = replace(rule, n_nodes=2 * rule.n_nodes)
