"""Which axis of each output counts the samples: the network runs again on a few in another order, one of them twice.

The axis whose length grows with the number of samples holds them, if its rows then are those of their samples. Where
rows do not follow, the same batch runs once more, since a network that draws at random or keeps a state gives other
outputs each time. What a network does with a batch it does with a few of its samples, so a handful will do. A network
that takes batches of one size only gets the same samples in another order alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ketwork.networks.activations.buffers import kept_buffers
from ketwork.networks.activations.findings import Findings
from ketwork.networks.activations.info import Key
from ketwork.networks.activations.layout import By, Layout, Order
from ketwork.networks.activations.neutrality import callers_precision
from ketwork.networks.activations.observation import GivenAxis, Observation, Sight
from ketwork.networks.activations.row_fingerprints import Fingerprint
from ketwork.networks.activations.samples import Path, shortened, take

FEW = 5
"""How many samples the experiment takes, where the network runs on so few."""

EMPTY = "its output was empty in every batch"
"""Why a module gave no row that no position of a sample has reached."""


@dataclass(frozen=True)
class Trial:
    """A batch of n samples, and how the network is called with it, or with one like it.

    `axes` are the entries of the batch that belong to samples, each with the axis that counts them; `groups` those that
    each mask belongs to, by its name, and under None those of no mask.
    """

    content: Any
    n: int
    run: Callable[[nn.Module, Any], Any]
    axes: Mapping[Path, int]
    groups: Mapping[str | None, set[Path]] = field(default_factory=dict)

    def take(self, content: Any, places: Sequence[int], only: Collection[Path] | None = None) -> Any:
        """A batch of some samples of a batch like this one; `only` these entries change."""
        axes = self.axes if only is None else {path: self.axes[path] for path in only if path in self.axes}
        return take(content, places, axes)


@dataclass(frozen=True)
class _Settled:
    axis: int
    order: Order = "one"
    outer: int = 1
    by: By = "experiment"


@dataclass(frozen=True)
class _Open:
    """Rows that did not follow: `axis` is the one that grew, and `rows` how many of them a sample has."""

    axis: int | None
    rows: int


_Verdict = _Settled | _Open | str


class Experiment:
    """Runs a network on a batch's samples in other orders; `watch` lets its hooks report to an observation."""

    def __init__(
        self,
        network: nn.Module,
        watch: Callable[[Observation], contextlib.AbstractContextManager[None]],
        given_axis: GivenAxis,
    ) -> None:
        self.network, self.watch, self.given_axis = network, watch, given_axis
        self.passes = 0

    def __call__(self, trial: Trial, few: int = FEW) -> Findings:
        """What the batch shows.

        Raises:
            Exception: whatever the network raises on the batch as it is.
        """
        findings = Findings()
        if not trial.axes:
            first = self._pass(trial, trial.content, trial.n)
            rules = {
                key: {path: self._by_rules(first, sight, trial.n) for path, sight in seen.items()}
                for key, seen in first.outputs.items()
            }
            note = "Nothing of a batch is known to belong to its samples, so axes are taken by rules: samples first."
            return Findings(rules, passes=self.passes, notes=[note])
        content, n = trial.take(trial.content, range(min(few, trial.n))), min(few, trial.n)
        tried = None if n == trial.n else self._tried(trial, content, n)
        if tried is None:
            content, n = trial.content, trial.n
        first = self._pass(trial, content, n) if tried is None else tried
        order = _shuffled(n)
        places = [*order, order[0]]
        second = self._tried(trial, trial.take(content, places), n + 1)
        verdicts = {
            (key, path): self._verdict(sight, second, key, path, places)
            for key, seen in first.outputs.items()
            if key in first.chosen
            for path, sight in seen.items()
        }
        self._settle_open(trial, content, n, first, second, verdicts, findings)
        for key, path in sorted(
            verdicts, key=lambda place: first.flow.is_state(first.outputs[place[0]][place[1]].node)
        ):
            layout = self._layout(first, first.outputs[key][path], verdicts[key, path])
            if layout is not None:
                findings.layouts.setdefault(key, {})[path] = layout
        if len(trial.groups) > 1:
            self._find_masks(trial, content, n, first, findings)
        findings.passes = self.passes
        return findings

    def uses(self, trial: Trial, entry: Path) -> bool:
        """Whether what the network puts out depends on an entry of the batch."""
        n = min(FEW, trial.n)
        content = trial.take(trial.content, range(n))
        first = self._tried(trial, content, n) if n > 1 else None
        return first is not None and bool(self._dependents(trial, content, n, first, {entry}))

    def _pass(self, trial: Trial, content: Any, n: int, other_draws: bool = False) -> Observation:
        """One forward pass, which changes neither the network's buffers nor the global random state.

        Every pass draws the same random numbers, but for one with `other_draws`.
        """
        self.passes += 1
        observation = Observation(n, self.given_axis, others=len(trial.groups) > 1)
        devices = sorted({p.device.index or 0 for p in self.network.parameters() if p.device.type == "cuda"})
        with (
            torch.random.fork_rng(devices),
            torch.inference_mode(False),
            torch.no_grad(),
            kept_buffers(self.network),
            callers_precision(),
            self.watch(observation),
        ):
            if other_draws:
                torch.manual_seed(torch.initial_seed() ^ 1)
            trial.run(self.network, content)
        return observation

    def _tried(self, trial: Trial, content: Any, n: int, other_draws: bool = False) -> Observation | None:
        """A pass that may fail, as one over another number of samples does in a network of fixed batches."""
        try:
            return self._pass(trial, content, n, other_draws)
        except Exception:  # noqa: BLE001  a network may raise anything on a batch that nobody gave it
            return None

    def _verdict(
        self, sight: Sight, second: Observation | None, key: Key, path: str, places: Sequence[int]
    ) -> _Verdict:
        """The axis of the samples, as far as two passes show it."""
        n, shape = len(places) - 1, sight.print.shape
        if sight.padded:
            return _Settled(0, by="format")
        if not shape:
            return "its output is a single number"
        if 0 in shape:
            return EMPTY
        output = f"its output {shape} for {n} samples"
        if second is None:
            return _Open(None, 0)
        other = second.outputs.get(key, {}).get(path)
        if other is None or len(other.print.shape) != len(shape):
            return "its output changes its form with the samples of the batch"
        new = other.print
        grown = [axis for axis, size in enumerate(shape) if new.shape[axis] != size]
        if not grown:
            if new.same(sight.print):
                return f"{output} is shared by all samples of the batch"
            return f"{output} has no axis that grows with the number of samples"
        if len(grown) > 1:
            axes = " and ".join(map(str, grown))
            return f"axes {axes} of {output} grow with their number, as of similarities between them"
        axis = grown[0]
        rows, rest = divmod(shape[axis], n)
        if rest or new.shape[axis] != rows * (n + 1):
            return f"{output} has no fixed number of rows for each, as where tokens are routed to experts"
        return _matched(new, sight.print, axis, rows, places)

    def _settle_open(
        self,
        trial: Trial,
        content: Any,
        n: int,
        first: Observation,
        second: Observation | None,
        verdicts: dict[tuple[Key, str], _Verdict],
        findings: Findings,
    ) -> None:
        """Settles what two passes left open, as far as others do."""
        if not _open(verdicts):
            return
        if second is None:
            self._settle_by_order(trial, content, n, first, verdicts)
        if not _open(verdicts):
            return
        again = self._tried(trial, content, n, other_draws=True)
        unsteady = []
        for key, path in _open(verdicts):
            sight, verdict = first.outputs[key][path], verdicts[key, path]
            assert isinstance(verdict, _Open)
            other = None if again is None else again.outputs.get(key, {}).get(path)
            output = f"its output {sight.print.shape} for {n} samples"
            if other is not None and other.print.same(sight.print):
                verdicts[key, path] = (
                    f"the rows of {output} do not follow them: each depends on the others, or they are in another "
                    "order, as where tokens are routed to experts"
                )
                continue
            unsteady.append(key[0])
            verdicts[key, path] = (
                _Settled(verdict.axis, by="size")
                if verdict.axis is not None and verdict.rows == 1
                else f"{output} is another one each time the network runs on the same batch"
            )
        if unsteady:
            findings.notes.append(
                f"The network puts out something else each time it runs on the same batch ({', '.join(unsteady[:3])}"
                f"{' …' if len(unsteady) > 3 else ''}): axes of samples are known there by their length alone."
            )

    def _settle_by_order(
        self,
        trial: Trial,
        content: Any,
        n: int,
        first: Observation,
        verdicts: dict[tuple[Key, str], _Verdict],
    ) -> None:
        """Settles the axes of a network that does not run on another number of samples."""
        order = _shuffled(n)
        other = self._tried(trial, trial.take(content, order), n) if n > 1 else None
        for key, path in _open(verdicts):
            print_ = first.outputs[key][path].print
            new = None if other is None else other.outputs.get(key, {}).get(path)
            if new is not None and new.print.shape == print_.shape:
                verdicts[key, path] = _reordered(new.print, print_, n, order)
            elif n == 1 and print_.shape[0] == 1:
                verdicts[key, path] = _Settled(0, by="rules")  # a network of single samples

    def _layout(self, first: Observation, sight: Sight, verdict: _Verdict) -> Layout | str | None:
        """The layout, with the axis of the features; None for an output without rows."""
        if verdict is EMPTY:
            return None
        if not isinstance(verdict, _Settled):
            assert isinstance(verdict, str)
            return verdict
        shape = sight.print.shape
        output = f"its output {shape} for {first.n} samples"
        if sight.padded:
            return Layout(0, len(shape) - 1, len(shape), samples_by="format", features_by="format")
        if len(shape) == 1 or (sight.given is None and first.flow.is_single(sight.node)):
            by = f"one number a {'sample' if len(shape) == 1 else 'position'}"
            return Layout(verdict.axis, None, len(shape), verdict.order, verdict.outer, verdict.by, by)
        features, by = sight.given, "given"
        if features is None:
            axis = first.flow.settled(sight.node, verdict.axis)
            if axis is None:
                return (
                    f"nothing says which axis of {output} holds the features: no module that puts it out or reads it "
                    "does. Say which with `reading=kw.Reading(feature_axis=…)`"
                )
            features, by = axis.number, axis.by
        if features == verdict.axis:
            return f"axis {features} of {output} holds them, not the features"
        return Layout(verdict.axis, features, len(shape), verdict.order, verdict.outer, verdict.by, by)

    def _by_rules(self, first: Observation, sight: Sight, n: int) -> Layout | str:
        """The layout where no experiment can be made: samples on the first axis."""
        shape = sight.print.shape
        if sight.padded or not shape or shape[0] == n:
            known: _Verdict = _Settled(0, by="rules") if shape else "its output is a single number"
            return self._layout(first, sight, known) or EMPTY
        return f"its output {shape} does not have the batch's {n} samples on its first axis"

    def _find_masks(self, trial: Trial, content: Any, n: int, first: Observation, findings: Findings) -> None:
        """Which mask belongs to each layer: that of the tower whose positions it has.

        Where that shows none or several: of the towers it depends on, that which the fewest layers depend on. A layer
        depends on the entries of the batch that it does not put out the same without.
        """
        if n < 2:
            return
        dependents: dict[str | None, set[Key]] = {}
        for name, group in trial.groups.items():
            keys = self._dependents(trial, content, n, first, group)
            if keys is None:
                return
            dependents[name] = keys
        lengths = {
            name: self._lengths(trial, content, n, first, group, findings)
            for name, group in trial.groups.items()
        }
        for key in first.outputs:
            mine = [name for name, keys in lengths.items() if key in keys]
            if len(mine) != 1:
                mine = [name for name, keys in dependents.items() if key in keys]
            findings.masks[key] = min(mine, key=lambda name: len(dependents[name])) if mine else None

    def _lengths(
        self, trial: Trial, content: Any, n: int, first: Observation, entries: set[Path], findings: Findings
    ) -> set[Key]:
        """The layers whose outputs change their shape where some entries of the batch are a position shorter."""
        shorter = shortened(content, {path: trial.axes[path] for path in entries})
        other = None if shorter is None else self._tried(trial, shorter, n)
        if other is None:
            return set()
        changed = set()
        for key, layouts in findings.layouts.items():
            path = next((path for path, each in layouts.items() if isinstance(each, Layout)), None)
            new = None if path is None else other.outputs.get(key, {}).get(path)
            if path is not None and new is not None:
                changed |= {key} if new.print.shape != first.outputs[key][path].print.shape else set()
        return changed

    def _dependents(
        self, trial: Trial, content: Any, n: int, first: Observation, entries: set[Path]
    ) -> set[Key] | None:
        """The outputs that change where some entries of the batch are shuffled among the samples."""
        other = self._tried(trial, trial.take(content, _shuffled(n), entries), n)
        if other is None:
            return None
        return {
            key
            for key, seen in first.outputs.items()
            for path, sight in seen.items()
            if key not in other.outputs
            or path not in other.outputs[key]
            or not other.outputs[key][path].print.same(sight.print, exactly=True)
        }


def _shuffled(n: int) -> list[int]:
    """The places of n samples in another order, each at another place."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(n)).tolist()
    return [order[(order.index(place) + 1) % n] for place in range(n)]


def _open(verdicts: Mapping[tuple[Key, str], _Verdict]) -> list[tuple[Key, str]]:
    return [place for place, verdict in verdicts.items() if isinstance(verdict, _Open)]


def _matched(
    new: Fingerprint, old: Fingerprint, axis: int, rows: int, places: Sequence[int], n: int | None = None
) -> _Verdict:
    """How the rows on an axis lie, by which of the orders they follow."""
    n = len(places) - 1 if n is None else n
    matches = {
        outer: new.follows(old, axis, _rows(places, n, outer, rows // outer))
        for outer in range(1, rows + 1)
        if rows % outer == 0
    }
    sure = [outer for outer, match in matches.items() if match == "yes"]
    if rows == 1:
        return _Open(axis, 1) if matches[1] == "no" else _Settled(axis, by="experiment" if sure else "size")
    if len(sure) == 1:
        outer = sure[0]
        order: Order = (
            "sample by sample" if outer == 1 else "position by position" if outer == rows else "nested"
        )
        return _Settled(axis, order, outer if order == "nested" else 1)
    if sure or "alike" in matches.values():
        output = f"its output {old.shape} for {n} samples"
        return f"axis {axis} of {output} has {rows} alike rows a sample, so that which is whose is not known"
    return _Open(axis, rows)


def _reordered(new: Fingerprint, old: Fingerprint, n: int, order: Sequence[int]) -> _Verdict:
    """The verdict of a pass over the same samples in another order."""
    fitting = [_matched(new, old, axis, old.shape[axis] // n, order, n) for axis in old.rows]
    settled = [each for each in fitting if isinstance(each, _Settled) and each.by == "experiment"]
    if len(settled) == 1:
        return settled[0]
    if new.same(old):
        return f"its output {old.shape} for {n} samples is shared by all samples of the batch, or the same for all"
    return _Open(None, 0)


def _rows(places: Sequence[int], n: int, outer: int, inner: int) -> list[int]:
    """The places of all rows of some samples, where each has outer × inner of them."""
    return [(i * n + place) * inner + j for i in range(outer) for place in places for j in range(inner)]
