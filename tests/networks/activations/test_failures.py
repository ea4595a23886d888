"""An error of a forward pass says in which layer it was raised, and what that was given."""

import pytest
import torch
from torch import nn

import ketwork as kw


def dense() -> nn.Sequential:
    return nn.Sequential(nn.Sequential(nn.Linear(6, 8), nn.ReLU()), nn.Linear(8, 3))


@pytest.mark.parametrize(
    ("network", "data", "note"),
    [
        (
            dense(),
            torch.randn(20, 5),
            "'0.0' (Linear), which takes 6 features and was given a tensor of shape (20, 5)",
        ),
        (
            nn.Sequential(nn.Conv2d(3, 4, 3)),
            torch.randn(20, 8, 8, 3),
            "'0' (Conv2d), which takes 3 channels and was given a tensor of shape (20, 8, 8, 3)",
        ),
        (
            nn.Sequential(nn.LayerNorm(4)),
            torch.randn(20, 5),
            "'0' (LayerNorm), which takes (4,) features and was given a tensor of shape (20, 5)",
        ),
    ],
)
def test_the_layer_and_its_input_are_named(network, data, note) -> None:
    for function in (kw.study, kw.compare, kw.collapse_curve):
        with pytest.raises(RuntimeError) as raised:
            function(network, data)
        assert raised.value.__notes__ == [f"It was raised in layer {note}."]


def test_after_other_batches_the_message_has_it() -> None:
    batches = [torch.randn(8, 6), torch.randn(8, 5)]
    with pytest.raises(kw.StudyError, match=r"in layer '0\.0' \(Linear\), which takes 6 features"):
        kw.study(dense(), batches)


def test_an_error_outside_of_the_layers_has_no_note() -> None:
    def forward(network, batch):
        raise ValueError("of its own")

    with pytest.raises(ValueError, match="of its own") as raised:
        kw.study(dense(), torch.randn(20, 6), forward=forward)
    assert not getattr(raised.value, "__notes__", [])
