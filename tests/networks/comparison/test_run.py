"""`compare` on networks: units, masks, two models at once, real ones, and bad input."""

import copy
import re

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ketwork as kw

from .. import reference
from ..related import Fan, compared, related


class Tokens(nn.Module):
    """An embedding and a linear layer over positions; pads as text models do."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 6)
        self.mix = nn.Linear(6, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.mix(self.embedding(input_ids).tanh())
        weights = attention_mask[..., None] / attention_mask.sum(dim=1)[:, None, None]
        return self.head((hidden * weights).sum(dim=1))


def texts(n: int = 40, positions: int = 7) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    lengths = torch.randint(1, positions + 1, (n, 1), generator=generator)
    mask = (torch.arange(positions) < lengths).long()
    return {"input_ids": torch.randint(0, 20, (n, positions), generator=generator), "attention_mask": mask}


def test_the_unit_is_the_sample_with_its_real_positions_averaged() -> None:
    torch.manual_seed(0)
    model, data = Tokens(), texts()
    found = kw.compare(model, data, batch_size=7)
    mask = data["attention_mask"].bool()
    with torch.no_grad():
        embedded = model.embedding(data["input_ids"])
        mixed = model.mix(embedded.tanh())
    pooled = [
        np.stack([row[m].double().mean(0).numpy() for row, m in zip(layer, mask, strict=True)])
        for layer in (embedded, mixed)
    ]
    assert found.n == 40
    assert found.cka.loc["embedding", "mix"] == pytest.approx(reference.cka(*pooled), abs=1e-6)


def test_positions_makes_each_real_position_a_row() -> None:
    torch.manual_seed(0)
    model, data = Tokens(), texts()
    found = kw.compare(model, data, batch_size=7, unit="position")
    mask = data["attention_mask"].bool()
    with torch.no_grad():
        embedded = model.embedding(data["input_ids"])
        rows = [layer[mask].double().numpy() for layer in (embedded, model.mix(embedded.tanh()))]
    assert found.n == int(mask.sum())
    assert found.bures.loc["embedding", "mix"] == pytest.approx(reference.root_fidelity(*rows), abs=1e-6)
    assert "positions" in found.skipped["head"]


def test_flatten_makes_positions_features_and_padding_nothing() -> None:
    torch.manual_seed(0)
    model, data = Tokens(), texts()
    found = kw.compare(model, data, batch_size=7, unit="flat")
    mask = data["attention_mask"][..., None]
    with torch.no_grad():
        embedded = model.embedding(data["input_ids"])
        rows = [
            (layer * mask).flatten(1).double().numpy() for layer in (embedded, model.mix(embedded.tanh()))
        ]
    assert found.rows[0].d == 42
    assert found.cka.loc["embedding", "mix"] == pytest.approx(reference.cka(*rows), abs=1e-6)


def test_flatten_of_other_lengths_says_to_pad() -> None:
    uneven = [texts(10, 7), texts(10, 5)]
    with pytest.raises(kw.ComparisonError) as raised:
        kw.compare(Tokens(), uneven, unit="flat")
    found = raised.value.partial
    assert not found.complete
    assert "pad all of them to one length" in str(found.error)


def test_normalize_state_compares_kets() -> None:
    layers = related(60, [4, 9])
    data = torch.cat(layers, dim=1)
    found = kw.compare(Fan([4, 9]), data, normalize="state", batch_size=11)
    kets = [(x / x.norm(dim=1, keepdim=True)).double().numpy() for x in layers]
    assert found.cka.iloc[0, 1] == pytest.approx(reference.cka(*kets), abs=1e-6)
    assert found.bures.iloc[0, 1] == pytest.approx(reference.root_fidelity(*kets), abs=1e-6)


def test_rows_outlive_in_place_operations() -> None:
    torch.manual_seed(0)
    overwritten = nn.Sequential(nn.Linear(5, 6), nn.ReLU(inplace=True), nn.Linear(6, 3))
    kept = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    kept.load_state_dict(overwritten.state_dict())
    data = torch.randn(50, 5)
    for name in ("cka", "bures", "r2_fit"):
        one, other = (kw.compare(net, data).frame(name) for net in (overwritten, kept))
        np.testing.assert_allclose(one, other, atol=1e-12)


def test_batches_of_any_size_give_the_same(chain: nn.Module) -> None:
    data = torch.randn(45, 6, generator=torch.Generator().manual_seed(0))
    whole = kw.compare(chain, data, batch_size=45)
    pieces = kw.compare(chain, [data[:1], data[1:30], data[30:]])
    for name in whole.measures:
        np.testing.assert_allclose(whole.frame(name), pieces.frame(name), atol=1e-5)


def test_two_models_that_share_modules_and_dtype_differ(chain: nn.Module) -> None:
    data = torch.randn(80, 6)
    longer = nn.Sequential(chain, nn.Linear(4, 2))
    found = kw.compare(chain, data, longer)
    assert found.cka.loc["0", "0.0"] == pytest.approx(1, abs=1e-9)
    double = kw.compare(chain, data, copy.deepcopy(chain).double())
    np.testing.assert_allclose(np.diag(double.bures), 1, atol=1e-6)


def test_layers_that_were_not_changed_are_the_same_without_an_error() -> None:
    """As the early blocks of a fine-tuned network; also where a change turns the features alone."""
    torch.manual_seed(0)
    before = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 4))
    after = copy.deepcopy(before)
    with torch.no_grad():
        after[2].weight += 0.5 * torch.randn(4, 5)
    record = kw.compare(before, torch.randn(40, 6), other=after)
    for i, name in enumerate(("0", "1")):
        assert record.bures.loc[name, name] == pytest.approx(1.0, abs=1e-12)
        for measure in ("bures", "cka", "bures_corrected", "r2"):
            assert float(record.stderrs[measure][i, i]) == pytest.approx(0.0, abs=1e-7)
    assert record.bures.loc["2", "2"] < 0.99
    assert float(record.stderrs["bures"][2, 2]) > 0.001
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q.float()
    turned = nn.Sequential(before[0], nn.Linear(5, 5, bias=False))
    turned[1].weight.data = turn
    record = kw.compare(turned, torch.randn(40, 6))
    assert float(record.stderrs["bures"][0, 1]) == pytest.approx(0.0, abs=1e-5)


def test_models_are_left_as_they_were(chain: nn.Module) -> None:
    other = copy.deepcopy(chain).train()
    kw.compare(chain, torch.randn(20, 6), other)
    assert not chain.training
    assert all(module.training for module in other.modules())
    assert not any(module._forward_hooks for model in (chain, other) for module in model.modules())
    with pytest.raises(RuntimeError):
        kw.compare(chain, torch.randn(20, 5), other)
    assert not any(module._forward_hooks for model in (chain, other) for module in model.modules())


def test_other_data_for_the_second_model(chain: nn.Module) -> None:
    data = torch.randn(60, 6)
    found = kw.compare(chain, data, chain, other_data=data.flip(0))
    assert abs(found.cka.loc["0", "0"]) < 0.3
    same = kw.compare(chain, data, chain, other_data=data.clone())
    assert same.cka.loc["0", "0"] == pytest.approx(1)


def test_repeated_calls_are_rows_of_their_own() -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.step = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.step(self.step(x).tanh())

    found = kw.compare(Loop(), torch.randn(30, 4))
    assert [layer.name for layer in found.rows] == ["step", "step#1"]


@pytest.mark.parametrize("unit", ["sample", "flat"])
def test_a_trained_network(digit_network: nn.Module, mnist: tuple[Tensor, Tensor], unit: str) -> None:
    images = mnist[0][:300]
    found = kw.compare(digit_network, images, unit=unit)
    kept: dict[str, Tensor] = {}
    names = [*[layer.name for layer in found.rows[:3]], found.rows[-1].name]
    handles = [
        digit_network.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: kept.setdefault(name, output.clone())
        )
        for name in names
    ]
    with torch.no_grad():
        digit_network(images)
    for handle in handles:
        handle.remove()
    rows = {
        name: (x.flatten(1) if unit == "flat" or x.ndim == 2 else x.flatten(2).mean(dim=2)).double().numpy()
        for name, x in kept.items()
    }
    for a in names:
        for b in names:
            assert found.cka.loc[a, b] == pytest.approx(reference.cka(rows[a], rows[b]), abs=1e-6)
            assert found.bures.loc[a, b] == pytest.approx(reference.root_fidelity(rows[a], rows[b]), abs=1e-5)


def test_where_a_quantised_network_differs(digit_network: nn.Module, mnist: tuple[Tensor, Tensor]) -> None:
    coarse = copy.deepcopy(digit_network)
    with torch.no_grad():
        for weight in coarse.parameters():
            step = weight.abs().max() / 3
            weight.copy_((weight / step).round() * step)
    found = kw.compare(digit_network, mnist[0][:300], coarse)
    angles = np.diag(found.cka_distance)
    assert angles[0] < 0.5
    assert angles[-1] > angles[0]
    half = kw.compare(digit_network, mnist[0][:300], copy.deepcopy(digit_network).bfloat16())
    assert np.diag(half.cka).min() > 0.99


@pytest.mark.slow
def test_a_sentence_transformer(minilm, sms) -> None:
    import pandas as pd
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(minilm), AutoModel.from_pretrained(minilm)
    texts = pd.read_csv(sms)["text"].tolist()[:96]
    batches = [
        dict(tokenizer(texts[i : i + 32], padding=True, truncation=True, return_tensors="pt"))
        for i in (0, 32, 64)
    ]
    found = kw.compare(model, batches, layers="blocks")
    pooled = []
    with torch.no_grad():
        for batch in batches:
            hidden = model(**batch, output_hidden_states=True).hidden_states
            mask = batch["attention_mask"][..., None]
            pooled.append([(layer * mask).sum(1) / mask.sum(1) for layer in hidden[1:]])
    rows = [torch.cat(parts).double().numpy() for parts in zip(*pooled, strict=True)]
    assert found.cka.shape == (6, 6)
    for i in range(6):
        for j in range(6):
            assert found.cka.iloc[i, j] == pytest.approx(reference.cka(rows[i], rows[j]), abs=1e-6)


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalize": "unit"}, "`normalize` must be one of"),
        ({"measures": "cka"}, "`measures` must be some of"),
        ({"measures": ["cca"]}, "`measures` must be some of"),
        ({"measures": []}, "`measures` must be some of"),
        (
            {"unit": "flattened"},
            r"`unit` must be one of \('sample', 'position', 'flat'\), but is 'flattened'",
        ),
        ({"batch_size": 0}, "`batch_size` must be at least 1"),
        ({"max_samples": 3}, "`max_samples` must be at least 4"),
        ({"memory": 100}, "`memory` must be at least"),
        ({"other_data": torch.ones(3, 6)}, "need an `other` model, but it is None"),
    ],
)
def test_arguments(chain: nn.Module, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kw.compare(chain, torch.randn(20, 6), **options)  # type: ignore[arg-type]


def test_too_few_samples(chain: nn.Module) -> None:
    with pytest.raises(ValueError, match="must hold at least 4 samples, but holds 3"):
        kw.compare(chain, torch.randn(3, 6))
    with pytest.raises(ValueError, match="at least one sample, but is empty"):
        kw.compare(chain, torch.randn(0, 6))
    found = kw.compare(chain, torch.randn(4, 6))
    assert found.n == 4
    assert any("Fewer than 10 samples per dimension" in warning for warning in found.warnings)


def test_selectors_that_miss_name_the_model(chain: nn.Module) -> None:
    with pytest.raises(kw.SelectorError, match=r"In `other`: .*'nine' matches none"):
        kw.compare(chain, torch.randn(20, 6), chain, other_layers="nine")
    with pytest.raises(kw.SelectorError, match="In `model`"):
        kw.compare(chain, torch.randn(20, 6), chain, layers="nine")
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module"):
        kw.compare(chain, torch.randn(20, 6), "net")  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [19, 25])
def test_models_that_disagree_on_the_samples(chain: nn.Module, n: int) -> None:
    with pytest.raises(ValueError, match="`other_data` must hold the same samples as `data`"):
        kw.compare(chain, torch.randn(20, 6), chain, other_data=torch.randn(n, 6), batch_size=5)


def test_nan_is_named_by_layer_model_batch_and_sample(chain: nn.Module) -> None:
    data = torch.randn(20, 6)
    data[13, 2] = torch.nan
    message = (
        r"ValueError: Layer '0' of `model` put out NaN or infinite values in batch 1, sample 13 \(counted"
    )
    with pytest.raises(kw.ComparisonError, match=message) as raised:
        kw.compare(chain, data, batch_size=10)
    found = raised.value.partial
    assert (found.n, found.complete) == (10, False)
    assert isinstance(raised.value.__cause__, ValueError)
    assert re.match(message, found.error)
    with pytest.raises(ValueError, match="in batch 0, sample 13 "):
        kw.compare(chain, data)


def test_a_batch_that_fails_loses_only_itself(chain: nn.Module) -> None:
    def feed():
        yield torch.randn(10, 6)
        raise OSError("the disk is gone")

    with pytest.raises(kw.ComparisonError, match="OSError: the disk is gone") as raised:
        kw.compare(chain, feed())
    found = raised.value.partial
    assert (found.n, found.complete) == (10, False)
    assert "the disk is gone" in "".join(found.warnings)


def test_layers_that_say_nothing_are_left_out_with_a_reason() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.live, self.dead, self.rare = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(3, 2)
            nn.init.zeros_(self.dead.weight)

        def forward(self, x: Tensor) -> Tensor:
            self.dead(x)
            out = self.live(x)
            return self.rare(out) if bool((x[:, 0] > 0).any()) else out

    x = torch.randn(20, 4)
    x[:, 0] = x[:, 0].abs() * (1 - 2 * (torch.arange(20) // 10))  # positive in the first batch alone
    for other in (None, nn.Linear(4, 2)):
        found = kw.compare(Odd(), x, other, batch_size=10)
        start = "" if other is None else "model: "
        assert found.skipped[f"{start}dead"] == "it puts out the same for every sample"
        assert found.skipped[f"{start}rare"] == "it ran in some batches only"
        assert [layer.name for layer in found.rows] == ["live"]


def test_a_model_without_comparable_layers_says_why(chain: nn.Module) -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x.mean(0, keepdim=True))

    with pytest.raises(ValueError, match=r"No layer of `other` gave an activation .*inner: "):
        kw.compare(chain, torch.randn(20, 6), Whole())


def test_a_single_layer_has_no_pairs() -> None:
    found, form = compared([torch.randn(10, 2)])
    assert form == "rows"
    assert len(found.table()) == 0
    assert "no pair of layers has a value" in repr(found)
