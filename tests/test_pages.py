"""Pages of the site: their plain Python runs, and every public name is on a page of the API.

Cells of notebooks run when the site is built; the blocks of collapse.md and compress.md, with their output, in tests
of their own.
"""

import re
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

import ketwork as kw
from ketwork import circuits, quantum, waves
from ketwork.demo import digits

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ("circuits", "labels", "quantum", "reliability", "report", "scaling", "waves")
ELSEWHERE = ("torch.distributed",)
"""What needs several processes."""


class Blocks(nn.Module):
    """Layers that are called as in the pages' examples."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(nn.Linear(8, 8) for _ in range(4))})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.encoder["layer"]:
            x = layer(x).relu()
        return x


def given(page: str) -> dict[str, Any]:
    """What a page's examples take for granted: the reader's own network and data."""
    torch.manual_seed(0)
    inputs = torch.randn(200, 8)
    words = ["spam" if x > 0 else "ham" for x in inputs[:, 0].tolist()]
    match page:
        case "labels":
            return {
                "network": Blocks(),
                "inputs": inputs,
                "labels": words,
                "features": inputs,
                "others": inputs[:9],
            }
        case "reliability":
            return {"kw": kw, "network": Blocks(), "loader": list(inputs.split(50))}
        case "report":
            network, data = digits.model(), digits.held_out()
            study = kw.study(network, data, compare=True)
            curve = kw.collapse_curve(network, data, layers="hidden", ranks=[4, 8], study=study)
            return {"kw": kw, "study": study, "curve": curve, "ax": plt.figure().subplots()}
        case "scaling":
            parts = {"model": Blocks(), "data": inputs, "january": inputs[:100], "february": inputs[100:]}
            paths = [Path("first.safetensors"), Path("second.safetensors")]
            for path, part in zip(paths, inputs.split(100), strict=True):
                kw.study(parts["model"], part).save(path)
            return {"kw": kw, **parts, "paths": paths}
    return {}


@pytest.mark.parametrize("page", PAGES)
def test_python_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    names = given(page)
    assert blocks
    for code in blocks:
        if not any(each in code for each in ELSEWHERE):
            exec(compile(code, f"docs/{page}.md", "exec"), names)
    plt.close("all")


@pytest.mark.parametrize(
    ("module", "page"),
    [(quantum, "quantum"), (waves, "waves"), (circuits, "circuits")],
    ids=["quantum", "waves", "circuits"],
)
def test_every_public_name_of_a_package_is_on_its_page(module: Any, page: str) -> None:
    assert documented(page) == {f"{module.__name__}.{name}" for name in module.__all__}


def test_every_public_name_is_on_a_page() -> None:
    here = documented("networks")
    there = {name.rpartition(".")[2] for name in documented("quantum")}
    assert here | {f"ketwork.{name}" for name in there} >= {
        f"ketwork.{name}"
        for name in kw.__all__
        if name not in ("__version__", "circuits", "quantum", "waves")
    }
    assert here <= {f"ketwork.{name}" for name in kw.__all__}


def documented(page: str) -> set[str]:
    """The names on a page of the API."""
    names = re.findall(
        r"^\.\. ketwork:: (\S+)$", (DOCS / "api" / f"{page}.md").read_text(), flags=re.MULTILINE
    )
    assert len(names) == len(set(names))
    return set(names)
