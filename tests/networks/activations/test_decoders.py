"""The parts of language models as rows."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)

import ketwork as kw
from ketwork.networks.activations.selectors import decoder, select

from .language import DATA, TOKENS, llama, unchanged
from .test_heads import gpt2, rows


def test_the_parts_of_a_llama_are_rows_and_its_logits_are_none() -> None:
    net = llama()
    record = unchanged(net, lambda: kw.study(net, DATA, layers="decoder"))
    block = ["self_attn", "post_attention_layernorm:input", "mlp.down_proj:input", "mlp", ""]
    assert [layer.name for layer in record] == [
        "model.embed_tokens",
        *(f"model.layers.{i}.{part}".rstrip(".") for i in range(2) for part in block),
        "model.norm",
    ]
    assert record["model.layers.0:input"] is record["model.embed_tokens"]  # the very tensor
    assert record["model.layers.1:input"] is record["model.layers.0"]
    assert [layer.d for layer in record] == [24, *2 * [24, 24, 40, 24, 24], 24]


def test_the_residual_stream_is_what_attention_and_mlp_add_up_to() -> None:
    for net, block, middle in (
        (llama(), "model.layers.1", "model.layers.1.post_attention_layernorm"),
        (gpt2(), "transformer.h.1", "transformer.h.1.ln_2"),
    ):
        parts = decoder(net)
        assert parts is not None
        seen = rows(net, [*parts.rows])
        before = seen[parts.blocks[0].path]  # the stream before the second block is that after the first
        attention, mlp = seen[parts.blocks[1].attention], seen[str(parts.blocks[1].mlp)]
        torch.testing.assert_close(seen[f"{middle}:input"], before + attention)
        torch.testing.assert_close(seen[block], before + attention + mlp)
        last = net.get_submodule(str(parts.blocks[1].last))
        with torch.no_grad():
            torch.testing.assert_close(last(seen[f"{parts.blocks[1].last}:input"]), mlp)


def test_parts_of_other_decoders_are_known_by_their_names() -> None:
    opt = OPTForCausalLM(
        OPTConfig(
            vocab_size=96,
            hidden_size=12,
            num_hidden_layers=2,
            num_attention_heads=2,
            ffn_dim=20,
            word_embed_proj_dim=12,
            max_position_embeddings=16,
        )
    ).eval()
    parts = decoder(opt)
    assert parts is not None
    assert parts.blocks[0].rows is not None
    assert list(parts.blocks[0].rows()) == [
        "model.decoder.layers.0:input",
        "model.decoder.layers.0.self_attn",
        "model.decoder.layers.0.final_layer_norm:input",
        "model.decoder.layers.0.fc2:input",
        "model.decoder.layers.0.fc2",
        "model.decoder.layers.0",
    ]
    assert (parts.embedding, parts.norm, parts.head) == (
        "model.decoder.embed_tokens",
        "model.decoder.final_layer_norm",
        "lm_head",
    )
    gemma = Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=96,
            hidden_size=12,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=6,
            intermediate_size=20,
        )
    ).eval()
    parts = decoder(gemma)
    assert parts is not None
    assert parts.blocks[0].middle == "model.layers.0.pre_feedforward_layernorm"


def test_where_attention_and_mlp_stand_side_by_side_there_is_no_stream_between_them() -> None:
    net = PhiForCausalLM(
        PhiConfig(
            vocab_size=96, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=20
        )
    ).eval()
    names = [layer.name for layer in kw.study(net, TOKENS, layers="decoder")]
    assert names[1:5] == [
        "model.layers.0.self_attn",
        "model.layers.0.mlp.fc2:input",
        "model.layers.0.mlp",
        "model.layers.0",
    ]
    assert names[-1] == "model.final_layernorm"


def test_a_norm_of_what_is_added_reads_no_stream() -> None:
    net = Olmo2ForCausalLM(
        Olmo2Config(
            vocab_size=96, hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=20
        )
    )
    parts = decoder(net)
    assert parts is not None
    assert parts.blocks[0].middle is None
    assert parts.stream == ["model.embed_tokens", "model.layers.0:input", "model.layers.0"]


def test_words_go_together_with_other_selectors() -> None:
    net = llama()
    chosen = list(select(net, ["decoder", "heads", "*.[qkv]_proj"]).chosen)
    assert len(chosen) == 14 + 8 + 6
    with pytest.raises(
        LookupError, match=r"is 'decoder', but this network has no repeated blocks with attention"
    ):
        select(nn.Sequential(nn.Linear(3, 2)), "decoder")
    with pytest.raises(LookupError, match=r"'blocks', but this network has no repeated blocks"):
        select(nn.Sequential(nn.Linear(3, 2)), ["0", "blocks"])
