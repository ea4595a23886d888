"""`generate`: a study of a language model while it answers prompts, one token a step, with its cache.

The first call of the network reads the prompts, each later one the token before. What a token's position put out is the
same as in one plain pass over prompt and answer, since later positions do not act on earlier ones. Calls are pooled:
all positions of a sample belong to it. The last token of an answer is never read, so that it has no position, nor does
what follows the end of an answer in a batch whose other answers go on.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from ketwork.networks.activations.batching import LABEL_KEYS, Batch
from ketwork.networks.activations.masks import KEY, PositionMask

_OF_TEXTS = ("prompt", "answer")

_TOKENS = "input_ids"
_OWN = (
    "inputs", _TOKENS, KEY, "max_length", "max_time", "num_beams", "num_return_sequences", "use_cache", "stop_strings",
    "stopping_criteria", "assistant_model", "assistant_early_exit", "prompt_lookup_num_tokens", "prefill_chunk_size",
    "custom_generate", "past_key_values", "return_dict_in_generate", "streamer", "synced_gpus", "logits_to_keep",
    "num_logits_to_keep",
    "generation_config",
)  # fmt: skip
"""Options of `generate` that would put rows elsewhere, or that are set here."""


_KEPT_LOGITS = {"logits_to_keep", "num_logits_to_keep"}
"""Arguments of networks that say of how many positions there are logits; 0 is of all, as in a plain pass."""


@dataclass(frozen=True)
class Generate:
    """How a network answers, for `forward=` of `study`; see `generate`. `positions` are those of texts that count."""

    max_new_tokens: int
    options: Mapping[str, Any]
    positions: str = "all"

    @property
    def settings(self) -> dict[str, Any]:
        """What a record says of it."""
        options = {
            name: value for name, value in self.options.items() if isinstance(value, bool | int | float | str)
        }
        return {"max_new_tokens": self.max_new_tokens} | options

    def __call__(self, model: nn.Module, batch: Any) -> Any:
        """No plain call of a network.

        Raises:
            TypeError: always; `study` alone knows what to do with it.
        """
        raise TypeError(
            "Argument `forward` is `kw.generate(…)`, which `study` alone takes. Elsewhere, give the texts that the "
            "network generated as data."
        )

    def at(self, positions: Any) -> Generate:
        """The same, counting the positions of `"prompt"` or `"answer"` alone where `positions` is one of these."""
        return replace(self, positions=positions) if positions in _OF_TEXTS else self

    def check(self, model: nn.Module, extras: bool = False) -> None:
        """Refuses a network that does not answer prompts, and what cannot be read while it does.

        Raises:
            TypeError: it has no `generate`, or is an encoder-decoder.
            ValueError: there are to be `extras`.
        """
        if extras:
            raise ValueError(
                "Arguments `lens` and `attention` read plain passes, and `forward` is `kw.generate(…)`. Give the texts "
                "that the network generated as data."
            )
        name = type(model).__name__
        if not callable(getattr(model, "generate", None)) or not hasattr(model, "generation_config"):
            raise TypeError(
                "Argument `forward` is `kw.generate(…)`, which needs a network with the `generate` of transformers, "
                f"but {name} has none."
            )
        if getattr(model.config, "is_encoder_decoder", False):
            raise TypeError(
                f"Argument `forward` is `kw.generate(…)`, which needs a decoder alone, but {name} is an "
                "encoder-decoder. Give it the answers as `decoder_input_ids` in a plain pass."
            )

    def of_batch(self, batch: Batch, label_key: str | None = None) -> Generation:
        """The generation of a batch of prompts.

        Raises:
            TypeError: it is no batch of tokens.
        """
        content = batch.content if isinstance(batch.content, Mapping) else {_TOKENS: batch.content}
        given = {name: value for name, value in content.items() if name not in {*LABEL_KEYS, label_key}}
        tokens = given.get(_TOKENS)
        if not isinstance(tokens, Tensor) or tokens.ndim != 2 or tokens.is_floating_point():
            raise TypeError(
                "Argument `data` must hold batches of prompts for `forward=kw.generate(…)`: mappings with `input_ids` "
                "(samples, positions), as tokenizers give them, or such tensors."
            )
        attended = given.get(KEY)
        attended = torch.ones_like(tokens) if attended is None else attended
        counted = batch.mask
        counted = attended != 0 if counted is None or counted.shape != tokens.shape else counted
        if not bool((attended[:, -1] != 0).all()):
            # Answers follow the last position: padding goes to the left.
            order = (attended != 0).long().argsort(dim=1, stable=True)
            given = {
                name: value.gather(1, order)
                if isinstance(value, Tensor) and value.shape == tokens.shape
                else value
                for name, value in given.items()
            }
            attended, counted = attended.gather(1, order), counted.gather(1, order)
        return Generation(self, given | {KEY: attended}, counted)


@dataclass
class Generation:
    """One batch's prompts on their way, `counted` of whose positions count."""

    how: Generate
    inputs: dict[str, Any]
    counted: Tensor
    _begun: bool = field(default=False, init=False)
    _alive: Tensor = field(init=False)
    _ends: Tensor = field(init=False)

    def run(self, model: nn.Module) -> Any:
        """Lets the network answer; the tokens of prompts and answers."""
        config: Any = model.generation_config
        ends = self.how.options.get("eos_token_id", config.eos_token_id)
        ends = [] if ends is None else torch.as_tensor(ends).reshape(-1).tolist()
        self._begun = False
        self._alive = torch.ones(len(self.counted), dtype=torch.bool, device=self.counted.device)
        self._ends = torch.tensor(ends, dtype=torch.long, device=self.counted.device)
        padding = config.pad_token_id if config.pad_token_id is not None else (*ends, 0)[0]
        options = {"do_sample": False, "pad_token_id": padding} | dict(self.how.options)
        options |= dict.fromkeys(_KEPT_LOGITS & inspect.signature(model.forward).parameters.keys(), 0)
        network: Any = model
        return network.generate(
            **self.inputs,
            max_new_tokens=self.how.max_new_tokens,
            num_beams=1,
            num_return_sequences=1,
            use_cache=True,
            **options,
        )

    def masks(self, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[PositionMask, ...]:
        """Which positions of the network's next call count; it is called with these."""
        tokens = (named[_TOKENS] if _TOKENS in named else inputs[0]).to(self.counted.device)
        if not self._begun:
            self._begun = True
            present = self.counted if self.how.positions != "answer" else torch.zeros_like(self.counted)
        else:
            alive = self._alive[:, None] & ~torch.isin(tokens, self._ends).cummax(dim=1).values
            self._alive = alive[:, -1]
            present = alive if self.how.positions != "prompt" else torch.zeros_like(alive)
        return (PositionMask(KEY, present),)


def generate(max_new_tokens: int, **options: Any) -> Generate:
    """Studies a language model while it answers: `kw.study(model, prompts, forward=kw.generate(max_new_tokens=64))`.

    The network (any decoder of transformers) reads a batch of prompts, and then its own answers one token a step, with
    its cache of keys and values. Each layer has one row, over all steps; a sample's vectors are those of its prompt and
    of its answer. They are those of a plain pass over the same tokens, to floating-point precision. An answer's last
    token is not read, so that it does not count; nothing counts after an end token.

    Args:
        max_new_tokens: most tokens of an answer.
        options: of the network's `generate`, such as `do_sample=True`, `temperature=0.7`, `top_p`, `eos_token_id`.
            Without `do_sample` the likeliest token is taken, whatever the network's own settings are. What is drawn
            comes from the study's `seed`.

    `positions="answer"` of the study takes the answers alone, `"prompt"` the prompts. Prompts are mappings with
    `input_ids` and `attention_mask`, or tensors of tokens. Padding on the right is moved to the left, as generation
    needs it. Memory: the activations of one batch's steps are kept until it ends, for all chosen layers, about as much
    as the cache.

    Raises:
        ValueError: an argument is not what it must be, or an option would mix the rows of samples (beams).

    >>> generate(64, do_sample=True).settings
    {'max_new_tokens': 64, 'do_sample': True}
    """
    if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise ValueError(f"Argument `max_new_tokens` must be at least 1, but is {max_new_tokens!r}.")
    own = [name for name in options if name in _OWN]
    if own:
        raise ValueError(
            f"Argument `{own[0]}` cannot be given to `kw.generate`: a study follows one answer a prompt, token by "
            "token, from batches of prompts."
        )
    return Generate(max_new_tokens, dict(options))
