"""What is new in a compressed network, as its file describes it and `loader` makes it again."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import torch
from torch import nn

from ketwork.networks.compression import attention
from ketwork.networks.compression.loader import COUNTS, Attention, Recurrence

_ARGUMENTS: dict[type, tuple[str, ...]] = {
    nn.Linear: ("in_features", "out_features"),
    nn.Embedding: ("num_embeddings", "embedding_dim", "padding_idx"),
    nn.Identity: (),
    **dict.fromkeys(
        (nn.Conv1d, nn.Conv2d, nn.Conv3d),
        (
            "in_channels",
            "out_channels",
            "kernel_size",
            "stride",
            "padding",
            "dilation",
            "groups",
            "padding_mode",
        ),
    ),
}
_BIASED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def described(original: nn.Module, small: nn.Module) -> dict[str, Any]:
    """What `load_compressed` needs: for each path where `small` has a new module its parts.

    A part is the class and arguments of a layer of torch.nn, or `resized`, with the shapes of the tensors and the
    counts of the original's module at that path that have changed. A path that holds a module already described has the
    first one's path instead.

    Raises:
        TypeError: a new module is none that a file can describe.
    """
    old = dict(original.named_modules(remove_duplicate=False))
    for path, module in small.named_modules(remove_duplicate=False):
        if isinstance(module, Attention) and path in old:
            with torch.device("meta"):
                total_one = Attention(**attention.arguments(old[path]))
            old |= {f"{path}.{name}": part for name, part in total_one.named_modules() if name}
    new: dict[str, Any] = {}
    known: dict[nn.Module, str] = {}
    for path, module in small.named_modules(remove_duplicate=False):
        total = isinstance(module, nn.Sequential) and not isinstance(old.get(path), nn.Sequential)
        if path not in old:
            continue
        if total:
            new[path] = known.get(module) or [_part(part, old[path]) for part in module.children()]
            known.setdefault(module, path)
        elif type(module) is not type(old[path]) or _changes(module, old[path]):
            new[path] = known.get(module) or [_part(module, old[path])]
            known.setdefault(module, path)
    return new


def _part(module: nn.Module, old: nn.Module) -> list[Any]:
    kind = type(module)
    if isinstance(module, Attention):
        return ["Attention", attention.arguments(old)]
    if isinstance(module, Recurrence):
        return ["Recurrence", module.arguments]
    if kind is type(old) and kind not in _ARGUMENTS:
        tensors, counts = _changes(module, old) or ({}, {})
        return ["resized", tensors, counts]
    if kind not in _ARGUMENTS:
        raise TypeError(
            f"The new modules must be plain layers for a file to describe them, but one is {kind.__name__}."
        )
    plain = {name: getattr(module, name) for name in _ARGUMENTS[kind]}
    arguments = {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}
    if kind in _BIASED:
        arguments["bias"] = module.bias is not None
    return [kind.__name__, arguments]


def _changes(module: nn.Module, old: nn.Module) -> tuple[dict[str, Any], dict[str, int]] | None:
    """The tensors of other shapes (None: it is gone) and the counts of other values; None where nothing has changed."""
    tensors: dict[str, Any] = {}
    for here, there in ((module._parameters, old._parameters), (module._buffers, old._buffers)):
        for name in {*here, *there}:
            a, b = here.get(name), there.get(name)
            shape = None if a is None else list(a.shape)
            if shape != (None if b is None else list(b.shape)):
                tensors[name] = shape
    counts = {
        name: getattr(module, name)
        for name in COUNTS
        if isinstance(getattr(old, name, None), int) and getattr(module, name) != getattr(old, name)
    }
    return (tensors, counts) if tensors or counts else None


def tied(small: nn.Module, replaced: Container[str]) -> dict[str, str]:
    """The parameters of new modules that are another module's too, each with the first name of that.

    Modules of the original's own are tied by its code.
    """
    names: dict[nn.Parameter, str] = {}
    new: set[nn.Module] = set()
    result = {}
    for path, module in small.named_modules():
        if path in replaced:
            new |= {*module.modules()}
        for name, parameter in module._parameters.items():
            own = f"{path}.{name}"
            if parameter is not None and names.setdefault(parameter, own) != own and module in new:
                result[own] = names[parameter]
    return result


def unique(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a state, one of those that share the same memory."""
    seen: set[tuple[Any, ...]] = set()
    result = {}
    for name, tensor in state.items():
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        if tensor.numel() == 0 or key not in seen:
            result[name] = tensor.detach().contiguous()
            seen.add(key)
    return result
