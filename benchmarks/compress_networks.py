"""The networks that `compress.py` makes smaller: their architectures, their data, and how they were trained.

Nothing here knows of compression. Three kinds, each trained from several seeds by Adam with a cosine schedule:

- an MLP on MNIST, 784-512-512-512-10, 932,362 parameters;
- a convolutional network on MNIST, four convolutions with BatchNorm and two linear layers, 536,970 parameters;
- a character transformer on film dialogue, four blocks of width 128, 821,807 parameters.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

CONTEXT = 128  # characters


class Mlp(nn.Module):
    """Three hidden layers of 512 units."""

    def __init__(self) -> None:
        super().__init__()
        widths = (784, 512, 512, 512)
        hidden = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
        self.body = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(512, 10))

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images)


class Cnn(nn.Module):
    """Four convolutions, each with BatchNorm, ReLU and pooling but the third, then two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for a, b, pool in ((1, 32, True), (32, 64, True), (64, 128, False), (128, 256, True)):
            parts += [nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU()]
            parts += [nn.MaxPool2d(2)] if pool else []
        self.features = nn.Sequential(*parts)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(256 * 9, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


class Block(nn.Module):
    """Causal attention with one matrix for queries, keys and values, and an MLP of four times the width."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        n, t, width = x.shape
        parts = self.qkv(self.before_attention(x)).reshape(n, t, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(n, t, width))
        return x + self.mlp(self.before_mlp(x))


class Transformer(nn.Module):
    """A language model of characters."""

    def __init__(self, characters: int, width: int = 128, heads: int = 4, depth: int = 4) -> None:
        super().__init__()
        self.characters, self.places = nn.Embedding(characters, width), nn.Embedding(CONTEXT, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, characters)

    def forward(self, text: Tensor) -> Tensor:
        x = self.characters(text) + self.places.weight[: text.shape[1]]
        return self.head(self.norm(self.blocks(x)))


def mnist(folder: Path) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The 60,000 images to train with and the 10,000 to test, (N, 1, 28, 28), each with their labels."""

    def part(name: str) -> tuple[Tensor, Tensor]:
        images = np.fromfile(folder / f"{name}-images-idx3-ubyte", np.uint8)[16:].reshape(-1, 1, 28, 28)
        labels = np.fromfile(folder / f"{name}-labels-idx1-ubyte", np.uint8)[8:]
        return (torch.from_numpy(images).float() / 255 - 0.1307) / 0.3081, torch.from_numpy(labels).long()

    return part("train"), part("t10k")


def dialogue(path: Path) -> tuple[Tensor, Tensor, int]:
    """Windows of CONTEXT + 1 characters to train with, others of the text's last tenth to test, the alphabet's size."""
    text = path.read_text(encoding="utf8", errors="replace")
    common = {c for c, n in zip(*np.unique(list(text), return_counts=True), strict=True) if n >= 50}
    alphabet = {c: i for i, c in enumerate(["\0", *sorted(common)])}
    codes = torch.tensor([alphabet.get(c, 0) for c in text])
    windows = codes[: len(codes) // (CONTEXT + 1) * (CONTEXT + 1)].reshape(-1, CONTEXT + 1)
    cut = len(windows) * 9 // 10
    return windows[:cut], windows[cut::4], len(alphabet)


def trained(
    network: nn.Module, inputs: Tensor, targets: Tensor, kept: Path, *, seed: int, batch: int, steps: int
) -> nn.Module:
    """The network, trained from that seed; `kept` holds the weights of an earlier run, or will."""
    if kept.exists():
        safetensors.torch.load_model(network, kept)
        return network.eval()
    draw = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    network.train()
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(order) < batch:
            order = torch.randperm(len(inputs), generator=draw)
        chosen, order = order[:batch], order[batch:]
        loss = F.cross_entropy(network(inputs[chosen]).flatten(0, -2), targets[chosen].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    kept.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_model(network, str(kept))
    return network.eval()


def networks(kind: str, seed: int, data: "Data", folder: Path) -> nn.Module:
    """The network of that kind and seed."""
    torch.manual_seed(seed)
    kept = folder / f"{kind}-{seed}.safetensors"
    if kind == "transformer":
        net: nn.Module = Transformer(data.alphabet)
        windows = data.train[kind][0]
        return trained(net, windows[:, :-1], windows[:, 1:], kept, seed=seed, batch=20, steps=1600)
    net = Mlp() if kind == "MLP" else Cnn()
    images, labels = data.train[kind]
    return trained(net, images, labels, kept, seed=seed, batch=128, steps=2800 if kind == "MLP" else 1400)


class Data:
    """What each kind of network is trained and tested on: inputs and targets."""

    def __init__(self, folder: Path, text: Path) -> None:
        digits, tests = mnist(folder)
        windows, last, self.alphabet = dialogue(text)
        self.train = {"MLP": digits, "CNN": digits, "transformer": (windows, windows)}
        self.test = {"MLP": tests, "CNN": tests, "transformer": (last, last)}
