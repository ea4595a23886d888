"""A small convolutional network trained on scikit-learn's handwritten digits, and its held-out digits.

The data are 1,797 images of 8 × 8 pixels, values 0 to 16 (Alpaydin and Kaynak 1998, UCI "Optical recognition of
handwritten digits", DOI 10.24432/C50P49, CC BY 4.0). 1,257 images train the network, 540 are held out, split within
each digit by a fixed seed. `python -m ketwork.demo.train` makes both files anew: `images.safetensors` as scikit-learn
has the data, whose import would take longer than the demonstration, and the network's weights, `digits.safetensors`.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import safetensors.torch
from torch import Tensor, nn

WEIGHTS = Path(__file__).with_name("digits.safetensors")
IMAGES = Path(__file__).with_name("images.safetensors")
HELD_OUT = 540


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
    return _part("held_out")


def training() -> tuple[Tensor, Tensor]:
    """The 1,257 digits that the network was trained on, in the form of `held_out`."""
    return _part("training")


def _part(name: str) -> tuple[Tensor, Tensor]:
    tensors = safetensors.torch.load_file(IMAGES)
    return tensors[f"{name}_images"].float()[:, None] / 16, tensors[f"{name}_labels"].long()
