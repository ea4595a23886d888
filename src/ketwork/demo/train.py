"""Makes the demonstration's files: `python -m ketwork.demo.train [WEIGHTS [IMAGES]]`, a few seconds on one core.

The same seed gives the same weights on the same machine and build of torch.
"""

from __future__ import annotations

import sys
from pathlib import Path

import safetensors.torch
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from ketwork.demo import digits
from ketwork.records import replacing

SEED = 0
SPLIT_SEED = 0
EPOCHS = 30
BATCH = 64


def images() -> dict[str, Tensor]:
    """Scikit-learn's digits, (n, 8, 8) with values 0 to 16, and their labels, split within each digit."""
    data = load_digits()
    parts = train_test_split(
        range(len(data.target)), test_size=digits.HELD_OUT, random_state=SPLIT_SEED, stratify=data.target
    )
    return {
        f"{name}_{what}": torch.tensor(numbers[part], dtype=torch.uint8)
        for name, part in zip(("training", "held_out"), parts, strict=True)
        for what, numbers in (("images", data.images), ("labels", data.target))
    }


def trained(epochs: int = EPOCHS, seed: int = SEED) -> nn.Sequential:
    """The network after so many epochs of Adam with a cosine schedule, in evaluation mode."""
    x, labels = digits.training()
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # layers draw their first weights from the global generator
        network = digits.architecture()
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    for _ in range(epochs):
        for rows in torch.randperm(len(labels), generator=generator).split(BATCH):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(x[rows]), labels[rows]).backward()
            optimiser.step()
        schedule.step()
    return network.eval()


def accuracy(network: nn.Module) -> float:
    """The share of held-out digits that the network classifies correctly."""
    x, labels = digits.held_out()
    with torch.no_grad():
        return (network(x).argmax(dim=1) == labels).float().mean().item()


if __name__ == "__main__":
    output, data = (*map(Path, sys.argv[1:]), *(digits.WEIGHTS, digits.IMAGES)[len(sys.argv) - 1 :])
    with replacing(data) as temporary:
        safetensors.torch.save_file(images(), temporary)
    network = trained()
    with replacing(output) as temporary:
        safetensors.torch.save_file(network.state_dict(), temporary)
    print(f"{output}: {accuracy(network):.4f} of {digits.HELD_OUT} held-out digits right")
