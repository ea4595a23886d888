"""What the terminal and the page say of a compressed network's dead layers."""

import io
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

import ketwork as kw
from ketwork.report.compressed import render_compressed


def test_dead_layers_are_named_with_what_became_of_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.ModuleDict(
        {
            "first": nn.Linear(16, 24),
            "up": nn.Linear(24, 32),
            "down": nn.Linear(32, 24),
            "last": nn.Linear(24, 4),
        }
    )
    nn.init.zeros_(net["down"].weight)

    def forward(model: nn.ModuleDict, x: torch.Tensor) -> torch.Tensor:
        x = model["first"](x)
        return model["last"](x + model["down"](model["up"](x).relu()))

    result = kw.compress(net, torch.randn(100, 16), keep=0.95, forward=forward)
    console = Console(file=io.StringIO(), width=100)
    render_compressed(result, console)
    words = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    assert "Dead: up (narrowed to 1 of 32 units at no cost)" in words
    assert "Dead: down (its output is a constant, kept in the bias at no cost)" in words
    page = (result.report(tmp_path / "small.html")).read_text()
    assert "What was dead?" in page
    assert "narrowed to 1 of 32 units at no cost" in page
