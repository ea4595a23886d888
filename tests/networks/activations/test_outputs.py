"""Where in a module's output the activation stands: tuples, mappings, and trees of both."""

import torch
from torch import Tensor, nn

from ketwork.networks.study.run import study


def _data(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_outputs_of_any_form() -> None:
    class Lstm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(5, 4, batch_first=True)

        def forward(self, x: Tensor) -> dict[str, object]:
            output, states = self.lstm(x)
            return {"states": states, "output": output}

    record = study(Lstm(), _data(10, 6, 5), layers="all")
    assert (record["lstm"].info.leaf, record["lstm"].N, record["lstm"].kets) == ("[0]", 10, 60)
    # The states (layers, samples, features) are no activation of a sample; the output is, and is the LSTM's own.
    assert record["(model)"] is record["lstm"]

    class Loss(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x.mean(), x

    assert study(Loss(), _data(10, 5))["(model)"].info.leaf == "[1]"


def test_outputs_are_searched_for_the_activation() -> None:
    class Tree(nn.Module):
        def forward(self, x: Tensor) -> object:
            return {"ids": torch.arange(3), "deep": [None, (x, 2 * x)]}

    class Number(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean()

    x = torch.randn(6, 4)
    row = study(Tree(), x)["(model)"]
    assert (row.info.leaf, row.kets) == (".deep[1][0]", 6)
    record = study(nn.Sequential(nn.Linear(4, 2), Number()), x)
    assert record.skipped == {
        "1": "its output is a single number",
        "(model)": "its output is a single number",
    }
