"""The density estimators that the table compares ours with, each tuned as well as we could.

All choose every hyper-parameter on the rows given to ``fit`` and refuse nothing: singular
covariances are floored, mixtures that fail count as minus infinity. Beside ``fit`` and
``score_samples`` there is ``refit(X)``: a new estimator with the hyper-parameters that are chosen
already, for out-of-fold log-densities in the time of plain fits; ``chosen_`` holds them.
"""

import math
import time
import warnings

import numpy as np
import torch
import zuko
from scipy.special import logsumexp
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import KFold, ShuffleSplit
from sklearn.neighbors import NearestNeighbors

from skdiffsmooth import KDESampler

# Beyond so many rows, 500 held out once are as sharp as folds are on fewer, and much cheaper.
_MANY_ROWS = 2000
_HELD_OUT = 500
_TILE_BYTES = 2**26


def folds(n_rows, seed=0):
    """Return pairs of training and held-out indices, for the choice of hyper-parameters."""
    if n_rows > _MANY_ROWS:
        splitter = ShuffleSplit(1, test_size=_HELD_OUT, random_state=seed)
    else:
        splitter = KFold(5 if n_rows <= 500 else 3, shuffle=True, random_state=seed)
    return list(splitter.split(np.empty((n_rows, 1))))


def climb(score, grids, start):
    """Return the best point found by steps to grid neighbours, one axis at a time.

    Parameters
    ----------
    score : callable
        Of one value from each grid; higher is better. Asked at most once a point.
    grids : sequence of sequences
        Ordered values, or categories.
    start : tuple of int
        Indices into the grids.

    Returns
    -------
    values : tuple
    score : float
    """
    seen = {}

    def at(index):
        if index not in seen:
            seen[index] = score(*(grid[i] for grid, i in zip(grids, index, strict=True)))
        return seen[index]

    best = tuple(start)
    moved = True
    while moved:
        moved = False
        for axis, grid in enumerate(grids):
            for step in (1, -1):
                while 0 <= best[axis] + step < len(grid):
                    trial = (*best[:axis], best[axis] + step, *best[axis + 1 :])
                    if at(trial) <= at(best):
                        break
                    best, moved = trial, True
    return tuple(grid[i] for grid, i in zip(grids, best, strict=True)), at(best)


def principal(X, floor=1e-10):
    """Return mean, whitening matrix and its log-determinant, of the covariance of X."""
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(X.T)))
    scales = np.sqrt(np.maximum(values, floor * values[-1]))
    return X.mean(0), vectors / scales, -np.log(scales).sum()


class FullKDE(BaseEstimator):
    """Gaussian KDE in whitened coordinates: one full covariance, its scale by leave-one-out."""

    def fit(self, X, y=None):
        self.mean_, self.whiten_, self.log_det_ = principal(X)
        self.kde_ = KDESampler(bandwidth="loo").fit((X - self.mean_) @ self.whiten_)
        self.chosen_ = {"bandwidth": self.kde_.bandwidth_}
        return self

    def score_samples(self, X):
        return self.kde_.score_samples((X - self.mean_) @ self.whiten_) + self.log_det_

    def refit(self, X):
        return clone(self).fit(X)


_REGULARISATIONS = (1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)


def _gaussian_mixture(X, **params):
    """Fit a mixture, or return None where its covariances collapse."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            return GaussianMixture(max_iter=200, **params).fit(X)
        except ValueError:  # a covariance is not positive definite: reg_covar is too small
            return None


class ChosenDensity(BaseEstimator):
    """A density whose `fit` sets ``chosen_``, with which `_fit_chosen` fits rows."""

    def refit(self, X):
        other = clone(self)
        other.chosen_ = self.chosen_
        return other._fit_chosen(X)


class CVGaussianMixture(ChosenDensity):
    """One Gaussian mixture: components, covariance type and ``reg_covar`` by cross-validation.

    A climb over the grids from few full and from more diagonal components, two k-means++ starts in
    each fold; three in the end.
    """

    COMPONENTS = (1, 2, 3, 4, 6, 8, 11, 16, 23, 32)

    def fit(self, X, y=None):
        def score(covariance_type, n_components, reg_covar):
            values = []
            for train, test in folds(len(X)):
                if n_components > len(train):
                    return -np.inf
                model = _gaussian_mixture(
                    X[train],
                    n_components=n_components,
                    covariance_type=covariance_type,
                    reg_covar=reg_covar,
                    init_params="k-means++",
                    n_init=2,
                    random_state=0,
                )
                values.append(-np.inf if model is None else model.score(X[test]))
            return np.mean(values)

        grids = (("full", "tied", "diag"), self.COMPONENTS, _REGULARISATIONS)
        found = [climb(score, grids, start) for start in ((0, 2, 6), (2, 5, 6))]
        (kind, n_components, reg), _ = max(found, key=lambda pair: pair[1])
        self.chosen_ = {"covariance_type": kind, "n_components": n_components, "reg_covar": reg}
        return self._fit_chosen(X)

    def _fit_chosen(self, X):
        params = dict(self.chosen_)
        self.mixture_ = None
        while self.mixture_ is None:
            self.mixture_ = _gaussian_mixture(
                X, **params, n_init=3, init_params="k-means++", random_state=0
            )
            params["reg_covar"] *= 10  # for the next try: it held in every fold, but not here
        return self

    def score_samples(self, X):
        return self.mixture_.score_samples(X)


class RestartedGaussianMixtures(ChosenDensity):
    """The average density of Gaussian mixtures from different random starts.

    Components (more than a single mixture could afford) and ``reg_covar`` are chosen by
    cross-validation of the average of four.
    """

    COMPONENTS = (2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64)

    def __init__(self, n_restarts=8):
        self.n_restarts = n_restarts

    def fit(self, X, y=None):
        def score(n_components, reg_covar):
            values = []
            for train, test in folds(len(X)):
                if n_components > len(train):
                    return -np.inf
                mixtures = self._restarts(X[train], n_components, reg_covar, 4)
                values.append(_log_average(mixtures, X[test]).mean())
            return np.mean(values)

        found = climb(score, (self.COMPONENTS, _REGULARISATIONS), (3, 8))
        (n_components, reg_covar), _ = found
        self.chosen_ = {"n_components": n_components, "reg_covar": reg_covar}
        return self._fit_chosen(X)

    @staticmethod
    def _restarts(X, n_components, reg_covar, n):
        mixtures = [
            _gaussian_mixture(
                X,
                n_components=n_components,
                reg_covar=reg_covar,
                init_params="random_from_data",
                random_state=seed,
            )
            for seed in range(n)
        ]
        return [mixture for mixture in mixtures if mixture is not None]

    def _fit_chosen(self, X):
        reg_covar = self.chosen_["reg_covar"]
        self.mixtures_ = []
        while not self.mixtures_:
            self.mixtures_ = self._restarts(
                X, self.chosen_["n_components"], reg_covar, self.n_restarts
            )
            reg_covar *= 10
        return self

    def score_samples(self, X):
        return _log_average(self.mixtures_, X)


def _log_average(models, X):
    if not models:
        return np.full(len(X), -np.inf)
    return logsumexp([model.score_samples(X) for model in models], axis=0) - math.log(len(models))


class ParzenWindows(ChosenDensity):
    r"""Manifold Parzen windows [1]_: the mixture of N(x_i, a C_i + s^2 I).

    C_i is the mean of (x_j - x_i)(x_j - x_i)^T over the k nearest neighbours of x_i. k, a and s,
    and whether X is whitened before, are chosen by cross-validation and not by leaving rows out of
    the mixture: a row left out would still be a neighbour in the covariances of others, and s come
    out too small.

    References
    ----------
    .. [1] P. Vincent, Y. Bengio, Manifold Parzen Windows, NeurIPS 2002.
    """

    NEIGHBOURS = (4, 8, 16, 32, 64, 128, 256)
    STRETCHES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
    # In units of the isotropic KDE's leave-one-out bandwidth.
    NOISES = tuple(np.geomspace(0.003, 1.0, 12))

    def fit(self, X, y=None):
        splits = folds(len(X))
        totals = {}
        for whitened in (False, True):
            matrix, log_det = self._metric(X, whitened)
            Z = X @ matrix
            unit = KDESampler(bandwidth="loo").fit(Z).bandwidth_
            pairs = [(a, (f * unit) ** 2) for a in self.STRETCHES for f in self.NOISES]
            for k in self.NEIGHBOURS:
                if k < min(len(train) for train, _ in splits):
                    scores = [
                        _windows_log_density(Z[test], *_windows(Z[train], k), pairs).mean(0)
                        for train, test in splits
                    ]
                    for pair, score in zip(pairs, np.mean(scores, axis=0), strict=True):
                        totals[whitened, k, *pair] = score + log_det
        whitened, k, a, v = max(totals, key=totals.get)
        self.chosen_ = {"n_neighbors": k, "stretch": a, "noise": math.sqrt(v), "whitened": whitened}
        return self._fit_chosen(X)

    @staticmethod
    def _metric(X, whitened):
        return principal(X)[1:] if whitened else (np.eye(X.shape[1]), 0.0)

    def _fit_chosen(self, X):
        self.matrix_, self.log_det_ = self._metric(X, self.chosen_["whitened"])
        neighbours = min(self.chosen_["n_neighbors"], len(X) - 1)
        self.windows_ = _windows(X @ self.matrix_, neighbours)
        return self

    def score_samples(self, X):
        pair = (self.chosen_["stretch"], self.chosen_["noise"] ** 2)
        density = _windows_log_density(X @ self.matrix_, *self.windows_, [pair])
        return density[:, 0] + self.log_det_


def _windows(X, k):
    """Return centres, and eigenvalues and eigenvectors of the neighbourhood covariances."""
    neighbours = NearestNeighbors(n_neighbors=k).fit(X).kneighbors(return_distance=False)
    d = X.shape[1]
    covariances = np.empty((len(X), d, d))
    tile = max(1, _TILE_BYTES // (8 * k * d))  # bounds the differences
    for start in range(0, len(X), tile):
        steps = X[neighbours[start : start + tile]] - X[start : start + tile, None]
        covariances[start : start + tile] = steps.swapaxes(1, 2) @ steps / k
    values, vectors = np.linalg.eigh(covariances)
    return X, np.maximum(values, 0), vectors


def _windows_log_density(Q, centers, values, vectors, pairs):
    """Return log-densities of shape (n_queries, n_pairs), for each (a, s^2) of `pairs`."""
    n, d = centers.shape
    a, v = np.transpose(pairs)
    result = np.full((len(Q), len(pairs)), -np.inf)
    tile = max(1, _TILE_BYTES // (8 * len(Q) * (2 * d + 3 * len(pairs))))
    for start in range(0, n, tile):
        part = slice(start, start + tile)
        variances = values[part, :, None] * a + v  # (components, d, pairs)
        squares = ((Q - centers[part, None]) @ vectors[part]) ** 2  # (components, queries, d)
        exponents = squares @ (-0.5 / variances)
        exponents -= 0.5 * np.log(2 * np.pi * variances).sum(1)[:, None, :]
        largest = np.maximum(result, exponents.max(0))
        total = np.exp(exponents - largest).sum(0) + np.exp(result - largest)
        result = largest + np.log(total)
    return result - math.log(n)


class _StudentBase(torch.nn.Module):
    """Independent Student distributions, their degrees of freedom learned."""

    def __init__(self, n_features):
        super().__init__()
        self.log_freedom = torch.nn.Parameter(torch.full((n_features,), math.log(20.0)))

    def forward(self, c=None):
        student = torch.distributions.StudentT(1 + self.log_freedom.exp())
        return torch.distributions.Independent(student, 1)


class SplineFlow(ChosenDensity):
    """A neural spline flow (zuko's NSF), trained with care for so few rows.

    Inputs are whitened by the training covariance (a linear layer, as in the flow's paper [1]_). The
    base is a Student distribution with learned degrees of freedom [2]_: splines are the identity beyond
    five standard deviations, and under a Gaussian base one outlier in a thin direction costs thousands
    of nats. AdamW, gradients clipped, the exponential average of the weights is what is kept; the epoch
    is chosen on 15 % of the rows (early stopping), and so is one of three configurations: small, and
    larger without and with noise on the inputs, the usual remedy against memorising. The winner is
    trained again on all rows for as many epochs. Each training stops after `seconds` of CPU time.

    References
    ----------
    .. [1] C. Durkan, A. Bekasov, I. Murray, G. Papamakarios, Neural Spline Flows, NeurIPS 2019.
    .. [2] P. Jaini, I. Kobyzev, Y. Yu, M. Brubaker, Tails of Lipschitz Triangular Flows, ICML 2020.
    """

    CONFIGURATIONS = (
        {"transforms": 2, "width": 32, "noise": 0.1},
        {"transforms": 3, "width": 64, "noise": 0.0},
        {"transforms": 3, "width": 64, "noise": 0.1},
    )
    _PATIENCE = 40

    def __init__(self, seconds=25.0, max_epochs=600):
        self.seconds = seconds
        self.max_epochs = max_epochs

    def fit(self, X, y=None):
        mean, whiten, _ = principal(X)
        Z = (X - mean) @ whiten
        order = np.random.RandomState(0).permutation(len(Z))
        held_out, train = np.split(order, [max(1, round(0.15 * len(Z)))])
        tried = []
        for configuration in self.CONFIGURATIONS:
            _, loss, epochs = self._train(Z[train], configuration, self.max_epochs, Z[held_out])
            tried.append((loss, epochs, configuration))
        _, epochs, configuration = min(tried, key=lambda item: item[:2])
        self.chosen_ = {**configuration, "epochs": epochs}
        return self._fit_chosen(X)

    def _fit_chosen(self, X):
        self.mean_, self.whiten_, self.log_det_ = principal(X)
        Z = (X - self.mean_) @ self.whiten_
        self.flow_, _, _ = self._train(Z, self.chosen_, self.chosen_["epochs"])
        return self

    def _train(self, Z, configuration, max_epochs, held_out=None):
        """Return the flow, its best held-out loss and the epoch of it."""
        Z = torch.as_tensor(Z, dtype=torch.float32)
        test = None if held_out is None else torch.as_tensor(held_out, dtype=torch.float32)
        torch_state = torch.get_rng_state()
        torch.manual_seed(0)  # zuko draws its first weights from the global state, put back below
        try:
            spline = zuko.flows.NSF(
                features=Z.shape[1],
                transforms=configuration["transforms"],
                hidden_features=(configuration["width"],) * 2,
                randperm=True,
            )
            flow = zuko.flows.Flow(spline.transform, _StudentBase(Z.shape[1]))
            average = torch.optim.swa_utils.AveragedModel(
                flow, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.98)
            )
            optimizer = torch.optim.AdamW(flow.parameters(), lr=2e-3, weight_decay=1e-4)
            batch = min(256, max(32, len(Z) // 8))
            best, best_epoch, start = math.inf, 1, time.process_time()
            for epoch in range(1, max_epochs + 1):
                for rows in torch.randperm(len(Z)).split(batch):
                    noised = Z[rows] + configuration["noise"] * torch.randn(len(rows), Z.shape[1])
                    loss = -flow().log_prob(noised).mean()
                    optimizer.zero_grad()
                    loss.backward()
                    torch.nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
                    optimizer.step()
                    average.update_parameters(flow)
                if test is not None:
                    with torch.no_grad():
                        value = -average.module().log_prob(test).mean().item()
                    if value < best:
                        best, best_epoch = value, epoch
                    spent = time.process_time() - start
                    if epoch - best_epoch > self._PATIENCE or spent > self.seconds:
                        break
        finally:
            torch.set_rng_state(torch_state)
        return average.module, best, best_epoch

    def score_samples(self, X):
        Z = torch.as_tensor((X - self.mean_) @ self.whiten_, dtype=torch.float32)
        with torch.no_grad():
            return self.flow_().log_prob(Z).double().numpy() + self.log_det_


def em_weights(log_densities, n_iterations=500):
    """Return the weights of a mixture of given densities that maximise its likelihood.

    Parameters
    ----------
    log_densities : ndarray of shape (n_rows, n_members)
        Of rows that the members were not fitted on.

    Returns
    -------
    ndarray of shape (n_members,)
    """
    weights = np.full(log_densities.shape[1], 1 / log_densities.shape[1])
    densities = np.exp(log_densities - log_densities.max(1, keepdims=True))
    for _ in range(n_iterations):
        shares = densities * weights
        weights = (shares / shares.sum(1, keepdims=True)).mean(0)
    return weights


def check():
    """Test formulas of the rivals on small problems with known answers."""
    rng = np.random.RandomState(0)
    angle = rng.uniform(0, 2 * np.pi, 150)
    X = np.column_stack([np.cos(angle), 0.5 * np.sin(angle)]) + 0.05 * rng.normal(size=(150, 2))

    # Parzen windows: the formula, component by component.
    centers, values, vectors = _windows(X, 8)
    distances = np.linalg.norm(X[:, None] - X, axis=2)
    slow = []
    for i in range(len(X)):
        steps = X[np.argsort(distances[i])[1:9]] - X[i]
        covariance = 0.5 * steps.T @ steps / 8 + 0.01 * np.eye(2)
        steps = X[:5] - X[i]
        squares = (steps * np.linalg.solve(covariance, steps.T).T).sum(1)
        slow.append(-0.5 * (squares + np.linalg.slogdet(2 * np.pi * covariance)[1]))
    slow = logsumexp(slow, axis=0) - np.log(len(X))
    fast = _windows_log_density(X[:5], centers, values, vectors, [(1.0, 0.5), (0.5, 0.01)])
    np.testing.assert_allclose(fast[:, 1], slow, rtol=1e-10)

    # Everything is a density: the integral over a grid in the plane is one.
    axis = np.linspace(-3, 3, 301)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    cell = (axis[1] - axis[0]) ** 2
    models = [
        FullKDE(),
        CVGaussianMixture(),
        RestartedGaussianMixtures(2),
        ParzenWindows(),
        SplineFlow(seconds=2, max_epochs=20),
    ]
    for model in models:
        model.fit(X)
        # 0.01: a grid of 0.02 and what lies outside; a flow has tails beyond the square.
        mass = np.exp(model.score_samples(grid)).sum() * cell
        assert abs(mass - 1) < 0.01 + 0.02 * isinstance(model, SplineFlow), (model, mass)
        # Choosing again is not what refit does, but on the same rows the result is the same.
        again = model.refit(X).score_samples(X[:5])
        np.testing.assert_allclose(again, model.score_samples(X[:5]), rtol=1e-5)

    # A turned and stretched data set has the turned and stretched full-covariance KDE.
    turn = np.array([[2.0, 1.0], [-0.5, 0.1]])
    moved = FullKDE().fit(X @ turn).score_samples(X @ turn)
    here = FullKDE().fit(X).score_samples(X) - np.linalg.slogdet(turn)[1]
    np.testing.assert_allclose(moved, here, atol=1e-3)  # both bandwidths come from a search

    # EM weights are a fixed point, and a member that is always worse gets none.
    logs = rng.normal(size=(400, 2))
    weights = em_weights(np.column_stack([logs, logs.min(1) - 1]))
    assert weights[2] < 1e-3, weights
    np.testing.assert_allclose(weights.sum(), 1)

    # A climb finds the top of a hill and asks at no point twice.
    asked = []

    def hill(a, b):
        asked.append((a, b))
        return -((a - 3) ** 2) - b

    assert climb(hill, (range(9), (1, 0)), (8, 0)) == ((3, 0), 0)
    assert len(asked) == len(set(asked))
