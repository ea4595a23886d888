"""The buffers of a network, which some change in evaluation mode too: counters, caches, observers of quantization."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


@contextlib.contextmanager
def kept_buffers(model: nn.Module) -> Iterator[None]:
    """A network's buffers are afterwards what they were, those that were replaced too. Cost: a copy of them."""
    with torch.no_grad():
        held = [
            (module, name, buffer, buffer._version, buffer.clone())
            for module in model.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None and not buffer.is_meta and not buffer.is_inference()
        ]
    try:
        yield
    finally:
        for module, name, buffer, version, before in held:
            if buffer._version != version:
                with torch.no_grad():
                    buffer.copy_(before)
            if not isinstance(module, torch.jit.ScriptModule) and module._buffers.get(name) is not buffer:
                module._buffers[name] = buffer
