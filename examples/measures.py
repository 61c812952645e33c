"""Measures of samples that single pages of the gallery use."""

import numpy as np
from sklearn.neighbors import NearestNeighbors


def anisotropy(images, background=0.0):
    """Return the anisotropy (n,) of the bright part of each image (n, height, width), in [0, 1].

    An image is read as a distribution of mass, the value of a pixel above the background. With l_1 >=
    l_2 the eigenvalues of its covariance the anisotropy is 1 - l_2 / l_1: 0 for a round bump,
    1 - b^2 / a^2 for a Gaussian of axes a > b, 1 for a line. Two round bumps in one image count as one
    elongated shape. If samples are noisy, pass a background above the noise.
    """
    mass = np.maximum(np.asarray(images, dtype=float) - background, 0.0)
    total = mass.sum(axis=(1, 2))
    if not total.all():
        raise ValueError(
            f"{np.sum(total == 0)} images have no pixel above background={background}."
        )
    mass /= total[:, None, None]
    lines, columns = (np.arange(size) - (size - 1) / 2 for size in mass.shape[1:])
    by_line, by_column = mass.sum(axis=2), mass.sum(axis=1)
    y, x = by_line @ lines, by_column @ columns
    yy, xx = by_line @ lines**2 - y**2, by_column @ columns**2 - x**2
    xy = np.einsum("nij,i,j->n", mass, lines, columns, optimize=True) - x * y
    half_sum, half_gap = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    longest = half_sum + half_gap
    # A single pixel has no extent, up to rounding.
    has_extent = longest > 1e-12 * (lines[-1] ** 2 + columns[-1] ** 2)
    return np.minimum(np.divide(2 * half_gap, longest, out=np.zeros(len(x)), where=has_extent), 1.0)


def frechet_distance(X, Y):
    """Return the Frechet (2-Wasserstein) distance between Gaussian fits of two samples, in units of X.

    ``F^2 = |m_X - m_Y|^2 + tr(C_X + C_Y - 2 (C_X C_Y)^(1/2))``. With A and B the centred rows over
    sqrt(n - 1), the trace of the root is the sum of the singular values of A B^T. What is known as FID
    is F^2 of the features of one particular network. It depends on the first two moments only, and is
    biased upwards for small n. ``ot.gaussian.empirical_bures_wasserstein_distance`` of POT computes the
    same.
    """
    first, second = ((Z - Z.mean(axis=0)) / np.sqrt(len(Z) - 1) for Z in (X, Y))
    overlap = np.linalg.svd(first @ second.T, compute_uv=False).sum()
    shift = X.mean(axis=0) - Y.mean(axis=0)
    square = shift @ shift + np.sum(first**2) + np.sum(second**2) - 2 * overlap
    return float(np.sqrt(max(square, 0.0)))


def local_pca_spectrum(X, queries, n_neighbors):
    """Return the eigenvalues (m, min(K - 1, d)) of the covariance of the K rows nearest to each query.

    Largest first, in squared units of X. Near a manifold of dimension k the first k are of the size of
    the squared distance of the neighbours, the others of the noise and the curvature.
    """
    near = X[NearestNeighbors(n_neighbors=n_neighbors).fit(X).kneighbors(queries)[1]]
    near = near - near.mean(axis=1, keepdims=True)
    values = np.linalg.svd(near, compute_uv=False)[:, : n_neighbors - 1]
    return values**2 / (n_neighbors - 1)


def shrinkage(X, data):
    """Return the total variance of samples over that of the data, tr Cov(X) / tr Cov(data).

    One is the target: smoothing a score contracts the cloud, a kernel density estimate widens it.
    """
    return X.var(axis=0, ddof=1).sum() / data.var(axis=0, ddof=1).sum()
