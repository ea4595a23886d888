"""Each attention head is a row: its columns of what the output projection reads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

import ketwork as kw
from ketwork.networks.activations import Activation, capture
from ketwork.networks.activations.selectors import select

from .language import DATA, TOKENS, llama, unchanged


def rows(net: nn.Module, layers: Any, tokens: Tensor = TOKENS) -> dict[str, Tensor]:
    """What each row is, by name."""
    result: dict[str, Tensor] = {}

    def keep(activation: Activation) -> None:
        result[activation.info.name] = activation.values.clone()

    with capture(net, layers, receive=keep) as live:
        live.forward(lambda model: model(input_ids=tokens), samples=len(tokens))
    return result


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_head=3, n_embd=12, vocab_size=96, n_positions=16)
    return GPT2LMHeadModel(config).eval()


def test_heads_through_the_columns_of_their_projection_add_up_to_the_attention() -> None:
    net = llama()
    attention = "model.layers.1.self_attn"
    seen = rows(net, ["heads", attention])
    weight = net.model.layers[1].self_attn.o_proj.weight.detach()
    heads = [seen[f"{attention}.head.{h}"] for h in range(4)]  # queries: two groups of two share keys
    assert [tuple(head.shape) for head in heads] == [(12, 7, 6)] * 4
    total = sum(head @ part.T for head, part in zip(heads, weight.split(6, dim=1), strict=True))
    torch.testing.assert_close(total, seen[attention], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("net", "attention", "projection", "count"),
    [
        (gpt2(), "transformer.h.1.attn", "transformer.h.1.attn.c_proj:input", 3),
        (
            GPTNeoXForCausalLM(
                GPTNeoXConfig(
                    vocab_size=96,
                    hidden_size=12,
                    num_hidden_layers=1,
                    num_attention_heads=2,
                    intermediate_size=20,
                    max_position_embeddings=16,
                )
            ).eval(),
            "gpt_neox.layers.0.attention",
            "gpt_neox.layers.0.attention.dense:input",
            2,
        ),
        (
            MistralForCausalLM(
                MistralConfig(
                    vocab_size=96,
                    hidden_size=12,
                    num_hidden_layers=1,
                    num_attention_heads=2,
                    head_dim=8,
                    num_key_value_heads=1,
                    intermediate_size=20,
                )
            ).eval(),
            "model.layers.0.self_attn",
            "model.layers.0.self_attn.o_proj:input",  # 16 features of a residual stream of 12
            2,
        ),
        (
            BertModel(
                BertConfig(
                    vocab_size=96,
                    hidden_size=12,
                    num_hidden_layers=1,
                    num_attention_heads=3,
                    intermediate_size=20,
                )
            ).eval(),
            "encoder.layer.0.attention.self",
            "encoder.layer.0.attention.self",
            3,
        ),
    ],
    ids=["gpt2", "neox", "mistral", "bert"],
)
def test_heads_stand_beside_each_other_in_what_the_projection_reads(
    net: nn.Module, attention: str, projection: str, count: int
) -> None:
    seen = rows(net, ["heads", projection])
    names = [name for name in seen if name.startswith(f"{attention}.head.")]
    assert names == [f"{attention}.head.{h}" for h in range(count)]
    assert torch.equal(torch.cat([seen[name] for name in names], dim=2), seen[projection])


def test_heads_are_chosen_by_name_and_glob_and_no_glob_of_modules_chooses_them() -> None:
    net = llama()
    assert list(select(net, "*.head.3").chosen) == [f"model.layers.{i}.self_attn.head.3" for i in (0, 1)]
    assert list(select(net, ["model.layers.0.self_attn.head.2", "*.norm"]).chosen) == [
        "model.layers.0.self_attn.head.2",
        "model.norm",
    ]
    assert not any(".head." in name for name in select(net, "model.layers.*").chosen)
    with pytest.raises(LookupError, match=r"self_attn.head.4' matches none"):
        select(net, "model.layers.0.self_attn.head.4")
    many = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=12, n_embd=12, vocab_size=96, n_positions=16))
    assert [name.rpartition(".")[2] for name in select(many, "heads").chosen] == [str(h) for h in range(12)]


def test_a_module_of_that_name_is_what_the_name_means() -> None:
    net = nn.ModuleDict({"heads": nn.Linear(3, 2), "decoder": nn.Linear(2, 2)})
    assert list(select(net, ["heads", "decoder"]).chosen) == ["heads", "decoder"]
    with pytest.raises(LookupError, match=r"is 'heads', but this network has no attention whose heads"):
        select(nn.MultiheadAttention(4, 2), "heads")


def test_a_study_of_heads_leaves_out_padding_and_changes_no_logit() -> None:
    net = llama()
    record = unchanged(net, lambda: kw.study(net, DATA, layers="heads"))
    assert [(layer.kind, layer.d, layer.kets) for layer in record] == [("LlamaAttention head", 6, 80)] * 8
    mask = torch.cat([batch["attention_mask"] for batch in DATA]).bool()
    kets = rows(net, "*.1.self_attn.head.2")["model.layers.1.self_attn.head.2"][mask].double()
    values = torch.linalg.eigvalsh(
        (kets / kets.norm(dim=1, keepdim=True)).T @ (kets / kets.norm(dim=1, keepdim=True)) / 80
    )
    expected = -float((values * values.log2()).sum())
    layer = record["model.layers.1.self_attn.head.2"]
    assert layer.estimates["entropy"].plain == pytest.approx(expected, abs=2e-6)


def test_one_head_can_collapse_while_the_others_stay() -> None:
    net = llama()
    name = "model.layers.1.self_attn.head.1"
    record = kw.study(net, DATA, layers="heads")
    with kw.collapse(net, {name: 6}, study=record):  # onto everything
        same = net(input_ids=TOKENS).logits
    assert torch.equal(same, net(input_ids=TOKENS).logits)
    projection = "model.layers.1.self_attn.o_proj:input"
    before = rows(net, projection)[projection]
    with kw.collapse(net, {name: 2}, study=record):
        after = rows(net, projection)[projection]
    assert torch.equal(after[..., :6], before[..., :6])
    assert torch.equal(after[..., 12:], before[..., 12:])
    assert [
        int(torch.linalg.matrix_rank(x.reshape(-1, 6))) for x in (before[..., 6:12], after[..., 6:12])
    ] == [6, 2]
