"""A method that the library is compared with: one softmax for each shifted query.

Where there is a choice it is made in its favour: tiles that stay in the cache, and products of matrices
instead of differences. The published procedure is in `published.py`.
"""

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
