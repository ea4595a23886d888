"""Training is the same, bit for bit, whether a monitor looks or not."""

import contextlib
import functools
import random
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ketwork.networks.monitor.protection import changed_parameters, same_order, undisturbed
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


class Restless(nn.Module):
    """In every forward pass, evaluation too, it draws from all generators and changes buffers and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(6, 8), nn.Linear(8, 4)
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("var", torch.ones(8))
        self.register_buffer("state", torch.zeros(8))
        self.calls, self.kept = 0, torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x.float())
        x = x + 0.1 * torch.randn_like(x) + 0.1 * random.random() + 0.1 * np.random.rand()  # noqa: NPY002
        x = nn.functional.batch_norm(x, self.mean, self.var, training=True)
        self.state = 0.9 * self.state + 0.1 * self.mean
        self.calls += 1
        x = self.head(x + self.state + 0.01 * self.calls + self.kept)
        self.kept = x.mean().detach()
        return x


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
    model = {"cnn": cnn, "transformer": Transformer, "restless": Restless}[kind]()
    x, y = data(kind)
    loader = DataLoader(
        TensorDataset(x, y), batch_size=16, shuffle=True, generator=torch.Generator().manual_seed(1)
    )
    network = torch.compile(model, backend="aot_eager") if compiled else model
    optimizer = (
        torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        if kind != "transformer"
        else torch.optim.AdamW(model.parameters(), lr=3e-3)
    )
    monitor = (
        None
        if folder is None
        else Monitor(network, loader, every=20 if steps < 200 else 50, path=folder, batch_size=16)
    )
    order, step = [], 0
    while step < steps:
        for batch, labels in loader:
            noise = 0.01 * random.random() + 0.01 * np.random.rand()  # noqa: NPY002
            if monitor is not None and not inside:
                monitor(step)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind == "transformer"):
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
        assert len(monitor.run) == -(-steps // monitor.every)
        assert monitor.run.looks[-1].layers
    optimizing = [v for s in optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
    return [*model.state_dict().values(), *optimizing], states, order, model.training


without = functools.cache(trained)


@pytest.mark.parametrize(
    ("kind", "inside"),
    [("cnn", False), ("transformer", False), ("transformer", True), ("restless", False)],
    ids=str,
)
def test_training_steps_are_the_same_with_and_without(kind, inside, tmp_path):
    steps = 60 if kind == "restless" else 200
    tensors, states, order, training = without(kind, steps=steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # alarms are not what this is about
        same = trained(kind, tmp_path, steps, inside=inside)
    assert all(torch.equal(a, b) for a, b in zip(tensors, same[0], strict=True))
    assert (states, order, training) == same[1:]


def test_a_compiled_network_is_compiled_no_more_often_and_trains_the_same(tmp_path):
    def compiled(folder=None):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        results = trained("cnn", folder, steps=24, compiled=True)
        return results, torch._dynamo.utils.counters["stats"]["unique_graphs"]

    (tensors, states, order, _), graphs = compiled()
    same, as_many = compiled(tmp_path)
    assert as_many == graphs > 0
    assert all(torch.equal(a, b) for a, b in zip(tensors, same[0], strict=True))
    assert (states, order) == same[1:3]


def test_weights_cast_in_a_look_do_not_enter_the_next_step():
    """Cast without gradients they would: also where the network has a region of autocast of its own."""

    class Inner(nn.Linear):
        region = torch.autocast("cpu", dtype=torch.bfloat16)

        def forward(self, x):
            with self.region:
                return super().forward(x)

    for net in (nn.Linear(3, 2), Inner(3, 2)):
        x = torch.randn(4, 3)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            with undisturbed(net), torch.no_grad():
                net(x)
            assert torch.is_autocast_cache_enabled()
            net(x).float().sum().backward()
        assert net.weight.grad is not None


def test_a_loader_s_own_generator_is_where_it_was():
    x, y = data("cnn")
    generator = torch.Generator().manual_seed(1)
    loader = DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True, generator=generator)
    before = generator.get_state(), torch.get_rng_state()
    with same_order(loader):
        next(iter(loader))
        assert not torch.equal(generator.get_state(), before[0])
    assert torch.equal(generator.get_state(), before[0])
    assert torch.equal(torch.get_rng_state(), before[1])


def test_all_is_restored_after_an_error_too():
    net = Restless()
    x = torch.randn(5, 6)
    net(x)
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    same = dict(net.named_buffers())
    before = net.calls, net.kept, torch.get_rng_state()
    with contextlib.suppress(KeyboardInterrupt), undisturbed(net):
        net.eval()(x)
        net.extra = 1
        assert net.calls == 2
        raise KeyboardInterrupt
    assert net.training
    assert not hasattr(net, "extra")
    assert (net.calls, id(net.kept)) == (before[0], id(before[1]))
    assert torch.equal(torch.get_rng_state(), before[2])
    assert all(buffer is same[name] for name, buffer in net.named_buffers())
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in net.named_buffers())


def test_changed_parameters_are_named_and_what_they_were():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    before = [p.clone() for p in net.parameters()]
    with changed_parameters(net) as changed, torch.no_grad():
        net[1].bias.add_(1)
        net[0].bias.add_(0)
    assert changed == ["1.bias"]
    assert all(map(torch.equal, before, net.parameters()))
