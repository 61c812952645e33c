"""Choosing settings: a search by exact leave-one-out likelihood or by folds."""

from ._search import SmoothedScoreDiffusionCV

__all__ = ["SmoothedScoreDiffusionCV"]
