"""Progress of long calls: lines of the logging module, or a bar of tqdm, and scikit-learn's callbacks.

Loops report the fraction of them that is done, also when they are nested: if k of n rounds are done, and
a fraction s of the next one, the fraction is (k + s) / n. The time that is left is estimated from the
fraction of the whole call. No result depends on any of this.

Lines of ``verbose=1`` go to the logger "skdiffsmooth.progress": to the handlers that the program has
set up, or else to the standard error stream. A call of one minute or more is announced to
the logger "skdiffsmooth", at the level INFO, whatever `verbose` is.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, TypeVar, cast

from .validation import check_integer

Item = TypeVar("Item")
Method = TypeVar("Method", bound=Callable[..., Any])

try:  # scikit-learn 1.9, where it is experimental
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """An empty mixin, since this scikit-learn has no callbacks."""

    def with_callbacks(method: Method) -> Method:
        """Return the method unchanged."""
        return method


# Seconds before the first line and between lines; most lines of a long call.
_FIRST, _INTERVAL, _INTERVALS = 1.0, 5.0, 20
# A call of more than `_LONG` seconds is announced, as estimated after `_ESTIMATED_AFTER` seconds.
_LONG, _ESTIMATED_AFTER = 60.0, 2.0
_ANNOUNCED = logging.getLogger("skdiffsmooth")
_LINES = logging.getLogger("skdiffsmooth.progress")


class _OnStandardError(logging.Handler):
    """Writes lines to the standard error stream if the program has set up no handler."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the message of a record."""
        if not _ANNOUNCED.hasHandlers():
            sys.stderr.write(f"{record.getMessage()}\n")
            sys.stderr.flush()


_LINES.setLevel(logging.INFO)
_LINES.addHandler(_OnStandardError())


def log_line(text: str) -> None:
    """Log a line of progress, at the level INFO."""
    _LINES.info("%s", text)


class _Progress:
    """The fraction of a call that is done, and when it was last reported."""

    def __init__(self, label: str, verbose: int) -> None:
        self.verbose = verbose
        self.loops: list[Loop] = []
        self._label = label
        self._began = self._last = time.perf_counter()
        self._share = 0.0
        self._is_announced = False
        self._bar = _bar(label) if verbose else None

    def report(self) -> None:
        """Report the fraction of the call that is done, if the last report is long enough ago."""
        share, width = 0.0, 1.0
        for loop in self.loops:
            share += width * min(loop.done / loop.total, 1.0)
            width *= loop.size / loop.total
        # Each of several loops in a round starts at zero again; the reported fraction must not decrease.
        self._share = max(self._share, min(share, 1.0))
        now = time.perf_counter()
        spent = now - self._began
        if self._share == 0:
            return
        if self._bar is not None:
            self._bar.update(100 * self._share - self._bar.n)
            return
        whole = spent / self._share
        if not self.verbose:
            if not self._is_announced and spent > _ESTIMATED_AFTER and whole > _LONG:
                self._is_announced = True
                _ANNOUNCED.info(
                    "%s takes about %s; verbose=1 shows its progress.", self._label, _clock(whole)
                )
            return
        is_first = self._last == self._began
        if now - self._last >= (_FIRST if is_first else max(_INTERVAL, whole / _INTERVALS)):
            self._last = now
            log_line(
                f"{self._label}: {100 * self._share:.0f} % in {_clock(spent)}, about "
                f"{_clock(whole - spent)} left"
            )

    def close(self, *, is_complete: bool) -> None:
        """Report the end of the call."""
        if self._bar is not None:
            self._bar.update((100 if is_complete else 100 * self._share) - self._bar.n)
            self._bar.close()
        elif self.verbose and is_complete:
            log_line(f"{self._label}: done in {_clock(time.perf_counter() - self._began)}")


_PROGRESS: ContextVar[_Progress | None] = ContextVar("_PROGRESS", default=None)
# Estimator and context of scikit-learn's callbacks, of the innermost fit.
_TASK: ContextVar[tuple[Any, Any] | None] = ContextVar("_TASK", default=None)


@contextmanager
def reporting(owner: Any, action: str, n_rows: float) -> Iterator[None]:
    """Within the block, report the progress of a call of a method of `owner`, if it is the outermost.

    The attribute `verbose` of `owner` decides how.
    """
    verbose = check_integer("verbose", getattr(owner, "verbose", 0), minimum=0)
    outer = _PROGRESS.get()
    if outer is not None and (outer.verbose or not verbose):
        yield
        return
    rows = f" of {n_rows:.0f} rows" if n_rows < float("inf") else ""
    progress = _Progress(f"{type(owner).__name__}.{action}{rows}", verbose)
    token = _PROGRESS.set(progress)
    is_complete = False
    try:
        yield
        is_complete = True
    finally:
        _PROGRESS.reset(token)
        progress.close(is_complete=is_complete)


class Loop:
    """A counter of the rounds of a loop, called after each; `size` is the size of the present round."""

    def __init__(self, total: float) -> None:
        self.done, self.total, self.size = 0.0, float(total), 1.0
        self._after: Callable[[], None] | None = None

    def __call__(self) -> None:
        self.done += self.size
        if self._after is not None:
            self._after()


@contextmanager
def counted(total: float, task: str = "") -> Iterator[Loop]:
    """Yield a `Loop` whose rounds have sizes of sum `total`; with a `task`, callbacks get the rounds."""
    loop, progress, of_fit = Loop(total), _PROGRESS.get(), _TASK.get()
    if progress is None or total <= 0:
        yield loop
        return
    with _subtask(of_fit if task else None, task) as finish:

        def after() -> None:
            finish()
            progress.report()

        loop._after = after
        progress.loops.append(loop)
        try:
            yield loop
        finally:
            progress.loops[:] = [other for other in progress.loops if other is not loop]


@contextmanager
def _subtask(of_fit: tuple[Any, Any] | None, task: str) -> Iterator[Callable[[], None]]:
    """Yield a function to call after each round of a loop, which reports the round to callbacks."""
    if of_fit is None:
        yield lambda: None
        return
    estimator, root = of_fit
    context = root.subcontext(task_name=f"each {task}", max_subtasks=None)
    context.call_on_fit_task_begin(estimator=estimator)

    def finish() -> None:
        leaf = context.subcontext(task_name=task)
        leaf.call_on_fit_task_begin(estimator=estimator)
        leaf.call_on_fit_task_end(estimator=estimator)

    yield finish
    context.call_on_fit_task_end(estimator=estimator)


def tracked(items: Sequence[Item], task: str = "") -> Iterator[Item]:
    """Yield the items, and report progress after each of them, unless there is only one."""
    if len(items) == 1 and not task:
        yield items[0]
        return
    with counted(len(items), task) as done:
        for item in items:
            yield item
            done()


def reports_fit(method: Method) -> Method:
    """Return `fit` with reports of its progress, by `verbose` and by scikit-learn's callbacks."""

    def with_task(self: Any, X: Any, *args: Any, **kwargs: Any) -> Any:
        with _task_of(self, X):
            return method(self, X, *args, **kwargs)

    @wraps(method)
    def fit(self: Any, X: Any, *args: Any, **kwargs: Any) -> Any:
        with reporting(self, "fit", number_of_rows(X)):
            # Without callbacks scikit-learn's wrapper is not used: warnings then show the user's line.
            is_plain = not (
                hasattr(self, "_skl_callbacks") or hasattr(self, "_parent_callback_ctx")
            )
            if is_plain:
                with _no_task():
                    return method(self, X, *args, **kwargs)
            return with_callbacks(with_task)(self, X, *args, **kwargs)

    return cast(Method, fit)


def number_of_rows(X: Any) -> float:
    """Return the number of rows of a table that is not checked yet; inf where it is not known."""
    shape = getattr(X, "shape", None)
    if isinstance(shape, tuple):
        return shape[0] if shape else 1
    return len(X) if hasattr(X, "__len__") else float("inf")


@contextmanager
def _task_of(estimator: Any, X: Any) -> Iterator[None]:
    """Within the block, report the rounds of loops to the callbacks of this estimator."""
    context = estimator._init_callback_context(max_subtasks=None)
    context.call_on_fit_task_begin(estimator=estimator, X=X)
    token = _TASK.set((estimator, context))
    try:
        yield
        context.call_on_fit_task_end(estimator=estimator, X=X)
    finally:
        _TASK.reset(token)


@contextmanager
def _no_task() -> Iterator[None]:
    """Within the block, report to no callbacks, not even to those of a fit that this one is part of."""
    token = _TASK.set(None)
    try:
        yield
    finally:
        _TASK.reset(token)


def _bar(label: str) -> Any:
    """Return a bar of tqdm in a terminal or a notebook, or None, also if tqdm is not installed."""
    if not (sys.stderr.isatty() or "ipykernel" in sys.modules):
        return None
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    form = "{l_bar}{bar}| {elapsed}, {remaining} left"
    return tqdm(total=100, desc=label, bar_format=form)


def _clock(seconds: float) -> str:
    """Return a duration as text, such as "3 min 20 s"."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, seconds = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"
