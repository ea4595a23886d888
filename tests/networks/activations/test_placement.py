"""Wherever a network's weights are, its study has the numbers of the plain network, and changes no logit."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from pathlib import Path

import accelerate
import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torchao.quantization import Int8WeightOnlyConfig, quantize_
from transformers import LlamaForCausalLM

import ketwork as kw
from ketwork.networks.activations import device_of
from ketwork.networks.activations.placement import numbers as weights_of

from .language import DATA, TOKENS, llama, logits, numbers, unchanged, values


def on_cpu(model: nn.Module, folder: Path) -> nn.Module:
    return accelerate.cpu_offload(model, execution_device=torch.device("cpu"))


def on_disk(model: nn.Module, folder: Path) -> nn.Module:
    parts = {
        "model.embed_tokens": "cpu",
        "model.layers": "disk",
        "model.norm": "disk",
        "model.rotary_emb": "cpu",
    }
    return accelerate.dispatch_model(
        model,
        parts | {"lm_head": "disk"},
        main_device="cpu",
        offload_dir=str(folder / "weights"),
        force_hooks=True,
    )


def in_blocks(model: nn.Module, folder: Path) -> nn.Module:
    return accelerate.disk_offload(model, str(folder / "weights"), execution_device=torch.device("cpu"))


def same_numbers(found: kw.Study, expected: kw.Study) -> None:
    """Equal to the bit; of linear layers whose range takes their weights, which are away, to rounding."""
    ranged = {layer.info.key for layer in expected if layer.accumulator.moment.ranged is not None}
    mine, theirs = numbers(found), numbers(expected)
    assert mine.keys() == theirs.keys()
    assert {key: mine[key] for key in mine.keys() - ranged} == {
        key: theirs[key] for key in theirs.keys() - ranged
    }
    for one, other in zip(found, expected, strict=True):
        for name in ("entropy", "coherence", "top_weight", "norm"):
            assert one.estimate(name).plain == pytest.approx(other.estimate(name).plain, abs=1e-5), name


WAYS = [on_cpu, on_disk, in_blocks]
Place = Callable[[nn.Module, Path], nn.Module]


@pytest.mark.parametrize("place", WAYS)
@pytest.mark.parametrize("tied", [False, True])
def test_offloaded_networks_have_the_numbers_of_the_plain_one(
    place: Place, tied: bool, tmp_path: Path
) -> None:
    plain = llama(tie_word_embeddings=tied)
    placed = place(copy.deepcopy(plain), tmp_path)
    assert any(parameter.is_meta for parameter in placed.parameters())
    assert device_of(placed) == torch.device("cpu")
    found = unchanged(placed, lambda: kw.study(placed, DATA))
    same_numbers(found, kw.study(plain, DATA))
    assert any(parameter.is_meta for parameter in placed.parameters())
    for (name, value), (other, expected) in zip(weights_of(placed), weights_of(plain), strict=tied is False):
        if name == other:
            torch.testing.assert_close(value, expected, rtol=0, atol=0)


def test_a_checkpoint_knows_the_weights_of_an_offloaded_network(tmp_path: Path) -> None:
    plain, placed = llama(), on_disk(llama(), tmp_path)
    point = kw.Checkpoint(tmp_path / "run", every=1, resume=True)
    kw.study(placed, DATA[:1], checkpoint=point)
    resumed = kw.study(plain, DATA, checkpoint=point)  # the same weights
    same_numbers(resumed, kw.study(plain, DATA))
    other = llama()
    other.lm_head.weight.data[0, 0] += 1
    with pytest.raises(kw.CheckpointError, match="weights were others"):
        kw.study(on_cpu(other, tmp_path), DATA, checkpoint=point)


def test_where_a_network_runs_is_not_changed_by_device(tmp_path: Path) -> None:
    placed = on_disk(llama(), tmp_path)
    kw.study(placed, DATA, reading=kw.Reading(device="cpu"))  # where it runs
    with pytest.raises(ValueError, match=r"`device` of `reading` is 'meta'.*a `device_map`, offloading"):
        kw.study(placed, DATA, reading=kw.Reading(device="meta"))


def test_an_offloaded_network_is_compressed_as_the_plain_one(tmp_path: Path) -> None:
    plain = llama(tie_word_embeddings=True)
    data = {"input_ids": TOKENS}
    placed = on_disk(copy.deepcopy(plain), tmp_path)
    result = unchanged(placed, lambda: kw.compress(placed, data, keep=0.9, multiple_of=2))
    expected = kw.compress(plain, data, keep=0.9, multiple_of=2)
    assert result.after.parameters == expected.after.parameters
    assert result.kl == pytest.approx(expected.kl, rel=1e-3)
    assert not any(
        hasattr(module, "_hf_hook") or "forward" in vars(module) for module in result.model.modules()
    )
    torch.testing.assert_close(logits(result.model), logits(expected.model), rtol=1e-3, atol=1e-4)


def test_a_network_without_numbers_is_refused() -> None:
    with torch.device("meta"):
        empty = nn.Sequential(nn.Linear(3, 2))
    for run in (kw.study, kw.compare, functools.partial(kw.compress, keep=0.5)):
        with pytest.raises(
            ValueError, match=r"`model` must have its numbers, but '0.weight' is on the `meta` device"
        ):
            run(empty, torch.ones(8, 3))


def dequantized(model: LlamaForCausalLM) -> LlamaForCausalLM:
    plain = copy.deepcopy(model)
    for module in plain.modules():
        for name, parameter in module._parameters.items():
            if hasattr(parameter, "dequantize") and type(parameter.data) is not torch.Tensor:
                module._parameters[name] = nn.Parameter(parameter.dequantize())
    return plain


def test_int8_weights_of_torchao(tmp_path: Path) -> None:
    net = llama()
    quantize_(net, Int8WeightOnlyConfig())
    plain = dequantized(net)
    assert type(net.lm_head.weight.data) is not torch.Tensor
    found = unchanged(net, lambda: kw.study(net, DATA, checkpoint=tmp_path / "run"))
    expected = values(kw.study(plain, DATA))
    assert values(found) == pytest.approx(expected, rel=1e-4, abs=1e-5, nan_ok=True)
    result = unchanged(net, lambda: kw.compress(net, {"input_ids": TOKENS}, keep=0.9, multiple_of=2))
    assert result.after.parameters <= 0.9 * result.before.parameters
    assert math.isfinite(result.kl)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_networks_of_16_bits_are_summed_in_more(dtype: torch.dtype) -> None:
    net = llama().to(dtype)
    found = unchanged(net, lambda: kw.study(net, DATA, layers="model.layers.1", mask=None))
    rows: list[torch.Tensor] = []
    with (
        net.model.layers[1].register_forward_hook(lambda module, given, out: rows.append(out)),
        torch.no_grad(),
    ):
        for batch in DATA:
            net(**batch)
            rows[-1] = rows[-1][batch["attention_mask"].bool()]
    kets = nn.functional.normalize(torch.cat(rows).double(), dim=-1)
    spectrum = torch.linalg.eigvalsh(kets.T @ kets / len(kets)).clamp(min=1e-300)
    assert found[0].estimate("entropy").plain == pytest.approx(
        float(-(spectrum * spectrum.log2()).sum()), abs=2e-6
    )


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing:FutureWarning")
def test_checkpointed_blocks_keep_their_names_and_numbers() -> None:
    plain, network, wrapped = llama(), llama(), llama()
    network.gradient_checkpointing_enable()
    network.train()
    for i, block in enumerate(wrapped.model.layers):
        wrapped.model.layers[i] = checkpoint_wrapper(block)
    expected = numbers(kw.study(plain, DATA))
    assert numbers(kw.study(network, DATA)) == expected
    assert network.training
    assert any(getattr(module, "gradient_checkpointing", False) for module in network.modules())
    assert numbers(unchanged(wrapped, lambda: kw.study(wrapped, DATA))) == expected


def test_a_compiled_network_puts_out_the_same_logits_afterwards() -> None:
    net = llama()
    net.model.layers[0].mlp.compile(backend="eager")
    assert numbers(unchanged(net, lambda: kw.study(net, DATA))) == numbers(kw.study(llama(), DATA))
