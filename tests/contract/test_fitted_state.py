"""What a fitted estimator keeps: replaced at once, frozen until the next fit, saved with its version."""

import copy
import io
import json
import pickle
import sys
import threading
import zipfile
from functools import partial

import numpy as np
import pytest
from fitted_models import COARSE, MODELS

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth._utils import estimator as shared
from skdiffsmooth.compose import DensityClassifier
from skdiffsmooth.manifolds import LocalPolynomialManifold
from skdiffsmooth.solvers import Euler

# One for each way to fit: the others inherit theirs, or replace their state by the same method.
FAST = {name: MODELS[name] for name in ("kde", "smoothed", "network")}
pytestmark = pytest.mark.filterwarnings("ignore")


def ring(n, seed=0):
    angle = np.random.RandomState(seed).uniform(0, 2 * np.pi, n)
    return np.column_stack([np.cos(angle), np.sin(angle)])


def table(n=40, d=2, seed=1):
    return np.random.RandomState(seed).normal(size=(n, d))


# ------------------------------------------------------------------------------- replaced at once


class InterruptAt:
    """Raise a KeyboardInterrupt at the n-th line that runs in some files, or note all of them."""

    def __init__(self, n, *files):
        self.n, self.files, self.lines = n, files, []

    def __enter__(self):
        self.before = sys.gettrace()
        sys.settrace(self.trace)
        return self

    def __exit__(self, *args):
        sys.settrace(self.before)

    def trace(self, frame, event, arg):
        if frame.f_code.co_filename not in self.files:
            return None
        if event == "line":
            self.lines.append((frame.f_code.co_filename, frame.f_lineno))
            if len(self.lines) == self.n:
                raise KeyboardInterrupt
        return self.trace


def runs_of_lines(call, *files):
    """Return when each line of the files runs in a call, counted in lines: up to 25 times in loops."""
    with InterruptAt(0, *files) as noted:
        call()
    runs = {}
    for n, line in enumerate(noted.lines, 1):
        runs.setdefault(line, []).append(n)
    chosen = np.linspace(0, 1, 25)
    return sorted({each[round(f * (len(each) - 1))] for each in runs.values() for f in chosen})


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("estimator", FAST.values(), ids=FAST)
def test_an_interrupted_refit_leaves_the_old_model_or_the_new_one(estimator, method):
    if not hasattr(estimator, method):
        pytest.skip("no such method")
    # Of other length, so that arrays of the one model do not fit to those of the other.
    X, Y = table(), table(30, seed=2) * 2
    homes = {cls.__module__ for cls in type(estimator).__mro__ if "fit" in vars(cls)}
    files = [shared.__file__, *(sys.modules[name].__file__ for name in homes)]
    old = copy.deepcopy(estimator).fit(X)
    new = getattr(copy.deepcopy(old), method)(Y)
    answers = [model.score_samples(X) for model in (old, new)]
    assert not np.array_equal(*answers)
    refit = partial(getattr(copy.deepcopy(old), method), Y)
    runs, outcomes = runs_of_lines(refit, *files), set()
    for n in runs:
        model = copy.deepcopy(old)
        with pytest.raises(KeyboardInterrupt), InterruptAt(n, *files):
            getattr(model, method)(Y)
        answer = model.score_samples(X)
        outcomes.add([np.array_equal(answer, known) for known in answers].index(True))
        assert model.n_features_in_ == 2
    assert len(runs) > 10
    # The old model while the new one is made; the assignment is one of the last lines.
    assert 0 in outcomes


def test_an_interrupted_refit_leaves_the_old_manifold_or_the_new_one():
    file = sys.modules[LocalPolynomialManifold.__module__].__file__
    X, Y = ring(60), 3 * ring(80, seed=1)
    old, new = (LocalPolynomialManifold(1).fit(rows) for rows in (X, Y))
    answers = [(m.project(X), m.n_neighbors_, len(m.points_)) for m in (old, new)]
    runs = runs_of_lines(partial(copy.deepcopy(old).fit, Y), file)
    for n in runs:
        manifold = copy.deepcopy(old)
        with pytest.raises(KeyboardInterrupt), InterruptAt(n, file):
            manifold.fit(Y)
        answer = manifold.project(X), manifold.n_neighbors_, len(manifold.points_)
        assert any(
            np.array_equal(answer[0], known[0]) and answer[1:] == known[1:] for known in answers
        )
    assert len(runs) > 20


@pytest.mark.parametrize("estimator", FAST.values(), ids=FAST)
def test_a_query_during_a_refit_answers_from_one_model(estimator):
    """Refits to data of other columns in one thread, queries of both kinds in another."""
    tables = {2: table(), 3: table(d=3, seed=2)}
    queries = {d: X[:3] for d, X in tables.items()}
    expected = {
        d: copy.deepcopy(estimator).fit(X).score_samples(queries[d]) for d, X in tables.items()
    }
    model = copy.deepcopy(estimator).fit(tables[2])
    stop, wrong = threading.Event(), []

    def ask():
        while not stop.is_set():
            for d, Q in queries.items():
                try:
                    answer = model.score_samples(Q)
                except ValueError as error:
                    if "features, but" not in str(error):
                        wrong.append(error)
                except Exception as error:
                    wrong.append(error)
                else:
                    if not np.array_equal(answer, expected[d]):
                        wrong.append(answer)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=ask)
    try:
        thread.start()
        for k in range(20):
            model.fit(tables[2 + k % 2])
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert not wrong


# ------------------------------------------------------------------------------ frozen until fit


def test_parameters_that_are_set_after_fit_change_no_answer():
    X = ring(30)
    model = SmoothedScoreDiffusion(0.3, 0.4, **COARSE).fit(X)
    expected = model.score_samples(X), model.sample(5, random_state=0)
    model.set_params(
        bandwidth=0.1,
        sigma=0.0,
        kernel="uniform-ball",
        metric="whitened",
        background=0.5,
        noise="ou",
        n_nodes=2,
        n_levels=2,
        n_steps=2,
        solver="euler-maruyama",
        terminal="gaussian",
        terminal_scale=9.0,
        dtype="float32",
        tol=9.0,
    )
    answers = model.score_samples(X), model.sample(5, random_state=0)
    for answer, known in zip(answers, expected, strict=True):
        np.testing.assert_array_equal(answer, known)
    assert model.solver_ != Euler()
    model.set_params(kernel="gaussian", metric="auto", background="auto").fit(X)
    assert not np.array_equal(model.sample(5, random_state=0), expected[1])


# ------------------------------------------------------------------------------------------ saving


@pytest.mark.parametrize("estimator", MODELS.values(), ids=MODELS)
def test_skops_and_pickle_keep_every_answer(estimator):
    sio = pytest.importorskip("skops.io")
    X = table()
    model = copy.deepcopy(estimator).fit(X)
    # Queries may keep what they computed.
    model.score_samples(X)
    data = sio.dumps(model)
    types = sio.get_untrusted_types(data=data)
    assert all(name.startswith(("skdiffsmooth.", "sklearn.")) for name in types)
    for twin in (sio.loads(data, trusted=types), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(twin.score_samples(X), model.score_samples(X))
        if hasattr(model, "sample"):
            drawn = model.sample(3, random_state=0)
            np.testing.assert_array_equal(twin.sample(3, random_state=0), drawn)


@pytest.mark.parametrize("name", ["kde", "smoothed", "network", "stacking"])
@pytest.mark.parametrize("key", ["another", "none"])
def test_a_file_of_another_format_says_what_to_do(name, key):
    model = copy.deepcopy(MODELS[name]).fit(table())
    state = model.__getstate__()
    assert state[shared._VERSION_KEY] == (shared.FORMAT, shared.__version__)
    if key == "another":
        state[shared._VERSION_KEY] = (99, "7.8.9")
    else:
        del state[shared._VERSION_KEY]
    twin = object.__new__(type(model))
    version = "7.8.9" if key == "another" else "before 0.1.0"
    with pytest.raises(ValueError, match=rf"saved by skdiffsmooth {version}.*or fit it again"):
        twin.__setstate__(state)


def test_a_tampered_skops_file_is_refused():
    """A file that names a function of the system, with the types trusted that such a model has."""
    sio = pytest.importorskip("skops.io")
    pytest.importorskip("skops.io.exceptions")
    data = sio.dumps(KDESampler(0.4).fit(table()))
    trusted = sio.get_untrusted_types(data=data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(parts["schema.json"])
    assert (schema["__module__"], schema["__class__"]) == (
        "skdiffsmooth._estimators.kde",
        "KDESampler",
    )
    schema["__module__"], schema["__class__"] = "os", "system"
    parts["schema.json"] = json.dumps(schema).encode()
    tampered = io.BytesIO()
    with zipfile.ZipFile(tampered, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    with pytest.raises(sio.exceptions.UntrustedTypesFoundException, match=r"os\.system"):
        sio.loads(tampered.getvalue(), trusted=trusted)


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(share):
    sio = pytest.importorskip("skops.io")
    model = KDESampler(0.4).fit(table())
    for save, load in ((pickle.dumps, pickle.loads), (sio.dumps, partial(sio.loads, trusted=[]))):
        data = save(model)
        with pytest.raises((pickle.UnpicklingError, EOFError, zipfile.BadZipFile)):
            load(data[: int(share * len(data))])


def test_the_classifier_is_saved_too():
    X, y = table(), np.arange(40) % 2
    model = DensityClassifier(KDESampler(0.4)).fit(X, y)
    twin = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(twin.predict_proba(X), model.predict_proba(X))
