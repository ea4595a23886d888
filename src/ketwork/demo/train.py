"""Trains the demonstration's network: `python -m ketwork.demo.train [OUTPUT]`, a few seconds on one core.

The same seed gives the same weights on the same machine and build of torch.
"""

from __future__ import annotations

import sys
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from ketwork.demo import digits
from ketwork.records import replacing

SEED = 0
EPOCHS = 30
BATCH = 64


def trained(epochs: int = EPOCHS, seed: int = SEED) -> nn.Sequential:
    """The network after so many epochs of Adam with a cosine schedule, in evaluation mode."""
    images, labels = digits.training()
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # layers draw their first weights from the global generator
        network = digits.architecture()
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    for _ in range(epochs):
        for rows in torch.randperm(len(labels), generator=generator).split(BATCH):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(images[rows]), labels[rows]).backward()
            optimiser.step()
        schedule.step()
    return network.eval()


def accuracy(network: nn.Module) -> float:
    """The share of held-out digits that the network classifies correctly."""
    images, labels = digits.held_out()
    with torch.no_grad():
        return (network(images).argmax(dim=1) == labels).float().mean().item()


if __name__ == "__main__":
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else digits.WEIGHTS
    network = trained()
    with replacing(output) as temporary:
        safetensors.torch.save_file(network.state_dict(), temporary)
    print(f"{output}: {accuracy(network):.4f} of {digits.HELD_OUT} held-out digits right")
