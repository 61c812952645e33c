"""The density of noisy rows after a step towards their posterior mean.

F(x) = (1 - a) x + a D(x), with the posterior mean D under noise of variance v. D is the gradient of
|x|^2 / 2 + v log p_v(x), which is convex, so F is one to one for a < 1, with the Jacobian matrix
(1 - a) I + a Cov / v. If x has density p_v, then F(x) has log-density log p_v(x) - log|det dF/dx|.
"""

from __future__ import annotations

import torch

from .._engine.posterior import Posterior

# Limits of Newton's method on a strongly convex function: it converges quadratically near the minimum,
# and rows far from the points need more steps.
MAX_ITERATIONS, MAX_HALVINGS = 100, 40
# The residual at which a row has converged, in units of rounding of y / noise scale.
CONVERGED = 1e4
# A step is accepted if the decrease is at least this fraction of the predicted one (Armijo).
DECREASE = 1e-4


def denoised_log_density(posterior: Posterior, y: torch.Tensor, fraction: float) -> torch.Tensor:
    """Return the log-density (n,), in nats, of F(x) at y (n, r), where x are points plus noise.

    Lengths are in units of the noise scale; `fraction` is a < 1. F is inverted by about ten Newton
    steps, of cost O(n N r^2 + n r^3) each, that minimise (1 - a) |x|^2 / 2 + a (|x|^2 / 2 + log p(x)) -
    x . y.
    """
    identity = torch.eye(y.shape[1], dtype=y.dtype, device=y.device)
    x = y.clone()
    moving = torch.arange(len(y), device=y.device)
    rounding = torch.finfo(y.dtype).eps
    tolerance = CONVERGED * rounding * (1 + torch.linalg.vector_norm(y, dim=1))
    for _ in range(MAX_ITERATIONS):
        here, target = x[moving], y[moving]
        directions = identity.expand(len(moving), -1, -1)
        moments = posterior.covariance_along(here, 1.0, directions)
        residual = (1 - fraction) * here + fraction * moments.mean - target
        jacobian = (1 - fraction) * identity + fraction * moments.along
        step = torch.linalg.solve(jacobian, residual)
        slope = (residual * step).sum(1)
        before = _potential(here, moments.log_density, target, fraction)
        length = torch.ones_like(slope)
        for _ in range(MAX_HALVINGS):
            ahead = here - length[:, None] * step
            after = _potential(ahead, posterior.log_density(ahead, 1.0), target, fraction)
            # An increase within the rounding of the potential counts as a decrease.
            slack = 64 * rounding * (1 + before.abs())
            rejected = after > before - DECREASE * length * slope + slack
            if not rejected.any():
                break
            length = torch.where(rejected, length / 2, length)
        x[moving] = ahead
        moving = moving[torch.linalg.vector_norm(residual, dim=1) > tolerance[moving]]
        if len(moving) == 0:
            break
    moments = posterior.covariance_along(x, 1.0, identity.expand(len(x), -1, -1))
    jacobian = (1 - fraction) * identity + fraction * moments.along
    return moments.log_density - torch.linalg.slogdet(jacobian).logabsdet


def _potential(
    x: torch.Tensor, log_density: torch.Tensor, target: torch.Tensor, fraction: float
) -> torch.Tensor:
    """Return the values (n,) of the function whose minimum is at x = F^-1(target)."""
    return x.square().sum(1) / 2 + fraction * log_density - (x * target).sum(1)
