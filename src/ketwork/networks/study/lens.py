"""The logit lens in a study's pass: the final norm and head read the residual stream of every row that is one.

Logits are made of a few positions at a time (`_NUMBERS` numbers), so that memory does not grow with the vocabulary
times the batch. Of a batch the residual streams are kept, as `output_hidden_states=True` does.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn

from ketwork.networks.activations import (
    Activation,
    Batch,
    Capture,
    Key,
    activations,
    decoder,
    dtype_of,
    is_sharded,
    modules_of,
)
from ketwork.networks.measures import LENS
from ketwork.networks.moments import LayerSum, SampleRatio
from ketwork.networks.study.extras import Extra

_NUMBERS = 2**23  # logits at a time
_OFF = 2e-3  # of the largest logit, by which head and norm alone may differ from the network's own
_OFF_HALF = 5e-2  # in 16 bits


@dataclass
class Lens(Extra):
    """The lens of one network: its final norm, its head, and the rows that are its residual stream."""

    norm: nn.Module
    head: nn.Module
    final: str
    stream: frozenset[str]
    config: Any = None
    _batch: int = 0
    _runs: int = 0
    _final: Tensor | None = None
    _checked: bool = False
    _live: Capture | None = None
    _first: bool = True
    _same: set[Key] = field(default_factory=set)
    _kept: dict[Key, tuple[Tensor, Tensor | None]] = field(default_factory=dict)

    @classmethod
    def from_network(cls, network: nn.Module) -> Self:
        """The lens of a language model.

        Raises:
            ValueError: it has no final norm and head that could be found, or is sharded over processes.
        """
        if is_sharded(network):
            raise ValueError(
                "Argument `lens` must be False for a network that is sharded over processes: no process has its head. "
                "Load it unsharded."
            )
        parts, modules = decoder(network), modules_of(network)
        embeddings = getattr(network, "get_output_embeddings", None)
        head = None if embeddings is None else embeddings()
        if head is None and parts is not None and parts.head is not None:
            head = modules[parts.head]
        if parts is None or parts.norm is None or head is None:
            missing = (
                "blocks with attention" if parts is None else "a head" if head is None else "a final norm"
            )
            raise ValueError(
                f"Argument `lens` must be False for this network, {type(network).__name__}: it has no {missing}, and "
                "the logit lens needs a decoder's final norm and head. Load it with its head (AutoModelForCausalLM)."
            )
        config = getattr(network, "config", None)
        text = getattr(config, "get_text_config", None)
        return cls(
            modules[parts.norm],
            head,
            parts.norm,
            frozenset(parts.stream),
            config if text is None else text(),
        )

    @contextlib.contextmanager
    def watch(self, live: Capture) -> Iterator[None]:
        """Keeps what the final norm puts out, and sees that the head makes the network's logits of it."""

        def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
            if live.reading:
                self._runs += 1
                self._final = output.detach().clone()

        def check(module: nn.Module, inputs: Any, output: Any) -> None:
            if live.reading and not self._checked:
                self._check(output)

        self._live = live
        handles = [self.norm.register_forward_hook(keep), live.model.register_forward_hook(check)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def begin(self, batch: Batch) -> None:
        """Forgets the batch before."""
        self._batch, self._runs, self._final = batch.size, 0, None
        self._kept.clear()

    def take(self, activation: Activation, present: Tensor | None) -> None:
        """Keeps a row that may be the residual stream, or the final norm's.

        That a block returns the very tensor of a row before it (of its MLP, which adds to the stream itself) shows when
        it does; so in the first batch each row of the stream's width is kept.
        """
        width = getattr(getattr(self.norm, "weight", None), "shape", activation.values.shape)[-1]
        if self._reads(activation.key) or (self._first and activation.values.shape[-1] == width):
            self._kept[activation.key] = activation.values.clone(), present

    def _reads(self, key: Key) -> bool:
        return key[0] in self.stream or key[0] == self.final or key in self._same

    @torch.no_grad()
    def sums(self) -> Iterator[tuple[Key, str, LayerSum]]:
        """KL, entropy and agreement of each row that was kept.

        Raises:
            ValueError: no row was, the network ran several times, or its positions are not those of the rows.
        """
        assert self._live is not None
        self._same |= {row for alias, row in self._live.aliases.items() if alias[0] in self.stream}
        self._kept = {key: part for key, part in self._kept.items() if self._reads(key)}
        self._first = False
        if not self._kept:
            raise ValueError(
                'Argument `lens` must be False, or `layers` name rows of the residual stream, such as "blocks" or '
                '"decoder": none of the rows is one.'
            )
        final = self._final
        if (
            final is None
            or self._runs > 1
            or any(final.shape[:2] != values.shape[:2] for values, _ in self._kept.values())
        ):
            raise ValueError(
                "Argument `lens` must be False here: the lens reads one forward pass of samples × positions a batch, "
                f"but the final norm ran {self._runs} times on {self._batch} samples"
                + ("." if final is None else f", and put out {tuple(final.shape)}.")
            )
        everywhere = torch.ones(final.shape[:2], dtype=torch.bool, device=final.device)
        masks = {key: everywhere if mask is None else mask for key, (_, mask) in self._kept.items()}
        union = torch.stack([*masks.values()]).any(dim=0)
        numbers = {key: final.new_zeros(3, *union.shape, dtype=torch.float64) for key in self._kept}
        places = union.nonzero()
        step = max(1, _NUMBERS // self._logits(final[:1, :1].flatten(0, 1)).shape[-1])
        for some in places.split(step):
            at = some[:, 0], some[:, 1]
            logits = self._logits(final[at])
            known, best = logits.float().log_softmax(dim=-1), logits.argmax(dim=-1)
            for key, (values, _) in self._kept.items():
                rows = values[at]
                if key[0] != self.final:
                    rows = self.norm.forward(rows.to(dtype_of(self.norm)))
                numbers[key][(slice(None), *at)] = _compared(known, best, self._logits(rows))
        for key, mask in masks.items():
            values, samples = numbers[key][:, mask], mask.nonzero()[:, 0]
            finite = values.isfinite().all(dim=0)
            for name, each in zip(LENS, values, strict=True):
                yield key, name, SampleRatio.from_values(each[finite], samples[finite])
        self._kept.clear()

    def _logits(self, hidden: Tensor) -> Tensor:
        """What the network makes of its final hidden states (n, d): logits (n, V)."""
        logits = self.head.forward(hidden.to(dtype_of(self.head)))
        if isinstance(scale := getattr(self.config, "logit_scale", None), float):
            logits = logits * scale
        if isinstance(scale := getattr(self.config, "logits_scaling", None), float):
            logits = logits / scale
        if isinstance(cap := getattr(self.config, "final_logit_softcapping", None), float):
            logits = cap * torch.tanh(logits / cap)
        return logits

    def _check(self, output: Any) -> None:
        """Sees that the logits of the last position of the first sample are those of norm and head.

        Raises:
            ValueError: they are others.
        """
        final = self._final
        if final is None or final.ndim != 3 or not final.numel():
            return
        expected = self._logits(final[0, -1:])[0]
        own = [leaf.tensor for leaf in activations(output) if leaf.tensor.ndim == 3]
        own = [tensor for tensor in own if tensor.shape[-1] == len(expected) and len(tensor) == len(final)]
        self._checked = True
        if not own:
            return  # the part of the network that was called puts out none
        off = float((own[0][0, -1].float() - expected.float()).abs().max())
        most = (
            _OFF
            if torch.finfo(own[0].dtype).bits >= 32 and dtype_of(self.head) == torch.float32
            else _OFF_HALF
        )
        if not off <= most * float(expected.float().abs().max().clamp(min=1.0)):
            raise ValueError(
                f"Argument `lens` must be False for this network: its logits are off by {off:.2g} from what its head "
                f"makes of {self.final}, so that something else is done to them."
            )


def _compared(known: Tensor, best: Tensor, logits: Tensor) -> Tensor:
    """KL(p ‖ q), the entropy of q and whether both have the same likeliest token, (3, n) in bits.

    `known` (n, V) are the logarithms of p, `logits` those that q is the softmax of.
    """
    read = logits.float().log_softmax(dim=-1)
    p, q = known.exp(), read.exp()
    kl = torch.where(p > 0, p * (known - read), 0.0).sum(dim=-1, dtype=torch.float64).clamp(min=0)
    entropy = -torch.where(q > 0, q * read, 0.0).sum(dim=-1, dtype=torch.float64)
    agrees = (logits.argmax(dim=-1) == best).double()
    return torch.stack([kl / math.log(2), entropy / math.log(2), agrees])
