"""Random sequences of calls: after each an estimator answers as a fresh one with the same rows."""

import copy
import pickle
import warnings

import numpy as np
import pytest
from fitted_models import MODELS
from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

NAMES = ("kde", "smoothed", "local", "network", "outliers", "transformed", "table")
TABLES = [np.random.RandomState(k).normal(size=(12 + k, 2 + k % 2)) for k in range(4)]
WRONG = {"bandwidth": -1.0, "sigma": "wide", "estimator": 3, "density": 3, "max_iter": -1}


class Calls(RuleBasedStateMachine):
    """Calls of an estimator that may be fitted to a table or not, and of copies that replace it."""

    @initialize(name=st.sampled_from(NAMES))
    def begin(self, name):
        self.name, self.model, self.fresh = name, clone(MODELS[name]), None
        event(f"estimator: {name}")

    @rule(k=st.integers(0, len(TABLES) - 1))
    def fit(self, k):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.model.fit(TABLES[k])
            self.fresh = clone(MODELS[self.name]).fit(TABLES[k].copy())
        event("fit")

    @rule(value=st.sampled_from([np.nan, np.inf, "text"]))
    def fit_wrong_rows(self, value):
        if self.name == "table":
            return  # a table may hold text and missing cells
        X = TABLES[0].astype(object)
        X[0, 0] = value
        with pytest.raises(ValueError, match=r"X|convert"):
            self.model.fit(X)
        event("fit to wrong rows")

    @rule(name=st.sampled_from(sorted(WRONG)))
    def fit_with_a_wrong_parameter(self, name):
        right = self.model.get_params(deep=False)
        if name not in right:
            return
        with pytest.raises((TypeError, ValueError), match=name):
            self.model.set_params(**{name: WRONG[name]}).fit(TABLES[0])
        self.model.set_params(**{name: right[name]})
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

    @precondition(lambda self: self.fresh is not None and hasattr(self.model, "sample"))
    @rule(n=st.integers(1, 3), seed=st.integers(0, 3))
    def sample(self, n, seed):
        drawn = self.model.sample(n, random_state=seed)
        np.testing.assert_array_equal(drawn, self.fresh.sample(n, random_state=seed))
        event("sample")

    @precondition(lambda self: self.fresh is not None)
    @rule()
    def score_rows_of_other_columns(self):
        with pytest.raises(ValueError, match="features"):
            self.model.score_samples(np.zeros((2, 7)))
        event("score rows of other columns")

    @invariant()
    def answers_as_a_fresh_one(self):
        if getattr(self, "fresh", None) is None:
            if hasattr(self, "model"):
                with pytest.raises(NotFittedError):
                    self.model.score_samples(TABLES[0])
            return
        Q = TABLES[self.fresh.n_features_in_ - 2][:3]
        np.testing.assert_array_equal(self.model.score_samples(Q), self.fresh.score_samples(Q))


TestCalls = Calls.TestCase
TestCalls.settings = settings(max_examples=20, stateful_step_count=10, deadline=None)
