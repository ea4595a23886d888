"""A small language model, and what its study must say wherever its weights are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

import ketwork as kw

TOKENS = torch.randint(0, 96, (12, 7), generator=torch.Generator().manual_seed(5))
MASK = torch.ones(12, 7, dtype=torch.long).index_put((torch.arange(4), torch.full((4,), 6)), torch.tensor(0))
DATA = [
    {"input_ids": TOKENS[:8], "attention_mask": MASK[:8]},
    {"input_ids": TOKENS[8:], "attention_mask": MASK[8:]},
]


def llama(**more: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=96, hidden_size=24, intermediate_size=40, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, **more,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(**DATA[0]).logits.detach().clone()


def numbers(record: kw.Study) -> dict[tuple[str, int], list[str]]:
    """All of a study's values by row; as words, since NaN equals nothing."""
    return {
        (layer.name, layer.call): [
            layer.kind,
            *(f"{e.value!r} {e.stderr!r}" for e in layer.estimates.values()),
        ]
        for layer in record
    }


def values(record: kw.Study) -> dict[str, float]:
    return {f"{layer.name} {name}": e.value for layer in record for name, e in layer.estimates.items()}


def unchanged(model: nn.Module, run: Callable[[], Any]) -> Any:
    """What `run` gives; the network's logits are the same afterwards, to the bit."""
    before = logits(model)
    result = run()
    torch.testing.assert_close(logits(model), before, rtol=0, atol=0)
    return result
