"""What each layer may take of a memory budget: decided before the pass, from the widths that one forward pass shows.

Every layer keeps its exact d × d moment where all fit. Where they do not, the widest become Frequent Directions
sketches, as few as will do; only then are the kept samples made fewer. Counted are the sums that the pass keeps, and
once the memory of what is computed on one layer at a time. The network, one batch of its activations and their kets
come on top.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from ketwork.networks.classes import MOST_BYTES
from ketwork.networks.labelled import Room
from ketwork.networks.readouts import MOST_DIMENSIONS
from ketwork.networks.reservoir import POSITIONS, SAMPLES, kets_each

_RANKS = (1024, 768, 512, 384, 256, 192, 128, 96, 64, 48, 32, 24, 16, 12, 8)
_GOOD_RANK = 64  # sketches are at least this fine while anything else can give way
_LEVELS = (1.0, 0.5, 0.25, 0.125)  # of the usual number of kept samples
_FEWEST_CLASSES = 32  # that class sums are counted for, when fewer are known
_LEAST_CLASS_BYTES = 4 << 20
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


@dataclass(frozen=True)
class Width:
    """A layer as its first activation shows it; `itemsize` is of one number of a ket, real or complex."""

    layer: str
    call: int
    d: int
    complex: bool
    itemsize: int
    positions: bool


@dataclass(frozen=True)
class Share:
    """What one layer keeps: the `rank` ℓ of its sketch (None: exact), samples of its reservoir, `room` for labels.

    `moment`, `reservoir` and `labels` are the bytes of each.
    """

    layer: str
    call: int
    d: int
    rank: int | None
    samples: int
    room: Room | None
    moment: int
    reservoir: int
    labels: int


@dataclass(frozen=True)
class Plan:
    """The shares of all layers by key, and the bytes of the budget, the pairs of layers and the work at the end."""

    memory: int
    shares: Mapping[Hashable, Share]
    pairs: int
    work: int

    @property
    def total(self) -> int:
        """All bytes that are planned for."""
        kept = sum(share.moment + share.reservoir + share.labels for share in self.shares.values())
        return kept + self.pairs + self.work

    @property
    def sketched(self) -> list[str]:
        """The layers that are sketched."""
        return [share.layer for share in self.shares.values() if share.rank is not None]

    def share(self, key: Hashable) -> Share:
        """The share of a layer; one that the first batch did not reach gets the smallest."""
        return self.shares.get(key) or Share(
            "", 0, 0, _RANKS[-1], _samples(_LEVELS[-1]), _room(0, 1, 1), 0, 0, 0
        )

    def header(self) -> dict[str, Any]:
        """The plan as plain values, for a record."""
        layers = [asdict(share) | {"room": None} for share in self.shares.values()]
        for told, share in zip(layers, self.shares.values(), strict=True):
            told["room"] = asdict(share.room) if share.room else None
        return {
            "memory": self.memory,
            "total": self.total,
            "pairs": self.pairs,
            "work": self.work,
            "layers": layers,
        }


def table(header: Mapping[str, Any]) -> pd.DataFrame:
    """A plan's header as a table: one row a layer, with what it keeps and the bytes of that."""
    columns = ["layer", "call", "d", "form", "rank", "samples", "moment", "reservoir", "labels"]
    rows = [{**told, "form": "exact" if told["rank"] is None else "sketch"} for told in header["layers"]]
    return pd.DataFrame(rows, columns=columns)


def parse(memory: int | str | None) -> int | None:
    """Bytes of a budget: a number, or a text with a unit: kB, MB, GB, TB of 1000, KiB, MiB, GiB, TiB of 1024.

    Raises:
        TypeError, ValueError: it is neither.

    >>> parse("1.5GB"), parse("800 MiB"), parse(10**9)
    (1500000000, 838860800, 1000000000)
    """
    if memory is None:
        return None
    said = (
        "Argument `memory` must be a positive number of bytes, or a text such as '800MB' or '2GiB', "
        f"but is {memory!r}."
    )
    if isinstance(memory, bool) or not isinstance(memory, int | str):
        raise TypeError(said)
    if isinstance(memory, int):
        found = memory
    else:
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", memory, re.IGNORECASE | re.ASCII)
        if match is None or (match[3] and not match[2]):
            raise ValueError(said)
        found = int(float(match[1]) * (1024 if match[3] else 1000) ** _UNITS[match[2].lower()])
    if found < 1:
        raise ValueError(said)
    return found


def plan(
    widths: Mapping[Hashable, Width], memory: int, *, classes: int | None = None, pairs: bool = False
) -> Plan:
    """The plan for these layers.

    Args:
        widths: the layers.
        memory: bytes.
        classes: how many labels are known so far; None for no labels.
        pairs: whether every pair of layers is compared, which takes a quarter.

    Raises:
        ValueError: the budget has no room for the smallest sketches; it says what they need.
    """
    reserved = memory // 4 if pairs else 0
    found = None
    for level in _LEVELS:
        found = _fitting(widths, memory, reserved, classes, level, _GOOD_RANK)
        if found is not None:
            return found
    found = _fitting(widths, memory, reserved, classes, _LEVELS[-1], _RANKS[-1])
    if found is None:
        least = (
            _plan(widths, memory, reserved, classes, _LEVELS[-1], len(widths), _RANKS[-1]).total - reserved
        )
        least = -(-(least * 4 // 3 if pairs else least) // 10**6)
        raise ValueError(
            f"Argument `memory` must be at least {least} MB for these {len(widths)} layers, but is "
            f"{memory / 1e6:.0f} MB. Give more, or choose fewer layers with `layers`."
        )
    return found


def _fitting(
    widths: Mapping[Hashable, Width], memory: int, pairs: int, classes: int | None, level: float, least: int
) -> Plan | None:
    """The plan with the fewest sketches that fits, these as fine as they can be; None if none does."""
    for count in range(len(widths) + 1):
        for rank in _RANKS if count else _RANKS[:1]:
            if rank < least:
                break
            found = _plan(widths, memory, pairs, classes, level, count, rank)
            if found.total <= memory:
                return found
    return None


def _plan(
    widths: Mapping[Hashable, Width],
    memory: int,
    pairs: int,
    classes: int | None,
    level: float,
    count: int,
    rank: int,
) -> Plan:
    widest = sorted(widths, key=lambda key: -_numbers(widths[key]))[:count]
    shares: dict[Hashable, Share] = {}
    work = 0
    for key, width in widths.items():
        ell = min(rank, max(width.d // 4, 1)) if key in widest else None
        samples = _samples(level)
        room = None if classes is None else _room(level, max(classes, _FEWEST_CLASSES), _real(width))
        shares[key] = Share(
            width.layer,
            width.call,
            width.d,
            ell,
            samples,
            room,
            _moment(width, ell),
            _reservoir(width, samples),
            0 if room is None else _labels(width, room, max(classes or 0, _FEWEST_CLASSES)),
        )
        work = max(work, _work(width, ell, room))
    return Plan(memory, shares, pairs, work)


def _numbers(width: Width) -> int:
    return width.d * (2 if width.complex else 1)


_real = _numbers  # complex kets are asked about labels as real ones of twice the width


def _samples(level: float) -> int:
    return round(SAMPLES * level)


def _room(level: float, classes: int, d: int) -> Room:
    usual = Room()
    held, checks, waiting = (round(n * level) for n in (usual.held, usual.checks, usual.waiting))
    moments = max(min(round(MOST_BYTES * level), 8 * classes * d * d), _LEAST_CLASS_BYTES)
    least = round(usual.checks * _LEVELS[-1])
    return Room(max(held, least), max(checks, least), max(waiting, least), moments)


def _moment(width: Width, rank: int | None) -> int:
    d, numbers = width.d, _numbers(width)
    matrix = 8 * numbers * d if rank is None else 16 * rank * numbers + 8 * d
    return matrix + 8 * numbers


def _reservoir(width: Width, samples: int) -> int:
    each = kets_each(width.d, 1 << 30, width.itemsize) if width.positions else 1
    gram = min(POSITIONS, width.d) ** 2 if width.positions else 0
    return samples * (each * width.d + gram) * width.itemsize


def _labels(width: Width, room: Room, classes: int) -> int:
    d, item = _real(width), width.itemsize // (2 if width.complex else 1)
    assert room.moments is not None
    return (room.held + room.checks + room.waiting) * d * item + room.moments * 3 // 2 + 8 * classes * d


def _work(width: Width, rank: int | None, room: Room | None) -> int:
    """Bytes that the decompositions of one layer and the sorting of its labelled kets take at most."""
    d, numbers = width.d, _numbers(width)
    found = [6 * 8 * numbers * d if rank is None else 5 * 16 * rank * numbers]
    if room is not None:
        real, item = _real(width), width.itemsize // (2 if width.complex else 1)
        assert room.moments is not None
        found.append(2 * (room.held + room.checks + room.waiting) * real * item + 2 * room.moments)
        found.append(24 * MOST_DIMENSIONS * real if real > MOST_DIMENSIONS else 6 * 8 * real * real)
        found.append((room.held + room.checks) * real * 8 * 2)
    return max(found)
