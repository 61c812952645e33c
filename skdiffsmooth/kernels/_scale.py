"""Smoothing scales that depend on the noise."""

from __future__ import annotations

from .._utils.validation import check_real


class ProportionalScale:
    """A smoothing scale that grows with the noise: sigma = ratio * sqrt(v).

    Parameters
    ----------
    ratio : float
        Smoothing scale in units of the noise scale, > 0.

    Raises
    ------
    TypeError, ValueError
        If `ratio` is not a positive number.

    References
    ----------
    Z. Chen, On the Interpolation Effect of Score Smoothing, arXiv:2502.19499.

    Examples
    --------
    >>> from skdiffsmooth.kernels import ProportionalScale
    >>> ProportionalScale(0.5)(0.2)
    0.1
    """

    def __init__(self, ratio: float) -> None:
        self.ratio = check_real("ratio", ratio)

    def __repr__(self) -> str:
        return f"ProportionalScale({self.ratio:g})"

    def __call__(self, scale: float) -> float:
        """Return the smoothing scale at a noise scale, both in units of X."""
        return self.ratio * scale
