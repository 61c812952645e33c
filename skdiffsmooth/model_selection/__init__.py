"""Choice of settings: a search by leave-one-out or cross-validated likelihood, scorers without ODE."""

from ._implied import ImpliedSmoothing, implied_smoothing
from ._scorers import denoising_score, hyvarinen_score, make_denoising_scorer, make_hyvarinen_scorer
from ._search import SmoothedScoreDiffusionCV

__all__ = [
    "ImpliedSmoothing",
    "SmoothedScoreDiffusionCV",
    "denoising_score",
    "hyvarinen_score",
    "implied_smoothing",
    "make_denoising_scorer",
    "make_hyvarinen_scorer",
]
