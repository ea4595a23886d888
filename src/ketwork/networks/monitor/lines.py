"""A monitor's file: one line of JSON for the settings, each look, alarm and note, appended as they come.

A line is written at once, so that a run that is killed keeps all looks before. A run that is resumed appends to the
same file, after a new line of settings: what it looks at again takes the place of what was there from that step on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import msgspec

from ketwork.networks.monitor.look import Alarm, LayerLook, Look
from ketwork.networks.monitor.quantities import QUANTITIES
from ketwork.quantum import Estimate
from ketwork.records import irregular, visible

NAME = "monitor.jsonl"
"""What the file in a run's folder is called."""

VERSION = 1

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
_Pair = tuple[float | None, float | None]
"""A value and its standard error, null where there is none."""


class _Line(msgspec.Struct, tag_field="line", omit_defaults=True):
    """A line; fields that are not known are ignored."""


class RunLine(_Line, tag="run"):
    """A run, or its continuation, begins."""

    version: _Count
    settings: dict[str, Any]


class LayerForm(msgspec.Struct):
    """A layer in a line of a look."""

    layer: str
    call: int
    kind: str
    d: _Count
    samples: _Count
    values: dict[str, _Pair]
    bad: _Count = 0


class LookLine(_Line, tag="look"):
    """A look; the first one says which modules have no row, each with the reason."""

    step: _Count
    seconds: float
    layers: list[LayerForm]
    skipped: dict[str, str] = {}


class AlarmLine(_Line, tag="alarm"):
    """An alarm."""

    kind: str
    title: str
    step: _Count
    layer: str
    quantity: str
    since: _Count
    before: _Pair
    after: _Pair
    others: list[str] = []
    meaning: str = ""
    remedy: str = ""


class NoteLine(_Line, tag="note"):
    """What else a reader should know."""

    step: _Count
    text: str


class EndLine(_Line, tag="end"):
    """The training ended, at that step."""

    step: _Count


Line = RunLine | LookLine | AlarmLine | NoteLine | EndLine

_ENCODER, _DECODER = msgspec.json.Encoder(), msgspec.json.Decoder(Line)


def look_lines(look: Look, skipped: dict[str, str] | None = None) -> list[Line]:
    """The lines of a look and its alarms; of the first one also which modules are `skipped`."""
    layers = [
        LayerForm(
            each.layer,
            each.call,
            each.kind,
            each.d,
            each.samples,
            {name: _pair(value) for name, value in each.values.items()},
            each.bad,
        )
        for each in look.layers
    ]
    alarms = [
        AlarmLine(
            each.kind,
            each.title,
            each.step,
            each.layer,
            each.quantity,
            each.since,
            _pair(each.before),
            _pair(each.after),
            list(each.others),
            each.meaning,
            each.remedy,
        )
        for each in look.alarms
    ]
    return [LookLine(look.step, look.seconds, layers, skipped or {}), *alarms]


def encoded(lines: Iterable[Line]) -> bytes:
    """The lines as a file has them."""
    return b"".join(_ENCODER.encode(line) + b"\n" for line in lines)


def append(path: Path, lines: Iterable[Line]) -> None:
    """Appends lines in one write; a line that a killed run left incomplete before is ended first.

    Raises:
        OSError: the file cannot be written.
    """
    text = encoded(lines)
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, 2)
            text = text if file.read(1) == b"\n" else b"\n" + text
        file.write(text)


def read_lines(path: Path) -> tuple[list[Line], list[str]]:
    """The lines of a file, and notes of what was skipped: lines that a killed run left incomplete.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a monitor's, or of a newer ketwork, or a line is damaged.
    """
    if (kind := irregular(path)) is not None:
        raise ValueError(f"{str(path)!r} is {kind}, and no file")
    lines: list[Line] = []
    notes = []
    content = path.read_bytes()
    if content[8:9] == b"{":
        raise ValueError(
            f"Argument `path` must be a saved run of a monitor, but {str(path)!r} is a safetensors file of "
            "something else."
        )
    texts = content.split(b"\n")
    for number, text in enumerate(texts, 1):
        if not text.strip():
            continue
        try:
            line = _DECODER.decode(text)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            if not isinstance(error, msgspec.ValidationError) and lines and not text.rstrip().endswith(b"}"):
                notes.append(
                    f"Line {number} is incomplete, as a run that was killed leaves it, and is skipped."
                )
                continue
            raise ValueError(
                f"{str(path)!r} is not a complete file of a monitor: line {number} is no line of one "
                f"({visible(str(error))[:300]})"
            ) from error
        if isinstance(line, RunLine) and line.version > VERSION:
            raise ValueError(
                f"{str(path)!r} was written by a newer ketwork (version {line.version} of its format, this one reads "
                f"{VERSION}). Update ketwork."
            )
        lines.append(line)
    if not lines or not isinstance(lines[0], RunLine):
        raise ValueError(f"{str(path)!r} is not a file of a monitor: it does not begin with a line of a run.")
    return lines, notes


def look_of(line: LookLine, alarms: tuple[Alarm, ...] = ()) -> Look:
    """The look of a line."""
    layers = tuple(
        LayerLook(
            visible(each.layer),
            each.call,
            visible(each.kind),
            each.d,
            each.samples,
            each.bad,
            {visible(name): _estimate(name, pair) for name, pair in each.values.items()},
        )
        for each in line.layers
    )
    return Look(line.step, line.seconds, layers, alarms)


def alarm_of(line: AlarmLine) -> Alarm:
    """The alarm of a line."""
    return Alarm(
        visible(line.kind),
        visible(line.title),
        line.step,
        visible(line.layer),
        visible(line.quantity),
        line.since,
        _estimate(line.quantity, line.before),
        _estimate(line.quantity, line.after),
        tuple(map(visible, line.others)),
        visible(line.meaning),
        visible(line.remedy),
    )


def _pair(estimate: Estimate) -> _Pair:
    value, error = (x if math.isfinite(x) else None for x in (estimate.value, estimate.stderr))
    return value, error


def _estimate(quantity: str, pair: _Pair) -> Estimate:
    value, error = (math.nan if x is None else x for x in pair)
    known = QUANTITIES.get(quantity)
    return Estimate(value, error, unit="" if known is None else known.unit)
