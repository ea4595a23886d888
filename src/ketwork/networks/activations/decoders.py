"""The parts of a language model's decoder: embedding, residual stream, attention, MLP, final norm, head.

A decoder is a list of blocks with attention in them. Its parts are recognized by what they are and by the names that
libraries give them, since nothing but its `forward` says where a block adds to the residual stream.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from torch import nn

ATTENTION = re.compile(r"attention|attn", re.IGNORECASE)
_MLP = re.compile(r"mlp|ffn|feed_?forward|moe|experts", re.IGNORECASE)
_MIDDLE = (
    "pre_feedforward_layernorm",
    "pre_mlp_layernorm",
    "post_attention_layernorm",
    "ln_2",
    "ffn_norm",
    "norm_2",
    "norm2",
    "final_layer_norm",
)
"""The norm before a block's MLP, which reads the residual stream between attention and MLP."""

_LAST = (
    "down_proj",
    "c_proj",
    "dense_4h_to_h",
    "fc_out",
    "fc2",
    "out_proj",
    "wo",
    "w2",
    "proj_out",
    "linear2",
)
"""The last linear layer of an MLP, which reads its hidden neurons."""

_HEADS = ("lm_head", "embed_out", "output_projection")


@dataclass(frozen=True)
class Block:
    """One block: its path, those of its attention and MLP, of the norm between them, and of the MLP's last layer.

    `attention` is what mixes positions, whatever that is.
    """

    path: str
    attention: str
    middle: str | None = None
    mlp: str | None = None
    last: str | None = None

    def rows(self) -> Iterator[str]:
        """The residual stream before, attention, the stream after it, MLP neurons, MLP, and the stream after."""
        yield f"{self.path}:input"
        yield self.attention
        if self.middle is not None:
            yield f"{self.middle}:input"
        if self.last is not None:
            yield f"{self.last}:input"
        if self.mlp is not None:
            yield self.mlp
        yield self.path

    @property
    def stream(self) -> list[str]:
        """The rows that are the residual stream."""
        middle = [] if self.middle is None else [f"{self.middle}:input"]
        return [f"{self.path}:input", *middle, self.path]


@dataclass(frozen=True)
class Decoder:
    """The parts of a decoder, by their paths."""

    blocks: tuple[Block, ...]
    embedding: str | None = None
    norm: str | None = None
    head: str | None = None

    @property
    def rows(self) -> list[str]:
        """The rows of all parts but the head's, whose features are the vocabulary."""
        ends = [[] if part is None else [part] for part in (self.embedding, self.norm)]
        return [*ends[0], *chain.from_iterable(block.rows() for block in self.blocks), *ends[1]]

    @property
    def stream(self) -> list[str]:
        """The rows that are the residual stream."""
        first = [] if self.embedding is None else [self.embedding]
        return [*first, *chain.from_iterable(block.stream for block in self.blocks)]


def decoder_of(
    modules: Mapping[str, nn.Module], blocks: frozenset[str], is_norm: Callable[[nn.Module], bool]
) -> Decoder | None:
    """The decoder among a network's modules, by path; None where no repeated block has attention in it."""
    lists = {_parent(path) for path in blocks if _attention(modules[path], is_norm) is not None}
    parts = tuple(
        block
        for path, module in modules.items()
        if path in blocks and _parent(path) in lists and (block := _block(path, module, is_norm)) is not None
    )
    if not parts:
        return None
    stack = _parent(_parent(parts[0].path))  # what holds the list of blocks
    beside = {name: module for name, module in modules.items() if _parent(name) == stack}
    norms = [name for name, module in beside.items() if is_norm(module) and "embed" not in name]
    embeddings = [name for name, module in beside.items() if isinstance(module, nn.Embedding)]
    heads = [name for name in modules if name.rpartition(".")[2] in _HEADS]
    return Decoder(
        parts,
        embeddings[0] if embeddings else None,
        norms[-1] if norms else None,
        heads[0] if heads else None,
    )


def _attention(module: nn.Module, is_norm: Callable[[nn.Module], bool]) -> str | None:
    return _first({name: child for name, child in module.named_children() if not is_norm(child)}, ATTENTION)


def _block(path: str, module: nn.Module, is_norm: Callable[[nn.Module], bool]) -> Block | None:
    """A block's parts; of one without attention among others that have it, what it has in that place (Mamba)."""
    children = dict(module.named_children())
    parts = {name: child for name, child in children.items() if not is_norm(child)}
    attention = _attention(module, is_norm)
    if attention is None:
        attention = next((name for name, child in parts.items() if not _is_mlp(name, child)), None)
    if attention is None:
        return None
    del parts[attention]
    norms = [name for name in _MIDDLE if name in children and is_norm(children[name])]
    if "post_feedforward_layernorm" in children and norms[:1] == ["post_attention_layernorm"]:
        norms = []  # both norms are of what attention and MLP put out, before it is added
    middle = norms[0] if norms else None
    mlp = _first(parts, _MLP)
    inside = parts if mlp is None else dict(parts[mlp].named_children())
    last = next((name for name in _LAST if name in inside), None)
    if mlp is None:  # the block has the MLP's layers itself
        mlp = last
    elif last is not None:
        last = f"{mlp}.{last}"

    def within(name: str | None) -> str | None:
        return None if name is None else f"{path}.{name}"

    return Block(path, f"{path}.{attention}", within(middle), within(mlp), within(last))


def _is_mlp(name: str, module: nn.Module) -> bool:
    return _first({name: module}, _MLP) is not None


def _parent(path: str) -> str:
    return path.rpartition(".")[0]


def _first(children: Mapping[str, nn.Module], pattern: re.Pattern[str]) -> str | None:
    named = (name for name in children if pattern.search(name))
    typed = (name for name, child in children.items() if pattern.search(type(child).__name__))
    return next(chain(named, typed), None)
