"""Attention patterns in a study's pass: entropy, weight on the first position, and rank of each head.

Weights are there to be read where attention is computed plainly: libraries compute them inside of fused kernels, which
put out none. Networks of transformers are switched to their own plain form (`"eager"`) for the pass, and back.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn

from ketwork.networks.activations import (
    POOLED,
    Activation,
    Batch,
    Capture,
    Heads,
    Key,
    heads_of,
    leaves,
    modules_of,
)
from ketwork.networks.measures import PATTERNS
from ketwork.networks.moments import LayerSum, SampleRatio
from ketwork.networks.study.extras import Extra

_IMPLEMENTATION = "_attn_implementation"
_ROUNDING = 0.02  # by which a row of weights in half precision may miss 1


@dataclass(frozen=True)
class _Pattern:
    """Numbers of one call of attention: (N, H, T) entropies and weights on the first, (N, H) ranks, (N, T) queries."""

    entropy: Tensor
    first: Tensor
    rank: Tensor
    queries: Tensor


@dataclass
class Patterns(Extra):
    """The attention modules of one network, by path, and what their heads do with the batch."""

    heads: dict[str, Heads]
    _rows: dict[str, tuple[str, int | None]] = field(default_factory=dict)
    _mask: Tensor | None = None
    _size: int = 0
    _seen: dict[Key, _Pattern] = field(default_factory=dict)
    _calls: Counter[str] = field(default_factory=Counter)
    _wanted: dict[Key, Tensor | None] = field(default_factory=dict)

    @classmethod
    def from_network(cls, network: nn.Module) -> Self:
        """The patterns of a network with attention.

        Raises:
            ValueError: it has no attention whose heads are known.
        """
        heads = heads_of(modules_of(network))
        if not heads:
            raise ValueError(
                f"Argument `attention` must be False for this network, {type(network).__name__}: none of its modules "
                "is attention of which the number of heads is known."
            )
        rows: dict[str, tuple[str, int | None]] = {}
        for path, each in heads.items():
            rows[path] = path, None
            rows |= {spot.name: (path, h) for h, spot in enumerate(each.spots)}
        return cls(heads, rows)

    @contextlib.contextmanager
    def watch(self, live: Capture) -> Iterator[None]:
        """Reads what attention modules put out, computed plainly."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(_plain(live.model))
            for path, heads in self.heads.items():
                stack.callback(heads.module.register_forward_hook(self._hook(path, live)).remove)
            yield

    def begin(self, batch: Batch) -> None:
        """Forgets the batch before."""
        self._mask, self._size = batch.mask, batch.size
        for part in (self._seen, self._calls, self._wanted):
            part.clear()

    def take(self, activation: Activation, present: Tensor | None) -> None:
        """Takes note of a row that is a head, or attention as a whole."""
        if activation.info.name in self._rows:
            self._wanted[activation.key] = present

    def sums(self) -> Iterator[tuple[Key, str, LayerSum]]:
        """Entropy, weight on the first position and rank of each such row.

        Raises:
            ValueError: no row is attention, or no attention has put out its weights.
        """
        if not self._wanted:
            raise ValueError(
                "Argument `attention` must be False, or `layers` name rows that are attention or heads, such as "
                '"heads": none of the rows is one.'
            )
        if not self._seen:
            raise ValueError(
                "Argument `attention` must be False for this network: its attention puts out no weights of samples × "
                'heads × positions × positions. Load it with `attn_implementation="eager"`, where it has that.'
            )
        for key, present in self._wanted.items():
            path, head = self._rows[key[0]]
            pattern = self._seen.get((path, max(key[1], 0)))
            if pattern is None or (key[1] == POOLED and self._calls[path] > 1):
                continue
            queries = pattern.queries
            if present is not None and present.shape == queries.shape:
                queries = queries & present
            which = slice(None) if head is None else slice(head, head + 1)
            samples = queries.nonzero()[:, 0]
            averages = (pattern.entropy[:, which].mean(dim=1), pattern.first[:, which].mean(dim=1))
            for name, each in zip(PATTERNS, averages, strict=False):
                yield key, name, SampleRatio.from_values(each[queries], samples)
            some = samples.unique()
            ranks = pattern.rank[:, which].mean(dim=1)
            yield key, PATTERNS[-1], SampleRatio.from_values(ranks[some], some)

    def _hook(self, path: str, live: Capture) -> Any:
        def read(module: nn.Module, inputs: Any, output: Any) -> None:
            if not live.reading:
                return
            key = path, self._calls[path]
            self._calls[path] += 1
            weights = _weights(output, self._size, len(self.heads[path].spots))
            if weights is not None:
                self._seen[key] = _pattern(weights, self._mask)

        return read


def _weights(output: Any, samples: int, heads: int) -> Tensor | None:
    """The weights (samples, heads, positions, positions) among what attention puts out."""
    for _, leaf in leaves(output):
        if (
            isinstance(leaf, Tensor)
            and leaf.is_floating_point()
            and leaf.ndim == 4
            and leaf.shape[:2] == (samples, heads)
            and leaf.shape[2] == leaf.shape[3] > 0
            and abs(float(leaf[0, 0, -1].float().sum()) - 1) < _ROUNDING
        ):
            return leaf.detach()
    return None


@torch.no_grad()
def _pattern(weights: Tensor, mask: Tensor | None) -> _Pattern:
    weights = weights.float()
    n, h, t, _ = weights.shape
    present = torch.ones(n, t, dtype=torch.bool, device=weights.device)
    if mask is not None and mask.shape == present.shape:
        present = mask.to(weights.device)
    start = present.int().argmax(dim=1)  # the first position that exists, of padding on the left
    entropy = torch.special.entr(weights).sum(dim=-1) / math.log(2)
    first = weights.gather(3, start[:, None, None, None].expand(n, h, t, 1))[..., 0]
    rows = weights * present[:, None, :, None]
    gram = rows @ rows.mT
    trace = gram.diagonal(dim1=2, dim2=3).sum(dim=-1).double()
    rank = trace.square() / gram.double().square().sum(dim=(2, 3)).clamp(min=1e-300)
    queries = present & (torch.arange(t, device=weights.device) > start[:, None])
    return _Pattern(entropy, first, rank, queries)


def _note(config: Any, known: list[tuple[Any, Any]]) -> None:
    """Takes note of how a configuration and those inside it have attention computed; the outer ones come first."""
    if not hasattr(config, _IMPLEMENTATION) or any(config is each for each, _ in known):
        return
    known.append((config, getattr(config, _IMPLEMENTATION)))
    for name in getattr(config, "sub_configs", ()):
        _note(getattr(config, name, None), known)


@contextlib.contextmanager
def _plain(network: nn.Module) -> Iterator[None]:
    """Attention of transformers in its plain form, which puts out its weights; as it was afterwards."""
    before: list[tuple[Any, Any]] = []
    for config in (getattr(module, "config", None) for module in network.modules()):
        _note(config, before)
    try:
        for config, _ in before:
            setattr(config, _IMPLEMENTATION, "eager")
        yield
    finally:
        for config, implementation in before:
            setattr(config, _IMPLEMENTATION, implementation)
