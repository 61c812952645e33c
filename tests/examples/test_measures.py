"""Tests of the measures that single pages of the gallery use."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measures import anisotropy, frechet_distance, local_pca_spectrum, shrinkage
from numpy.testing import assert_allclose


def rows(n, d, seed=0):
    return np.random.RandomState(seed).normal(size=(n, d))


# --- Local covariances ---


@pytest.mark.parametrize(("d", "k"), [(3, 8), (40, 6)])
def test_local_spectra_against_a_loop(d, k):
    X, queries = rows(30, d) * np.geomspace(1, 0.1, d), rows(12, d, seed=1)
    result = local_pca_spectrum(X, queries, n_neighbors=k)
    assert result.shape == (12, min(k - 1, d))
    for query, values in zip(queries, result, strict=True):
        near = X[np.argsort(np.linalg.norm(X - query, axis=1))[:k]]
        expected = np.sort(np.linalg.eigvalsh(np.cov(near.T)))[::-1]
        assert_allclose(values, expected[: len(values)], atol=1e-12)


def test_a_plane_has_two_local_eigenvalues():
    X = rows(200, 2) @ rows(2, 5, seed=1)
    spectrum = local_pca_spectrum(X, X, n_neighbors=10)
    assert np.all(spectrum[:, 1] > 1e-6)
    assert_allclose(spectrum[:, 2:], 0, atol=1e-20)


def test_shrinkage_is_a_ratio_of_variances():
    X = rows(20, 3)
    assert shrinkage(X, X) == 1
    assert shrinkage(0.5 * X + 7, X) == pytest.approx(0.25)
    # Unbiased: twice the same rows have less variance, by (2n - 2) / (2n - 1).
    data = np.concatenate([X, X])
    assert shrinkage(X, data) == pytest.approx((40 - 1) / (40 - 2))


# --- Images ---


def bump(a, b, angle, size=61, place=(0.0, 0.0), shape=None):
    """An elliptical Gaussian of axes a and b, in pixels."""
    height, width = shape or (size, size)
    y, x = np.mgrid[:height, :width] - np.array([height - 1, width - 1])[:, None, None] / 2.0
    x, y = x - place[0], y - place[1]
    u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    return np.exp(-(u**2) / (2 * a**2) - v**2 / (2 * b**2))


@given(
    b=st.floats(1.5, 4.0),
    ratio=st.floats(1.0, 2.0),
    angle=st.floats(0, np.pi),
    place=st.tuples(st.floats(-3, 3), st.floats(-3, 3)),
    brightness=st.floats(1e-6, 1e6),
)
@settings(max_examples=50, deadline=None)
def test_anisotropy_of_an_ellipse(b, ratio, angle, place, brightness):
    """1 - b^2 / a^2: sums are integrals to exp(-2 pi^2 b^2), tails are cut at 3.4 axes or more."""
    image = brightness * bump(b * ratio, b, angle, place=place)
    assert anisotropy([image])[0] == pytest.approx(1 - 1 / ratio**2, abs=0.02)


def test_anisotropy_where_nothing_is_cut():
    images = [bump(3, 3, 0.0), bump(4, 2, 0.7), bump(2, 4, 0.7), bump(3, 2, 0.1, place=(2, -5))]
    assert_allclose(anisotropy(images), [0, 0.75, 0.75, 1 - 4 / 9], atol=1e-9)
    wide = bump(4, 2, np.pi / 2, shape=(51, 81))
    assert_allclose(anisotropy([wide]), 0.75, atol=1e-6)


def test_anisotropy_against_a_loop():
    image = np.random.RandomState(0).uniform(size=(4, 7))
    places = np.array([[i, j] for i in range(4) for j in range(7)], dtype=float)
    tensor = np.cov(places.T, aweights=image.ravel(), ddof=0)
    low, high = np.linalg.eigvalsh(tensor)
    assert anisotropy([image])[0] == pytest.approx(1 - low / high, rel=1e-12)


def test_pixels_lines_and_empty_images():
    pixel, line = np.zeros((2, 5, 9))
    pixel[1, 7] = 2.0
    line[3] = 1.0
    assert_allclose(anisotropy([pixel, line]), [0, 1], atol=1e-12)
    with pytest.raises(ValueError, match=r"1 images have no pixel above background=0\.0"):
        anisotropy([pixel, 0 * pixel])


def test_pixels_below_the_background_do_not_count():
    image = bump(4, 2, 0.3)
    expected = anisotropy([image])
    assert_allclose(anisotropy([image + 5], background=5.0), expected, atol=1e-9)
    # A background that is left in is mass all over the frame.
    assert anisotropy([image + 5])[0] < 0.1
    noisy = image + 0.01 * rows(61, 61)
    clipped = anisotropy([noisy], background=0.05)
    assert_allclose(clipped, anisotropy([np.maximum(noisy - 0.05, 0)]))
    assert_allclose(clipped, expected, atol=0.05)


# --- Frechet distance ---


@pytest.mark.parametrize(
    ("n", "m", "d"), [(50, 40, 3), (5, 4, 10), (4, 60, 10), (60, 4, 10), (2, 2, 3)]
)
def test_frechet_against_matrix_roots(n, m, d):
    X, Y = rows(n, d) * np.geomspace(1, 3, d), rows(m, d, seed=1) + 0.5
    first, second = (np.cov(Z.T).reshape(d, d) for Z in (X, Y))

    def eigen(matrix):
        """Those that a matrix of lower rank has by rounding are zero."""
        values, vectors = np.linalg.eigh(matrix)
        return np.where(values > 1e-12 * values.max(), values, 0), vectors

    values, vectors = eigen(first)
    root = vectors @ np.diag(np.sqrt(values)) @ vectors.T
    cross = np.sqrt(eigen(root @ second @ root)[0]).sum()
    square = np.sum((X.mean(0) - Y.mean(0)) ** 2) + np.trace(first + second) - 2 * cross
    # What the oracle takes for rounding, 1e-12, has a root of 1e-6.
    assert frechet_distance(X, Y) == pytest.approx(math.sqrt(square), rel=1e-6)


def test_frechet_in_closed_form():
    """Commuting covariances: |m|^2 + sum (a_j - b_j)^2 of the standard deviations."""
    corners = np.array(np.meshgrid(*[[-1.0, 1.0]] * 3)).reshape(3, -1).T * math.sqrt(7 / 8)
    X, Y = corners * [1, 2, 3], corners * [2, 2, 0] + [0, 4, 0]
    assert frechet_distance(X, Y) == pytest.approx(math.sqrt(16 + 1 + 9), rel=1e-9)


def test_frechet_depends_on_two_moments_only():
    X = np.concatenate([rows(200, 2), 6 + rows(200, 2, seed=1)])
    Z = rows(400, 2, seed=2)
    Z = (Z - Z.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(Z.T))).T
    same_moments = Z @ np.linalg.cholesky(np.cov(X.T)).T + X.mean(0)
    assert frechet_distance(same_moments, X) < 1e-5
