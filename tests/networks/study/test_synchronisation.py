"""No hook waits for a layer's device: a batch's numbers come over together, once the network has run.

On the CPU nothing waits, so a `Device` stands for a GPU: what the network puts out is on it, and so is all that is
computed of that. What reads such numbers, or needs them to know how large a result is, would wait there.
"""

import contextlib
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import ketwork as kw
from ketwork.networks.activations import Activation
from ketwork.networks.study import gathering
from ketwork.networks.study.gathering import Gathering
from ketwork.networks.study.layer import Layer

WAITING = {
    "_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select", "bincount", "_unique2",
    "unique_consecutive", "unique_dim", "_linalg_eigh", "linalg_eigvalsh", "_linalg_svd", "linalg_lstsq",
}  # fmt: skip
"""Operations whose result a program must wait for, or whose result has a size that the device must tell."""

INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
MASKS = (torch.bool, torch.uint8)


def _flat(values: Iterable[Any]) -> Iterator[Tensor]:
    for each in values:
        if isinstance(each, Tensor):
            yield each
        elif isinstance(each, (list, tuple)):
            yield from _flat(each)


class Device(TorchDispatchMode):
    """Counts what would wait for a GPU, by what the study does: in a `hook`, `after` the network has run, else."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: dict[str, Counter[str]] = {"hook": Counter(), "after": Counter(), "else": Counter()}
        self.place = "else"
        self._held: dict[int, weakref.ref[Tensor]] = {}

    def put(self, tensor: Tensor) -> None:
        self._held[id(tensor)] = weakref.ref(tensor)

    def holds(self, tensor: Any) -> bool:
        known = self._held.get(id(tensor))
        return known is not None and known() is tensor

    def wait(self, name: str) -> None:
        self.waits[self.place][name] += 1

    @contextlib.contextmanager
    def at(self, place: str) -> Iterator[None]:
        before, self.place = self.place, place
        try:
            yield
        finally:
            self.place = before

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        mine = any(map(self.holds, _flat((*args, *(kwargs or {}).values()))))
        result = func(*args, **(kwargs or {}))
        if not mine:
            return result
        name = func.overloadpacket.__name__
        if name in WAITING:
            self.wait(name)
        if name in INDEXING and any(isinstance(i, Tensor) and i.dtype in MASKS for i in args[1]):
            self.wait(name)
        for each in _flat((result,)):
            self.put(each)
        return result


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    device = Device()

    def at(place: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def placed(*args: Any) -> Any:
            for each in args:
                if isinstance(each, Activation):
                    device.put(each.values)
            with device, device.at(place):
                return call(*args)

        return placed

    def read(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def on_host(tensor: Tensor) -> Any:
            if not device.holds(tensor):
                return call(tensor)
            device.wait(name)
            result = call(tensor)
            return torch.from_numpy(result.numpy().copy()) if isinstance(result, Tensor) else result

        return on_host

    # No numbers at the end, which is no part of the pass.
    monkeypatch.setattr(Layer, "from_accumulator", lambda row, *how: Layer.unfinished(row, *how[:2]))
    for name, place in (("receive", "hook"), ("settle", "after"), ("commit", "after")):
        monkeypatch.setattr(Gathering, name, at(place, getattr(Gathering, name)))
    for name in ("tolist", "cpu"):
        monkeypatch.setattr(Tensor, name, read(name, getattr(Tensor, name)))
    return device


class Encoder(nn.Module):
    """A block of a transformer over token embeddings."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(50, 16)
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(16, 2, 64, batch_first=True) for _ in range(2))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.embed(input_ids)
        for block in self.blocks:
            x = block(x, src_key_padding_mask=attention_mask == 0)
        return x


BATCHES, SIZE, LONGEST = 2, 12, 8


def _batches() -> list[dict[str, Tensor]]:
    draw = torch.Generator().manual_seed(1)
    return [
        {
            "input_ids": torch.randint(0, 50, (SIZE, LONGEST), generator=draw),
            "attention_mask": (torch.arange(LONGEST) < torch.randint(3, 9, (SIZE, 1), generator=draw)).long(),
        }
        for _ in range(BATCHES)
    ]


LABELS = torch.arange(BATCHES * SIZE) % 3
TOKENS = torch.arange(BATCHES * SIZE * LONGEST).reshape(-1, LONGEST) % 3
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "all": {"layers": "all"},
    "ensemble": {"normalize": "ensemble"},
    "centred": {"center": True, "normalize": "ensemble"},
    "labels": {"labels": LABELS},
    "numbers": {"labels": LABELS.float()},
    "labels of positions": {"labels": TOKENS},
    "compare": {"compare": True},
    "sketches": {},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_no_hook_waits_for_the_device(name: str, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "sketches":
        monkeypatch.setattr(gathering, "WIDEST", 10)
        monkeypatch.setattr(gathering, "RANK", 4)
    record = kw.study(Encoder(), _batches(), **OPTIONS[name])
    assert device.waits["hook"] == {}
    assert record is not None
    assert any(layer.sketch for layer in record) == (name == "sketches")


def test_a_batch_without_positions_is_read_in_one_transfer(device: Device) -> None:
    network = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 4))
    x = torch.randn(80, 6, generator=torch.Generator().manual_seed(0))
    kw.study(network, x, batch_size=20)
    assert device.waits["hook"] == {}
    assert device.waits["after"] == {"cpu": 4}


def test_positions_take_one_more_for_the_entropies_of_samples_of_one_size(device: Device) -> None:
    x = torch.randn(400, 5, 6, generator=torch.Generator().manual_seed(0))
    kw.study(nn.Sequential(nn.Linear(6, 4), nn.Tanh()), x, batch_size=50)
    assert device.waits["hook"] == {}
    # Both layers have 5 × 4 numbers a sample; some of each batch are among the 128 of the smallest keys so far.
    assert device.waits["after"] == {"cpu": 8 + 8, "_linalg_eigh": 8}


def test_what_reads_an_activation_is_seen(device: Device) -> None:
    """The counter itself: a number, a mask and a list, each of what a hook was given."""
    with device, device.at("hook"):
        x = torch.ones(3)
        device.put(x)
        y = x * 2
        assert float(y.sum()) == 6
        assert len(y[y > 1]) == 3
        assert y.tolist() == [2, 2, 2]
        assert torch.ones(3).tolist() == [1, 1, 1]
    assert device.waits["hook"] == {"_local_scalar_dense": 1, "index": 1, "tolist": 1}
