"""Random sequences of calls: after each an estimator answers as a fresh one with the same rows."""

import copy
import pickle
import warnings

import numpy as np
import pytest
from fitted_models import MODELS
from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

# A wrong value of one parameter of each.
WRONG = {
    "kde": {"bandwidth": -1.0},
    "smoothed": {"sigma": "wide"},
    "local": {"n_cells": -1},
    "network": {"max_iter": -1},
    "outliers": {"estimator": 3},
    "transformed": {"estimator": 3},
    "table": {"density": 3},
}
TABLES = [np.random.RandomState(k).normal(size=(12 + k, 2 + k // 3)) for k in range(4)]
every_table = st.integers(0, len(TABLES) - 1)


class Calls(RuleBasedStateMachine):
    """Calls of an estimator and of copies that replace it; `fresh` is fitted once, to the same rows."""

    @initialize(name=st.sampled_from(sorted(WRONG)), k=every_table)
    def begin(self, name, k):
        self.name, self.model, self.fresh = name, clone(MODELS[name]), None
        event(f"estimator: {name}")
        self.fit(k)

    @rule(k=every_table)
    def fit(self, k):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.model.fit(TABLES[k])
            self.fresh = clone(MODELS[self.name]).fit(TABLES[k].copy())
        event("fit")

    @rule(value=st.sampled_from([np.inf, "text"]))
    def fit_to_wrong_rows(self, value):
        X = TABLES[0].astype(object)
        X[0, 0] = value
        if self.name != "table":  # a table may hold text
            with pytest.raises(ValueError, match=r"X|convert"):
                self.model.fit(X)
        event("fit to wrong rows")

    @rule()
    def fit_with_a_wrong_parameter(self):
        (name, wrong), *_ = WRONG[self.name].items()
        right = self.model.get_params(deep=False)[name]
        with pytest.raises((TypeError, ValueError), match=name):
            self.model.set_params(**{name: wrong}).fit(TABLES[0])
        self.model.set_params(**{name: right})
        event("fit with a wrong parameter")

    @rule(how=st.sampled_from(["pickle", "deepcopy", "clone"]))
    def copy(self, how):
        if how == "pickle":
            self.model = pickle.loads(pickle.dumps(self.model))
        elif how == "deepcopy":
            self.model = copy.deepcopy(self.model)
        else:
            self.model, self.fresh = clone(self.model), None
        event(how)

    @rule(n=st.integers(1, 3), seed=st.integers(0, 3))
    def sample(self, n, seed):
        if self.fresh is not None and hasattr(self.model, "sample"):
            drawn = self.model.sample(n, random_state=seed)
            np.testing.assert_array_equal(drawn, self.fresh.sample(n, random_state=seed))
            event("sample")

    @rule()
    def score_rows_of_other_columns(self):
        if self.fresh is not None:
            with pytest.raises(ValueError, match="features"):
                self.model.score_samples(np.zeros((2, 7)))
            event("score rows of other columns")

    @invariant()
    def answers_as_a_fresh_one(self):
        if self.fresh is None:
            with pytest.raises(NotFittedError):
                self.model.score_samples(TABLES[0])
            return
        Q = next(X for X in TABLES if X.shape[1] == self.fresh.n_features_in_)[:3]
        np.testing.assert_array_equal(self.model.score_samples(Q), self.fresh.score_samples(Q))


TestCalls = Calls.TestCase
TestCalls.settings = settings(max_examples=15, stateful_step_count=10, deadline=None)
