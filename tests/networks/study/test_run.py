"""What fails in other tools of this kind, and must not fail here."""

import math
import tracemalloc
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import ketwork as kw
from ketwork.networks.activations.reading import Reading
from ketwork.networks.activations.selectors import SelectorError
from ketwork.networks.study.run import study
from ketwork.records.record import pack


def _net(*more: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.ReLU(inplace=True), nn.Linear(4, 3), *more)


def _data(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_a_name_that_matches_no_module() -> None:
    with pytest.raises(SelectorError, match=r"'layer.2' matches none"):
        study(_net(), _data(10, 5), layers="layer.2")


def test_a_smaller_last_batch_counts_by_its_samples() -> None:
    whole = study(_net(), _data(65, 5), batch_size=65)
    for batch_size in (1, 32, 64):
        parts = study(_net(), _data(65, 5), batch_size=batch_size)
        for one, other in zip(whole, parts, strict=True):
            torch.testing.assert_close(one.density.matrix(), other.density.matrix(), rtol=0, atol=1e-7)
            assert one.N == other.N == 65


def test_an_in_place_relu_overwrites_nothing() -> None:
    network, x = _net(), _data(200, 5)
    record = study(network, x)
    before = network[0](x).detach().double()
    kets = before / before.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(record["0"].density.matrix(), kets.T @ kets / 200, rtol=0, atol=1e-6)
    assert record["1"].norm.value == pytest.approx(
        float(before.relu().norm(dim=-1).sum()) / record["1"].kets, rel=1e-6
    )


def test_memory_is_flat_over_a_thousand_batches() -> None:
    def stream() -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(0)
        for _ in range(1000):
            yield torch.randn(8, 6, 5, generator=generator)

    held: list[int] = []

    def watch(samples: int) -> None:
        if samples in (800, 8000):
            held.append(tracemalloc.get_traced_memory()[0])

    network = _net()
    tracemalloc.start()
    record = study(network, stream(), progress=watch)
    tracemalloc.stop()
    assert record["0"].kets == 48_000
    assert held[1] < 1.05 * held[0] + 20_000  # Python's own objects
    few = study(network, _data(800, 6, 5), batch_size=8)
    assert _bytes(record["0"]) == _bytes(few["0"])  # and the tensors


def _tensors(layer: object) -> list[Tensor]:
    assert isinstance(layer, kw.Layer)
    return list(pack(layer.accumulator)[1].values())


def _bytes(layer: object) -> int:
    return sum(t.untyped_storage().nbytes() for t in _tensors(layer))


def test_no_graph_is_kept_though_gradients_are_on() -> None:
    network = _net().train()
    with torch.enable_grad():
        record = study(network, _data(20, 5).requires_grad_())
    tensors = [t for layer in record for t in _tensors(layer)]
    assert tensors
    assert not any(t.requires_grad for t in tensors)
    assert network.training


def test_hooks_come_off_when_the_network_fails() -> None:
    network = _net(nn.Linear(7, 7))  # does not fit the layer before it
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        study(network, _data(10, 5))
    assert not any(module._forward_hooks for module in network.modules())


def test_hooks_are_not_skipped_under_compile() -> None:
    network = torch.compile(_net(), backend="eager")
    network(_data(10, 5))
    assert [layer.name for layer in study(network, _data(10, 5))] == ["0", "1", "2"]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_of_the_fast_path() -> None:
    seen: list[bool] = []

    class Spy(nn.TransformerEncoderLayer):
        def forward(self, src: Tensor, *args: object, **kwargs: object) -> Tensor:
            output = super().forward(src, *args, **kwargs)  # type: ignore[arg-type]
            seen.append(output.is_nested)
            return output

    torch.manual_seed(0)
    encoder = nn.TransformerEncoder(Spy(8, 2, 16, batch_first=True), 2)
    padding = torch.arange(5)[None] >= torch.tensor([5, 3, 2, 4])[:, None]
    record = study(encoder, _data(4, 5, 8), forward=lambda net, x: net(x, src_key_padding_mask=padding))
    assert all(seen)
    assert (record["layers.1"].N, record["layers.1"].kets) == (4, 14)


def test_a_module_called_twice_overwrites_nothing() -> None:
    shared = nn.Linear(5, 5)
    record = study(nn.Sequential(shared, nn.Tanh(), shared), _data(10, 5))
    assert record["0", 0].norm.value != record["0", 1].norm.value
    with pytest.raises(KeyError, match="No layer"):
        record["0", 2]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_activations_are_summed_in_wide_numbers(dtype: torch.dtype) -> None:
    data = (_data(20_000, 8) + 1).to(dtype)
    row = study(nn.Identity(), data, normalize="ensemble", batch_size=1000)["(model)"]
    exact = data.double().T @ data.double()
    assert row.accumulator.moment.weight == pytest.approx(float(exact.trace()), rel=1e-6)
    torch.testing.assert_close(row.density.matrix(), exact / exact.trace(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("how", ["attention_mask", "key", "array", "callable"])
def test_padding_is_no_data(how: str) -> None:
    class Embed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(20, 4)

        def forward(self, ids: Tensor, **rest: Tensor) -> Tensor:
            return self.table(ids)

    torch.manual_seed(0)
    ids = torch.randint(0, 20, (10, 6), generator=torch.Generator().manual_seed(0))
    present = torch.arange(6)[None] < torch.tensor([1, 2, 3, 4, 5, 6, 1, 2, 3, 4])[:, None]
    data = {"ids": ids}
    mask: object = None
    if how == "attention_mask":
        data["attention_mask"] = present.long()
    elif how == "key":
        data["here"], mask = present.long(), "here"
    elif how == "array":
        mask = present.numpy()
    else:
        mask = lambda batch: torch.arange(6)[None] < 1 + torch.arange(len(batch["ids"]))[:, None]  # noqa: E731
    network = Embed()
    row = study(network, data, mask=mask, batch_size=10 if how == "callable" else 4)["table"]  # type: ignore[arg-type]
    expected = network.table(ids)[present if how != "callable" else mask(data)].detach().double()
    expected = expected / expected.norm(dim=-1, keepdim=True)
    assert row.kets == len(expected)
    torch.testing.assert_close(row.density.matrix(), expected.T @ expected / len(expected), rtol=0, atol=1e-6)


def test_a_mask_of_the_wrong_shape() -> None:
    network, data = nn.Linear(5, 3), _data(10, 6, 5)
    with pytest.raises(
        ValueError, match=r"`mask` must fit the positions of a layer.*mask has 4 positions, layer .* has 6"
    ):
        study(network, data, mask=torch.ones(10, 4))
    with pytest.raises(
        ValueError, match=r"`mask` must have shape \(samples, positions\) with 10 samples.*\(7, 6\)"
    ):
        study(network, data, mask=torch.ones(7, 6))
    with pytest.raises(ValueError, match="must have shape"):
        study(network, data, mask=torch.ones(10))
    with pytest.raises(
        ValueError, match="`mask` must name a key of each batch, but is 'here'; the batch has x"
    ):
        study(network, {"x": data}, mask="here")


def test_nan_behind_the_mask_is_no_data() -> None:
    data = _data(10, 6, 5)
    present = torch.arange(6)[None] < torch.arange(1, 11)[:, None].clamp(max=6)
    last = Reading(feature_axis=-1)
    clean = study(nn.Identity(), data, mask=present, reading=last)["(model)"]
    dirty = study(nn.Identity(), data.masked_fill(~present[..., None], math.nan), mask=present, reading=last)[
        "(model)"
    ]
    for name, expected in clean.estimates.items():  # the draw of positions is the same, and so is all else
        assert (dirty.estimates[name].value, dirty.estimates[name].stderr) == pytest.approx(
            (expected.value, expected.stderr), rel=1e-5, nan_ok=True
        ), name


def test_a_collapsed_layer_has_effective_rank_one() -> None:
    row = study(nn.Identity(), torch.ones(100, 4096))["(model)"]
    assert row.effective_rank.value == pytest.approx(1, abs=1e-9)
    assert row.entropy.value == pytest.approx(0, abs=1e-9)


def test_the_bias_of_finite_data_is_shown() -> None:
    record = study(nn.Identity(), _data(100, 50))
    assert record.table()["n_per_d"].tolist() == [2.0]
    assert any(
        "Fewer than 4 independent samples per dimension in use in (model)" in warning
        for warning in record.warnings
    )
    # Random data has all dimensions; without correction half as many would show.
    assert record["(model)"].participation_ratio.value > 45
    assert 1 / float(record["(model)"].density.purity()) < 35


def test_nothing_grows_with_the_square_of_the_samples() -> None:
    row = study(nn.Identity(), _data(50_000, 3), batch_size=5000)["(model)"]
    assert _bytes(row) < 20_000


def test_every_module_that_gave_no_row_has_a_reason() -> None:
    network = _net(nn.Dropout(), nn.Flatten())
    assert study(network, _data(10, 5)).skipped == {
        "3": "Dropout does nothing in evaluation",
        "4": "Flatten only passes on or reshapes",
    }


def test_dead_and_constant_layers_are_reported_and_no_nan() -> None:
    network = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    with torch.no_grad():
        network[0].bias.fill_(-1e6)
    record = study(network, _data(30, 5))
    dead = record["1"]
    assert (dead.N, dead.kets, dead.dead.value, dead.zero.value) == (30, 0, 1.0, 1.0)
    assert str(dead.entropy) == "–"
    with pytest.raises(ValueError, match="has no state: its activations are all zero"):
        _ = dead.density
    constant = record["2"]
    assert constant.entropy.value == pytest.approx(0, abs=1e-5)
    assert constant.entropy.stderr == pytest.approx(0, abs=1e-5)
    centred = study(network, _data(30, 5), center=True)["2"]
    assert math.isnan(centred.entropy.value)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_no_numbers_are_named(bad: float) -> None:
    data = _data(20, 5)
    data[13, 2] = bad
    with pytest.raises(kw.StudyError, match="Layer '0' put out NaN or infinite values in batch 2") as raised:
        study(_net(), data, batch_size=5)
    record = raised.value.partial
    assert (record.complete, record.samples) == (False, 10)
    assert "Layer '0' put out NaN or infinite values in batch 2, sample 13 (counted from 0)" in str(
        record.error
    )
    with pytest.raises(ValueError, match="in batch 0, sample 1, 2, 3, 4, 5 and 2 more"):
        study(_net(), torch.cat([_data(1, 5), torch.full((7, 5), bad)]))


@pytest.mark.parametrize("shape", [(20, 5), (20, 6, 5)])
def test_skip_bad_drops_and_counts(shape: tuple[int, ...]) -> None:
    data = _data(*shape)
    data[3, ..., 0] = math.nan
    data[5:10] = math.inf  # a whole batch
    good = torch.tensor([i for i in range(20) if i != 3 and not 5 <= i < 10])
    record = study(_net(), data, batch_size=5, reading=Reading(skip_bad=True))
    clean = study(_net(), data[good])
    for row, expected in zip(record, clean, strict=True):
        assert (row.N, row.accumulator.dropped, row.kets) == (14, 6, expected.kets)
        torch.testing.assert_close(row.density.matrix(), expected.density.matrix(), rtol=0, atol=1e-7)
    assert record.table()["dropped"].tolist() == [6, 6, 6]
    assert "Samples skipped for NaN or infinite values: 6 at 0, 6 at 1, 6 at 2." in record.warnings


def test_one_wrong_batch_loses_nothing() -> None:
    good = _data(40, 5)
    with pytest.raises(kw.StudyError) as raised:
        study(_net(), [good[:20], good[20:], torch.ones(3, 4)])
    record = raised.value.partial
    assert (record.complete, record.samples) == (False, 40)
    assert isinstance(raised.value.__cause__, RuntimeError)
    assert record.error == (
        f"RuntimeError: {raised.value.__cause__}. It was raised in layer '0' (Linear), which takes 5 features and was "
        "given a tensor of shape (3, 4)."
    )
    whole = study(_net(), [good[:20], good[20:]])
    for row, expected in zip(record, whole, strict=True):
        assert [(e.value, e.stderr) for e in row.estimates.values() if e.stderr == e.stderr] == [
            (e.value, e.stderr) for e in expected.estimates.values() if e.stderr == e.stderr
        ]
    assert any("The pass ended early, after 40 samples: " in warning for warning in record.warnings)


def test_a_batch_that_fails_half_way_enters_no_layer() -> None:
    class Fragile(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) == 7:
                raise RuntimeError("seven")
            return x

    network = nn.Sequential(nn.Linear(5, 4), Fragile())
    with pytest.raises(kw.StudyError) as raised:
        study(network, _data(27, 5), batch_size=20)
    record = raised.value.partial
    assert [layer.N for layer in record] == [20]
    assert record.error == (
        "RuntimeError: seven. It was raised in layer '1' (Fragile), which was given a tensor of shape (7, 4)."
    )


@pytest.mark.parametrize(
    "data", [torch.empty(0, 5), [], {"x": torch.empty(0, 5)}, [torch.empty(0, 5)]], ids=str
)
def test_empty_data(data: object) -> None:
    with pytest.raises(ValueError, match="Argument `data` must hold at least one sample, but is empty"):
        study(_net(), data)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"normalize": "both"}, "Argument `normalize` must be one of"),
        ({"batch_size": 0}, "Argument `batch_size` must be at least 1, but is 0"),
        ({"max_samples": 0}, "Argument `max_samples` must be at least 1, but is 0"),
    ],
)
def test_settings_out_of_range(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        study(_net(), _data(10, 5), **settings)  # type: ignore[arg-type]


def test_calls_that_there_are_not() -> None:
    with pytest.raises(
        ValueError, match=r"Argument `calls` must be one of \('separate', 'pooled'\), but is 'all'"
    ):
        Reading(calls="all")


def test_samples_stops_inside_a_batch() -> None:
    record = study(_net(), [_data(8, 5), _data(8, 5)], max_samples=11)
    assert (record.samples, record["0"].N) == (11, 11)
