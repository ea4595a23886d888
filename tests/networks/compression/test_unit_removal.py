"""Units removed with the next layer repaired: closed forms, the best subsets by trying all, sound networks."""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from ketwork.networks.activations import Batch
from ketwork.networks.compression import Compressed, compress, load_compressed
from ketwork.networks.compression.calibration import calibrate
from ketwork.networks.compression.covariance import Scatter
from ketwork.networks.compression.descent import Descent, Item
from ketwork.networks.compression.factors import Metric
from ketwork.networks.compression.fits import Fits
from ketwork.networks.compression.layers import weight_layers
from ketwork.networks.compression.surgery import replace
from ketwork.networks.compression.survey import run_survey
from ketwork.networks.compression.unit_codes import MIXED
from ketwork.networks.compression.unit_discovery import FIXED, LOST, OUTPUT, feeds
from ketwork.networks.compression.unit_feeds import Feed, staying_of
from ketwork.networks.compression.unit_order import Order, Reader, ordered, repaired, staying
from ketwork.networks.compression.unit_removal import Narrowing


def reader(x: Tensor, weight: Tensor, *, fisher: Tensor | None = None, block: int = 1) -> Reader:
    columns = torch.arange(x.shape[1]).reshape(-1, block)
    metric = Metric.none(weight) if fisher is None else Metric.of(fisher)
    return Reader(weight, Scatter.of(x), metric, columns)


def mended(one: Reader, kept: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    return repaired(one.weight, bias, one.inputs, staying(one.columns, kept, one.weight.shape[1]))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def least_squares(x: Tensor, weight: Tensor, stay: Tensor) -> float:
    """The least E ‖W x − W′ x_S − b‖², by an ordinary regression."""
    x = x - x.mean(0)
    y = x @ weight.T
    rest = y - x[:, stay] @ torch.linalg.lstsq(x[:, stay], y, driver="gelsd").solution
    return float(rest.square().sum() / len(x))


def test_what_says_nothing_of_its_own_goes_first_and_costs_nothing() -> None:
    x = draw(200, 8)
    x[:, 5] = x[:, 0]  # a duplicate
    x[:, 6] = 3.0  # dead: a constant
    x[:, 7] = 2 * x[:, 1] - x[:, 2] + 1  # a linear combination
    one = reader(x, draw(4, 8, seed=1))
    order = ordered([one])
    assert 6 not in order.kept(5)
    assert order.error(5) < 1e-7 * order.error(0)
    assert order.error(4) > 1e-2 * order.error(0)
    kept = order.kept(5)
    assert len({0, 5} & set(kept.tolist())) == 1
    assert len({1, 2, 7} & set(kept.tolist())) == 2
    bias = draw(4, seed=2)
    weight, shift = mended(one, kept, bias)
    torch.testing.assert_close(x[:, kept] @ weight.T + shift, x @ one.weight.T + bias, atol=1e-6, rtol=1e-6)


def test_a_duplicates_weights_go_to_the_one_that_stays() -> None:
    x = draw(100, 1).repeat(1, 2)
    one = reader(x, torch.tensor([[1.0, 2.0], [3.0, -1.0]], dtype=torch.float64))
    weight, _ = mended(one, ordered([one]).kept(1), draw(2))
    torch.testing.assert_close(weight[:, 0], torch.tensor([3.0, 2.0], dtype=torch.float64))


def test_units_that_are_all_constant() -> None:
    one = reader(torch.ones(20, 3, dtype=torch.float64), draw(2, 3))
    order = ordered([one])
    assert order.error(0) == pytest.approx(0, abs=1e-12) or order.share(3) == 0
    weight, bias = mended(one, order.kept(1), torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close((weight @ torch.ones(1).double()) + bias, one.weight.sum(1))


@pytest.mark.parametrize("block", [1, 2])
def test_errors_are_those_of_the_regression_and_close_to_the_best_subsets(block: int) -> None:
    ratios = []
    for seed in range(4):
        mixed = draw(100, 8, seed=seed) @ draw(8, 8, seed=seed + 50)
        one = reader(mixed, draw(5, 8, seed=seed + 100), block=block)
        order = ordered([one])
        units = 8 // block
        for count in range(1, units):
            stay = staying(one.columns, order.kept(count), 8)
            assert order.error(count) == pytest.approx(least_squares(mixed, one.weight, stay), rel=1e-5)
            best = min(
                least_squares(mixed, one.weight, staying(one.columns, torch.tensor(subset), 8))
                for subset in combinations(range(units), count)
            )
            ratios.append(order.error(count) / best)
    assert min(ratios) > 1 - 1e-5
    assert sum(ratios) / len(ratios) < 1.1
    assert sum(ratio < 1 + 1e-5 for ratio in ratios) > 0.5 * len(ratios)


def test_the_metric_says_which_outputs_matter() -> None:
    x = draw(400, 2)
    weight = torch.diag(torch.tensor([2.0, 1.0], dtype=torch.float64))
    assert ordered([reader(x, weight)]).kept(1).tolist() == [0]
    fisher = torch.diag(torch.tensor([1.0, 100.0], dtype=torch.float64))
    assert ordered([reader(x, weight, fisher=fisher)]).kept(1).tolist() == [1]


def test_several_readers_count_together_and_other_columns_stay() -> None:
    x = draw(400, 3)
    a = Reader(torch.eye(3, dtype=torch.float64), Scatter.of(x), Metric.none(x[:3]), torch.tensor([[0], [1]]))
    b = reader(x[:, :2], torch.tensor([[0.0, 5.0]], dtype=torch.float64))
    order = ordered([a, b])
    assert order.kept(1).tolist() == [1]
    assert len(order.order) == 2
    assert staying(a.columns, order.kept(1), 3).tolist() == [1, 2]
    assert order.error(1) == pytest.approx(least_squares(x, a.weight, torch.tensor([1, 2])), rel=1e-5)
    # Of none, what the third column says stays known to the first reader.
    rest = least_squares(x, a.weight, torch.tensor([2])) + 25 * float(x[:, 1].var(correction=0))
    assert order.error(0) == pytest.approx(rest, rel=1e-5)


def found(net: nn.Module, data: Tensor | dict[str, Tensor]) -> list[Feed]:
    layers, _ = weight_layers(net)
    size = len(data) if isinstance(data, Tensor) else len(next(iter(data.values())))

    def rows(model: nn.Module, batch: Batch) -> tuple[Tensor, ...]:
        out = model(**batch.content) if isinstance(batch.content, dict) else model(batch.content)
        return ((out if isinstance(out, Tensor) else out.logits).flatten(0, -2),)

    return feeds(net.eval(), layers, rows, Batch(data, None, (), size))[0]


def named(of: list[Feed]) -> dict[tuple[str, ...], dict[str, tuple[int, ...]]]:
    return {tuple(feed.sources): {p: tuple(c.shape) for p, c in feed.readers.items()} for feed in of}


class Residual(nn.Module):
    """A residual block whose inner layer alone has units of its own, after a normalisation over channels."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(4, 8), nn.Linear(8, 5)
        self.a, self.b = nn.Linear(8, 12), nn.Linear(12, 8)
        self.norm = nn.LayerNorm(8) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + self.b(self.a(self.norm(x)).relu()))


class Fixed(nn.Module):
    """A network whose code reckons with a number of features: 8."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.inner, self.head = nn.Conv2d(1, 2, 3), nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(self.conv(x).view(-1, 8)).relu())


class Branching(nn.Module):
    """Two layers read one, and what a third makes of the mean over units as well."""

    def __init__(self, mean: bool) -> None:
        super().__init__()
        self.first, self.left, self.right = nn.Linear(4, 6), nn.Linear(6, 3), nn.Linear(6, 3)
        self.mean = mean

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).tanh()
        out = self.left(x) + self.right(x)
        return out + x.mean(-1, keepdim=True) if self.mean else out


class Joined(nn.Module):
    """Two layers' outputs side by side, read position by position by a third."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv1d(2, 3, 1), nn.Conv1d(2, 4, 1), nn.Linear(7 * 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([self.b(x).relu(), self.a(x)], 1).mT.flatten(1))


def test_units_are_found_through_activations_pooling_and_flattening() -> None:
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3), nn.GELU(), nn.Dropout2d(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 10), nn.PReLU(), nn.Linear(10, 3),
    )  # fmt: skip
    feed = found(net, torch.randn(20, 1, 12, 12))
    assert named(feed) == {("0",): {"3": (4, 9)}, ("3",): {"8": (6, 4)}, ("8",): {"10": (10, 1)}}
    assert feed[1].readers["8"][2].tolist() == [8, 9, 10, 11]


def test_a_sum_ties_units_together_and_a_normalisation_mixes_them() -> None:
    data = torch.randn(20, 4)
    inner = {("a",): {"b": (12, 1)}}
    assert named(found(Residual(norm=True), data)) == inner
    assert named(found(Residual(norm=False), data)) == {**inner, ("stem", "b"): {"a": (8, 1), "head": (8, 1)}}


def test_units_that_something_else_reads_are_left() -> None:
    data = torch.randn(20, 4)
    assert named(found(Branching(mean=True), data)) == {}
    assert named(found(Branching(mean=False), data)) == {("first",): {"left": (6, 1), "right": (6, 1)}}
    assert named(found(Fixed(), torch.randn(20, 1, 4, 4))) == {("inner",): {"head": (6, 1)}}


def test_columns_of_units_side_by_side() -> None:
    net = Joined()
    feed = found(net, torch.randn(20, 2, 5))
    columns = {one.path: one.readers["head"] for one in feed}
    assert columns["b"][1].tolist() == [1, 8, 15, 22, 29]
    assert columns["a"][0].tolist() == [4, 11, 18, 25, 32]
    layers = {layer.path: layer for layer in weight_layers(net)[0]}
    stay = staying_of(feed, {"a": torch.tensor([2]), "b": torch.tensor([0, 3])}, layers)
    assert stay.rows["b"].tolist() == [0, 3]
    assert stay.columns["head"].tolist() == [0, 3, 6, 7, 10, 13, 14, 17, 20, 21, 24, 27, 28, 31, 34]


SMALL = {"vocab_size": 50, "bos_token_id": 0, "eos_token_id": 0}
SIZES = {"hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 4}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_in_transformers_heads_and_the_inner_units_of_the_feed_forward_parts_are_found(
    attention: str,
) -> None:
    data = {"input_ids": torch.randint(0, 50, (16, 9))}
    gpt = GPT2LMHeadModel(
        GPT2Config(n_layer=1, n_embd=16, n_head=2, attn_implementation=attention, **SMALL)
    )  # its code reckons with a width of 16
    assert named(found(gpt, data)) == {("transformer.h.0.mlp.c_fc",): {"transformer.h.0.mlp.c_proj": (64, 1)}}
    parts = ("model.layers.0.self_attn", "model.layers.0.mlp")
    for groups, shape in ((4, (4, 8)), (2, (2, 16))):  # keys and values of each head, or of two together
        config = LlamaConfig(**SIZES, **SMALL, num_key_value_heads=groups, attn_implementation=attention)
        of = found(LlamaForCausalLM(config), data)
        assert named(of) == {
            tuple(f"{parts[0]}.{name}_proj" for name in "qkv"): {f"{parts[0]}.o_proj": shape},
            (f"{parts[1]}.gate_proj", f"{parts[1]}.up_proj"): {f"{parts[1]}.down_proj": (24, 1)},
        }
        [heads] = [feed for feed in of if feed.path.endswith("q_proj")]
        rows = {path[-6]: tuple(own.shape) for path, own in heads.sources.items()}
        assert rows == {"q": (groups, 32 // groups), "k": (groups, 8), "v": (groups, 8)}
        assert all(torch.equal(own.flatten(), torch.arange(own.numel())) for own in heads.sources.values())


class Attention(nn.Module):
    """Fused heads of four numbers over so many tokens, as many as come unless `heads` says how many.

    `wiping` lets no NaN out of them.
    """

    def __init__(self, wiping: bool = False, heads: int = -1) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(16, 16) for _ in range(4))
        self.wiping, self.heads = wiping, heads

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part(x).unflatten(-1, (self.heads, 4)).transpose(-3, -2) for part in (self.q, self.k, self.v)
        )
        x = nn.functional.scaled_dot_product_attention(q, k, v).transpose(-3, -2).flatten(-2)
        return self.out(x.nan_to_num() if self.wiping else x)


@pytest.mark.parametrize("tokens", [1, 3, 9, 17])
def test_heads_of_fused_attention_are_found_whatever_the_processor(tokens: int) -> None:
    """Of fewer tokens than a processor's vectors have numbers (at least 4) fused kernels make 0 of NaN."""
    heads = {("q", "k", "v"): {"out": (4, 4)}}
    assert named(found(Attention(), torch.randn(10, tokens, 16))) == heads


def test_why_units_stay_is_said() -> None:
    torch.manual_seed(0)
    data = torch.randn(60, 3, 16)
    [lost] = compress(Attention(wiping=True), data, keep=0.9, multiple_of=1).warnings
    assert lost.startswith("No neurons, channels or attention heads that can be removed were found")
    assert f"q: {LOST}; k: {LOST}; v: {LOST}; and 1 more" in lost
    some = nn.Sequential(Attention(wiping=True), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 4))
    [lost] = compress(some, data, keep=0.9, multiple_of=1).warnings
    assert lost == f"No units were removed of some layers (0.q: {LOST}; 0.k: {LOST}; 0.v: {LOST})."
    single = nn.Sequential(nn.Linear(16, 8))
    assert compress(single, data, keep=0.9, multiple_of=1).warnings == ()
    sums = Residual(norm=True)
    layers, _ = weight_layers(sums)
    _, why = feeds(
        sums.eval(), layers, lambda net, batch: net(batch.content), Batch(torch.randn(20, 4), None, (), 20)
    )
    assert why == {"stem": MIXED, "b": FIXED, "head": OUTPUT}


class Groups(nn.Module):
    """Channels in groups of three that a normalisation mixes; `fixed` has numbers for each of them, which stay."""

    def __init__(self, fixed: bool) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 12), nn.Linear(12, 4)
        self.norm = nn.GroupNorm(4, 12) if fixed else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x))
        return self.last(x.unflatten(-1, (-1, 3)).softmax(-1).flatten(-2))


def test_rows_that_are_mixed_with_some_others_alone_are_one_unit() -> None:
    [feed] = found(Groups(fixed=False), torch.randn(20, 5))
    assert feed.sources["first"].tolist() == feed.readers["last"].tolist()
    assert feed.sources["first"].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    [feed] = found(
        Groups(fixed=True), torch.randn(20, 5)
    )  # whole groups, with what the normalisation has for them
    assert [own.tolist() for own in feed.carriers.values()] == [
        [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    ]


class Uneven(nn.Module):
    """Sums of units with those of other layers: of some units alone, or of unlike numbers of them."""

    def __init__(self, overlapping: bool) -> None:
        super().__init__()
        self.a, self.b, self.c, self.head = nn.Linear(4, 8), nn.Linear(4, 4), nn.Linear(4, 3), nn.Linear(8, 2)
        self.overlapping = overlapping

    def forward(self, x: Tensor) -> Tensor:
        if not self.overlapping:
            return self.head(self.a(x) + nn.functional.pad(self.b(x), (0, 4)))
        b, c, none = self.b(x).repeat_interleave(2, 1), self.c(x), torch.zeros(len(x), 1)
        c = torch.cat([none, c[:, [0, 0]], none, c[:, [1, 1, 2, 2]]], 1)  # ties the first two of b's pairs
        return self.head(self.a(x) + b + c)


@pytest.mark.parametrize("overlapping", [False, True])
def test_units_that_hang_together_unevenly_are_left(overlapping: bool) -> None:
    assert named(found(Uneven(overlapping), torch.randn(20, 4))) == {}


def test_nothing_removed_changes_nothing_and_hooks_are_gone() -> None:
    torch.manual_seed(0)
    net, data = Residual(norm=True), torch.randn(20, 4)
    before = net(data)
    feed = found(net, data)
    assert torch.equal(net(data), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    layers = {layer.path: layer for layer in weight_layers(net)[0]}
    stay = staying_of(feed, {"a": torch.arange(12)}, layers)
    small = {p: layers[p].narrowed(stay.rows.get(p), stay.columns.get(p)).module for p in ("a", "b")}
    replace(net, small)
    torch.testing.assert_close(net(data), before)


def test_the_order_reads_well() -> None:
    order = Order(torch.tensor([2, 0, 1]), torch.tensor([4.0, 1.0, 0.5, 0.0]))
    assert order.kept(2).tolist() == [0, 2]
    assert (order.error(1), order.share(1)) == (1.0, 0.25)


# From here on, whole networks through `compress`


class Twins(nn.Module):
    """A trained-like network every unit of which stands twice: half of them say nothing."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.last = nn.Linear(20, 64), nn.Linear(64, 48), nn.Linear(48, 5)
        with torch.no_grad():
            for layer in (self.first, self.second):
                half = layer.out_features // 2
                layer.weight[half:], layer.bias[half:] = layer.weight[:half], layer.bias[:half]
            self.last.weight *= 5

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.first(x).relu()).relu())


def test_what_the_survey_knows_is_cut_to_the_units_that_stay() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3)).eval()
    net.requires_grad_(False)
    gathered = calibrate(net, draw(100, 6).float(), samples=None, batch_size=25)
    layers, _ = weight_layers(net)
    fed, _ = feeds(net, layers, gathered.rows, gathered.fit[0])
    known = run_survey(
        net, layers, gathered, torch.Generator(), {path for feed in fed for path in feed.readers}
    )
    narrowing = Narrowing(net, Fits(layers, known), fed)
    kept = narrowing.order(fed[0]).kept(4)
    fits = narrowing.narrowed({"0": 4})
    assert [(layer.m, layer.k) for layer in fits.layers] == [(4, 6), (5, 4), (3, 5)]
    whole, part = known.layers, fits.survey.layers
    assert torch.equal(part["0"].fisher, whole["0"].fisher[kept][:, kept])
    assert torch.equal(part["2"].fisher, whole["2"].fisher)
    assert torch.equal(part["2"].scatter.total, whole["2"].scatter.total[kept][:, kept])
    assert torch.equal(fits.layers[0].weight(), layers[0].weight()[kept])


def test_units_that_stand_twice_are_removed_at_no_harm_and_the_file_brings_the_network_back(
    tmp_path: Path,
) -> None:
    net, x = Twins().eval(), torch.randn(400, 20)
    halves = 20 * 32 + 32 + 32 * 24 + 24 + 24 * 5 + 5
    whole = 20 * 64 + 64 + 64 * 48 + 48 + 48 * 5 + 5
    result = compress(net, x, keep=halves / whole, multiple_of=1)
    kl = {tried.name: tried.kl for tried in result.candidates}
    assert kl["removal"] < 1e-9
    assert min(kl[name] for name in kl if "remov" not in name) > 1e-4
    assert "removal" in result.chosen
    assert result.after.parameters <= halves
    torch.testing.assert_close(result.model(x), net(x), atol=1e-4, rtol=1e-4)
    table = result.table().set_index("layer")
    if result.chosen == "removal":
        assert table["units"].dropna().to_dict() == {"first": 32, "second": 24}
        assert isinstance(result.model.first, nn.Linear)
    result.save(tmp_path / "small.safetensors")
    back = load_compressed(str(tmp_path / "small.safetensors"), Twins())
    assert torch.equal(back.eval()(x), result.model(x))
    assert net.first.out_features == 64


def test_layers_all_of_whose_units_must_stay_say_why() -> None:
    """Heads that no other layer mixes, in code that reckons with four of them."""
    torch.manual_seed(0)
    net = nn.Sequential(Attention(heads=4), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 4))
    result = compress(net, torch.randn(60, 3, 16), keep=0.7, multiple_of=1)
    for name in ("0.q", "0.k", "0.v"):
        assert what_became(result, name).endswith(f"no units removed: {FIXED}")
    assert FIXED not in what_became(result, "0.out")


def what_became(result: Compressed, ending: str) -> str:
    table = result.table().set_index("layer")["reason"]
    return str(table[table.index.str.endswith(ending)].item())


def test_heads_that_stand_twice_are_removed_at_no_harm(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = BertConfig(vocab_size=50, **{**SIZES, "hidden_size": 64})
    net = BertModel(config, add_pooling_layer=False).eval()
    parts = net.encoder.layer[0].attention
    with torch.no_grad():
        for layer in (parts.self.query, parts.self.key, parts.self.value):
            layer.weight.mul_(10)
            layer.weight[32:], layer.bias[32:] = layer.weight[:32], layer.bias[:32]
        parts.output.dense.weight.mul_(10)
    data = {"input_ids": torch.randint(0, 50, (200, 9))}
    whole = sum(p.numel() for p in net.parameters())
    halves = whole - 3 * (32 * 64 + 32) - 32 * 64  # two of four heads
    result = compress(net, data, keep=halves / whole)
    kl = {tried.name: tried.kl for tried in result.candidates}
    if transformers.__version__.startswith("4."):  # whose code of BERT reckons with the number of heads
        assert "removal" not in kl
        assert what_became(result, "self.query").endswith(f"no units removed: {FIXED}")
        return
    assert kl["removal"] < 1e-9
    assert min(kl[name] for name in kl if "remov" not in name) > 1e-4
    assert result.after.parameters <= halves
    units = result.table().set_index("layer")["units"].dropna()
    assert set(units) == {32}
    assert {path.rpartition(".")[2] for path in units.index} == {"query", "key", "value"}
    heads = result.table().set_index("layer").loc[units.index, "reason"]
    assert heads.str.contains("2 of 4 blocks of 16 units kept").all()
    torch.testing.assert_close(
        result.model(**data).last_hidden_state, net(**data).last_hidden_state, atol=1e-4, rtol=1e-4
    )
    result.save(tmp_path / "small.safetensors")
    back = load_compressed(str(tmp_path / "small.safetensors"), BertModel(config, add_pooling_layer=False))
    assert torch.equal(back.eval()(**data)[0], result.model(**data)[0])


def test_channels_of_a_trained_network_are_removed(
    digit_network: nn.Module, mnist: tuple[Tensor, Tensor]
) -> None:
    images, labels = mnist
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    images, labels = images[order], labels[order]
    result = compress(digit_network, images[:600], keep=0.5, cost="macs", layers="conv_layers.*")
    by_name = {tried.name: tried for tried in result.candidates}
    removed = by_name["removal"]
    assert removed.cost <= 0.5 * result.before.multiply_adds
    assert removed.kl < 0.05
    images, labels = images[600:2600], labels[600:2600]
    with torch.no_grad():
        right = [(net(images).argmax(1) == labels).double().mean() for net in (digit_network, result.model)]
    assert right[1] > right[0] - 0.005
    assert result.after.multiply_adds <= 0.5 * result.before.multiply_adds


def test_the_descent_keeps_to_its_budget_and_comes_close_to_the_best_of_all_choices() -> None:
    draw_of = torch.Generator().manual_seed(0)
    widths = {"a": 4, "b": 5, "c": 3}
    for _ in range(20):
        errors = {
            name: [0.0, *torch.rand(width - 1, generator=draw_of).cumsum(0).square().tolist()]
            for name, width in widths.items()
        }
        items = [
            Item(("units", name), dict(enumerate(errors[name])), touches)
            for name, touches in (("a", ("1", "2")), ("b", ("2", "3")), ("c", ("3",)))
        ]

        def price(layer: str, chosen: Mapping[tuple[str, str], int | None]) -> float:
            a, b, c = (widths[name] - (chosen["units", name] or 0) for name in "abc")
            return {"1": 7.0 * a, "2": float(a * b), "3": float(b * c)}[layer]

        room = 30.0
        chosen = Descent(items, ["1", "2", "3"], price).to(room)
        assert chosen is not None
        assert sum(price(layer, chosen) for layer in "123") <= room
        every = [
            {("units", "a"): a, ("units", "b"): b, ("units", "c"): c}
            for a in range(4) for b in range(5) for c in range(3)
        ]  # fmt: skip
        best = min(
            sum(errors[name][one["units", name]] for name in "abc")
            for one in every
            if sum(price(layer, one) for layer in "123") <= room
        )
        found_error = sum(errors[name][chosen["units", name] or 0] for name in "abc")
        assert found_error <= 1.6 * best + 1e-9
    assert Descent(items, ["1", "2", "3"], price).to(3.0) is None
