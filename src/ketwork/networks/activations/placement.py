"""Where a network's numbers are: on which device it runs, and those that its hooks bring there for a moment.

The hooks of accelerate (`device_map`, CPU and disk offload) leave an empty parameter, on the `meta` device, where a
module's numbers are elsewhere, and know where they run and where the numbers are. They are recognized by what they have
(`_hf_hook` of a module, with `execution_device` and `weights_map`), so that accelerate need not be installed.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn


def device_of(model: nn.Module) -> torch.device:
    """The device that a network's inputs belong on: where its hooks run it, else where its first numbers are.

    The CPU where it has no numbers.
    """
    for module in model.modules():
        for hook in _hooks(module):
            if (device := getattr(hook, "execution_device", None)) is not None:
                return torch.device(device)
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        mesh = getattr(tensor, "device_mesh", None)  # parts of it may wait on the CPU
        if mesh is not None and mesh.device_type != tensor.device.type:
            return torch.device(mesh.device_type, torch.get_device_module(mesh.device_type).current_device())
        if not tensor.is_meta:
            return tensor.device
    return torch.device("cpu")


def dtype_of(model: nn.Module) -> torch.dtype:
    """The dtype of the network's first floating parameter, else PyTorch's default."""
    dtypes = (p.dtype for p in model.parameters() if p.is_floating_point() or p.is_complex())
    return next(dtypes, torch.get_default_dtype())


def is_placed(model: nn.Module) -> bool:
    """Whether hooks say where the network runs, or its numbers lie on several devices."""
    devices = {tensor.device for tensor in itertools.chain(model.parameters(), model.buffers())}
    return len(devices) > 1 or any(True for module in model.modules() for _ in _hooks(module))


@contextlib.contextmanager
def placed(model: nn.Module, device: torch.device | str | None) -> Iterator[torch.device]:
    """The network on a device (None: where it is), and back where it was afterwards; yields the device that it is on.

    Raises:
        ValueError: it is to be moved, but has its weights on several devices or elsewhere.
    """
    home = device_of(model)
    target = home if device is None else torch.device(device)
    if target.type == home.type and target.index in (None, home.index):
        yield home
        return
    if is_placed(model):
        raise ValueError(
            f"Argument `device` of `reading` is {str(target)!r}, but the network runs on {str(home)!r} and has its "
            "weights on several devices, or elsewhere (a `device_map`, offloading). Leave it out."
        )
    try:
        model.to(target)
        yield target
    finally:
        model.to(home)


def numbers(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The parameters and buffers with their names, those that are elsewhere read from there one by one.

    Raises:
        ValueError: one has no numbers at all.
    """
    modules = dict(model.named_modules())
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        yield name, _read(name, tensor, modules) if tensor.is_meta else tensor


def check_numbers(model: nn.Module) -> None:
    """Raises ValueError where a parameter or buffer has no numbers, and no hook knows of any."""
    modules = dict(model.named_modules())
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        if tensor.is_meta and _map(name, modules) is None:
            raise _empty(name)


def without_hooks(model: nn.Module) -> None:
    """Takes accelerate's hooks off a network whose numbers are all there."""
    model.__dict__.pop("hf_device_map", None)
    for module in model.modules():
        if not any(True for _ in _hooks(module)):
            continue
        del module._hf_hook
        old = module.__dict__.pop("_old_forward", None)
        module.__dict__.pop("forward", None)
        if old is not None and getattr(old, "__func__", None) is not type(module).forward:
            module.forward = old
        for name in ("to", "cuda", "cpu"):  # what warns of moving the network
            module.__dict__.pop(name, None)


def _hooks(module: nn.Module) -> Iterator[Any]:
    """The hooks of accelerate on a module."""
    hook = getattr(module, "_hf_hook", None)
    if hook is not None:
        yield from getattr(hook, "hooks", (hook,))


def _map(name: str, modules: Mapping[str, nn.Module]) -> tuple[Mapping[str, Tensor], str] | None:
    """What a hook reads a parameter from, and its name there; the hook may be of a module further out."""
    parts = name.split(".")
    for length in range(len(parts) - 1, -1, -1):
        module = modules.get(".".join(parts[:length]))
        for hook in () if module is None else _hooks(module):
            place = getattr(hook, "weights_map", None)
            if place is not None and getattr(hook, "offload", False):
                return place, ".".join(parts[length:])
    return None


def _read(name: str, tensor: Tensor, modules: Mapping[str, nn.Module]) -> Tensor:
    where = _map(name, modules)
    if where is None:
        raise _empty(name)
    place, local = where
    return place[local].to(tensor.dtype)


def _empty(name: str) -> ValueError:
    return ValueError(
        f"Argument `model` must have its numbers, but {name!r} is on the `meta` device, which holds none. Load the "
        "weights (`from_pretrained`, or `to_empty` and `load_state_dict`) first."
    )
