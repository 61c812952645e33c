"""The engine at high, medium and low noise."""

from _problems import engine_case
from _rivals import direct


class Engine:
    """Means and spreads of 500 queries, 2000 points, 128 nodes, 8 dimensions, sigma 0.3."""

    params = (1.0, 1e-2, 1e-4)
    param_names = ("v",)

    def setup(self, v):
        self.posterior, self.x, self.nodes = engine_case()

    def time_moments(self, v):
        self.posterior.moments(self.x, v, self.nodes, trace=True)

    def time_mean_only(self, v):
        self.posterior.moments(self.x, v, self.nodes)

    def peakmem_moments(self, v):
        self.posterior.moments(self.x, v, self.nodes, trace=True)

    def track_error(self, v):
        x = self.x[:20]
        mean, trace = direct(self.posterior.points, x, v, self.nodes.offsets, tile=4)
        found = self.posterior.moments(x, v, self.nodes, trace=True)
        return float(max((found.mean - mean).abs().max(), (found.trace - trace).abs().max()))
