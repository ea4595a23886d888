"""`undisturbed`: a look at a network that is being trained leaves the training, bit for bit, as it was without it."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

_DEVICES = ("cuda", "xpu")
"""The kinds of devices with generators of their own, one a device."""


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """In the block nothing that happens changes what the training does after it.

    Restored at its end, however it ends: the random states of Python, NumPy and PyTorch (CPU and devices); the
    buffers of all modules (as BatchNorm's statistics), in place and replaced ones; every attribute of a module that was
    replaced, `training` among them (a counter, a kept loss or hidden state). Weights that autocast casts in the
    block are not kept: cast without gradients, they would enter the next step's graph without them.

    Not restored: what a forward pass changes in place in lists, dictionaries and tensors that are no buffers, and
    parameters (`changed_parameters` finds those). Cost: a copy of the buffers.
    """
    with _random_states(), _modules(model), _without_cast_cache():
        yield


@contextlib.contextmanager
def same_order(data: Any) -> Iterator[None]:
    """A `DataLoader` may be read in the block: its generators, and its sampler's, are afterwards where they were."""
    owners = []
    if isinstance(data, DataLoader):
        batched = data.batch_sampler
        owners = [data, data.sampler, batched, getattr(batched, "sampler", None)]
    generators = (getattr(owner, "generator", None) for owner in owners)
    states = [(each, each.get_state()) for each in generators if isinstance(each, torch.Generator)]
    try:
        with _random_states():
            yield
    finally:
        for generator, state in states:
            generator.set_state(state)


@contextlib.contextmanager
def changed_parameters(model: nn.Module) -> Iterator[list[str]]:
    """The names of parameters that the block changed, once it is over; they are what they were before.

    Cost: a copy of the parameters.
    """
    before = [(name, p, p.detach().clone()) for name, p in model.named_parameters()]
    changed: list[str] = []
    try:
        yield changed
    finally:
        for name, parameter, values in before:
            if not _same(parameter.detach(), values):
                changed.append(name)
                with torch.no_grad():
                    parameter.copy_(values)


@contextlib.contextmanager
def _random_states() -> Iterator[None]:
    python, legacy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    devices = [
        (module, module.get_rng_state_all())
        for module in (getattr(torch, kind) for kind in _DEVICES)
        if module.is_available() and module.is_initialized()
    ]
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002 - the global one is meant
        torch.set_rng_state(cpu)
        for module, states in devices:
            module.set_rng_state_all(states)
        if mps is not None:
            torch.mps.set_rng_state(mps)


@contextlib.contextmanager
def _modules(model: nn.Module) -> Iterator[None]:
    attributes = [(module, dict(vars(module)), dict(module._buffers)) for module in model.modules()]
    buffers: list[tuple[Tensor, Tensor]] = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for module, before, held in attributes:
            now = vars(module)
            for name in now.keys() - before.keys():
                del now[name]
            now.update(before)
            module._buffers.clear()
            module._buffers.update(held)
        for buffer, values in buffers:
            # Copied back only where needed, since a graph may hold it. Versions do not tell: batch_norm counts none up.
            if not _same(buffer, values):
                with torch.no_grad():
                    buffer.copy_(values)


@contextlib.contextmanager
def _without_cast_cache() -> Iterator[None]:
    try:
        yield
    finally:
        if any(torch.is_autocast_enabled(kind) for kind in ("cpu", *_DEVICES)):
            torch.clear_autocast_cache()


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether all numbers are equal, or NaN in both."""
    return torch.equal(a, b) or bool(((a == b) | ((a != a) & (b != b))).all())
