"""Samples, positions and features: which axis of an output is which, for every kind of network."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

import ketwork as kw
from ketwork.networks.activations.captures import POOLED
from ketwork.networks.activations.reading import Reading
from ketwork.networks.study.run import study


def _rho(vectors: Tensor) -> Tensor:
    """The state of vectors (n, d), in double precision."""
    kets = kw.Ket.normalized(vectors.detach().double())
    return kw.Density.from_kets(kets).matrix()


def _same(row: kw.Layer, vectors: Tensor) -> None:
    assert (row.d, row.kets) == (vectors.shape[-1], len(vectors))
    torch.testing.assert_close(row.density.matrix(), _rho(vectors), rtol=0, atol=1e-6)


def _features_first(x: Tensor) -> Tensor:
    return x.movedim(1, -1).flatten(0, -2)


class LayerNorm2d(nn.LayerNorm):
    """As in torchvision and timm: over the channels, which stay in front."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class ConvNextBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.act = nn.GELU()
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + self.down(self.act(self.up(inner))).permute(0, 3, 1, 2)


class SamePadConv(nn.Conv2d):
    """EfficientNet's convolution: a subclass with a child module."""

    def __init__(self, *args: int) -> None:
        super().__init__(*args)
        self.static_padding = nn.ZeroPad2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.static_padding(x))


def test_channels_last_blocks() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 12, 2, 2), LayerNorm2d(12), ConvNextBlock(12), ConvNextBlock(12)
    ).eval()
    x = torch.randn(5, 3, 14, 14)
    record = study(network, x, layers="all")
    stem = network[0](x)
    normed = network[1](stem)
    block = network[2]
    inner = block.up(block.norm(block.depthwise(normed).permute(0, 2, 3, 1)))
    _same(record["0"], _features_first(stem))
    _same(record["1"], _features_first(normed))
    _same(record["2.depthwise"], _features_first(block.depthwise(normed)))
    _same(record["2.up"], inner.flatten(0, -2))
    _same(record["2.act"], F.gelu(inner).flatten(0, -2))
    _same(record["2"], _features_first(block(normed)))
    _same(record["3"], _features_first(network[3](block(normed))))
    assert [record[name].info.axis for name in ("0", "1", "2.depthwise", "2.norm", "2.up", "2.act", "2")] == [
        1, 1, 1, 3, 3, 3, 1,
    ]  # fmt: skip


def test_activations_and_residual_sums_of_convolutions() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(6, 6, 3, padding=1)
            self.act = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(x + self.act(self.conv(x)))

    torch.manual_seed(0)
    network = nn.Sequential(Block(), Block(), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    x = torch.randn(7, 6, 10)
    record = study(network, x, layers="all")
    first = network[0](x)
    _same(record["0.conv"], _features_first(network[0].conv(x)))
    hidden = _features_first(F.relu(network[0].conv(x)))
    _same(record["0.act"], hidden[hidden.norm(dim=-1) > 0])
    _same(record["0"], _features_first(first)[_features_first(first).norm(dim=-1) > 0])
    _same(record["3"], network(x))
    assert [layer.info.axis for layer in record][:3] == [1, 1, 1]


@pytest.mark.parametrize("shape", [(6,), (6, 5, 5)])
def test_layer_norm_over_images_inherits_the_channels(shape: tuple[int, ...]) -> None:
    network = nn.Sequential(nn.Conv2d(2, 6, 3), nn.LayerNorm([6, 5, 5]) if len(shape) > 1 else LayerNorm2d(6))
    assert [layer.info.axis for layer in study(network, torch.randn(4, 2, 7, 7), layers="all")] == [1, 1]


def test_a_convolution_with_a_child_module_is_one_layer() -> None:
    network = nn.Sequential(SamePadConv(3, 4, 3), nn.ReLU())
    record = study(network, torch.randn(5, 3, 6, 6))
    assert (record.layers[0].name, record["0"].d, record["0"].kets) == ("0", 4, 180)
    assert record.skipped == {"0.static_padding": "a part of 0 (SamePadConv)"}


@pytest.mark.parametrize("positions", [4, 7])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM, nn.RNN])
def test_recurrent_networks(kind: type[nn.RNNBase], batch_first: bool, positions: int) -> None:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = kind(5, 6, 2, batch_first=batch_first)
            self.tags = nn.Linear(6, 3)
            self.act = nn.Tanh()

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.tags(self.rnn(x if batch_first else x.transpose(0, 1))[0]))

    torch.manual_seed(0)
    network, x = Tagger(), torch.randn(4, positions, 5)
    present = torch.arange(positions)[None] < torch.tensor([1, 4, 2, 3])[:, None]
    record = study(network, x, mask=present)
    hidden = network.rnn(x if batch_first else x.transpose(0, 1))[0]
    tags = network.act(network.tags(hidden))
    if not batch_first:
        hidden, tags = hidden.transpose(0, 1), tags.transpose(0, 1)
    _same(record["rnn"], hidden[present])
    _same(record["act"], tags[present])
    assert record["rnn"].info.leaf == "[0]"
    root = kind(5, 6, batch_first=batch_first)
    row = study(root, x, mask=present, forward=lambda net, b: net(b if batch_first else b.transpose(0, 1)))[
        "(model)"
    ]
    out = root(x if batch_first else x.transpose(0, 1))[0]
    _same(row, (out if batch_first else out.transpose(0, 1))[present])


def test_as_many_positions_as_samples_and_both_orders_in_one_network() -> None:
    class BackAndForth(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(5, 6)
            self.tags = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.tags(self.rnn(x.transpose(0, 1))[0].transpose(0, 1))

    torch.manual_seed(0)
    network, x = BackAndForth(), torch.randn(4, 4, 5)
    present = torch.arange(4)[None] < torch.tensor([1, 4, 2, 1])[:, None]
    record = study(network, x, mask=present)
    _same(record["rnn"], network.rnn(x.transpose(0, 1))[0].transpose(0, 1)[present])
    _same(record["tags"], network(x)[present])


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("samples", [5, 6])
def test_packed_sequences_count_what_exists(batch_first: bool, samples: int) -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(5, 7, batch_first=batch_first)

        def forward(self, x: Tensor, lengths: Tensor) -> object:
            return self.rnn(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))[0]

    torch.manual_seed(0)
    network, x = Packed(), torch.randn(samples, 6, 5)
    lengths = torch.tensor([2, 6, 3, 4, 5, 1][:samples])
    record = study(network, {"x": x, "lengths": lengths})
    reference = nn.LSTM(5, 7, batch_first=True)
    reference.load_state_dict(network.rnn.state_dict())
    expected = torch.cat([reference(one[None, :n])[0][0] for one, n in zip(x, lengths, strict=True)])
    _same(record["rnn"], expected)
    _same(record["(model)"], expected)
    assert record["rnn"].zero.value == 0  # what pads the sequences is not there, rather than zero


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("samples", [5, 8])
def test_transformer_encoders_with_padding(batch_first: bool, fast: bool, samples: int) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=fast and batch_first).eval()
    x = torch.randn(samples, 5, 8)
    present = torch.arange(5)[None] < torch.tensor([5, 3, 2, 4, 1, 5, 2, 3])[:samples, None]

    def forward(net: nn.Module, batch: Tensor) -> Tensor:
        return net(batch if batch_first else batch.transpose(0, 1), src_key_padding_mask=~present)

    with torch.no_grad():
        alone = torch.cat(
            [
                encoder(one[None, here] if batch_first else one[here][:, None]).reshape(-1, 8)
                for one, here in zip(x, present, strict=True)
            ]
        )
    record = study(encoder, x, forward=forward, mask=present)
    _same(record["layers.1"], alone)
    assert {layer.kets for layer in record} == {int(present.sum())}
    assert {layer.N for layer in record} == {samples}


class Decoder(nn.Module):
    """Calls its GRU twenty times."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 6, batch_first=True)
        self.out = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden, words = None, []
        word = x[:, None]
        for _ in range(20):
            state, hidden = self.gru(word, hidden)
            word = self.out(state)
            words.append(word)
        return torch.cat(words, dim=1)


def test_a_decoder_of_twenty_calls() -> None:
    torch.manual_seed(0)
    network, x = Decoder(), torch.randn(30, 4)
    separate = study(network, x, batch_size=8)
    assert [layer.call for layer in separate if layer.name == "gru"] == list(range(20))
    words = network(x)
    for call in (0, 7, 19):
        _same(separate["out", call], words[:, call])
    pooled = study(network, x, batch_size=8, reading=Reading(calls="pooled"))
    assert [(layer.name, layer.call, layer.N, layer.kets) for layer in pooled] == [
        ("gru", POOLED, 30, 600), ("out", POOLED, 30, 600), ("(model)", POOLED, 30, 600),
    ]  # fmt: skip
    _same(pooled["out"], words.flatten(0, 1))


def test_pooled_calls_outlive_what_overwrites_them() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(self.linear(x).relu_()).zero_()

    torch.manual_seed(0)
    network, x = InPlace(), torch.randn(20, 4)
    first = network.linear(x)
    expected = torch.cat([first, network.linear(first.relu())])
    _same(study(network, x, reading=Reading(calls="pooled"))["linear"], expected)


def test_a_shared_module_is_a_row_for_each_call() -> None:
    torch.manual_seed(0)
    shared = nn.Linear(4, 4)
    network, x = nn.Sequential(shared, nn.ReLU(), shared), torch.randn(40, 4)
    record = study(network, x)
    _same(record["0", 0], shared(x))
    _same(record["0", 1], network(x))
    assert [(layer.name, layer.call) for layer in record] == [("0", 0), ("1", 0), ("0", 1)]


def test_a_complex_network() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 5, dtype=torch.complex64), nn.Tanh())
    data = torch.randn(50, 4, dtype=torch.complex128)
    row = study(network, data.numpy())["1"]  # NumPy's complex128 becomes what the network takes
    kets = kw.Ket.normalized(network(data.to(torch.complex64)).detach().to(torch.complex128))
    torch.testing.assert_close(row.density.matrix(), kw.Density.from_kets(kets).matrix(), rtol=0, atol=1e-6)
    assert float(row.density.matrix().imag.abs().max()) > 0.01


class Windows(nn.Module):
    """Attention in windows of four positions, as Swin does it."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.project = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        windows = x.reshape(-1, 4, x.shape[-1])
        return self.project(self.attention(windows, windows, windows)[0]).reshape(x.shape)


def test_windows_of_a_sample_are_its_positions() -> None:
    torch.manual_seed(0)
    x = torch.randn(9, 8, 6)
    record = study(Windows(), x, batch_size=4)
    assert [(layer.name, layer.N, layer.kets) for layer in record] == [
        ("attention", 9, 72), ("project", 9, 72), ("(model)", 9, 72),
    ]  # fmt: skip
    assert record["project"].entanglement.value == pytest.approx(
        record["(model)"].entanglement.value, rel=1e-5
    )
    assert record["project"].entropy.stderr == pytest.approx(record["(model)"].entropy.stderr, rel=1e-5)


class Table(nn.Module):
    """Position embeddings of its own, (positions, features), whatever the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(8, 6))

    def forward(self, x: Tensor) -> Tensor:
        return self.table[: x.shape[1]]


class Positioned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = Table()
        self.learnt = nn.Embedding(8, 6)
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x + self.table(x) + self.learnt(torch.arange(x.shape[1])))


@pytest.mark.parametrize(("samples", "batch_size"), [(12, 12), (12, 4), (9, 8), (5, 1), (9, 2)])
def test_position_embeddings_belong_to_no_sample(samples: int, batch_size: int) -> None:
    record = study(Positioned(), torch.randn(samples, 8, 6), batch_size=batch_size)
    assert [(layer.name, layer.N, layer.kets) for layer in record] == [("out", samples, 8 * samples)]
    assert set(record.skipped) == {"table", "learnt"}
    assert all("is shared by all" in reason for reason in record.skipped.values())


def test_feature_axis_by_hand() -> None:
    x = torch.randn(5, 4, 3)
    for given in (1, {"(model)": 1}, lambda name, module, output: 1):
        _same(study(nn.Identity(), x, reading=Reading(feature_axis=given))["(model)"], _features_first(x))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Argument `feature_axis` must be an axis.*\(5, 4, 3\), but is 3"):
        study(nn.Identity(), x, reading=Reading(feature_axis=3))


def test_features_that_change_their_number() -> None:
    sizes = [torch.randn(4, 5, 3), torch.randn(4, 5, 6)]
    record = study(nn.Identity(), sizes, reading=Reading(feature_axis=2))
    assert not record.layers
    assert record.skipped["(model)"].startswith("it had 3 features and now has 6, so that axis 2")
    assert "feature_axis={'(model)': …}" in record.skipped["(model)"]
    assert study(nn.Identity(), sizes, reading=Reading(feature_axis=1))["(model)"].kets == 36


class Capped(nn.Module):
    """Scores that are squashed by a function, as in Gemma: no module says anything of what the whole puts out."""

    def __init__(self, width: int, scores: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(width, width), nn.ReLU())
        self.head = nn.Linear(width, scores)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)).tanh()


def test_what_a_function_makes_of_the_last_layer_has_the_axes_of_that_layer() -> None:
    network, x = Capped(6, 4), torch.randn(9, 6, 6)  # as many positions as inner features
    _same(study(network, x, batch_size=3)["(model)"], network(x).flatten(0, 1))
    # As many positions as scores: it may as well be transposed.
    record = study(network, torch.randn(9, 4, 6), batch_size=3)
    assert record.skipped["(model)"].startswith("nothing says which axis")


class WithLoss(Capped):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        scores = super().forward(x)
        return scores.mean(), scores, self.body(x)


def test_a_loss_beside_the_scores() -> None:
    network, x = WithLoss(6, 4), torch.randn(9, 7, 6)
    row = study(network, x, batch_size=3)["(model)"]
    assert row.leaf == "[1]"
    _same(row, network(x)[1].flatten(0, 1))


class Turned(Capped):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).mT.exp()


def test_what_lies_otherwise_than_the_last_layer_has_none_of_its_axes() -> None:
    record = study(Turned(6, 4), torch.randn(9, 6, 6), batch_size=3)
    assert record.skipped["(model)"].startswith("nothing says which axis")


class Detector(nn.Module):
    """A number for each position, as in ELECTRA."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(3, 5)
        self.head = nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)).squeeze(-1)


@pytest.mark.parametrize("positions", [(6, 6), (6, 4), (1, 1)])
def test_one_number_a_position(positions: tuple[int, int]) -> None:
    network, batches = Detector(), [torch.randn(4, length, 3) for length in positions]
    numbers = torch.cat([network(x).detach().flatten() for x in batches])
    row = study(network, batches)["(model)"]
    assert (row.d, row.N, row.kets) == (1, 8, 4 * sum(positions))
    assert row.norm.value == pytest.approx(float(numbers.abs().mean()), rel=1e-5)
    by_hand = study(network, torch.randn(4, 6, 3), reading=Reading(feature_axis={"(model)": 1}))["(model)"]
    assert (by_hand.d, by_hand.kets) == (6, 4)


class CrossAttention(nn.Module):
    """A decoder that looks at its encoder, at first hardly by what it is asked: almost the same for all questions."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = nn.Embedding(20, 6)
        self.read = nn.Sequential(nn.Embedding(20, 6), nn.Linear(6, 6))
        self.cross = nn.MultiheadAttention(6, 1, batch_first=True)
        self.out = nn.Linear(6, 5)
        with torch.no_grad():
            self.cross.in_proj_weight[:12] *= 0.03

    def forward(
        self,
        input_ids: Tensor,
        decoder_input_ids: Tensor,
        attention_mask: Tensor,
        decoder_attention_mask: Tensor,
    ) -> Tensor:
        memory = self.read(input_ids)
        return self.out(self.cross(self.asked(decoder_input_ids), memory, memory)[0])


def test_the_mask_of_a_layer_that_depends_on_its_tower_but_little() -> None:
    mask = torch.ones(6, 4, dtype=torch.long)
    mask[2, 2:] = 0
    batch = {
        "input_ids": torch.randint(20, (6, 4)),
        "decoder_input_ids": torch.randint(20, (6, 4)),
        "attention_mask": torch.ones(6, 4, dtype=torch.long),
        "decoder_attention_mask": mask,
    }
    record = study(CrossAttention(), batch)
    assert {layer.name: layer.kets for layer in record} == {
        "read.0": 24, "read.1": 24, "asked": 22, "cross": 22, "out": 22,
    }  # fmt: skip
