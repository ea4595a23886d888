"""The logit lens against whole softmaxes in float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

import ketwork as kw
from ketwork.networks.moments import SampleRatio
from ketwork.networks.study import lens

TOKENS = torch.randint(0, 96, (10, 6), generator=torch.Generator().manual_seed(5))
MASK = torch.ones(10, 6, dtype=torch.long)
MASK[:3, 4:] = 0
DATA = [{"input_ids": TOKENS[i : i + 4], "attention_mask": MASK[i : i + 4]} for i in (0, 4, 8)]
SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
}


def sure(net: nn.Module) -> nn.Module:
    """A network whose predictions are far from uniform."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if weight.ndim == 2 and not name.endswith(
                ("wte.weight", "lm_head.weight", "embed_tokens.weight")
            ):
                weight.copy_(torch.randn(weight.shape, generator=generator) * weight.shape[1] ** -0.5)
            elif weight.ndim == 2:
                weight.copy_(torch.randn(weight.shape, generator=generator))
    return net.eval()


def networks() -> Iterator[tuple[str, nn.Module, float | None]]:
    yield "llama", LlamaForCausalLM(LlamaConfig(**SMALL)), None
    yield (
        "gpt2",
        GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=3, n_embd=24, vocab_size=96, n_positions=16)),
        None,
    )
    yield "softcapped", Gemma2ForCausalLM(Gemma2Config(**SMALL, final_logit_softcapping=30.0)), 30.0
    yield "scaled", GraniteForCausalLM(GraniteConfig(**SMALL, logits_scaling=4.0)), None


NETWORKS = {name: (sure(net), cap) for name, net, cap in networks()}


def logs(net: nn.Module, cap: float | None = None) -> list[Tensor]:
    """log₂ q of the residual stream before each block and after the last, (10, 6, V), in float64."""
    with torch.no_grad():
        hidden = net(input_ids=TOKENS, attention_mask=MASK, output_hidden_states=True).hidden_states
        base = net.transformer if hasattr(net, "transformer") else net.model
        norm = base.ln_f if hasattr(base, "ln_f") else base.norm
        streams = [*(norm(each) for each in hidden[:-1]), hidden[-1]]  # the last has gone through the norm
        logits = [net.lm_head(each).double() for each in streams]
    scaling = getattr(net.config, "logits_scaling", 1.0)
    logits = [each / scaling if cap is None else cap * torch.tanh(each / cap) for each in logits]
    return [each.log_softmax(dim=-1) / torch.log(torch.tensor(2.0)).double() for each in logits]


def mean(values: Tensor) -> kw.Estimate:
    """The mean of (N, T) values over positions that exist, and its error by samples."""
    present = MASK.bool()
    x, n = torch.where(present, values, 0).sum(dim=1), present.sum(dim=1)
    ratio = float(x.sum() / n.sum())
    residual = (x - ratio * n).square().sum() * len(x) / (len(x) - 1)
    return kw.Estimate(ratio, float(residual.sqrt() / n.sum()))


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_what_norm_and_head_make_of_the_residual_stream(name: str) -> None:
    net, cap = NETWORKS[name]
    with torch.no_grad():
        before = net(**DATA[0]).logits
    record = kw.study(net, DATA, layers="decoder", lens=True)
    with torch.no_grad():
        assert torch.equal(net(**DATA[0]).logits, before)
    first, second, last = logs(net, cap)
    blocks = "transformer.h" if name == "gpt2" else "model.layers"
    rows = {f"{blocks}.0:input": first, f"{blocks}.0": second, f"{blocks}.1": last}
    rows["transformer.ln_f" if name == "gpt2" else "model.norm"] = last
    for row, read in rows.items():
        layer = record[row]
        expected = {
            "lens_kl": mean((last.exp2() * (last - read)).sum(dim=-1)),
            "lens_entropy": mean(-(read.exp2() * read).sum(dim=-1)),
            "lens_agreement": mean((read.argmax(-1) == last.argmax(-1)).double()),
        }
        for measure, value in expected.items():
            assert layer.estimates[measure] == pytest.approx(value, rel=2e-5, abs=2e-6), (row, measure)
            assert layer.estimates[measure].stderr == pytest.approx(value.stderr, rel=2e-4, abs=2e-6)
    assert record[f"{blocks}.0"].lens_kl > 0.01
    assert "lens_kl" not in record[f"{blocks}.0.mlp"].accumulator.sums if name != "gpt2" else True


def test_a_few_positions_at_a_time_give_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    net, _ = NETWORKS["llama"]
    at_once = kw.study(net, DATA, layers="blocks", lens=True)
    monkeypatch.setattr(lens, "_NUMBERS", 96 * 5)
    in_parts = kw.study(net, DATA, layers="blocks", lens=True)
    for a, b in zip(at_once, in_parts, strict=True):
        assert a.lens_kl == pytest.approx(b.lens_kl, rel=1e-6)
        assert a.lens_entropy == pytest.approx(b.lens_entropy, rel=1e-6)


def test_studies_add_up_and_only_those_that_asked_have_columns() -> None:
    net, _ = NETWORKS["llama"]
    whole_data = kw.study(net, DATA, layers="blocks", lens=True)
    parts = [kw.study(net, DATA[i : i + 1], layers="blocks", lens=True, seed=i) for i in range(3)]
    total = sum(parts[1:], parts[0])
    for a, b in zip(whole_data, total, strict=True):
        assert (a.lens_kl.value, a.lens_kl.stderr) == pytest.approx(
            (b.lens_kl.value, b.lens_kl.stderr), rel=1e-9
        )
    plain = kw.study(net, DATA, layers="blocks")
    assert "lens_kl" in whole_data.table()
    assert whole_data.definitions["lens_kl"].endswith("[bit]")
    assert not [name for name in plain.table() if name.startswith("lens")]


def test_half_precision_and_parts_of_the_network() -> None:
    net, _ = NETWORKS["llama"]
    record = kw.study(net, DATA, layers="blocks", lens=True)
    alone = kw.study(net, DATA, layers="blocks", lens=True, forward=lambda model, batch: model.model(**batch))
    for a, b in zip(record, alone, strict=True):
        assert a.lens_kl == pytest.approx(b.lens_kl, rel=1e-6)
    half = sure(LlamaForCausalLM(LlamaConfig(**SMALL))).to(torch.bfloat16)
    layer = kw.study(half, DATA, layers="blocks", lens=True)["model.layers.0"]
    assert layer.lens_kl == pytest.approx(record["model.layers.0"].lens_kl, rel=0.1)


class Shifted(LlamaForCausalLM):
    """Does something to its logits that nothing says."""

    def forward(self, *inputs: Any, **named: Any) -> Any:
        output = super().forward(*inputs, **named)
        output.logits = 2 * output.logits
        return output


def test_a_block_that_returns_the_tensor_of_its_mlp_is_read_too() -> None:
    torch.manual_seed(0)
    net = sure(BloomForCausalLM(BloomConfig(vocab_size=96, hidden_size=24, n_layer=2, n_head=4)))
    study = kw.study(net, DATA, layers="decoder", lens=True)
    assert study["transformer.h.1"].name == "transformer.h.1"
    assert "transformer.h.1.mlp" in study["transformer.h.1"].aliases
    assert study["transformer.h.1"].lens_kl == pytest.approx(0, abs=1e-9)
    with torch.no_grad():
        hidden = net(**DATA[0], output_hidden_states=True).hidden_states
        read, last = (
            net.lm_head(each).double().softmax(-1) for each in (net.transformer.ln_f(hidden[1]), hidden[2])
        )
    present = DATA[0]["attention_mask"].bool()
    kl = (torch.xlogy(last, last) - torch.xlogy(last, read)).sum(dim=-1)[present].mean() / torch.log(
        torch.tensor(2.0)
    )
    alone = kw.study(net, DATA[:1], layers="decoder", lens=True)["transformer.h.0"]
    assert alone.lens_kl == pytest.approx(float(kl), rel=1e-4)
    assert not any(layer.lens_kl == layer.lens_kl for layer in study if "mlp.dense" in layer.name)


def test_what_has_no_lens_is_refused() -> None:
    net, _ = NETWORKS["llama"]
    with pytest.raises(ValueError, match=r"LlamaModel: it has no a? ?head"):
        kw.study(net.model, DATA, lens=True)
    with pytest.raises(ValueError, match="has no blocks with attention"):
        kw.study(nn.Linear(3, 2), torch.randn(5, 3), lens=True)
    other = sure(Shifted(LlamaConfig(**SMALL)))
    with pytest.raises(ValueError, match="its logits are off by"):
        kw.study(other, DATA, lens=True)
    with pytest.raises(ValueError, match="none of the rows is one"):
        kw.study(net, DATA, layers="*.mlp", lens=True)

    def twice(model: nn.Module, batch: Any) -> Any:
        model(**batch)
        return model(**batch)

    with pytest.raises(ValueError, match="the final norm ran 2 times on 4 samples"):
        kw.study(net, DATA, layers="blocks", lens=True, forward=twice)


def test_the_error_counts_samples() -> None:
    draw = torch.Generator().manual_seed(0)
    values, errors = [], []
    for _ in range(300):
        shared = torch.randn(40, generator=draw).repeat_interleave(10)  # positions of a sample are alike
        ratio = SampleRatio.from_values(shared, torch.arange(40).repeat_interleave(10)).estimate
        values.append(ratio.value)
        errors.append(ratio.stderr)
    assert float(torch.tensor(values).std()) == pytest.approx(40**-0.5, rel=0.1)
    assert sum(errors) / 300 == pytest.approx(40**-0.5, rel=0.05)
    assert (
        SampleRatio.from_values(
            torch.tensor([2.0, 4.0]), torch.tensor([0, 1]), torch.tensor([3.0, 1.0])
        ).estimate
        == 2.5
    )
