"""Networks copied and taken apart: deep copies, modules replaced, BatchNorm folded into what is before it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from ketwork.networks.activations import device_of, is_placed, numbers, without_hooks

_BEFORE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_FOLDED = (
    1e-4  # relative; surgery that changes the output by more was unsound: something else reads the layer too
)


def copied(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode that shares nothing with the network.

    Raises:
        TypeError: the network cannot be copied.
    """
    try:
        twin = copy.deepcopy(model)
    except (RuntimeError, TypeError) as error:
        raise _not_copied(model, error) from error
    return twin.eval()


def sharing(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose numbers are the network's own: only what is replaced in it takes memory.

    Its parameters are others, of the same storage, and ask for no gradient. A network that lies on several devices, or
    elsewhere, is copied to the one that it runs on.
    """
    memo: dict[int, Any] = {}
    kept = dict(numbers(model))
    placed = is_placed(model)
    device = device_of(model) if placed else None
    for path, module in model.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        for name, parameter in module._parameters.items():
            if parameter is not None and id(parameter) not in memo:
                memo[id(parameter)] = nn.Parameter(
                    kept[prefix + name].detach().to(device), requires_grad=False
                )
        for name, buffer in module._buffers.items():
            if buffer is not None and id(buffer) not in memo:
                memo[id(buffer)] = kept[prefix + name].detach().to(device)
        if hasattr(module, "_hf_hook"):
            memo[id(module._hf_hook)] = module._hf_hook
    try:
        twin = copy.deepcopy(model, memo)
    except (RuntimeError, TypeError) as error:
        raise _not_copied(model, error) from error
    if placed:
        without_hooks(twin)
        if callable(tie := getattr(twin, "tie_weights", None)):
            tie()  # what is read from elsewhere was read twice
    return twin.eval()


def plain(model: nn.Module) -> nn.Module:
    """A copy as of `sharing` in the precision that fits are made in, with weights that are quantized made numbers.

    Networks of 16 bits are copied in float32: their gradients would underflow.
    """
    twin = sharing(model)
    for module in twin.modules():
        for name, parameter in module._parameters.items():
            if (
                parameter is not None
                and hasattr(parameter, "dequantize")
                and type(parameter.data) is not Tensor
            ):
                module._parameters[name] = nn.Parameter(parameter.dequantize(), requires_grad=False)
    dtypes = {p.dtype for p in twin.parameters() if p.is_floating_point()}
    if dtypes and all(dtype.itemsize < 4 for dtype in dtypes):
        twin = twin.float()
    return twin


def _not_copied(model: nn.Module, error: Exception) -> TypeError:
    return TypeError(
        f"Argument `model` must be a network that `copy.deepcopy` can copy, but a {type(model).__name__} "
        f"says: {error}."
    )


def resized(module: Any, tensors: Mapping[str, Tensor | None], **attributes: Any) -> Any:
    """A module of the same class and settings with other tensors and attributes: the same code on other sizes.

    Parameters stay parameters and buffers stay buffers; what is not named is shared with the module.
    """
    new = module.__class__.__new__(module.__class__)
    new.__dict__.update(module.__dict__)
    for name in ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks"):
        new.__dict__[name] = copy.copy(module.__dict__[name])
    for name, tensor in tensors.items():
        if name in new._buffers:
            new._buffers[name] = tensor
        else:
            new._parameters[name] = None if tensor is None else nn.Parameter(tensor, requires_grad=False)
    for name, value in attributes.items():
        setattr(new, name, value)
    return new


def replace(model: nn.Module, modules: Mapping[str, nn.Module]) -> None:
    """Puts each module in its place, by dotted path; what holds others comes first, so that they come into it."""
    for path, module in sorted(modules.items(), key=lambda item: item[0].count(".")):
        parent, _, name = path.rpartition(".")
        if path == "":  # parameters of the network itself
            model._parameters, model._buffers = module._parameters, module._buffers
        else:
            model.get_submodule(parent)._modules[name] = module


def fold_batchnorm(model: nn.Module, call: Callable[[nn.Module], Tensor]) -> dict[str, str]:
    """Folds each BatchNorm into the convolution or linear layer whose output it takes; which one, by path.

    A BatchNorm becomes an `nn.Identity`. Who feeds whom is seen in one `call(model)`, which must return a
    tensor; a fold that changes it (the layer's output is also used elsewhere) is taken back.
    """
    feeds = _feeders(model, call)
    if not feeds:
        return {}
    with torch.no_grad():
        before = call(model)
        undo = {norm: _fold(model, layer, norm) for norm, layer in feeds.items()}
        if same(before, call(model)):
            return feeds
        for norm in undo:
            replace(model, undo[norm])
        kept = {}
        for norm, layer in feeds.items():
            back = _fold(model, layer, norm)
            if same(before, call(model)):
                kept[norm] = layer
            else:
                replace(model, back)
    return kept


def _feeders(model: nn.Module, call: Callable[[nn.Module], Any]) -> dict[str, str]:
    """For each BatchNorm the layer whose output tensor was its input."""
    made: dict[int, tuple[str, Tensor]] = {}  # the tensors are kept, so that no id is used twice
    feeds: dict[str, str] = {}
    calls: dict[str, int] = {}

    def note(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            calls[path] = calls.get(path, 0) + 1
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                maker = made.get(id(inputs[0]))
                if maker is not None:
                    feeds[path] = maker[0]
            else:
                made[id(output)] = (path, output)

        return hook

    norms = [
        (path, module)
        for path, module in model.named_modules()
        if type(module) in _NORMS and module.running_var is not None
    ]
    if not norms:
        return {}
    makers = [(p, m) for p, m in model.named_modules() if isinstance(m, _BEFORE)]
    handles = [module.register_forward_hook(note(path)) for path, module in [*norms, *makers]]
    try:
        with torch.no_grad():
            call(model)
    finally:
        for handle in handles:
            handle.remove()
    once = {norm: layer for norm, layer in feeds.items() if calls[norm] == calls[layer] == 1}
    return {norm: layer for norm, layer in once.items() if _shared_by(layer, once.values()) == 1}


def _shared_by(layer: str, layers: Iterable[str]) -> int:
    return sum(layer == other for other in layers)


def _fold(model: nn.Module, layer: str, norm: str) -> dict[str, nn.Module]:
    """Folds one, and returns what `replace` needs to take it back."""
    old, batchnorm = model.get_submodule(layer), model.get_submodule(norm)
    fuse = fuse_linear_bn_eval if isinstance(old, nn.Linear) else fuse_conv_bn_eval
    replace(model, {layer: fuse(old, batchnorm), norm: nn.Identity().eval()})  # type: ignore[type-var, arg-type]
    return {layer: old, norm: batchnorm}


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two outputs differ by rounding alone."""
    scale = a.double().norm()
    return bool((a.double() - b.double()).norm() <= _FOLDED * scale)


def read_directly(
    model: nn.Module, paths: Iterable[tuple[str, ...]], call: Callable[[nn.Module], Any]
) -> dict[str, str]:
    """The layers, by their first path, in whose place no `nn.Sequential` can stand: other code reads their weight.

    Each is put into an `nn.Sequential` of its own and `call(model)` run: all together, and one by one where that fails.
    """
    modules = {path: model.get_submodule(path[0]) for path in paths}

    def fails(tried: Iterable[tuple[str, ...]]) -> str | None:
        for path in tried:
            replace(model, dict.fromkeys(path, nn.Sequential(modules[path]).eval()))
        try:
            with torch.no_grad():
                call(model)
        except (AttributeError, TypeError) as error:
            return f"the network's code reads its weight itself ({error})"
        finally:
            for path in tried:
                replace(model, dict.fromkeys(path, modules[path]))
        return None

    if fails(modules) is None:
        return {}
    reasons = {path[0]: fails([path]) for path in modules}
    return {path: reason for path, reason in reasons.items() if reason is not None}
