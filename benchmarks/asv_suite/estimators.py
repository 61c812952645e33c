"""Log-densities and samples of the estimators."""

import numpy as np
from _problems import surface
from scipy.special import logsumexp

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth.datasets import make_circle


class Smoothed:
    """A thousand points on a surface in R^8, a hundred queries or samples."""

    def setup(self):
        self.model = SmoothedScoreDiffusion(0.1, 0.15).fit(surface(1000))
        self.queries = surface(100, seed=1)

    def time_score_samples(self):
        self.model.score_samples(self.queries)

    def peakmem_score_samples(self):
        self.model.score_samples(self.queries)

    def time_sample(self):
        self.model.sample(100, random_state=0)

    def peakmem_sample(self):
        self.model.sample(100, random_state=0)

    def track_error_of_nodes(self):
        """Error of the mean log-density on the circle with the default 64 nodes, in nats."""
        found, converged = (
            SmoothedScoreDiffusion(0.0316, 0.15, n_nodes=n)
            .fit(make_circle(12, spacing="even"))
            .score(make_circle(200, spacing="even"))
            for n in (64, 1024)
        )
        return abs(found - converged)

    track_error_of_nodes.unit = "nats"


class KDE:
    """Ten thousand normal points, a thousand queries, bandwidth 0.3."""

    params = (2, 10, 64)
    param_names = ("d",)

    def setup(self, d):
        rng = np.random.RandomState(0)
        self.X, self.queries = rng.normal(size=(10_000, d)), rng.normal(size=(1000, d))
        self.model = KDESampler(0.3).fit(self.X)

    def time_score_samples(self, d):
        self.model.score_samples(self.queries)

    def peakmem_score_samples(self, d):
        self.model.score_samples(self.queries)

    def time_sample(self, d):
        self.model.sample(1000, random_state=0)

    def track_error(self, d):
        """Largest error against differences summed one query at a time, in nats."""
        normalizer = np.log(len(self.X)) + d * np.log(np.sqrt(2 * np.pi) * 0.3)
        expected = [
            logsumexp(-0.5 * (((self.X - query) / 0.3) ** 2).sum(1)) - normalizer
            for query in self.queries[:20]
        ]
        return float(np.abs(self.model.score_samples(self.queries[:20]) - expected).max())

    track_error.unit = "nats"
