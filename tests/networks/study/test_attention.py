"""Attention patterns against the weights that transformers puts out itself."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import ketwork as kw

TOKENS = torch.randint(0, 96, (9, 7), generator=torch.Generator().manual_seed(5))
MASK = torch.ones(9, 7, dtype=torch.long)
MASK[:3, :2] = 0  # padding on the left
MASK[3:5, 5:] = 0  # and on the right
BATCH = {"input_ids": TOKENS, "attention_mask": MASK}
LLAMA: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def sharp(net: nn.Module) -> nn.Module:
    """A network whose attention is far from uniform."""
    with torch.no_grad():
        for weight in net.parameters():
            if weight.ndim == 2:
                weight *= 20
    return net.eval()


def networks() -> dict[str, tuple[nn.Module, str]]:
    torch.manual_seed(0)
    gpt2 = GPT2Config(n_layer=2, n_head=3, n_embd=12, vocab_size=96, n_positions=16)
    bert = BertConfig(
        vocab_size=96, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20
    )
    return {
        "llama": (sharp(LlamaForCausalLM(LlamaConfig(**LLAMA))), "model.layers.{}.self_attn"),
        "gpt2": (sharp(GPT2LMHeadModel(gpt2)), "transformer.h.{}.attn"),
        "bert": (sharp(BertModel(bert)), "encoder.layer.{}.attention.self"),
    }


def switches(net: nn.Module) -> bool:
    """Whether the form of attention is chosen anew in each pass; old versions of transformers fixed it for some."""
    return hasattr(sys.modules[type(net).__module__], "eager_attention_forward")


NETWORKS = {name: (net, path) for name, (net, path) in networks().items() if switches(net)}


def weights(net: nn.Module) -> list[Tensor]:
    """Each layer's weights (9, H, 7, 7) in float64."""
    net.config._attn_implementation = "eager"
    with torch.no_grad():
        attentions = net(**BATCH, output_attentions=True).attentions
    net.config._attn_implementation = "sdpa"
    return [each.double() for each in attentions]


def by_hand(pattern: Tensor) -> dict[str, float]:
    """The three numbers of one head's weights (9, 7, 7), from loops over samples and positions."""
    entropies, firsts, ranks = [], [], []
    for sample, present in zip(pattern, MASK.bool(), strict=True):
        places = present.nonzero()[:, 0].tolist()
        for query in places[1:]:
            row = sample[query]
            entropies.append(-float(torch.xlogy(row, row).sum()) / float(torch.tensor(2.0).log()))
            firsts.append(float(row[places[0]]))
        squares = torch.linalg.svdvals(sample[places]).square()
        ranks.append(float(squares.sum().square() / squares.square().sum()))
    return {
        "attention_entropy": sum(entropies) / len(entropies),
        "attention_sink": sum(firsts) / len(firsts),
        "attention_rank": sum(ranks) / len(ranks),
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_each_head_and_the_mean_over_heads(name: str) -> None:
    net, path = NETWORKS[name]
    with torch.no_grad():
        before = net(**BATCH)[0]
    layers = ["heads", *(path.format(i) for i in range(2))]
    record = kw.study(net, [BATCH], layers=layers, attention=True)
    with torch.no_grad():
        assert torch.equal(net(**BATCH)[0], before)  # fused kernels again
    assert net.config._attn_implementation == "sdpa"
    for i, pattern in enumerate(weights(net)):
        heads = [by_hand(pattern[:, h]) for h in range(pattern.shape[1])]
        for h, head in enumerate(heads):
            layer = record[f"{path.format(i)}.head.{h}"]
            for measure, value in head.items():
                assert layer.estimates[measure] == pytest.approx(value, rel=2e-5, abs=1e-6), (h, measure)
        for measure in heads[0]:
            mean = sum(head[measure] for head in heads) / len(heads)
            assert record[path.format(i)].estimates[measure] == pytest.approx(mean, rel=2e-5)


def test_uniform_attention_has_its_closed_form() -> None:
    net = LlamaForCausalLM(LlamaConfig(**LLAMA)).eval()
    with torch.no_grad():
        for layer in net.model.layers:
            layer.self_attn.q_proj.weight.zero_()
    record = kw.study(net, {"input_ids": TOKENS}, layers="heads", attention=True)
    places = torch.arange(2, 8).double()  # the t-th position attends alike to t of them
    for layer in record:
        assert layer.attention_entropy == pytest.approx(float(places.log2().mean()), rel=1e-6)
        assert layer.attention_sink == pytest.approx(float((1 / places).mean()), rel=1e-6)
        assert layer.attention_entropy.stderr == pytest.approx(0, abs=1e-6)
        assert layer.attention_sink.stderr == pytest.approx(0, abs=1e-6)


def test_errors_count_samples_and_studies_add_up() -> None:
    net, path = NETWORKS["llama"]
    data = [{name: each[i : i + 3] for name, each in BATCH.items()} for i in (0, 3, 6)]
    parts = [kw.study(net, [batch], layers="heads", attention=True, seed=i) for i, batch in enumerate(data)]
    total = sum(parts[1:], parts[0])[f"{path.format(1)}.head.2"]
    together = kw.study(net, data, layers="heads", attention=True)[f"{path.format(1)}.head.2"]
    for measure in ("attention_entropy", "attention_sink", "attention_rank"):
        a, b = total.estimates[measure], together.estimates[measure]
        assert (a.value, a.stderr) == pytest.approx((b.value, b.stderr), rel=1e-9)


def test_what_puts_out_no_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="none of its modules is attention"):
        kw.study(nn.Linear(3, 2), torch.randn(5, 3), attention=True)

    with pytest.raises(ValueError, match="none of the rows is one"):
        kw.study(NETWORKS["llama"][0], [BATCH], layers="blocks", attention=True)

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.num_heads, self.o_proj = 2, nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.o_proj(x)

    with pytest.raises(ValueError, match="puts out no weights"):
        kw.study(Attention(), torch.randn(5, 3, 4), layers="heads", attention=True)
