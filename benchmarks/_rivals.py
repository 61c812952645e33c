"""The methods that the library is compared with: one softmax a shifted query, and Monte Carlo.

Where there is a choice it is made in the rival's favour: tiles that stay in the cache, products of
matrices instead of differences, float32 where Monte Carlo noise hides the rounding.
"""

import itertools
import math

import torch


def direct(points, x, v, offsets, tile):
    """Return posterior mean and trace by one softmax over the points for each shifted query."""
    half_norms = 0.5 * points.square().sum(1)
    features = torch.column_stack([points, 2 * half_norms])
    means, traces = [], []
    for queries in x.split(tile):
        y = (queries[:, None, :] + offsets).flatten(0, 1)
        # |y|^2 is the same for all points, and softmax does not depend on it.
        logits = torch.addmm(-half_norms / v, y, points.T, alpha=1 / v)
        averages = torch.softmax(logits, dim=1) @ features
        mean = averages[:, :-1]
        trace = averages[:, -1] - mean.square().sum(1)
        means.append(mean.unflatten(0, (-1, len(offsets))).mean(1))
        traces.append(trace.unflatten(0, (-1, len(offsets))).mean(1))
    return torch.cat(means), torch.cat(traces)


def monte_carlo_score(points, x, v, offsets):
    """Average the score over the shifted queries, offsets of shape (M, d) or (B, M, d)."""
    y = x[:, None, :] + offsets
    logits = (y @ points.T - 0.5 * points.square().sum(1)) / v
    return ((torch.softmax(logits, dim=-1) @ points - y) / v).mean(1)


def monte_carlo_log_likelihood(points, x, sigma, n_nodes, variances, generator):
    """Follow the flow by Euler steps, with fresh draws at each and the divergence by autodiff.

    The terminal distribution is a Gaussian about the mean of the points.
    """
    dimension = x.shape[1]
    change = torch.zeros(len(x))
    for v, following in itertools.pairwise(variances):
        x = x.detach().requires_grad_()
        offsets = sigma * torch.randn(len(x), n_nodes, dimension, generator=generator)
        score = monte_carlo_score(points, x, v, offsets)
        divergence = sum(
            torch.autograd.grad(score[:, k].sum(), x, retain_graph=k + 1 < dimension)[0][:, k]
            for k in range(dimension)
        )
        change -= 0.5 * (following - v) * divergence
        x = x - 0.5 * (following - v) * score
    squares = (x.detach() - points.mean(0)).square().sum(1)
    terminal = -0.5 * squares / variances[-1] - 0.5 * dimension * math.log(
        2 * math.pi * variances[-1]
    )
    return terminal + change
