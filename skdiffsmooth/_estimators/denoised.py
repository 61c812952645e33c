"""Noisy rows moved towards their posterior mean, and the density of where they arrive.

F(x) = (1 - a) x + a D(x), D the posterior mean under noise of variance v. D is the gradient of
|x|^2 / 2 + v log p_v(x), which is convex, so F is one to one for a < 1, with the Jacobian matrix
(1 - a) I + a Cov / v. Rows of law p_v arrive with log-density log p_v(x) - log|det dF/dx|.
"""

from __future__ import annotations

import torch

from .._engine.posterior import Posterior

__all__ = ["denoised_log_density"]

# Newton's method on a strongly convex function: quadratic at the end, and far rows take some steps.
ITERATIONS, HALVINGS = 100, 40
# A residual, in roundings of the rows in units of the noise scale, that is small enough.
ARRIVED = 1e4
# Armijo's share of the promised decrease.
DECREASE = 1e-4


def denoised_log_density(posterior: Posterior, y: torch.Tensor, share: float) -> torch.Tensor:
    """Return the log-density of noisy rows that moved a share of the way to their posterior mean.

    Parameters
    ----------
    posterior : Posterior
        The points, in units of the noise scale: the noise has variance one.
    y : torch.Tensor of shape (n, r)
        Where rows arrived.
    share : float
        The share a, 0 <= a < 1.

    Returns
    -------
    torch.Tensor of shape (n,)
        In nats.

    Notes
    -----
    F is inverted by Newton's method on (1 - a) |x|^2 / 2 + a (|x|^2 / 2 + log p(x)) - x . y, some ten
    steps of O(n N r^2 + n r^3) each.
    """
    identity = torch.eye(y.shape[1], dtype=y.dtype, device=y.device)
    x = y.clone()
    moving = torch.arange(len(y), device=y.device)
    rounding = torch.finfo(y.dtype).eps
    tolerance = ARRIVED * rounding * (1 + torch.linalg.vector_norm(y, dim=1))
    for _ in range(ITERATIONS):
        here, target = x[moving], y[moving]
        directions = identity.expand(len(moving), -1, -1)
        found = posterior.covariance_along(here, 1.0, directions)
        residual = (1 - share) * here + share * found.mean - target
        jacobian = (1 - share) * identity + share * found.along
        step = torch.linalg.solve(jacobian, residual)
        slope = (residual * step).sum(1)
        before = _potential(here, found.log_density, target, share)
        length = torch.ones_like(slope)
        for _ in range(HALVINGS):
            ahead = here - length[:, None] * step
            after = _potential(ahead, posterior.log_density(ahead, 1.0), target, share)
            # What rounding of the potential hides counts as a decrease.
            slack = 64 * rounding * (1 + before.abs())
            short = after > before - DECREASE * length * slope + slack
            if not short.any():
                break
            length = torch.where(short, length / 2, length)
        x[moving] = ahead
        moving = moving[torch.linalg.vector_norm(residual, dim=1) > tolerance[moving]]
        if len(moving) == 0:
            break
    found = posterior.covariance_along(x, 1.0, identity.expand(len(x), -1, -1))
    jacobian = (1 - share) * identity + share * found.along
    return found.log_density - torch.linalg.slogdet(jacobian).logabsdet


def _potential(
    x: torch.Tensor, log_density: torch.Tensor, target: torch.Tensor, share: float
) -> torch.Tensor:
    return x.square().sum(1) / 2 + share * log_density - (x * target).sum(1)
