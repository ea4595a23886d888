"""Units removed through what has numbers for each channel: found, cut in the right places, and described in a file."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ketwork.networks.activations import Batch
from ketwork.networks.compression import compress, load_compressed
from ketwork.networks.compression.carriers import narrowed
from ketwork.networks.compression.layers import weight_layers
from ketwork.networks.compression.unit_codes import NotSeparateError, codes_of, places_of
from ketwork.networks.compression.unit_discovery import feeds
from ketwork.networks.compression.unit_feeds import Feed


def found(net: nn.Module, x: Tensor) -> list[Feed]:
    return feeds(
        net.eval(),
        weight_layers(net)[0],
        lambda model, b: (model(b.content).flatten(0, -2),),
        Batch(x, None, (), len(x)),
    )[0]


BETWEEN: dict[str, Callable[[], list[nn.Module]]] = {
    "BatchNorm after ReLU": lambda: [nn.ReLU(), nn.BatchNorm2d(12)],
    "InstanceNorm": lambda: [nn.InstanceNorm2d(12, affine=True)],
    "PReLU": lambda: [nn.PReLU(12)],
    "depthwise": lambda: [nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.ReLU()],
    "depthwise, twice": lambda: [
        nn.Conv2d(12, 12, 3, groups=12),
        nn.BatchNorm2d(12),
        nn.Conv2d(12, 12, 3, groups=12),
    ],
}


@pytest.mark.parametrize("name", BETWEEN)
def test_channels_go_through(name: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 12, 3), *BETWEEN[name](), nn.Conv2d(12, 5, 3), nn.Flatten())
    [feed] = found(net, torch.randn(20, 3, 12, 12))
    assert feed.units == 12
    assert {path: tuple(own.shape) for path, own in feed.readers.items()} == {str(len(net) - 2): (12, 9)}
    assert all(own[:, 0].tolist() == list(range(12)) for own in feed.carriers.values())


def test_groups_go_as_a_whole() -> None:
    torch.manual_seed(0)
    x = torch.randn(20, 3, 12, 12)
    for between in (nn.GroupNorm(4, 12), nn.Conv2d(12, 24, 3, groups=4)):
        wide = 24 if isinstance(between, nn.Conv2d) else 12
        net = nn.Sequential(nn.Conv2d(3, 12, 3), between, nn.ReLU(), nn.Conv2d(wide, 5, 3), nn.Flatten())
        [feed] = found(net, x)
        assert feed.sources["0"].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
        small = narrowed(between, "", next(iter(feed.carriers.values()))[[0, 2]].flatten())
        kept = [0, 1, 2, 6, 7, 8]
        y = torch.randn(2, 12, 5, 5)
        rows = kept if wide == 12 else [*range(6), *range(12, 18)]
        torch.testing.assert_close(small(y[:, kept]), between(y)[:, rows])
        with pytest.raises(ValueError, match="whole groups"):
            narrowed(between, "", torch.tensor([0, 1, 6]))


def test_taps_that_only_meet_padding_are_no_obstacle() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 6, 3, padding=1), nn.Flatten()
    )  # fmt: skip
    [feed] = found(net, torch.randn(20, 3, 6, 6))
    assert feed.readers["2"].tolist() == [list(range(9 * i, 9 * i + 9)) for i in range(8)]


class Same(nn.Conv2d):
    """A convolution with a forward of its own: it pads as its input needs."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        size = self.kernel_size[0] - 1
        return F.conv2d(
            F.pad(input, (0, size, 0, size)), self.weight, self.bias, self.stride, 0, 1, self.groups
        )


class Standardized(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(input, weight / weight.std((1, 2, 3), keepdim=True), self.bias)


def subclasses() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        Same(3, 16, 3), nn.ReLU(), Same(16, 32, 1), nn.ReLU(), Same(32, 32, 3, groups=32), nn.ReLU(), Same(32, 16, 1),
        nn.ReLU(), Standardized(16, 16, 3), nn.Flatten(), nn.Linear(16 * 16, 5),
    )  # fmt: skip


def test_subclasses_of_convolutions_are_cut_where_they_are_linear(tmp_path: Path) -> None:
    net, x = subclasses().eval(), torch.randn(200, 3, 6, 6)
    result = compress(net, x, keep=0.7, multiple_of=2)
    table = result.table().set_index("layer")
    assert table["reason"]["8"] == "Standardized is not linear in its weight"
    assert table[["rank", "units"]].loc[["0", "2", "6"]].notna().any(axis=None)
    assert {type(m) for m in result.model.modules()} >= {Same, Standardized}
    result.save(tmp_path / "small")
    back = load_compressed(str(tmp_path / "small"), subclasses()).eval()
    assert torch.equal(back(x), result.model(x))
    assert result.after.parameters <= 0.7 * result.before.parameters


class Block(nn.Module):
    """As ConvNeXt's: a scale for each channel of the stream is the block's own parameter; inner units are free."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(8, 24), nn.Linear(24, 8)
        self.gamma, self.shift = nn.Parameter(torch.rand(24) + 0.5), nn.Parameter(torch.rand(24, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.outer(F.gelu(self.inner(x) * self.gamma + self.shift[:, 0]))


def test_parameters_of_blocks_with_a_number_for_each_channel_are_found() -> None:
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(6, 8), Block(), nn.LayerNorm(8), nn.Linear(8, 5)), torch.randn(60, 6)
    [feed] = found(net, x)
    assert {carrier.key for carrier in feed.carriers} == {"1:gamma", "1:shift"}
    assert feed.sources.keys() == {"1.inner"}
    assert feed.readers.keys() == {"1.outer"}


def test_a_mobile_network_gets_narrower_in_its_streams_and_within_its_blocks() -> None:
    class Inverted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.deep, self.narrow = (
                nn.Conv2d(16, 48, 1), nn.Conv2d(48, 48, 3, padding=1, groups=48), nn.Conv2d(48, 16, 1)
            )  # fmt: skip

        def forward(self, x: Tensor) -> Tensor:
            return x + self.narrow(F.relu6(self.deep(F.relu6(self.wide(x)))))

    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1),
        Inverted(),
        Inverted(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    )
    of = found(net, torch.randn(20, 3, 12, 12))
    units = {tuple(sorted(feed.sources)): (feed.units, tuple(sorted(feed.readers))) for feed in of}
    assert units == {
        ("0", "1.narrow", "2.narrow"): (16, ("1.wide", "2.wide", "5")),
        ("1.wide",): (48, ("1.narrow",)),
        ("2.wide",): (48, ("2.narrow",)),
    }


@pytest.mark.parametrize("count", [2, 3, 7, 64, 300])
def test_codes_tell_each_unit_and_that_several_came(count: int) -> None:
    codes = codes_of(count)
    assert codes.shape[1] == count
    assert len({tuple(code) for code in codes.T.tolist()}) == count
    came = torch.cat([codes.flip(1), torch.zeros(len(codes), 2, dtype=torch.bool)], 1)
    assert places_of(came, codes)[:, 0].tolist() == list(range(count))[::-1]
    with pytest.raises(NotSeparateError):
        places_of(came | came.roll(1, 1), codes)
