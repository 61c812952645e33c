"""The engine at high, medium and low noise."""

from _problems import engine_case
from _rivals import direct


class Engine:
    """Means and traces of 500 queries, 2000 points, 128 nodes, 8 dimensions, sigma 0.3."""

    params = (1.0, 1e-2, 1e-4)
    param_names = ("v",)

    def setup(self, v):
        self.case = engine_case()

    def time_moments(self, v):
        self.case.moments(v)

    def time_mean_only(self, v):
        self.case.moments(v, trace=False)

    def peakmem_moments(self, v):
        self.case.moments(v)

    def track_error(self, v):
        case = engine_case(n_queries=20)
        mean, trace = direct(case.points, case.queries, v, case.offsets, tile=4)
        found = case.moments(v)
        return float(max((found.mean - mean).abs().max(), (found.trace - trace).abs().max()))
