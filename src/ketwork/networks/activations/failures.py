"""Which layer a forward pass failed in: what the error of a product or convolution does not say."""

from __future__ import annotations

import traceback
from types import FrameType

from torch import Tensor, nn

_TAKES = {"in_features": "features", "in_channels": "channels", "normalized_shape": "features"}


def name_layer(network: nn.Module, error: Exception) -> None:
    """Notes at the error in which layer of the network it was raised, and what it was given, where that is known.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.Linear(9, 2))
    >>> try:
    ...     net(torch.zeros(3, 4))
    ... except RuntimeError as error:
    ...     name_layer(net, error)
    ...     print(*error.__notes__)
    It was raised in layer '1' (Linear), which takes 9 features and was given a tensor of shape (3, 8).
    """
    names = {id(module): name for name, module in network.named_modules() if name}
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in reversed(frames):
        layer = frame.f_locals.get("self")
        if isinstance(layer, nn.Module) and id(layer) in names:
            note = (
                f"It was raised in layer {names[id(layer)]!r} ({type(layer).__name__}){_given(layer, frame)}."
            )
            if note not in getattr(error, "__notes__", ()):
                error.add_note(note)
            return


def _given(layer: nn.Module, frame: FrameType) -> str:
    takes = next(
        (f"{getattr(layer, name)} {of}" for name, of in _TAKES.items() if hasattr(layer, name)), None
    )
    count = frame.f_code.co_argcount
    values = [frame.f_locals.get(name) for name in frame.f_code.co_varnames[1:count]]
    shape = next((tuple(value.shape) for value in values if isinstance(value, Tensor)), None)
    parts = [f"takes {takes}" if takes else "", f"was given a tensor of shape {shape}" if shape else ""]
    known = " and ".join(filter(None, parts))
    return f", which {known}" if known else ""
