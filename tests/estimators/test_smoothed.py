"""Tests of SmoothedScoreDiffusion: a normalised density, its samples, and the laws of smoothing.

The expected values come from the Gaussian KDE (sigma = 0), from closed forms, from grid integrals and
from laws. Tolerances say what they allow for: rounding, the steps of the solver, the quadrature of the
grid, or chance.

The statistical tests draw from a fixed seed, so they always give the same answer. With a fresh seed
each of their comparisons would fail a correct sampler with probability FALSE_ALARM. They are paired
with mutants that they must catch.
"""

import math
from itertools import combinations_with_replacement, pairwise

import numpy as np
import oracles
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from scipy.special import softmax
from sklearn.datasets import make_moons
from sklearn.model_selection import GridSearchCV

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth._engine.moments import Nodes
from skdiffsmooth._engine.posterior import Posterior
from skdiffsmooth.kernels import AnisotropicGaussianKernel
from skdiffsmooth.kernels._nodes import gaussian_nodes
from skdiffsmooth.scores import SmoothedScore
from skdiffsmooth.solvers import Heun, PredictorCorrector

FALSE_ALARM = 1e-4

finite = st.floats(-10, 10, allow_subnormal=False)


def data(n, d, seed=0):
    """Rows without any symmetry, about a centre that is not zero, and unequal weights."""
    rng = np.random.RandomState(seed)
    X = rng.gamma(2.0, size=(n, d)) * np.linspace(1, 0.5, d) + np.arange(1, d + 1)
    return X, rng.uniform(0.1, 1, n)


def queries(X, n, seed=1):
    """Rows near the data and some further out."""
    rng = np.random.RandomState(seed)
    far = np.linspace(0.1, 1.5, n)[:, None]
    return X[rng.randint(len(X), size=n)] + far * rng.normal(size=(n, X.shape[1]))


def circle(n, seed):
    """Rows on the unit circle, with no noise at all."""
    angle = np.random.RandomState(seed).uniform(0, 2 * np.pi, n)
    return np.column_stack([np.cos(angle), np.sin(angle)])


def rotation(d, seed=0):
    return np.linalg.qr(np.random.RandomState(seed).standard_normal((d, d)))[0]


def gaussian_log_density(residual, scale, dimension):
    """Log-density of `dimension` independent normals at vectors that lie in their span."""
    normalizer = dimension * math.log(math.sqrt(2 * math.pi) * scale)
    return -0.5 * np.sum((residual / scale) ** 2, axis=1) - normalizer


# ------------------------------------------------------------------------- sigma = 0 is the KDE


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("n", "d"), [(30, 1), (30, 2), (30, 5), (4, 6), (3, 40)])
def test_sigma_zero_is_the_kde(n, d, weighted):
    """Also with fewer rows than features, where the hull is thinner than the space."""
    X, weights = data(n, d)
    weights = weights if weighted else None
    Q = queries(X, 40)
    model = SmoothedScoreDiffusion(0.4, 0.0).fit(X, sample_weight=weights)
    kde = KDESampler(0.4).fit(X, sample_weight=weights)
    # Rounding of log-densities of up to a thousand nats.
    np.testing.assert_allclose(model.score_samples(Q), kde.score_samples(Q), rtol=0, atol=1e-8)
    np.testing.assert_allclose(model.energy(Q), kde.energy(Q), rtol=0, atol=1e-8)
    gradient = kde.grad_log_density(Q)
    np.testing.assert_allclose(model.grad_log_density(Q), gradient, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("n", "d"), [(30, 2), (4, 6)])
def test_leave_one_out_scales_are_those_of_the_kde(n, d):
    """Found in hull coordinates, for the kernel of the whole space; to 2e-3, as the search stops."""
    X, weights = data(n, d)
    h = KDESampler("loo").fit(X, sample_weight=weights).bandwidth_
    plain = {"metric": "euclidean", "background": 0.0}
    fitted = {
        (bandwidth, sigma): SmoothedScoreDiffusion(bandwidth, sigma, **plain).fit(
            X, sample_weight=weights
        )
        for bandwidth in ("auto", "loo", 0.2)
        for sigma in ("auto", 0.0, 0.5)
    }
    for (bandwidth, sigma), model in fitted.items():
        # Without smoothing h is the best bandwidth; with it, smaller ones are compared.
        factors = [1.0] if bandwidth == "loo" or sigma == 0 else [0.55, 0.7, 0.85, 1.0]
        expected = [0.2] if bandwidth == 0.2 else [factor * h for factor in factors]
        assert np.isclose(model.bandwidth_, expected, rtol=2e-3).any()
        expected = [f * h for f in (0.5, 1.0, 1.5, 2.0, 3.0, 5.0)] if sigma == "auto" else [sigma]
        assert np.isclose(model.sigma_, expected, rtol=2e-3).any()


@pytest.mark.parametrize(("n", "d"), [(20, 1), (30, 2), (5, 3)])
def test_the_flow_leads_to_the_kde(n, d):
    """At sigma = 1e-9 nothing is smoothed, but the ODE is run, and only its steps may err.

    So the distance to the KDE falls with the square of the step: a fourth of it at twice the steps.
    0.4 leaves room for the next order. A wrong rate anywhere leaves a rest.
    """
    X, weights = data(n, d)
    Q = queries(X, 30)
    expected = KDESampler(0.4).fit(X, sample_weight=weights).score_samples(Q)
    coarse, fine = (
        np.abs(
            SmoothedScoreDiffusion(
                0.4, 1e-9, n_nodes=2, n_levels=2, n_steps=steps, terminal_scale=1.5
            )
            .fit(X, sample_weight=weights)
            .score_samples(Q)
            - expected
        ).max()
        for steps in (128, 256)
    )
    assert fine < 0.04
    assert fine < 0.4 * coarse


def ks_pvalue(solver, n_steps):
    """Kolmogorov-Smirnov (KS) p-value of 10 000 draws against the exact CDF of the KDE."""
    X, h = np.array([[-1.0], [0.1], [1.3]]), 0.3
    model = SmoothedScoreDiffusion(
        h, 1e-9, n_nodes=2, n_levels=1, n_steps=n_steps, solver=solver, terminal_scale=2.0
    )
    samples = model.fit(X).sample(10_000, random_state=0)
    return stats.kstest(
        samples[:, 0], lambda x: stats.norm.cdf((x[:, None] - X[:, 0]) / h).mean(1)
    ).pvalue


def test_euler_maruyama_leads_to_the_kde():
    """KS against the exact CDF; the mutant is the same with four steps.

    KS sees 0.02 of the CDF in 10 000 draws. 256 steps err by less than 0.005; four steps have
    p < 1e-11 with eleven other seeds.
    """
    assert ks_pvalue("euler-maruyama", 256) > FALSE_ALARM
    assert ks_pvalue("euler-maruyama", 4) < FALSE_ALARM


def test_euler_maruyama_leaves_noise_of_one_bandwidth():
    """About two points far apart squared distances, in bandwidths, are chi-square.

    10 000 draws see 5.5 % of the variance. 256 steps err by 1 %; the mutant, noise of 0.95, has 10 %.
    """
    model = SmoothedScoreDiffusion(
        0.3, 1e-9, n_nodes=2, n_levels=1, n_steps=256, solver="euler-maruyama", terminal_scale=2.0
    )
    samples = model.fit([[-5.0], [5.0]]).sample(10_000, random_state=0)
    law = stats.chi2(len(samples))
    total = np.sum(((np.abs(samples) - 5) / 0.3) ** 2)
    assert 2 * min(law.cdf(total), law.sf(total)) > FALSE_ALARM
    total *= 0.95**2
    assert 2 * min(law.cdf(total), law.sf(total)) < FALSE_ALARM


def test_predictor_corrector_samples_the_kde():
    """KS against the exact CDF, as above. 64 steps and correctors of snr = 0.1, whose bumps are half a
    percent too wide, err by less than 0.005 of the CDF; the mutant has the correctors' noise only.
    """

    class Uncorrected(Heun):
        is_stochastic = True

        def step(self, field, x, start, end, draw):
            return super().step(field, x, start, end, draw) + 0.2 * end * draw()

    assert ks_pvalue(PredictorCorrector(snr=0.1), 64) > FALSE_ALARM
    assert ks_pvalue(Uncorrected(), 64) < FALSE_ALARM


# ---------------------------------------------------------------------------------------- mass


def mixture(n, seed, d=2):
    """Two clusters of unequal weight and unequal width."""
    rng = np.random.RandomState(seed)
    large = rng.uniform(size=(n, 1)) < 0.75
    return np.where(large, 0.4 * rng.normal(size=(n, d)), 0.15 * rng.normal(size=(n, d)) + 1.5)


TWELVE = np.exp(2j * np.pi * np.arange(12) / 12)
SETS = {
    "line": (mixture(40, 0, d=1), {}),
    "sharp line": (mixture(40, 0, d=1), {"bandwidth": 0.02, "sigma": 0.1}),
    "moons": (make_moons(40, noise=0.05, random_state=0)[0], {}),
    "circle": (circle(40, 0), {}),
    "mixture": (mixture(40, 0), {}),
    "twelve": (np.column_stack([TWELVE.real, TWELVE.imag]), {"bandwidth": 0.03, "sigma": 0.3}),
}


def grid(model, per_bandwidth=1.3, pad=5.0):
    """Points that cover the data and `pad` bandwidths around it, `per_bandwidth` a bandwidth.

    The density is a little sharper than a normal of scale `bandwidth`, for whose integral to 1e-8 one
    point a bandwidth would do. It falls off like one outside the data's convex hull, to 1e-6.
    """
    spacing = model.bandwidth_ / per_bandwidth
    reach = pad * model.bandwidth_
    axes = [
        np.arange(low - reach, high + reach, spacing)
        for low, high in zip(model.points_.min(0), model.points_.max(0), strict=True)
    ]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
    return points, spacing ** len(axes)


def mass_error(name, **params):
    X, scales = SETS[name]
    # The flow alone, on the grid that it needs: tests/test_metric.py has metrics and backgrounds.
    plain = {"metric": "euclidean", "background": 0.0}
    model = SmoothedScoreDiffusion(**scales, **plain, **params).fit(X)
    points, cell = grid(model)
    return np.exp(model.score_samples(points)).sum() * cell - 1


@pytest.mark.parametrize(
    ("name", "terminal"),
    [
        *((name, "empirical") for name in SETS if name != "twelve"),
        *((name, "gaussian") for name in SETS if name != "twelve"),
        pytest.param("twelve", "empirical", marks=pytest.mark.slow),
    ],
)
def test_mass_at_the_defaults(name, terminal):
    """5e-3 allows for 32 steps of Heun's method; the worst seen is 1.2e-3, on twelve points."""
    assert abs(mass_error(name, terminal=terminal)) < 5e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "terminal"),
    [
        *(("line", terminal) for terminal in ("empirical", "gaussian")),
        *(("sharp line", terminal) for terminal in ("empirical", "gaussian")),
        *(("circle", "gaussian"), ("mixture", "empirical")),
    ],
)
def test_mass_with_many_steps(name, terminal):
    """Seen: 2.5e-4 on the sharp line, 2e-5 and less on the others."""
    assert abs(mass_error(name, terminal=terminal, n_steps=96)) < 1e-3


def test_euler_samples_only():
    """What its steps gave for a density had a mass of 0.98: that is no density of its samples."""
    model = SmoothedScoreDiffusion(0.4, 0.5, n_nodes=8, solver="euler").fit(data(20, 2)[0])
    assert model.sample(3, random_state=0).shape == (3, 2)
    with pytest.raises(ValueError, match=r"solver=Euler\(\) cannot compute .* solver='heun'"):
        model.score_samples(data(20, 2)[0])


# --------------------------------------------------------------- samples and likelihood agree


class Calibration:
    """Compares samples with exp(score_samples), integrated on a grid: in entropy, and in place."""

    def __init__(self, model):
        self.model = model
        self.points, cell = grid(model, 2.6)
        log_density = model.score_samples(self.points)
        self.probability = cell * np.exp(log_density)
        self.entropy = -self.probability @ log_density

    def entropy_pvalue(self, samples):
        """A z-test of the samples' mean surprise against the integral of -p log p."""
        surprise = -self.model.score_samples(samples)
        error = surprise.std() / math.sqrt(len(samples))
        return 2 * stats.norm.sf(abs(surprise.mean() - self.entropy) / error)

    def cell_pvalue(self, samples):
        """A chi-square test of counts in cells of 4 x 4 grid points."""
        side = self.model.bandwidth_ / 2.6
        edges = [
            np.arange(axis.min() - side / 2, axis.max() + 4 * side, 4 * side)
            for axis in self.points.T
        ]
        return oracles.pvalue_of_counts(samples, edges, self.points, self.probability)

    def pvalue(self, samples):
        return min(self.entropy_pvalue(samples), self.cell_pvalue(samples))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "terminal"), [("moons", "empirical"), ("circle", "gaussian")])
def test_samples_follow_the_density(name, terminal):
    """4000 draws: chance is 5 % of a cell, and the error of 32 steps is far below that.

    The mutants: draws of the KDE of the same bandwidth, and right draws shrunk by 3 %. With five
    other seeds they have p < 1e-6, while right draws have p > 0.04.
    """
    X, scales = SETS[name]
    model = SmoothedScoreDiffusion(**scales, terminal=terminal).fit(X)
    calibration = Calibration(model)
    samples = model.sample(4000, random_state=0)
    assert calibration.pvalue(samples) > FALSE_ALARM
    kde = KDESampler(model.bandwidth_).fit(X)
    assert calibration.pvalue(kde.sample(4000, random_state=0)) < FALSE_ALARM
    center = X.mean(axis=0)
    assert calibration.pvalue(center + 0.97 * (samples - center)) < FALSE_ALARM


# ------------------------------------------------------------------- the model, from its definition


def smoothed_score(model, x, scale, level):
    """The smoothed score and its divergence at one point of R^d, by the definition.

    The mean over offsets xi of (D(x + xi) - x) / v and of (tr Cov(x + xi) / v - d) / v, with D and
    Cov of the posterior weights, softmax(log w_i - |x + xi - x_i|^2 / 2v). No hull, no factors.
    """
    offsets, shares = model.kernel_.nodes(level)
    y = x + (offsets @ model.hull_.basis.T)[:, None]  # (nodes, 1, d)
    v = scale**2
    weights = softmax(
        np.log(model.weights_) - np.sum((y - model.points_) ** 2, axis=2) / (2 * v), axis=1
    )
    means = weights @ model.points_
    spreads = np.sum((model.points_ - means[:, None]) ** 2, axis=2)
    trace = shares @ np.sum(weights * spreads, axis=1)
    return (shares @ means - x) / v, (trace / v - len(x)) / v


@pytest.mark.parametrize(("n", "d"), [(6, 1), (8, 2), (4, 6)])
def test_gradient_is_the_mean_of_the_scores_at_the_nodes(n, d):
    """At the middle of each level, beyond both ends of the range, and at the default."""
    X, weights = data(n, d)
    model = SmoothedScoreDiffusion(0.3, 0.5, n_nodes=8, n_levels=3, terminal_scale=2.4)
    model.fit(X, sample_weight=weights)
    Q = queries(X, 10)
    cases = [(None, 0.3, 0), (0.1**2, 0.1, 0), (5.0**2, 5.0, 2)]
    cases += [
        (scale**2, scale, k) for k, scale in enumerate(0.3 * 2.0 ** np.array([0.5, 1.5, 2.5]))
    ]
    for t, scale, level in cases:
        expected = np.array([smoothed_score(model, x, scale, level)[0] for x in Q])
        gradient = model.grad_log_density(Q, t=t)
        # Rounding, in units of what is subtracted: distances of up to ten over v.
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-10 * 10 / scale**2)


@pytest.mark.parametrize("terminal", ["empirical", "gaussian"])
@pytest.mark.parametrize(("n", "d"), [(6, 1), (8, 2), (3, 4)])
def test_log_density_against_scipy(n, d, terminal):
    """Song et al. 2021, eq. 39, by an adaptive method of order eight, in all d coordinates.

    dx / dy = -y s, and log p falls by the integral of y div s on the way up, level by level. The
    tolerance is the error of 500 steps of Heun's method; SciPy's is 1e-9.
    """
    X, weights = data(n, d)
    model = SmoothedScoreDiffusion(
        *(0.3, 0.5), n_nodes=8, n_levels=3, n_steps=500, terminal=terminal, terminal_scale=2.4
    ).fit(X, sample_weight=weights)
    Q = queries(X, 4)

    def end_and_fall(state):
        for level in range(3):

            def rates(y, state, level=level):
                score, divergence = smoothed_score(model, state[:-1], y, level)
                return np.append(-y * score, y * divergence)

            ends = 0.3 * 2.0 ** np.array([level, level + 1])
            flow = integrate.solve_ivp(rates, ends, state, method="DOP853", rtol=1e-9, atol=1e-9)
            state = flow.y[:, -1]
        return state[:-1], state[-1]

    ends, falls = zip(*[end_and_fall(np.append(q, 0.0)) for q in Q], strict=True)
    if terminal == "empirical":
        at_end = KDESampler(2.4).fit(X, sample_weight=weights).score_samples(ends)
    else:
        center = np.average(X, axis=0, weights=weights)
        at_end = gaussian_log_density(np.array(ends) - center, 2.4, d)
    expected = at_end - np.array(falls)
    np.testing.assert_allclose(model.score_samples(Q), expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize(("n", "d"), [(20, 1), (20, 3), (3, 5)])
def test_gradient_is_minus_that_of_the_energy(n, d):
    """Central differences of 1e-4 bandwidths: 1e-8 of truncation and 1e-9 of rounding, relative."""
    X, weights = data(n, d)
    model = SmoothedScoreDiffusion(0.4, 0.6).fit(X, sample_weight=weights)
    Q = queries(X, 10)
    steps = 4e-5 * np.eye(d)
    slopes = [(model.energy(Q + e) - model.energy(Q - e)) / 8e-5 for e in steps]
    gradient = model.grad_log_density(Q)
    np.testing.assert_allclose(-np.stack(slopes, axis=1), gradient, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.0, 0.7])
def test_gradient_at_much_noise_points_to_the_mean(sigma):
    """D(x) = mean + Cov (x - mean) / t + ..., so that -t s is x - mean up to a relative Cov / t."""
    X, weights = data(30, 3)
    model = SmoothedScoreDiffusion(0.4, sigma).fit(X, sample_weight=weights)
    Q = queries(X, 10)
    t = 1e6
    expected = Q - np.average(X, axis=0, weights=weights)
    error = 2 * np.var(X, axis=0).sum() / t * np.abs(expected).max()
    np.testing.assert_allclose(-t * model.grad_log_density(Q, t=t), expected, rtol=0, atol=error)


@settings(max_examples=60, deadline=None)
@given(
    m=st.floats(0.1, 10),
    x=st.floats(-20, 20),
    v=st.floats(1e-3, 1e3),
    sigma=st.sampled_from([0.0, 0.3, 3.0]),
)
def test_two_points(m, x, v, sigma):
    """Points +-m on the line: s = (m tanh(m x / v) - x) / v, or its mean over the nodes."""
    model = SmoothedScoreDiffusion(0.5, sigma, n_nodes=8, n_levels=1).fit([[-m], [m]])
    offsets, shares = model.kernel_.nodes(0)
    expected = (shares @ (m * np.tanh(m * (x + offsets[:, 0]) / v)) - x) / v
    (found,) = model.grad_log_density([[x]], t=v)
    # The engine lets exponents be off by 1e-10.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * (m + abs(x)) / v)


# ---------------------------------------------------------------------------- the residual factor


@pytest.mark.parametrize("terminal", ["empirical", "gaussian"])
@pytest.mark.parametrize(("n", "r", "d"), [(20, 1, 3), (20, 2, 7), (6, 4, 50), (30, 3, 4)])
def test_data_in_a_subspace(n, r, d, terminal):
    """The model is that of r dimensions, times an exact normal in the others; to rounding."""
    Z, weights = data(n, r)
    frame = rotation(d)[:, :r]
    center = np.linspace(-3, 3, d)
    Q = queries(Z, 10) @ frame.T + center + 0.3 * np.random.RandomState(2).normal(size=(10, d))
    along = (Q - center) @ frame
    across = Q - center - along @ frame.T
    low, high = (
        SmoothedScoreDiffusion(0.3, 0.5, terminal=terminal).fit(rows, sample_weight=weights)
        for rows in (Z, Z @ frame.T + center)
    )
    expected = low.score_samples(along) + gaussian_log_density(across, 0.3, d - r)
    np.testing.assert_allclose(high.score_samples(Q), expected, rtol=0, atol=1e-9)
    expected = low.energy(along) - gaussian_log_density(across, 0.3, d - r)
    np.testing.assert_allclose(high.energy(Q), expected, rtol=0, atol=1e-9)
    for t in (None, 0.5):
        expected = low.grad_log_density(along, t=t) @ frame.T - across / (t or 0.09)
        # Scores are up to 1e2, for residuals of many dimensions.
        np.testing.assert_allclose(high.grad_log_density(Q, t=t), expected, rtol=0, atol=1e-8)


def test_samples_off_a_subspace_are_normal():
    """Squared residuals, in bandwidths, are chi-square; a sampler without them has p = 0.

    One number of 1000 x 5 degrees of freedom: bandwidths off by 10 % have p < 1e-4 too.
    """
    Z, _ = data(20, 2)
    frame = rotation(7)
    model = SmoothedScoreDiffusion(0.3, 0.5).fit(Z @ frame[:, :2].T)
    across = model.sample(1000, random_state=0) @ frame[:, 2:]
    law = stats.chi2(across.size)
    total = np.sum((across / 0.3) ** 2)
    assert 2 * min(law.cdf(total), law.sf(total)) > FALSE_ALARM


# ------------------------------------------------------------------------------------------ laws


@settings(max_examples=20, deadline=None)
@given(
    point=st.lists(finite, min_size=1, max_size=4),
    bandwidth=st.floats(1e-3, 10),
    ratio=st.floats(0, 10),
    seed=st.integers(0, 1000),
)
@example(point=[6e-243], bandwidth=1.0, ratio=0.0, seed=0)  # sets no unit
def test_smoothing_one_point_changes_nothing(point, bandwidth, ratio, seed):
    """Whatever the kernel: D is that point everywhere. Also for a fit on it and its copies."""
    Q = np.array(point) + bandwidth * np.random.RandomState(seed).normal(size=(5, len(point)))
    model = SmoothedScoreDiffusion(bandwidth, ratio * bandwidth).fit([point] * 3)
    kde = KDESampler(bandwidth).fit([point])
    np.testing.assert_allclose(model.score_samples(Q), kde.score_samples(Q), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(
        bandwidth * model.grad_log_density(Q), bandwidth * kde.grad_log_density(Q), atol=1e-9
    )


def test_smoothing_one_point_of_a_field_changes_nothing():
    """As above, below the hull, which is a point there and leaves nothing to smooth."""
    point = torch.tensor([[0.3, -1.2]], dtype=torch.float64)
    offsets, shares = 0.7 * gaussian_nodes(2, 8, 0, 0), np.full(8, 1 / 8)
    field = SmoothedScore(
        Posterior(point, torch.zeros(1, dtype=torch.float64), memory_limit=10),
        Nodes(torch.tensor(offsets), torch.tensor(shares), max_norm=float(np.abs(offsets).max())),
    )
    x = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    score, divergence = field.with_divergence(x, 0.04)
    # Rounding of coordinates of size one, over v.
    torch.testing.assert_close(score, (point - x) / 0.04, rtol=0, atol=1e-12)
    torch.testing.assert_close(divergence, torch.full((5,), -2 / 0.04).double(), rtol=0, atol=1e-10)


def equivariance_case(d, **params):
    X, weights = data(25, d)
    params = {"bandwidth": 0.3, "sigma": 0.5, **params}
    return X, weights, queries(X, 15), SmoothedScoreDiffusion(**params)


@pytest.mark.parametrize("terminal", ["empirical", "gaussian"])
@pytest.mark.parametrize("d", [1, 2, 4])
def test_rotation(d, terminal):
    """Rotations and reflections. Nodes live in principal coordinates, signed by third moments.

    So this holds for finite nodes, to rounding, on data without symmetry; 1e-7 leaves room for what
    the flow makes of rounding.
    """
    X, weights, Q, model = equivariance_case(d, terminal=terminal)
    plain = model.fit(X, sample_weight=weights).score_samples(Q)
    gradient = model.grad_log_density(Q)
    for turn in (rotation(d), -np.eye(d), np.eye(d)[::-1]):
        model.fit(X @ turn.T, sample_weight=weights)
        np.testing.assert_allclose(model.score_samples(Q @ turn.T), plain, rtol=0, atol=1e-7)
        turned = model.grad_log_density(Q @ turn.T)
        np.testing.assert_allclose(turned, gradient @ turn.T, rtol=0, atol=1e-7)


@pytest.mark.parametrize("terminal", ["empirical", "gaussian"])
def test_translation(terminal):
    X, weights, Q, model = equivariance_case(3, terminal=terminal)
    plain = model.fit(X, sample_weight=weights).score_samples(Q)
    samples = model.sample(20, random_state=0)
    for shift in (np.array([1.0, -20.0, 3.0]), 1e4):
        model.fit(X + shift, sample_weight=weights)
        # 1e4 leaves twelve digits of the coordinates.
        np.testing.assert_allclose(model.score_samples(Q + shift), plain, rtol=0, atol=1e-7)
        moved = model.sample(20, random_state=0)
        np.testing.assert_allclose(moved, samples + shift, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("scale", "dtype"),
    [
        *((scale, "float64") for scale in (1e-100, 1e-6, 1e6, 1e20)),
        *((scale, "float32") for scale in (1e-6, 1.0, 1e2, 1e4, 1e6)),
    ],
)
def test_units(scale, dtype):
    """Everything in units s times smaller: log p falls by d log s, and samples grow by s.

    Single precision keeps five digits of a log-density after some sixty steps.
    """
    atol = 1e-7 if dtype == "float64" else 1e-3
    X, weights, Q, model = equivariance_case(3)
    model.set_params(terminal_scale=1.5).fit(X, sample_weight=weights)
    scaled = SmoothedScoreDiffusion(
        0.3 * scale, 0.5 * scale, terminal_scale=1.5 * scale, dtype=dtype
    ).fit(scale * X, sample_weight=weights)
    expected = model.score_samples(Q) - 3 * math.log(scale)
    np.testing.assert_allclose(scaled.score_samples(scale * Q), expected, rtol=0, atol=atol)
    gradient = model.grad_log_density(Q)
    np.testing.assert_allclose(
        scale * scaled.grad_log_density(scale * Q), gradient, rtol=0, atol=10 * atol
    )
    samples = scaled.sample(20, random_state=0) / scale
    np.testing.assert_allclose(samples, model.sample(20, random_state=0), rtol=0, atol=atol)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_automatic_scales_have_units(scale):
    """The leave-one-out search stops at 1e-3 of the bandwidth."""
    X, _ = data(40, 2)
    plain, scaled = (SmoothedScoreDiffusion(metric="euclidean").fit(s * X) for s in (1, scale))
    assert scaled.bandwidth_ == pytest.approx(scale * plain.bandwidth_, rel=2e-3)
    assert scaled.sigma_ == pytest.approx(scale * plain.sigma_, rel=2e-3)
    terminal = plain.noise_levels_.terminal_scale
    assert scaled.noise_levels_.terminal_scale == pytest.approx(scale * terminal, rel=2e-3)


@pytest.mark.parametrize(
    ("bandwidth", "sigma", "kernel", "expected"),
    [
        (0.5, 0.5, "gaussian", 2.0),
        (0.1, 0.15, "gaussian", 8 * 0.15),
        (0.5, 0.7, "gaussian", 3 * 0.7),
        (0.5, lambda scale: 4 * scale, "gaussian", 3 * 4 * 0.5),
        (0.5, 0.7, AnisotropicGaussianKernel([3.0, 0.5]), 3 * 0.7 * 3.0),
        (1.2, 0.5, "gaussian", 2 * 1.2),
    ],
    ids=["widest", "enough", "sigma", "sigma-function", "kernel", "bandwidth"],
)
def test_automatic_terminal_scale(bandwidth, sigma, kernel, expected):
    """The largest of the data's widest standard deviation (here 2) or 8 sigma, 3 sigma and 2 bandwidth.

    Sigma is taken at the bandwidth where it is a function, and times the standard deviation of the
    kernel along its widest direction.
    """
    # The wide direction lies along no axis.
    X = np.array([[2.0, 0.0], [-2.0, 0.0], [2.0, 1.0], [-2.0, -1.0], [2.0, -1.0], [-2.0, 1.0]])
    X = X @ rotation(2) + 100
    model = SmoothedScoreDiffusion(bandwidth, sigma, kernel=kernel, n_nodes=4, n_levels=2)
    assert model.fit(X).noise_levels_.terminal_scale == pytest.approx(expected)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(st.lists(finite, min_size=2, max_size=2), min_size=1, max_size=8),
    seed=st.integers(0, 1000),
)
def test_the_order_of_rows_does_not_matter(rows, seed):
    """Equal rows, lines and clouds: to the last bit, since fit sorts the rows."""
    X = np.array(rows)
    shuffled = np.random.RandomState(seed).permutation(X)
    model, other = (
        SmoothedScoreDiffusion(0.5, 0.8, n_nodes=4, n_levels=4, n_steps=4).fit(rows)
        for rows in (X, shuffled)
    )
    np.testing.assert_array_equal(model.score_samples(X + 0.1), other.score_samples(X + 0.1))
    np.testing.assert_array_equal(model.sample(5, 0), other.sample(5, 0))


@settings(max_examples=25, deadline=None)
@given(
    places=st.lists(st.integers(-20, 20), min_size=2, max_size=6, unique=True),
    weights=st.lists(st.floats(0.1, 1), min_size=6, max_size=6),
    shift=st.floats(-100, 100),
    flip=st.sampled_from([-1.0, 1.0]),
    d=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_on_a_line_all_motions_move_the_model(places, weights, shift, flip, d, seed):
    """Any data, with symmetries too: a mirrored set of nodes on a line is the same set."""
    direction = rotation(d + 1, seed)[:, :1].T
    Z = np.array(places, dtype=float)[:, None] / 4
    weights = weights[: len(places)]
    Q = np.concatenate([Z + 0.1, Z - 0.37])
    model = SmoothedScoreDiffusion(0.5, 0.8, n_nodes=8, n_levels=4, n_steps=8)
    plain = model.fit(Z, sample_weight=weights).score_samples(Q)
    model.fit((flip * Z + shift) @ direction, sample_weight=weights)
    moved = model.score_samples((flip * Q + shift) @ direction)
    expected = plain + gaussian_log_density(np.zeros((1, 1)), 0.5, d)
    np.testing.assert_allclose(moved, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("weights", [[1, 2, 3, 1], [4, 0, 1, 1]])
def test_a_weight_is_a_number_of_equal_rows(weights):
    X, _ = data(4, 2)
    Q = queries(X, 10)
    model = SmoothedScoreDiffusion(0.5, 0.8)
    weighted = model.fit(X, sample_weight=weights).score_samples(Q), model.sample(10, 0)
    model.fit(np.repeat(X, weights, axis=0))
    np.testing.assert_allclose(model.score_samples(Q), weighted[0], rtol=0, atol=1e-9)
    np.testing.assert_allclose(model.sample(10, 0), weighted[1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("distance", [1e3, 1e6, 1e7])
def test_far_clusters_do_not_see_one_another(distance):
    """Half the mass is too far to matter, so log p is that of one cluster less log 2.

    Scores, at every noise level, are those of the near cluster. sigma = 1e-9 keeps the nodes of the
    two models, in other coordinates, from differing. What is left is rounding of the coordinates,
    eps * 1e7 / h, 1e-8. A spread taken as a difference of squares would be off by eps * (1e7 / h)^2.
    """
    X, _ = data(20, 2)
    Q = queries(X, 15)
    model = SmoothedScoreDiffusion(0.3, 1e-9, n_nodes=2, n_levels=1, n_steps=32, terminal_scale=2.0)
    alone = model.fit(X).score_samples(Q)
    both = model.fit(np.concatenate([X, X + [distance, 0]])).score_samples(Q)
    np.testing.assert_allclose(both, alone - math.log(2), rtol=0, atol=1e-6)


# ------------------------------------------------------------------- what smoothing is good for


@pytest.mark.parametrize("seed", range(5))
def test_smoothing_beats_the_kde_on_a_thin_circle(seed):
    """60 rows of each seed, untouched defaults; 500 held-out rows.

    Better than the leave-one-out KDE (seen: by 0.25 to 0.55 nats), and than the KDE that is best on
    the held-out rows themselves (0.15 to 0.52).
    """
    X, held_out = circle(60, seed), circle(500, 1000 + seed)
    smoothed = SmoothedScoreDiffusion().fit(X).score(held_out)
    assert smoothed > KDESampler("loo").fit(X).score(held_out) + 0.15
    kdes = [KDESampler(h).fit(X).score(held_out) for h in np.geomspace(0.01, 0.5, 30)]
    assert smoothed > max(kdes) + 0.05


@pytest.mark.slow
def test_more_nodes_and_levels_converge():
    """Held-out log-likelihoods of three node sets draw together, on what the largest gives."""
    X, held_out = circle(60, 0), circle(200, 1)

    def scores(n_nodes, n_levels, seeds=(0, 1, 2)):
        return np.array(
            [
                SmoothedScoreDiffusion(
                    *(0.05, 0.15),
                    n_nodes=n_nodes,
                    n_levels=n_levels,
                    n_steps=64,
                    random_state=seed,
                )
                .fit(X)
                .score(held_out)
                for seed in seeds
            ]
        )

    (limit,) = scores(256, 64, seeds=[9])
    errors = [np.abs(scores(m, n) - limit).max() for m, n in [(4, 2), (16, 8), (64, 32)]]
    assert errors[1] < errors[0] / 2
    assert errors[2] < errors[1] / 2
    assert errors[2] < 5e-3


@pytest.mark.parametrize(("solver", "ratio"), [("heun", 0.35), ("euler", 0.6)])
def test_more_steps_do_not_change_the_model(solver, ratio):
    """Levels and nodes stay; log-densities and samples converge with the order of the solver.

    Changes fall to a fourth, or a half, at twice the steps, with some room for the next order.
    """
    X, _ = data(20, 2)
    Q = queries(X, 20)
    model = SmoothedScoreDiffusion(0.4, 0.5, n_nodes=8, n_levels=4, solver=solver)
    fits = [
        model.set_params(n_steps=n).fit(X).score_samples(Q) if solver == "heun" else None
        for n in (64, 128, 256)
    ]
    draws = [model.set_params(n_steps=n).fit(X).sample(50, 0) for n in (64, 128, 256)]
    assert model.noise_levels_.n_levels == 4
    for results in (draws, fits) if solver == "heun" else (draws,):
        first, second = (np.abs(b - a).mean() for a, b in pairwise(results))
        assert 0 < second < ratio * first


def test_thin_directions_cost_no_steps():
    """The rule for the log-density is a trapezoid in log y, in which -v div s is constant there.

    Ten directions in which the data are thin, from 2.0 down to 0.4 in eight steps: in y the rule
    would over-count by 10 * 8 * (sinh(log r) - log r) = 0.11 nats, r = 5^(1/8) the ratio of a step.
    What is left, 1e-3, is the 1 % of spread that is not thin.
    """
    rng = np.random.RandomState(0)
    X, Q = 0.01 * rng.normal(size=(20, 10)), 0.4 * rng.normal(size=(10, 10))
    model = SmoothedScoreDiffusion(
        0.4, 1e-9, n_nodes=2, n_levels=1, n_steps=8, terminal_scale=2.0
    ).fit(X)
    expected = KDESampler(0.4).fit(X).score_samples(Q)
    np.testing.assert_allclose(model.score_samples(Q), expected, rtol=0, atol=5e-3)


def test_random_state_seeds_the_nodes():
    """Seeds differ by what 64 nodes in 32 levels leave: seen 2e-3 nats on average."""
    X, Q = circle(60, 0), circle(100, 1)
    fits = {
        seed: SmoothedScoreDiffusion(0.1, 0.15, random_state=seed).fit(X).score_samples(Q)
        for seed in (None, 0, 1)
    }
    again = SmoothedScoreDiffusion(0.1, 0.15).fit(X).score_samples(Q)
    np.testing.assert_array_equal(again, fits[None])
    change = np.abs(fits[1] - fits[0])
    assert change.min() > 0
    assert change.mean() < 0.02
    # A generator is drawn from: two fits differ, and equal generators give equal fits.
    rng = np.random.RandomState(3)
    model = SmoothedScoreDiffusion(0.1, 0.15, random_state=rng)
    first, second = (model.fit(X).score_samples(Q) for _ in range(2))
    assert not np.array_equal(first, second)
    model.set_params(random_state=np.random.RandomState(3))
    np.testing.assert_array_equal(model.fit(X).score_samples(Q), first)


@pytest.mark.parametrize("n_nodes", [2, 4])
def test_without_noise_samples_are_barycentres(n_nodes):
    """One node set and no noise: D is a mean of M nearest points, and samples are such means.

    Where D is constant, x - D shrinks like the noise scale, so that distances are some bandwidths:
    up to 40 seen here, whatever the bandwidth. (Scarvelis et al. 2023.) The mutant, no smoothing,
    gives data points; random points are 1e-1 from the nearest of the means, not 1e-3.
    """
    h = 1e-6
    X = np.random.RandomState(3).normal(size=(5, 2))
    model = SmoothedScoreDiffusion(h, 0.8, n_nodes=n_nodes, n_levels=1, n_steps=100).fit(X)
    samples = model.sample(500, random_state=0)
    tuples = combinations_with_replacement(range(5), n_nodes)
    means = np.array([X[list(chosen)].mean(axis=0) for chosen in tuples])
    assert np.linalg.norm(samples[:, None] - means, axis=2).min(axis=1).max() < 1e-3
    # Which mean it is, too: of the points nearest to x + xi_m. At a boundary between two of them
    # rounding decides; 1 % is room for that.
    offsets = model.kernel_.nodes(0)[0] @ model.hull_.basis.T
    shifted = samples[:, None] + offsets
    nearest = np.linalg.norm(shifted[:, :, None] - X, axis=3).argmin(axis=2)
    distances = np.linalg.norm(samples - X[nearest].mean(axis=1), axis=1)
    assert np.mean(distances < 1e-3) > 0.99
    # And most are new.
    to_data = np.linalg.norm(samples[:, None] - X, axis=2).min(axis=1)
    assert np.mean(to_data > 1e-2) > 0.5


@pytest.mark.parametrize(
    ("n_steps", "n_levels", "expected"),
    [(32, 32, 32), (33, 32, 64), (1, 32, 32), (100, 7, 105), (5, 1, 5)],
)
def test_steps_are_rounded_up_to_the_levels(n_steps, n_levels, expected):
    model = SmoothedScoreDiffusion(0.3, 0.5, n_steps=n_steps, n_levels=n_levels)
    assert model.fit([[0.0], [1.0]]).n_steps_ == expected
    assert model.n_steps == n_steps


@pytest.mark.slow
def test_grid_search_finds_a_smoothing_scale():
    """On a circle no smoothing and too much of it are both worse than something between."""
    sigmas = [0.0, 0.05, 0.1, 0.2, 0.4, 0.8]
    model = SmoothedScoreDiffusion(bandwidth=0.05, metric="euclidean")
    search = GridSearchCV(model, {"sigma": sigmas}, cv=3)
    search.fit(circle(60, 0))
    assert search.best_params_["sigma"] in (0.1, 0.2)
    means = search.cv_results_["mean_test_score"]
    # Both ends lose by far more than the folds' scatter.
    assert search.best_score_ > max(means[0], means[-1]) + 0.1


# ------------------------------------------------------------------------------- leaving one out


@pytest.mark.parametrize("terminal", ["empirical", "gaussian"])
@pytest.mark.parametrize("sigma", [0.0, 0.5])
def test_leaving_a_point_out_is_never_having_had_it(sigma, terminal):
    """In one dimension, where refitted coordinates and nodes are the same: to rounding."""
    rng = np.random.RandomState(0)
    X, weights = rng.exponential(size=(12, 1)), rng.uniform(0.5, 2, 12)
    params = {"n_nodes": 16, "n_levels": 4, "n_steps": 4, "terminal": terminal}
    model = SmoothedScoreDiffusion(0.3, sigma, terminal_scale=2.0, **params)
    found = model.fit(X, sample_weight=weights).leave_one_out_log_density()
    points, shares = model.points_.copy(), model.weights_.copy()
    for i, point in enumerate(points):
        others = np.arange(len(points)) != i
        model.fit(points[others], sample_weight=shares[others])
        np.testing.assert_allclose(found[i], model.score_samples([point])[0], rtol=0, atol=1e-9)


def test_leaving_a_point_out_in_more_dimensions():
    """Nodes turn a little with the refitted coordinates: node errors of some thousandths of a nat."""
    X = np.random.RandomState(1).standard_normal((40, 3))
    model = SmoothedScoreDiffusion(0.5, 0.6, terminal_scale=2.0, n_nodes=256).fit(X)
    found, points = model.leave_one_out_log_density(), model.points_.copy()
    for i in range(3):
        model.fit(np.delete(points, i, axis=0))
        assert abs(found[i] - model.score_samples(points[[i]])[0]) < 0.02


@pytest.mark.parametrize("terminal", ["empirical", "gaussian"])
def test_one_copy_of_a_row_can_be_left_out(terminal):
    """In one dimension, where refitted coordinates and nodes are the same: to rounding."""
    X = np.sort(np.random.RandomState(0).exponential(size=(8, 1)), axis=0)
    copies = np.arange(8) % 3 + 1
    params = {"terminal": terminal, "terminal_scale": 3.0, "n_nodes": 8, "background": 0.0}
    model = SmoothedScoreDiffusion(0.3, 0.4, **params).fit(X, sample_weight=copies)
    found = model.leave_one_out_log_density(model.weights_ / copies)
    for i in range(8):
        rest = copies - (np.arange(8) == i)
        others = SmoothedScoreDiffusion(0.3, 0.4, **params).fit(np.repeat(X, rest, axis=0))
        np.testing.assert_allclose(found[i], others.score_samples(X[i : i + 1])[0], rtol=1e-10)


def test_leaving_out_a_value_that_was_there_twice():
    X = np.random.RandomState(0).standard_normal((15, 2))
    model = SmoothedScoreDiffusion(0.4, 0.0).fit(np.concatenate([X, X[:1]]))
    kde = KDESampler(0.4).fit(X[1:])
    (here,) = np.flatnonzero((model.points_ == X[0]).all(axis=1))
    found = model.leave_one_out_log_density()[here]
    np.testing.assert_allclose(found, kde.score_samples(X[:1])[0], rtol=1e-10)


def test_leaving_out_the_only_point():
    model = SmoothedScoreDiffusion(0.4, 0.3).fit([[1.0, 2.0]])
    with pytest.raises(ValueError, match="at least two distinct rows"):
        model.leave_one_out_log_density()


@pytest.mark.parametrize("terminal", ["empirical", "gaussian"])
def test_leaving_out_a_point_that_is_nearly_everything(terminal):
    """What is left of the mean after that point is taken out of it must not be rounding."""
    X, weights = np.array([[0.0], [1.0], [3.0]]), np.array([1e-20, 1.0, 1e-20])
    params = {"terminal": terminal, "terminal_scale": 3.0, "n_nodes": 16}
    model = SmoothedScoreDiffusion(0.5, 0.5, **params).fit(X, sample_weight=weights)
    others = SmoothedScoreDiffusion(0.5, 0.5, **params).fit(X[[0, 2]])
    found = model.leave_one_out_log_density()[1]
    np.testing.assert_allclose(found, others.score_samples(X[[1]])[0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-23, 1e-19, 1e19])
def test_single_precision_at_scales_it_has_no_squares_for(scale):
    X = scale * np.random.RandomState(0).standard_normal((30, 2))
    single, double = (
        SmoothedScoreDiffusion(0.3 * scale, 0.5 * scale, dtype=dtype).fit(X)
        for dtype in ("float32", "float64")
    )
    np.testing.assert_allclose(single.score_samples(X), double.score_samples(X), rtol=1e-4)
    np.testing.assert_allclose(
        single.leave_one_out_log_density(), double.leave_one_out_log_density(), rtol=1e-4
    )
