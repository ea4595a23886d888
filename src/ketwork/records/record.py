"""Records: typed classes whose fields are declared once. Reading, writing and validation follow from the declaration.

A record is a dataclass of plain values, tensors, `Estimate`s and other records. `pack` splits it into a header (plain
values, as JSON has them) and tensors named by their place in the record; `unpack` makes the same record of both, and
trusts neither. A field that a file lacks takes its default; one that the class does not know is ignored.

Three things are declared beside a field's type:

- `Annotated[Tensor, Form("real n d")]`: the kind of a tensor and the names of its axes, which must agree with the
  record's integer fields of that name (or with its `sizes`), and with each other;
- `Count`, and other `msgspec.Meta` constraints of plain values;
- a method `check()` that raises `Malformed` where fields contradict each other.

A class that is held otherwise than it is written has a record as its `Stored`, and `stored()` and `restored()` between
the two.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from torch import Tensor

from ketwork.quantum import Estimate
from ketwork.records.forms import Form, Malformed, check_tensors
from ketwork.records.storage import read_parts, write_parts

Record = TypeVar("Record")

Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
"""A whole number that is not negative."""

Header = dict[str, Any]


class Kinds:
    """A family of records of which a field holds any: each subclass goes by its `kind`.

    >>> class Shape(Kinds): ...
    >>> @dataclasses.dataclass
    ... class Square(Shape, kind="square"):
    ...     side: float
    >>> header, tensors = pack({"shapes": [Square(2.0)]})
    >>> header["shapes"], unpack(Shape, header["shapes"][0], tensors)
    ([{'kind': 'square', 'side': 2.0}], Square(side=2.0))
    """

    kinds: ClassVar[dict[str, type]]
    kind: ClassVar[str]

    def __init_subclass__(cls, kind: str | None = None, **rest: Any) -> None:
        """Enters the class under its kind; a class without one is the root of a family."""
        super().__init_subclass__(**rest)
        if kind is None:
            cls.kinds = {}
        else:
            cls.kind = kind
            cls.kinds[kind] = cls


_LONGEST = 300  # letters of what is wrong with a file
_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError)
"""What reading a damaged file ends in: an upgrade reads what it was not yet checked for."""


def write(path: str | Path, kind: str, schema: int, record: Any) -> None:
    """Writes a record to a file, in one step."""
    header, tensors = pack(record)
    write_parts(Path(path), kind, schema, tensors, header)


def read(cls: type[Record], path: str | Path, kind: str, schema: int, upgrade: Any = None) -> Record:
    """The record that `write` wrote. `upgrade(schema, header, tensors)` turns those of an older schema into today's.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is something else, damaged, or of a newer schema; a part that is not what it must be is named.
    """
    tensors, header = read_parts(Path(path), kind, schema)
    try:
        if header["schema"] < schema and upgrade is not None:
            header, tensors = upgrade(header["schema"], header, tensors)
        return unpack(cls, header, tensors)
    except _UNREADABLE as error:
        words = str(error) if isinstance(error, Malformed) else f"{type(error).__name__}: {error}"
        words = words if len(words) <= _LONGEST else f"{words[:_LONGEST]} …"
        raise ValueError(
            f"Argument `path` must be a saved {kind}, but {str(path)!r} lacks a part of one ({words}). "
            f"Save the {kind} again."
        ) from error


def pack(record: Any) -> tuple[Header, dict[str, Tensor]]:
    """The header and the tensors of a record."""
    tensors: dict[str, Tensor] = {}
    return _packed(record, "", tensors), tensors


def unpack(cls: type[Record], header: Header, tensors: Mapping[str, Tensor]) -> Record:
    """The record of that class that `pack` split.

    Raises:
        Malformed: the parts are none of such a record; the message names the field.
    """
    left = dict(tensors)

    def made(kind: type, value: Any) -> Any:
        if kind is Tensor:
            if not isinstance(value, str) or value not in left:
                raise ValueError(f"Expected the name of a tensor that is there, once, got {_short(value)}")
            return left.pop(value)
        if kind is Estimate:
            return _estimate(value)
        if hasattr(kind, "Stored"):
            stored = converted(kind.Stored, value)
            _check(stored, kind.__name__.lower())
            return kind.restored(stored)  # type: ignore[attr-defined]
        if isinstance(kind, type) and issubclass(kind, Kinds):
            if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
                raise ValueError(f"Expected an object with its kind, got {_short(value)}")
            known = kind.kinds.get(value["kind"])
            return _unknown(kind) if known is None else converted(known, value)
        raise NotImplementedError(kind)

    def converted(kind: type, value: Any) -> Any:
        try:
            return msgspec.convert(value, kind, dec_hook=made)
        except msgspec.ValidationError as error:
            raise ValueError(str(error)) from error  # to which msgspec adds the place of this part

    try:
        record = msgspec.convert(header, cls, dec_hook=made)
    except msgspec.ValidationError as error:
        raise Malformed(_words(error)) from error
    _check(record, cls.__name__.lower())
    return record


class Unknown:
    """What stands for a record of a `kind` that this version does not know: one of its family, without fields."""


def _unknown(family: type) -> Any:
    return type(f"Unknown{family.__name__}", (Unknown, family), {})()


def _packed(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors[place] = value
        return place
    if isinstance(value, Estimate):
        return [None if math.isnan(x) else x for x in (value.value, value.stderr, *(value.bounds or ()))]
    if hasattr(value, "stored"):
        value = value.stored()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        named = {name: getattr(value, name) for name in _fields(type(value))}
        kind = {"kind": value.kind} if isinstance(value, Kinds) else {}
        return kind | {
            name: _packed(inner, f"{place}.{name}".lstrip("."), tensors) for name, inner in named.items()
        }
    if isinstance(value, Mapping):
        return {
            str(name): _packed(inner, f"{place}.{name}".lstrip("."), tensors) for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [_packed(inner, f"{place}.{i}".lstrip("."), tensors) for i, inner in enumerate(value)]
    return value


@cache
def _fields(cls: type) -> tuple[str, ...]:
    """The fields of a record: those of its dataclass whose names do not begin with an underscore."""
    return tuple(field.name for field in dataclasses.fields(cls) if not field.name.startswith("_"))


@cache
def _forms(cls: type) -> dict[str, str]:
    """The declared form of each field that is a tensor; one that may be missing ends with `?`."""
    result = {}
    for name, hint in get_type_hints(cls, include_extras=True).items():
        options = [hint] if get_origin(hint) is Annotated else get_args(hint)
        for option in options:
            forms = [extra for extra in getattr(option, "__metadata__", ()) if isinstance(extra, Form)]
            if forms:
                result[name] = forms[0].text + ("" if option is hint else "?")
    return result


def _check(value: Any, place: str) -> None:
    """Raises `Malformed` where tensors have not their forms, or a record contradicts itself."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        inner = {name: getattr(value, name) for name in _fields(type(value))}
        for name, part in inner.items():
            _check(part, f"{place}.{name}")
        tensors = {name: part for name, part in inner.items() if isinstance(part, Tensor)}
        sizes = {name: part for name, part in inner.items() if type(part) is int}
        try:
            check_tensors(tensors, sizes | getattr(value, "sizes", {}), **_forms(type(value)))
            if hasattr(value, "check"):
                value.check()
        except Malformed as error:
            raise Malformed(f"{place}: {error}") from error
    elif isinstance(value, Mapping):
        for name, part in value.items():
            _check(part, f"{place}.{name}")
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            _check(part, f"{place}[{i}]")


def _estimate(value: Any) -> Estimate:
    if not isinstance(value, list) or len(value) not in (2, 4):
        raise ValueError(f"Expected a value with its standard error, and bounds if any, got {_short(value)}")
    numbers = [math.nan if x is None else x for x in value]
    if not all(type(x) in (int, float) for x in numbers) or numbers[1] < 0:
        raise ValueError(
            f"Expected numbers, of which the standard error is not negative, got {_short(value)}"
        )
    if len(numbers) == 4 and not numbers[2] <= numbers[3]:
        raise ValueError(f"Expected bounds in order, got {numbers[2:]}")
    return Estimate(numbers[0], numbers[1], (numbers[2], numbers[3]) if len(numbers) == 4 else None)


def _words(error: msgspec.ValidationError) -> str:
    """msgspec's message with the place first: `layers[0].d: Expected int, got str`."""
    words, *places = str(error).split(
        " - at `$"
    )  # of a part in its record, of that in the record around it, and so on
    place = "".join(place.rstrip("`") for place in reversed(places)).lstrip(".")
    return f"{place}: {words}" if place else words


def _short(value: Any) -> str:
    words = repr(value)
    return words if len(words) <= 40 else f"{words[:40]} …"
