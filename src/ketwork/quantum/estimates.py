"""`Estimate`: a number with its error."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any, Self

Interval = tuple[float, float]

_MOST = 6  # decimals, before numbers are written with an exponent


class Estimate(float):
    """A number with its standard error, what it is guaranteed to lie between, and its unit.

    It is a `float`: it compares, formats, rounds and enters arithmetic as one. With a plain number it stays an estimate
    (error, bounds and, where only a factor was applied, the unit go along). Two estimates give a plain number, since
    those of one data set are not independent, so that nothing is known of the error of their sum.

    Args:
        value: the number; NaN where it does not exist.
        stderr: the standard error of the sampling of the data; NaN where there is none.
        bounds: (low, high) that hold for certain for the data that was seen, where the number is not exact.
        unit: what it is counted in.
        plain: the number of the data at hand, where `value` is corrected for what finite data add to it.

    >>> entropy = Estimate(2.2891, 0.0022, unit="bit")
    >>> print(entropy, entropy > 2, f"{entropy:.1f}", entropy / 2)
    2.289 ± 0.002 bit True 2.3 1.1445 ± 0.0011 bit
    >>> print(Estimate(1.5, bounds=(1.25, 1.75)), Estimate(float("nan")))
    1.25 … 1.75 –
    """

    __slots__ = ("_plain", "bounds", "stderr", "unit")

    stderr: float
    bounds: Interval | None
    unit: str
    _plain: float | None

    def __new__(
        cls,
        value: float = math.nan,
        stderr: float = math.nan,
        bounds: Interval | None = None,
        unit: str = "",
        *,
        plain: float | None = None,
    ) -> Self:
        """The estimate; `value` may be any real number."""
        self = super().__new__(cls, value)
        self.stderr, self.unit = float(stderr), unit
        self.bounds = None if bounds is None else (float(bounds[0]), float(bounds[1]))
        self._plain = None if plain is None else float(plain)
        return self

    @property
    def value(self) -> float:
        """The number alone."""
        return float(self)

    @property
    def plain(self) -> float:
        """The number of the data at hand, without any correction: the value itself where there is none."""
        return self.value if self._plain is None else self._plain

    @property
    def corrected(self) -> bool:
        """Whether there is a plain number of the data beside the value, which is corrected (or missing)."""
        return self._plain is not None and not math.isnan(self._plain)

    @property
    def low(self) -> float:
        """What the number is at least: the value itself where it is exact."""
        return self.value if self.bounds is None else self.bounds[0]

    @property
    def high(self) -> float:
        """What the number is at most."""
        return self.value if self.bounds is None else self.bounds[1]

    def words(self, word: Callable[[float], str]) -> str:
        """The value in words, or its bounds where these tell two numbers apart.

        >>> Estimate(1.5, bounds=(1.25, 1.75)).words("{:.1f}".format), Estimate(1.5, bounds=(1.49, 1.51)).words(str)
        ('1.2 … 1.8', '1.49 … 1.51')
        >>> Estimate(1.5, bounds=(1.49, 1.51)).words("{:.1f}".format)
        '1.5'
        """
        ends = dict.fromkeys(map(word, self.bounds or ()))
        return " … ".join(ends) if len(ends) == 2 else word(self.value)

    def __str__(self) -> str:
        if math.isnan(self):
            return "–"
        unit = f" {self.unit}" if self.unit else ""
        if math.isnan(self.stderr):
            return self.words("{:.4g}".format) + unit
        if math.isinf(self.stderr):
            return f"{self.words('{:.4g}'.format)} ± inf{unit}"
        if 0 < self.stderr < 0.5 * 10**-_MOST:
            return f"{self.words(self._fine)} ± {self.stderr:.0e}{unit}"
        word = f"{{:.{decimals(self.stderr)}f}}".format
        return f"{self.words(word)} ± {word(self.stderr)}{unit}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"

    def __format__(self, spec: str) -> str:
        return format(self.value, spec) if spec else str(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return _estimate, (self.value, self.stderr, self.bounds, self.unit, self._plain)

    def __pos__(self) -> Estimate:
        return self

    def __neg__(self) -> Estimate:
        return self._map(lambda x: -x, 1.0, self.unit)

    def __abs__(self) -> Estimate:
        if self.low < 0 < self.high:
            return Estimate(abs(self.value), self.stderr, (0.0, max(-self.low, self.high)), self.unit)
        return -self if self < 0 else self

    def __add__(self, other: Any) -> Any:
        if not _plain(other):
            return float.__add__(self, other)
        shift = float(other)
        return self._map(lambda x: x + shift, 1.0, self.unit)

    def __sub__(self, other: Any) -> Any:
        return self + (-other) if _plain(other) else float.__sub__(self, other)

    def __rsub__(self, other: Any) -> Any:
        return -self + other if _plain(other) else float.__rsub__(self, other)

    def __mul__(self, other: Any) -> Any:
        if not _plain(other):
            return float.__mul__(self, other)
        factor = float(other)
        return self._map(lambda x: x * factor, abs(factor), self.unit)

    def __truediv__(self, other: Any) -> Any:
        if not _plain(other):
            return float.__truediv__(self, other)
        divisor = float(other)
        return self._map(lambda x: x / divisor, 1 / abs(divisor), self.unit)

    __radd__ = __add__
    __rmul__ = __mul__

    def _map(self, function: Callable[[float], float], slope: float, unit: str) -> Estimate:
        """The estimate of a linear function of the number."""
        bounds = None
        if self.bounds is not None:
            low, high = sorted(map(function, self.bounds))
            bounds = (low, high)
        plain = None if self._plain is None else function(self._plain)
        return Estimate(function(self.value), slope * self.stderr, bounds, unit, plain=plain)

    def _fine(self, value: float) -> str:
        """A number with as many digits as an error below all decimals lets it have."""
        lead = math.floor(math.log10(abs(value))) if value and math.isfinite(value) else -math.inf
        return f"{value:.{int(max(1, lead - math.floor(math.log10(self.stderr)) + 1))}g}"


def _estimate(
    value: float, stderr: float, bounds: Interval | None, unit: str, plain: float | None
) -> Estimate:
    return Estimate(value, stderr, bounds, unit, plain=plain)


def _plain(value: Any) -> bool:
    """Whether a value is a real number, of Python or NumPy, that is no estimate itself."""
    return isinstance(value, int | float | Real) and not isinstance(value, Estimate)


def decimals(stderr: float) -> int:
    """Decimals that show the error with one digit, or two where the first is 1; six at most.

    >>> [decimals(error) for error in (0.0022, 0.011, 0.06, 3.0, 14.0, 0.0, 5e-324)]
    [3, 3, 2, 0, 0, 2, 6]
    """
    if stderr == 0:
        return 2
    if stderr < 10.0**-_MOST:  # also where ten to its exponent is no number any more
        return _MOST
    exponent = math.floor(math.log10(stderr))
    return min(max(0, -exponent + (stderr / 10.0**exponent < 2 and exponent < 0)), _MOST)
