"""`functools.cached_property` without a lock, in every version of Python.

Before Python 3.12 all objects of a class share one lock while a value is computed: threads wait for one
another, and a process that is forked meanwhile waits for ever for a thread that it does not have.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or sys.version_info >= (3, 12):
    from functools import cached_property
else:

    class cached_property(functools.cached_property):  # noqa: N801 (the name of the library's)
        """A method whose result becomes an attribute; threads may compute the same value twice."""

        def __get__(self, instance: Any, owner: type | None = None) -> Any:
            if instance is None:
                return self
            values = instance.__dict__
            if self.attrname not in values:
                values[self.attrname] = self.func(instance)
            return values[self.attrname]


__all__ = ["cached_property"]
