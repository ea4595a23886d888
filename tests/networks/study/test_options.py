"""Heads, lens, attention and positions of language models wherever their weights are, resumed and in parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import accelerate
import peft
import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import ketwork as kw

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing:FutureWarning"),
]

TOKENS = torch.randint(0, 96, (12, 7), generator=torch.Generator().manual_seed(5))
MASK = torch.ones(12, 7, dtype=torch.long).index_put((torch.arange(4), torch.full((4,), 6)), torch.tensor(0))
DATA = [{"input_ids": TOKENS[i : i + 4], "attention_mask": MASK[i : i + 4]} for i in (0, 4, 8)]
HOW: dict[str, Any] = {
    "layers": ["decoder", "heads"],
    "lens": True,
    "attention": True,
    "positions": slice(1, None),
}
MEASURES = ("entropy", "lens_kl", "lens_entropy", "attention_entropy", "attention_sink", "attention_rank")


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    net = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for weight in net.parameters():
            if weight.ndim == 2:
                weight *= 10
    return net


def numbers(study: kw.Study) -> dict[str, float]:
    return {
        f"{layer.name} {name}": layer.estimates[name].plain
        for layer in study
        for name in MEASURES
        if layer.estimates[name].plain == layer.estimates[name].plain
    }


PLAIN = numbers(kw.study(llama(), DATA, **HOW))


def offloaded() -> nn.Module:
    return accelerate.cpu_offload(llama(), torch.device("cpu"))


def adapted() -> nn.Module:
    config = peft.LoraConfig(target_modules=["o_proj", "down_proj"], r=2)  # begins as the network itself
    return peft.get_peft_model(llama(), config)


def compiled() -> nn.Module:
    return torch.compile(llama(), backend="eager")  # type: ignore[return-value]


def checkpointed() -> nn.Module:
    net = llama()
    net.gradient_checkpointing_enable()
    return net.train()


@pytest.mark.parametrize("made", [offloaded, adapted, compiled, checkpointed])
def test_the_numbers_are_those_of_the_plain_network(made: Any) -> None:
    net = made()
    with torch.no_grad():
        before = net(**DATA[0]).logits if made is not compiled else None
    study = kw.study(net, DATA, **HOW)
    assert numbers(study) == pytest.approx(PLAIN, rel=1e-5, abs=1e-6)
    if before is not None:
        with torch.no_grad():
            assert torch.equal(net(**DATA[0]).logits, before)


def test_autocast_and_half_precision() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        lowered = numbers(kw.study(llama(), DATA, **HOW))
    half = numbers(kw.study(llama().to(torch.bfloat16), DATA, **HOW))
    for study in (lowered, half):
        assert study.keys() == PLAIN.keys()
        for name, value in PLAIN.items():
            assert study[name] == pytest.approx(value, rel=0.1, abs=0.1), name


def test_a_resumed_pass_has_the_same_numbers(tmp_path: Path) -> None:
    net = llama()

    def stops(model: nn.Module, batch: Any) -> Any:
        if bool((batch["input_ids"][0] == TOKENS[8]).all()):
            raise RuntimeError("here")
        return model(**batch)

    saved = kw.Checkpoint(tmp_path, every=1)
    with pytest.raises(kw.StudyError):
        kw.study(net, DATA, forward=stops, checkpoint=saved, **HOW)
    done = kw.Checkpoint(tmp_path, every=1, resume=True)
    study = kw.study(net, DATA, forward=lambda model, batch: model(**batch), checkpoint=done, **HOW)
    assert numbers(study) == pytest.approx(PLAIN, rel=1e-12)
    with pytest.raises(kw.CheckpointError, match="positions"):
        kw.study(
            net,
            DATA,
            forward=lambda model, batch: model(**batch),
            checkpoint=done,
            **(HOW | {"positions": "last"}),
        )


def test_heads_are_compared() -> None:
    cmp = kw.compare(llama(), DATA, layers="heads")
    names = [f"model.layers.{i}.self_attn.head.{h}" for i in range(2) for h in range(4)]
    assert list(cmp.cka.index) == names
    assert cmp.cka.loc[names[0], names[0]] == pytest.approx(1)
