"""What a pass gathered, under the names that its layers are shown by: a monoid, from which a study is made.

Parts of data add up here, whether they come from studies, from files or from other processes.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ketwork.networks.activations.captures import NEVER, Capture, Key, as_key
from ketwork.networks.activations.labels import Labels
from ketwork.networks.activations.names import row_names
from ketwork.networks.runtime.memory import Plan
from ketwork.networks.study.passing import Pass
from ketwork.records.checked import check

_HEADER = {"pass": dict, "aliases": [[str]], "skipped": {str: str}, "refused": [list], "streams": [int]}


def named_plan(plan: Plan, live: Capture) -> Plan:
    """The plan with the names that the layers' rows will have."""
    names = row_names(live, [(share.layer, share.call) for share in plan.shares])
    return plan.named({key: name for key, (name, _) in names.items()})


@dataclass
class Gathered:
    """The state of one or more passes, its rows keyed by (name, call).

    `aliases` has each row's other names, `skipped` a reason for each module without one, `refused` the rows whose
    output could not be read in some batch. `streams` are the seeds of the parts' random keys.
    """

    run: Pass
    aliases: dict[Key, tuple[str, ...]]
    skipped: dict[str, str]
    refused: set[Key]
    streams: tuple[int, ...]

    @classmethod
    def nothing(cls) -> Gathered:
        """Of no data."""
        return cls(Pass("state", torch.Generator(), False, False, Labels(), None), {}, {}, set(), ())

    @classmethod
    def of(cls, run: Pass, live: Capture) -> Gathered:
        """What this pass gathered, which goes on holding the same statistics."""
        named = row_names(live, run.rows)
        places = {key: place for key, (place, _) in named.items()}
        rows = {
            places[key]: replace(row, first=replace(row.first, key=places[key]))
            for key, row in run.rows.items()
        }
        run = copy.copy(run)
        run.rows = rows
        run.plan = run.plan and named_plan(run.plan, live)
        if run.pairs is not None:
            run.pairs.keys = [places.get(key, key) for key in run.pairs.keys]  # type: ignore[call-overload]
        return cls(
            run,
            dict(named.values()),
            dict(live.skipped),
            {places[key] for key in live.refused if key in places},
            () if run.stream is None else (run.stream,),
        )

    def take(self, other: Gathered, start: int | None = None) -> None:
        """Adds what another gathered; its samples come after these, or at `start` and the places where it has them.

        Raises:
            ValueError: the two are not of the same layers; it says what differs.
        """
        if other.run.batches and self.run.batches:
            differing = [*self._unknown(other), *other._unknown(self)]
            if differing:
                raise ValueError(f"The parts have different layers: {'; '.join(differing[:6])}.")
        refused = self.refused | other.refused | self._unreadable(other) | other._unreadable(self)
        self.run.take(other.run, self.run.position if start is None else start)
        for key, names in other.aliases.items():
            self.aliases[key] = tuple(dict.fromkeys((*self.aliases.get(key, ()), *names)))
        for path, reason in other.skipped.items():
            if self.skipped.get(path, NEVER) == NEVER:
                self.skipped[path] = reason
        self.refused = refused
        self.streams = tuple(dict.fromkeys(self.streams + other.streams))

    @property
    def shown(self) -> dict[Key, tuple[str, ...]]:
        """The rows that are shown, with their other names."""
        return {key: self.aliases.get(key, ()) for key in self.run.rows if key not in self.refused}

    def header(self) -> dict[str, Any]:
        """All but the tensors, as plain values."""
        return {
            "pass": self.run.header(),
            "aliases": [list(self.aliases.get(key, ())) for key in self.run.rows],
            "skipped": self.skipped,
            "refused": [list(key) for key in sorted(self.refused)],
            "streams": list(self.streams),
        }

    def tensors(self) -> dict[str, Tensor]:
        """The tensors."""
        return self.run.tensors()

    @classmethod
    def from_header(cls, header: dict[str, Any], tensors: dict[str, Tensor]) -> Gathered:
        """What `header` and `tensors` described."""
        check(header, _HEADER, "gathered")
        run = cls.nothing().run
        run.restore(header["pass"], tensors)
        aliases = {key: tuple(names) for key, names in zip(run.rows, header["aliases"], strict=False)}
        refused = {as_key(key) for key in header["refused"]}
        return cls(run, aliases, dict(header["skipped"]), refused, tuple(header["streams"]))

    def _names(self) -> Collection[str]:
        names = {name for name, _ in self.run.rows}
        return names | {alias for others in self.aliases.values() for alias in others} | self.skipped.keys()

    def _unknown(self, other: Gathered) -> list[str]:
        """Layers of the other that this network does not have."""
        known = self._names()
        return [
            f"{name!r} is in one part only"
            for name in dict.fromkeys(name for name, _ in other.run.rows if name not in known)
        ]

    def _unreadable(self, other: Gathered) -> set[Key]:
        """Rows of the other that this could not read in its batches."""
        mine = {name for name, _ in self.run.rows}
        bad = {path for path, reason in self.skipped.items() if reason != NEVER and path not in mine}
        return {key for key in other.run.rows if key[0] in bad}
