"""What each layer may take of a memory budget: decided before the pass, from the widths that one forward pass shows.

Every layer keeps its exact d × d moment where all fit, if need be with fewer kept samples. Where they do not, the
widest become Frequent Directions sketches, as few as will do. Counted are the sums that the pass keeps, and once the
memory of what is computed on one layer at a time. The network, one batch of its activations and their kets come on top.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import pandas as pd

from ketwork._lazy import cached_property
from ketwork.networks.activations import Activation, Key
from ketwork.networks.measures import MOST_DIMENSIONS
from ketwork.networks.moments import HEAVIEST, MOST_BYTES, SAMPLES, Limits, kets_each, least_bytes
from ketwork.records import Count

_RANKS = (1024, 768, 512, 384, 256, 192, 128, 96, 64, 48, 32, 24, 16, 12, 8)
_GOOD_RANK = 64  # sketches are at least this fine while anything else can give way
_LEVELS = (1.0, 0.5, 0.25, 0.125)  # of the usual number of kept samples
_FEWEST_CLASSES = 32  # that class sums are counted for, when fewer are known
_LEAST_CLASS_BYTES = 4 << 20
_LEAST_PAIRS = 2  # what compares layers holds their moments and, in the end, as much again
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


@dataclass(frozen=True)
class Width:
    """A layer as its first activation shows it; `itemsize` is of one number of a ket, real or complex.

    `span` are the dimensions of the range of a linear layer with fewer inputs than outputs, `vectors` how many there
    were in that batch, at `length` positions of each sample.
    """

    layer: str
    call: int
    d: int
    complex: bool
    itemsize: int
    positions: bool
    span: int | None = None
    vectors: int = 0
    length: int = 1

    @classmethod
    def from_activation(cls, activation: Activation) -> Width:
        """The width of the layer that put this out."""
        values, span = activation.values, activation.span
        return cls(
            *activation.key,
            values.shape[-1],
            values.is_complex(),
            values.element_size(),
            activation.info.positions,
            None if span is None else span.rank,
            values.shape[0] * values.shape[1],
            values.shape[1],
        )


@dataclass(frozen=True)
class Share:
    """What one layer keeps: the `rank` ℓ of its sketch (None: exact), samples of its reservoir, `limits` of labels.

    `moment`, `reservoir` and `labels` are the bytes of each; `late` says that the first batch did not reach the layer.
    """

    layer: str
    call: int
    d: Count
    rank: Count | None
    samples: Count
    limits: Limits | None
    moment: Count
    reservoir: Count
    labels: Count
    late: bool = False

    @property
    def form(self) -> str:
        """`exact` or `sketch`."""
        return "exact" if self.rank is None else "sketch"

    @property
    def bytes(self) -> int:
        """All that the layer keeps."""
        return self.moment + self.reservoir + self.labels


@dataclass(frozen=True)
class Plan:
    """What becomes of a budget of `memory` bytes: the layers' shares, and the bytes for pairs of layers and work.

    `pairs` are for comparing the layers with each other; `work` is what is computed on one layer at a time.
    `batch_seconds` and `end_seconds` are what the statistics of all layers take beside the network, in each batch like
    the first one and at the end, by operations and this machine's speed: good to a factor of two or three, without
    pairs. None of a plan in an older file.
    """

    memory: Count
    shares: tuple[Share, ...]
    pairs: Count
    work: Count
    batch_seconds: float | None = None
    end_seconds: float | None = None

    @property
    def total(self) -> int:
        """All bytes that are planned for."""
        return sum(share.bytes for share in self.shares) + self.pairs + self.work

    @property
    def sketched(self) -> list[str]:
        """The layers that are sketched."""
        return [share.layer for share in self.shares if share.rank is not None]

    def __repr__(self) -> str:
        sketched = f", {len(self.sketched)} sketched" if self.sketched else ""
        end = "" if self.end_seconds is None else f", end of study ≈ {self.end_seconds:.2g} s"
        return f"Plan({len(self.shares)} layers{sketched}: {self.total:,} of {self.memory:,} bytes{end})"

    def share(self, key: Key) -> Share | None:
        """What a layer keeps, if it is in the plan."""
        return self._by_key.get(key)

    def extended(self, width: Width, classes: int | None) -> Plan:
        """The plan with one more layer, for which there is what the others left, or the smallest sketch."""
        for rank in (None, *_RANKS):
            share, work = _share(width, rank, _LEVELS[-1], classes)
            plan = replace(self, shares=(*self.shares, replace(share, late=True)), work=max(self.work, work))
            if plan.total <= self.memory:
                break
        return plan

    @cached_property
    def _by_key(self) -> dict[Key, Share]:
        return {(share.layer, share.call): share for share in self.shares}

    def named(self, names: Mapping[Key, Key]) -> Plan:
        """The plan with other names of its layers."""
        called = [names.get((share.layer, share.call), (share.layer, share.call)) for share in self.shares]
        shares = tuple(
            replace(share, layer=layer, call=call)
            for share, (layer, call) in zip(self.shares, called, strict=True)
        )
        return replace(self, shares=shares)

    def table(self) -> pd.DataFrame:
        """One row a layer: exact or a sketch and of which rank, the samples kept, and the bytes of each."""
        columns = ["layer", "call", "d", "form", "rank", "samples", "moment", "reservoir", "labels", "late"]
        rows = [[getattr(share, name) for name in columns] for share in self.shares]
        return pd.DataFrame(rows, columns=columns).astype({"rank": "Int64"})


def parse_bytes(memory: int | str) -> int:
    """Bytes of a budget: a number, or a text with a unit: kB, MB, GB, TB of 1000, KiB, MiB, GiB, TiB of 1024.

    Raises:
        TypeError, ValueError: it is neither.

    >>> parse_bytes("1.5GB"), parse_bytes("800 MiB"), parse_bytes(10**9)
    (1500000000, 838860800, 1000000000)
    """
    message = (
        "Argument `memory` must be a positive number of bytes, or a text such as '800MB' or '2GiB', "
        f"but is {memory!r}."
    )
    if isinstance(memory, bool) or not isinstance(memory, int | str):
        raise TypeError(message)
    if isinstance(memory, int):
        size = memory
    else:
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", memory, re.IGNORECASE | re.ASCII)
        if match is None or (match[3] and not match[2]):
            raise ValueError(message)
        size = int(float(match[1]) * (1024 if match[3] else 1000) ** _UNITS[match[2].lower()])
    if size < 1:
        raise ValueError(message)
    return size


def plan_memory(
    widths: Mapping[Key, Width], memory: int, *, classes: int | None = None, pairs: bool = False
) -> Plan:
    """The plan for these layers.

    Args:
        widths: the layers.
        memory: bytes.
        classes: how many labels are known so far; None for no labels.
        pairs: whether every pair of layers is compared, which takes a quarter, or more where that is too little.

    Raises:
        ValueError: the smallest sketches do not fit the budget; it says what they need.
    """
    layers = list(widths.values())
    of_pairs = _LEAST_PAIRS * least_bytes([_numbers(width) for width in layers]) if pairs else 0
    reserved = max(memory // 4, of_pairs) if pairs else 0
    exact = [(level, None) for level in _LEVELS[:-1]]
    sketches = [(level, _GOOD_RANK) for level in _LEVELS]
    for level, rank in (*exact, *sketches, (_LEVELS[-1], _RANKS[-1])):
        plan = _fitting(layers, memory, reserved, classes, level, rank)
        if plan is not None:
            return plan
    least = _plan(layers, memory, 0, classes, _LEVELS[-1], len(layers), _RANKS[-1]).total
    least = max(-(-least * 4 // 3), least + of_pairs) if pairs else least
    raise ValueError(
        f"Argument `memory` must be at least {_words(least)} for these {len(layers)} layers, but is "
        f"{_words(memory, up=False)}. Give more, or choose fewer layers with `layers`."
    )


def plan_without_limit(
    widths: Mapping[Key, Width], ranks: Mapping[Key, int], *, classes: int | None = None, pairs: bool = False
) -> Plan:
    """The plan of a study that no memory limits: what layers keep then, those with `ranks` as sketches of these."""
    layers = list(widths.values())
    planned = [_share(width, ranks.get(key), 1.0, classes) for key, width in widths.items()]
    of_pairs = _LEAST_PAIRS * least_bytes([_numbers(width) for width in layers]) if pairs else 0
    plan = Plan(
        0, tuple(share for share, _ in planned), of_pairs, max((work for _, work in planned), default=0)
    )
    return replace(plan, memory=plan.total)


def _words(memory: int, up: bool = True) -> str:
    """Bytes in words, rounded to the safe side."""
    if memory < 10**5:
        return f"{memory:,} bytes"
    unit = 10**6 if memory >= 10**7 else 10**4
    return f"{(-(-memory // unit) if up else memory // unit) * unit / 10**6:g} MB"


def _fitting(
    layers: list[Width], memory: int, pairs: int, classes: int | None, level: float, least: int | None
) -> Plan | None:
    """The plan with the fewest sketches that fits, none below rank `least` (None: no sketches); None if none does."""
    for count in range(1 if least is None else len(layers) + 1):
        for rank in _RANKS if count else _RANKS[:1]:
            if least is not None and rank < least:
                break
            plan = _plan(layers, memory, pairs, classes, level, count, rank)
            if plan.total <= memory:
                return plan
    return None


def _plan(
    layers: list[Width],
    memory: int,
    pairs: int,
    classes: int | None,
    level: float,
    count: int,
    rank: int,
) -> Plan:
    widest = sorted(range(len(layers)), key=lambda i: -_numbers(layers[i]))[:count]
    planned = [_share(width, rank if i in widest else None, level, classes) for i, width in enumerate(layers)]
    shares = tuple(share for share, _ in planned)
    return Plan(memory, shares, pairs, max((work for _, work in planned), default=0))


def _share(width: Width, rank: int | None, level: float, classes: int | None) -> tuple[Share, int]:
    """What the layer keeps in a sketch of that rank at most, or exactly, and the bytes of work on it."""
    ell = None if rank is None else min(rank, max(width.d // 4, 1))
    known = max(classes or 0, _FEWEST_CLASSES)
    limits = None if classes is None else _limits(level, known, _real(width))
    samples = _samples(level)
    share = Share(
        width.layer,
        width.call,
        width.d,
        ell,
        samples,
        limits,
        _moment(width, ell),
        _reservoir(width, samples),
        0 if limits is None else _labels(width, limits, known),
    )
    return share, _work(width, ell, limits)


def _numbers(width: Width) -> int:
    return width.d * (2 if width.complex else 1)


_real = _numbers  # complex kets are asked about labels as real ones of twice the width


def _samples(level: float) -> int:
    return round(SAMPLES * level)


def _limits(level: float, classes: int, d: int) -> Limits:
    usual = Limits()
    held, checks, waiting = (round(n * level) for n in (usual.held, usual.checks, usual.waiting))
    moments = max(min(round(MOST_BYTES * level), 8 * classes * d * d), _LEAST_CLASS_BYTES)
    least = round(usual.checks * _LEVELS[-1])
    return Limits(max(held, least), max(checks, least), max(waiting, least), moments)


def _moment(width: Width, rank: int | None) -> int:
    d, numbers = width.d, _numbers(width)
    if rank is not None:
        matrix = 16 * rank * numbers + 8 * d
    elif width.span is not None:  # orthonormal states, as many kets before them, and the diagonal
        matrix = 2 * width.span * d * width.itemsize + 8 * width.span**2 + 8 * d
    else:
        matrix = 8 * numbers * d
    return matrix + 8 * numbers


def _reservoir(width: Width, samples: int) -> int:
    each = kets_each(width.d, 1 << 30, width.itemsize) if width.positions else 1
    heaviest = min(HEAVIEST, max(samples // 4, 1))  # where kets weigh by their squared norm
    return (samples + heaviest) * each * width.d * width.itemsize


def _labels(width: Width, limits: Limits, classes: int) -> int:
    d, item = _real(width), width.itemsize // (2 if width.complex else 1)
    assert limits.moments is not None
    return (
        (limits.held + limits.checks + limits.waiting) * d * item + limits.moments * 3 // 2 + 8 * classes * d
    )


def _work(width: Width, rank: int | None, limits: Limits | None) -> int:
    """Bytes that the decompositions of one layer and the sorting of its labelled kets take at most."""
    d, numbers = width.d, _numbers(width)
    side = d if width.span is None else width.span
    needs = [6 * 8 * numbers * side if rank is None else 5 * 16 * rank * numbers]
    if limits is not None:
        real, item = _real(width), width.itemsize // (2 if width.complex else 1)
        assert limits.moments is not None
        needs.append(2 * (limits.held + limits.checks + limits.waiting) * real * item + 2 * limits.moments)
        needs.append(24 * MOST_DIMENSIONS * real if real > MOST_DIMENSIONS else 6 * 8 * real * real)
        needs.append((limits.held + limits.checks) * real * 8 * 2)
    return max(needs)
