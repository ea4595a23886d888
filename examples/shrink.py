"""From what a network's states hold to a smaller network, loaded where ketwork is not installed.

    python examples/shrink.py

1. `study`: how many dimensions do the states of each layer use?
2. `collapse_curve`: how few eigenstates of each layer, alone, does the network need?
3. `compress`: all layers at once, measured on data held back; no training.
4. The file is loaded by a copy of one short file in a process that cannot import ketwork.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

import ketwork as kw
from ketwork.demo import digits
from ketwork.networks.compression import loader

ELSEWHERE = """
import sys
sys.modules["ketwork"] = None  # importing it is an error from here on

import torch
from torch import nn
from loader import load_compressed  # the copied file: it needs torch and safetensors alone

network = nn.Sequential()  # the architecture of the original, as its own code has it
for name, module in {
    "conv1": nn.Conv2d(1, 16, 3, padding=1), "relu1": nn.ReLU(), "conv2": nn.Conv2d(16, 32, 3, padding=1),
    "relu2": nn.ReLU(), "pool": nn.MaxPool2d(2), "flatten": nn.Flatten(), "hidden": nn.Linear(512, 48),
    "relu3": nn.ReLU(), "readout": nn.Linear(48, 10),
}.items():
    network.add_module(name, module)
small = load_compressed("small.safetensors", network).eval()
images, labels = torch.load("held_out.pt")
print((small(images).argmax(1) == labels).double().mean().item())
"""


def main(keep: float = 0.25) -> tuple[kw.Compressed, float, float]:
    network, data = digits.model(), digits.training()
    images, labels = digits.held_out()

    study = kw.study(network, data)
    for layer in ("conv2", "hidden"):
        print(f"{layer:8} uses {study[layer].effective_rank} of {study[layer].d}")

    curve = kw.collapse_curve(network, data, "accuracy", layers=["conv2", "hidden"], study=study)
    for row in curve.smallest().itertuples():
        print(f"{row.layer:8} alone may collapse to {row.rank} eigenstates")

    result = kw.compress(network, data, keep=keep)
    print(
        result.table()[["layer", "shape", "rank", "units", "parameters_before", "parameters"]].to_string(
            index=False
        )
    )
    print(result)

    with tempfile.TemporaryDirectory() as folder:
        result.save(Path(folder, "small.safetensors"))
        shutil.copy(loader.__file__, Path(folder, "loader.py"))
        torch.save((images, labels), Path(folder, "held_out.pt"))
        run = subprocess.run(
            [sys.executable, "-c", ELSEWHERE], cwd=folder, capture_output=True, text=True, check=True
        )
    there = float(run.stdout)
    here = (network(images).argmax(1) == labels).double().mean().item()
    share = result.after.parameters / result.before.parameters
    print(
        f"accuracy on held-out digits: {here:.3f}; with {share:.0%} of the parameters, without ketwork: {there:.3f}"
    )
    return result, here, there


if __name__ == "__main__":
    main()
