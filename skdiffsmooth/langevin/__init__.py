"""Langevin sampling: Markov chains that follow a score field and noise."""

from ._sampler import LangevinChains, LangevinSampler

__all__ = ["LangevinChains", "LangevinSampler"]
