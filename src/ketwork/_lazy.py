"""`cached_property`, of several objects at once on several threads."""

from __future__ import annotations

import functools
from typing import Any, Self, TypeVar, overload

Result = TypeVar("Result", covariant=True)


class cached_property(functools.cached_property[Result]):
    """That of functools, without the lock by which Python 3.11 lets one object at a time compute.

    There the decompositions of all layers would wait for each other. Two threads that need the same number of the same
    object compute it twice, as from Python 3.12 on.

    >>> class Circle:
    ...     radius = 2.0
    ...
    ...     @cached_property
    ...     def area(self):
    ...         return 3.14 * self.radius**2
    >>> circle = Circle()
    >>> circle.area, vars(circle)
    (12.56, {'area': 12.56})
    """

    @overload
    def __get__(self, instance: None, owner: type[Any] | None = None) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type[Any] | None = None) -> Result: ...
    def __get__(self, instance: object, owner: type[Any] | None = None) -> Self | Result:
        if instance is None:
            return self
        assert self.attrname is not None
        value = instance.__dict__[self.attrname] = self.func(instance)
        return value
