"""A small convolutional network trained on scikit-learn's handwritten digits, and its held-out digits.

The data (1,797 images of 8 × 8 pixels, values 0 to 16; Alpaydin and Kaynak 1998, UCI "Optical recognition of
handwritten digits") come with scikit-learn. 1,257 images train the network, 540 are held out, split within
each digit by a fixed seed. `python -m ketwork.demo.train` makes `digits.safetensors` anew.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import safetensors.torch
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

WEIGHTS = Path(__file__).with_name("digits.safetensors")
HELD_OUT = 540
SPLIT_SEED = 0


def architecture() -> nn.Sequential:
    """The network without its weights: convolutions, pooling, linear layers; (N, 1, 8, 8) -> (N, 10)."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 16, kernel_size=3, padding=1),  # (N, 16, 8, 8)
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(16, 32, kernel_size=3, padding=1),  # (N, 32, 8, 8)
            relu2=nn.ReLU(),
            pool=nn.MaxPool2d(2),  # (N, 32, 4, 4)
            flatten=nn.Flatten(),  # (N, 512)
            hidden=nn.Linear(512, 48),
            relu3=nn.ReLU(),
            readout=nn.Linear(48, 10),
        )
    )


def model() -> nn.Sequential:
    """The trained network, in evaluation mode."""
    network = architecture()
    network.load_state_dict(safetensors.torch.load_file(WEIGHTS))
    return network.eval()


def held_out() -> tuple[Tensor, Tensor]:
    """The 540 digits that training did not see: images (540, 1, 8, 8), float32 in [0, 1], and labels."""
    return _split()[1]


def training() -> tuple[Tensor, Tensor]:
    """The 1,257 digits that the network was trained on, in the form of `held_out`."""
    return _split()[0]


def _split() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16  # (1797, 1, 8, 8)
    labels = torch.tensor(digits.target)
    train, test = train_test_split(
        range(len(labels)), test_size=HELD_OUT, random_state=SPLIT_SEED, stratify=digits.target
    )
    return (images[train], labels[train]), (images[test], labels[test])
