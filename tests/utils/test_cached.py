"""Attributes that are computed at the first use, in threads and after a fork."""

import threading
from pathlib import Path

import skdiffsmooth
from skdiffsmooth._utils.cached import cached_property


class Squared:
    def __init__(self, number, begun=None, end=None):
        self.number, self.begun, self.end, self.n_computed = number, begun, end, 0

    @cached_property
    def square(self):
        """The square."""
        self.n_computed += 1
        if self.begun is not None:
            self.begun.set()
            assert self.end.wait(60)
        return self.number**2


def test_a_value_is_computed_once():
    own, other = Squared(3), Squared(4)
    assert [own.square, own.square, other.square] == [9, 9, 16]
    assert (own.n_computed, own.__dict__["square"]) == (1, 9)
    assert Squared.square.__doc__ == "The square."


def test_no_thread_waits_for_a_value_that_another_computes():
    """A process that is forked meanwhile would wait for ever: it has no other thread."""
    slow, found = Squared(5, threading.Event(), threading.Event()), []
    computing = threading.Thread(target=lambda: found.append(slow.square))
    reading = threading.Thread(target=lambda: found.append(Squared(6).square), daemon=True)
    computing.start()
    assert slow.begun.wait(60)
    reading.start()
    reading.join(20)
    assert found == [36]
    slow.end.set()
    computing.join(60)
    assert found == [36, 25]


def test_the_library_has_no_other_cached_property():
    package = Path(skdiffsmooth.__file__).parent
    users = [
        file.name
        for file in package.rglob("*.py")
        for line in file.read_text().splitlines()
        if "functools" in line and "cached_property" in line
    ]
    assert set(users) == {"cached.py"}
