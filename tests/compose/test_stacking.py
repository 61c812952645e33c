"""DensityStacking: the optimum of its weights, held-out rows, and the mixture."""

import pickle
from types import SimpleNamespace

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from oracles import rows_for_folds
from scipy.optimize import minimize
from scipy.special import logsumexp
from sklearn.base import BaseEstimator, clone
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, RepeatedKFold, TimeSeriesSplit
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth._coordinates.columns import ColumnSpace
from skdiffsmooth._diffusion import fitting
from skdiffsmooth._diffusion.fitting import nodes_of_whole
from skdiffsmooth.bases import ManifoldParzen
from skdiffsmooth.compose import (
    DensityStacking,
    TransformedDensity,
    _member_trials,
    _member_weights,
    _stacking,
)
from skdiffsmooth.compose._family import density_family
from skdiffsmooth.model_selection import SmoothedScoreDiffusionCV

COARSE = SmoothedScoreDiffusion(0.3, 0.4, n_nodes=16, n_levels=6, n_steps=6)
NARROW, WIDE = KDESampler(0.2), KDESampler(1.0)
# The optimum is reached within this many nats a row, which is what the certificate promises.
GAP = 1e-8
ROUNDING = 1e-12


class Lookup(BaseEstimator):
    """A fitted "density" that reads its log-densities from a list: rows are their own numbers."""

    def __init__(self, values=()):
        self.values = values
        self.fitted_ = True

    def fit(self, X, y=None):
        return self

    def score_samples(self, X):
        return np.asarray(self.values, dtype=float)[X[:, 0].astype(int)]


class Remembering(KDESampler):
    """A KDE that keeps the rows it was given, as they were."""

    def fit(self, X, y=None, sample_weight=None):
        super().fit(X, sample_weight=sample_weight)
        self.seen_ = X
        return self


def table(n=40, d=2, seed=0):
    return np.random.RandomState(seed).normal(size=(n, d)) * np.geomspace(2.0, 0.5, d)


def pair(*estimators):
    return [(f"m{k}", estimator) for k, estimator in enumerate(estimators)]


def weights_for(L, sample_weight=None):
    """Return the weights for a table of log-densities, whatever they are densities of."""
    members = pair(*(Lookup(tuple(column)) for column in np.transpose(L)))
    rows = np.arange(float(len(L)))[:, None]
    return DensityStacking(members, cv="prefit").fit(rows, sample_weight=sample_weight).weights_


def objective(weights, L, share):
    with np.errstate(divide="ignore"):
        return share @ logsumexp(L + np.log(weights), axis=1)


@st.composite
def log_densities(draw):
    """Tables of log-densities with some zeros of the density, at least one member in each row."""
    rng = np.random.RandomState(draw(st.integers(0, 2**32 - 1)))
    n, m = draw(st.integers(1, 30)), draw(st.integers(1, 5))
    L = rng.normal(scale=draw(st.sampled_from([0.3, 2.0, 50.0])), size=(n, m))
    if draw(st.booleans()):
        lost = rng.uniform(size=L.shape) < 0.3
        lost[np.arange(n), rng.randint(m, size=n)] = False
        L[lost] = -np.inf
    weight = rng.randint(1, 5, size=n).astype(float) if draw(st.booleans()) else None
    return L, weight


# ------------------------------------------------------------------------------ the optimum


@given(log_densities())
@settings(max_examples=60, deadline=None)
def test_weights_are_optimal(case):
    # Karush, Kuhn and Tucker: no gradient above one, one itself where the weight is positive. The
    # problem is concave, so nothing else needs to hold.
    L, weight = case
    share = np.ones(len(L)) / len(L) if weight is None else weight / weight.sum()
    weights = weights_for(L, weight)
    assert weights.min() >= 0
    assert_allclose(weights.sum(), 1, rtol=ROUNDING)
    with np.errstate(divide="ignore"):
        mixture = logsumexp(L + np.log(weights), axis=1, keepdims=True)
    slope = share @ np.exp(L - mixture)
    assert slope.max() <= 1 + 1.01 * GAP
    # weights @ slope is one, and no slope is above one by more than the gap, so no weighted one is
    # below by more than that either.
    assert np.all(weights * (1 - slope) <= 1.01 * GAP)


@given(log_densities())
@settings(max_examples=25, deadline=None)
def test_weights_are_not_worse_than_those_of_a_general_optimiser(case):
    L, weight = case
    share = np.ones(len(L)) / len(L) if weight is None else weight / weight.sum()
    m = L.shape[1]
    F = np.exp(L - L.max(axis=1, keepdims=True))
    found = minimize(
        lambda p: -share @ np.log(np.maximum(F @ p, 1e-300)),
        np.full(m, 1 / m),
        jac=lambda p: -(share / np.maximum(F @ p, 1e-300)) @ F,
        bounds=[(0, 1)] * m,
        constraints={"type": "eq", "fun": lambda p: p.sum() - 1, "jac": lambda p: np.ones(m)},
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    theirs = np.maximum(found.x, 0) / np.maximum(found.x, 0).sum()
    gain = objective(weights_for(L, weight), L, share) - objective(theirs, L, share)
    assert gain >= -2 * GAP
    if found.success and m <= 2:  # it may stop early where weights go to zero
        assert gain <= 1e-6


@given(log_densities(), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_members_in_another_order_have_the_same_weights(case, random):
    L, weight = case
    order = random.sample(range(L.shape[1]), L.shape[1])
    # EM passes through the same points, up to the order of sums.
    assert_allclose(weights_for(L[:, order], weight), weights_for(L, weight)[order], atol=1e-6)


def test_a_member_that_only_costs_has_weight_zero_exactly():
    X = np.random.RandomState(0).normal(size=(300, 1))
    bad = KDESampler(20.0)
    model = DensityStacking([("good", KDESampler(0.4)), ("bad", bad)]).fit(X)
    assert_array_equal(model.weights_, [1.0, 0.0])
    assert_array_equal(model.score_samples(5 * X), KDESampler(0.4).fit(X).score_samples(5 * X))


def test_a_member_without_which_some_row_is_lost_keeps_its_weight():
    # Row 2 is reached by the second member only, whose weight is then a third of one row's.
    L = np.array([[0.0, -50.0], [0.0, -50.0], [-np.inf, 0.0]])
    assert_allclose(weights_for(L), [2 / 3, 1 / 3], rtol=1e-6)


def test_rows_of_density_zero_under_every_member_do_not_change_the_weights():
    L = np.array([[0.0, -1.0], [-3.0, 0.0], [0.3, 0.0]])
    lost = np.vstack([L, [[-np.inf, -np.inf]]])
    with pytest.warns(UserWarning, match="1 of 4 held-out rows have density zero"):
        found = weights_for(lost)
    assert_allclose(found, weights_for(L), rtol=ROUNDING)
    with pytest.raises(ValueError, match="every member, so no weights can be chosen"):
        weights_for(np.full((3, 2), -np.inf))


def test_weights_that_have_not_converged_are_reported(monkeypatch):
    monkeypatch.setattr(_member_weights, "_MAX_ITERATIONS", 3)
    L = np.random.RandomState(0).normal(scale=2.0, size=(30, 3))
    with pytest.warns(ConvergenceWarning, match="nats a row below its maximum after 3 iterations"):
        found = weights_for(L)
    assert_allclose(found.sum(), 1, rtol=ROUNDING)


def test_fits_in_folds_do_not_repeat_the_warning_of_the_fit_to_all_rows():
    """Each fold warned of narrow scales with a number of its own."""
    with pytest.warns(UserWarning, match="near-copies of training rows") as warned:
        DensityStacking(pair(KDESampler(1e-3), WIDE)).fit(table(30))
    assert len(warned) == 1


def test_huge_weights_of_rows_do_not_overflow():
    L = np.random.RandomState(0).normal(size=(10, 2))
    w = np.arange(1.0, 11.0)
    assert_allclose(weights_for(L, 1e307 * w), weights_for(L, w), rtol=ROUNDING)


# ----------------------------------------------------------------- identities of the mixture


@pytest.mark.parametrize("member", [COARSE, WIDE, GaussianMixture(2, random_state=0)])
def test_one_member_is_that_member(member):
    X = table()
    model = DensityStacking([("only", member)]).fit(X)
    assert_array_equal(model.weights_, [1.0])
    assert_allclose(
        model.score_samples(X + 0.1), clone(member).fit(X).score_samples(X + 0.1), rtol=ROUNDING
    )


def test_a_member_and_its_copy_are_that_member():
    X = table()
    model = DensityStacking(pair(WIDE, WIDE)).fit(X)
    assert_allclose(model.weights_.sum(), 1)
    assert_allclose(
        model.score_samples(X + 0.1), clone(WIDE).fit(X).score_samples(X + 0.1), rtol=ROUNDING
    )


def test_out_of_fold_the_mixture_is_at_least_as_good_as_its_best_member():
    for seed in range(4):
        X = np.random.RandomState(seed).standard_t(2, size=(60, 2))
        model = DensityStacking(pair(NARROW, WIDE, GaussianMixture(1))).fit(X)
        L = model.oof_log_density_
        share = np.full(len(L), 1 / len(L))
        assert objective(model.weights_, L, share) >= L.mean(axis=0).max() - GAP
        # Here the members complement one another.
        assert objective(model.weights_, L, share) > L.mean(axis=0).max() + 1e-3


def test_log_densities_are_those_of_the_mixture():
    X = table()
    model = DensityStacking(pair(NARROW, WIDE, COARSE)).fit(X)
    Q = 3 * X
    total = sum(
        w * np.exp(member.score_samples(Q))
        for w, member in zip(model.weights_, model.estimators_, strict=True)
    )
    # Where the density itself does not underflow.
    seen = total > 1e-300
    assert seen.sum() > 20
    assert_allclose(model.score_samples(Q)[seen], np.log(total[seen]), rtol=1e-10)
    assert np.all(np.isfinite(model.score_samples(100 * X)))
    assert model.score(Q) == pytest.approx(model.score_samples(Q).mean())


def test_the_mixture_is_normalised():
    line = DensityStacking(pair(NARROW, GaussianMixture(1))).fit(table(30, 1))
    grid = np.linspace(-15, 15, 3001)
    # The trapezoid rule is exact to rounding for Gaussians that it resolves: 20 nodes a bandwidth.
    assert_allclose(np.exp(line.score_samples(grid[:, None])).sum() * 0.01, 1, rtol=1e-9)
    plane = DensityStacking(pair(COARSE, WIDE)).fit(table(20, 2))
    axis = np.linspace(-9, 9, 121)
    cells = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    mass = np.exp(plane.score_samples(cells)).sum() * 0.15**2
    assert_allclose(mass, 1, atol=0.02)  # six steps of the flow lose a percent of the mass


# ------------------------------------------------------------------------- what is held out


def by_hand(members, X, n_folds=5):
    """Hold out distinct rows, one fold after the other."""
    distinct = rows_for_folds(X)
    L = np.empty((len(X), len(members)))
    for _, test in KFold(n_folds, shuffle=True, random_state=0).split(distinct):
        is_test = np.array([any((row == distinct[t]).all() for t in test) for row in X])
        for k, member in enumerate(members):
            L[is_test, k] = clone(member).fit(X[~is_test]).score_samples(X[is_test])
    return L


def test_out_of_fold_log_densities_are_those_of_models_without_the_row():
    X = np.round(table(40), 1)  # some rows are equal
    assert len(np.unique(X, axis=0)) < len(X)
    members = [NARROW, COARSE, GaussianMixture(1)]
    model = DensityStacking(pair(*members)).fit(X)
    assert_allclose(model.oof_log_density_, by_hand(members, X), rtol=1e-10)


def test_copies_of_a_row_do_not_meet_across_folds():
    # Were they to, the narrow kernel would find each row's copy, and be the best of all.
    X = table(30)
    twice = np.concatenate([X, X])
    members = pair(KDESampler(1e-3), WIDE)
    assert_array_equal(DensityStacking(members).fit(twice).weights_, [0.0, 1.0])
    leaky = DensityStacking(members, cv=KFold(5, shuffle=True, random_state=0)).fit(twice)
    assert leaky.weights_[0] > 0.5


def test_a_row_of_weight_k_is_k_rows():
    X = table(25)
    times = np.random.RandomState(1).randint(0, 4, size=len(X))
    order = np.random.RandomState(2).permutation(times.sum())
    members = pair(NARROW, WIDE, COARSE)
    weighted = DensityStacking(members).fit(X, sample_weight=times)
    repeated = DensityStacking(members).fit(np.repeat(X, times, axis=0)[order])
    assert_allclose(weighted.weights_, repeated.weights_, atol=1e-9)
    assert_allclose(weighted.score_samples(X), repeated.score_samples(X), rtol=1e-9)
    assert_allclose(weighted.sample(9, 0), repeated.sample(9, 0), rtol=1e-9)
    assert_allclose(
        weighted.oof_log_density_,
        DensityStacking(members).fit(X[times > 0], sample_weight=times[times > 0]).oof_log_density_,
    )


def test_the_order_of_the_rows_does_not_matter():
    X = table()
    order = np.random.RandomState(0).permutation(len(X))
    one = DensityStacking(pair(NARROW, WIDE)).fit(X)
    two = DensityStacking(pair(NARROW, WIDE)).fit(X[order])
    assert_allclose(one.weights_, two.weights_, atol=1e-9)
    assert_allclose(one.oof_log_density_[order], two.oof_log_density_, rtol=1e-10)


def test_splits_of_the_user_are_taken_as_they_are():
    X = table(30)
    groups = np.arange(30) % 3
    splits = list(GroupKFold(3).split(X, groups=groups))
    model = DensityStacking(pair(WIDE), cv=splits).fit(X)
    for train, test in splits:
        expected = clone(WIDE).fit(X[train]).score_samples(X[test])
        assert_allclose(model.oof_log_density_[test, 0], expected, rtol=ROUNDING)
    # Rows of weight zero are rows of X all the same: the splits' numbers count them.
    weight = np.ones(30)
    weight[[0, 4, 17]] = 0
    found = DensityStacking(pair(WIDE), cv=splits).fit(X, sample_weight=weight)
    train, test = splits[0]
    expected = clone(WIDE).fit(X[train[weight[train] > 0]]).score_samples(X)
    kept = np.flatnonzero(weight)
    for row in test[weight[test] > 0]:
        place = np.searchsorted(kept, row)
        assert found.oof_log_density_[place, 0] == pytest.approx(expected[row])


def test_a_fold_without_weight_is_no_fold():
    X = table(30)
    splits = list(KFold(3).split(X))
    weight = np.repeat([0.0, 1.0, 1.0], 10)
    model = DensityStacking(pair(WIDE), cv=splits).fit(X, sample_weight=weight)
    expected = clone(WIDE).fit(X[10:20]).score_samples(X[20:])
    assert_allclose(model.oof_log_density_[10:, 0], expected, rtol=ROUNDING)


def test_rows_that_no_fold_tests_do_not_count_in_the_weights():
    X = table(30)
    splitter = TimeSeriesSplit(4)
    model = DensityStacking(pair(NARROW, WIDE), cv=splitter).fit(X)
    tested = np.zeros(30, dtype=bool)
    for train, test in splitter.split(X):
        tested[test] = True
        expected = clone(WIDE).fit(X[train]).score_samples(X[test])
        assert_allclose(model.oof_log_density_[test, 1], expected, rtol=ROUNDING)
    assert np.all(np.isnan(model.oof_log_density_[~tested]))
    weights = _member_weights.optimal_weights(model.oof_log_density_[tested], None)
    assert_array_equal(model.weights_, weights)


def test_groups_are_held_out_together():
    X, groups = table(30), np.repeat(np.arange(6), 5)
    one = DensityStacking(pair(WIDE), cv=GroupKFold(3)).fit(X, groups=groups)
    two = DensityStacking(pair(WIDE), cv=list(GroupKFold(3).split(X, groups=groups))).fit(X)
    assert_array_equal(one.oof_log_density_, two.oof_log_density_)
    # As many folds as groups: each group alone.
    three = DensityStacking(pair(WIDE), cv=6).fit(X, groups=[f"group {k}" for k in groups])
    expected = clone(WIDE).fit(X[5:]).score_samples(X[:5])
    assert_allclose(three.oof_log_density_[:5, 0], expected, rtol=ROUNDING)
    with pytest.warns(UserWarning, match="cv=7 folds need as many groups, got 6; makes 6 folds"):
        DensityStacking(pair(WIDE), cv=7).fit(X, groups=groups)


def test_four_rows_make_four_folds():
    X = table(4)
    with pytest.warns(UserWarning, match="cv=5 folds need as many distinct rows .* got 4; makes 4"):
        model = DensityStacking(pair(WIDE)).fit(X)
    assert_allclose(model.oof_log_density_, by_hand([WIDE], X, 4), rtol=ROUNDING)


def test_no_cv_is_five_folds():
    X = np.round(table(40), 1)
    one, two = (DensityStacking(pair(WIDE), cv=cv).fit(X) for cv in (None, 5))
    assert_array_equal(one.oof_log_density_, two.oof_log_density_)


def test_prefit_members_are_taken_as_they_are():
    X, fresh = table(40), table(40, seed=1)
    members = pair(*(clone(member).fit(X) for member in (NARROW, WIDE)))
    before = pickle.dumps(members)
    model = DensityStacking(members, cv="prefit").fit(fresh)
    assert pickle.dumps(members) == before
    for k, (_, member) in enumerate(members):
        assert_array_equal(model.oof_log_density_[:, k], member.score_samples(fresh))
    # A later fit of the user's objects changes nothing.
    expected = model.score_samples(X)
    for _, member in members:
        member.fit(X + 9)
    assert_array_equal(model.score_samples(X), expected)
    with pytest.raises(NotFittedError, match="KDESampler"):
        DensityStacking(pair(NARROW), cv="prefit").fit(fresh)


# ------------------------------------------------------------------------------ settings, once

CHOOSING = SmoothedScoreDiffusion(sigma=0.0, metric="whitened")


@pytest.mark.parametrize(
    "member",
    [
        CHOOSING,
        TransformedDensity(CHOOSING, StandardScaler()),
        GridSearchCV(KDESampler(), {"bandwidth": [0.3, 0.5, 0.8]}, cv=2),
        SmoothedScoreDiffusionCV(CHOOSING, bandwidth_factors=[0.7, 1.0], n_refinements=0),
    ],
)
def test_settings_are_those_of_the_fit_to_all_rows(member):
    X = table(60, 3)
    split = [(np.arange(40), np.arange(40, 60))]
    once = DensityStacking(pair(member), cv=split).fit(X)
    fitted = once.estimators_[0]
    if hasattr(fitted, "best_estimator_"):
        chosen = clone(fitted.best_estimator_)
        settings = getattr(fitted.best_estimator_, "settings_", {})
    elif isinstance(fitted, TransformedDensity):
        chosen = clone(fitted)
        settings = {f"estimator__{k}": v for k, v in fitted.estimator_.settings_.items()}
    else:
        chosen, settings = clone(fitted), fitted.settings_
    expected = chosen.set_params(**settings).fit(X[:40]).score_samples(X[40:])
    assert_allclose(once.oof_log_density_[40:, 0], expected, rtol=ROUNDING)
    by_fold = DensityStacking(pair(member), cv=split, settings="fold").fit(X)
    expected = clone(member).fit(X[:40]).score_samples(X[40:])
    assert_allclose(by_fold.oof_log_density_[40:, 0], expected, rtol=ROUNDING)
    assert_allclose(by_fold.score_samples(X), once.score_samples(X), rtol=ROUNDING)


def test_windows_keep_their_bandwidth_in_folds():
    X = table(60, 3)
    split = [(np.arange(40), np.arange(40, 60))]
    windows = SmoothedScoreDiffusion(sigma=0.0, base=ManifoldParzen(6))
    once = DensityStacking(pair(windows), cv=split).fit(X)
    kept = clone(windows).set_params(bandwidth=once.estimators_[0].bandwidth_)
    expected = kept.fit(X[:40]).score_samples(X[40:])
    assert_allclose(once.oof_log_density_[40:, 0], expected, rtol=ROUNDING)


@pytest.mark.parametrize("wrap", [False, True])
def test_folds_use_the_nodes_of_the_fit_to_all_rows(wrap, monkeypatch):
    """Beside a fit to the same rows that chooses them again: nearly the same, in less time."""
    X = table(60, 12)
    split = [(np.arange(40), np.arange(40, 60)), (np.arange(20, 60), np.arange(20))]
    density = SmoothedScoreDiffusion(0.8, 0.9, metric="euclidean", background=0.05, n_levels=4)
    member = TransformedDensity(density, StandardScaler()) if wrap else density
    calls = []
    for name in ("enough_nodes", "divergence_shifts"):
        function = getattr(fitting, name)

        def counted(*args, name=name, function=function, **kwargs):
            calls.append(name)
            return function(*args, **kwargs)

        monkeypatch.setattr(fitting, name, counted)
    once = DensityStacking(pair(member), cv=split).fit(X)
    assert calls == ["enough_nodes", "divergence_shifts"]
    fitted = once.estimators_[0]
    nodes = (fitted.estimator_ if wrap else fitted)._nodes_
    kept = _member_trials.with_settings(fitted)
    with nodes_of_whole(nodes):
        expected = clone(kept).fit(X[:40]).score_samples(X[40:])
    assert_allclose(once.oof_log_density_[40:, 0], expected, rtol=ROUNDING)
    calls.clear()
    again = DensityStacking(pair(member), cv=split, settings="fold").fit(X)
    assert calls == 3 * ["enough_nodes", "divergence_shifts"]
    # The corrections of a fold have a standard error of a few hundredths of a nat.
    assert_allclose(once.oof_log_density_, again.oof_log_density_, atol=0.15)
    assert np.any(once.oof_log_density_ != again.oof_log_density_)


def test_of_many_rows_some_are_held_out():
    """As many in each fold; a row and its copies together; no more than needed; not by row order."""
    X = np.random.RandomState(0).normal(size=(2600, 1))
    members = pair(GaussianMixture(1))
    model = DensityStacking(members).fit(X)
    scored = ~np.isnan(model.oof_log_density_[:, 0])
    assert scored.sum() == 2000
    order = np.random.RandomState(1).permutation(len(X))
    again = DensityStacking(members).fit(X[order]).oof_log_density_
    assert_array_equal(~np.isnan(again[:, 0]), scored[order])
    copied = DensityStacking(members).fit(np.repeat(X, 2, axis=0)).oof_log_density_
    assert_array_equal(~np.isnan(copied[:, 0]), np.repeat(scored, 2))
    few = DensityStacking(members).fit(X[:1900]).oof_log_density_
    assert not np.isnan(few).any()
    halves = [(np.arange(1300), np.arange(1300, 2600)), (np.arange(1300, 2600), np.arange(1300))]
    assert not np.isnan(DensityStacking(members, cv=halves).fit(X).oof_log_density_).any()


@pytest.mark.parametrize(("n_columns", "n_scored"), [(64, 350), (160, 320), (400, 200)])
def test_of_many_columns_fewer_rows_are_held_out(n_columns, n_scored):
    X = np.random.RandomState(0).normal(size=(350, n_columns))
    members = pair(GaussianMixture(1, covariance_type="diag"))
    log_density = DensityStacking(members).fit(X).oof_log_density_
    assert np.sum(~np.isnan(log_density[:, 0])) == n_scored


def test_a_member_that_chooses_nothing_is_the_same_with_both_settings():
    X, members = table(), pair(NARROW, COARSE, GaussianMixture(2, random_state=0))
    once, fold = (DensityStacking(members, settings=s).fit(X) for s in ("once", "fold"))
    assert_array_equal(once.oof_log_density_, fold.oof_log_density_)


def test_a_frozen_member_is_not_fitted_again():
    X, member = table(), FrozenEstimator(clone(NARROW).fit(table(seed=1)))
    model = DensityStacking(pair(member, WIDE)).fit(X)
    assert_array_equal(model.oof_log_density_[:, 0], member.estimator.score_samples(X))


# ------------------------------------------------------------------------------------ samples


def test_samples_are_of_the_members_by_their_weights():
    # Two bumps far apart: prefit members, one each, and rows of which a quarter are of the first.
    rng = np.random.RandomState(0)
    left, right = rng.normal(-10, 1, (50, 1)), rng.normal(10, 1, (50, 1))
    members = pair(GaussianMixture(1).fit(left), clone(WIDE).fit(right))
    model = DensityStacking(members, cv="prefit").fit(np.vstack([left[:10], right[:30]]))
    assert_allclose(model.weights_, [0.25, 0.75], rtol=1e-6)
    rows = model.sample(4000, random_state=0)
    is_left = rows[:, 0] < 0
    # 4 standard errors of a binomial share: one false alarm in 16 000.
    assert abs(is_left.mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 4000)
    # In random order: neighbours are of the same member no more often than any two rows.
    same = np.mean(is_left[1:] == is_left[:-1])
    assert abs(same - (0.25**2 + 0.75**2)) < 4 * np.sqrt(0.25 / 4000)
    assert rows[is_left, 0].mean() == pytest.approx(left.mean(), abs=0.15)  # 4 standard errors


def test_samples_are_seeded_and_leave_members_and_numpy_alone():
    model = DensityStacking(pair(WIDE, GaussianMixture(1))).fit(table())
    before, state = pickle.dumps(vars(model)), pickle.dumps(np.random.mtrand._rand.get_state())
    one, two = model.sample(20, random_state=1), model.sample(20, random_state=1)
    assert_array_equal(one, two)
    assert one.shape == (20, 2)
    assert not np.array_equal(one, model.sample(20, random_state=2))
    assert not np.array_equal(model.sample(5), model.sample(5))
    assert pickle.dumps(vars(model)) == before
    assert pickle.dumps(np.random.mtrand._rand.get_state()) == state


def test_a_member_that_cannot_sample_is_named():
    model = DensityStacking([("factors", PCA(1)), ("kde", WIDE)]).fit(table())
    model.weights_ = np.array([1.0, 0.0])
    with pytest.raises(
        TypeError, match=r"member 'factors' cannot sample: PCA has no method sample"
    ):
        model.sample(3)
    model.weights_ = np.array([0.0, 1.0])
    assert model.sample(3).shape == (3, 2)


def test_a_tuned_member_samples_from_the_best():
    search = GridSearchCV(KDESampler(), {"bandwidth": [0.3, 0.6]}, cv=2)
    model = DensityStacking(pair(search), cv=2).fit(table())
    assert_array_equal(model.sample(5, random_state=0).shape, (5, 2))


# -------------------------------------------------------------------------------- parameters


def test_members_are_parameters():
    model = DensityStacking([("a", KDESampler(0.5)), ("b", GaussianMixture(2))])
    params = model.get_params()
    assert params["a__bandwidth"] == 0.5
    assert params["b__n_components"] == 2
    assert params["a"] is model.estimators[0][1]
    assert set(model.get_params(deep=False)) == {
        *["estimators", "cv", "combine", "settings", "time_limit", "n_jobs", "verbose"]
    }
    model.set_params(a__bandwidth=0.7, b="drop", cv=3)
    assert model.estimators[0][1].bandwidth == 0.7
    assert model.estimators[1] == ("b", "drop")
    assert model.cv == 3
    # The list first, then its members, then their parameters, in one call.
    model.set_params(
        c__bandwidth=0.9, c=KDESampler(), estimators=[("c", "drop"), ("d", KDESampler())]
    )
    assert [name for name, _ in model.estimators] == ["c", "d"]
    assert model.estimators[0][1].bandwidth == 0.9
    with pytest.raises(ValueError, match="Invalid parameter 'a'"):
        model.set_params(a="drop")


def test_set_params_leaves_the_list_of_the_user():
    members = pair(NARROW, WIDE)
    DensityStacking(members).set_params(m0="drop")
    assert members[0][1] is NARROW


def test_clone_and_pickle():
    model = DensityStacking(pair(NARROW, "drop", WIDE)).fit(table())
    twin = clone(model)
    assert not hasattr(twin, "weights_")
    assert twin.estimators[0][1] is not NARROW
    assert twin.estimators[1][1] == "drop"
    again = pickle.loads(pickle.dumps(model))
    assert_array_equal(again.score_samples(table()), model.score_samples(table()))


def test_a_dropped_member_is_as_if_not_there():
    X = table()
    model = DensityStacking([("a", NARROW), ("b", "drop"), ("c", WIDE)]).fit(X)
    expected = DensityStacking([("a", NARROW), ("c", WIDE)]).fit(X)
    assert_array_equal(model.score_samples(X), expected.score_samples(X))
    assert list(model.named_estimators_) == ["a", "c"]
    assert model.named_estimators_["c"] is model.estimators_[1]


def test_a_search_tunes_members():
    grid = {"a__bandwidth": [1e-3, 0.5], "b": ["drop", GaussianMixture(1)]}
    search = GridSearchCV(DensityStacking([("a", KDESampler()), ("b", "drop")], cv=3), grid, cv=2)
    search.fit(table(60))
    narrow, narrow_with, wide, wide_with = search.cv_results_["mean_test_score"]
    # The rows are normal: a Gaussian helps any KDE, and the narrow one by much more.
    assert narrow < wide < min(narrow_with, wide_with)


def test_workers_do_not_change_the_result():
    X = table()
    alone = DensityStacking(pair(NARROW, COARSE)).fit(X)
    with joblib.parallel_config("threading"):
        both = DensityStacking(pair(NARROW, COARSE), n_jobs=2).fit(X)
    assert_array_equal(alone.oof_log_density_, both.oof_log_density_)
    assert_array_equal(alone.score_samples(X), both.score_samples(X))


def test_members_see_column_names():
    frame = pd.DataFrame(table(), columns=["a", "b"])
    model = DensityStacking(pair(Remembering(0.3), GaussianMixture(1))).fit(frame)
    assert list(model.estimators_[0].seen_.columns) == ["a", "b"]
    assert list(model.feature_names_in_) == ["a", "b"]
    plain = DensityStacking(pair(Remembering(0.3), GaussianMixture(1))).fit(frame.to_numpy())
    assert_allclose(model.score_samples(frame), plain.score_samples(frame.to_numpy()))
    with pytest.raises(ValueError, match="feature names should match"):
        model.score_samples(frame[["b", "a"]])


@pytest.mark.parametrize("method", ["score_samples", "score", "sample"])
def test_not_fitted(method):
    arguments = () if method == "sample" else (table(),)
    with pytest.raises(NotFittedError, match="DensityStacking"):
        getattr(DensityStacking(pair(WIDE)), method)(*arguments)


def test_wrong_number_of_features():
    model = DensityStacking(pair(WIDE)).fit(table())
    with pytest.raises(ValueError, match="X has 3 features, but DensityStacking is expecting 2"):
        model.score_samples(table(d=3))


# ------------------------------------------------------------------------------------- errors

SCALED = make_pipeline(StandardScaler(), WIDE)


@pytest.mark.parametrize(
    ("estimators", "error", "message"),
    [
        ([], ValueError, "non-empty list"),
        (WIDE, ValueError, "non-empty list"),
        ([WIDE], ValueError, "non-empty list"),
        ([("a", WIDE), ("a", NARROW)], ValueError, "not unique"),
        ([("cv", WIDE)], ValueError, "names .'cv'."),
        ([("a__b", WIDE)], ValueError, "names .'a__b'."),
        ([("a", "drop")], ValueError, "all estimators are 'drop'"),
        ([("a", "other")], TypeError, "member 'a' of type str has no fit"),
        ([("a", KDESampler)], TypeError, "member 'a' is the class KDESampler"),
        ([("a", StandardScaler())], TypeError, "member 'a' of type StandardScaler has no fit"),
        (
            [("a", IsolationForest())],
            TypeError,
            "'a' of type IsolationForest is an outlier detector",
        ),
        ([("a", SCALED)], ValueError, "member 'a' is a Pipeline .* TransformedDensity"),
        (
            [("a", GridSearchCV(SCALED, {"kdesampler__bandwidth": [1.0]}))],
            ValueError,
            "member 'a' is a Pipeline .* TransformedDensity",
        ),
        ([("a", KDESampler(-1.0))], ValueError, "member 'a': bandwidth=-1.0 is out of range"),
        ([("a", KDESampler(kernel=3))], TypeError, "member 'a': kernel=3 has type int"),
    ],
)
def test_bad_members(estimators, error, message):
    with pytest.raises(error, match=message):
        DensityStacking(estimators).fit(table())


@pytest.mark.parametrize(
    ("cv", "error", "message"),
    [
        (1, ValueError, "cv=1 is too small"),
        (2.5, TypeError, "cv=2.5 has type float"),
        ("fit", ValueError, "cv='fit' is not known"),
        (RepeatedKFold(n_splits=2, n_repeats=2), ValueError, "tests no row, or a row twice"),
        (10**30, ValueError, "cv=10+ is too large"),
        ([], ValueError, r"cv=\[\] tests no row, or a row twice \(0 folds\)"),
        ({}, ValueError, r"cv=\{\} tests no row, or a row twice \(0 folds\)"),
        ({0: 1}, ValueError, r"cv: fold 0 is 0; expected a pair \(train, test\)"),
        (object(), TypeError, "cv=.* has type object; expected an integer >= 2, a splitter"),
        (KFold, TypeError, "cv=.* has type ABCMeta; expected an integer >= 2, a splitter"),
        (
            [([0], [1, 40])],
            ValueError,
            "fold 0 holds indices from 1 to 40; expected those of 40 rows",
        ),
        ([([0], [0.5])], ValueError, r"fold 0 has shape \(1,\) and type float64; expected row ind"),
        ([(0, 1)], ValueError, r"fold 0 has shape \(\) and type int64; expected row indices"),
    ],
)
def test_bad_folds(cv, error, message):
    with pytest.raises(error, match=message):
        DensityStacking(pair(WIDE), cv=cv).fit(table())


def test_masks_and_indices_from_the_end_are_splits():
    X = table()
    is_first = np.arange(len(X)) < 20
    expected = DensityStacking(pair(WIDE), cv=KFold(2)).fit(X).oof_log_density_
    for first, last in ((is_first, ~is_first), (range(20), range(-20, 0))):
        model = DensityStacking(pair(WIDE), cv=[(first, last), (last, first)]).fit(X)
        assert_array_equal(model.oof_log_density_, expected)


@pytest.mark.parametrize(
    ("n_jobs", "error", "message"),
    [
        (0, ValueError, "n_jobs=0 is not a number of workers"),
        (10**30, ValueError, "n_jobs=10+ is too large"),
        (-(10**30), ValueError, "n_jobs=-10+ is too small"),
        (True, TypeError, "n_jobs=True has type bool"),
        (1.5, TypeError, "n_jobs=1.5 has type float"),
        ("2", TypeError, "n_jobs='2' has type str"),
        ([2], TypeError, r"n_jobs=\[2\] has type list"),
    ],
)
def test_bad_numbers_of_workers(n_jobs, error, message):
    with pytest.raises(error, match=message):
        DensityStacking(pair(WIDE), n_jobs=n_jobs).fit(table())


def test_tensors_with_gradients_are_refused():
    X = torch.tensor(table(), requires_grad=True)
    with pytest.raises(TypeError, match=r"X is a tensor that requires gradients.*X\.detach\(\)"):
        DensityStacking(pair(WIDE)).fit(X)
    model = DensityStacking(pair(WIDE)).fit(X.detach())
    with pytest.raises(TypeError, match=r"X\.detach\(\)"):
        model.score_samples(X)


def test_a_pipeline_without_transformers_is_a_member():
    X = table()
    model = DensityStacking(pair(make_pipeline("passthrough", WIDE)), cv=2).fit(X)
    assert_allclose(model.score_samples(X), clone(WIDE).fit(X).score_samples(X), rtol=ROUNDING)
    assert model.sample(3, random_state=0).shape == (3, 2)


def test_weights_need_members_that_take_them():
    X = table()
    with pytest.raises(
        TypeError, match=r"member 'm1' of type GaussianMixture takes no sample_weight"
    ):
        DensityStacking(pair(WIDE, GaussianMixture(1))).fit(X, sample_weight=np.ones(len(X)))
    DensityStacking(pair(WIDE, KernelDensity())).fit(X, sample_weight=np.ones(len(X)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_log_density_that_is_no_number_is_an_error(value):
    with pytest.raises(ValueError, match=r"member 'm1': 1 log-densities are NaN or \+inf .*row 2"):
        weights_for(np.array([[0.0, 0.0], [0.0, 0.0], [0.0, value]]))


def test_a_fit_that_fails_leaves_the_old_one_whole():
    model = DensityStacking(pair(clone(NARROW), clone(WIDE))).fit(table())
    before = {name: value for name, value in vars(model).items() if name.endswith("_")}
    model.set_params(m1__bandwidth=-1.0)
    with pytest.raises(ValueError, match="member 'm1'"):
        model.fit(table(d=3))
    after = {name: value for name, value in vars(model).items() if name.endswith("_")}
    assert before.keys() == after.keys()
    assert all(after[name] is before[name] for name in before)


# ------------------------------------------------------------------- the family, one, and a limit


@pytest.fixture(scope="module")
def family():
    rng = np.random.RandomState(0)
    X = np.vstack([rng.normal(size=(30, 2)), [5.0, 0.0] + 0.3 * rng.normal(size=(20, 2))])
    return X, DensityStacking(cv=2).fit(X)


def test_without_members_it_mixes_the_densities_of_this_package(family):
    _, stack = family
    names = list(stack.named_estimators_)
    assert names[:3] == ["smoothed", "windows", "whitened-windows"]
    # 25 rows are too few for eight knots of five rows.
    assert not [name for name in names if "quantiles" in name]
    # 25 of 50 rows a fold and five rows a component: 4 components are the most.
    assert [name for name in names if "mixture" in name] == [f"mixture-{k}" for k in (1, 2, 4)]
    # The optimum of a mixture is not below any member, up to the gap that is certified.
    held_out = logsumexp(stack.oof_log_density_ + np.log(stack.weights_ + 1e-300), axis=1).mean()
    assert held_out >= stack.oof_log_density_.mean(axis=0).max() - 1e-7
    assert stack.sample(7, random_state=0).shape == (7, 2)


def test_the_smoothed_member_is_the_fit_that_chose_the_settings(family):
    X, stack = family
    smoothed = stack.named_estimators_["smoothed"]
    parameters = smoothed.get_params(deep=False)
    assert {name: parameters[name] for name in smoothed.settings_} == smoothed.settings_
    again = clone(smoothed).fit(X)
    assert_array_equal(again.score_samples(X), smoothed.score_samples(X))
    chosen = SmoothedScoreDiffusion().fit(X)
    assert_array_equal(chosen.score_samples(X), smoothed.score_samples(X))


def test_the_settings_of_the_family_are_chosen_by_one_fit(monkeypatch):
    labels = []

    def counted(label, *args):
        labels.append(label)
        return fit_member(label, *args)

    fit_member = _stacking.fit_member
    for module in (_stacking, _member_trials):
        monkeypatch.setattr(module, "fit_member", counted)
    DensityStacking(cv=2).fit(table(30, 1))
    # Fits to all rows only.
    assert labels.count("member 'smoothed'") == 1
    assert len(set(labels)) == len(labels)


def test_units_do_not_matter_to_the_family(family):
    X, stack = family
    units = np.array([1e3, 1e-2])
    changed = DensityStacking(cv=2).fit(X * units)
    # EM stops at 1e-3 nats, at another iterate where rounding differs: weights move by hundredths.
    shifted = changed.score_samples(X * units) + np.log(units).sum()
    assert abs(np.mean(shifted - stack.score_samples(X))) < 0.05


def test_the_best_member_alone_where_one_model_is_wanted():
    X = np.random.RandomState(0).normal(size=(60, 1))
    members = [("narrow", KDESampler(0.01)), ("right", KDESampler(0.4)), ("wide", KDESampler(5.0))]
    best = DensityStacking(members, combine="best").fit(X)
    np.testing.assert_array_equal(best.weights_, [0, 1, 0])
    expected = KDESampler(0.4).fit(X).score_samples(X)
    np.testing.assert_allclose(best.score_samples(X), expected, rtol=1e-12)


def test_members_are_not_begun_after_the_time_limit():
    X = np.random.RandomState(0).normal(size=(40, 1))
    members = [("a", KDESampler(0.4)), ("b", KDESampler(0.5)), ("c", KDESampler(0.6))]
    with pytest.warns(UserWarning, match="after 1 of 3 members; not tried: b, c"):
        stack = DensityStacking(members, time_limit=1e-9).fit(X)
    assert list(stack.named_estimators_) == ["a"]
    assert len(DensityStacking(members, time_limit=1e9).fit(X).estimators_) == 3


def test_members_that_are_fitted_in_time_are_scored(monkeypatch):
    X = np.random.RandomState(0).normal(size=(40, 1))
    members = [("a", KDESampler(0.4)), ("b", KDESampler(0.5)), ("c", KDESampler(0.6))]
    # At the start, before the second member and before the third.
    clock = iter([0.0, 1.0, 3.0])
    for module in (_stacking, _member_trials):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with pytest.warns(UserWarning, match="after 2 of 3 members; not tried: c"):
        stack = DensityStacking(members, time_limit=2).fit(X)
    assert list(stack.named_estimators_) == ["a", "b"]


def test_a_default_member_that_fails_is_left_out(monkeypatch):
    X = np.random.RandomState(0).normal(size=(40, 1))

    class Fails(KDESampler):
        def fit(self, X, y=None, sample_weight=None):
            if len(X) < 40:
                raise ValueError("too few rows")
            return super().fit(X, sample_weight=sample_weight)

    members = [("good", KDESampler(1.0)), ("fails", Fails(0.5)), ("other", KDESampler(0.2))]
    monkeypatch.setattr(_stacking, "density_family", lambda *_, **__: members)
    with pytest.warns(UserWarning, match="left out: member 'fails': too few rows"):
        stack = DensityStacking(settings="fold").fit(X)
    assert list(stack.named_estimators_) == ["good", "other"]
    # One of the user's is an error.
    with pytest.raises(ValueError, match="member 'fails': too few rows"):
        DensityStacking(members).fit(X)


def test_weights_leave_mixtures_out_of_the_family():
    X = np.random.RandomState(0).normal(size=(90, 1))
    stack = DensityStacking(cv=2).fit(X, sample_weight=np.ones(90))
    assert list(stack.named_estimators_) == ["smoothed", "windows", "smoothed-quantiles-8"]
    # Smoothed rows choose for their maps, too.
    chosen = stack.named_estimators_["smoothed"].settings_
    assert stack.named_estimators_["smoothed-quantiles-8"].estimator_.settings_ == chosen


def test_the_family_has_maps_of_columns_where_they_fit():
    rng = np.random.RandomState(0)
    # One column is skewed and heavy-tailed, the other in a few narrow ranges.
    rows = rng.lognormal(0, 2, size=(360, 2))
    rows[:, 1] = rng.randint(0, 3, size=360) + 0.1 * rng.uniform(size=360)
    train, test = rows[:100], rows[100:]
    # "auto" would map the columns itself.
    unmapped = SmoothedScoreDiffusion(metric="scaled")
    members = dict(density_family(unmapped, 120, 2, weighted=False))
    names = ["smoothed", "smoothed-quantiles-8"]
    assert "smoothed-quantiles-24" in members
    stack = DensityStacking([(name, members[name]) for name in names], cv=2).fit(train)
    assert stack.score(test) > stack.named_estimators_["smoothed"].score(test) + 1
    # The smoothed score maps the skewed column itself.
    assert SmoothedScoreDiffusion().fit(train).score(test) > stack.score(test) - 0.1


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"combine": "vote"}, ValueError, "combine='vote' is not known"),
        ({"settings": "all"}, ValueError, "settings='all' is not known"),
        ({"time_limit": 0}, ValueError, "time_limit=0 is out of range"),
        ({"time_limit": "1h"}, TypeError, "time_limit='1h' has type str"),
        ({"cv": "prefit"}, ValueError, "not a list of members"),
    ],
)
def test_bad_settings_of_the_family_are_named(params, error, message):
    with pytest.raises(error, match=message):
        DensityStacking(**params).fit(np.random.RandomState(0).normal(size=(20, 1)))


@pytest.mark.parametrize("density", [SmoothedScoreDiffusion(0.3, 0.4), KDESampler(0.3)])
def test_scalers_in_folds_keep_the_width_of_a_column_that_is_constant_in_some(density):
    """The rows of the second value are all in one fold, whose training rows have the first value."""
    X = np.column_stack([table(60, 2), np.zeros(60)])
    X[:3, 2] = 1.0
    density = clone(density).set_params(metric="scaled")
    split = [(np.arange(20, 60), np.arange(20)), (np.arange(20), np.arange(20, 40))]
    members = pair(density, TransformedDensity(density, StandardScaler()))
    plain, scaled = DensityStacking(members, cv=split).fit(X).oof_log_density_[:40].T
    # Scaling twice changes rounding only.
    assert_allclose(scaled, plain, rtol=1e-6)
    # Half the difference of two values is the width: a narrow one would be some 30 nats denser.
    assert abs(plain[3:20].mean() - plain[20:40].mean()) < 5


@pytest.mark.parametrize("extra", ["constant", "copy", "total"])
def test_members_of_the_family_gain_the_same_by_a_dependent_column(extra):
    # Mixtures and windows took relations for data of a width of their own: they were 19 nats below the
    # smoothed score, and draws broke totals by tenths.
    X = np.random.RandomState(0).normal(size=(60, 2))
    column = {"constant": np.full(60, 5.0), "copy": 8 * X[:, 0] + 1, "total": X.sum(axis=1)}[extra]
    wide = np.column_stack([X, column])
    smoothed = SmoothedScoreDiffusion(0.3, 0.1, n_nodes=4, n_steps=4, metric="scaled")
    gains = []
    for name, member in density_family(smoothed, 60, 3, weighted=False):
        if "quantiles" in name:
            continue
        narrow = clone(member).fit(X).score_samples(X)
        fitted = clone(member).fit(wide)
        gains.append(np.median(fitted.score_samples(wide) - narrow))
        draws = fitted.sample(50, random_state=0)
        columns = ColumnSpace.of(wide, np.full(60, 1 / 60))
        assert not columns.breaks_relations(draws).any()
    # The scaled columns of a total differ from those of its parts, by which components gain a little.
    assert np.ptp(gains) < 0.3
    assert gains[0] > 15


@pytest.mark.filterwarnings("ignore:these columns of X are not continuous")
def test_units_order_and_copies_of_columns_change_no_fold_and_no_random_start():
    rng = np.random.RandomState(0)
    X = np.column_stack([rng.normal(size=(40, 2)), rng.binomial(1, 0.4, 40), rng.poisson(2, 40)])
    members = [
        ("mixture", SmoothedScoreDiffusion(sigma=0.0, base=GaussianMixture(3, random_state=0))),
        ("kde", KDESampler(metric="scaled")),
    ]
    model = DensityStacking(members, cv=3).fit(X)
    for order in ([3, 2, 1, 0], [1, 3, 0, 2]):
        other = clone(model).fit(X[:, order])
        assert_allclose(other.weights_, model.weights_, atol=1e-6)
        assert_allclose(other.score_samples(X[:, order]), model.score_samples(X), atol=1e-4)
    # What the folds hold, by the left-out rows that each row is scored with.
    single = DensityStacking([("kde", KDESampler(metric="scaled"))], cv=3)
    held_out = single.fit(X).oof_log_density_[:, 0]
    changed = np.column_stack([X[:, 0] * 2.0**20, X[:, 1:], 3 - 2 * X[:, 0], X[:, 0] + X[:, 1]])
    difference = clone(single).fit(changed).oof_log_density_[:, 0] - held_out
    # Relations add a constant; the total has a part in the scales of the columns.
    assert np.ptp(difference) < 0.5


def test_a_copy_of_a_rounded_column_changes_no_weight():
    rng = np.random.RandomState(0)
    x = rng.normal(size=60)
    X = np.column_stack([x, (x + rng.normal(size=60)).round(1)])
    plain, wider = (DensityStacking().fit(Z) for Z in (X, np.column_stack([X, 2 * X[:, 1] + 3])))
    assert_allclose(wider.weights_, plain.weights_, atol=1e-6)


def test_scores_of_a_frame_of_polars_give_no_warning(recwarn):
    rows = np.random.RandomState(0).normal(size=(30, 2))
    frame = pl.DataFrame({"a": rows[:, 0], "b": rows[:, 1]})
    model = DensityStacking([("kde", KDESampler("loo"))], cv=2)
    assert model.fit(frame).score(frame) == pytest.approx(
        clone(model).fit(rows).score(rows), rel=1e-12
    )
    assert not recwarn.list
