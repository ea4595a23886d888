"""A residual network on Fashion-MNIST, smaller without training: by parameters, multiply-adds, and bytes beside int8.

    apt-get install dataset-fashion-mnist          # or any folder with its four files
    python benchmarks/compress_images.py [--data FOLDER] [--networks DIR] [--seeds 0,1,2] [--samples 2048] [--epochs 3]

Trained from each seed (kept in DIR), calibrated on training images, measured on the 10,000 test images:
accuracy and KL from the original. In bytes, the share of the weights' bytes in float32; every network runs in ONNX
Runtime with one thread, weights and activations of 8 bits by its own static quantizer:

- int8: all layers as they are, in 8 bits;
- cut, then int8: `kw.compress` to a share of the parameters, then all layers in 8 bits;
- int8 and pruning: the channels with the smallest weights of each block's first convolution are removed, then int8;
- ketwork: `kw.compress(cost="bytes")`, which chooses bits, ranks and channels together.
"""

import argparse
import copy
import gzip
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

import ketwork as kw
from ketwork.networks.compression.costs import EIGHT_BITS, bytes_of, latencies
from ketwork.networks.compression.onnx_export import export_onnx
from ketwork.networks.compression.surgery import fold_batchnorm

SHARES = (0.25, 0.2, 0.13)  # of the bytes


class Block(nn.Module):
    """Two convolutions, and a way around them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        same = inputs == outputs and stride == 1
        self.short = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return (self.short(x) + self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))).relu()


def network() -> nn.Sequential:
    stem = [nn.Conv2d(1, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    blocks = [Block(16, 16, 1), Block(16, 32, 2), Block(32, 32, 1), Block(32, 64, 2), Block(64, 64, 1)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def images(folder: Path, name: str) -> tuple[Tensor, Tensor]:
    def numbers(kind: str, skip: int) -> np.ndarray:
        path = next(folder.glob(f"{name}-{kind}-ubyte*"))
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return np.frombuffer(raw, np.uint8)[skip:].copy()

    x = torch.from_numpy(numbers("images-idx3", 16)).reshape(-1, 1, 28, 28).float() / 255
    return (x - 0.286) / 0.353, torch.from_numpy(numbers("labels-idx1", 8)).long()


def trained(seed: int, x: Tensor, y: Tensor, keep: Path, epochs: int) -> nn.Module:
    path = keep / f"fashion-{seed}-{epochs}.pt"
    torch.manual_seed(seed)
    net = network()
    if path.exists():
        net.load_state_dict(torch.load(path, weights_only=True))
        return net.eval()
    net.train()
    steps = epochs * (len(x) // 128)
    adam = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=0.01)
    rate = torch.optim.lr_scheduler.OneCycleLR(adam, 6e-3, steps)
    for step in range(steps):
        some = torch.randint(len(x), (128,))
        adam.zero_grad()
        F.cross_entropy(net(x[some]), y[some]).backward()
        adam.step()
        rate.step()
        if step % 200 == 0:
            print(f"seed {seed}: step {step} of {steps}", flush=True)
    keep.mkdir(exist_ok=True)
    torch.save(net.state_dict(), path)
    return net.eval()


def quality(call: Callable[[Tensor], Tensor], original: Tensor, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Accuracy, and KL from the original's logarithms of probabilities in nats."""
    with torch.no_grad():
        out = torch.cat([call(part) for part in x.split(500)]).double().log_softmax(-1)
    kl = (original.exp() * (original - out)).sum(-1).mean()
    return float((out.argmax(-1) == y).double().mean()), float(kl)


def folded(net: nn.Module, x: Tensor) -> nn.Module:
    small = copy.deepcopy(net)
    fold_batchnorm(small, lambda model: model(x[:8]))
    return small


def in_eight_bits(net: nn.Module, x: Tensor) -> nn.Module:
    """All layers marked to be quantized."""
    small = folded(net, x)
    for module in small.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            setattr(module, EIGHT_BITS, True)
    return small


def pruned(net: Any, x: Tensor, share: float) -> nn.Module:
    """In each block the channels between its convolutions with the largest weights stay, the same share of each."""
    small: Any = folded(net, x)
    for block in small:
        if isinstance(block, Block):
            count = max(1, round(share * block.conv1.out_channels))
            first, second = block.conv1, block.conv2
            norms = first.weight.flatten(1).norm(dim=1) * second.weight.transpose(0, 1).flatten(1).norm(dim=1)
            kept = norms.topk(count).indices.sort().values
            narrow = nn.Conv2d(first.in_channels, count, 3, first.stride, 1)
            last = nn.Conv2d(count, second.out_channels, 3, 1, 1)
            narrow.weight.data, narrow.bias.data = first.weight.data[kept], first.bias.data[kept]
            last.weight.data, last.bias.data = second.weight.data[:, kept], second.bias.data
            block.conv1, block.conv2 = narrow, last
    return in_eight_bits(small, x)


def fitting(make: Callable[[float], nn.Module], most: float) -> nn.Module:
    """The largest that `make` makes within so many bytes."""
    low, high = 0.02, 1.0
    for _ in range(8):
        middle = (low + high) / 2
        low, high = (middle, high) if bytes_of(make(middle)) <= most else (low, middle)
    return make(low)


def session(model: nn.Module, x: Tensor, folder: Path) -> Any:
    path = folder / "model.onnx"
    export_onnx(model, path, x[:4], list(x[:512].split(64)))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options)


def compared(
    seed: int,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    networks: Path,
    epochs: int,
    samples: int,
    row: Callable[..., None],
) -> None:
    """One network by all methods, a row for each."""
    net = trained(seed, *train, networks, epochs)
    with torch.no_grad():
        original = torch.cat([net(part) for part in test[0].split(500)]).double().log_softmax(-1)
    some = train[0][torch.randperm(len(train[0]), generator=torch.Generator().manual_seed(1))[:samples]]
    total = bytes_of(net)
    row(str(seed), "original", "1", f"{quality(net, original, *test)[0]:.4f}", "0", "", "")
    for cost, keep in (("parameters", 0.5), ("parameters", 0.25), ("macs", 0.5)):
        small = kw.compress(net, some, keep=keep, cost=cost).model
        accuracy, kl = quality(small, original, *test)
        row(str(seed), f"ketwork, {cost}", f"{keep}", f"{accuracy:.4f}", f"{kl:.2e}", "", "")

    def runs(name: str, model: nn.Module) -> None:
        ran = session(model, some, networks)
        feed = ran.get_inputs()[0].name

        def call(part: Tensor) -> Tensor:
            return torch.from_numpy(ran.run(None, {feed: part.numpy()})[0])

        accuracy, kl = quality(call, original, *test)
        times = latencies([partial(call, test[0][:n]) for n in (1, 64)], repeats=9, least=0.01)
        share = bytes_of(model) / total
        row(
            str(seed),
            name,
            f"{share:.3f}",
            f"{accuracy:.4f}",
            f"{kl:.2e}",
            *(f"{1e3 * t:.3f}" for t in times),
        )

    runs("float", folded(net, some))
    runs("int8", in_eight_bits(net, some))
    for share in SHARES:
        runs("ketwork, bytes", kw.compress(net, some, keep=share, cost="bytes").model)
        runs("int8 and pruning", fitting(partial(pruned, net, some), share * total))
        cut = kw.compress(net, some, keep=min(1.0, share * 3.7)).model  # 8 bits and scales: 1 ÷ 3.7 of float
        runs("cut, then int8", in_eight_bits(cut, some))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--networks", type=Path, default=Path("networks"))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--samples", type=int, default=2048)
    parser.add_argument("--epochs", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = [images(given.data, name) for name in ("train", "t10k")]
    table = Table("seed", "method", "share", "accuracy", "KL", "ms at 1", "ms at 64")

    def row(*cells: str) -> None:
        table.add_row(*cells)
        print(" | ".join(cells), flush=True)

    for seed in map(int, given.seeds.split(",")):
        compared(seed, *data, given.networks, given.epochs, given.samples, row)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
