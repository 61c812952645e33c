"""Gaussian kernels, isotropic or with any covariance."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from .._coordinates.hull import AffineHull
from .._utils.validation import check_choice, check_finite, check_real_array
from ._shapes import LinearShape


class GaussianKernel:
    """Isotropic Gaussian offsets, the default kernel and that of the paper.

    See Also
    --------
    AnisotropicGaussianKernel : Offsets of any covariance.

    Notes
    -----
    `sigma` is their standard deviation along each coordinate.

    References
    ----------
    T. Farghly et al., Diffusion Models and the Manifold Hypothesis: Log-Domain Smoothing is Geometry
    Adaptive, NeurIPS 2025, arXiv:2510.02305, eq. 5-7.

    Examples
    --------
    >>> from skdiffsmooth import SmoothedScoreDiffusion
    >>> from skdiffsmooth.kernels import GaussianKernel
    >>> model = SmoothedScoreDiffusion(0.1, 0.2, kernel=GaussianKernel())  # kernel="gaussian"
    """

    is_isotropic: ClassVar[bool] = True
    works_over_base: ClassVar[bool] = True

    def __repr__(self) -> str:
        return "GaussianKernel()"

    def reduce(self, hull: AffineHull, points: np.ndarray, weights: np.ndarray) -> LinearShape:
        """See `Kernel`; estimators call this."""
        return LinearShape(np.eye(hull.dimension))


class AnisotropicGaussianKernel:
    """Gaussian offsets with the covariance sigma^2 S.

    Parameters
    ----------
    covariance : array-like of shape (d, d) or (d,), or "data"
        S, in squared units of X over those of `sigma`. A vector holds standard deviations, one a
        feature (a *scale*, not a variance). "data" is the weighted covariance of the training rows, so
        that `sigma` is in units of the data's own standard deviations.

    Raises
    ------
    ValueError
        If a matrix is not finite, square, symmetric and positive semi-definite, or a standard deviation
        is negative.

    Notes
    -----
    Directions of zero variance are not smoothed at all. With ``sigma="auto"`` the widest direction has
    the scale that the isotropic kernel would have.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffsmooth import SmoothedScoreDiffusion
    >>> from skdiffsmooth.kernels import AnisotropicGaussianKernel
    >>> X = np.random.RandomState(0).normal(size=(50, 2)) * [3.0, 0.1]
    >>> model = SmoothedScoreDiffusion(0.05, 0.3, kernel=AnisotropicGaussianKernel("data")).fit(X)
    >>> offsets, weights = model.kernel_.nodes(0)
    >>> np.round(np.sqrt(weights @ offsets**2) / 0.3, 1)  # in principal coordinates
    array([3.1, 0.1])
    """

    is_isotropic: ClassVar[bool] = False
    works_over_base: ClassVar[bool] = True

    def __init__(self, covariance: Any = "data") -> None:
        if isinstance(covariance, str):
            check_choice("covariance", covariance, ("data",), hint="Or pass an array.")
        else:
            array = check_real_array("covariance", covariance)
            square = array.ndim == 2 and array.shape[0] == array.shape[1]
            if not (square or array.ndim == 1) or not array.size:
                raise ValueError(
                    f"covariance has shape {array.shape}; expected (d, d), or (d,) standard deviations."
                )
            check_finite("covariance", array, "Check how it is computed.")
            if array.ndim == 1 and np.any(array < 0):
                raise ValueError(
                    f"covariance holds the negative standard deviation {array.min():g}; expected "
                    "values >= 0, one for each feature. Pass a matrix where covariances are meant."
                )
            if array.ndim == 2:
                _check_semi_definite(array)
        self.covariance = covariance

    def __repr__(self) -> str:
        if isinstance(self.covariance, str):
            return f"AnisotropicGaussianKernel({self.covariance!r})"
        return f"<AnisotropicGaussianKernel in R^{len(self.covariance)}>"

    def reduce(self, hull: AffineHull, points: np.ndarray, weights: np.ndarray) -> LinearShape:
        """See `Kernel`; estimators call this."""
        if isinstance(self.covariance, str):
            centered = points - weights @ points
            root = np.sqrt(weights)[:, None] * (centered @ hull.basis)
            covariance = root.T @ root
        else:
            array = np.asarray(self.covariance, dtype=np.float64)
            if len(array) != hull.n_features:
                raise ValueError(
                    f"covariance is for {len(array)} features, but X has {hull.n_features}; expected "
                    "the same number. Pass one row and column, or one value, for each feature of X."
                )
            full = np.diag(array**2) if array.ndim == 1 else array
            covariance = hull.basis.T @ full @ hull.basis
        variances, axes = np.linalg.eigh(covariance)
        kept = variances > hull.n_features * np.finfo(np.float64).eps * variances.max(initial=0.0)
        roots = axes[:, kept] * np.sqrt(variances[kept])
        # The symmetric root where it has full rank: S = I then gives the nodes of the isotropic kernel.
        return LinearShape(roots @ axes[:, kept].T if kept.all() else roots)


def _check_semi_definite(matrix: np.ndarray) -> None:
    """Raise an error unless a matrix is symmetric and positive semi-definite, up to rounding."""
    size = np.abs(matrix).max()
    asymmetry = np.abs(matrix - matrix.T).max()
    if asymmetry > 1e-8 * size:
        raise ValueError(
            f"covariance is not symmetric (entries differ by {asymmetry:g}); expected a symmetric "
            "matrix. Pass (S + S.T) / 2 where the difference is an error of rounding."
        )
    lowest = np.linalg.eigvalsh(matrix)[0]
    if lowest < -1e-10 * len(matrix) * size:
        raise ValueError(
            f"covariance has the negative eigenvalue {lowest:g}; expected a positive semi-definite "
            "matrix. Pass a covariance matrix, such as numpy.cov(X, rowvar=False)."
        )
