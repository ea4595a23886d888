"""Networks of transformers after compression: saved with a configuration that tells of them, or not at all."""

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers.pytorch_utils import Conv1D

import ketwork as kw
from ketwork.networks.compression.loader import configured
from ketwork.networks.compression.pretrained import configure
from ketwork.networks.compression.surgery import replace

TOKENS = torch.randint(0, 40, (80, 6), generator=torch.Generator().manual_seed(0))


def llama(blocks: int = 1, **more: bool) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40, hidden_size=24, intermediate_size=32, num_hidden_layers=blocks,
        num_attention_heads=6, num_key_value_heads=3, head_dim=4, **({"mlp_bias": True} | more),
    )  # fmt: skip
    net = LlamaForCausalLM(config).eval()
    for block in net.model.layers:  # half of the units do nothing
        block.mlp.down_proj.weight.data[:, 1::2] = 0
    return net


def test_where_a_configuration_can_tell_of_it_transformers_loads_what_was_saved(tmp_path: Path) -> None:
    net = llama()
    share = 1 - 16 * (3 * 24 + 2) / sum(p.numel() for p in net.parameters())
    result = kw.compress(net, TOKENS, keep=share, layers=["*gate_proj", "*up_proj", "*down_proj"])
    assert result.settings["config"] == {"intermediate_size": 16}
    result.model.save_pretrained(tmp_path)
    again = LlamaForCausalLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(TOKENS).logits, result.model(TOKENS).logits)
        torch.testing.assert_close(again(TOKENS).logits, net(TOKENS).logits, atol=1e-4, rtol=1e-4)
    result.save(tmp_path / "small")
    back = kw.load_compressed(str(tmp_path / "small"), llama())
    assert back.config.intermediate_size == 16
    back.save_pretrained(tmp_path / "again")
    with torch.no_grad():
        again = LlamaForCausalLM.from_pretrained(tmp_path / "again").eval()
        torch.testing.assert_close(again(TOKENS).logits, result.model(TOKENS).logits)


def test_groups_of_heads_are_in_the_configuration_too() -> None:
    net, small = llama(), llama()
    attention = small.model.layers[0].self_attn
    sizes = {"q_proj": (24, 16), "k_proj": (24, 8), "v_proj": (24, 8), "o_proj": (16, 24)}
    replace(attention, {name: nn.Linear(*size, bias=False) for name, size in sizes.items()})
    assert configure(net, small) == {"num_attention_heads": 4, "num_key_value_heads": 2}
    assert (small.config.num_attention_heads, net.config.num_attention_heads) == (4, 6)


def test_where_none_can_it_is_not_saved_with_the_old_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    bert = BertModel(
        BertConfig(
            vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=4, intermediate_size=32
        )
    ).eval()
    result = kw.compress(bert, {"input_ids": TOKENS}, keep=0.7, output="last_hidden_state", multiple_of=2)
    result.save(tmp_path / "small")
    for small in (result.model, kw.load_compressed(str(tmp_path / "small"), BertModel(bert.config))):
        with pytest.raises(ValueError, match="cannot tell of this network"):
            small.save_pretrained(tmp_path)
    one, two = llama(2), llama(2)
    replace(two.model.layers[0].mlp, {"up_proj": nn.Linear(24, 16), "gate_proj": nn.Linear(24, 16)})
    assert configure(one, two) == {}
    with pytest.raises(ValueError, match="Use `save`"):
        two.save_pretrained(tmp_path)


def test_what_has_not_changed_is_saved_as_ever(tmp_path: Path) -> None:
    small = llama()
    assert configure(llama(), small) == {}
    small.save_pretrained(tmp_path)
    assert LlamaForCausalLM.from_pretrained(tmp_path).config.intermediate_size == 32


def test_biases_that_were_gained_are_in_the_configuration(tmp_path: Path) -> None:
    net = llama(mlp_bias=False)
    net.model.layers[0].mlp.down_proj.weight.data[:, 1::2] = 1e-3
    share = 1 - 16 * 3 * 24 / sum(p.numel() for p in net.parameters())
    result = kw.compress(net, TOKENS, keep=share + 1e-3, layers=["*gate_proj", "*up_proj", "*down_proj"])
    mlp = result.model.model.layers[0].mlp
    assert (mlp.down_proj.bias is not None, mlp.up_proj.bias) == (True, None)
    width = mlp.up_proj.out_features
    assert (width < 32, result.settings["config"]) == (True, {"intermediate_size": width, "mlp_bias": True})
    result.model.save_pretrained(tmp_path / "one")
    result.save(tmp_path / "small")
    back = kw.load_compressed(str(tmp_path / "small"), llama(mlp_bias=False))
    back.save_pretrained(tmp_path / "two")
    for folder in ("one", "two"):
        again, info = LlamaForCausalLM.from_pretrained(tmp_path / folder, output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        with torch.no_grad():
            torch.testing.assert_close(again.eval()(TOKENS).logits, result.model(TOKENS).logits)
    assert mlp.up_proj.bias is None


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=40, n_positions=16, n_embd=24, n_layer=2, n_head=4, initializer_range=0.3,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    net = GPT2LMHeadModel(config).eval()
    for block in net.transformer.h:  # 40 of 96 inner units do nothing
        block.mlp.c_proj.weight.data[:40] = 0
    return net


def test_a_size_that_was_left_to_be_computed_is_configured_and_tied_weights_stay_tied(tmp_path: Path) -> None:
    net = gpt2()
    share = 1 - 2 * 40 * (2 * 24 + 1) / sum(p.numel() for p in net.parameters())
    result = kw.compress(net, TOKENS, keep=share, layers=["*c_fc", "*mlp.c_proj"])
    assert (net.config.n_inner, result.settings["config"]) == (None, {"n_inner": 56})
    assert result.model.lm_head.weight is result.model.transformer.wte.weight
    result.model.save_pretrained(tmp_path / "one")
    result.save(tmp_path / "small")
    back = kw.load_compressed(str(tmp_path / "small"), gpt2())
    assert back.lm_head.weight is back.transformer.wte.weight
    back.save_pretrained(tmp_path / "two")
    for folder in ("one", "two"):
        again, info = GPT2LMHeadModel.from_pretrained(tmp_path / folder, output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        assert again.lm_head.weight is again.transformer.wte.weight
        with torch.no_grad():
            torch.testing.assert_close(again.eval()(TOKENS).logits, net(TOKENS).logits, atol=1e-4, rtol=1e-4)


def test_a_size_is_not_guessed_where_there_are_two(tmp_path: Path) -> None:
    net, small = gpt2(), gpt2()
    for widths, expected in (((56, 64), {}), ((56, 56), {"n_inner": 56})):
        for block, width in zip(small.transformer.h, widths, strict=True):
            replace(block.mlp, {"c_fc": Conv1D(width, 24), "c_proj": Conv1D(24, width)})
        assert configure(net, small) == expected
    two = gpt2()
    for block in two.transformer.h:
        replace(block.mlp, {"c_fc": Conv1D(56, 24), "c_proj": Conv1D(24, 56)})
        replace(block.attn, {"c_attn": Conv1D(36, 24), "c_proj": Conv1D(24, 12)})
    assert configure(net, two) == {}  # which of them is the inner one?
    with pytest.raises(ValueError, match="Use `save`"):
        two.save_pretrained(tmp_path)


def test_square_weights_that_lie_another_way_are_saved_as_they_lay(tmp_path: Path) -> None:
    net, small = gpt2(), gpt2()
    for block in small.transformer.h:  # as layers of that kind become, in the same shape
        old, new = block.attn.c_proj, nn.Linear(24, 24)
        new.load_state_dict({"weight": old.weight.T, "bias": old.bias})
        replace(block.attn, {"c_proj": new})
    changes = configure(net, small)
    assert changes  # of a size that stays
    assert changes == {name: getattr(net.config, name) for name in changes}
    small.save_pretrained(tmp_path)
    with torch.no_grad():
        again = GPT2LMHeadModel.from_pretrained(tmp_path).eval()
        torch.testing.assert_close(again(TOKENS).logits, net(TOKENS).logits)


def test_flags_of_a_file_are_of_the_kind_of_the_configuration() -> None:
    net = llama()
    for changes in (
        {"mlp_bias": 1},
        {"intermediate_size": True},
        {"model_type": "bert"},
        {"pad_token_id": 1},
    ):
        with pytest.raises(ValueError, match="is no size, and no choice"):
            configured(net, changes)
