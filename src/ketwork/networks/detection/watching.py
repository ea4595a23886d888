"""`Watch`: the scores of live calls of a network."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from ketwork.networks.activations import (
    POOLED,
    Activation,
    LayerInfo,
    SelectorError,
    Site,
    intervene,
    select,
    unwrapped,
)
from ketwork.networks.detection.scoring import Scoring

Frame = Callable[[list[Tensor], list[Tensor]], pd.DataFrame]


class Watch:
    """What `Detector.watch` has seen: `calls` and `samples` so far, `missed` calls that did not reach every layer."""

    def __init__(self, frame: Frame, keep: int) -> None:
        self.calls = 0
        self.samples = 0
        self.missed = 0
        self._frame, self._keep = frame, keep
        self._parts: deque[tuple[Tensor, Tensor | None]] = deque()
        self._kept = 0

    @property
    def last(self) -> pd.DataFrame:
        """The frame of the last call, as `Detector.score` makes it; its index counts all samples watched."""
        return self._framed(list(self._parts)[-1:])

    @property
    def alarms(self) -> pd.DataFrame:
        """The rows of `table()` that are alarms."""
        table = self.table()
        return table[table["alarm"]]

    def table(self) -> pd.DataFrame:
        """The frame of all samples that are kept, the last ones."""
        return self._framed(list(self._parts)).iloc[-self._keep :]

    def add(self, terms: Tensor, nearest: Tensor | None) -> None:
        """Takes the terms of one call."""
        self._parts.append((terms, nearest))
        self.calls += 1
        self.samples += len(terms)
        self._kept += len(terms)
        while self._kept - len(self._parts[0][0]) >= self._keep:
            self._kept -= len(self._parts.popleft()[0])

    def _framed(self, parts: list[tuple[Tensor, Tensor | None]]) -> pd.DataFrame:
        frame = self._frame([terms for terms, _ in parts], [codes for _, codes in parts if codes is not None])
        frame.index = pd.RangeIndex(self.samples - len(frame), self.samples, name="sample")
        return frame

    def __repr__(self) -> str:
        return f"<Watch of {self.calls} calls, {self.samples} samples, {self.missed} calls missed>"


@contextlib.contextmanager
def watch_calls(
    scoring: Scoring,
    model: nn.Module,
    frame: Frame,
    on_scores: Callable[[pd.DataFrame], None] | None,
    keep: int,
    calls: str,
) -> Iterator[Watch]:
    """Hooks on the layers that score them, and on the network that ends a call."""
    if calls == "pooled" and any(reference.info.call == POOLED for reference in scoring.references):
        raise ValueError(
            "Argument `model` can be watched where each call of a layer has a row of its own, but the study pooled "
            "them. Make the detector from a study with `reading=kw.Reading(calls='separate')`, or use `score`."
        )
    network, watch = unwrapped(model), Watch(frame, keep)
    try:
        chosen = select(network, scoring.paths).chosen
    except SelectorError as error:
        raise ValueError(
            f"Argument `model` must be of the architecture that was studied, but is {type(network).__name__} and lacks "
            f"a layer of it. {error} Make a detector from a study of this network."
        ) from error

    def receive(site: Site) -> None:
        info = LayerInfo(*site.key, "", layout=site.layout, positions=site.positions)
        if not site.again:
            with torch.no_grad():
                scoring.receive(Activation(info, site.values.detach(), site.present))

    def begin(*_: Any) -> None:
        if live.mine:  # not in the experiment that finds the axes
            scoring.begin()

    def end(*_: Any) -> None:
        if not live.mine:
            return
        if scoring.missing():
            watch.missed += 1
            return
        watch.add(*scoring.row())
        if on_scores is not None:
            on_scores(watch.last)

    with contextlib.ExitStack() as stack:
        live = stack.enter_context(intervene(network, chosen, receive, axes=_known(scoring)))
        stack.callback(network.register_forward_pre_hook(begin).remove)
        stack.callback(network.register_forward_hook(end).remove)
        yield watch


def _known(scoring: Scoring) -> list[LayerInfo] | None:
    """The layers' axes, where the study says all of them: a vector a sample, put out by the very module of that name.

    Else the first call's experiment finds them, which also tells which mask belongs to which layer.
    """
    infos = [reference.info for reference in scoring.references]
    plain = all(info.layout.ndim and not info.positions and not info.aliases for info in infos)
    return infos if plain else None
