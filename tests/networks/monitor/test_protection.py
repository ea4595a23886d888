"""Training is the same, bit for bit, whether a monitor looks or not."""

import random
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ketwork.networks.monitor.run import Monitor


class Block(nn.Module):
    """An encoder block with dropout."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.attention = nn.MultiheadAttention(d, 2, dropout=0.1, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(d, 2 * d), nn.GELU(), nn.Dropout(0.1), nn.Linear(2 * d, d))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """Two blocks over 20 symbols, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        self.blocks = nn.ModuleList([Block(16), Block(16)])
        self.head = nn.Linear(16, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(dim=1))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Dropout2d(0.2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(4 * 36, 4),
    )


def data(kind: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    y = torch.randint(4, (96,), generator=generator)
    if kind == "cnn":
        return torch.randn(96, 1, 8, 8, generator=generator) + y[:, None, None, None], y
    return torch.randint(20, (96, 6), generator=generator), y


def trained(kind: str, folder=None, steps: int = 200, inside: bool = False, compiled: bool = False):
    """The state after training, the random states, the order of samples; with a monitor where there is a folder.

    `inside` calls the monitor where autocast is on, before the step's own forward pass.
    """
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    model = cnn() if kind == "cnn" else Transformer()
    x, y = data(kind)
    loader = DataLoader(
        TensorDataset(x, y), batch_size=16, shuffle=True, generator=torch.Generator().manual_seed(1)
    )
    network = torch.compile(model, backend="aot_eager") if compiled else model
    optimizer = (
        torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        if kind == "cnn"
        else torch.optim.AdamW(model.parameters(), lr=3e-3)
    )
    monitor = None if folder is None else Monitor(network, loader, every=20, path=folder, batch_size=16)
    order, step = [], 0
    while step < steps:
        for batch, labels in loader:
            noise = 0.01 * random.random() + 0.01 * np.random.rand()  # noqa: NPY002
            if monitor is not None and not inside:
                monitor(step)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind != "cnn"):
                if monitor is not None and inside:
                    monitor(step)
                loss = nn.functional.cross_entropy(network(batch).float(), labels, label_smoothing=noise)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            order.append(labels.tolist())
            step += 1
            if step == steps:
                break
    states = [torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()]  # noqa: NPY002
    if monitor is not None:
        assert len(monitor.run) == steps // 20
        assert monitor.run.looks[-1].layers
    optimizing = [v for s in optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
    return [*model.state_dict().values(), *optimizing], states, order, model.training


@pytest.mark.parametrize(
    ("kind", "inside"), [("cnn", False), ("transformer", False), ("transformer", True)], ids=str
)
def test_two_hundred_steps_are_the_same_with_and_without(kind, inside, tmp_path):
    tensors, states, order, training = trained(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # alarms are not what this is about
        same = trained(kind, tmp_path, inside=inside)
    assert all(torch.equal(a, b) for a, b in zip(tensors, same[0], strict=True))
    assert (states, order, training) == same[1:]


def test_a_compiled_network_is_compiled_no_more_often_and_trains_the_same(tmp_path):
    torch._dynamo.reset()
    tensors, states, order, _ = trained("cnn", steps=24, compiled=True)
    frames = dict(torch._dynamo.utils.counters["stats"])
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    same = trained("cnn", tmp_path, steps=24, compiled=True)
    assert dict(torch._dynamo.utils.counters["stats"]) == frames
    assert frames["unique_graphs"] > 0
    assert all(torch.equal(a, b) for a, b in zip(tensors, same[0], strict=True))
    assert (states, order) == same[1:3]
