"""The load of experts: shares, their entropy and standard errors, and what is said of experts with few tokens."""

import math

import numpy as np
import pytest
import torch

import ketwork as kw
from ketwork.networks.study.expert_load import Load

from ..activations.language import DATA

pytest.importorskip("transformers", "5.0", reason="Experts of older versions are modules of their own.")

from ..activations.mixtures import mixtral


def _load(per_sample: torch.Tensor) -> Load:
    return Load("mlp.experts", 0, {}, per_sample.sum(dim=0), per_sample, len(per_sample))


def test_with_one_token_a_sample_the_errors_are_those_of_a_multinomial() -> None:
    counts = torch.tensor([50, 30, 15, 5])
    per_sample = torch.eye(4, dtype=torch.float64).repeat_interleave(counts, dim=0)
    load, p, n = _load(per_sample), counts.double() / 100, 100
    torch.testing.assert_close(load.shares, p)
    torch.testing.assert_close(load.share_stderrs, (p * (1 - p) / (n - 1)).sqrt())
    plain = float(-(p * p.log2()).sum())
    assert load.entropy.plain == pytest.approx(plain)
    miller_madow = 3 / (2 * n * math.log(2))
    assert load.entropy.value - plain == pytest.approx(miller_madow * n / (n - 1))
    variance = float((p * p.log2() ** 2).sum()) - plain**2
    assert load.entropy.stderr == pytest.approx(math.sqrt(variance / (n - 1)))


def test_tokens_of_a_sample_are_routed_alike() -> None:
    """A hundred tokens a sample that go where the first one goes tell no more than that one."""
    counts = torch.tensor([5, 3, 2])
    one = _load(torch.eye(3, dtype=torch.float64).repeat_interleave(counts, dim=0))
    many = _load(100 * torch.eye(3, dtype=torch.float64).repeat_interleave(counts, dim=0))
    torch.testing.assert_close(many.share_stderrs, one.share_stderrs)
    assert many.entropy.value == pytest.approx(one.entropy.value)
    assert many.entropy.stderr == pytest.approx(one.entropy.stderr)


def test_an_even_load_has_the_most_entropy_and_a_single_expert_none() -> None:
    even = _load(torch.ones(10, 8, dtype=torch.float64))
    assert (even.entropy.value, even.entropy.stderr) == (3.0, 0.0)
    single = torch.zeros(10, 8, dtype=torch.float64)
    single[:, 2] = 5
    assert (_load(single).entropy.value, _load(single).entropy.stderr) == (0.0, 0.0)


def test_standard_errors_are_those_of_many_studies() -> None:
    draw = np.random.default_rng(0)
    entropies, stderrs = [], []
    for _ in range(300):
        shares = draw.dirichlet([4.0, 2.0, 1.0, 1.0], size=60)  # each text has a taste of its own
        counts = [draw.multinomial(draw.integers(5, 30), p) for p in shares]
        entropy = _load(torch.tensor(np.array(counts), dtype=torch.float64)).entropy
        entropies.append(entropy.value)
        stderrs.append(entropy.stderr)
    assert np.mean(stderrs) == pytest.approx(np.std(entropies, ddof=1), rel=0.1)
    p = np.array([4, 2, 1, 1]) / 8
    assert np.mean(entropies) == pytest.approx(
        -np.sum(p * np.log2(p)), abs=3 * np.std(entropies) / math.sqrt(300)
    )


def test_experts_without_tokens_or_with_few_are_said() -> None:
    model = mixtral()
    with torch.no_grad():  # the last expert's logit is below all others
        gate = model.model.layers[0].mlp.gate.weight
        gate[:3], gate[3] = 0.0, 0.0
        bias = torch.ones(24)
        gate[0], gate[1] = 10 * bias, -10 * bias
        gate[2], gate[3] = 0.1 * bias, -100 * bias
    study = kw.study(model, DATA, layers="experts")
    table = study.experts()
    first = table[table["layer"] == "model.layers.0.mlp.experts"]
    given = first["vectors"].tolist()
    assert sum(given) == 160
    assert first["share"].sum() == pytest.approx(1)
    assert first["few"].tolist()[given.index(min(given))]
    load = study.loads().iloc[0]
    p = np.array(given) / 160
    plain = -np.sum(p[p > 0] * np.log2(p[p > 0]))
    assert load["load_entropy"] == pytest.approx(plain, abs=0.05)
    assert load["effective_experts"] == pytest.approx(2 ** load["load_entropy"])
    assert (load["experts"], load["vectors"]) == (4, 160)
    assert (load["largest_share"], load["smallest_share"]) == (p.max(), p.min())
    assert any(
        "few tokens, or tokens of few samples, were routed to experts" in each for each in study.warnings
    )


def test_an_unused_expert() -> None:
    model = mixtral()
    x = DATA[0]["input_ids"]
    with torch.no_grad():
        for layer in model.model.layers:
            layer.input_layernorm.weight.fill_(1)
        gate = model.model.layers[0].mlp.gate.weight
        gate.copy_(torch.tensor([[1.0], [2.0], [0.0], [0.0]]) * torch.ones(24))
        gate[2:] = -gate[:2]  # logits (s, 2s, −s, −2s): the first two, or the last two
    study = kw.study(model, [{"input_ids": x[:, :1]}], layers="*.0.mlp.experts:expert")
    used = study.experts()["vectors"]
    assert int(used.sum()) == 2 * len(x)
    for other in (used[:2], used[2:]):
        assert other.nunique() == 1
    both = study + study
    assert both.experts()["vectors"].tolist() == (2 * used).tolist()
    alone = kw.study(model, [{"input_ids": x[:1, :1]}], layers="*.0.mlp.experts:expert")
    assert alone.loads()["unused"].item() == 2
    assert any("no token was routed to experts" in each for each in alone.warnings)
    assert kw.study(model, [{"input_ids": x}], layers="blocks").experts().empty


def test_it_is_saved(tmp_path) -> None:  # type: ignore[no-untyped-def]
    study = kw.study(mixtral(), DATA, layers="experts")
    study.save(tmp_path / "study.safetensors")
    loaded = kw.Study.load(tmp_path / "study.safetensors")
    assert loaded.experts().equals(study.experts())
    assert loaded.loads().equals(study.loads())
