"""What changed between two models: layers of one name with their weights, from the record and from files of it."""

import copy
import json
import math
from pathlib import Path

import pandas as pd
import peft
import pytest
import torch
from torch import nn

import ketwork as kw
from ketwork.records import read_parts, write_parts

X = torch.randn(200, 12, generator=torch.Generator().manual_seed(0))


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 20), nn.Tanh(), nn.Sequential(nn.Linear(20, 8), nn.Linear(8, 5)))


def scaled(network: nn.Sequential, factor: float = 1.5) -> nn.Sequential:
    after = copy.deepcopy(network)
    with torch.no_grad():
        after[2][0].weight.mul_(factor)
    return after


def test_layers_stand_side_by_side_with_their_weights() -> None:
    before = network()
    after = scaled(before)
    comparison = kw.compare(before, X, after, layers="all")
    frame = comparison.changes()
    assert [*frame.index] == ["0", "1", "2.0", "2"]
    for name in frame.index:
        for measure in ("cka", "bures", "r2"):
            assert frame.loc[name, measure] == comparison.frame(measure).loc[name, name]
            assert frame.loc[name, f"{measure}_stderr"] == comparison.stderr(measure).loc[name, name]
    old = before[2][0].weight.detach()
    inside = [*before[2].parameters()]
    total = math.sqrt(sum(float(each.detach().square().sum()) for each in inside))
    own = math.sqrt(float(old.square().sum() + before[2][0].bias.detach().square().sum()))
    expected = {"0": 0.0, "2.0": 0.5 * float(old.norm()) / own, "2": 0.5 * float(old.norm()) / total}
    for name, value in expected.items():
        assert frame.loc[name, "weight_change"] == pytest.approx(value, rel=1e-5)
    assert [*frame["weight_rank"].astype(object)] == [0, pd.NA, 8, 8]
    assert frame.loc["2", "weight"] == "2.0.weight"
    assert pd.isna(frame.loc["0", "weight"])
    assert frame.loc["1", "reason"] == "it has no weights of its own"
    assert comparison.changes(by="weight_change").index[0] == "2.0"
    assert comparison.changes(by="cka")["cka"].is_monotonic_increasing
    assert comparison.changes(by="cka_distance")["cka_distance"].is_monotonic_decreasing
    assert comparison.settings["before"] == "model"
    swapped = kw.compare(after, X, before, layers="all").changes()
    assert swapped.loc["2", "weight_change"] < expected["2"]  # relative to the larger weights


def test_networks_that_are_the_same_have_not_changed() -> None:
    frame = kw.compare(network(), X, network()).changes()
    assert frame["weight_change"].dropna().tolist() == [0, 0, 0]
    assert frame["weight_rank"].dropna().tolist() == [0, 0, 0]
    assert frame["cka"].tolist() == pytest.approx([1] * len(frame))


def test_the_base_of_adapters_is_what_was_before() -> None:
    base = network()
    apart = copy.deepcopy(base)
    model = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=r"0|2\.1", init_lora_weights=False))
    first, second = (kw.compare(model, X, other) for other in (base, apart))
    turned = kw.compare(apart, X, model)
    assert [each.settings["before"] for each in (first, second, turned)] == ["other", "other", "model"]
    for comparison in (first, second, turned):
        frame = comparison.changes()
        assert frame.loc[["0", "2.0", "2.1"], "weight_rank"].tolist() == [2, 0, 2]
        assert frame.loc["0", "weight"] == "0.weight"
    columns = ["weight_change", "weight_rank", "weight_effective_rank"]
    for comparison in (second, turned):
        pd.testing.assert_frame_equal(first.changes()[columns], comparison.changes()[columns], rtol=1e-4)


def test_what_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="`changes` needs a comparison of two models"):
        kw.compare(network(), X).changes()
    comparison = kw.compare(network(), X, network(1), weights=False)
    assert comparison.weights == ()
    assert comparison.changes()["weight_change"].isna().all()
    assert set(comparison.changes()["reason"]) == {"the weights were not compared"}
    with pytest.raises(
        ValueError, match=r"Argument `by` must be one of cka, .*, weight_change or None, but is 'x'"
    ):
        comparison.changes(by="x")


def test_records_keep_the_weights_and_older_ones_load(tmp_path: Path) -> None:
    comparison = kw.compare(network(), X, scaled(network()))
    comparison.save(tmp_path / "c.safetensors")
    loaded = kw.Comparison.load(tmp_path / "c.safetensors")
    pd.testing.assert_frame_equal(loaded.changes(), comparison.changes(), check_exact=True)
    tensors, header = read_parts(tmp_path / "c.safetensors", "comparison", 2)
    assert json.loads(json.dumps(header))["weights"][0]["name"] == "0.weight"
    del header["weights"]
    schema = header.pop("schema")
    for name in ("kind", "ketwork"):
        header.pop(name, None)
    write_parts(tmp_path / "old.safetensors", "comparison", schema, tensors, header)
    old = kw.Comparison.load(tmp_path / "old.safetensors")
    assert old.weights == ()
    pd.testing.assert_frame_equal(
        old.changes()[["cka", "cka_stderr"]], comparison.changes()[["cka", "cka_stderr"]], check_exact=True
    )


@pytest.mark.slow
def test_a_block_of_a_sentence_transformer(minilm: Path, sms: Path) -> None:
    transformers = pytest.importorskip("transformers")
    before = transformers.AutoModel.from_pretrained(minilm).eval()
    after = copy.deepcopy(before)
    generator = torch.Generator().manual_seed(0)
    changed = after.encoder.layer[3].intermediate.dense.weight
    delta = 0.02 * torch.randn(1536, 5, generator=generator) @ torch.randn(5, 384, generator=generator)
    with torch.no_grad():
        changed.add_(delta)
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    texts = pd.read_csv(sms)["text"].tolist()[:64]
    batches = [
        dict(tokenizer(texts[i : i + 16], padding=True, return_tensors="pt")) for i in range(0, 64, 16)
    ]
    frame = kw.compare(before, batches, after, layers="blocks").changes()
    blocks = [f"encoder.layer.{i}" for i in range(6)]
    assert [*frame.index] == blocks
    assert frame["weight_change"].gt(0).tolist() == [i == 3 for i in range(6)]
    assert frame["weight_rank"].tolist() == [0, 0, 0, 5, 0, 0]
    assert frame.loc[blocks[3], "weight"] == "encoder.layer.3.intermediate.dense.weight"
    whole = sum(float(p.detach().square().sum()) for p in before.encoder.layer[3].parameters())
    assert frame.loc[blocks[3], "weight_change"] == pytest.approx(
        float(delta.norm()) / math.sqrt(whole), rel=1e-5
    )
    assert frame["cka"].iloc[:3].tolist() == pytest.approx([1] * 3, abs=1e-6)
    assert (1 - frame["cka"].iloc[3:] > 2 * frame["cka_stderr"].iloc[3:]).all()
    assert frame["cka"].idxmin() in blocks[3:]
