"""Progress: silent by default, lines of logging with `verbose`, and the same numbers either way."""

import io
import logging
import re
import sys
import types

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.neighbors import KernelDensity

import skdiffsmooth._utils.progress as progress
from skdiffsmooth import KDESampler, LangevinSampler, SmoothedScoreDiffusion
from skdiffsmooth.compose import DensityClassifier, DensityOutlierDetector, DensityStacking
from skdiffsmooth.model_selection import SmoothedScoreDiffusionCV
from skdiffsmooth.tables import TableDensity

COARSE = {"n_nodes": 8, "n_levels": 4, "n_steps": 4}
SMOOTHED = SmoothedScoreDiffusion(**COARSE)
X = np.random.RandomState(0).normal(size=(50, 2))
Y = np.arange(50) % 2
MEMBERS = [("kde", KDESampler(0.5)), ("other", KernelDensity(bandwidth=0.4))]
ESTIMATORS = {
    "smoothed": SMOOTHED,
    "kde": KDESampler(),
    "search": SmoothedScoreDiffusionCV(SMOOTHED, n_refinements=0),
    "stacking": DensityStacking(MEMBERS),
    "outliers": DensityOutlierDetector(KDESampler(), cv=3),
    "classifier": DensityClassifier(KDESampler()),
    "table": TableDensity(density=KDESampler()),
}


class Clock:
    """A clock that advances by a second at each look."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        self.now += 1.0
        return self.now


@pytest.fixture
def slow(monkeypatch):
    """Each report takes a second, so that all calls take long."""
    monkeypatch.setattr(progress, "time", Clock())


def shares(text):
    return [int(share) for share in re.findall(r": (\d+) % in", text)]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_silent_by_default_and_the_same_numbers_with_verbose(name, caplog, capfd):
    quiet = clone(ESTIMATORS[name]).fit(X, Y)
    scores = quiet.score_samples(X)
    drawn = quiet.sample(4, random_state=0) if hasattr(quiet, "sample") else 0
    assert caplog.text == ""
    loud = clone(ESTIMATORS[name]).set_params(verbose=1).fit(X, Y)
    assert f"{type(loud).__name__}.fit of 50 rows: done in" in caplog.text
    np.testing.assert_array_equal(loud.score_samples(X), scores)
    if hasattr(quiet, "sample"):
        for ours, theirs in zip(loud.sample(4, random_state=0), drawn, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    # Nothing is printed, for pytest has set up handlers of logging.
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_share_of_a_fit_rises_to_the_end(name, slow, caplog):
    clone(ESTIMATORS[name]).set_params(verbose=1).fit(X, Y)
    done = shares(caplog.text)
    assert done == sorted(done)
    assert all(0 <= share <= 100 for share in done)
    # One call of the user is one report: that of parts is not shown.
    labels = {line.split(": ")[0] for line in caplog.messages if " % in" in line or "done" in line}
    assert labels == {f"{type(ESTIMATORS[name]).__name__}.fit of 50 rows"}


def test_queries_report_each_step(slow, caplog):
    model = clone(SMOOTHED).fit(X).set_params(verbose=1)
    for call in (model.score_samples, lambda rows: model.sample(len(rows), random_state=0)):
        caplog.clear()
        call(np.repeat(X, 40, axis=0))
        done = shares(caplog.text)
        assert len(done) >= 1
        assert done == sorted(done)
        assert "left" in caplog.text


def test_tables_report_stages_of_a_fit_and_combinations_of_levels(slow, caplog, monkeypatch):
    monkeypatch.setattr(progress, "_INTERVALS", 1000)
    monkeypatch.setattr(progress, "_INTERVAL", 0.0)
    kind = np.random.RandomState(1).choice(list("abcdef"), size=50)
    frame = pd.DataFrame({"kind": kind, "x": X[:, 0] + 4 * (kind == "a"), "y": X[:, 1]})
    model = TableDensity(density=clone(SMOOTHED), verbose=1).fit(frame)
    # The first of the two fits of the density is not the end.
    assert len([share for share in shares(caplog.text) if share < 90]) > 3
    caplog.clear()
    model.score_samples(frame)
    done = shares(caplog.text)
    # Six combinations, the first of which is not the end either.
    assert done == sorted(done)
    assert done[0] <= 20
    assert len([share for share in done if share < 90]) >= 5


def test_chains_report_each_step(slow, caplog):
    sampler = LangevinSampler(3, thin=10, n_warmup=10, n_chains=2, step_size=0.1, verbose=1)
    kde = KDESampler(0.5).fit(X)
    chains = sampler.run(kde, random_state=0)
    assert len(shares(caplog.text)) > 3
    again = clone(sampler).set_params(verbose=0).run(kde, random_state=0)
    np.testing.assert_array_equal(chains.draws, again.draws)


def test_time_left_of_nested_loops(monkeypatch, caplog):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    owner = types.SimpleNamespace(verbose=1)
    monkeypatch.setattr(progress, "_INTERVAL", 0.0)
    with progress.reporting(owner, "call", 10), progress.counted(4) as outer:
        for _ in range(4):
            with progress.counted(2) as inner:
                inner()
                inner()
            outer()
    # Each half round takes a second, and the end of a round a third one, without progress.
    first, *_, last, _ = caplog.messages
    assert first == "SimpleNamespace.call of 10 rows: 12 % in 1.0 s, about 7.0 s left"
    assert shares(caplog.text) == [12, 25, 25, 38, 50, 50, 62, 75, 75, 88, 100, 100]
    assert last.endswith("about 0.0 s left")


def list_of_rounds(n):
    with progress.reporting(types.SimpleNamespace(), "score_samples", 1e6):
        assert len(list(progress.tracked(range(n)))) == n


def test_a_long_call_is_announced_without_verbose(monkeypatch, caplog):
    monkeypatch.setattr(progress, "time", Clock())
    with caplog.at_level(logging.INFO, "skdiffsmooth"):
        list_of_rounds(100)
    (message,) = caplog.messages
    assert "takes about 1 min 40 s; verbose=1 shows its progress." in message
    assert "score_samples of 1000000 rows" in message


def test_lines_go_to_the_error_stream_of_a_program_without_handlers(monkeypatch, capsys):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # of pytest
    KDESampler(0.5, verbose=1).fit(np.eye(3)).score_samples(np.eye(3))
    out, lines = capsys.readouterr()
    assert out == ""
    first, second = lines.splitlines()
    assert first.startswith("KDESampler.fit of 3 rows: done in")
    assert second.startswith("KDESampler.score_samples of 3 rows: done in")


def test_a_bar_in_a_terminal_if_tqdm_is_installed(monkeypatch, caplog):
    bars = []

    class Bar:
        def __init__(self, *, total, desc, bar_format):
            self.n, self.total, self.desc, self.closed = 0.0, total, desc, False
            bars.append(self)

        def update(self, by):
            self.n += by

        def close(self):
            self.closed = True

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setitem(sys.modules, "tqdm", types.ModuleType("tqdm"))
    monkeypatch.setitem(sys.modules, "tqdm.auto", types.SimpleNamespace(tqdm=Bar))
    model = clone(SMOOTHED).fit(X).set_params(verbose=1)
    model.score_samples(X)
    assert not bars
    monkeypatch.setattr(sys, "stderr", Terminal())
    caplog.clear()
    model.score_samples(X)
    (bar,) = bars
    assert bar.closed
    assert bar.n == pytest.approx(100)
    assert caplog.text == ""


def test_an_error_ends_the_report(caplog):
    with pytest.raises(ValueError, match="NaN"):
        KDESampler(verbose=1).fit([[np.nan]])
    assert "done" not in caplog.text
    assert progress._PROGRESS.get() is None


# --------------------------------------------------------------------- callbacks of scikit-learn


class Recorder:
    def __init__(self):
        self.begun, self.ended, self.calls = [], [], []

    def setup(self, estimator, context):
        self.calls.append("setup")

    def teardown(self, estimator, context):
        self.calls.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.begun.append(context.task_name)

    def on_fit_task_end(self, estimator, context):
        self.ended.append(context.task_name)


@pytest.mark.parametrize(
    ("name", "task", "n"),
    [
        ("smoothed", "candidate", 11),
        ("search", "candidate", 25),
        ("stacking", "fold", 10),
        ("outliers", "fold", 3),
        ("classifier", "class", 2),
        ("kde", None, 0),
    ],
)
def test_callbacks_get_candidates_folds_and_classes(name, task, n):
    pytest.importorskip("sklearn.callback")
    recorder = Recorder()
    estimator = clone(ESTIMATORS[name]).set_callbacks(recorder)
    estimator.fit(X, Y)
    assert recorder.calls == ["setup", "teardown"]
    assert recorder.begun[0] == recorder.ended[-1] == "fit"
    assert sorted(recorder.begun) == sorted(recorder.ended)
    if task is not None:
        assert recorder.ended.count(task) >= n - 5
    expected = clone(ESTIMATORS[name]).fit(X, Y).score_samples(X)
    np.testing.assert_array_equal(estimator.score_samples(X), expected)


def test_callbacks_are_ended_by_an_error():
    pytest.importorskip("sklearn.callback")
    recorder = Recorder()
    with pytest.raises(ValueError, match="NaN"):
        clone(SMOOTHED).set_callbacks(recorder).fit([[np.nan]])
    assert recorder.calls == ["setup", "teardown"]


# ------------------------------------------------------------------------------ parts, at thresholds


class At:
    """A clock that is set by hand."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


def messages_at(monkeypatch, caplog, verbose, moments, total=100):
    """Return the messages after each moment: seconds since the beginning, rounds that are done."""
    clock, found = At(), []
    monkeypatch.setattr(progress, "time", clock)
    call = progress._Progress("call", verbose)
    loop = progress.Loop(total)
    call.loops.append(loop)
    with caplog.at_level(logging.INFO, "skdiffsmooth"):
        for clock.now, loop.done in moments:
            caplog.clear()
            call.report()
            found.append("".join(caplog.messages))
    return found


def test_lines_after_a_second_and_every_five(monkeypatch, caplog):
    moments = [(0.9, 1), (1.0, 2), (5.9, 10), (6.0, 10), (10.9, 20), (11.0, 20)]
    found = messages_at(monkeypatch, caplog, 1, moments)
    assert found == [
        "",
        "call: 2 % in 1.0 s, about 49 s left",
        "",
        "call: 10 % in 6.0 s, about 54 s left",
        "",
        "call: 20 % in 11 s, about 44 s left",
    ]


def test_a_long_call_has_twenty_lines(monkeypatch, caplog):
    """Of 1000 seconds one line each 50; nothing is said as long as nothing is done."""
    found = messages_at(
        monkeypatch, caplog, 1, [(20, 0), (20, 20), (69.9, 69.9), (70, 70), (119, 119)], 1000
    )
    assert [bool(text) for text in found] == [False, True, False, True, False]


@pytest.mark.parametrize(
    ("moments", "announced"),
    [
        ([(2.0, 1)], [False]),
        ([(2.01, 1), (4, 2)], [True, False]),
        ([(3, 5)], [False]),
        ([(3, 4.99)], [True]),
        ([(3, 5), (6, 9)], [False, True]),
    ],
)
def test_calls_of_more_than_a_minute_are_announced_once(moments, announced, monkeypatch, caplog):
    found = messages_at(monkeypatch, caplog, 0, moments)
    assert ["takes about" in text for text in found] == announced


def test_shares_of_nested_loops_do_not_decrease(monkeypatch):
    monkeypatch.setattr(progress, "time", At())
    call = progress._Progress("call", 0)
    outer, inner = progress.Loop(4), progress.Loop(10)
    call.loops += [outer, inner]
    outer.size = 2.0
    for done_outer, done_inner, share in (
        (1, 5, 0.25 + 0.5 * 0.5),
        (1, 0, 0.5),
        (3, 3, 0.75 + 0.5 * 0.3),
        (5, 10, 1.0),
    ):
        outer.done, inner.done = done_outer, done_inner
        call.report()
        assert call._share == pytest.approx(share)


def test_loops_count_rounds_of_their_size():
    seen = []
    loop = progress.Loop(3)
    loop()
    loop._after = lambda: seen.append(loop.done)
    loop.size = 2.0
    loop()
    assert (seen, loop.total) == ([3.0], 3.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (10, "10 s"),
        (59.4, "59 s"),
        (60, "1 min 00 s"),
        (200.4, "3 min 20 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations(seconds, text):
    assert progress._clock(seconds) == text


@pytest.mark.parametrize(
    ("rows", "n"),
    [
        ([[1.0], [2.0]], 2),
        (np.zeros((3, 2)), 3),
        (np.float64(1.0), 1),
        (iter([1.0]), float("inf")),
        (types.SimpleNamespace(shape=None), float("inf")),
    ],
)
def test_numbers_of_rows(rows, n):
    assert progress.number_of_rows(rows) == n


def test_only_the_outermost_verbose_call_reports(monkeypatch, caplog):
    monkeypatch.setattr(progress, "time", At())
    loud, quiet = types.SimpleNamespace(verbose=2), types.SimpleNamespace()
    with progress.reporting(quiet, "a", 5), progress.reporting(quiet, "b", 5):
        assert progress._PROGRESS.get()._label == "SimpleNamespace.a of 5 rows"
        with progress.reporting(loud, "c", float("inf")), progress.reporting(loud, "d", 5):
            assert progress._PROGRESS.get()._label == "SimpleNamespace.c"
            assert progress._PROGRESS.get().verbose == 2
    assert progress._PROGRESS.get() is None
    assert caplog.messages == ["SimpleNamespace.c: done in 0.0 s"]
    for wrong in (-1, True):
        with (
            pytest.raises((TypeError, ValueError), match="verbose="),
            progress.reporting(types.SimpleNamespace(verbose=wrong), "a", 5),
        ):
            pass


def test_loops_without_a_call_or_of_nothing_are_not_kept():
    with progress.counted(3) as loop:
        loop()
        assert loop.done == 1
    with progress.reporting(types.SimpleNamespace(), "a", 5):
        call = progress._PROGRESS.get()
        with progress.counted(0):
            assert call.loops == []
        assert list(progress.tracked([7])) == [7]
        for n_done, item in enumerate(progress.tracked([5, 6])):
            assert item == 5 + n_done
            assert (call.loops[0].done, call.loops[0].total) == (n_done, 2)
        assert call.loops == []


@pytest.mark.parametrize(("is_complete", "end"), [(True, 100.0), (False, 25.0)])
def test_bars_end_where_the_call_does(is_complete, end, monkeypatch):
    """A bar is moved by percents; one that stays behind shows where the call failed."""

    class Bar:
        n, is_closed = 0.0, False

        def update(self, more):
            self.n += more

        def close(self):
            self.is_closed = True

    monkeypatch.setattr(progress, "time", At())
    monkeypatch.setattr(progress, "_bar", lambda label: Bar())
    call, loop = progress._Progress("call", 1), progress.Loop(8)
    call.loops.append(loop)
    call.report()
    assert call._bar.n == 0
    for loop.done in (1, 2):
        call.report()
        assert call._bar.n == 100 * loop.done / 8
    call.close(is_complete=is_complete)
    assert (call._bar.n, call._bar.is_closed) == (end, True)
